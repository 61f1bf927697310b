package compaction

import (
	"fmt"
	"math"
	"math/rand"
	"slices"
	"testing"

	"github.com/everlog/everlog/tier/record"
)

func TestKeyMap(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	m, want := NewKeyMap(1000, 1<<20), map[string]record.Offset{}
	for range 5000 {
		k, o := fmt.Sprint(rng.Intn(1000)), record.Offset(rng.Intn(1<<20))
		if !m.Put([]byte(k), o) {
			t.Fatalf("a map for 1000 keys is full at %d", m.Len())
		}
		want[k] = max(want[k], o)
	}
	for k, o := range want {
		if got, ok := m.Get([]byte(k)); !ok || got != o {
			t.Fatalf("key %s at %d, want %d", k, got, o)
		}
	}
	if _, ok := m.Get([]byte("absent")); ok || m.Len() != len(want) {
		t.Errorf("an absent key is found, or %d keys are not %d", m.Len(), len(want))
	}
}

func TestKeyMapKeepsToItsMemory(t *testing.T) {
	m := NewKeyMap(math.MaxInt64/4, 2400)
	n := 0
	for m.Put(fmt.Append(nil, n), record.Offset(n)) {
		n++
	}
	if len(m.slots) != 100 || n != 75 {
		t.Errorf("%d keys in %d slots, want 75 in the 100 that fit into 2400 bytes", n, len(m.slots))
	}
	if !m.Put([]byte("0"), 99) {
		t.Error("a full map refuses a key that it knows")
	}
	if o, ok := m.Get([]byte("0")); !ok || o != 99 {
		t.Errorf("offset %d, %v", o, ok)
	}
}

func TestPlanKeys(t *testing.T) {
	const now, forever = 1_000_000, math.MaxInt64 / 1_000_000
	segs := []KeySegment{
		{Base: 10, End: 20, Bytes: 100, FirstTimestamp: 100, MaxTimestamp: 200},
		{Base: 20, End: 30, Bytes: 100, FirstTimestamp: 900_000, MaxTimestamp: 950_000},
		{Base: 30, End: 40, Bytes: 100, FirstTimestamp: 990_000, MaxTimestamp: 999_000},
	}
	for _, c := range []struct {
		name                  string
		ratio                 float64
		minLag, maxLag        int64
		limit, cleaned        record.Offset
		first, bound          record.Offset
		segments              int
		want                  float64
		due, overdue, nothing bool
	}{
		{name: "never compacted", ratio: 0.5, maxLag: forever, limit: 45, first: 10, bound: 40, segments: 3, want: 1, due: true},
		{name: "half of it is dirty: not more than the ratio", ratio: 0.5, maxLag: forever, limit: 35, cleaned: 20, first: 20, bound: 30, segments: 2, want: 0.5},
		{name: "more than the ratio", ratio: 0.4, maxLag: forever, limit: 35, cleaned: 20, first: 20, bound: 30, segments: 2, want: 0.5, due: true},
		{name: "an open transaction", ratio: 0, maxLag: forever, limit: 29, cleaned: 10, first: 10, bound: 20, segments: 1, want: 1, due: true},
		{name: "all is clean", ratio: 0, maxLag: 1, limit: 45, cleaned: 40, first: 40, bound: 40, segments: 3},
		{name: "young records stay", ratio: 0, minLag: 10_000, maxLag: forever, limit: 45, cleaned: 20, first: 20, bound: 30, segments: 2, want: 0.5, due: true},
		{name: "old records wait no longer", ratio: 0.9, maxLag: 50_000, limit: 45, cleaned: 20, first: 20, bound: 40, segments: 3, want: 2. / 3, due: true, overdue: true},
		{name: "records of that age are clean already", ratio: 0.9, maxLag: 50_000, limit: 45, cleaned: 30, first: 30, bound: 40, segments: 3, want: 1. / 3},
		{name: "the map was full inside a segment", ratio: 0.5, maxLag: forever, limit: 45, cleaned: 25, first: 25, bound: 40, segments: 3, want: 2. / 3, due: true},
		{name: "trimmed beyond what was clean", ratio: 0.5, maxLag: forever, limit: 45, cleaned: 3, first: 10, bound: 40, segments: 3, want: 1, due: true},
		{name: "no segments", nothing: true, limit: 45},
	} {
		in := KeyInput{KeyRules: KeyRules{c.ratio, c.minLag, c.maxLag}, NowMs: now, Limit: c.limit, Cleaned: c.cleaned, Segments: segs}
		if c.nothing {
			in.Segments = nil
		}
		want := KeyPlan{c.first, c.bound, c.segments, c.want, c.due, c.overdue}
		if got := PlanKeys(in); got != want {
			t.Errorf("%s:\n%+v, want\n%+v", c.name, got, want)
		}
	}
}

// TestPassThatDoesNotSeeAll: what lies below the start of a pass may need tombstones and markers that look as if nothing did.
func TestPassThatDoesNotSeeAll(t *testing.T) {
	tombstone := record.NewBuilder(record.Attrs{})
	tombstone.Append(1, []byte("k"), nil)
	tombstone.Append(1, []byte("k2"), []byte("v"))
	b, err := tombstone.Build()
	if err != nil {
		t.Fatal(err)
	}
	marker, aborted := markerBatch(7, true, 1), markerBatch(8, false, 1)
	log := []record.Batch{b, marker, aborted, slices.Clone(marker)}
	next := record.Offset(100)
	for _, b := range log {
		b.Stamp(next, 1)
		next = b.NextOffset()
	}
	for _, whole := range []bool{true, false} {
		left := log
		for pass := range 3 {
			p := NewKeyPass(KeyPassOptions{Start: 100, FirstDirty: 100, Bound: 1000, Whole: whole, NowMs: int64(10 * pass), TombstoneMs: 5, Keys: NewKeyMap(10, 1<<10),
				Aborted: []record.AbortedTxn{{ProducerID: 8, First: 50, Last: 103}}})
			var out []record.Batch
			for _, b := range left {
				if _, err := p.Index(b); err != nil {
					t.Fatal(err)
				}
			}
			for _, b := range left {
				k, err := p.Filter(b)
				if err != nil {
					t.Fatal(err)
				}
				if k != nil {
					out = append(out, slices.Clone(k))
				}
			}
			if left = out; len(p.Emptied()) > 0 {
				t.Errorf("a transaction that began before the pass is taken for empty")
			}
		}
		records := 0
		for _, b := range left {
			records += int(b.Count())
		}
		// The second marker's transaction began after the first one: all of it was seen. The abort marker's began before.
		if want := map[bool]int{true: 2, false: 4}[whole]; records != want {
			t.Errorf("whole=%v: %d records are left, want %d", whole, records, want)
		}
	}
}
