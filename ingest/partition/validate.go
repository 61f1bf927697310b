package partition

import (
	"errors"
	"fmt"
	"math"

	"github.com/everlog/everlog/tier/record"
)

// Origin says who appends: clients may not write control batches.
type Origin int8

// Origins of a batch.
const (
	FromClient Origin = iota
	FromCoordinator
)

// noTimestamp is the timestamp of a record that has none: it passes every limit.
const noTimestamp = -1

// maxRecordErrors bounds the record errors of one answer.
const maxRecordErrors = 100

// rules are what a batch is checked against: the topic's settings at the moment.
type rules struct {
	maxBatchBytes int
	segmentBytes  int64
	// codec is what batches are stored in; keepCodec leaves the producer's.
	codec     record.Codec
	keepCodec bool
	level     record.Level
	// logAppendTime makes the broker's clock the timestamp.
	logAppendTime bool
	// beforeMaxMs and afterMaxMs bound how far timestamps may lie from now.
	beforeMaxMs, afterMaxMs int64
	compacted               bool
}

// validate checks a batch from a client by the rules of Kafka's UnifiedLog.analyzeAndValidateRecords and LogValidator,
// in their order, and returns the batch to append: b itself, its timestamps stamped if need be, or a recompressed copy.
func (r *rules) validate(b record.Batch, origin Origin, nowMs int64) (record.Batch, error) {
	if b.BaseOffset() != 0 {
		return nil, fmt.Errorf("%w: base offset is %d, want 0", ErrInvalidRecord, b.BaseOffset())
	}
	if b.Size() > r.maxBatchBytes && origin == FromClient { // a group of ten thousand members is one record
		return nil, fmt.Errorf("%w: %d bytes, max.message.bytes is %d", ErrTooLarge, b.Size(), r.maxBatchBytes)
	}
	if sum := b.Checksum(); sum != b.CRC() {
		return nil, fmt.Errorf("%w: CRC-32C is %08x, header says %08x", record.ErrCorrupt, sum, b.CRC())
	}
	if err := checkHeader(b, origin); err != nil {
		return nil, err
	}
	if origin == FromClient {
		if err := r.checkRecords(b, nowMs); err != nil {
			return nil, err
		}
	}
	return r.recompress(b, origin)
}

func checkHeader(b record.Batch, origin Origin) error {
	switch {
	case b.LastOffsetDelta() < 0 || b.Count() <= 0 || int64(b.LastOffsetDelta())+1 != int64(b.Count()):
		return fmt.Errorf("%w: %d records, last offset delta %d", ErrInvalidRecord, b.Count(), b.LastOffsetDelta())
	case b.Codec() > record.Zstd:
		return fmt.Errorf("%w: codec %d", ErrInvalidRecord, b.Codec())
	case b.IsControl() && origin == FromClient:
		return fmt.Errorf("%w: clients may not write control records", ErrInvalidRecord)
	case b.ProducerID() != record.NoProducer && b.BaseSequence() < 0 && origin == FromClient:
		return fmt.Errorf("%w: producer id %d with sequence %d", ErrInvalidRecord, b.ProducerID(), b.BaseSequence())
	}
	if origin == FromClient && b.LogAppendTime() {
		return fmt.Errorf("%w: producers may not set log append time", ErrInvalidTimestamp)
	}
	return nil
}

// checkRecords decodes every record: their number and offsets must be those of the header, compacted topics need keys,
// and timestamps must lie within the topic's bounds.
func (r *rules) checkRecords(b record.Batch, nowMs int64) error {
	bad := &BatchError{}
	refuse := func(kind error, index int32, format string, args ...any) {
		if bad.Err == nil {
			bad.Err = kind
		}
		if errors.Is(bad.Err, kind) && len(bad.Records) < maxRecordErrors {
			bad.Records = append(bad.Records, RecordError{Index: index, Message: fmt.Sprintf(format, args...)})
		}
	}
	earliest, latest := saturatedSub(nowMs, r.beforeMaxMs), saturatedAdd(nowMs, r.afterMaxMs)
	base, next, maxTime := b.BaseTimestamp(), int32(0), int64(math.MinInt64)
	err := b.Each(func(rec *record.Record) error {
		if rec.OffsetDelta != next {
			refuse(ErrInvalidRecord, next, "offset delta is %d, want %d", rec.OffsetDelta, next)
		}
		if r.compacted && rec.Key == nil {
			refuse(ErrInvalidRecord, next, "Compacted topic cannot accept message without key")
		}
		t := base + rec.TimestampDelta
		maxTime = max(maxTime, t)
		if !r.logAppendTime && t != noTimestamp && (t < earliest || t > latest) {
			refuse(ErrInvalidTimestamp, next, "Timestamp %d of message with offset %d is out of range. The timestamp should be within [%d, %d]", t, next, earliest, latest)
		}
		next++
		return nil
	})
	if errors.Is(err, record.ErrTooLarge) {
		return fmt.Errorf("%w: %w", ErrTooLarge, err) // producers split it
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalidRecord, err)
	}
	if bad.Err != nil {
		return bad
	}
	if !r.logAppendTime && maxTime != b.MaxTimestamp() {
		b.SetMaxTimestamp(maxTime) // indexes trust the header; Kafka corrects it too
	}
	return nil
}

func (r *rules) recompress(b record.Batch, origin Origin) (record.Batch, error) {
	if !r.keepCodec && b.Codec() != r.codec && origin == FromClient {
		nb, err := b.Recompress(r.codec, r.level)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalidRecord, err)
		}
		if nb.Size() > r.maxBatchBytes {
			return nil, fmt.Errorf("%w: %d bytes as %s, max.message.bytes is %d", ErrTooLarge, nb.Size(), r.codec, r.maxBatchBytes)
		}
		b = nb
	}
	if int64(b.Size()) > r.segmentBytes {
		return nil, fmt.Errorf("%w: %d bytes, segment.bytes is %d", ErrListTooLarge, b.Size(), r.segmentBytes)
	}
	return b, nil
}

func saturatedAdd(a, b int64) int64 {
	if b > 0 && a > math.MaxInt64-b {
		return math.MaxInt64
	}
	return a + b
}

func saturatedSub(a, b int64) int64 {
	if b > 0 && a < math.MinInt64+b {
		return math.MinInt64
	}
	return a - b
}
