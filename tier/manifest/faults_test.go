package manifest

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
	"github.com/everlog/everlog/tier/record"
)

// recorder keeps every root that was ever in the store, in order: the true history, which no client sees.
type recorder struct {
	object.Store
	roots [][]byte
	puts  map[string]int
}

func (r *recorder) Put(ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
	v, err := r.Store.Put(ctx, name, body, o)
	if err == nil && name == RootName(testID) {
		p := make([]byte, body.Size())
		_, _ = body.ReadAt(p, 0)
		r.roots = append(r.roots, p)
	} else if err == nil {
		r.puts[name]++
	}
	return v, err
}

// writer is one broker's view of the log: its own store, which fails, and its own claim.
type writer struct {
	store *objecttest.Faulty
	log   *Log
	epoch record.LeaderEpoch
	busy  bool
	retry []Segment // of an append with an unknown outcome
}

// outcome is what writers were told about the appends of one object.
type outcome struct{ ok, unknown, failed bool }

// nemesis runs writers against each other over a store that fails.
type nemesis struct {
	t        *testing.T
	rng      *rand.Rand
	store    *recorder
	writers  []*writer
	outcomes map[string]*outcome
	number   int
	epoch    record.LeaderEpoch // the newest that was granted to anyone
	depth    int
	calm     bool
	unknowns int
}

func (n *nemesis) plan(w *writer) func(objecttest.Call) objecttest.Fault {
	return func(c objecttest.Call) objecttest.Fault {
		if n.calm {
			return objecttest.Fault{}
		}
		if n.depth < 2 && n.rng.Intn(12) == 0 { // others get in between
			n.depth++
			n.step()
			n.depth--
		}
		if n.rng.Intn(3) > 0 {
			return objecttest.Fault{}
		}
		kinds := []objecttest.Kind{objecttest.Before, objecttest.Throttle, objecttest.Corrupt}
		if c.Op == "put" {
			kinds = append(kinds, objecttest.After, objecttest.After, objecttest.Late, objecttest.Late, objecttest.Conflict, objecttest.SelfPrecondition)
		}
		return objecttest.Fault{Kind: kinds[n.rng.Intn(len(kinds))]}
	}
}

// idle picks a writer that is not in the middle of something.
func (n *nemesis) idle() *writer {
	for range 10 {
		if w := n.writers[n.rng.Intn(len(n.writers))]; !w.busy {
			return w
		}
	}
	return nil
}

// step does one thing with one writer.
func (n *nemesis) step() {
	w := n.idle()
	if w == nil {
		return
	}
	w.busy = true
	defer func() { w.busy = false }()
	if w.store.Late() > 0 && n.rng.Intn(3) == 0 {
		_ = w.store.ApplyLate(bg, n.rng.Intn(w.store.Late())) // nobody learns the answer
		return
	}
	if w.log == nil || n.rng.Intn(25) == 0 { // start, or restart
		o := quick
		o.Attempts = 1 + n.rng.Intn(4)
		l, err := Open(bg, w.store, testID, o)
		if w.log = l; err != nil {
			w.log = nil
			return
		}
		w.epoch, w.retry = record.NoEpoch, nil
	}
	var err error
	switch k := n.rng.Intn(10); {
	case w.epoch == record.NoEpoch || k == 0:
		n.epoch++
		e := n.epoch
		if err = w.log.Claim(bg, e); err == nil {
			w.epoch = e
		}
	case k == 1:
		o := w.log.Manifest().LogStart() + record.Offset(n.rng.Intn(12))
		_, err = w.log.SetLogStart(bg, min(o, w.log.Manifest().End()+2))
	case k == 2:
		err = n.replace(w)
	case k == 3:
		err = w.log.Reload(bg)
	default:
		err = n.append(w)
	}
	if errors.Is(err, ErrFenced) {
		w.log = nil // deposed: start again
	} else {
		n.mustBeHistory(w.log.Manifest())
	}
}

// mustBeHistory fails if a writer takes for committed what was never in the store.
func (n *nemesis) mustBeHistory(m *Manifest) {
	if m.version == 0 {
		return
	}
	if int(m.version) > len(n.store.roots) {
		n.t.Fatalf("version %d is known, %d were written", m.version, len(n.store.roots))
	}
	if got := decoded(n.t, n.store.roots[m.version-1]); got.nonce != m.nonce {
		n.t.Fatalf("version %d has nonce %x in the store, a writer knows %x", m.version, got.nonce, m.nonce)
	}
}

func (n *nemesis) append(w *writer) error {
	segs := w.retry
	if segs == nil || n.rng.Intn(4) == 0 {
		segs = nil
		m := w.log.Manifest()
		base, last := m.End(), w.epoch
		if k := len(m.epochs); k > 0 && n.rng.Intn(2) == 0 {
			last = m.epochs[k-1].Epoch
		}
		for range 1 + n.rng.Intn(3) {
			n.number++
			segs = append(segs, seg(base, base+1+record.Offset(n.rng.Intn(4)), last, last, w.epoch, n.number))
			base = segs[len(segs)-1].End
			last = w.epoch
		}
	}
	err := w.log.Append(bg, segs...)
	w.retry = nil
	for _, s := range segs {
		o := n.outcomes[s.Object]
		if o == nil {
			o = &outcome{}
			n.outcomes[s.Object] = o
		}
		switch {
		case err == nil:
			o.ok = true
		case errors.Is(err, ErrUnknown):
			o.unknown = true
			w.retry = segs
		default:
			o.failed = true
		}
	}
	if errors.Is(err, ErrUnknown) {
		n.unknowns++
	}
	return err
}

func (n *nemesis) replace(w *writer) error {
	root := w.log.Manifest().Root()
	if len(root) < 2 {
		return nil
	}
	from := n.rng.Intn(len(root) - 1)
	old := root[from : from+2]
	n.number++
	s := seg(old[0].Base, old[1].End, old[0].FirstEpoch, old[1].LastEpoch, w.epoch, n.number)
	s.Records = 0
	return w.log.Replace(bg, old, []Segment{s})
}

func decoded(t *testing.T, p []byte) *Manifest {
	t.Helper()
	m, err := decodeRoot(p, testID, NewPageCache(1000))
	if err != nil {
		t.Fatalf("a root in the store: %v", err)
	}
	return m
}

// checkHistory verifies the versions one after the other, and what writers were told against what happened.
func (n *nemesis) checkHistory() {
	t := n.t
	seen := map[string]bool{}
	prev := newManifest(testID, nil)
	var before []Segment
	for i, p := range n.store.roots {
		m := decoded(t, p)
		if m.version != uint64(i+1) {
			t.Fatalf("version %d is the %dth root", m.version, i+1)
		}
		if err := checkStep(prev, m); err != nil {
			t.Fatal(err)
		}
		now := all(t, m, n.store.Store)
		if err := checkRun(now, m.start, m.end); err != nil {
			t.Fatalf("version %d: %v", m.version, err)
		}
		for _, s := range now {
			seen[s.Object] = true
			isNew := !slices.ContainsFunc(before, func(o Segment) bool { return o.Object == s.Object })
			if isNew && (s.Epoch != m.claim || m.claim != prev.claim) {
				t.Fatalf("version %d, claimed by %d after %d: a commit of epoch %d", m.version, m.claim, prev.claim, s.Epoch)
			}
		}
		for _, s := range before {
			gone := !slices.ContainsFunc(now, func(o Segment) bool { return o.Base <= s.Base && o.End >= s.End })
			if gone && s.End > m.logStart {
				t.Fatalf("version %d lost [%d, %d)", m.version, s.Base, s.End)
			}
		}
		prev, before = m, now
	}
	for name, o := range n.outcomes {
		if o.ok && !seen[name] {
			t.Fatalf("%s was reported committed and never was", name)
		}
		if o.failed && !o.unknown && !o.ok && seen[name] {
			t.Fatalf("%s was reported as never committed and is in the history", name)
		}
	}
	for name, k := range n.store.puts {
		if k > 1 {
			t.Fatalf("%s was written %d times", name, k)
		}
	}
}

func runNemesis(t *testing.T, seed int64) *nemesis {
	n := &nemesis{t: t, rng: rand.New(rand.NewSource(seed)), outcomes: map[string]*outcome{}, store: &recorder{Store: object.NewMemory(), puts: map[string]int{}}}
	for range 3 {
		w := &writer{epoch: record.NoEpoch}
		w.store = objecttest.NewFaulty(n.store, n.plan(w))
		n.writers = append(n.writers, w)
	}
	for range 150 {
		n.step()
	}
	// The store heals: what is late arrives, and a new leader goes on.
	n.calm = true
	late := func() {
		for _, w := range n.writers {
			for w.store.Late() > 0 {
				_ = w.store.ApplyLate(bg, n.rng.Intn(w.store.Late()))
			}
		}
	}
	if n.rng.Intn(2) == 0 {
		late()
	}
	n.epoch++
	l := claimed(t, n.writers[0].store, n.epoch, quick)
	n.number++
	if err := l.Append(bg, seg(l.Manifest().End(), l.Manifest().End()+5, n.epoch, n.epoch, n.epoch, n.number)); err != nil {
		t.Fatal(err)
	}
	late()
	n.mustBeHistory(l.Manifest())
	if err := l.Reload(bg); err != nil {
		t.Fatal(err)
	}
	if int(l.Manifest().Version()) != len(n.store.roots) {
		t.Fatalf("a late request made a version: %d are known, %d written", l.Manifest().Version(), len(n.store.roots))
	}
	n.checkHistory()
	return n
}

// Invariants 24-27, 30 and 32 under lost answers, late and repeated requests, throttling, conflicts, damage, restarts and
// three writers that depose each other in the middle of things. One seed is one exact history.
func TestCommitsUnderFaults(t *testing.T) {
	commits, unknowns := 0, 0
	for seed := range int64(200) {
		ok := t.Run(fmt.Sprint(seed), func(t *testing.T) {
			n := runNemesis(t, seed)
			commits, unknowns = commits+len(n.store.roots), unknowns+n.unknowns
		})
		if !ok {
			return
		}
	}
	if commits < 10_000 || unknowns < 600 {
		t.Fatalf("the test tests little: %d commits, %d unknown outcomes", commits, unknowns)
	}
	t.Logf("%d commits, %d appends with an unknown outcome", commits, unknowns)
}
