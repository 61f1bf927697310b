package manifest

import (
	"errors"
	"math/rand"
	"slices"
	"testing"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
)

func TestAbsentManifestIsEmptyAndNotWritten(t *testing.T) {
	mem := object.NewMemory()
	store, calls := count(mem)
	l := open(t, store, Options{})
	m := l.Manifest()
	if m.End() != 0 || m.Start() != 0 || m.LogStart() != 0 || m.ClaimEpoch() != record.NoEpoch || m.Version() != 0 || m.Count() != 0 {
		t.Fatalf("an absent manifest is %+v", m)
	}
	if _, ok, err := m.Find(bg, store, 0); ok || err != nil {
		t.Fatalf("found a segment in it: %v", err)
	}
	if calls["get"] != 1 || calls["put"] != 0 {
		t.Fatalf("requests: %v", calls)
	}
}

func TestAppendChecks(t *testing.T) {
	mem := object.NewMemory()
	l := open(t, mem, quick)
	first := seg(0, 10, 4, 5, 5, 1)
	if err := l.Append(bg, first); !errors.Is(err, ErrFenced) {
		t.Fatalf("append without a claim: %v", err)
	}
	if err := l.Claim(bg, 5); err != nil {
		t.Fatal(err)
	}
	if err := l.Append(bg, first); err != nil {
		t.Fatal(err)
	}
	broken := func(change func(s *Segment)) Segment {
		s := seg(10, 20, 5, 5, 5, 2)
		change(&s)
		return s
	}
	for name, c := range map[string]struct {
		s    Segment
		want error
	}{
		"gap":            {seg(11, 20, 5, 5, 5, 2), ErrGap},
		"overlap":        {seg(9, 20, 5, 5, 5, 2), ErrGap},
		"other object":   {seg(0, 10, 4, 5, 5, 3), ErrGap},
		"older epoch":    {seg(10, 20, 4, 5, 5, 2), ErrLineage},
		"older writer":   {broken(func(s *Segment) { s.Epoch, s.FirstEpoch, s.LastEpoch = 4, 4, 4 }), ErrFenced},
		"newer writer":   {seg(10, 20, 5, 5, 6, 2), ErrFenced},
		"future epoch":   {seg(10, 20, 5, 6, 5, 2), ErrInvalid},
		"no epochs":      {broken(func(s *Segment) { s.FirstEpoch = 4 }), ErrInvalid},
		"empty":          {seg(10, 10, 5, 5, 5, 2), ErrInvalid},
		"no object":      {broken(func(s *Segment) { s.Object = "" }), ErrInvalid},
		"footer too big": {broken(func(s *Segment) { s.FooterSize = 1 << 20 }), ErrInvalid},
		"size overflows": {broken(func(s *Segment) { s.Position, s.Size = 1, 1<<63-1 }), ErrInvalid},
		"same bytes":     {broken(func(s *Segment) { s.Object = first.Object; s.Position = 500 }), ErrInvalid},
	} {
		if err := l.Append(bg, c.s); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := l.Append(bg, first, seg(10, 20, 5, 5, 5, 2), seg(21, 22, 5, 5, 5, 3)); !errors.Is(err, ErrGap) || l.Manifest().End() != 10 {
		t.Errorf("half an append happened: %v, end %d", err, l.Manifest().End())
	}
	if err := l.Append(bg, first, seg(10, 20, 5, 5, 5, 2)); err != nil || l.Manifest().End() != 20 {
		t.Errorf("an append that is half there: %v, end %d", err, l.Manifest().End())
	}
	version := l.Manifest().Version()
	if err := l.Append(bg, first); err != nil || l.Manifest().Version() != version {
		t.Errorf("an append that is all there: %v, version %d after %d", err, l.Manifest().Version(), version)
	}
	if want := []record.EpochStart{{Epoch: 4, Start: 0}, {Epoch: 5, Start: 1}}; !slices.Equal(l.Manifest().Epochs(), want) {
		t.Errorf("epochs %v, want %v", l.Manifest().Epochs(), want)
	}
}

// A segment whose epoch began before the remote log's end, where the remote log has an older one, is of another history.
func TestAppendRefusesAnotherLineage(t *testing.T) {
	l := claimed(t, object.NewMemory(), 7, quick)
	if err := l.Append(bg, seg(0, 100, 4, 4, 7, 1)); err != nil {
		t.Fatal(err)
	}
	s := seg(100, 200, 6, 6, 7, 2)
	s.Epochs = []record.EpochStart{{Epoch: 6, Start: 90}}
	if err := l.Append(bg, s); !errors.Is(err, ErrLineage) {
		t.Fatalf("%v", err)
	}
	s.Epochs[0].Start = 100
	if err := l.Append(bg, s); err != nil {
		t.Fatal(err)
	}
}

func TestLimitIsAsserted(t *testing.T) {
	o := quick
	o.Limit = func() record.Offset { return 15 }
	l := claimed(t, object.NewMemory(), 1, o)
	if err := l.Append(bg, seg(0, 10, 1, 1, 1, 1), seg(10, 20, 1, 1, 1, 2)); !errors.Is(err, ErrInvalid) {
		t.Fatalf("committed beyond the high watermark: %v", err)
	}
	if err := l.Append(bg, seg(0, 10, 1, 1, 1, 1)); err != nil {
		t.Fatal(err)
	}
}

func TestFencing(t *testing.T) {
	mem := object.NewMemory()
	old := claimed(t, mem, 3, quick)
	if err := old.Append(bg, seg(0, 10, 3, 3, 3, 1)); err != nil {
		t.Fatal(err)
	}
	newer := claimed(t, mem, 4, quick)
	if newer.Manifest().End() != 10 {
		t.Fatalf("the new leader starts at %d", newer.Manifest().End())
	}
	for name, do := range map[string]func() error{
		"append":    func() error { return old.Append(bg, seg(10, 20, 3, 3, 3, 2)) },
		"log start": func() error { _, err := old.SetLogStart(bg, 5); return err },
		"replace": func() error {
			return old.Replace(bg, []Segment{seg(0, 10, 3, 3, 3, 1)}, []Segment{seg(0, 10, 3, 3, 3, 9)})
		},
		"claim": func() error { return old.Claim(bg, 3) },
	} {
		if err := do(); !errors.Is(err, ErrFenced) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if old.Manifest().ClaimEpoch() != 4 || old.Pending() {
		t.Errorf("the deposed leader sees claim %d, pending %t", old.Manifest().ClaimEpoch(), old.Pending())
	}
	if err := newer.Append(bg, seg(10, 20, 3, 3, 4, 3)); err != nil {
		t.Error(err)
	}
}

func TestDeleteIsFinal(t *testing.T) {
	mem := object.NewMemory()
	l := claimed(t, mem, 3, quick)
	if err := l.Append(bg, seg(0, 10, 3, 3, 3, 1)); err != nil {
		t.Fatal(err)
	}
	if err := open(t, mem, quick).Delete(bg); err != nil {
		t.Fatal(err)
	}
	for name, err := range map[string]error{
		"append": l.Append(bg, seg(10, 20, 3, 3, 3, 2)), "claim": l.Claim(bg, 9), "claim anew": open(t, mem, quick).Claim(bg, 10),
	} {
		if !errors.Is(err, ErrDeleted) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m := open(t, mem, quick).Manifest()
	if !m.Deleted() || len(all(t, m, mem)) != 1 {
		t.Error("a tombstone must still name the objects to delete")
	}
}

func TestSkipPastTheEnd(t *testing.T) {
	mem := object.NewMemory()
	l := claimed(t, mem, 3, quick)
	if err := l.Append(bg, seg(0, 10, 2, 3, 3, 1)); err != nil {
		t.Fatal(err)
	}
	removed, err := l.SetLogStart(bg, 50)
	if err != nil || len(removed) != 1 || l.Manifest().End() != 50 || l.Manifest().Start() != 50 {
		t.Fatalf("%v, removed %d, [%d, %d)", err, len(removed), l.Manifest().Start(), l.Manifest().End())
	}
	if err := l.Append(bg, seg(10, 60, 3, 3, 3, 2)); !errors.Is(err, ErrGap) {
		t.Fatalf("append below the skip: %v", err)
	}
	if err := l.Append(bg, seg(50, 60, 2, 2, 3, 2)); !errors.Is(err, ErrLineage) {
		t.Fatalf("an older epoch after the skip: %v", err)
	}
	if err := l.Append(bg, seg(50, 60, 3, 3, 3, 2)); err != nil {
		t.Fatal(err)
	}
	if m := open(t, mem, quick).Manifest(); m.Start() != 50 || m.End() != 60 || m.LogStart() != 50 {
		t.Fatalf("reopened: [%d, %d) log start %d", m.Start(), m.End(), m.LogStart())
	}
}

// model is a manifest as a plain list.
type model struct {
	segs     []Segment
	logStart record.Offset
	end      record.Offset
	epochs   []record.EpochStart
}

func (md *model) setLogStart(o record.Offset) []Segment {
	if o <= md.logStart {
		return nil
	}
	md.logStart, md.end = o, max(o, md.end)
	var removed []Segment
	for len(md.segs) > 0 && md.segs[0].End <= o {
		removed, md.segs = append(removed, md.segs[0]), md.segs[1:]
	}
	return removed
}

func (md *model) check(t *testing.T, m *Manifest, store object.Store) {
	t.Helper()
	start := md.end
	if len(md.segs) > 0 {
		start = md.segs[0].Base
	}
	if m.Start() != start || m.End() != md.end || m.LogStart() != md.logStart {
		t.Fatalf("[%d, %d) log start %d; want [%d, %d), %d", m.Start(), m.End(), m.LogStart(), start, md.end, md.logStart)
	}
	if got := all(t, m, store); !equal(got, md.segs) {
		t.Fatalf("segments\n%v\nwant\n%v", got, md.segs)
	}
	for o := md.logStart - 3; o < md.end+3; o += 3 {
		i := slices.IndexFunc(md.segs, func(s Segment) bool { return s.End > o })
		s, ok, err := m.Find(bg, store, o)
		if err != nil || ok != (i >= 0) || ok && s.Object != md.segs[i].Object {
			t.Fatalf("Find(%d) = [%d, %d), %v, %v", o, s.Base, s.End, ok, err)
		}
		ts := int64(o) * 10
		i = slices.IndexFunc(md.segs, func(s Segment) bool { return s.MaxTimestamp >= ts })
		s, ok, err = m.FindTime(bg, store, ts)
		if err != nil || ok != (i >= 0) || ok && s.Object != md.segs[i].Object {
			t.Fatalf("FindTime(%d) = [%d, %d), %v, %v", ts, s.Base, s.End, ok, err)
		}
	}
	for o := start; o < md.end; o++ {
		if got, want := epochAt(m.Epochs(), o), epochAt(md.epochs, o); got != want && len(md.segs) > 0 {
			t.Fatalf("epoch of %d is %d, want %d", o, got, want)
		}
	}
}

func epochAt(epochs []record.EpochStart, o record.Offset) record.LeaderEpoch {
	e := record.NoEpoch
	for _, s := range epochs {
		if s.Start <= o {
			e = s.Epoch
		}
	}
	return e
}

// Random edits against the plain list, reopened after each.
func TestEditsAgainstModel(t *testing.T) {
	for seed := range int64(20) {
		rng := rand.New(rand.NewSource(seed))
		mem := object.NewMemory()
		var md model
		epoch := record.LeaderEpoch(1)
		l := claimed(t, mem, epoch, quick)
		number := 0
		last := epoch // of the newest record
		next := func(base record.Offset) Segment {
			number++
			first := last
			if last < epoch && rng.Intn(3) == 0 {
				last++
			}
			s := seg(base, base+2+record.Offset(rng.Intn(8)), first, last, epoch, number)
			if rng.Intn(5) == 0 {
				s.MinTimestamp, s.MaxTimestamp, s.MaxTimestampOffset = -1, -1, -1
			}
			if rng.Intn(8) == 0 {
				s.Object = "elsewhere"
				s.Position = int64(number) * 5000
			}
			return s
		}
		for range 60 {
			switch rng.Intn(8) {
			case 0:
				epoch++
				l = claimed(t, mem, epoch, quick)
			case 1:
				o := md.logStart + record.Offset(rng.Intn(30))
				if rng.Intn(4) > 0 {
					o = min(o, md.end)
				}
				removed, err := l.SetLogStart(bg, o)
				if want := md.setLogStart(o); err != nil || !equal(removed, want) {
					t.Fatalf("seed %d: log start %d removed %v, want %v, %v", seed, o, removed, want, err)
				}
			case 2:
				if len(md.segs) == 0 {
					continue
				}
				from := rng.Intn(len(md.segs))
				to := from + 1 + rng.Intn(min(len(md.segs)-from, 12))
				old := slices.Clone(md.segs[from:to])
				number++
				merged := seg(old[0].Base, old[len(old)-1].End, old[0].FirstEpoch, old[len(old)-1].LastEpoch, epoch, number)
				if err := l.Replace(bg, old, []Segment{merged}); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
				if err := l.Replace(bg, old, []Segment{merged}); err != nil {
					t.Fatalf("seed %d: repeated: %v", seed, err)
				}
				md.segs = slices.Concat(md.segs[:from], []Segment{stored(merged)}, md.segs[to:])
			default:
				var segs []Segment
				for range 1 + rng.Intn(9) {
					s := next(md.end)
					md.epochs = append(md.epochs, s.Epochs...)
					if len(s.Epochs) == 0 {
						md.epochs = append(md.epochs, record.EpochStart{Epoch: s.FirstEpoch, Start: s.Base})
					}
					segs = append(segs, s)
					md.segs, md.end = append(slices.Clip(md.segs), stored(s)), s.End
				}
				if err := l.Append(bg, segs...); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
			md.check(t, l.Manifest(), mem)
			md.check(t, open(t, mem, quick).Manifest(), mem)
			if n := len(l.Manifest().Root()); n >= quick.RootSegments+quick.PageSegments+1 {
				t.Fatalf("seed %d: %d entries in the root", seed, n)
			}
		}
		checkPages(t, l, mem)
	}
}

// checkPages verifies that no page in use was called unreferenced, and that all others were.
func checkPages(t *testing.T, l *Log, mem *object.Memory) {
	t.Helper()
	if err := mem.Delete(bg, l.Unreferenced()...); err != nil {
		t.Fatal(err)
	}
	all(t, open(t, mem, quick).Manifest(), mem)
	if len(l.Unreferenced()) != 0 {
		t.Fatal("unreferenced pages are told twice")
	}
}
