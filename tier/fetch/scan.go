package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
)

// How Scan reads: GETs of scanGet bytes, scanParallel of them under way, all buffers reused.
const (
	scanGet      = 8 << 20
	scanParallel = 4
)

// ScanStats counts what a Scan read.
type ScanStats struct{ Objects, Requests, Bytes int64 }

// Scan calls fn with every batch of the remote log from the one that contains from up to to (exclusive), in order, reading
// ahead with several GETs at once. It needs no cache and no broker. A batch is valid only during the call. It returns fn's
// first error, ErrCorrupt, or the store's error.
func Scan(ctx context.Context, store object.Store, m *manifest.Manifest, from, to record.Offset, fn func(record.Batch) error) (ScanStats, error) {
	var stats ScanStats
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	footers := NewFooters(0)
	runs := make(chan *run, scanParallel-1)
	buffers := make(chan []byte, scanParallel+1)
	for range scanParallel + 1 {
		buffers <- nil
	}
	planned := make(chan error, 1)
	go func() {
		defer close(runs)
		planned <- plan(ctx, store, footers, m, from, to, runs, buffers, &stats)
	}()
	err := deliver(ctx, runs, buffers, from, to, &stats.Bytes, fn)
	cancel()
	for r := range runs { // what was under way ends before its buffers are let go
		<-r.done
	}
	if perr := <-planned; err == nil {
		err = perr
	}
	return stats, err
}

// run is one GET: the blocks [from, to) of a segment.
type run struct {
	l        *layout
	from, to int
	buf      []byte
	err      error
	done     chan struct{}
}

// plan starts the GETs in order, no more at once than there are buffers.
func plan(ctx context.Context, store object.Store, footers *Footers, m *manifest.Manifest, from, to record.Offset, runs chan<- *run, buffers <-chan []byte, stats *ScanStats) error {
	for at := from; at < to; {
		seg, ok, err := m.Find(ctx, store, at)
		if err != nil || !ok || seg.Base >= to {
			return err
		}
		l, err := footers.get(ctx, store, seg)
		if err != nil {
			return err
		}
		stats.Objects++
		stats.Requests++
		for i := l.footer.Find(at); i < len(l.footer.Blocks) && l.footer.Blocks[i].First < to; {
			r := &run{l: l, from: i, to: l.storedUntil(i, scanGet), done: make(chan struct{})}
			select {
			case r.buf = <-buffers:
			case <-ctx.Done():
				return ctx.Err()
			}
			stats.Requests++
			go r.get(ctx, store)
			select {
			case runs <- r:
			case <-ctx.Done():
				<-r.done
				return ctx.Err()
			}
			i = r.to
		}
		at = seg.End
	}
	return nil
}

// storedUntil is the end of the blocks from from on that one GET of about max bytes brings.
func (l *layout) storedUntil(from, max int) int {
	to, bytes := from+1, int(l.footer.Blocks[from].Stored)
	for to < len(l.footer.Blocks) && bytes+int(l.footer.Blocks[to].Stored) <= max {
		bytes += int(l.footer.Blocks[to].Stored)
		to++
	}
	return to
}

func (r *run) get(ctx context.Context, store object.Store) {
	defer close(r.done)
	first, last := r.l.footer.Blocks[r.from], r.l.footer.Blocks[r.to-1]
	size := int(last.Position + int64(last.Stored) - first.Position)
	if cap(r.buf) < size {
		r.buf = make([]byte, size)
	}
	r.buf = r.buf[:size]
	n, err := store.ReadAt(ctx, r.l.object, r.buf, r.l.position+first.Position)
	if err != nil && !(errors.Is(err, io.EOF) && n == size) {
		r.err = fmt.Errorf("read %s: %w", r.l.object, err)
	}
}

// deliver decodes the GETs in order and passes their batches on.
func deliver(ctx context.Context, runs <-chan *run, buffers chan<- []byte, from, to record.Offset, read *int64, fn func(record.Batch) error) error {
	var raw []byte
	for r := range runs {
		<-r.done
		if r.err != nil {
			return r.err
		}
		base := r.l.footer.Blocks[r.from].Position
		for i := r.from; i < r.to; i++ {
			b := r.l.footer.Blocks[i]
			stored := r.buf[b.Position-base : b.Position-base+int64(b.Stored)]
			block, err := r.l.Decode(i, raw[:0], stored)
			if err != nil {
				return fmt.Errorf("%w: block %d of %s: %w", ErrCorrupt, i, r.l.object, err)
			}
			if int(b.Stored) != int(b.Raw) {
				raw = block
			}
			if err := each(block, from, to, fn); err != nil {
				return err
			}
		}
		*read += int64(len(r.buf))
		buffers <- r.buf
	}
	return ctx.Err()
}

func each(block []byte, from, to record.Offset, fn func(record.Batch) error) error {
	for len(block) > 0 {
		b, rest, err := record.Next(block)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		block = rest
		if b.NextOffset() <= from || b.BaseOffset() >= to {
			continue
		}
		if err := fn(b); err != nil {
			return err
		}
	}
	return nil
}
