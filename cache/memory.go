package cache

import "time"

// The memory tier is S3-FIFO (Yang et al., SOSP 2023) over slabs. A slab is the buffer that one GET filled, with the blocks
// in it: evicting whole slabs is what lets a GET of many blocks land in its final place without a copy.
//
//	ahead   blocks read ahead that nobody has read yet; when they fill what main leaves, but at least aheadShare of the
//	        memory, read-ahead is refused
//	small   everything that was read once; a scan passes through here and out again
//	main    blocks that were read again; at least half of the memory
//
// What leaves small takes its re-read blocks to main: the whole slab if they are most of it, else each is copied into a slab
// of its own. In main a slab that was read since it was last looked at goes round again. Every step is O(1) for each block.
const (
	aheadShare = 3.0 / 8
	smallShare = 1.0 / 8
	// hotReads is the number of readings after the first that makes a block hot; more than maxReads are not counted.
	hotReads = 2
	maxReads = 3
	// wholeShare is the hot part of a slab from which it moves to main as a whole.
	wholeShare = 1.0 / 2
	// headroomShare of the memory is left free for the copies that a promotion makes before the old slab is given up.
	headroomShare = 1.0 / 8
	// correlated is how long after its landing, its eviction, or the last reading that counted, a block must be read to count
	// as read again: readers that go through the same history side by side do not make it hot.
	correlated = time.Second
	// pressedTime is the least time that blocks read ahead are kept for their reader when others want the room.
	pressedTime = 2 * time.Second
	// ghostBlock is the size of block by which the number of remembered keys is reckoned.
	ghostBlock = 128 << 10
)

// block is one block of an object. All fields but key are guarded by Cache.mu; data and err do not change once load is done.
type block struct {
	key  key
	load *load // that brings it; nil when loaded
	slab *slab // that holds data
	data []byte
	err  error // why it could not be loaded; it is no longer in the index then
	// claims counts the callers that wait for the load. Each becomes a reference to the slab.
	claims int
	// read says that it has been read, and flow by whom last. reads counts later readings, the last of them at counted: not
	// those within the correlated time, and not a flow's that comes back because it takes the block in pieces.
	read    bool
	reads   uint8
	flow    uint64
	counted time.Time
}

// slab is a pooled buffer and the blocks in it. Guarded by Cache.mu.
type slab struct {
	buf    []byte
	size   int64 // of the buffer, as rounded
	blocks []*block
	// refs counts the borrowers of blocks. A slab without borrowers and without a queue is freed.
	refs   int
	unread int // blocks that nobody has read
	// flow is whose read-ahead brought it, 0 if nobody's.
	flow uint64
	// charged says that the slab counts against MemoryBytes; else it counts against ReadBudget.
	charged bool
	landed  time.Time
	touched time.Time // by a reader, or landed
	queue   *queue
	older   *slab
	newer   *slab
}

// queue is a FIFO of slabs. The zero value is empty.
type queue struct {
	oldest *slab
	newest *slab
	bytes  int64
	length int
	main   bool
}

func (q *queue) push(s *slab) {
	s.queue, s.older, s.newer = q, q.newest, nil
	if q.newest != nil {
		q.newest.newer = s
	} else {
		q.oldest = s
	}
	q.newest = s
	q.bytes += s.size
	q.length++
}

func (q *queue) remove(s *slab) {
	if s.older != nil {
		s.older.newer = s.newer
	} else {
		q.oldest = s.newer
	}
	if s.newer != nil {
		s.newer.older = s.older
	} else {
		q.newest = s.older
	}
	s.queue, s.older, s.newer = nil, nil, nil
	q.bytes -= s.size
	q.length--
}

// memory is the state of the memory tier. Guarded by Cache.mu.
type memory struct {
	// limit is MemoryBytes less the headroom. used counts the slabs charged to it, queued or still lent out.
	limit    int64
	headroom int64
	used     int64

	ahead queue
	small queue
	main  queue
	ghost *ghost
	// unread counts the bytes that were loaded or are being loaded ahead for each flow, and not yet read.
	unread map[uint64]int64
}

func (m *memory) init(o Options) {
	m.headroom = int64(float64(o.MemoryBytes) * headroomShare)
	m.limit = o.MemoryBytes - m.headroom
	m.main.main = true
	m.unread = map[uint64]int64{}
	m.ghost = newGhost(1024 + int(o.MemoryBytes/ghostBlock) + int(o.DiskBytes/ghostBlock))
}

// aheadLimit is how much may be read ahead and not yet read: what small and main leave, and at least aheadShare.
func (m *memory) aheadLimit() int64 {
	least := int64(float64(m.limit) * aheadShare)
	return max(least, m.limit-int64(float64(m.limit)*smallShare)-m.main.bytes)
}

// share is how much of it one flow may have while others read ahead too: its part, and never less than a GET and a quarter
// of the next, or it would stop at the end of each.
func (m *memory) share(flow uint64, get int64) int64 {
	flows := int64(len(m.unread))
	if m.unread[flow] == 0 {
		flows++
	}
	return max(m.aheadLimit()/flows, get+get/4)
}

// expect counts bytes that a flow has yet to read; negative when it has.
func (m *memory) expect(flow uint64, bytes int) {
	if flow == 0 {
		return
	}
	if m.unread[flow] += int64(bytes); m.unread[flow] <= 0 {
		delete(m.unread, flow)
	}
}

// disown forgets that a flow has yet to read a slab.
func (m *memory) disown(s *slab) {
	for _, b := range s.blocks {
		if !b.read {
			m.expect(s.flow, -len(b.data))
		}
	}
	s.flow = 0
}

// victim takes the slab to give up next out of its queue; nil if there is none. It does not touch what is lent out, what is
// read ahead, and the half of the memory that is main's: better that a block finds no room than that these go.
func (m *memory) victim() *slab {
	mainYields := m.main.bytes > m.limit/2
	if m.small.bytes <= int64(float64(m.limit)*smallShare) && mainYields {
		if s := m.main.victim(); s != nil {
			return s
		}
	}
	if s := m.small.victim(); s != nil || !mainYields {
		return s
	}
	return m.main.victim()
}

// victim takes the oldest slab that is neither lent out nor, in main, read again. Each slab is passed over at most once for
// being lent out, and once for every reading that is counted; small has none to take off, since hot looks at them.
func (q *queue) victim() *slab {
	for range q.length * (1 + maxReads) {
		s := q.oldest
		q.remove(s)
		if s.refs == 0 && !(q.main && s.cool()) {
			return s
		}
		q.push(s)
	}
	return nil
}

// cool takes one counted reading off each block, and reports whether there was one.
func (s *slab) cool() bool {
	warm := false
	for _, b := range s.blocks {
		if b.reads > 0 {
			b.reads--
			warm = true
		}
	}
	return warm
}

// hot returns the blocks to keep, and their bytes.
func (s *slab) hot() (blocks []*block, bytes int64) {
	for _, b := range s.blocks {
		if b.read && b.reads >= hotReads {
			blocks = append(blocks, b)
			bytes += rounded(len(b.data))
		}
	}
	return blocks, bytes
}

// touchLocked counts one reading of a loaded block by a flow.
func (c *Cache) touchLocked(b *block, flow uint64, now time.Time) {
	s := b.slab
	if !b.read {
		b.read, b.flow = true, flow
		c.memory.expect(s.flow, -len(b.data))
		s.unread--
		s.touched = now
		if s.queue == &c.memory.ahead {
			c.memory.ahead.remove(s)
			if s.unread == 0 {
				c.memory.small.push(s)
			} else {
				c.memory.ahead.push(s)
			}
		}
		return
	}
	own := flow != 0 && flow == b.flow
	b.flow = flow
	if !own && now.Sub(later(s.landed, b.counted)) >= correlated {
		b.reads, b.counted = min(b.reads+1, maxReads), now
	}
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// expireLocked makes evictable what was read ahead for a reader that has not come for the given time. The ahead queue is in
// the order of the last touch.
func (c *Cache) expireLocked(now time.Time, after time.Duration) {
	m := &c.memory
	for s := m.ahead.oldest; s != nil && now.Sub(s.touched) > after; s = m.ahead.oldest {
		m.disown(s)
		m.ahead.remove(s)
		m.small.push(s)
	}
}

// makeRoom charges size bytes to the memory tier, evicting what must go; false if everything is lent out. It copies hot
// blocks, without holding the lock.
func (c *Cache) makeRoom(size int64) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := &c.memory
	if size > m.limit {
		return false
	}
	for m.used+size > m.limit {
		s := m.victim()
		if s == nil {
			return false
		}
		hot, bytes := s.hot()
		switch {
		case float64(bytes) >= wholeShare*float64(s.size):
			for _, b := range s.blocks {
				b.reads = 0
			}
			m.main.push(s)
		case len(hot) > 0 && m.used+bytes <= m.limit+m.headroom:
			c.promoteLocked(s, hot, bytes)
		default:
			c.dropLocked(s)
		}
	}
	m.used += size
	return true
}

// promoteLocked copies the hot blocks of a slab that is in no queue into slabs of their own in main, and drops the rest. It
// gives up the lock while it copies; the slab cannot go meanwhile, and is read as before.
func (c *Cache) promoteLocked(s *slab, hot []*block, bytes int64) {
	c.memory.used += bytes
	s.refs++
	c.mu.Unlock()
	copies := make([][]byte, len(hot))
	for i, b := range hot {
		copies[i] = c.pool.get(len(b.data))
		copy(copies[i], b.data)
	}
	c.mu.Lock()
	s.refs--
	for i, b := range hot {
		n := &slab{buf: copies[i], size: rounded(len(copies[i])), charged: true, landed: s.landed, touched: s.touched}
		moved := *b
		moved.slab, moved.data, moved.reads, moved.claims = n, copies[i], 0, 0
		n.blocks = []*block{&moved}
		c.memory.main.push(n)
		c.index[b.key] = &moved
		c.stats.Promoted++
	}
	c.dropLocked(s)
}

// dropLocked takes the blocks of a slab that is in no queue out of the index, and frees it unless it is lent out.
func (c *Cache) dropLocked(s *slab) {
	now := c.o.Now()
	c.memory.disown(s)
	for _, b := range s.blocks {
		if c.index[b.key] != b {
			continue // it was promoted
		}
		delete(c.index, b.key)
		c.stats.Evicted++
		if b.read {
			c.memory.ghost.add(b.key, now)
		} else {
			c.stats.EvictedUnread++
		}
	}
	if s.refs == 0 {
		c.freeLocked(s)
	}
}

// freeLocked gives the memory of a slab back.
func (c *Cache) freeLocked(s *slab) {
	c.pool.put(s.buf)
	s.buf = nil
	if s.charged {
		c.memory.used -= s.size
		return
	}
	now := c.o.Now()
	c.memory.disown(s)
	for _, b := range s.blocks {
		if c.index[b.key] == b {
			delete(c.index, b.key)
			c.memory.ghost.add(b.key, now)
		}
	}
	c.budget.used -= s.size
	c.pumpLocked()
}
