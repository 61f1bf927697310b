package partition

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/everlog/everlog/tier/record"
)

const now = int64(1_800_000_000_000)

func openRules() *rules {
	return &rules{maxBatchBytes: 1 << 20, segmentBytes: 1 << 20, keepCodec: true, level: record.DefaultLevel, beforeMaxMs: math.MaxInt64, afterMaxMs: 3_600_000}
}

func batchOf(t *testing.T, a record.Attrs, timestamps ...int64) record.Batch {
	t.Helper()
	b := record.NewBuilder(a)
	for i, ts := range timestamps {
		b.Append(ts, []byte{byte(i)}, []byte("value"))
	}
	batch, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

// resign renews the checksum after a test changed the header.
func resign(b record.Batch) record.Batch {
	binary.BigEndian.PutUint32(b[17:], b.Checksum())
	return b
}

func TestValidateInKafkasOrder(t *testing.T) {
	plain := func() record.Batch { return batchOf(t, record.Attrs{}, now, now+1) }
	for _, c := range []struct {
		name  string
		batch func() record.Batch
		rules func(*rules)
		want  error
	}{
		{"good", plain, nil, nil},
		{"base offset is not 0", func() record.Batch { b := plain(); b.Stamp(5, 0); return b }, nil, ErrInvalidRecord},
		{"larger than max.message.bytes", plain, func(r *rules) { r.maxBatchBytes = 80 }, ErrTooLarge},
		{"a bit flipped", func() record.Batch { b := plain(); b[70] ^= 1; return b }, nil, record.ErrCorrupt},
		{"size is looked at before the checksum", func() record.Batch { b := plain(); b[70] ^= 1; return b }, func(r *rules) { r.maxBatchBytes = 80 }, ErrTooLarge},
		{"count differs from the last delta", func() record.Batch { b := plain(); binary.BigEndian.PutUint32(b[57:], 3); return resign(b) }, nil, ErrInvalidRecord},
		{"fewer records than the header says", func() record.Batch {
			b := plain()
			binary.BigEndian.PutUint32(b[57:], 3)
			binary.BigEndian.PutUint32(b[23:], 2)
			return resign(b)
		}, nil, ErrInvalidRecord},
		{"no records", func() record.Batch {
			b := plain()
			binary.BigEndian.PutUint32(b[57:], 0)
			binary.BigEndian.PutUint32(b[23:], math.MaxUint32)
			return resign(b)
		}, nil, ErrInvalidRecord},
		{"control batch of a client", func() record.Batch { return batchOf(t, record.Attrs{Control: true}, now) }, nil, ErrInvalidRecord},
		{"producer id without sequence", func() record.Batch {
			return batchOf(t, record.Attrs{Idempotent: true, ProducerID: 4, BaseSequence: -1}, now)
		}, nil, ErrInvalidRecord},
		{"unknown codec", func() record.Batch { b := plain(); b[22] |= 7; return resign(b) }, nil, ErrInvalidRecord},
		{"log append time set by the producer", func() record.Batch { b := plain(); b.StampAppendTime(now); return b }, nil, ErrInvalidTimestamp},
		{"an hour ahead is the limit", func() record.Batch { return batchOf(t, record.Attrs{}, now+3_600_000) }, nil, nil},
		{"more than an hour ahead", func() record.Batch { return batchOf(t, record.Attrs{}, now, now+3_600_001) }, nil, ErrInvalidTimestamp},
		{"older than allowed", func() record.Batch { return batchOf(t, record.Attrs{}, now-11) }, func(r *rules) { r.beforeMaxMs = 10 }, ErrInvalidTimestamp},
		{"timestamps do not matter for LogAppendTime", func() record.Batch { return batchOf(t, record.Attrs{}, now+9_999_999) }, func(r *rules) { r.logAppendTime = true }, nil},
		{"no timestamp passes every limit", func() record.Batch { return batchOf(t, record.Attrs{}, -1) }, func(r *rules) { r.beforeMaxMs = 10 }, nil},
		{"larger than a segment", plain, func(r *rules) { r.segmentBytes = 70 }, ErrListTooLarge},
		{"no key on a compacted topic", func() record.Batch {
			b := record.NewBuilder(record.Attrs{Codec: record.LZ4})
			b.Append(now, []byte("k"), nil)
			b.Append(now, nil, []byte("v"))
			batch, _ := b.Build()
			return batch
		}, func(r *rules) { r.compacted = true }, ErrInvalidRecord},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := openRules()
			if c.rules != nil {
				c.rules(r)
			}
			_, err := r.validate(c.batch(), FromClient, now)
			if !errors.Is(err, c.want) || (err == nil) != (c.want == nil) {
				t.Fatalf("got %v, want %v", err, c.want)
			}
		})
	}
}

// A header with another largest timestamp than its records would mislead every search by time.
func TestValidateCorrectsTheLargestTimestamp(t *testing.T) {
	wrong := batchOf(t, record.Attrs{}, now-3, now-1, now-2)
	largest := wrong.MaxTimestamp()
	wrong.SetMaxTimestamp(5)
	b, err := openRules().validate(wrong, FromClient, now)
	if err != nil || b.MaxTimestamp() != largest || b.Verify() != nil {
		t.Fatalf("%v, largest timestamp %d, want %d", err, b.MaxTimestamp(), largest)
	}
}

func TestValidateNamesTheBadRecords(t *testing.T) {
	r := openRules()
	_, err := r.validate(batchOf(t, record.Attrs{Codec: record.Zstd}, now, now+9_000_000, now, now+8_000_000), FromClient, now)
	var be *BatchError
	if !errors.As(err, &be) || len(be.Records) != 2 || be.Records[0].Index != 1 || be.Records[1].Index != 3 {
		t.Fatalf("%v", err)
	}
}

func TestValidateRewrites(t *testing.T) {
	r := openRules()
	r.keepCodec, r.codec = false, record.Zstd
	b, err := r.validate(batchOf(t, record.Attrs{Codec: record.Gzip}, now-5, now-4), FromClient, now)
	if err != nil || b.Codec() != record.Zstd || b.Verify() != nil || b.Count() != 2 {
		t.Fatalf("%v %v", b, err)
	}
	if b, err := openRules().validate(batchOf(t, record.Attrs{Codec: record.Gzip}, now), FromClient, now); err != nil || b.Codec() != record.Gzip {
		t.Fatalf("compression.type=producer: %v %v", b, err)
	}
}

func TestEndOffsetForAgainstTheRule(t *testing.T) {
	history := []record.EpochStart{{Epoch: 2, Start: 0}, {Epoch: 5, Start: 100}, {Epoch: 6, Start: 130}}
	for _, c := range []struct {
		ask       record.LeaderEpoch
		wantEpoch record.LeaderEpoch
		wantEnd   record.Offset
	}{{6, 6, 200}, {5, 5, 130}, {4, 2, 100}, {3, 2, 100}, {2, 2, 100}, {1, 1, 0}, {0, 0, 0}, {7, record.NoEpoch, -1}, {-1, record.NoEpoch, -1}} {
		if e, o := endOffsetFor(history, c.ask, 200); e != c.wantEpoch || o != c.wantEnd {
			t.Errorf("epoch %d: (%d, %d), want (%d, %d)", c.ask, e, o, c.wantEpoch, c.wantEnd)
		}
	}
	if e, o := endOffsetFor(nil, 0, 10); e != record.NoEpoch || o != -1 {
		t.Errorf("empty history: (%d, %d)", e, o)
	}
}
