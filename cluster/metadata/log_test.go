package metadata

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
)

// slotCache is a Cache in memory.
type slotCache struct {
	mu sync.Mutex
	p  []byte
}

func (c *slotCache) Load() ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.p, nil
}

func (c *slotCache) Save(p []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.p = p
	return nil
}

// image returns what a start would find, nil for nothing.
func (c *slotCache) image(t *testing.T) *Image {
	t.Helper()
	p, _ := c.Load()
	if p == nil {
		return nil
	}
	img, err := decodeSnapshot(p)
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func open(t *testing.T, store object.Store, o Options) *Log {
	t.Helper()
	l, err := Open(t.Context(), store, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// elect makes a log's process the controller.
func elect(t *testing.T, l *Log) *Image {
	t.Helper()
	img, err := l.Commit(t.Context(), l.Image(), ControllerElected{l.Image().Controller.Epoch + 1, l.Writer()})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func set(key, value string) Record { return ValueSet{"k", key, value} }

// fill commits n values one by one.
func fill(t *testing.T, l *Log, n int) {
	t.Helper()
	for i := range n {
		if _, err := l.Commit(t.Context(), l.Image(), set(fmt.Sprintf("%s-%d", l.Writer(), i%100), fmt.Sprint(l.Image().Version))); err != nil {
			t.Fatal(err)
		}
	}
}

// following runs Follow until stop, which returns its error.
func following(t *testing.T, l *Log) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	done := make(chan error, 1)
	go func() { done <- l.Follow(ctx) }()
	return func() error { cancel(); return <-done }
}

// gate is a store that can be away, and that counts.
type gate struct {
	*objecttest.Faulty
	mu    sync.Mutex
	away  bool
	trace []string
}

func newGate(inner object.Store) *gate {
	g := &gate{}
	g.Faulty = objecttest.NewFaulty(inner, func(c objecttest.Call) objecttest.Fault {
		g.mu.Lock()
		defer g.mu.Unlock()
		g.trace = append(g.trace, c.Op+" "+c.Name)
		if g.away {
			return objecttest.Fault{Kind: objecttest.Before, Delay: 100 * time.Millisecond}
		}
		return objecttest.Fault{}
	})
	return g
}

func (g *gate) set(away bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.away = away
}

func (g *gate) take() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	t := g.trace
	g.trace = nil
	return t
}

func TestOpenCommitReopen(t *testing.T) {
	store := newGate(object.NewMemory())
	l := open(t, store, Options{Writer: "a"})
	elect(t, l)
	fill(t, l, 5)
	again := open(t, store, Options{Join: true})
	if dump(again.Image()) != dump(l.Image()) || again.Image().Version != 6 {
		t.Errorf("%s\n%s", dump(l.Image()), dump(again.Image()))
	}
	store.take()
	if _, err := l.Commit(t.Context(), l.Image(), set("x", "y")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"put meta/log/00000000000000000007", "get meta/log/00000000000000000006", "get meta/root"}, store.take()); d != "" {
		t.Errorf("a commit: %s", d)
	}
	if img, err := again.Sync(t.Context()); err != nil || img.Version != 7 {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"get meta/log/00000000000000000007", "get meta/log/00000000000000000008", "get meta/root"}, store.take()); d != "" {
		t.Errorf("a follower's look at a change: %s", d)
	}
	if _, err := again.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"get meta/log/00000000000000000008"}, store.take()); d != "" {
		t.Errorf("an idle follower's look: %s", d)
	}
}

func TestCommitRefusals(t *testing.T) {
	store := object.NewMemory()
	a, b := open(t, store, Options{Writer: "a"}), open(t, store, Options{Writer: "b"})
	ctx := t.Context()
	if _, err := a.Commit(ctx, a.Image(), set("x", "y")); !errors.Is(err, ErrFenced) {
		t.Errorf("without a controller: %v", err)
	}
	old := elect(t, a)
	if _, err := b.Commit(ctx, b.Image(), ControllerElected{1, "b"}); !errors.Is(err, ErrLost) {
		t.Errorf("lost race: %v", err)
	}
	if b.Image().Controller.Writer != "a" {
		t.Error("the loser did not take in what won")
	}
	if _, err := b.Commit(ctx, b.Image(), set("x", "y")); !errors.Is(err, ErrFenced) {
		t.Errorf("another's epoch: %v", err)
	}
	if _, err := a.Commit(ctx, a.Image(), TopicDeleted{}); !errors.Is(err, ErrInvalid) {
		t.Errorf("a record that does not fit: %v", err)
	}
	elect(t, b)
	if img, err := a.Commit(ctx, old, set("x", "from a deposed controller")); !errors.Is(err, ErrLost) || img.Controller.Writer != "b" {
		t.Errorf("deposed: %v", err)
	}
	if _, err := a.Commit(ctx, a.Image(), set("x", "again")); !errors.Is(err, ErrFenced) {
		t.Errorf("deposed, knowing it: %v", err)
	}
	if a.Err() != nil || len(a.Image().Values("k")) != 0 {
		t.Errorf("%v, %v", a.Err(), a.Image().Values("k"))
	}
}

// Many processes come to an empty prefix at once: one cluster.
func TestCreationRace(t *testing.T) {
	store := object.NewMemory()
	ids := make([]string, 8)
	var all sync.WaitGroup
	for i := range ids {
		all.Go(func() {
			l, err := Open(t.Context(), store, Options{})
			if err != nil {
				t.Error(err)
				return
			}
			ids[i] = l.Image().ClusterIDString()
		})
	}
	all.Wait()
	for _, id := range ids {
		if id != ids[0] || id == "" {
			t.Fatalf("%v", ids)
		}
	}
}

func TestCreationWithALostAnswer(t *testing.T) {
	for kind := objecttest.Before; kind <= objecttest.SelfPrecondition; kind++ {
		faults := 0
		store := objecttest.NewFaulty(object.NewMemory(), func(c objecttest.Call) objecttest.Fault {
			if c.Op == "put" && faults == 0 {
				faults++
				return objecttest.Fault{Kind: kind}
			}
			return objecttest.Fault{}
		})
		l, err := Open(t.Context(), store, Options{})
		if err != nil {
			t.Errorf("fault %d: %v", kind, err)
			continue
		}
		if again := open(t, store, Options{}); again.Image().ClusterID != l.Image().ClusterID {
			t.Errorf("fault %d: two clusters", kind)
		}
	}
}

func TestOpenRefusals(t *testing.T) {
	ctx := t.Context()
	if _, err := Open(ctx, object.NewMemory(), Options{Join: true}); !errors.Is(err, ErrNoCluster) {
		t.Errorf("join nothing: %v", err)
	}
	store := object.NewMemory()
	elect(t, open(t, store, Options{ClusterID: [16]byte{1}}))
	if _, err := Open(ctx, store, Options{ClusterID: [16]byte{2}}); !errors.Is(err, ErrWrongCluster) {
		t.Errorf("another cluster: %v", err)
	}
	foreign := &slotCache{p: (&Image{ClusterID: [16]byte{3}}).encodeSnapshot("x", time.Time{})}
	if _, err := Open(ctx, store, Options{Cache: foreign}); !errors.Is(err, ErrWrongCluster) {
		t.Errorf("a data directory of another cluster: %v", err)
	}
	if err := store.Delete(ctx, clusterName); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(ctx, store, Options{}); !errors.Is(err, ErrCorrupt) {
		t.Errorf("a log without %s: %v", clusterName, err)
	}
	broken := objecttest.NewFaulty(object.NewMemory(), func(objecttest.Call) objecttest.Fault { return objecttest.Fault{Kind: objecttest.Before} })
	if _, err := Open(ctx, broken, Options{}); !errors.Is(err, object.ErrUnavailable) {
		t.Errorf("store away, no cache: %v", err)
	}
	if l, err := Open(ctx, object.NewMemory(), Options{Cache: &slotCache{p: []byte("damaged")}}); err != nil || l.Stale() {
		t.Errorf("a damaged cache must not stop a start from the store: %v", err)
	}
}

func TestHoleStopsAReader(t *testing.T) {
	store := object.NewMemory()
	l := open(t, store, Options{Writer: "a"})
	elect(t, l)
	fill(t, l, 5)
	if err := store.Delete(t.Context(), logName(3)); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), store, Options{}); !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("%v", err)
	}
}

// The store is away: a broker starts from its cache, serves reads, refuses changes in bounded time, and goes on by itself
// when the store is back.
func TestStartWithoutTheStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := object.NewMemory()
		cache := &slotCache{}
		first := open(t, memory, Options{Writer: "a", Cache: cache})
		stop := following(t, first)
		elect(t, first)
		fill(t, first, 3)
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		if img := cache.image(t); dump(img) != dump(first.Image()) {
			t.Fatalf("the cache was not brought up to date at the end: version %d", img.Version)
		}

		store := newGate(memory)
		store.set(true)
		began := time.Now()
		l := open(t, store, Options{Writer: "b", Cache: cache})
		if took := time.Since(began); !l.Stale() || dump(l.Image()) != dump(first.Image()) || took > 3*time.Second {
			t.Fatalf("stale %v after %v", l.Stale(), took)
		}
		stop = following(t, l)
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		began = time.Now()
		if _, err := l.Commit(ctx, l.Image(), ControllerElected{2, "b"}); !errors.Is(err, ErrUnavailable) {
			t.Errorf("commit without the store: %v", err)
		}
		cancel()
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("the refusal took %v", took)
		}
		time.Sleep(10 * time.Minute)
		changed := l.Watch()
		elect(t, open(t, memory, Options{Writer: "c"}))
		store.set(false)
		<-changed
		if l.Stale() || l.Image().Controller.Writer != "c" {
			t.Errorf("after the store came back: stale %v, %+v", l.Stale(), l.Image().Controller)
		}
		if err := stop(); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}

func TestStartFromCacheAsksLittle(t *testing.T) {
	store := newGate(object.NewMemory())
	l := open(t, store, Options{Writer: "a"})
	elect(t, l)
	fill(t, l, 20)
	cache := &slotCache{p: l.Image().encodeSnapshot("x", time.Time{})}
	store.take()
	if again := open(t, store, Options{Cache: cache}); again.Image().Version != 21 || again.Stale() {
		t.Errorf("version %d", again.Image().Version)
	}
	if d := cmp.Diff([]string{"get cluster.json", "get meta/log/00000000000000000021", "get meta/log/00000000000000000022"}, store.take()); d != "" {
		t.Error(d)
	}
}

// copyOf is a bucket restored from a copy made now.
func copyOf(t *testing.T, from object.Store) *object.Memory {
	t.Helper()
	to := object.NewMemory()
	list, err := from.List(t.Context(), "", "", 0)
	if err != nil || len(list) == object.MaxList {
		t.Fatal(err, len(list))
	}
	for _, a := range list {
		p, _, err := from.Get(t.Context(), a.Name)
		if err == nil {
			_, err = to.Put(t.Context(), a.Name, object.Bytes(p), object.PutOptions{})
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return to
}

// A bucket that was emptied, restored or forked must stop a broker that has seen more, at its start and while it runs.
func TestRestoredBucket(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := object.NewMemory()
		l := open(t, store, Options{Writer: "a"})
		elect(t, l)
		fill(t, l, 3)
		old := copyOf(t, store)
		fork := copyOf(t, store)
		fill(t, l, 3)
		forked := open(t, fork, Options{Writer: "f"})
		elect(t, forked)
		fill(t, forked, 5)
		for about, bucket := range map[string]object.Store{"emptied": object.NewMemory(), "restored": old, "forked": fork} {
			cache := &slotCache{p: l.Image().encodeSnapshot("x", time.Time{})}
			if _, err := Open(t.Context(), bucket, Options{Cache: cache}); !errors.Is(err, ErrRestored) {
				t.Errorf("start on a bucket %s: %v", about, err)
			}
			swap := &swapped{Store: copyOf(t, store)}
			running := open(t, swap, Options{Writer: "r", Cache: cache})
			elect(t, running)
			stop := following(t, running)
			swap.swap(bucket)
			time.Sleep(time.Minute)
			if err := stop(); !errors.Is(err, ErrRestored) {
				t.Errorf("running when the bucket was %s: Follow: %v", about, err)
			}
			if _, err := running.Commit(t.Context(), running.Image(), set("x", "y")); !errors.Is(err, ErrRestored) {
				t.Errorf("running when the bucket was %s: Commit: %v", about, err)
			}
		}
		// The commit that is under way when it happens must not succeed either.
		bucket := copyOf(t, store)
		swap := &swapped{Store: bucket}
		store2 := newGate(swap)
		running := open(t, store2, Options{Writer: "r"})
		elect(t, running)
		store2.set(true)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := running.Commit(ctx, running.Image(), set("x", "y")); !errors.Is(err, ErrUnavailable) {
			t.Fatal(err)
		}
		swap.swap(old)
		store2.set(false)
		if _, err := running.Commit(t.Context(), running.Image(), set("x", "z")); !errors.Is(err, ErrRestored) {
			t.Errorf("a commit that waited for a restored bucket: %v", err)
		}
	})
}

// swapped is a store that becomes another.
type swapped struct {
	mu sync.Mutex
	object.Store
}

func (s *swapped) swap(to object.Store) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.Store = to
}

func (s *swapped) now() object.Store {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.Store
}

func (s *swapped) Get(ctx context.Context, name string) ([]byte, object.Version, error) {
	return s.now().Get(ctx, name)
}

func (s *swapped) Put(ctx context.Context, name string, b object.Body, o object.PutOptions) (object.Version, error) {
	return s.now().Put(ctx, name, b, o)
}

func (s *swapped) List(ctx context.Context, prefix, after string, limit int) ([]object.Attributes, error) {
	return s.now().List(ctx, prefix, after, limit)
}

func TestLaterVersionStops(t *testing.T) {
	store := object.NewMemory()
	l := open(t, store, Options{Writer: "a"})
	img := elect(t, l)
	p := encode(header{Kind: kindLog, Cluster: img.ClusterIDString(), Version: 2, Epoch: 1, Writer: "a", Commit: "c", Previous: img.last.String()}, []Record{set("a", "b")})
	p = reseal(p, `"type":"value-set"`, `"type":"of-the-future"`)
	if _, err := store.Put(t.Context(), logName(2), object.Bytes(p), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Sync(t.Context()); !errors.Is(err, ErrVersion) || !errors.Is(l.Err(), ErrVersion) {
		t.Errorf("%v", err)
	}
	if l.Image() != img {
		t.Error("reads must go on from what is known")
	}
}

func TestHintAndWatch(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := object.NewMemory()
		a, b := open(t, store, Options{Writer: "a"}), open(t, store, Options{Writer: "b"})
		stop := following(t, b)
		synctest.Wait()
		changed, began := b.Watch(), time.Now()
		elect(t, a)
		b.Hint()
		<-changed
		if took := time.Since(began); took != 0 || b.Image().Version != 1 {
			t.Errorf("hinted: %v, version %d", took, b.Image().Version)
		}
		changed = b.Watch()
		fill(t, a, 1)
		<-changed
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("polled: %v", took)
		}
		_ = stop()
	})
}
