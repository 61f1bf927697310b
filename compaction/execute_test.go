package compaction

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

func TestRetentionPublishesThenDeletesAfterTheGrace(t *testing.T) {
	b := newBucket(t, 9, nil)
	d, before := b.deleter(), b.names()
	l, err := manifest.Open(t.Context(), b.store, testID, options())
	if err != nil {
		t.Fatal(err)
	}
	if err := AdvanceLogStart(t.Context(), l, 6, 24, d); !errors.Is(err, ErrNotClaimed) {
		t.Fatalf("without a claim: %v", err)
	}
	l = b.open(b.store, 6)
	if err := AdvanceLogStart(t.Context(), l, 6, 25, d); err != nil {
		t.Fatal(err)
	}
	m, _ := b.check()
	if m.LogStart() != 25 || m.Start() != 24 {
		t.Fatalf("log start %d, first segment %d", m.LogStart(), m.Start())
	}
	d.Step(t.Context())
	b.clock.at = b.clock.at.Add(time.Minute - 1)
	d.Step(t.Context())
	if got := b.names(); len(got) != len(before) {
		t.Fatalf("%d of %d objects left before the grace was over", len(got), len(before))
	}
	b.clock.at = b.clock.at.Add(1)
	d.Step(t.Context())
	b.clean()
	if got := len(before) - len(b.names()); got != 4+2 {
		t.Errorf("%d objects deleted, want 4 segments and 2 pages", got)
	}
	if err := AdvanceLogStart(t.Context(), l, 6, 10, d); err != nil || l.Manifest().LogStart() != 25 {
		t.Errorf("the log start went back to %d, %v", l.Manifest().LogStart(), err)
	}
}

func TestSweep(t *testing.T) {
	b := newBucket(t, 5, nil)
	l, d := b.open(b.store, 6), b.deleter()
	name := func(base, end record.Offset, epoch record.LeaderEpoch) string {
		return segment.ObjectName(testID, base, end, epoch, segment.NewUUID())
	}
	flying := name(30, 60, 6)
	kept := []string{flying, name(30, 99, 7), segment.Prefix(testID) + "seg/not-a-segment", segment.Prefix(testID) + "foreign",
		segment.Prefix(testID) + "page/junk"}
	gone := []string{name(0, 6, 5), name(3, 9, 4), name(30, 40, 5), name(30, 50, 6), // of this leader, given up
		manifest.PageName(testID, manifest.PageRef{First: 0, End: 12, Epoch: 5})}
	for _, n := range append(kept, gone...) {
		b.put(n, []byte("x"), nil)
	}
	other := segment.ObjectName(segment.Identity{Topic: record.TopicID{9}}, 0, 6, 1, segment.NewUUID())
	b.put(other, []byte("x"), nil)

	s := Sweep{Epoch: 6, InFlight: func() string { return flying }, Before: time.Now().Add(-time.Hour)}
	found, err := SweepOrphans(t.Context(), l, b.store, s, d)
	if want := (Swept{Orphans: 4, Kept: 5 + 1 + 3, Foreign: 3}); err != nil || found != want {
		t.Fatalf("%+v, %v; want %+v: the own one is too young", found, err, want)
	}
	d = b.deleter()
	s.Before = time.Now().Add(time.Hour)
	found, err = SweepOrphans(t.Context(), l, b.store, s, d)
	if want := (Swept{Orphans: 5, Kept: 5 + 1 + 2, Foreign: 3}); err != nil || found != want {
		t.Fatalf("%+v, %v; want %+v", found, err, want)
	}
	b.clock.at = b.clock.at.Add(time.Minute)
	d.Step(t.Context())
	names := b.names()
	for _, n := range kept {
		if !names[n] {
			t.Errorf("%s was deleted", n)
		}
	}
	for _, n := range gone {
		if names[n] {
			t.Errorf("%s was not deleted", n)
		}
	}
	if _, err := b.inner.Head(t.Context(), other); err != nil {
		t.Errorf("another partition's object: %v", err)
	}
	b.check()
	if _, err := SweepOrphans(t.Context(), l, b.store, Sweep{Epoch: 7}, d); !errors.Is(err, ErrNotClaimed) {
		t.Errorf("for another epoch: %v", err)
	}
}

// TestSweepGoesOnPastWhatItCannotJudge: a page that cannot be read protects the segments in its range, not the rest.
func TestSweepGoesOnPastWhatItCannotJudge(t *testing.T) {
	b := newBucket(t, 9, func(s object.Store) object.Store {
		return objecttest.NewFaulty(s, func(c objecttest.Call) objecttest.Fault {
			if c.Op == "get" && c.Name != manifest.RootName(testID) {
				return objecttest.Fault{Kind: objecttest.Before, Err: errBroken}
			}
			return objecttest.Fault{}
		})
	})
	l, d := b.open(b.store, 6), b.deleter()
	b.put(segment.ObjectName(testID, 0, 5, 5, segment.NewUUID()), nil, nil)
	b.put(segment.ObjectName(testID, 50, 60, 5, segment.NewUUID()), nil, nil)
	found, err := SweepOrphans(t.Context(), l, b.store, Sweep{Epoch: 6}, d)
	if !errors.Is(err, errBroken) || found.Orphans != 1 {
		t.Errorf("%+v, %v", found, err)
	}
}

func TestDeletePartitionLeavesTheTombstone(t *testing.T) {
	b := newBucket(t, 7, nil)
	l, err := manifest.Open(t.Context(), b.store, testID, options())
	if err != nil {
		t.Fatal(err)
	}
	d := b.deleter()
	for range 2 { // again, as after a crash
		if err := DeletePartition(t.Context(), l, b.store, d); !errors.Is(err, ErrUnfinished) {
			t.Fatalf("with objects left: %v", err)
		}
	}
	b.clock.at = b.clock.at.Add(time.Minute)
	d.Step(t.Context())
	if err := DeletePartition(t.Context(), l, b.store, d); err != nil {
		t.Fatal(err)
	}
	if n := len(b.names()); n != 0 {
		t.Errorf("%d objects left", n)
	}
	if err := l.Reload(t.Context()); err != nil || !l.Manifest().Deleted() {
		t.Errorf("tombstone: %v, %v", l.Manifest().Deleted(), err)
	}
	if err := l.Claim(t.Context(), 9); !errors.Is(err, manifest.ErrDeleted) {
		t.Errorf("claimed after the deletion: %v", err)
	}
}

// script is a leadership that retains, merges and sweeps, each until it works or three times; then it crashes.
func script(b *bucket, epoch record.LeaderEpoch, moveClock bool) {
	ctx := context.Background()
	var l *manifest.Log
	d := b.deleter()
	g := &Merger{Store: b.store, FS: b.fs, Scratch: "scratch", Deleter: d}
	logStart, start := record.Offset(0), record.Offset(8*(epoch-6)+6) // one inside a segment, one at a border
	jobs := []func() error{
		func() (err error) {
			if l, err = manifest.Open(ctx, b.store, testID, options()); err == nil {
				err = l.Claim(ctx, epoch)
			}
			return err
		},
		func() error { return AdvanceLogStart(ctx, l, epoch, start, d) },
		func() error {
			segs := l.Manifest().Root()
			from, to, ok := PlanMerge(segs, MergeOptions{MinCount: 2})
			if !ok {
				return nil
			}
			return g.Merge(ctx, l, epoch, segs[from:to])
		},
		func() error {
			_, err := SweepOrphans(ctx, l, b.store, Sweep{Epoch: epoch, Before: time.Now().Add(time.Hour)}, d)
			return err
		},
		func() error { return AdvanceLogStart(ctx, l, epoch, start+7, d) },
	}
	for _, job := range jobs {
		for range 3 {
			if l == nil {
				if err := jobs[0](); err != nil {
					b.checkStart(&logStart)
					continue
				}
			}
			err := job()
			b.checkStart(&logStart)
			if err == nil {
				break
			}
		}
		if moveClock {
			b.clock.at = b.clock.at.Add(time.Minute)
			d.Step(ctx)
			b.checkStart(&logStart)
		}
	}
	if n := b.fs.OpenFiles(); n != 0 {
		b.t.Fatalf("%d temporary files are open", n)
	}
}

// checkStart is check, and that the log start never goes back (invariant 30).
func (b *bucket) checkStart(last *record.Offset) {
	b.t.Helper()
	m, _ := b.check()
	if m.LogStart() < *last {
		b.t.Fatalf("log start went from %d to %d", *last, m.LogStart())
	}
	*last = m.LogStart()
}

// TestFaultAtEveryRequest breaks each request of two leaderships in each way; lost writes land in between or at the end.
// Nothing that is referred to may ever be missing or changed, and a last sweep must leave no orphan.
func TestFaultAtEveryRequest(t *testing.T) {
	leading := 0
	play := func(t *testing.T, when int, plan func(objecttest.Call) objecttest.Fault) int {
		var faulty *objecttest.Faulty
		b := newBucket(t, 8, func(s object.Store) object.Store { faulty = objecttest.NewFaulty(s, plan); return faulty })
		land := func() {
			for faulty.Late() > 0 {
				_ = faulty.ApplyLate(t.Context(), 0) // may be refused: that is the point
				b.check()
			}
		}
		leading = 6
		script(b, 6, when != 1)
		leading = 7
		if when == 0 {
			land()
		}
		script(b, 7, true)
		calls := faulty.Calls()
		land()
		last, d := b.open(b.inner, 8), NewDeleter(b.inner, time.Minute, b.clock.now)
		if _, err := SweepOrphans(t.Context(), last, b.inner, Sweep{Epoch: 8}, d); err != nil {
			t.Fatal(err)
		}
		b.clock.at = b.clock.at.Add(time.Minute)
		d.Step(t.Context())
		b.clean()
		return calls
	}
	calls := play(t, 0, nil)
	if calls < 30 {
		t.Fatalf("the script makes %d requests only", calls)
	}
	for _, kind := range []objecttest.Kind{objecttest.Before, objecttest.After, objecttest.Late, objecttest.Throttle, objecttest.Conflict,
		objecttest.SelfPrecondition, objecttest.Cut, objecttest.Omit} {
		for n := range calls {
			for when := range 3 {
				t.Run(fmt.Sprintf("%d/%d/%d", kind, n, when), func(t *testing.T) {
					play(t, when, func(c objecttest.Call) objecttest.Fault {
						if c.N == n {
							return objecttest.Fault{Kind: kind}
						}
						return objecttest.Fault{}
					})
				})
			}
		}
	}
	// No commit of the first leader gets an answer from some request on, while everything else works: what it would have
	// deleted must be there when the commits land, or do not.
	for _, kind := range []objecttest.Kind{objecttest.Before, objecttest.After, objecttest.Late} {
		for n := range calls / 2 {
			for when := range 3 {
				t.Run(fmt.Sprintf("commits/%d/%d/%d", kind, n, when), func(t *testing.T) {
					play(t, when, func(c objecttest.Call) objecttest.Fault {
						if c.N >= n && leading == 6 && c.Name == manifest.RootName(testID) && (c.Op == "put" || kind == objecttest.After) {
							return objecttest.Fault{Kind: kind}
						}
						return objecttest.Fault{}
					})
				})
			}
		}
	}
}
