package cache

import "math"

// aheadBudget is the part of the read budget and of the parallel GETs that read-ahead may take, so that a wanted block finds
// room at once.
const aheadBudget = 3.0 / 4

// budget admits GETs: bytes in flight and their number are bounded, wanted blocks go before read-ahead, and the flows that
// wait take turns, one GET each, so that a reader with many GETs delays another by one of its own only. Guarded by Cache.mu.
type budget struct {
	bytes int64
	used  int64
	gets  int
	// running counts the GETs, aheadBytes what of used belongs to read-ahead.
	running    int
	aheadBytes int64

	limit  int // of waiting
	length int // waiting
	flows  map[uint64][]*load
	turns  []uint64 // flows with waiting loads, in the order of their turns
	// stall is closed, and replaced, when loads wait and none runs: then only those who hold blocks can make room.
	stall chan struct{}
}

func (b *budget) init(o Options) {
	b.bytes, b.gets, b.limit = o.ReadBudget, o.Parallel, o.Queue
	b.flows, b.stall = map[uint64][]*load{}, make(chan struct{})
}

// push queues a load; false if too many wait.
func (b *budget) push(ld *load) bool {
	if b.length >= b.limit {
		return false
	}
	if len(b.flows[ld.flow]) == 0 {
		b.turns = append(b.turns, ld.flow)
	}
	b.flows[ld.flow] = append(b.flows[ld.flow], ld)
	b.length++
	return true
}

// pop takes the next load whose turn it is, if the budget has room for it. A load that does not fit is waited for, so that
// smaller ones cannot starve it; one that never could fit runs alone.
func (b *budget) pop() *load {
	if b.length == 0 {
		return nil
	}
	flow := b.turns[0]
	ld := b.flows[flow][0]
	if b.running >= b.gets || b.used+ld.cost > b.bytes && b.used > 0 {
		return nil
	}
	b.turns = b.turns[1:]
	if rest := b.flows[flow][1:]; len(rest) > 0 {
		b.flows[flow] = rest
		b.turns = append(b.turns, flow)
	} else {
		delete(b.flows, flow)
	}
	b.length--
	return ld
}

// roomAhead reports whether a read-ahead of cost bytes may start now.
func (b *budget) roomAhead(cost int64) bool {
	gets := int(math.Ceil(float64(b.gets) * aheadBudget))
	return b.length == 0 && b.running < gets && b.used+cost <= int64(float64(b.bytes)*aheadBudget)
}

// drain empties the queue and returns what waited.
func (b *budget) drain() []*load {
	var all []*load
	for _, waiting := range b.flows {
		all = append(all, waiting...)
	}
	clear(b.flows)
	b.turns, b.length = nil, 0
	return all
}

// pumpLocked starts the loads that the budget has room for.
func (c *Cache) pumpLocked() {
	b := &c.budget
	for ld := b.pop(); ld != nil; ld = b.pop() {
		c.startLocked(ld)
	}
	if b.stalled() {
		close(b.stall)
		b.stall = make(chan struct{})
	}
}

func (b *budget) stalled() bool { return b.running == 0 && b.length > 0 }

// stallOf returns what is closed when the load of a block waits while none runs; nil if the load has started.
func (c *Cache) stallOf(b *block) <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case b.load == nil || b.load.started:
		return nil
	case c.budget.stalled():
		stalled := make(chan struct{})
		close(stalled)
		return stalled
	}
	return c.budget.stall
}
