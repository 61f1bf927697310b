package producer

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/everlog/everlog/tier/record"
)

// data describes a batch of a test; its records are not made.
type data struct {
	id         record.ProducerID
	epoch      record.ProducerEpoch
	seq        int32
	count      int32
	txn        bool
	appendTime int64 // log append time if not 0
}

func (d data) batch() record.Batch {
	p := make([]byte, record.HeaderSize)
	be := binary.BigEndian
	be.PutUint32(p[8:], record.HeaderSize-12)
	p[16] = 2
	var attributes uint16
	if d.txn {
		attributes |= 0x10
	}
	if d.appendTime != 0 {
		attributes |= 0x08
	}
	be.PutUint16(p[21:], attributes)
	be.PutUint32(p[23:], uint32(d.count-1))
	be.PutUint64(p[35:], uint64(d.appendTime))
	be.PutUint64(p[43:], uint64(d.id))
	be.PutUint16(p[51:], uint16(d.epoch))
	be.PutUint32(p[53:], uint32(d.seq))
	be.PutUint32(p[57:], uint32(d.count))
	return record.Batch(p)
}

// add checks a batch and applies it at the state's end.
func add(t *testing.T, s *State, b record.Batch) {
	t.Helper()
	v, err := s.Check(b, 1000)
	if err != nil || v.Duplicate {
		t.Fatalf("Check = %+v, %v; want append", v, err)
	}
	if err := s.Apply(b, s.End(), 1000); err != nil {
		t.Fatal(err)
	}
}

func refused(t *testing.T, s *State, b record.Batch, want error) {
	t.Helper()
	before := string(s.Snapshot())
	if v, err := s.Check(b, 1000); !errors.Is(err, want) || v != (Verdict{}) {
		t.Fatalf("Check = %+v, %v; want %v", v, err, want)
	}
	if string(s.Snapshot()) != before {
		t.Fatal("Check changed the state")
	}
}

func TestDuplicateIsAnsweredWithTheOriginal(t *testing.T) {
	s := New(0)
	for i := range int32(Window + 1) {
		add(t, s, data{id: 7, seq: i * 10, count: 10, appendTime: 500 + int64(i)}.batch())
	}
	for i := int32(1); i <= Window; i++ {
		v, err := s.Check(data{id: 7, seq: i * 10, count: 10}.batch(), 2000)
		want := Verdict{true, record.Offset(i * 10), record.Offset(i*10 + 10), 500 + int64(i)}
		if err != nil || v != want {
			t.Fatalf("batch %d: %+v, %v; want %+v", i, v, err, want)
		}
	}
	refused(t, s, data{id: 7, seq: 0, count: 10}.batch(), ErrOutOfOrderSequence)  // fell out of the window
	refused(t, s, data{id: 7, seq: 50, count: 5}.batch(), ErrOutOfOrderSequence)  // overlaps, is not equal
	refused(t, s, data{id: 7, seq: 70, count: 10}.batch(), ErrOutOfOrderSequence) // a gap
	add(t, s, data{id: 7, seq: 60, count: 1}.batch())
	if v, _ := s.Check(data{id: 7, seq: 60, count: 1}.batch(), 0); v.AppendTimeMs != -1 {
		t.Fatalf("append time %d of a batch with the producer's timestamps, want -1", v.AppendTimeMs)
	}
}

func TestSequenceWraps(t *testing.T) {
	for name, c := range map[string]struct{ first, count, next, bad int32 }{
		"inside a batch": {math.MaxInt32 - 1, 4, 2, 3},
		"at its end":     {math.MaxInt32 - 1, 2, 0, 1},
		"just before":    {math.MaxInt32 - 2, 2, math.MaxInt32, 0},
	} {
		s := New(0)
		b := data{id: 1, seq: c.first, count: c.count}.batch()
		add(t, s, b)
		if v, err := s.Check(b, 0); !v.Duplicate || err != nil {
			t.Fatalf("%s: %+v %v, want a duplicate", name, v, err)
		}
		refused(t, s, data{id: 1, seq: c.bad, count: 1}.batch(), ErrOutOfOrderSequence)
		add(t, s, data{id: 1, seq: c.next, count: 1}.batch())
	}
}

func TestEpochs(t *testing.T) {
	s := New(0)
	add(t, s, data{id: 1, epoch: 3, seq: 77, count: 1}.batch()) // nothing known: any start
	refused(t, s, data{id: 1, epoch: 2, seq: 78, count: 1}.batch(), ErrInvalidEpoch)
	refused(t, s, data{id: 1, epoch: 4, seq: 78, count: 1}.batch(), ErrOutOfOrderSequence)
	add(t, s, data{id: 1, epoch: 4, seq: 0, count: 1}.batch())
	refused(t, s, data{id: 1, epoch: 3, seq: 77, count: 1}.batch(), ErrInvalidEpoch) // the old window is gone
	add(t, s, Marker(1, 6, false, 0, 5))                                             // a marker adopts its epoch
	refused(t, s, data{id: 1, epoch: 6, seq: 1, count: 1}.batch(), ErrOutOfOrderSequence)
	add(t, s, data{id: 1, epoch: 6, seq: 0, count: 1}.batch())
}

func TestVersion2Rules(t *testing.T) {
	s := New(0)
	first := data{id: 1, epoch: 0, seq: 5, count: 1, txn: true}.batch()
	if _, err := s.CheckV2(first, 0); !errors.Is(err, ErrOutOfOrderSequence) {
		t.Fatalf("start at 5: %v", err)
	}
	if _, err := s.CheckV2(data{id: 1, seq: 5, count: 1}.batch(), 0); err != nil {
		t.Fatalf("an idempotent producer may start anywhere: %v", err)
	}
	add(t, s, data{id: 1, epoch: 0, seq: 0, count: 1, txn: true}.batch())
	if _, err := s.CheckV2(Marker(1, 0, true, 0, 0), 0); !errors.Is(err, ErrInvalidEpoch) {
		t.Fatalf("marker of the transaction's own epoch: %v", err)
	}
	for range 2 { // the second is the repetition
		if _, err := s.CheckV2(Marker(1, 1, true, 0, 0), 0); err != nil {
			t.Fatal(err)
		}
		add(t, s, Marker(1, 1, true, 0, 0))
	}
	if _, err := s.CheckV2(Marker(1, 0, true, 0, 0), 0); !errors.Is(err, ErrInvalidEpoch) {
		t.Fatalf("late marker of the old epoch: %v", err)
	}
}

func TestTransactionsHoldBackTheLastStableOffset(t *testing.T) {
	s := New(0)
	add(t, s, data{id: -1, epoch: -1, seq: -1, count: 10}.batch())
	add(t, s, data{id: 1, count: 5, txn: true}.batch())         // 10..14
	add(t, s, data{id: 2, count: 5, txn: true}.batch())         // 15..19
	add(t, s, data{id: 1, seq: 5, count: 5, txn: true}.batch()) // 20..24
	refused(t, s, data{id: 1, seq: 10, count: 1}.batch(), ErrInvalidTxnState)
	if got := s.LastStable(8); got != 8 {
		t.Fatalf("last stable %d under a high watermark of 8", got)
	}
	if got := s.LastStable(25); got != 10 {
		t.Fatalf("last stable %d, want 10", got)
	}
	add(t, s, Marker(1, 0, false, 3, 0)) // 25
	refused(t, s, Marker(1, 0, true, 2, 0), ErrCoordinatorFenced)
	if s.SetHighWatermark(25); s.LastStable(25) != 10 {
		t.Fatalf("last stable %d: the marker at 25 is not below the high watermark 25", s.LastStable(25))
	}
	if s.SetHighWatermark(26); s.LastStable(26) != 15 {
		t.Fatalf("last stable %d, want 15", s.LastStable(26))
	}
	add(t, s, Marker(2, 0, true, 3, 0)) // 26
	if s.SetHighWatermark(27); s.LastStable(27) != 27 || s.OpenTxns() != 0 {
		t.Fatalf("last stable %d with %d open", s.LastStable(27), s.OpenTxns())
	}
	add(t, s, Marker(2, 0, false, 3, 0)) // of a transaction without records here
	want := []record.AbortedTxn{{ProducerID: 1, First: 10, Last: 25, LastStable: 15}}
	if diff := cmp.Diff(want, s.Aborted(0, 100)); diff != "" {
		t.Fatal(diff)
	}
	for _, r := range [][2]record.Offset{{0, 10}, {26, 100}} {
		if got := s.Aborted(r[0], r[1]); got != nil {
			t.Fatalf("Aborted(%v) = %v", r, got)
		}
	}
	if s.ForgetAborted(25); len(s.Aborted(0, 100)) != 1 {
		t.Fatal("the marker at 25 belongs to the segment that begins there")
	}
	if s.ForgetAborted(26); len(s.Aborted(0, 100)) != 0 {
		t.Fatal("not forgotten")
	}
}

func TestExpiry(t *testing.T) {
	s := New(100)
	add(t, s, data{id: 1, seq: 0, count: 1}.batch())
	add(t, s, data{id: 2, seq: 0, count: 1, txn: true}.batch())
	old := data{id: 1, seq: 9, count: 1}.batch()
	if _, err := s.Check(old, 1099); !errors.Is(err, ErrOutOfOrderSequence) {
		t.Fatalf("before its time: %v", err)
	}
	if _, err := s.Check(old, 1100); err != nil {
		t.Fatalf("an expired producer may start anywhere: %v", err)
	}
	if n := s.Expire(1099); n != 0 {
		t.Fatalf("%d expired early", n)
	}
	if n := s.Expire(math.MaxInt64); n != 1 {
		t.Fatalf("%d expired, want 1: never one with an open transaction", n)
	}
	want := []Producer{{ID: 2, LastTimestampMs: 1000, CoordinatorEpoch: -1, TxnStart: 1}}
	if diff := cmp.Diff(want, s.Producers()); diff != "" {
		t.Fatal(diff)
	}
}

func TestContradictingBatches(t *testing.T) {
	s := New(0)
	refused(t, s, data{id: 1, seq: -1, count: 1}.batch(), ErrInvalidBatch)
	refused(t, s, data{id: 1, epoch: -1, count: 1}.batch(), ErrInvalidBatch)
	refused(t, s, data{id: -1, epoch: -1, seq: -1, count: 1, txn: true}.batch(), ErrInvalidBatch)
	m := Marker(1, 0, true, 0, 0)
	if err := m.Verify(); err != nil {
		t.Fatal(err)
	}
	for cut := range len(m) - record.HeaderSize - 1 { // the last byte counts headers, which a marker has none of
		refused(t, s, m[:record.HeaderSize+cut], record.ErrCorrupt)
	}
}

func TestIdempotentPathDoesNotAllocate(t *testing.T) {
	s := New(0)
	b := data{id: 1, count: 10}.batch()
	add(t, s, b)
	seq := int32(0)
	if n := testing.AllocsPerRun(1000, func() {
		seq += 10
		binary.BigEndian.PutUint32(b[53:], uint32(seq))
		if v, err := s.Check(b, 1000); err != nil || v.Duplicate {
			t.Fatal(v, err)
		}
		if err := s.Apply(b, s.End(), 1000); err != nil {
			t.Fatal(err)
		}
		s.SetHighWatermark(s.End())
	}); n != 0 {
		t.Fatalf("%v allocations a batch", n)
	}
}

func BenchmarkCheckApply(b *testing.B) {
	s := New(0)
	p := data{id: 1, count: 10}.batch()
	b.ReportAllocs()
	for i := range b.N {
		binary.BigEndian.PutUint32(p[53:], uint32(int32(i*10)&math.MaxInt32))
		if v, err := s.Check(p, 0); err != nil || v.Duplicate {
			s = New(0) // after 2^31 records the multiples of 10 do not continue
		}
		_ = s.Apply(p, s.End(), 0)
	}
}
