package client

import (
	"encoding/binary"
	"testing"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/tier/record"
)

// batch makes a batch of n records at an offset; emptied is what compaction leaves of one: its header, with a count of 0.
func batch(t *testing.T, base record.Offset, n int, control, emptied bool) []byte {
	t.Helper()
	b := record.NewBuilder(record.Attrs{Control: control, Transactional: control})
	for i := range n {
		b.Append(int64(i), []byte("k"), []byte("v"))
	}
	built, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	built.Stamp(base, 1)
	if emptied {
		built = built[:record.HeaderSize]
		binary.BigEndian.PutUint32(built[8:], record.HeaderSize-12)
		binary.BigEndian.PutUint32(built[57:], 0)
	}
	return built
}

// TestPass: a span moves over emptied and control batches, stops before records, and ends at its bound.
func TestPass(t *testing.T) {
	empty, control, data := batch(t, 10, 5, false, true), batch(t, 15, 1, true, false), batch(t, 16, 4, false, false)
	join := func(parts ...[]byte) []byte {
		var all []byte
		for _, p := range parts {
			all = append(all, p...)
		}
		return all
	}
	tests := []struct {
		name string
		data []byte
		next int64 // at first
		want int64
		on   bool
	}{
		{"nothing", nil, 10, 10, false},
		{"emptied", empty, 10, 15, true},
		{"emptied, from its middle", empty, 12, 15, true},
		{"emptied and control", join(empty, control), 10, 16, true},
		{"up to a record", join(empty, control, data), 10, 16, false},
		{"a record at once", data, 16, 16, false},
		{"records already read", data, 20, 20, false},
		{"cut off", join(empty, control[:20]), 10, 15, true},
	}
	for _, test := range tests {
		s := &span{from: 0, to: 100, next: test.next}
		if on := s.pass(test.data); on != test.on || s.next != test.want {
			t.Errorf("%s: on %t to %d, want %t to %d", test.name, on, s.next, test.on, test.want)
		}
	}
	s := &span{to: 13, next: 10}
	if s.pass(empty); !s.done() {
		t.Errorf("a bound inside an emptied batch: %+v", s)
	}
}

// TestSpanOfLists: the broker's answers become a span; -1 for a time after the last record is the end.
func TestSpanOfLists(t *testing.T) {
	list := func(offset int64) kadm.ListedOffsets {
		return kadm.ListedOffsets{"a": {0: {Topic: "a", Partition: 0, Offset: offset}}}
	}
	lists := &offsetLists{start: list(10), end: list(90), times: map[int64]kadm.ListedOffsets{1000: list(40), 2000: list(-1)}}
	q := question{topic: "a", offsets: grammar.Range{From: grammar.Bound{Kind: grammar.AtTime, Value: 1000}, To: grammar.Bound{Kind: grammar.AtTime, Value: 2000}}}
	s, err := lists.span(q, 0)
	if err != nil || s.from != 40 || s.to != 90 || s.next != 40 || s.end != 90 {
		t.Errorf("span %+v %v", s, err)
	}
	if _, err := lists.span(q, 1); err == nil {
		t.Error("a partition without an answer got a span")
	}
}
