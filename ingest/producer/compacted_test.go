package producer

import (
	"testing"

	"github.com/everlog/everlog/tier/record"
)

func TestWhatCompactionIsTold(t *testing.T) {
	s := New(0)
	apply := func(id record.ProducerID, seq int32, base record.Offset) {
		w := record.NewBuilder(record.Attrs{Idempotent: true, ProducerID: id, ProducerEpoch: 2, BaseSequence: seq, Transactional: id > 1})
		w.Append(1, nil, nil)
		w.Append(1, nil, nil)
		b, err := w.Build()
		if err == nil {
			err = s.Apply(b, base, 1)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	end := func(id record.ProducerID, base record.Offset) {
		if err := s.Apply(Marker(id, 2, false, 1, 1), base, 1); err != nil {
			t.Fatal(err)
		}
	}
	apply(1, 0, 0)
	apply(2, 0, 2)
	apply(3, 0, 4)
	end(3, 6)
	end(2, 7)
	apply(1, 2, 8)
	end(4, 10)
	want := map[record.ProducerID]LastBatch{1: {10, 2}, 2: {4, 2}, 3: {6, 2}, 4: {-1, 2}}
	got := s.LastBatches()
	for id, l := range want {
		if got[id] != l {
			t.Errorf("producer %d: %+v, want %+v", id, got[id], l)
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d producers, want %d", len(got), len(want))
	}
	s.RemoveAborted(func(a record.AbortedTxn) bool { return a.Last == 6 })
	if left := s.Aborted(0, 100); len(left) != 1 || left[0].Last != 7 {
		t.Errorf("aborted transactions %v, want the one of producer 2", left)
	}
}
