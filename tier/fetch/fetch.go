// Package fetch owns reads of remote history: from an offset or a timestamp to the record batches that lie in the object
// store, over a partition's manifest, the footers of its segments, and a cache of blocks. It does not cache blocks itself
// (that is handed in), nor decide what a reader may see (ingest/partition does). ingest/partition reads through it, and
// replay scans with it without a broker.
package fetch

import (
	"context"
	"errors"
	"fmt"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

var (
	// ErrNotFound means that the offset is at or past the end of the remote log.
	ErrNotFound = errors.New("offset is not in the remote log")
	// ErrMissing means that an object which the newest manifest names is not in the store: data is lost, or the store does
	// not tell the truth. A retry may help with the latter.
	ErrMissing = errors.New("object of the remote log is missing")
	// ErrCorrupt means that an object does not hold what its footer says.
	ErrCorrupt = errors.New("corrupt remote segment")
)

// Layout says where the blocks of one object lie; it is what BlockCache takes.
type Layout = interface {
	Object() string
	Block(i int) (position int64, stored, raw int)
	Decode(i int, dst, stored []byte) ([]byte, error)
}

// BlockCache is what a Reader needs of the cache. flow identifies a sequential reader. See package cache for the contract.
type BlockCache interface {
	Get(ctx context.Context, flow uint64, l Layout, from, to int) (blocks [][]byte, release func(), err error)
	Ahead(flow uint64, l Layout, from, to int) int
	GetSize() int
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
}

// Reader reads one partition's remote log. Safe for concurrent use: all readers of the partition share it.
type Reader struct {
	src     Source
	streams streams
}

// NewReader returns a reader that has read nothing yet.
func NewReader(s Source) *Reader { return &Reader{src: s} }

// Result is what Read found.
type Result struct {
	// Blocks hold whole batches in order, the first of them the one that contains the offset asked for, or the first after
	// it. Valid until Release.
	Blocks [][]byte
	// Next is the offset after the last batch.
	Next record.Offset
	// Aborted are the aborted transactions that overlap what was returned, ordered by first offset.
	Aborted []record.AbortedTxn
	release func()
}

// Release gives the blocks back. It may be called more than once.
func (r *Result) Release() {
	if r.release != nil {
		r.release()
		r.release = nil
	}
}

// Options of one Read.
type Options struct {
	// MaxBytes bounds what is returned; AtLeastOne returns the first batch even if it alone is larger.
	MaxBytes   int
	AtLeastOne bool
	// Committed asks for the aborted transactions.
	Committed bool
}

// Read returns batches from offset on, of one segment at most. ErrNotFound, ErrMissing, ErrCorrupt, ctx's error, or the
// store's. A read given up by ctx goes on into the cache.
func (r *Reader) Read(ctx context.Context, offset record.Offset, o Options) (Result, error) {
	for attempt := 0; ; attempt++ {
		res, err := r.read(ctx, offset, o)
		if err == nil || !errors.Is(err, object.ErrNotFound) {
			return res, err
		}
		// The manifest may be old: what it names can have been replaced or deleted since.
		if attempt > 0 || r.src.Reload == nil {
			return res, fmt.Errorf("%w: %w", ErrMissing, err)
		}
		if err := r.src.Reload(ctx); err != nil {
			return res, err
		}
	}
}

func (r *Reader) read(ctx context.Context, offset record.Offset, o Options) (Result, error) {
	l, err := r.locate(ctx, offset)
	if err != nil {
		return Result{}, err
	}
	from := l.footer.Find(offset)
	if from == len(l.footer.Blocks) {
		return Result{}, fmt.Errorf("%w: %d is in segment [%d, %d), but no block", ErrCorrupt, offset, l.footer.Base, l.footer.End)
	}
	to := l.until(from, o.MaxBytes)
	stream := r.streams.take(offset)
	r.readAhead(stream, l, to)
	blocks, release, err := r.src.Blocks.Get(ctx, stream.flow, l, from, to)
	if err != nil {
		return Result{}, err
	}
	res := Result{release: release}
	if res.Blocks, res.Next, err = cut(blocks, offset, o); err != nil {
		res.Release()
		return Result{}, fmt.Errorf("%s: %w", l.Object(), err)
	}
	if o.Committed && len(res.Blocks) > 0 {
		res.Aborted = aborted(l.footer, offset, res.Next)
	}
	r.streams.put(stream, res.Next)
	return res, nil
}

// locate finds the segment that holds offset, or the first after it.
func (r *Reader) locate(ctx context.Context, offset record.Offset) (*layout, error) {
	m := r.src.Manifest()
	if m == nil {
		return nil, fmt.Errorf("%w: the manifest is not loaded", ErrNotFound)
	}
	seg, ok, err := m.Find(ctx, r.src.Store, offset)
	if err != nil {
		return nil, err
	}
	if !ok {
		return nil, fmt.Errorf("%w: %d, it ends at %d", ErrNotFound, offset, m.End())
	}
	return r.src.Footers.get(ctx, r.src.Store, seg)
}

// cut returns the batches of blocks from the one that contains offset on, as many as fit.
func cut(blocks [][]byte, offset record.Offset, o Options) (out [][]byte, next record.Offset, err error) {
	room, next := o.MaxBytes, record.Offset(-1)
	for _, b := range blocks {
		start, end := -1, 0
		for rest := b; len(rest) > 0; {
			batch, after, err := record.Next(rest)
			if err != nil {
				return nil, 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
			}
			at := len(b) - len(rest)
			rest = after
			if batch.NextOffset() <= offset {
				continue
			}
			if batch.Size() > room && (next >= 0 || !o.AtLeastOne) {
				return appendRun(out, b, start, end), max(next, offset), nil
			}
			if start < 0 {
				start = at
			}
			end, next, room = at+batch.Size(), batch.NextOffset(), room-batch.Size()
		}
		out = appendRun(out, b, start, end)
	}
	return out, max(next, offset), nil
}

func appendRun(out [][]byte, b []byte, start, end int) [][]byte {
	if start < 0 {
		return out
	}
	return append(out, b[start:end:end])
}

// aborted are the aborted transactions of a segment that overlap [from, to). A footer lists all that overlap its segment.
func aborted(f *segment.Footer, from, to record.Offset) []record.AbortedTxn {
	var out []record.AbortedTxn
	for _, a := range f.Aborted {
		if a.First < to && a.Last >= from {
			out = append(out, a)
		}
	}
	sortByFirst(out)
	return out
}
