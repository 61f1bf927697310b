package manifest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
)

// faults makes a store whose n-th put and get from now on fail as given, and a trace of the requests.
func faults(inner object.Store) (store *objecttest.Faulty, plan map[string][]objecttest.Kind, trace *[]string) {
	plan, trace = map[string][]objecttest.Kind{}, new([]string)
	return objecttest.NewFaulty(inner, func(c objecttest.Call) objecttest.Fault {
		name := "root"
		if strings.HasPrefix(c.Name, PagePrefix(testID)) {
			name = "page"
		}
		*trace = append(*trace, c.Op+" "+name)
		var f objecttest.Fault
		if p := plan[c.Op]; len(p) > 0 {
			f.Kind, plan[c.Op] = p[0], p[1:]
		}
		return f
	}), plan, trace
}

// What each way of not knowing costs in requests, and how it ends. An extra request is a diff.
func TestRequestsOfACommit(t *testing.T) {
	k := func(kinds ...objecttest.Kind) []objecttest.Kind { return kinds }
	for name, c := range map[string]struct {
		put, get []objecttest.Kind
		trace    string
	}{
		"clean":                       {nil, nil, "put root"},
		"answer lost":                 {k(objecttest.After), nil, "put root, get root"},
		"lost to itself":              {k(objecttest.SelfPrecondition), nil, "put root, get root"},
		"answer and read lost":        {k(objecttest.After), k(objecttest.Before), "put root, get root, put root, get root"},
		"request lost":                {k(objecttest.Before), nil, "put root, get root, put root"},
		"throttled twice":             {k(objecttest.Throttle, objecttest.Throttle), nil, "put root, get root, put root, get root, put root"},
		"conflict":                    {k(objecttest.Conflict), nil, "put root, get root, put root"},
		"late, then damaged on read":  {k(objecttest.Late), k(objecttest.Corrupt), "put root, get root, put root"},
		"late, then answer lost also": {k(objecttest.Late, objecttest.After), nil, "put root, get root, put root, get root"},
	} {
		store, plan, trace := faults(object.NewMemory())
		l := claimed(t, store, 1, quick)
		*trace = nil
		plan["put"], plan["get"] = c.put, c.get
		if err := l.Append(bg, seg(0, 10, 1, 1, 1, 1)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if got := strings.Join(*trace, ", "); got != c.trace {
			t.Errorf("%s: %s; want %s", name, got, c.trace)
		}
		for store.Late() > 0 {
			if err := store.ApplyLate(bg, 0); !errors.Is(err, object.ErrPrecondition) {
				t.Errorf("%s: a request decided long ago took effect: %v", name, err)
			}
		}
		if err := l.Reload(bg); err != nil || l.Manifest().End() != 10 || l.Manifest().Version() != 2 || l.Pending() {
			t.Errorf("%s: %v, end %d, version %d, pending %t", name, err, l.Manifest().End(), l.Manifest().Version(), l.Pending())
		}
	}
}

// Refused before anything could happen: one request, no retry, nothing pending.
func TestRefusedCommitIsNotPending(t *testing.T) {
	inner := object.NewMemory()
	denied := objecttest.NewFaulty(inner, func(c objecttest.Call) objecttest.Fault {
		if c.Op == "put" {
			return objecttest.Fault{Kind: objecttest.Before, Err: object.ErrDenied}
		}
		return objecttest.Fault{}
	})
	l := open(t, denied, quick)
	if err := l.Claim(bg, 1); !errors.Is(err, object.ErrDenied) || errors.Is(err, ErrUnknown) || l.Pending() || denied.Calls() != 2 {
		t.Fatalf("%v, pending %t, %d requests", err, l.Pending(), denied.Calls())
	}
}

// A commit that stays unknown lands after all, after the call gave up: the next one finds it, and repeats nothing.
func TestPendingCommitThatLands(t *testing.T) {
	store, plan, _ := faults(object.NewMemory())
	o := quick
	o.Attempts = 1
	l := claimed(t, store, 1, o)
	plan["put"] = []objecttest.Kind{objecttest.Late}
	a := seg(0, 10, 1, 1, 1, 1)
	if err := l.Append(bg, a); !errors.Is(err, ErrUnknown) || !errors.Is(err, object.ErrUnknown) || !l.Pending() || l.Manifest().End() != 0 {
		t.Fatalf("%v, pending %t, end %d", err, l.Pending(), l.Manifest().End())
	}
	if err := store.ApplyLate(bg, 0); err != nil {
		t.Fatal(err)
	}
	o.Attempts = 2
	l.options = o.withDefaults()
	if err := l.Append(bg, a, seg(10, 20, 1, 1, 1, 2)); err != nil {
		t.Fatal(err)
	}
	if got := all(t, l.Manifest(), store); len(got) != 2 || l.Pending() || l.Manifest().Version() != 3 {
		t.Fatalf("%d segments, pending %t, version %d", len(got), l.Pending(), l.Manifest().Version())
	}
}

// While a commit is undecided, another one decides it: the late request has lost.
func TestPendingCommitThatIsOvertaken(t *testing.T) {
	store, plan, _ := faults(object.NewMemory())
	o := quick
	o.Attempts = 1
	l := claimed(t, store, 1, o)
	plan["put"] = []objecttest.Kind{objecttest.Late}
	if err := l.Append(bg, seg(0, 10, 1, 1, 1, 1)); !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
	if err := l.Append(bg, seg(0, 7, 1, 1, 1, 2)); err != nil || l.Pending() {
		t.Fatalf("%v, pending %t", err, l.Pending())
	}
	if err := store.ApplyLate(bg, 0); !errors.Is(err, object.ErrPrecondition) {
		t.Fatalf("the overtaken request took effect: %v", err)
	}
}

// A commit that happened and was built upon by the next leader before its writer could look is still recognised.
func TestCommitFoundUnderLaterOnes(t *testing.T) {
	for _, later := range []int{1, maxRecent, maxRecent + 1} {
		inner := object.NewMemory()
		var between func()
		store := objecttest.NewFaulty(inner, func(c objecttest.Call) objecttest.Fault {
			if c.Op == "get" && between != nil {
				do := between
				between = nil
				do()
			}
			return objecttest.Fault{}
		})
		lossy, plan, _ := faults(store)
		l := claimed(t, lossy, 1, quick)
		plan["put"] = []objecttest.Kind{objecttest.After}
		between = func() {
			other := open(t, inner, quick)
			for i := range later {
				if err := other.Claim(bg, 2); err != nil {
					t.Error(i, err)
				}
			}
		}
		err := l.Append(bg, seg(0, 10, 1, 1, 1, 1))
		if known := later <= maxRecent; (err == nil) != known || !known && !errors.Is(err, ErrUnknown) {
			t.Errorf("%d commits later: %v", later, err)
		}
		if l.Manifest().End() != 10 || l.Manifest().ClaimEpoch() != 2 {
			t.Errorf("%d commits later: end %d, claim %d", later, l.Manifest().End(), l.Manifest().ClaimEpoch())
		}
	}
}

func TestCancelledCommit(t *testing.T) {
	ctx, cancel := context.WithCancel(bg)
	l := claimed(t, object.NewMemory(), 1, quick)
	cancel()
	if err := l.Append(ctx, seg(0, 10, 1, 1, 1, 1)); !errors.Is(err, context.Canceled) || !errors.Is(err, ErrUnknown) {
		t.Fatal(err)
	}
	if err := l.Append(bg, seg(0, 10, 1, 1, 1, 1)); err != nil {
		t.Fatal(err)
	}
}

// Folding writes each page once, before the root that refers to it; a lost answer does not make a second page.
func TestPageIsWrittenBeforeTheRoot(t *testing.T) {
	store, plan, trace := faults(object.NewMemory())
	l := claimed(t, store, 1, quick)
	*trace = nil
	plan["put"] = []objecttest.Kind{objecttest.After, objecttest.Throttle}
	var segs []Segment
	n := quick.RootSegments + quick.PageSegments
	for i := range n {
		segs = append(segs, seg(segBase(i), segBase(i+1), 1, 1, 1, i+1))
	}
	if err := l.Append(bg, segs...); err != nil {
		t.Fatal(err)
	}
	if got, want := fmt.Sprint(*trace), "[put page get page put root get root put root]"; got != want {
		t.Fatalf("requests %s, want %s", got, want)
	}
	if m := l.Manifest(); len(m.Pages()) != 1 || len(m.Root()) != quick.RootSegments || !equal(all(t, m, store), segs) {
		t.Fatalf("%d pages, %d root entries", len(m.Pages()), len(m.Root()))
	}
}
