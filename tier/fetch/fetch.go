// Package fetch owns reads of remote history: from an offset or a timestamp to the record batches that lie in the object
// store, over a partition's manifest, the footers of its segments, and a cache of blocks. It decides what to load ahead of
// whom. It does not cache blocks itself (that is handed in), and does not decide what a reader may see (ingest/partition
// does). ingest/partition reads through a Reader; Scan replays history without cache and broker.
package fetch

import (
	"context"
	"errors"
	"time"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
)

var (
	// ErrNotFound means that the remote log does not have the offset: it is past the end, or was deleted.
	ErrNotFound = errors.New("offset is not in the remote log")
	// ErrMissing means that an object which the newest manifest names is not in the store. The records are not out of range:
	// either the store does not tell the truth at the moment, and a retry helps, or they are lost, and somebody must look.
	ErrMissing = errors.New("object of the remote log is missing")
	// ErrCorrupt means that an object does not hold what was written, or not what the manifest says.
	ErrCorrupt = errors.New("corrupt remote segment")
)

// Layout says where the blocks of one object lie; it is what BlockCache takes.
type Layout = interface {
	Object() string
	Block(i int) (position int64, stored, raw int)
	Decode(i int, dst, stored []byte) ([]byte, error)
}

// Span says which blocks are wanted: [From, To) by the sequential reader Flow (0 is none), in GETs that may go on to Until.
type Span = struct {
	Flow            uint64
	From, To, Until int
}

// BlockCache is what a Reader needs of the cache. See package cache for the contract of each method.
type BlockCache interface {
	// Get returns the longest run of the span's blocks that is there when ctx ends, at least one.
	Get(ctx context.Context, l Layout, s Span) (blocks [][]byte, release func(), err error)
	// Ahead starts to load blocks and returns how many from the first on are there or on their way.
	Ahead(flow uint64, l Layout, from, to int) int
	// Missing counts the blocks that are neither there nor on their way.
	Missing(l Layout, from, to int) int
	// GetSize is the most bytes that one GET brings, GetTime how long one takes lately.
	GetSize() int
	GetTime() time.Duration
}

// Source is one partition's remote log.
type Source struct {
	Store object.Store
	// Manifest returns the newest known manifest, nil while there is none.
	Manifest func() *manifest.Manifest
	// Reload looks for a newer manifest; may be nil.
	Reload  func(context.Context) error
	Blocks  BlockCache
	Footers *Footers
	// Now is the clock; nil is time.Now.
	Now func() time.Time
}

// Reader reads one partition's remote log. Safe for concurrent use: all readers of the partition share it, and with it every
// GET.
type Reader struct {
	src       Source
	streams   streams
	following following
}

// NewReader returns a reader that has read nothing yet.
func NewReader(s Source) *Reader {
	if s.Now == nil {
		s.Now = time.Now
	}
	return &Reader{src: s}
}

// Options of one Read.
type Options struct {
	// MaxBytes bounds what is returned; AtLeastOne returns the first batch even if it alone is larger.
	MaxBytes   int
	AtLeastOne bool
	// Committed asks for the aborted transactions.
	Committed bool
}

// Result is what Read found.
type Result struct {
	// Blocks hold whole batches in order, the first of them the one that contains the offset asked for, or the first after
	// it. They are shared and must not be changed; valid until Release.
	Blocks [][]byte
	// Next is the offset to go on at: after the last batch. If there is no batch, because compaction left none from the
	// offset to the end of the remote log, it is that end.
	Next record.Offset
	// Aborted are the aborted transactions that overlap [offset, Next), ordered by first offset.
	Aborted []record.AbortedTxn

	releases []func()
}

// Release gives the blocks back. It may be called more than once.
func (r *Result) Release() {
	for _, release := range r.releases {
		release()
	}
	r.Blocks, r.releases = nil, nil
}

// size is the number of bytes in Blocks.
func (r *Result) size() int {
	n := 0
	for _, b := range r.Blocks {
		n += len(b)
	}
	return n
}
