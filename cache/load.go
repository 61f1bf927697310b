package cache

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// load is one GET, of blocks that lie side by side in an object. It belongs to nobody who waits for it.
type load struct {
	layout Layout
	from   int
	blocks []*block
	flow   uint64
	// ahead says that it brings blocks nobody has asked for yet.
	ahead bool

	position int64
	stored   int
	raw      int
	// plain says that no block is encoded: what comes in is what is cached.
	plain bool
	// cost is what the load takes of the read budget, in bytes.
	cost int64
	// in is the buffer for what comes in; nil until it is read if the pool had none.
	in []byte
	// file holds all the blocks in the disk tier; nil if they come from the store.
	file *diskFile
	// started is set when the budget admits the load. Guarded by Cache.mu.
	started bool
	done    chan struct{}
}

// planLocked makes a load of the missing blocks from from on: as many as lie side by side, fit one GET and come from one
// place. It indexes nothing yet.
func (c *Cache) planLocked(l Layout, from, to int, flow uint64, ahead bool) *load {
	ld := &load{layout: l, from: from, flow: flow, ahead: ahead, plain: true, done: make(chan struct{})}
	for i := from; i < to; i++ {
		k := keyOf(l, i)
		position, stored, raw := l.Block(i)
		file := c.disk.find(k)
		if i == from {
			ld.position, ld.file = position, file
		} else if c.index[k] != nil || file != ld.file || position != ld.position+int64(ld.stored) || ld.raw+raw > c.o.GetSize {
			break
		}
		ld.stored += stored
		ld.raw += raw
		ld.plain = ld.plain && stored == raw
		ld.blocks = append(ld.blocks, &block{key: k, load: ld, flow: flow})
	}
	ld.cost = rounded(ld.stored)
	if !ld.plain {
		ld.cost += rounded(ld.raw)
	}
	return ld
}

// indexLocked makes the blocks of a load known, so that all who want them wait for it.
func (c *Cache) indexLocked(ld *load) {
	for _, b := range ld.blocks {
		c.index[b.key] = b
	}
	if ld.ahead {
		c.budget.aheadBytes += ld.cost
		c.memory.expect(ld.flow, ld.raw)
	}
}

// startLocked runs a load that the budget has admitted.
func (c *Cache) startLocked(ld *load) {
	ld.started = true
	if ld.in = c.pool.reuse(ld.stored, c.budget.bytes-c.budget.used-ld.cost+rounded(ld.stored)); ld.in != nil {
		more := int64(cap(ld.in)) - rounded(ld.stored)
		ld.cost += more
		if ld.ahead {
			c.budget.aheadBytes += more
		}
	}
	c.budget.used += ld.cost
	c.budget.running++
	ctx, cancel := context.WithTimeout(context.Background(), c.o.Timeout)
	c.cancels[ld] = cancel
	c.wg.Go(func() {
		defer cancel()
		c.run(ctx, ld)
	})
}

// run reads, decodes and lands the blocks of a load.
func (c *Cache) run(ctx context.Context, ld *load) {
	in, fetched, err := c.read(ctx, ld)
	if err != nil {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.failLocked(ld, err)
		c.finishLocked(ld)
		return
	}
	s := c.decode(ld, in)
	charged := c.makeRoom(s.size)

	c.mu.Lock()
	defer c.mu.Unlock()
	c.landLocked(ld, s, charged)
	if fetched && len(s.blocks) == len(ld.blocks) {
		c.offerLocked(ld, s, in)
	} else if !ld.plain {
		c.pool.put(in)
	}
	if s.refs == 0 && s.queue == nil {
		c.freeLocked(s)
	}
	c.finishLocked(ld)
}

// read brings the stored bytes of a load into a buffer of the pool, and tells whether the store was asked.
func (c *Cache) read(ctx context.Context, ld *load) (in []byte, fetched bool, err error) {
	if in = ld.in; in == nil {
		in = c.pool.get(ld.stored)
	}
	if ld.file != nil && c.disk.read(ld, in) {
		return in, false, nil
	}
	start := time.Now()
	n, err := c.store.ReadAt(ctx, ld.layout.Object(), in, ld.position)
	took := time.Since(start)

	c.mu.Lock()
	c.stats.Gets++
	c.stats.GetBytes += int64(n)
	c.stats.GetTime += took
	if n == len(in) {
		if c.getTime == 0 {
			c.getTime = took
		}
		c.getTime += (took - c.getTime) / 8
	} else {
		c.stats.GetErrors++
	}
	c.mu.Unlock()

	if n == len(in) {
		return in, true, nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	c.pool.put(in)
	return nil, false, fmt.Errorf("read %d bytes of %s at %d: %w", ld.stored, ld.layout.Object(), ld.position, err)
}

// decode turns what came in into blocks, and sets data or err of each. A block that is damaged spoils no other. The buffer
// that came in becomes the slab if all of it is plain; else it stays the caller's.
func (c *Cache) decode(ld *load, in []byte) *slab {
	buf := in
	if !ld.plain {
		buf = c.pool.get(ld.raw)
	}
	now := c.o.Now()
	s := &slab{buf: buf, size: int64(cap(buf)), landed: now, touched: now}
	from, to := 0, 0
	for i, b := range ld.blocks {
		_, stored, raw := ld.layout.Block(ld.from + i)
		dst := buf[to : to+raw : to+raw]
		room := dst[:0]
		if ld.plain {
			room = nil // dst is what is decoded
		}
		got, err := ld.layout.Decode(ld.from+i, room, in[from:from+stored:from+stored])
		if err == nil && len(got) != raw {
			err = fmt.Errorf("%d bytes decoded, not %d", len(got), raw)
		}
		if err != nil {
			b.err = fmt.Errorf("decode block %d of %s: %w", ld.from+i, ld.layout.Object(), err)
		} else {
			if raw > 0 && &got[0] != &dst[0] {
				copy(dst, got)
			}
			b.data = dst
		}
		from += stored
		to += raw
	}
	return s
}

// landLocked gives the blocks of a load to those who wait, and the slab its place: ahead if some are still to be read, main if
// most of its blocks were here before, else small. A slab that is not charged to the memory tier lives as long as it
// is lent out.
func (c *Cache) landLocked(ld *load, s *slab, charged bool) {
	known := 0
	s.flow = ld.flow
	for _, b := range ld.blocks {
		b.load = nil
		if b.err != nil {
			delete(c.index, b.key)
			c.stats.Damaged++
			continue
		}
		b.slab = s
		s.blocks = append(s.blocks, b)
		s.refs += b.claims
		if b.read = b.claims > 0; !b.read {
			s.unread++
			c.memory.expect(s.flow, len(b.data))
		}
		if c.memory.ghost.has(b.key, s.landed) {
			b.reads = hotReads
			known++
		}
	}
	close(ld.done)
	if s.charged = charged; !charged {
		c.budget.used += s.size
		return
	}
	c.enqueueLocked(s, known)
}

func (c *Cache) enqueueLocked(s *slab, known int) {
	m := &c.memory
	ahead := c.budget.aheadBytes + m.ahead.bytes
	switch {
	case len(s.blocks) == 0:
	case s.unread > 0 && ahead <= m.aheadLimit():
		m.ahead.push(s)
	case s.unread == 0 && float64(known) >= wholeShare*float64(len(s.blocks)):
		m.main.push(s)
	default:
		m.small.push(s)
	}
}

// offerLocked lends the stored bytes to the disk tier, or takes the buffer back if it does not want them.
func (c *Cache) offerLocked(ld *load, s *slab, in []byte) {
	wanted := c.disk.wants(ld, c.memory.ghost, s.landed)
	if ld.plain {
		if s.refs++; !wanted || !c.disk.offer(ld, in, func() { c.release(s) }) {
			s.refs--
		}
		return
	}
	size := int64(cap(in))
	if wanted && c.disk.offer(ld, in, func() { c.returnInput(in, size) }) {
		c.budget.used += size
		return
	}
	c.pool.put(in)
}

// returnInput takes a buffer back that stayed charged to the read budget.
func (c *Cache) returnInput(in []byte, size int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pool.put(in)
	c.budget.used -= size
	c.pumpLocked()
}

// failLocked answers all who wait for a load, and forgets its blocks.
func (c *Cache) failLocked(ld *load, err error) {
	for _, b := range ld.blocks {
		b.load, b.err = nil, err
		delete(c.index, b.key)
	}
	close(ld.done)
}

// finishLocked gives the budget of a load back. What is still in memory of it was charged elsewhere.
func (c *Cache) finishLocked(ld *load) {
	delete(c.cancels, ld)
	c.budget.used -= ld.cost
	c.budget.running--
	if ld.ahead {
		c.budget.aheadBytes -= ld.cost
		c.memory.expect(ld.flow, -ld.raw) // landLocked has counted what is still to be read
	}
	if !c.closed {
		c.pumpLocked()
	}
}
