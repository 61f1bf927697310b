package cache

import (
	"context"
	"errors"
	"sync/atomic"
	"time"
)

// errStalled ends a Get that has something to return.
var errStalled = errors.New("the read budget is lent out")

// Get returns the raw bytes of the blocks [From, To) of s, From < To, loading what is missing: the longest run from the first
// on that is there when ctx ends, a block fails, or the rest waits for memory that readers hold; at least one block, else an
// error (ctx's, the store's, Decode's, ErrBusy or ErrClosed). A GET under way goes on when ctx has ended; a block that is there
// is returned even if ctx has ended before.
//
// The bytes are shared: they must not be changed, and are valid until release, which must be called once and may be called
// again.
func (c *Cache) Get(ctx context.Context, l Layout, s Span) (blocks [][]byte, release func(), err error) {
	le, err := c.claim(l, s)
	if err != nil {
		return nil, nil, err
	}
	n, err := le.await(ctx)
	if n == 0 {
		return nil, nil, err
	}
	blocks = make([][]byte, n)
	for i := range blocks {
		blocks[i] = le.blocks[i].data
	}
	return blocks, le.release, nil
}

// Ahead starts to load the missing ones of the blocks [from, to) if there is room to keep them until they are read, and
// returns how many from the first on are now cached or on their way. It does not wait.
func (c *Cache) Ahead(flow uint64, l Layout, from, to int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0
	}
	c.expireLocked(c.o.Now(), c.o.AheadTime)
	i := from
	for i < to {
		if c.index[keyOf(l, i)] != nil {
			i++
			continue
		}
		ld := c.planLocked(l, i, to, flow, true)
		if !c.roomAheadLocked(ld) {
			c.stats.AheadRefused++
			break
		}
		c.stats.Ahead++
		c.indexLocked(ld)
		c.startLocked(ld)
		i += len(ld.blocks)
	}
	return i - from
}

// roomAheadLocked reports whether a load may start ahead of its flow now.
func (c *Cache) roomAheadLocked(ld *load) bool {
	m := &c.memory
	return c.budget.roomAhead(ld.cost) && c.keepsLocked(ld) &&
		m.unread[ld.flow]+int64(ld.raw) <= m.share(ld.flow, int64(c.o.GetSize))
}

// keepsLocked reports whether there is room to keep what a load brings until it is read.
func (c *Cache) keepsLocked(ld *load) bool {
	m := &c.memory
	if c.budget.aheadBytes+m.ahead.bytes+ld.cost > m.aheadLimit() {
		c.expireLocked(c.o.Now(), min(pressedTime, c.o.AheadTime))
	}
	return c.budget.aheadBytes+m.ahead.bytes+ld.cost <= m.aheadLimit()
}

// planWantedLocked makes a load of the missing blocks of a span from i on, which goes on to Until if there is room for that.
// A part of the way is no good: the rest would be a GET of its own.
func (c *Cache) planWantedLocked(l Layout, i int, s Span) *load {
	if s.Until > s.To {
		if ld := c.planLocked(l, i, s.Until, s.Flow, true); c.keepsLocked(ld) {
			ld.ahead = len(ld.blocks) > s.To-i
			return ld
		}
	}
	return c.planLocked(l, i, s.To, s.Flow, false)
}

// lease is what one caller holds: a reference, or a claim while it is loading, for each of its blocks.
type lease struct {
	c        *Cache
	blocks   []*block
	waits    []<-chan struct{} // nil for a block that was there
	released atomic.Bool
}

// claim finds or starts to load the blocks of a span, and claims each, so that none can go before the caller has it.
func (c *Cache) claim(l Layout, s Span) (*lease, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return nil, ErrClosed
	}
	now := c.o.Now()
	le := &lease{c: c, blocks: make([]*block, 0, s.To-s.From), waits: make([]<-chan struct{}, 0, s.To-s.From)}
	fresh := 0 // of the blocks that follow, those just planned
	for i := s.From; i < s.To; i++ {
		b := c.index[keyOf(l, i)]
		if b == nil {
			ld := c.planWantedLocked(l, i, s)
			if !c.budget.push(ld) {
				if i == s.From {
					return nil, ErrBusy
				}
				break
			}
			c.indexLocked(ld)
			b, fresh = ld.blocks[0], len(ld.blocks)
		}
		c.claimLocked(le, b, s.Flow, now, fresh > 0)
		fresh--
	}
	c.pumpLocked()
	return le, nil
}

func (c *Cache) claimLocked(le *lease, b *block, flow uint64, now time.Time, fresh bool) {
	var wait <-chan struct{}
	if b.load != nil {
		b.claims++
		wait = b.load.done
	} else {
		b.slab.refs++
		c.touchLocked(b, flow, now)
	}
	le.blocks = append(le.blocks, b)
	le.waits = append(le.waits, wait)
	switch {
	case fresh:
		c.stats.Misses++
	case wait != nil:
		c.stats.Shared++
	default:
		c.stats.Hits++
	}
}

// await waits until the blocks are there, ctx ends or one fails. It returns how many there are, gives the others up, and says
// why there are not more.
func (le *lease) await(ctx context.Context) (n int, err error) {
	for n < len(le.blocks) {
		b := le.blocks[n]
		if err = le.wait(ctx, b, le.waits[n], n > 0); err == nil {
			err = b.err
		}
		if err != nil {
			break
		}
		n++
	}
	if rest := le.blocks[n:]; len(rest) > 0 {
		le.c.unclaim(rest)
		le.blocks = le.blocks[:n]
	}
	return n, err
}

// wait waits for the load of one block. A caller that holds blocks does not wait for a load that may be waiting for the
// memory of these: errStalled.
func (le *lease) wait(ctx context.Context, b *block, done <-chan struct{}, holds bool) error {
	if done == nil {
		return nil
	}
	select {
	case <-done: // even if ctx has ended
		return nil
	default:
	}
	var stall <-chan struct{}
	if holds {
		stall = le.c.stallOf(b)
	}
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-stall:
		return errStalled
	}
}

// release gives the blocks back.
func (le *lease) release() {
	if !le.released.Swap(true) {
		le.c.unclaim(le.blocks)
	}
}

// unclaim gives claims and references back.
func (c *Cache) unclaim(blocks []*block) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, b := range blocks {
		switch {
		case b.load != nil:
			b.claims--
		case b.slab != nil:
			c.releaseLocked(b.slab)
		}
	}
}

func (c *Cache) release(s *slab) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.releaseLocked(s)
}

func (c *Cache) releaseLocked(s *slab) {
	if s.refs--; s.refs == 0 && s.queue == nil {
		c.freeLocked(s)
	}
}
