package cache

import "time"

// Stats says what a cache has done and what it holds. Counters only grow; they count blocks where nothing else is said.
type Stats struct {
	// Hits were in memory, Shared were being loaded already, Misses caused a load.
	Hits, Shared, Misses int64
	// Gets counts ranged GETs of the store, GetErrors those that brought less than was asked; GetBytes and GetTime sum up.
	Gets, GetErrors int64
	GetBytes        int64
	GetTime         time.Duration
	// Ahead counts loads started ahead, AheadRefused those that found no room.
	Ahead, AheadRefused int64
	// Evicted left the memory tier, EvictedUnread of them before anybody had read them. Promoted were copied to main.
	Evicted, EvictedUnread, Promoted int64
	// Damaged failed to decode.
	Damaged int64
	// DiskHits counts loads served by the disk tier; DiskWritten and DiskEvicted count its files; DiskErrors the operations
	// that failed, a full disk and a damaged file included.
	DiskHits, DiskWritten, DiskEvicted, DiskErrors int64

	// MemoryBytes are charged to Options.MemoryBytes, InFlightBytes to Options.ReadBudget. AheadBytes of MemoryBytes wait for
	// their first reader. LentBytes and IdleBytes are all buffers, in use and free; FreshBytes counts those ever allocated.
	MemoryBytes, InFlightBytes, AheadBytes int64
	LentBytes, IdleBytes, FreshBytes       int64
	// Running GETs, and Waiting for the budget.
	Running, Waiting int
	// DiskBytes are the bytes of files in the disk tier.
	DiskBytes int64
}

// Stats returns the counters and gauges of this moment.
func (c *Cache) Stats() Stats {
	c.mu.Lock()
	s := c.stats
	s.MemoryBytes, s.InFlightBytes, s.AheadBytes = c.memory.used, c.budget.used, c.memory.ahead.bytes
	s.Running, s.Waiting = c.budget.running, c.budget.length
	s.LentBytes, s.IdleBytes, s.FreshBytes = c.pool.bytes()
	c.mu.Unlock()
	c.disk.report(&s)
	return s
}
