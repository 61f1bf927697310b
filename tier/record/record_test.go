package record

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

var codecs = []Codec{None, Gzip, Snappy, LZ4, Zstd}

type plain struct {
	time       int64
	key, value []byte
	headers    []Header
}

func sample(n int) []plain {
	var rs []plain
	for i := range n {
		r := plain{time: 1_700_000_000_000 + int64(i*i%977), value: []byte(strings.Repeat(fmt.Sprintf("value %d ", i), i%50))}
		if i%3 > 0 {
			r.key = fmt.Appendf(nil, "key-%d", i)
		}
		if i%7 == 0 {
			r.value = nil
		}
		if i%5 == 0 {
			r.headers = []Header{{"trace", []byte{1, 2, byte(i)}}, {"", nil}}
		}
		rs = append(rs, r)
	}
	return rs
}

func build(t testing.TB, a Attrs, rs []plain) Batch {
	t.Helper()
	b := NewBuilder(a)
	for _, r := range rs {
		b.Append(r.time, r.key, r.value, r.headers...)
	}
	batch, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

func check(t *testing.T, b Batch, want []plain) {
	t.Helper()
	i := 0
	err := b.Each(func(r *Record) error {
		w := want[i]
		hs, err := r.Headers()
		if err != nil {
			return err
		}
		same := b.BaseTimestamp()+r.TimestampDelta == w.time && r.OffsetDelta == int32(i) && bytes.Equal(r.Key, w.key) && bytes.Equal(r.Value, w.value) &&
			(r.Key == nil) == (w.key == nil) && (r.Value == nil) == (w.value == nil) && fmt.Sprint(hs) == fmt.Sprint(w.headers)
		if !same {
			t.Fatalf("record %d is %+v, want %+v", i, r, w)
		}
		i++
		return nil
	})
	if err != nil || i != len(want) {
		t.Fatalf("%d of %d records, %v", i, len(want), err)
	}
}

func TestBuildThenRead(t *testing.T) {
	for _, c := range codecs {
		t.Run(c.String(), func(t *testing.T) {
			rs := sample(300)
			b := build(t, Attrs{Codec: c, Idempotent: true, ProducerID: 7, ProducerEpoch: 2, BaseSequence: 1<<31 - 10}, rs)
			if err := b.Verify(); err != nil {
				t.Fatal(err)
			}
			check(t, b, rs)
			b.Stamp(1000, 5)
			if b.Verify() != nil || b.BaseOffset() != 1000 || b.NextOffset() != 1300 || b.LeaderEpoch() != 5 || b.Codec() != c {
				t.Fatalf("stamped batch: %v", b[:HeaderSize])
			}
			if b.LastSequence() != 289 { // 2^31-10 + 299, wrapped
				t.Fatalf("last sequence %d", b.LastSequence())
			}
			got, rest, err := Next(append(append(Batch{}, b...), 1, 2, 3))
			if err != nil || len(rest) != 3 || !bytes.Equal(got, b) {
				t.Fatalf("Next: %v, %d left", err, len(rest))
			}
		})
	}
}

func TestRecompressKeepsRecords(t *testing.T) {
	rs := sample(100)
	for _, from := range codecs {
		for _, to := range codecs {
			b := build(t, Attrs{Codec: from, Transactional: true, Idempotent: true, ProducerID: 9, BaseSequence: 4}, rs)
			nb, err := b.Recompress(to, DefaultLevel)
			if err != nil || nb.Verify() != nil || nb.Codec() != to || !nb.IsTransactional() || nb.BaseSequence() != 4 {
				t.Fatalf("%s to %s: %v", from, to, err)
			}
			check(t, nb, rs)
		}
	}
}

// The header must be what kmsg, generated from Kafka's own definitions, reads.
func TestHeaderAsKmsgReadsIt(t *testing.T) {
	b := build(t, Attrs{Codec: LZ4, Idempotent: true, ProducerID: 77, ProducerEpoch: 3, BaseSequence: 12}, sample(10))
	b.Stamp(123456789012, 42)
	var k kmsg.RecordBatch
	if err := k.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	if k.FirstOffset != 123456789012 || k.PartitionLeaderEpoch != 42 || k.ProducerID != 77 || k.ProducerEpoch != 3 || k.FirstSequence != 12 ||
		k.NumRecords != 10 || k.LastOffsetDelta != 9 || k.Attributes != b.Attributes() || uint32(k.CRC) != b.CRC() || k.MaxTimestamp != b.MaxTimestamp() {
		t.Fatalf("%+v", k)
	}
	ms := time.Now().UnixMilli()
	b.StampAppendTime(ms)
	if b.Verify() != nil || !b.LogAppendTime() || b.MaxTimestamp() != ms {
		t.Fatal("log append time")
	}
}

func TestDamageIsSeen(t *testing.T) {
	b := build(t, Attrs{Codec: Zstd}, sample(50))
	for i := posCRC; i < len(b); i++ {
		b[i] ^= 0x10
		if err := b.Verify(); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
		b[i] ^= 0x10
	}
	for n := range len(b) {
		if _, _, err := Next(b[:n]); !errors.Is(err, ErrShort) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func TestFalseLengthsCostNoMemory(t *testing.T) {
	bomb, err := Compress(Zstd, DefaultLevel, nil, make([]byte, MaxDecompressed+1))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decompress(Zstd, nil, bomb); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("zstd bomb: %v", err)
	}
	// A raw snappy block that claims 4 GiB.
	if _, err := Decompress(Snappy, nil, []byte{0xff, 0xff, 0xff, 0xff, 0x0f, 0}); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("snappy bomb: %v", err)
	}
}

func TestTopicIDText(t *testing.T) {
	for range 1000 {
		id := NewTopicID()
		got, err := ParseTopicID(id.String())
		if err != nil || got != id || id.String()[0] == '-' {
			t.Fatal(id, got, err)
		}
	}
	if _, err := ParseTopicID("short"); err == nil {
		t.Fatal("short id accepted")
	}
}

func FuzzBatch(f *testing.F) {
	for _, c := range codecs {
		f.Add([]byte(build(f, Attrs{Codec: c}, sample(20))))
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		b, rest, err := Next(p)
		if err != nil {
			if !errors.Is(err, ErrShort) && !errors.Is(err, ErrCorrupt) {
				t.Fatal(err)
			}
			return
		}
		if len(b)+len(rest) != len(p) {
			t.Fatal("bytes lost")
		}
		_ = b.Verify()
		n := int32(0)
		err = b.Each(func(r *Record) error {
			n++
			_, err := r.Headers()
			return err
		})
		if err == nil && n != b.Count() && b.Count() > 0 {
			t.Fatalf("%d records, header says %d", n, b.Count())
		}
		if err != nil && !errors.Is(err, ErrCorrupt) {
			t.Fatal(err)
		}
	})
}

func BenchmarkEach(b *testing.B) {
	rs := make([]plain, 64)
	for i := range rs {
		rs[i] = plain{time: int64(i), value: make([]byte, 1024)}
	}
	batch := build(b, Attrs{}, rs)
	b.SetBytes(int64(len(batch)))
	b.ReportAllocs()
	for b.Loop() {
		if err := batch.Verify(); err != nil {
			b.Fatal(err)
		}
		if err := batch.Each(func(*Record) error { return nil }); err != nil {
			b.Fatal(err)
		}
	}
}
