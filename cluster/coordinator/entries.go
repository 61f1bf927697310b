package coordinator

import (
	"encoding/binary"
	"fmt"

	"github.com/everlog/everlog/tier/record"
)

// Control record types (Kafka's ControlRecordType).
const (
	controlAbort  = 0
	controlCommit = 1
)

// Entries calls fn with the entries of a batch in order.
func Entries(b record.Batch, fn func(record.Offset, Entry) error) error {
	e := Entry{Transactional: b.IsTransactional(), ProducerID: b.ProducerID(), ProducerEpoch: b.ProducerEpoch()}
	return b.Each(func(r *record.Record) error {
		offset := b.BaseOffset() + record.Offset(r.OffsetDelta)
		e.Key, e.Value, e.Timestamp = r.Key, r.Value, b.BaseTimestamp()+r.TimestampDelta
		if b.IsControl() {
			if len(r.Key) < 4 {
				return fmt.Errorf("%w: control record at %d has a key of %d bytes", record.ErrCorrupt, offset, len(r.Key))
			}
			kind := binary.BigEndian.Uint16(r.Key[2:])
			if kind != controlAbort && kind != controlCommit {
				return nil // not a transaction's
			}
			e.Key, e.Value, e.Marker, e.Commit = nil, nil, true, kind == controlCommit
		}
		return fn(offset, e)
	})
}

// maxBatch bounds the records of a built batch in bytes: a group of ten thousand members is one record of some MiB.
const maxBatch = 64 << 20

// build makes the record batch of a Batch.
func build(b Batch, nowMs int64) (record.Batch, error) {
	attrs := record.Attrs{}
	if b.Transactional {
		attrs = record.Attrs{Transactional: true, Idempotent: true, ProducerID: b.ProducerID, ProducerEpoch: b.ProducerEpoch, BaseSequence: -1}
	}
	w := record.NewBuilder(attrs)
	for _, r := range b.Records {
		w.Append(nowMs, r.Key, r.Value)
	}
	if w.Size() > maxBatch {
		return nil, fmt.Errorf("%w: %d bytes, allowed are %d", ErrTooLarge, w.Size(), maxBatch)
	}
	return w.Build()
}
