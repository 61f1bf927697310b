package compaction

import (
	"encoding/binary"
	"fmt"

	"github.com/everlog/everlog/tier/record"
)

// Positions in a batch's header that a rewritten batch changes; record's map has all.
const (
	batchLength     = 8
	batchAttributes = 21
	batchBaseTime   = 27
	batchCount      = 57

	batchOverhead = 12 // bytes before what the length counts
	codecBits     = 0x07
	horizonBit    = 0x40
)

// rawRecord is one record where it lies in the records of a batch.
type rawRecord struct {
	all            []byte // with its length
	attributes     byte
	timestampDelta int64
	rest           []byte // from the offset delta on
	offsetDelta    int32
	key            []byte // nil is a null
	tombstone      bool
}

// parse reads one record from p and returns what follows.
func (r *rawRecord) parse(p []byte) ([]byte, error) {
	size, n := binary.Varint(p)
	if n <= 0 || size < 1 || size > int64(len(p)-n) {
		return nil, fmt.Errorf("%w: record length", record.ErrCorrupt)
	}
	end := n + int(size)
	r.all, r.attributes = p[:end], p[n]
	body := p[n+1 : end]
	if r.timestampDelta, n = binary.Varint(body); n <= 0 {
		return nil, fmt.Errorf("%w: timestamp delta", record.ErrCorrupt)
	}
	r.rest = body[n:]
	delta, n := binary.Varint(r.rest)
	if n <= 0 || delta != int64(int32(delta)) {
		return nil, fmt.Errorf("%w: offset delta", record.ErrCorrupt)
	}
	r.offsetDelta = int32(delta)
	body = r.rest[n:]
	length, n := binary.Varint(body)
	if n <= 0 || length < -1 || length > int64(len(body)-n) {
		return nil, fmt.Errorf("%w: key length", record.ErrCorrupt)
	}
	body, r.key = body[n:], nil
	if length >= 0 {
		r.key, body = body[:length:length], body[length:]
	}
	length, n = binary.Varint(body)
	if n <= 0 || length < -1 || length > int64(len(body)-n) {
		return nil, fmt.Errorf("%w: value length", record.ErrCorrupt)
	}
	r.tombstone = length < 0
	return p[end:], nil
}

// appendAt appends the record with another timestamp delta, all else as it is.
func (r *rawRecord) appendAt(p []byte, timestampDelta int64) []byte {
	var delta [binary.MaxVarintLen64]byte
	n := binary.PutVarint(delta[:], timestampDelta)
	p = binary.AppendVarint(p, int64(1+n+len(r.rest)))
	p = append(append(p, r.attributes), delta[:n]...)
	return append(p, r.rest...)
}

// rewriter makes batches with fewer records. It reuses its memory: what it returns is valid until it is used again.
type rewriter struct {
	raw     []byte // records, decompressed
	records []byte // records that stay
	out     []byte
	keep    []bool
}

// decompress returns the records of a batch.
func (w *rewriter) decompress(b record.Batch) ([]byte, error) {
	if b.Codec() == record.None {
		return b.Payload(), nil
	}
	p, err := record.Decompress(b.Codec(), w.raw, b.Payload())
	if err == nil && cap(p) <= maxReused {
		w.raw = p
	}
	return p, err
}

// maxReused keeps one huge batch from pinning its memory for the rest of a pass.
const maxReused = 4 << 20

// decide calls verdict with each record and remembers what it says in w.keep. It returns how many stay.
func (w *rewriter) decide(b record.Batch, records []byte, verdict func(*rawRecord) bool) (kept int, err error) {
	var r rawRecord
	w.keep = w.keep[:0]
	for i := range b.Count() {
		if records, err = r.parse(records); err != nil {
			return 0, fmt.Errorf("record %d of batch at %d: %w", i, b.BaseOffset(), err)
		}
		keep := verdict(&r)
		if keep {
			kept++
		}
		w.keep = append(w.keep, keep)
	}
	if len(records) != 0 {
		return 0, fmt.Errorf("%w: %d bytes follow the records of batch at %d", record.ErrCorrupt, len(records), b.BaseOffset())
	}
	return kept, nil
}

// rebuild returns the batch with the records that decide kept, in the batch's codec. If horizon is set, 0 or later, it
// becomes the delete horizon: the records' timestamps then count from it.
func (w *rewriter) rebuild(b record.Batch, records []byte, kept int, horizon int64) (record.Batch, error) {
	base, latest := b.BaseTimestamp(), int64(-1)
	var r rawRecord
	w.records = w.records[:0]
	for i := range w.keep {
		var err error
		if records, err = r.parse(records); err != nil {
			return nil, err
		}
		if !w.keep[i] {
			continue
		}
		at := base + r.timestampDelta
		latest = max(latest, at)
		if horizon < 0 {
			w.records = append(w.records, r.all...)
		} else {
			w.records = r.appendAt(w.records, at-horizon)
		}
	}
	out, err := record.Compress(b.Codec(), record.DefaultLevel, append(w.out[:0], b[:record.HeaderSize]...), w.records)
	if err != nil {
		return nil, err
	}
	if cap(out) <= maxReused {
		w.out = out
	}
	if cap(w.records) > maxReused {
		w.records = nil
	}
	attributes := uint16(b.Attributes())
	if horizon >= 0 {
		attributes |= horizonBit
		binary.BigEndian.PutUint64(out[batchBaseTime:], uint64(horizon))
	}
	if b.LogAppendTime() {
		latest = b.MaxTimestamp()
	}
	return finish(out, attributes, kept, latest), nil
}

// empty returns the batch's header alone, as Kafka keeps it: it still names the producer, its sequences and the offsets.
func (w *rewriter) empty(b record.Batch) record.Batch {
	out := append(w.out[:0], b[:record.HeaderSize]...)
	w.out = out
	binary.BigEndian.PutUint64(out[batchBaseTime:], ^uint64(0)) // none
	return finish(out, uint16(b.Attributes())&^(codecBits|horizonBit), 0, b.MaxTimestamp())
}

// finish sets what depends on the records, and the checksum.
func finish(out []byte, attributes uint16, count int, latest int64) record.Batch {
	binary.BigEndian.PutUint32(out[batchLength:], uint32(len(out)-batchOverhead))
	binary.BigEndian.PutUint16(out[batchAttributes:], attributes)
	binary.BigEndian.PutUint32(out[batchCount:], uint32(count))
	b := record.Batch(out)
	b.SetMaxTimestamp(latest)
	return b
}
