package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// ScanGet is the size up to which Scan reads neighbouring blocks with one GET.
const ScanGet = 8 << 20

// How Scan reads: GETs of at most ScanGet bytes that decode to at most scanRaw, scanParallel of them under way, each decoded
// where it was read, all buffers reused. A single larger block is read alone.
const (
	scanRaw      = 32 << 20
	scanParallel = 4
)

// ScanStats counts what a Scan read.
type ScanStats struct {
	// Objects are segments, Requests are GETs, those of footers included; Bytes is the stored size of the blocks.
	Objects, Requests, Bytes int64
}

// ScanOptions say what to scan.
type ScanOptions struct {
	// From and To are the range [From, To) of offsets.
	From, To record.Offset
	// Read, if set, is told of the stored bytes of each part when its batches have been passed on.
	Read func(stored int64)
}

// Scan calls fn with every batch of the remote log that overlaps the range, in order, with several GETs at once. It needs no
// cache and no broker. A batch, and the footer of its segment, are valid only during the call. It returns fn's first error,
// ErrMissing, ErrCorrupt, or the store's error; when it returns, nothing of it goes on.
func Scan(ctx context.Context, store object.Store, m *manifest.Manifest, o ScanOptions, fn func(record.Batch, *segment.Footer) error) (ScanStats, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s := &scanner{store: store, m: m, from: o.From, to: o.To, read: o.Read, footers: NewFooters(0), runs: make(chan *run, scanParallel), free: make(chan *run, scanParallel+1)}
	for range scanParallel + 1 { // one more than under way: that which fn looks at
		s.free <- &run{}
	}
	planned := make(chan error, 1)
	go func() {
		defer close(s.runs)
		planned <- s.plan(ctx)
	}()
	err := s.deliver(ctx, fn)
	cancel()
	for r := range s.runs {
		<-r.done
	}
	if planErr := <-planned; err == nil {
		err = planErr
	}
	switch {
	case s.stopped != nil:
		err = s.stopped
	case errors.Is(err, segment.ErrCorrupt):
		err = fmt.Errorf("%w: %w", ErrCorrupt, err)
	case errors.Is(err, object.ErrNotFound):
		err = fmt.Errorf("%w: %w", ErrMissing, err)
	}
	return ScanStats{Objects: s.objects.Load(), Requests: s.requests.Load(), Bytes: s.bytes.Load()}, err
}

// scanner is one Scan: a planner that starts runs in order, and fn's caller, who takes them in order.
type scanner struct {
	store    object.Store
	m        *manifest.Manifest
	from, to record.Offset
	read     func(int64)
	footers  *Footers

	runs chan *run // under way
	free chan *run // to be used again
	// stopped is fn's error.
	stopped error

	objects, requests, bytes atomic.Int64
}

// run is one GET: the blocks [from, to) of a segment.
type run struct {
	l        *layout
	from, to int
	in       []byte   // stored bytes
	raw      []byte   // of the blocks that are encoded
	blocks   [][]byte // decoded
	err      error
	done     chan struct{}
}

// plan starts the GETs in order, no more at once than there are free runs.
func (s *scanner) plan(ctx context.Context) error {
	for at := s.from; at < s.to; {
		seg, ok, err := s.m.Find(ctx, s.store, at)
		if err != nil || !ok || seg.Base >= s.to {
			return err
		}
		l, err := s.footers.get(ctx, s.store, s.m.Identity(), seg)
		if err != nil {
			return err
		}
		s.objects.Add(1)
		s.requests.Add(1)
		for i := l.footer.Find(at); i < len(l.footer.Blocks) && l.footer.Blocks[i].First < s.to; {
			var r *run
			select {
			case r = <-s.free:
			case <-ctx.Done():
				return context.Cause(ctx)
			}
			r.l, r.from, r.to, r.err, r.done = l, i, s.runEnd(l, i), nil, make(chan struct{})
			s.requests.Add(1)
			go s.get(ctx, r)
			s.runs <- r // has room for all that are not free
			i = r.to
		}
		at = seg.End
	}
	return nil
}

// runEnd is the end of the blocks from from on that one GET brings.
func (s *scanner) runEnd(l *layout, from int) int {
	to, stored, raw := from, 0, 0
	for ; to < len(l.footer.Blocks) && l.footer.Blocks[to].First < s.to; to++ {
		b := &l.footer.Blocks[to]
		stored += int(b.Stored)
		raw += int(b.Raw)
		if to > from && (stored > ScanGet || raw > scanRaw) {
			break
		}
	}
	return to
}

// get reads and decodes a run.
func (s *scanner) get(ctx context.Context, r *run) {
	defer close(r.done)
	position, _, _ := r.l.Block(r.from)
	size, raw := 0, 0
	for i := r.from; i < r.to; i++ {
		b := &r.l.footer.Blocks[i]
		size += int(b.Stored)
		if b.Stored != b.Raw {
			raw += int(b.Raw)
		}
	}
	r.in, r.raw = grow(r.in, size), grow(r.raw, raw)
	if n, err := s.store.ReadAt(ctx, r.l.object, r.in, position); n < size {
		if err == nil || errors.Is(err, io.EOF) || errors.Is(err, object.ErrRange) {
			err = fmt.Errorf("%w: %d bytes of %d", segment.ErrCorrupt, n, size)
		}
		r.err = fmt.Errorf("read %s at %d: %w", r.l.object, position, err)
		return
	}
	s.bytes.Add(int64(size))
	r.decode()
}

// grow returns p with size bytes, a new one if it is too small.
func grow(p []byte, size int) []byte {
	if cap(p) < size {
		return make([]byte, size)
	}
	return p[:size]
}

func (r *run) decode() {
	r.blocks = r.blocks[:0]
	in, out := r.in, r.raw
	for i := r.from; i < r.to; i++ {
		_, stored, raw := r.l.Block(i)
		var dst []byte
		if stored != raw {
			dst, out = out[:0:raw], out[raw:]
		}
		block, err := r.l.Decode(i, dst, in[:stored:stored])
		if err != nil {
			r.err = fmt.Errorf("block %d of %s: %w", i, r.l.object, err)
			return
		}
		r.blocks = append(r.blocks, block)
		in = in[stored:]
	}
}

// deliver passes the batches on in order.
func (s *scanner) deliver(ctx context.Context, fn func(record.Batch, *segment.Footer) error) error {
	for r := range s.runs {
		<-r.done
		if r.err != nil {
			return r.err
		}
		for i, block := range r.blocks {
			if err := s.each(block, r.l.footer, fn); err != nil {
				return fmt.Errorf("block %d of %s: %w", r.from+i, r.l.object, err)
			}
			if s.stopped != nil {
				return nil
			}
		}
		if s.read != nil {
			s.read(int64(len(r.in)))
		}
		s.free <- r
	}
	return ctx.Err()
}

// each passes the batches of a block that overlap [from, to) on.
func (s *scanner) each(block []byte, f *segment.Footer, fn func(record.Batch, *segment.Footer) error) error {
	for len(block) > 0 {
		b, rest, err := record.Next(block)
		if err != nil {
			return fmt.Errorf("%w: %w", segment.ErrCorrupt, err)
		}
		block = rest
		if b.NextOffset() <= s.from || b.BaseOffset() >= s.to {
			continue
		}
		if s.stopped = fn(b, f); s.stopped != nil {
			return nil
		}
	}
	return nil
}
