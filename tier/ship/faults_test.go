package ship

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/objecttest"
	"github.com/everlog/everlog/tier/record"
)

// world is a script of two leaderships over one store: the first ships a part, then stops as a crash stops it; the second,
// whose segments have other borders, ships the rest. Between and after, writes whose answer never came may still land.
type world struct {
	t      *testing.T
	log    []record.Batch
	store  *audited
	faulty *objecttest.Faulty
	a, b   *partition
	end    record.Offset // of the remote log; must never go back
	errs   int
}

func newWorld(t *testing.T, log []record.Batch, plan func(objecttest.Call) objecttest.Fault) *world {
	w := &world{t: t, log: log, store: newAudited(), a: newPartition(t, log, 9), b: newPartition(t, log, 5)}
	w.faulty = objecttest.NewFaulty(w.store, plan)
	w.a.limit = w.a.segments[2].footer.End
	return w
}

// check holds invariants 24 to 27: the end is below the limit and never goes back, segments are contiguous with size and
// checksum, objects referred to are there, nothing was written twice.
func (w *world) check(limit record.Offset) {
	w.t.Helper()
	end := checkRemote(w.t, w.store, w.log, limit)
	if end < w.end {
		w.t.Fatalf("the remote end went back from %d to %d", w.end, end)
	}
	w.end = end
}

func (w *world) land(limit record.Offset) {
	for w.faulty.Late() > 0 {
		_ = w.faulty.ApplyLate(context.Background(), 0) // may be refused: that is the point
		w.check(limit)
	}
}

// lead opens the manifest and ships until there is nothing to do, as one leadership does, at most so many steps.
func (w *world) lead(p *partition, epoch record.LeaderEpoch, steps int) *Shipper {
	w.t.Helper()
	var s *Shipper
	for range steps {
		if s == nil {
			l, err := manifest.Open(w.t.Context(), w.faulty, testID, manifest.Options{RetryDelay: time.Nanosecond, Attempts: 2,
				Limit: func() record.Offset { return p.limit }})
			if err != nil {
				w.errs++
				continue
			}
			s = New(config(l, w.faulty, p, epoch))
		}
		progress, err := s.Step(w.t.Context())
		w.check(p.limit)
		if err != nil {
			w.errs++
			if errors.Is(err, ErrFenced) || errors.Is(err, ErrDamaged) || errors.Is(err, ErrGap) {
				w.t.Fatal(err)
			}
		} else if !progress {
			return s
		}
	}
	return s
}

// play runs the script; when says at which of three moments late writes land.
func (w *world) play(when int) {
	w.t.Helper()
	old := w.lead(w.a, 50, 15)
	if when == 0 {
		w.land(w.a.limit)
	}
	if s := w.lead(w.b, 51, 2); s != nil && when == 1 {
		w.land(w.b.limit)
	}
	w.lead(w.b, 51, 40)
	w.land(w.b.limit)
	if w.end != w.b.end() {
		w.t.Fatalf("the remote log ends at %d, not all was shipped: %d", w.end, w.b.end())
	}
	// The first leader comes back from a long pause and does not know.
	if old != nil {
		w.a.limit = w.a.end()
		if progress, err := old.Step(w.t.Context()); progress && err == nil && !old.claimed {
			w.t.Fatal("a deposed leader made progress")
		}
	}
	w.check(w.b.limit)
}

// TestFaultAtEveryRequest breaks each request of the script in each way, alone and for good.
func TestFaultAtEveryRequest(t *testing.T) {
	log := batches(11, 40)
	count := newWorld(t, log, nil)
	count.play(2)
	if count.errs > 0 {
		t.Fatalf("%d errors without a fault", count.errs)
	}
	calls := count.faulty.Calls()
	if calls < 25 {
		t.Fatalf("the script makes %d requests only", calls)
	}
	kinds := map[string]objecttest.Kind{"before": objecttest.Before, "after": objecttest.After, "late": objecttest.Late, "throttle": objecttest.Throttle,
		"conflict": objecttest.Conflict, "self": objecttest.SelfPrecondition, "cut": objecttest.Cut}
	for name, kind := range kinds {
		for n := range calls {
			for when := range 3 {
				if kind != objecttest.Late && when > 0 {
					continue
				}
				t.Run(fmt.Sprintf("%s/%d/%d", name, n, when), func(t *testing.T) {
					newWorld(t, log, func(c objecttest.Call) objecttest.Fault {
						if c.N == n {
							return objecttest.Fault{Kind: kind}
						}
						return objecttest.Fault{}
					}).play(when)
				})
			}
		}
	}
}

// TestCrashAtEveryRequest stops the first leader at each of its requests, with the request lost or its effect yet to come.
func TestCrashAtEveryRequest(t *testing.T) {
	log := batches(12, 40)
	for _, kind := range []objecttest.Kind{objecttest.Before, objecttest.After, objecttest.Late} {
		for n := range 12 {
			for when := range 3 {
				t.Run(fmt.Sprintf("%d/%d/%d", kind, n, when), func(t *testing.T) {
					var crashed, up bool
					w := newWorld(t, log, func(c objecttest.Call) objecttest.Fault {
						if crashed = crashed || c.N == n; !crashed || up {
							return objecttest.Fault{}
						}
						if c.N == n {
							return objecttest.Fault{Kind: kind}
						}
						return objecttest.Fault{Kind: objecttest.Before}
					})
					w.lead(w.a, 50, 8)
					up = true
					if when == 0 {
						w.land(w.a.limit)
					}
					w.lead(w.b, 51, 1)
					if when == 1 {
						w.land(w.b.limit)
					}
					w.lead(w.b, 51, 40)
					w.land(w.b.limit)
					w.check(w.b.limit)
					if w.end != w.b.end() {
						t.Fatalf("ends at %d, want %d", w.end, w.b.end())
					}
				})
			}
		}
	}
}

// TestOutageIsWaitedOut runs the loop on a fake clock through an outage and a throttled hour: it backs off, does not
// recode for a store that does not answer, and then ships everything.
func TestOutageIsWaitedOut(t *testing.T) {
	for _, kind := range []objecttest.Kind{objecttest.Before, objecttest.Throttle, objecttest.After} {
		log := batches(13, 40)
		synctest.Test(t, func(t *testing.T) {
			start := time.Now()
			store := newAudited()
			var requests, uploads atomic.Int64
			faulty := objecttest.NewFaulty(store, func(c objecttest.Call) objecttest.Fault {
				if age := time.Since(start); age < time.Second || age > time.Hour {
					return objecttest.Fault{}
				}
				requests.Add(1)
				if strings.Contains(c.Name, "/seg/") {
					uploads.Add(1)
				}
				return objecttest.Fault{Kind: kind}
			})
			p := newPartition(t, log, 9)
			s := shipper(t, faulty, p, 50)
			s.c.Poll = 10 * time.Minute
			s.c.MinSaving = 1                  // the encoder is shared by the process, and a bubble must not use channels of another
			p.limit = p.segments[0].footer.End // one is shipped before
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- s.Run(ctx) }()
			<-time.After(2 * time.Second)
			p.set(func() { p.limit = p.end() })
			s.Wake()
			<-time.After(time.Hour - 3*time.Second)
			if st := s.Status(); st.Err == nil || st.Uploads != 1 {
				t.Errorf("during the outage: %+v", st)
			}
			if n, up := requests.Load(), uploads.Load(); n < 100 || n > 1200 || up > 2 {
				t.Errorf("%d requests in an hour without the store, %d of them for segments", n, up)
			}
			<-time.After(2 * defaultBackoffMax)
			if st := s.Status(); st.Err != nil || st.Uploads != int64(len(p.segments)) {
				t.Errorf("after the outage: %+v", st)
			}
			cancel()
			if err := <-done; err != nil {
				t.Errorf("Run = %v", err)
			}
			checkRemote(t, store, log, p.limit)
		})
	}
}

// TestCommitIsTriedAgainWithoutTheUpload: a lost answer of the commit costs no second upload, whether it happened or not.
func TestCommitIsTriedAgainWithoutTheUpload(t *testing.T) {
	for _, kind := range []objecttest.Kind{objecttest.Before, objecttest.After, objecttest.Late} {
		log, away, commits, uploads := batches(14, 20), false, 0, 0
		store := newAudited()
		faulty := objecttest.NewFaulty(store, func(c objecttest.Call) objecttest.Fault {
			switch {
			case away:
				return objecttest.Fault{Kind: objecttest.Before}
			case c.Op == "put" && !c.Conditional:
				uploads++
			case c.Op == "put":
				if commits++; commits == 2 { // after the claim
					away = true
					return objecttest.Fault{Kind: kind}
				}
			}
			return objecttest.Fault{}
		})
		p := newPartition(t, log, 20)
		told := 0
		s := shipper(t, faulty, p, 50)
		s.c.Committed = func(manifest.Segment) { told++ }
		for range 3 {
			if _, err := s.Step(t.Context()); err == nil {
				t.Fatal("the store is away")
			}
			if s.InFlight() == "" {
				t.Fatal("an object that may be committed yet is not in flight")
			}
		}
		away = false
		drain(t, s)
		if uploads != 1 || told != 1 || s.InFlight() != "" {
			t.Errorf("%d uploads, told of %d commits, in flight %q", uploads, told, s.InFlight())
		}
		if end := checkRemote(t, store, log, p.limit); end != p.end() {
			t.Errorf("ends at %d", end)
		}
	}
}

func TestBackoff(t *testing.T) {
	for n := 1; n < 100; n++ {
		whole := min(backoffBase<<min(n-1, 30), time.Minute)
		if d := backoff(n, time.Minute); d < whole/2 || d > whole {
			t.Errorf("after %d failures %v, want %v to %v", n, d, whole/2, whole)
		}
	}
}
