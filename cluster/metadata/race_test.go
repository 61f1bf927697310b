package metadata

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
)

// witness records what each number of the log was ever seen to hold: one content, for ever (invariant 1).
type witness struct {
	object.Store
	mu   sync.Mutex
	seen map[string]digest
	bad  []string
}

func (w *witness) Get(ctx context.Context, name string) ([]byte, object.Version, error) {
	p, v, err := w.Store.Get(ctx, name)
	if err == nil && strings.HasPrefix(name, logPrefix) {
		w.mu.Lock()
		defer w.mu.Unlock()
		if old, ok := w.seen[name]; ok && old != sum(p) {
			w.bad = append(w.bad, name)
		}
		w.seen[name] = sum(p)
	}
	return p, v, err
}

type told struct {
	key     string
	version uint64
	err     error
}

// racer is a process that takes the log whenever it likes, commits, and stops in the middle for longer than any lease.
func racer(ctx context.Context, l *Log, rng *rand.Rand, until time.Time) (history []told) {
	for n := 0; time.Now().Before(until); n++ {
		base := l.Image()
		if rng.IntN(15) == 0 { // paused between looking and acting
			time.Sleep(time.Duration(rng.IntN(20)) * time.Second)
		}
		t := told{key: fmt.Sprintf("%s-%d", l.Writer(), n)}
		records := []Record{set(t.key, "v")}
		if base.Controller.Writer != l.Writer() {
			if rng.IntN(3) > 0 {
				time.Sleep(time.Duration(rng.IntN(1500)) * time.Millisecond)
				_, _ = l.Sync(ctx)
				continue
			}
			records = append([]Record{ControllerElected{base.Controller.Epoch + 1, l.Writer()}}, records...)
		}
		bounded, cancel := context.WithTimeout(ctx, time.Duration(1+rng.IntN(3000))*time.Millisecond)
		img, err := l.Commit(bounded, base, records...)
		cancel()
		t.version, t.err = img.Version, err
		history = append(history, t)
		time.Sleep(time.Duration(rng.IntN(40)) * time.Millisecond)
	}
	return history
}

// Three processes that all believe they may commit, on stores that lose answers, apply writes late, and refuse for no
// reason. What was told is true, every unknown ends as one of the two, and everybody reads the same history
// (object-store.md §7, invariants 1 to 4).
func TestRacingCommitters(t *testing.T) {
	commits, lost, unknown := 0, 0, 0
	for seed := range uint64(25) {
		synctest.Test(t, func(t *testing.T) {
			w := &witness{Store: object.NewMemory(), seen: map[string]digest{}}
			const processes = 3
			until := time.Now().Add(90 * time.Second)
			var stores [processes]*objecttest.Faulty
			var logs [processes]*Log
			var histories [processes][]told
			var all sync.WaitGroup
			for i := range processes {
				rng := rand.New(rand.NewPCG(seed, uint64(i)))
				quiet := true
				var mu sync.Mutex
				stores[i] = objecttest.NewFaulty(w, func(c objecttest.Call) objecttest.Fault {
					mu.Lock()
					defer mu.Unlock()
					f := objecttest.Fault{Delay: time.Duration(rng.IntN(8)) * time.Millisecond}
					if quiet || time.Now().After(until) {
						return f
					}
					if rng.IntN(4) == 0 {
						f.Kind = objecttest.Kind(rng.IntN(int(objecttest.Cut) + 1))
					}
					if c.Op == "get" && rng.IntN(200) == 0 {
						f.Kind = objecttest.Corrupt
					}
					return f
				})
				logs[i] = open(t, stores[i], Options{Writer: fmt.Sprint("p", i), SnapshotEvery: 40, Retain: 20 * time.Second, Timeout: 500 * time.Millisecond})
				mu.Lock()
				quiet = false
				mu.Unlock()
			}
			for i := range processes {
				rng := rand.New(rand.NewPCG(seed, 100+uint64(i)))
				all.Go(func() { histories[i] = racer(t.Context(), logs[i], rng, until) })
				all.Go(func() { // what was delayed arrives at some time, in some order
					rng := rand.New(rand.NewPCG(seed, 200+uint64(i)))
					for time.Now().Before(until) {
						time.Sleep(time.Duration(rng.IntN(900)) * time.Millisecond)
						if n := stores[i].Late(); n > 0 {
							_ = stores[i].ApplyLate(t.Context(), rng.IntN(n))
						}
					}
				})
			}
			all.Wait()
			for i := range processes {
				for stores[i].Late() > 0 {
					_ = stores[i].ApplyLate(t.Context(), 0)
				}
			}
			for i, l := range logs { // every pending commit is resolved first, then everybody reads to the end
				if _, err := l.Sync(t.Context()); err != nil {
					t.Fatalf("seed %d: process %d: %v", seed, i, err)
				}
			}
			final := open(t, w, Options{Join: true}).Image()
			for i, l := range logs {
				if img, err := l.Sync(t.Context()); err != nil || dump(img) != dump(final) {
					t.Fatalf("seed %d: process %d is at %d, a fresh one at %d: %v", seed, i, img.Version, final.Version, err)
				}
			}
			versions := map[uint64]string{}
			for _, h := range histories {
				for _, c := range h {
					_, there := final.Values("k")[c.key]
					switch {
					case c.err == nil:
						commits++
						if !there {
							t.Errorf("seed %d: %s was told committed in %d and is not there", seed, c.key, c.version)
						}
						if other, taken := versions[c.version]; taken {
							t.Errorf("seed %d: %s and %s were both told committed in %d", seed, c.key, other, c.version)
						}
						versions[c.version] = c.key
					case errors.Is(c.err, ErrUnavailable):
						unknown++
					case errors.Is(c.err, ErrLost) || errors.Is(c.err, ErrFenced):
						lost++
						if there {
							t.Errorf("seed %d: %s was told lost and took effect", seed, c.key)
						}
					default:
						t.Errorf("seed %d: %s: %v", seed, c.key, c.err)
					}
				}
			}
			if len(w.bad) > 0 {
				t.Errorf("seed %d: two contents in %v", seed, w.bad)
			}
			epochs(t, seed, w)
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d commits, %d lost, %d unknown", commits, lost, unknown)
	if commits < 500 || lost < 30 || unknown < 100 {
		t.Error("the test exercises too little")
	}
}

// epochs checks that controller epochs never go back along the log and begin with their record (invariant 3).
func epochs(t *testing.T, seed uint64, store object.Store) {
	t.Helper()
	last := int64(0)
	for _, name := range names(t, store, logPrefix) {
		p, _, err := store.Get(t.Context(), logPrefix+name)
		if err != nil {
			t.Fatal(err)
		}
		h, records, err := decode(p, kindLog)
		if err != nil {
			t.Fatal(err)
		}
		if _, elected := records[0].(*ControllerElected); h.Epoch < last || h.Epoch > last && !elected {
			t.Errorf("seed %d: epoch %d after %d in %s", seed, h.Epoch, last, name)
		}
		last = h.Epoch
	}
}

// Each fault alone, at the commit's own write: the commit succeeds all the same, once, and nothing of it is doubled.
func TestCommitThroughEachFault(t *testing.T) {
	for kind := objecttest.Before; kind <= objecttest.Cut; kind++ {
		synctest.Test(t, func(t *testing.T) {
			armed := 0
			store := objecttest.NewFaulty(object.NewMemory(), func(c objecttest.Call) objecttest.Fault {
				if c.Op == "put" && armed > 0 {
					armed--
					return objecttest.Fault{Kind: kind}
				}
				return objecttest.Fault{}
			})
			l := open(t, store, Options{Writer: "a"})
			elect(t, l)
			armed = 2
			img, err := l.Commit(t.Context(), l.Image(), ProducerIDsAllocated{0, 1000})
			if err != nil || img.Version != 2 || img.NextProducerID != 1000 {
				t.Errorf("fault %d: version %d, next id %d, %v", kind, img.Version, img.NextProducerID, err)
			}
			for store.Late() > 0 {
				_ = store.ApplyLate(t.Context(), 0)
			}
			if fresh := open(t, store, Options{}); dump(fresh.Image()) != dump(img) {
				t.Errorf("fault %d: a fresh start reads another image", kind)
			}
		})
	}
}

// An answer that never came, and a write that comes long after: the next commit must not be told success for a number
// that the old one takes.
func TestUnknownCommitIsResolvedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		late, away := false, false
		store := objecttest.NewFaulty(object.NewMemory(), func(c objecttest.Call) objecttest.Fault {
			if late && c.Op == "put" {
				late = false
				away = true
				return objecttest.Fault{Kind: objecttest.Late}
			}
			if away {
				return objecttest.Fault{Kind: objecttest.Before}
			}
			return objecttest.Fault{}
		})
		l := open(t, store, Options{Writer: "a"})
		base := elect(t, l)
		late = true
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := l.Commit(ctx, base, set("first", "1")); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		away = false
		if err := store.ApplyLate(t.Context(), 0); err != nil {
			t.Fatal(err)
		}
		img, err := l.Commit(t.Context(), base, set("second", "2"))
		if !errors.Is(err, ErrLost) || img.Values("k")["first"] != "1" {
			t.Fatalf("%v, %v", err, img.Values("k"))
		}
		if img, err = l.Commit(t.Context(), img, set("second", "2")); err != nil || img.Version != 3 {
			t.Errorf("%v, version %d", err, img.Version)
		}
	})
}
