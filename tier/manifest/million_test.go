package manifest

import (
	"testing"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
)

// A partition of a million segments (128 TB at the default segment size) opens with one GET of a small root, and any of
// its segments is one more away, or none if its page is cached.
func TestMillionSegments(t *testing.T) {
	const total, batch = 1_000_000, 25_000
	mem := object.NewMemory()
	l := claimed(t, mem, 1, Options{})
	segs := make([]Segment, 0, batch)
	for n := 0; n < total; n += batch {
		segs = segs[:0]
		for i := n; i < n+batch; i++ {
			segs = append(segs, seg(record.Offset(i)*1000, record.Offset(i+1)*1000, 1, 1, 1, i))
		}
		if err := l.Append(bg, segs...); err != nil {
			t.Fatal(err)
		}
	}
	store, calls := count(mem)
	m := open(t, store, Options{}).Manifest()
	root, err := mem.Head(bg, RootName(testID))
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d pages, %d root entries, root of %d bytes", len(m.Pages()), len(m.Root()), root.Size)
	if m.Count() != total || m.End() != total*1000 || calls["get"] != 1 || len(calls) != 1 {
		t.Fatalf("%d segments up to %d, opened with %v", m.Count(), m.End(), calls)
	}
	if len(m.Root()) < 2048 || len(m.Root()) >= 4096 || root.Size > 300<<10 {
		t.Fatalf("root of %d entries and %d bytes", len(m.Root()), root.Size)
	}
	find := func(o record.Offset, gets int) {
		t.Helper()
		calls["get"] = 0
		s, ok, err := m.Find(bg, store, o)
		if err != nil || !ok || s.Base > o || s.End <= o {
			t.Fatalf("Find(%d): [%d, %d) %v %v", o, s.Base, s.End, ok, err)
		}
		if calls["get"] != gets {
			t.Fatalf("Find(%d) cost %d GETs, want %d", o, calls["get"], gets)
		}
	}
	find(m.End()-1, 0)
	find(m.Root()[0].Base, 0)
	find(123_456_789, 1)
	find(123_456_790, 0)
	find(0, 1)
	calls["get"] = 0
	if s, ok, err := m.FindTime(bg, store, 500_000_000*10); err != nil || !ok || s.Base != 500_000_000 || calls["get"] != 1 {
		t.Fatalf("FindTime: [%d, %d) %v %v with %d GETs", s.Base, s.End, ok, err, calls["get"])
	}
}

// BenchmarkAppend is the cost of one commit on a full root, the store's latency aside.
func BenchmarkAppend(b *testing.B) {
	mem := object.NewMemory()
	l := claimed(b, mem, 1, Options{})
	var segs []Segment
	for i := range 2048 {
		segs = append(segs, seg(record.Offset(i), record.Offset(i+1), 1, 1, 1, i))
	}
	if err := l.Append(bg, segs...); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	i := len(segs)
	for b.Loop() {
		if err := l.Append(bg, seg(record.Offset(i), record.Offset(i+1), 1, 1, 1, i)); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkOpen decodes the root of a million segments.
func BenchmarkOpen(b *testing.B) {
	mem := object.NewMemory()
	l := claimed(b, mem, 1, Options{})
	var segs []Segment
	for i := range 4000 {
		segs = append(segs, seg(record.Offset(i), record.Offset(i+1), 1, 1, 1, i))
	}
	if err := l.Append(bg, segs...); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		open(b, mem, Options{})
	}
}
