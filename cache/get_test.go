package cache

import (
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/everlog/everlog/tier/object"
)

func TestGetBringsBlocksAndNeighboursShareAGet(t *testing.T) {
	store := object.NewMemory()
	p := pack(t, store, "a", 40, 1000, true)
	c := open(t, store, Options{GetSize: 16_000})
	mustGet(t, c, 1, p, 0, 16)
	if s := c.Stats(); s.Gets != 1 || s.Misses != 16 {
		t.Fatalf("16 neighbours of 1000 bytes took %d GETs, %d misses", s.Gets, s.Misses)
	}
	mustGet(t, c, 1, p, 3, 9)
	if s := c.Stats(); s.Gets != 1 || s.Hits != 6 {
		t.Fatalf("cached blocks took %d GETs, %d hits", s.Gets-1, s.Hits)
	}
	mustGet(t, c, 1, p, 0, 40) // 24 missing: one GET of 16, one of 8
	if s := c.Stats(); s.Gets != 3 {
		t.Fatalf("%d GETs for the rest, not 2", s.Gets-1)
	}
}

func TestAGetSkipsWhatIsThere(t *testing.T) {
	store := object.NewMemory()
	p := pack(t, store, "a", 9, 1000, false)
	c := open(t, store, Options{})
	mustGet(t, c, 1, p, 4, 5)
	mustGet(t, c, 1, p, 0, 9)
	if s := c.Stats(); s.Gets != 3 || s.GetBytes != 9000 {
		t.Fatalf("%d GETs of %d bytes, want 3 of 9000", s.Gets, s.GetBytes)
	}
	if n := c.Missing(p, 0, 9); n != 0 {
		t.Fatalf("%d blocks are missing", n)
	}
}

func TestManyWaitersShareOneGet(t *testing.T) {
	g := newGate(object.NewMemory())
	p := pack(t, g.Store, "a", 8, 1000, true)
	c := open(t, g, Options{})
	var wg sync.WaitGroup
	for flow := range uint64(50) {
		wg.Go(func() { mustGet(t, c, flow, p, 0, 8) })
	}
	<-g.arrived
	for c.Stats().Shared < 49*8 {
		yield()
	}
	g.permit <- struct{}{}
	wg.Wait()
	if s := c.Stats(); s.Gets != 1 {
		t.Fatalf("%d GETs for 50 waiters", s.Gets)
	}
}

func TestAGetOutlivesItsWaiter(t *testing.T) {
	g := newGate(object.NewMemory())
	p := pack(t, g.Store, "a", 4, 1000, false)
	c := open(t, g, Options{})
	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, _, err := c.Get(ctx, p, Span{Flow: 1, From: 0, To: 4})
		failed <- err
	}()
	<-g.arrived
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatalf("the waiter got %v", err)
	}
	g.permit <- struct{}{}
	settle(t, c)
	if _, release, err := c.Get(ctx, p, Span{Flow: 1, From: 0, To: 4}); err != nil { // the context has ended, the blocks are there
		t.Fatal(err)
	} else {
		release()
	}
	if s := c.Stats(); s.Gets != 1 {
		t.Fatalf("%d GETs", s.Gets)
	}
}

func TestWhatIsThereIsReturnedWhenTheContextEnds(t *testing.T) {
	g := newGate(object.NewMemory())
	p := pack(t, g.Store, "a", 8, 1000, false)
	c := open(t, g, Options{GetSize: 4000})
	ctx, cancel := context.WithCancel(t.Context())
	type answer struct {
		blocks  [][]byte
		release func()
		err     error
	}
	got := make(chan answer)
	go func() {
		b, r, err := c.Get(ctx, p, Span{Flow: 1, From: 0, To: 8})
		got <- answer{b, r, err}
	}()
	<-g.arrived
	<-g.arrived
	g.permit <- struct{}{}
	for c.Stats().Running > 1 {
		yield()
	}
	landed := 0
	if c.Missing(p, 0, 8) != 0 {
		t.Fatal("blocks on their way count as missing")
	}
	cancel()
	a := <-got
	if a.err == nil {
		landed = len(a.blocks)
		check(t, p, 0, a.blocks)
		a.release()
	} // else the second GET came first
	if landed != 0 && landed != 4 {
		t.Fatalf("%d blocks came", landed)
	}
	g.permit <- struct{}{}
	if s := settle(t, c); s.Gets != 2 {
		t.Fatalf("%d GETs", s.Gets)
	}
	mustGet(t, c, 1, p, 0, 8)
}

func TestErrorsReachEveryWaiterAndAreNotKept(t *testing.T) {
	store := object.NewMemory()
	p := pack(t, store, "a", 4, 1000, false)
	if err := store.Delete(t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	c := open(t, store, Options{})
	if _, _, err := c.Get(t.Context(), p, Span{Flow: 1, From: 0, To: 4}); !errors.Is(err, object.ErrNotFound) {
		t.Fatalf("got %v", err)
	}
	pack(t, store, "a", 4, 1000, false)
	mustGet(t, c, 1, p, 0, 4)
	if s := c.Stats(); s.GetErrors != 1 {
		t.Fatalf("%d GETs failed", s.GetErrors)
	}
}

func TestADamagedBlockSpoilsNoOther(t *testing.T) {
	store := object.NewMemory()
	p := pack(t, store, "a", 6, 1000, true)
	c := open(t, store, Options{})
	good := p.blocks[4].storedCheck
	p.blocks[4].storedCheck++
	blocks, release, err := c.Get(t.Context(), p, Span{Flow: 1, From: 2, To: 6})
	if err != nil || len(blocks) != 2 {
		t.Fatalf("%d blocks came before the damaged one, %v", len(blocks), err)
	}
	check(t, p, 2, blocks)
	release()
	if _, _, err := c.Get(t.Context(), p, Span{Flow: 1, From: 4, To: 6}); !errors.Is(err, errDamaged) {
		t.Fatalf("got %v", err)
	}
	p.blocks[4].storedCheck = good
	mustGet(t, c, 1, p, 0, 6)
}

func TestTooManyWaiting(t *testing.T) {
	g := newGate(object.NewMemory())
	p := pack(t, g.Store, "a", 20, 1000, false)
	c := open(t, g, Options{GetSize: 1000, Parallel: 1, Queue: 3})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for i := range 4 { // one runs, three wait
		if _, _, err := c.Get(ctx, p, Span{Flow: 1, From: i, To: i + 1}); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	if _, _, err := c.Get(t.Context(), p, Span{Flow: 1, From: 10, To: 11}); !errors.Is(err, ErrBusy) {
		t.Fatalf("got %v", err)
	}
	for range 4 {
		g.permit <- struct{}{}
	}
	settle(t, c)
	if n := c.Missing(p, 0, 4); n != 0 {
		t.Fatalf("%d of the waiting blocks did not come", n)
	}
}

func TestCloseAnswersThoseWhoWait(t *testing.T) {
	g := newGate(object.NewMemory())
	p := pack(t, g.Store, "a", 20, 1000, false)
	c := New(g, Options{GetSize: 1000, Parallel: 1})
	got := make(chan error)
	for i := range 2 {
		go func() {
			_, _, err := c.Get(context.Background(), p, Span{Flow: 1, From: i, To: i + 1})
			got <- err
		}()
	}
	<-g.arrived
	for c.Stats().Waiting == 0 {
		yield()
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-got; err == nil {
			t.Fatal("a closed cache answered")
		}
	}
	if _, _, err := c.Get(t.Context(), p, Span{Flow: 1, From: 0, To: 1}); !errors.Is(err, ErrClosed) {
		t.Fatalf("got %v", err)
	}
}
