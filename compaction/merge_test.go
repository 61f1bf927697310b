package compaction

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

func TestPlanMerge(t *testing.T) {
	o := MergeOptions{Small: 10, Target: 40, MinCount: 4}
	for _, c := range []struct {
		name     string
		sizes    []int64
		from, to int
	}{
		{"nothing", nil, 0, 0},
		{"one", []int64{1}, 0, 0},
		{"too few, too small", []int64{1, 1, 1}, 0, 0},
		{"enough of them", []int64{1, 1, 1, 1}, 0, 4},
		{"few that fill half of the target", []int64{9, 9, 9}, 0, 3},
		{"large ones are left alone", []int64{10, 50, 10}, 0, 0},
		{"a large one divides", []int64{1, 1, 50, 1, 1, 1, 1, 50}, 3, 7},
		{"not beyond the target", []int64{9, 9, 9, 9, 9, 9}, 0, 4},
		{"the first run that is worth it", []int64{1, 50, 1, 1, 1, 1, 1, 50, 9, 9, 9, 9}, 2, 7},
	} {
		var segs []manifest.Segment
		for _, size := range c.sizes {
			segs = append(segs, manifest.Segment{Size: size})
		}
		from, to, ok := PlanMerge(segs, o)
		if from != c.from || to != c.to || ok != (c.to > 0) {
			t.Errorf("%s: [%d, %d) %v, want [%d, %d)", c.name, from, to, ok, c.from, c.to)
		}
	}
}

// footerOf reads the footer of an entry's object.
func footerOf(t *testing.T, b *bucket, s manifest.Segment) *segment.Footer {
	t.Helper()
	p, _, err := b.inner.Get(t.Context(), s.Object)
	if err != nil {
		t.Fatal(err)
	}
	f, err := segment.ParseFooter(p[s.Size-int64(s.FooterSize):])
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestMergeKeepsEverything(t *testing.T) {
	b := newBucket(t, 8, nil)
	l := b.open(b.store, 6)
	d := b.deleter()
	before := l.Manifest()
	old := slices.Clone(before.Root())
	var want []*segment.Footer
	for _, s := range old {
		want = append(want, footerOf(t, b, s))
	}
	g := &Merger{Store: b.store, FS: b.fs, Scratch: "scratch", Deleter: d}
	if err := g.Merge(t.Context(), l, 6, old); err != nil {
		t.Fatal(err)
	}
	m, _ := b.check()
	if len(m.Root()) != 1 || m.Start() != before.Start() || m.End() != before.End() {
		t.Fatalf("[%d, %d) in %d segments", m.Start(), m.End(), len(m.Root()))
	}
	if diff := cmp.Diff(before.Epochs(), m.Epochs()); diff != "" {
		t.Errorf("leader epochs:\n%s", diff)
	}
	s := m.Root()[0]
	f := footerOf(t, b, s)
	var records, aborted int64
	seen := map[record.AbortedTxn]bool{}
	for _, w := range want {
		records += w.Records
		for _, a := range w.Aborted {
			if !seen[a] {
				aborted++
			}
			seen[a] = true
			if !slices.Contains(f.Aborted, a) {
				t.Errorf("aborted transaction %+v is lost", a)
			}
		}
	}
	if s.Records != records || int64(s.Aborted) != aborted || len(old) < 4 || aborted == 0 {
		t.Errorf("%d records and %d aborted transactions, want %d and %d", s.Records, s.Aborted, records, aborted)
	}
	if string(f.Producers) != string(want[len(want)-1].Producers) {
		t.Errorf("producer snapshot %q, want the last one, %q", f.Producers, want[len(want)-1].Producers)
	}
	b.clock.at = b.clock.at.Add(time.Minute)
	d.Step(t.Context())
	b.clean()
	if names, err := b.fs.List("scratch"); err != nil || len(names) > 0 {
		t.Errorf("temporary files %v, %v", names, err)
	}
}

// TestMergeRefusesDamage: a bit that flipped in the store, or on the way, does not get a new checksum.
func TestMergeRefusesDamage(t *testing.T) {
	reads := 0
	for n := range 6 {
		corrupt := -1
		b := newBucket(t, 8, func(s object.Store) object.Store {
			return objecttest.NewFaulty(s, func(c objecttest.Call) objecttest.Fault {
				if c.Op == "read" {
					if reads++; reads == corrupt {
						return objecttest.Fault{Kind: objecttest.Corrupt}
					}
				}
				return objecttest.Fault{}
			})
		})
		l := b.open(b.store, 6)
		d := b.deleter()
		reads, corrupt = 0, n+1
		old := l.Manifest().Root()
		g := &Merger{Store: b.store, FS: b.fs, Scratch: "scratch", Deleter: d}
		if err := g.Merge(t.Context(), l, 6, old); !errors.Is(err, segment.ErrCorrupt) {
			t.Errorf("read %d damaged: %v", n, err)
		}
		if waiting, _, _ := d.Scheduled(); waiting > 0 || len(l.Manifest().Root()) != len(old) {
			t.Errorf("read %d damaged: %d objects to be deleted", n, waiting)
		}
	}
}

func TestMergeWithoutRoomChangesNothing(t *testing.T) {
	b := newBucket(t, 8, nil)
	l := b.open(b.store, 6)
	b.fs.SetCapacity(1000)
	before := b.names()
	g := &Merger{Store: b.store, FS: b.fs, Scratch: "scratch", Deleter: b.deleter()}
	if err := g.Merge(t.Context(), l, 6, l.Manifest().Root()); !errors.Is(err, vfs.ErrNoSpace) {
		t.Errorf("Merge = %v", err)
	}
	if diff := cmp.Diff(before, b.names()); diff != "" {
		t.Error(diff)
	}
	b.check()
}
