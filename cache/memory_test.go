package cache

import (
	"bytes"
	"context"
	"fmt"
	"math/rand"
	"sync"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
)

// scan reads an object in order as a reader with read-ahead does.
func scan(t testing.TB, c *Cache, flow uint64, p *packed, group int) {
	t.Helper()
	for i := 0; i < len(p.blocks); i += group {
		to := min(i+group, len(p.blocks))
		c.Ahead(flow, p, to, min(to+2*group, len(p.blocks)))
		mustGet(t, c, flow, p, i, to)
	}
}

func TestAScanDoesNotFlushTheHotSet(t *testing.T) {
	for _, readers := range []int{1, 10} {
		t.Run(fmt.Sprint(readers, " readers"), func(t *testing.T) {
			store := object.NewMemory()
			now := &clock{now: time.Unix(1, 0)}
			c := open(t, store, Options{MemoryBytes: 64 * 32 << 10, ReadBudget: 1 << 20, Now: now.Now})
			hot := pack(t, store, "hot", 20, 32<<10, false)
			for flow := range uint64(3) { // first reading, and two more
				mustGet(t, c, flow+1, hot, 0, 20)
				now.pass(2 * correlated)
			}
			history := make([]*packed, 8)
			for i := range history {
				history[i] = pack(t, store, fmt.Sprint("cold", i), 64, 32<<10, true)
			}
			var wg sync.WaitGroup
			for flow := range uint64(readers) {
				wg.Go(func() {
					for _, p := range history {
						scan(t, c, 100+flow, p, 8)
					}
				})
			}
			wg.Wait()
			settle(t, c)
			if n := c.Missing(hot, 0, 20); n != 0 {
				t.Errorf("%d of 20 hot blocks were flushed by a scan of %d", n, 8*64)
			}
		})
	}
}

func TestABlockThatComesBackIsKept(t *testing.T) {
	store := object.NewMemory()
	now := &clock{now: time.Unix(1, 0)}
	c := open(t, store, Options{MemoryBytes: 64 * 32 << 10, ReadBudget: 1 << 20, Now: now.Now})
	p := pack(t, store, "p", 4, 32<<10, false)
	mustGet(t, c, 1, p, 0, 4)
	scan(t, c, 2, pack(t, store, "cold1", 70, 32<<10, false), 8)
	if c.Missing(p, 0, 4) == 0 {
		t.Fatal("blocks that were read once survived a scan of all the memory")
	}
	now.pass(2 * correlated)
	mustGet(t, c, 1, p, 0, 4)
	scan(t, c, 2, pack(t, store, "cold2", 200, 32<<10, false), 8)
	if n := c.Missing(p, 0, 4); n != 0 {
		t.Fatalf("%d of 4 blocks that were wanted twice are gone", n)
	}
}

func TestHotBlocksAreCopiedOutOfAColdSlab(t *testing.T) {
	store := object.NewMemory()
	now := &clock{now: time.Unix(1, 0)}
	c := open(t, store, Options{MemoryBytes: 64 * 32 << 10, ReadBudget: 1 << 20, Now: now.Now})
	p := pack(t, store, "p", 8, 32<<10, false)
	mustGet(t, c, 1, p, 0, 8)
	for flow := range uint64(2) {
		now.pass(2 * correlated)
		mustGet(t, c, 2+flow, p, 5, 6)
	}
	scan(t, c, 9, pack(t, store, "cold", 200, 32<<10, false), 8)
	if c.Missing(p, 5, 6) != 0 || c.Missing(p, 0, 8) != 7 {
		t.Fatalf("%d of 8 blocks are gone, want all but the hot one", c.Missing(p, 0, 8))
	}
	if s := c.Stats(); s.Promoted != 1 {
		t.Fatalf("%d blocks were promoted", s.Promoted)
	}
	mustGet(t, c, 1, p, 5, 6)
}

func TestReadAheadIsBoundedAndExpires(t *testing.T) {
	store := object.NewMemory()
	now := &clock{now: time.Unix(1, 0)}
	c := open(t, store, Options{MemoryBytes: 64 << 15, ReadBudget: 1 << 20, Now: now.Now})
	p := pack(t, store, "p", 100, 32<<10, false)
	accepted := 0
	for accepted < 100 {
		n := c.Ahead(1, p, accepted, 100)
		accepted += n
		settle(t, c)
		if n == 0 {
			break
		}
	}
	if most := 64 * 7 / 8 * 7 / 8; accepted < 32 || accepted > most { // all but small's share, while main is empty
		t.Fatalf("%d blocks were read ahead, at most %d may", accepted, most)
	}
	if n := c.Ahead(2, p, 90, 98); n != 0 {
		t.Fatalf("%d blocks more were read ahead", n)
	}
	now.pass(2 * DefaultAheadTime)
	if n := c.Ahead(2, p, 90, 98); n != 8 {
		t.Fatal("what nobody came for still blocks read-ahead")
	}
}

func TestFlowsShareTheRoomForReadAhead(t *testing.T) {
	store := object.NewMemory()
	c := open(t, store, Options{MemoryBytes: 64 << 15, ReadBudget: 4 << 20}) // room for 49 blocks ahead, GETs of 8
	p := pack(t, store, "p", 100, 32<<10, false)
	grow := func(flow uint64, from, most int) (n int) {
		for more := 1; n < most && more > 0; n += more {
			more = c.Ahead(flow, p, from+n, from+min(n+8, most))
			settle(t, c)
		}
		return n
	}
	if n := grow(1, 0, 32); n != 32 {
		t.Fatalf("alone, a flow has %d blocks read ahead", n)
	}
	for i := range 24 {
		mustGet(t, c, 1, p, i, i+1)
	}
	if n := grow(2, 40, 40); n != 24 {
		t.Fatalf("a second flow has %d blocks read ahead, not its half", n)
	}
	if n := grow(1, 32, 8); n != 8 {
		t.Fatalf("the first, with 8, gets %d more", n)
	}
}

func TestAGetGoesOnToWhereItsReaderWillBe(t *testing.T) {
	store := object.NewMemory()
	c := open(t, store, Options{MemoryBytes: 64 << 15, ReadBudget: 4 << 20})
	p := pack(t, store, "p", 100, 32<<10, false)
	blocks, release, err := c.Get(t.Context(), p, Span{Flow: 1, From: 2, To: 4, Until: 9})
	if err != nil || len(blocks) != 2 {
		t.Fatalf("%d blocks, %v", len(blocks), err)
	}
	release()
	if s := c.Stats(); s.Gets != 1 || c.Missing(p, 2, 9) != 0 || s.AheadBytes == 0 {
		t.Fatalf("%d GETs, %d of 7 blocks are missing, %d bytes are kept ahead", s.Gets, c.Missing(p, 2, 9), s.AheadBytes)
	}
}

func TestWantedBlocksDoNotWaitForReadAhead(t *testing.T) {
	g := newGate(object.NewMemory())
	p := pack(t, g.Store, "p", 100, 1<<10, false)
	c := open(t, g, Options{GetSize: 1 << 10, Parallel: 4})
	c.Ahead(1, p, 0, 100)
	for range 3 {
		<-g.arrived
	}
	if s := c.Stats(); s.Running != 3 {
		t.Fatalf("%d of 4 GETs are read-ahead", s.Running)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		mustGet(t, c, 2, p, 99, 100)
	}()
	<-g.arrived // before any other has ended
	for range 4 {
		g.permit <- struct{}{}
	}
	<-done
}

func TestFlowsTakeTurns(t *testing.T) {
	g := newGate(object.NewMemory())
	scanned := pack(t, g.Store, "scan", 20, 1<<10, false)
	tail := pack(t, g.Store, "tail", 1, 1<<10, false)
	c := open(t, g, Options{GetSize: 1 << 10, Parallel: 1})
	var wg sync.WaitGroup
	wg.Go(func() { mustGet(t, c, 1, scanned, 0, 20) })
	<-g.arrived
	for c.Stats().Waiting < 19 {
		yield()
	}
	wg.Go(func() { mustGet(t, c, 2, tail, 0, 1) })
	for c.Stats().Waiting < 20 {
		yield()
	}
	g.permit <- struct{}{}
	<-g.arrived
	g.permit <- struct{}{}
	if next := <-g.arrived; next != "tail@6" {
		t.Errorf("the third GET is %s", next)
	}
	for range 19 {
		g.permit <- struct{}{}
	}
	wg.Wait()
}

// TestBudgetsHold reads at random, with blocks lent out for a while, and looks at the gauges all the time.
func TestBudgetsHold(t *testing.T) {
	for _, memory := range []int64{-1, 1 << 20, 4 << 20} {
		t.Run(fmt.Sprint(memory), func(t *testing.T) {
			store := object.NewMemory()
			var objects []*packed
			for i := range 6 {
				objects = append(objects, pack(t, store, fmt.Sprint("o", i), 50, 20_000+1000*i, i%2 == 1))
			}
			now := &clock{now: time.Unix(1, 0)}
			c := open(t, store, Options{MemoryBytes: memory, ReadBudget: 2 << 20, Now: now.Now})
			var wg sync.WaitGroup
			for flow := range uint64(8) {
				wg.Go(func() { wander(t, c, flow, objects, memory, now) })
			}
			wg.Wait()
			s := settle(t, c)
			if s.InFlightBytes != 0 || s.LentBytes != s.MemoryBytes {
				t.Fatalf("leaked: %+v", s)
			}
		})
	}
}

func TestAScanTouchesNoFreshMemory(t *testing.T) {
	store := object.NewMemory()
	p := pack(t, store, "p", 200, 32<<10, true)
	c := open(t, store, Options{MemoryBytes: 1 << 20, ReadBudget: 1 << 20})
	for range 10 {
		scan(t, c, 1, p, 4)
	}
	if s := settle(t, c); s.FreshBytes > 3<<20 || s.GetBytes < 30<<20 {
		t.Errorf("%d fresh bytes for %d read", s.FreshBytes, s.GetBytes)
	}
}

func wander(t *testing.T, c *Cache, flow uint64, objects []*packed, memory int64, now *clock) {
	rng := rand.New(rand.NewSource(int64(flow)))
	var held []func()
	for range 300 {
		p := objects[rng.Intn(len(objects))]
		from := rng.Intn(len(p.blocks))
		to := min(from+1+rng.Intn(8), len(p.blocks))
		c.Ahead(flow, p, to, min(to+10, len(p.blocks)))
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rng.Intn(20))*time.Millisecond)
		blocks, release, err := c.Get(ctx, p, Span{Flow: flow, From: from, To: to})
		cancel()
		if err == nil {
			check(t, p, from, blocks)
			held = append(held, release)
		}
		for len(held) > rng.Intn(4) {
			held[0]()
			held = held[1:]
		}
		now.pass(100 * time.Millisecond)
		s := c.Stats()
		if s.MemoryBytes > max(memory, 0) || s.InFlightBytes > 2<<20 || s.LentBytes+s.IdleBytes > max(memory, 0)+2<<20 {
			t.Errorf("budgets are broken: %+v", s)
			break
		}
	}
	for _, release := range held {
		release()
	}
}

// TestFaults: whatever the store does, what comes is right.
func TestFaults(t *testing.T) {
	kinds := []objecttest.Kind{objecttest.Before, objecttest.Throttle, objecttest.Cut, objecttest.Corrupt, objecttest.Misread}
	inner := object.NewMemory()
	rng := rand.New(rand.NewSource(7))
	store := objecttest.NewFaulty(inner, func(objecttest.Call) objecttest.Fault {
		if rng.Intn(3) > 0 {
			return objecttest.Fault{}
		}
		return objecttest.Fault{Kind: kinds[rng.Intn(len(kinds))]}
	})
	p := pack(t, inner, "p", 60, 10_000, true)
	c := open(t, store, Options{MemoryBytes: 400_000, ReadBudget: 400_000})
	var wg sync.WaitGroup
	for flow := range uint64(4) {
		wg.Go(func() {
			rng := rand.New(rand.NewSource(int64(flow)))
			failed, good := 0, 0
			for range 300 {
				from := rng.Intn(60)
				blocks, release, err := c.Get(context.Background(), p, Span{Flow: flow, From: from, To: min(from+1+rng.Intn(6), 60)})
				if err != nil {
					failed++
					continue
				}
				good++
				check(t, p, from, blocks)
				release()
			}
			if failed == 0 || good == 0 {
				t.Errorf("%d reads failed, %d were good", failed, good)
			}
		})
	}
	wg.Wait()
	if s := settle(t, c); s.InFlightBytes != 0 || s.LentBytes != s.MemoryBytes {
		t.Fatalf("leaked: %+v", s)
	}
}

func TestPoolReusesAndKeepsItsLimit(t *testing.T) {
	p := newPool(1 << 20)
	a := p.get(300_000)
	a[0] = 1
	p.put(a)
	if b := p.get(cap(a) - 5); &b[0] != &a[0] {
		t.Fatal("a free buffer of the class was not used again")
	} else {
		p.put(b)
	}
	for size := 1; size < 1<<20; size = size*3/2 + 1 {
		class, n := classOf(size)
		if same, m := classOf(n); same != class || m != n || n < size || size > 1<<minClassBits && float64(n) > 1.251*float64(size) {
			t.Fatalf("%d bytes are class %d of %d", size, class, n)
		}
		b := p.get(size)
		p.put(b)
		if lent, idle, _ := p.bytes(); lent != 0 || idle > 1<<20 {
			t.Fatalf("%d lent, %d idle", lent, idle)
		}
	}
	full := newPool(1 << 20)
	large := full.get(900_000)
	full.put(large)
	if b := full.reuse(700_000, 1<<20); b == nil || &b[0] != &large[0] {
		t.Fatal("a buffer a little larger was not used where a new one would have pushed it out")
	} else {
		full.put(b)
	}
	if full.reuse(700_000, 800_000) != nil || full.reuse(300_000, 1<<20) != nil {
		t.Fatal("a buffer was lent that is larger than allowed")
	}
	if huge := p.get(200 << 20); !bytes.Equal(huge[:3], []byte{0, 0, 0}) {
		t.Fatal("a new buffer is not zero")
	} else {
		p.put(huge)
	}
	if lent, idle, _ := p.bytes(); lent != 0 || idle > 1<<20 {
		t.Fatalf("%d lent, %d idle after a huge buffer", lent, idle)
	}
}
