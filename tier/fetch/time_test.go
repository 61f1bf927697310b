package fetch

import (
	"math/rand"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
)

// firstSince looks at every record.
func (h *history) firstSince(t testing.TB, ts int64, from record.Offset) Found {
	t.Helper()
	found := none
	for _, b := range h.batches {
		err := b.Each(func(r *record.Record) error {
			o, at := b.BaseOffset()+record.Offset(r.OffsetDelta), b.BaseTimestamp()+r.TimestampDelta
			if found.Offset < 0 && o >= from && at >= ts {
				found = Found{o, at, b.LeaderEpoch()}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

func TestFindTimeFindsTheFirstRecord(t *testing.T) {
	h := varied(t, object.NewMemory())
	r, _ := h.reader(t, 1<<20)
	rng := rand.New(rand.NewSource(1))
	try := func(ts int64, from record.Offset) {
		t.Helper()
		got, err := r.FindTime(t.Context(), ts, from)
		if err != nil {
			t.Fatal(err)
		}
		if want := h.firstSince(t, ts, max(from, h.log.Manifest().LogStart())); got != want {
			t.Fatalf("first at or after %d from %d: %+v, want %+v", ts, from, got, want)
		}
	}
	first, last := int64(1_700_000_000_000)-50, h.clock+50
	for range 150 {
		try(first+rng.Int63n(last-first), record.Offset(rng.Int63n(int64(h.next))))
	}
	try(0, 0)
	try(last, 0)
	if _, err := h.log.SetLogStart(t.Context(), 50); err != nil {
		t.Fatal(err)
	}
	for range 50 {
		try(first+rng.Int63n(300), 0)
	}
}

func TestFindTimeReadsOneBlock(t *testing.T) {
	h := newHistory(t, object.NewMemory(), 9)
	for range 5 {
		h.add(t, shape{batches: 40, size: 60_000})
	}
	r, blocks := h.reader(t, 1<<20)
	if _, err := r.FindTime(t.Context(), h.clock-100, 0); err != nil {
		t.Fatal(err)
	}
	if len(blocks.have) != 1 || len(blocks.trace) != 0 {
		t.Fatalf("%d blocks were read, and ahead %v", len(blocks.have), blocks.trace)
	}
}

func TestWindow(t *testing.T) {
	const size = 8 << 20
	fast := progress{bytes: size, busy: time.Millisecond, entered: true, getSize: size, getTime: 20 * time.Millisecond}
	slow := progress{bytes: size, busy: time.Second, entered: true, getSize: size, getTime: 20 * time.Millisecond}
	middle := progress{bytes: size, busy: 20 * time.Millisecond, entered: true, getSize: size, getTime: 20 * time.Millisecond}
	inside := fast
	inside.entered = false
	lost := fast
	lost.lost = true
	for _, c := range []struct {
		name  string
		steps []progress
		want  []int
	}{
		{"a fast reader's window doubles with each GET's worth", []progress{fast, fast, fast, fast}, []int{1, 2, 4, 4}},
		{"reads inside one GET's worth do not count", []progress{inside, inside, fast, inside, inside}, []int{1, 1, 2, 2, 2}},
		{"a slow reader has one GET", []progress{slow, slow, slow}, []int{1, 1, 1}},
		{"one that takes a GET in the time of one has two", []progress{middle, middle, middle, middle}, []int{1, 2, 2, 2}},
		{"a reader that gets slow", []progress{fast, fast, fast, slow, slow}, []int{1, 2, 4, 1, 1}},
		{"eviction halves the window and rests", []progress{fast, fast, fast, lost, fast, fast, fast, fast, fast, fast, fast, fast, fast}, []int{1, 2, 4, 2, 2, 2, 2, 2, 2, 2, 2, 2, 4}},
		{"down to nothing, which is soon tried again", []progress{fast, lost, inside, fast, fast}, []int{1, 0, 0, 0, 1}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w window
			for i, p := range c.steps {
				if w.step(p); w.depth != c.want[i] {
					t.Fatalf("step %d: depth %d, want %d", i, w.depth, c.want[i])
				}
			}
		})
	}
}
