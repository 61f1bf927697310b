// Package cache owns the cached blocks of immutable objects: a memory tier, an optional disk tier, and the ranged GETs that
// fill both. It knows objects by name, blocks by position and size; what a block means, and how it is decoded and checked,
// the caller says with a Layout. Objects never change, so nothing is ever invalidated.
//
// However many callers wait for a block, one GET brings it; neighbouring wanted blocks share a GET; a GET goes on when the
// caller that caused it has gone. All bytes in flight come out of one budget, shared fairly between flows (readers).
//
// tier/fetch reads through it (as its BlockCache); cmd/node makes one for the broker. DESIGN.md has the reasons.
package cache

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/vfs"
)

// Defaults of Options.
const (
	DefaultMemoryBytes = 128 << 20
	DefaultReadBudget  = 64 << 20
	DefaultGetSize     = 8 << 20
	DefaultParallel    = 16
	DefaultQueue       = 1024
	DefaultTimeout     = 30 * time.Second
	DefaultAheadTime   = 30 * time.Second
)

var (
	// ErrBusy means that more GETs wait for the read budget than Options.Queue allows. Retriable.
	ErrBusy = errors.New("too many cold reads waiting")
	// ErrClosed means that the cache was closed.
	ErrClosed = errors.New("block cache closed")
)

// Layout says where the blocks of one object lie and how to decode them. It is an alias of an unnamed type, as is all else
// in the methods of Cache, so that a package which must not import this one can declare the interface it needs.
//
// Object is the object's name. Block returns a block's position in the object and its sizes in bytes, stored and decoded.
// Decode checks the stored bytes of block i and returns its raw bytes: stored itself if the block is not encoded, else it
// appends to dst[:0], which has room for raw bytes or is nil. A block with stored < raw is taken to be encoded. Blocks that
// follow each other lie side by side. All must be cheap, answer the same for ever, and be safe for concurrent use.
type Layout = interface {
	Object() string
	Block(i int) (position int64, stored, raw int)
	Decode(i int, dst, stored []byte) ([]byte, error)
}

// Span says which blocks are wanted, and by whom; an alias as Layout is.
//
// Flow identifies the reader, for fair turns at the budget; 0 is nobody in particular. The blocks [From, To) are wanted. If
// one is missing, its GET may go on to Until (exclusive, if beyond To): for a reader who goes on there, when Ahead has found
// no room.
type Span = struct {
	Flow            uint64
	From, To, Until int
}

// Options of a Cache. The zero value is valid.
type Options struct {
	// MemoryBytes bounds the memory of cached blocks, those lent to callers included. 0 is DefaultMemoryBytes; negative
	// caches nothing, and only shares the GETs under way.
	MemoryBytes int64
	// ReadBudget bounds the memory of reads in flight, and of blocks that found no room in MemoryBytes until their borrower
	// gives them back. Together the two bound all memory of blocks, free buffers included; only a single block larger than
	// the budget breaks it, and is then read alone. 0 is DefaultReadBudget.
	ReadBudget int64
	// GetSize is the most bytes that one GET brings, counted decoded; a larger block is read alone. 0 is DefaultGetSize, and
	// it is never more than a quarter of ReadBudget and an
	// eighth of MemoryBytes.
	GetSize int
	// Parallel is the most GETs in flight. 0 is DefaultParallel.
	Parallel int
	// Queue is the most GETs that wait for the budget; beyond it is ErrBusy. 0 is DefaultQueue.
	Queue int
	// Timeout is the deadline of one GET, from its start. 0 is DefaultTimeout.
	Timeout time.Duration
	// AheadTime is how long blocks read ahead are kept although their reader does not come; less if others want the room. 0 is
	// DefaultAheadTime.
	AheadTime time.Duration
	// Disk, with Dir and DiskBytes, adds the disk tier: files in Dir, which is made if absent and belongs to the cache
	// alone, of at most DiskBytes together. It needs no fsync: a file that a crash has torn is noticed and dropped.
	Disk      vfs.FS
	Dir       string
	DiskBytes int64
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

func (o Options) withDefaults() Options {
	if o.MemoryBytes == 0 {
		o.MemoryBytes = DefaultMemoryBytes
	}
	o.MemoryBytes = max(o.MemoryBytes, 0)
	if o.ReadBudget <= 0 {
		o.ReadBudget = DefaultReadBudget
	}
	if o.GetSize <= 0 {
		o.GetSize = DefaultGetSize
	}
	o.GetSize = int(min(int64(o.GetSize), max(o.ReadBudget/4, 1)))
	if o.MemoryBytes > 0 {
		o.GetSize = int(min(int64(o.GetSize), max(o.MemoryBytes/8, 1)))
	}
	if o.Parallel <= 0 {
		o.Parallel = DefaultParallel
	}
	if o.Queue <= 0 {
		o.Queue = DefaultQueue
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.AheadTime <= 0 {
		o.AheadTime = DefaultAheadTime
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Cache is the block cache of one store. It is safe for concurrent use.
type Cache struct {
	store object.Store
	o     Options
	pool  *pool
	disk  *disk // nil without one
	wg    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	// index holds every block that is cached, lent out or being loaded.
	index  map[key]*block
	memory memory
	budget budget
	// cancels stops the loads that run, for Close.
	cancels map[*load]context.CancelFunc
	// getTime is the smoothed time of a GET.
	getTime time.Duration
	stats   Stats
}

// key names a block for ever: objects never change.
type key struct {
	object   string
	position int64
	stored   int
}

func keyOf(l Layout, i int) key {
	position, stored, _ := l.Block(i)
	return key{object: l.Object(), position: position, stored: stored}
}

// New makes a cache in front of store. With a disk tier it starts to read that directory, and serves from it when done.
// Close it.
func New(store object.Store, o Options) *Cache {
	o = o.withDefaults()
	c := &Cache{
		store: store, o: o, pool: newPool(o.MemoryBytes + o.ReadBudget),
		index: map[key]*block{}, cancels: map[*load]context.CancelFunc{},
	}
	c.memory.init(o)
	c.budget.init(o)
	if o.Disk != nil && o.DiskBytes > 0 {
		c.disk = openDisk(o)
	}
	return c
}

// Close cancels what is in flight and waits for it. Blocks lent out stay valid until they are released; everything else
// answers ErrClosed. Closing again does nothing.
func (c *Cache) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	for _, cancel := range c.cancels {
		cancel()
	}
	for _, ld := range c.budget.drain() {
		c.failLocked(ld, ErrClosed)
	}
	c.mu.Unlock()
	c.wg.Wait()
	if c.disk != nil {
		c.disk.close()
	}
	return nil
}

// GetSize is the most bytes that one GET brings, counted decoded.
func (c *Cache) GetSize() int { return c.o.GetSize }

// GetTime is the smoothed time of one GET, 0 before the first.
func (c *Cache) GetTime() time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.getTime
}

// Missing counts the blocks [from, to) that are neither cached nor on their way. The disk tier does not count as cached.
func (c *Cache) Missing(l Layout, from, to int) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	n := 0
	for i := from; i < to; i++ {
		if c.index[keyOf(l, i)] == nil {
			n++
		}
	}
	return n
}
