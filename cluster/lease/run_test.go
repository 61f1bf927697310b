package lease

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/everlog/everlog/tier/object"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// away is a store that can be taken away: it then answers as a store does that cannot be reached.
type away struct {
	object.Store
	gone atomic.Bool
	ops  atomic.Int64
}

func (a *away) Put(ctx context.Context, name string, b object.Body, o object.PutOptions) (object.Version, error) {
	a.ops.Add(1)
	if a.gone.Load() {
		return "", object.ErrUnknown
	}
	return a.Store.Put(ctx, name, b, o)
}

func (a *away) Get(ctx context.Context, name string) ([]byte, object.Version, error) {
	a.ops.Add(1)
	if a.gone.Load() {
		return nil, "", object.ErrUnavailable
	}
	return a.Store.Get(ctx, name)
}

// contender runs one lease until stopped.
func contender(t *testing.T, store object.Store, holder string) (l *Lease, stop func()) {
	t.Helper()
	l, err := New(store, Options{Name: "controller", Holder: holder})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- l.Run(ctx) }()
	return l, func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run returned %v", err)
		}
	}
}

// held waits until the lease is held and returns how long that took.
func held(l *Lease) time.Duration {
	start := time.Now()
	for {
		changed := l.Changed()
		if _, ok := l.Holding(); ok {
			return time.Since(start)
		}
		<-changed
	}
}

func TestFirstAcquisitionTakesTwoRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &away{Store: object.NewMemory()}
		l, stop := contender(t, store, "disk-1")
		if took := held(l); took != 0 || store.ops.Load() != 2 {
			t.Errorf("took %v and %d requests", took, store.ops.Load())
		}
		time.Sleep(time.Hour) // renewals keep it, each one request
		if e, ok := l.Holding(); !ok || e != 1 || store.ops.Load() > 1202 {
			t.Errorf("after an hour: epoch %d, held %v, %d requests", e, ok, store.ops.Load())
		}
		stop()
		p, _, err := store.Get(t.Context(), ObjectName("controller"))
		if err != nil || !strings.Contains(string(p), `"released":true`) {
			t.Errorf("after a clean stop: %s, %v", p, err)
		}
	})
}

func TestHandOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := object.NewMemory()
		a, stopA := contender(t, store, "disk-a")
		held(a)
		b, stopB := contender(t, store, "disk-b")
		synctest.Wait()
		stopA()
		if took := held(b); took > 3*time.Second {
			t.Errorf("a released lease was taken after %v", took)
		}
		if e, _ := b.Holding(); e != 2 {
			t.Errorf("epoch %d, want 2", e)
		}
		stopB()
	})
}

func TestDeadHolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := object.NewMemory()
		cut := &away{Store: memory}
		a, stopA := contender(t, cut, "disk-a")
		held(a)
		b, stopB := contender(t, memory, "disk-b")
		synctest.Wait()
		cut.gone.Store(true)
		cutAt := time.Now()
		lost := a.Changed()
		<-lost
		if _, ok := a.Holding(); ok || time.Since(cutAt) > 6700*time.Millisecond {
			t.Errorf("cut off for %v: held %v", time.Since(cutAt), ok)
		}
		held(b)
		if took := time.Since(cutAt); took < 7*time.Second || took > 14*time.Second {
			t.Errorf("taken over after %v", took)
		}
		cut.gone.Store(false)
		time.Sleep(time.Minute)
		if _, ok := a.Holding(); ok {
			t.Error("two holders")
		}
		if r, ok := a.Seen(); !ok || r.Holder != "disk-b" {
			t.Errorf("the old holder sees %+v", r)
		}
		stopA()
		stopB()
	})
}

func TestStoreAwayForTenMinutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &away{Store: object.NewMemory()}
		l, stop := contender(t, store, "disk-a")
		held(l)
		store.gone.Store(true)
		time.Sleep(10 * time.Minute)
		if _, ok := l.Holding(); ok {
			t.Error("held without the store")
		}
		store.gone.Store(false)
		if took := held(l); took > time.Second {
			t.Errorf("taken again %v after the store came back", took)
		}
		store.gone.Store(true)
		stop() // bounded, though nothing answers
	})
}

func TestRestartAfterKillDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := object.NewMemory()
		first := &away{Store: memory}
		a, stopA := contender(t, first, "disk-a")
		held(a)
		first.gone.Store(true) // what a killed process writes from now on: nothing
		stopA()
		b, stopB := contender(t, memory, "disk-a")
		if took := held(b); took != 0 {
			t.Errorf("took %v", took)
		}
		if e, _ := b.Holding(); e != 2 {
			t.Errorf("epoch %d, want 2", e)
		}
		stopB()
	})
}

func TestCorruptObjectIsNotTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := object.NewMemory()
		if _, err := memory.Put(t.Context(), ObjectName("controller"), object.Bytes([]byte("{}")), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		l, stop := contender(t, memory, "disk-a")
		time.Sleep(time.Minute)
		if _, ok := l.Holding(); ok {
			t.Error("took over an object that it cannot read")
		}
		stop()
	})
}

func TestOptionsThatCannotWork(t *testing.T) {
	for _, o := range []Options{{Name: "x"}, {Holder: "x"}, {Name: "x", Holder: "y", Renew: 6 * time.Second},
		{Name: "x", Holder: strings.Repeat("y", 201)}} {
		if _, err := New(object.NewMemory(), o); err == nil {
			t.Errorf("accepted %+v", o)
		}
	}
}
