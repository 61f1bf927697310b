package bucket

import (
	"context"
	"fmt"
	"io"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// The limits of a scan's memory: groups of neighbouring blocks of at most groupBytes come with one GET each, and readAhead of
// them may be under way or waiting for one partition.
const (
	groupBytes = 8 << 20
	readAhead  = 4
)

// source reads one segment where it lies in its object: position 0 is the segment's first byte.
type source struct {
	ctx   context.Context // of the scan: io.ReaderAt has no place for it
	store object.Store
	seg   manifest.Segment
}

// ReadAt reads with one ranged GET.
func (s source) ReadAt(p []byte, position int64) (int, error) {
	if left := s.seg.Size - position; int64(len(p)) > left {
		n, err := s.ReadAt(p[:max(left, 0)], position)
		if err == nil {
			err = io.EOF
		}
		return n, err
	}
	if len(p) == 0 {
		return 0, nil
	}
	return s.store.ReadAt(s.ctx, s.seg.Object, p, s.seg.Position+position)
}

// footer reads a segment's footer: its size is known, so it is one GET.
func footer(ctx context.Context, store object.Store, id segment.Identity, seg manifest.Segment) (*segment.Footer, error) {
	p := make([]byte, seg.FooterSize)
	if _, err := (source{ctx, store, seg}).ReadAt(p, seg.Size-int64(seg.FooterSize)); err != nil {
		return nil, fmt.Errorf("read footer of %s: %w", seg.Object, err)
	}
	f, err := segment.ParseFooter(p)
	if err != nil {
		return nil, fmt.Errorf("footer of %s: %w", seg.Object, err)
	}
	if f.Identity != id || f.Base != seg.Base || f.End != seg.End {
		return nil, fmt.Errorf("footer of %s: %w: it is of [%d, %d) of partition %d of %s", seg.Object, segment.ErrCorrupt, f.Base, f.End, f.Identity.Partition, f.Identity.Topic)
	}
	return f, nil
}

// group is a run of blocks that is fetched as one.
type group struct {
	seg    manifest.Segment
	footer *segment.Footer
	blocks []segment.Block
	data   []byte
	err    error
}

func (g *group) size() int64 {
	last := g.blocks[len(g.blocks)-1]
	return last.Position + int64(last.Stored) - g.blocks[0].Position
}

// groups cuts the blocks of a footer that hold [from, to) into groups.
func groups(seg manifest.Segment, f *segment.Footer, from, to record.Offset) []*group {
	var all []*group
	for i := f.Find(from); i < len(f.Blocks) && f.Blocks[i].First < to; i++ {
		b := f.Blocks[i]
		if n := len(all); n > 0 && all[n-1].size()+int64(b.Stored) <= groupBytes {
			all[n-1].blocks = append(all[n-1].blocks, b)
			continue
		}
		all = append(all, &group{seg: seg, footer: f, blocks: []segment.Block{b}})
	}
	return all
}

// scanner reads a part of one partition's remote log in order, ahead of whoever takes the batches.
type scanner struct {
	store object.Store
	part  *partition
	from  record.Offset
	to    record.Offset
	read  func(stored int64) // told of bytes taken from the store; may be nil
}

// batches calls fn with every batch that overlaps [from, to), in order, its checksum checked, and with its segment's footer.
// The batch is valid only inside fn.
func (s *scanner) batches(ctx context.Context, fn func(b record.Batch, f *segment.Footer) error) error {
	ctx, cancel := context.WithCancel(ctx)
	queue := make(chan chan *group, readAhead)
	ended := make(chan struct{})
	go func() { defer close(ended); defer close(queue); s.fetch(ctx, queue) }()
	defer func() { // what is under way must end before the store may be closed
		cancel()
		for waiting := range queue {
			<-waiting
		}
		<-ended
	}()
	var raw []byte
	for waiting := range queue {
		g := <-waiting
		if g.err != nil {
			return g.err
		}
		for _, block := range g.blocks {
			at := block.Position - g.blocks[0].Position
			var err error
			if raw, err = segment.DecodeBlock(raw, g.data[at:at+int64(block.Stored)], block); err != nil {
				return fmt.Errorf("block at %d of %s: %w", block.Position, g.seg.Object, err)
			}
			if err := s.block(raw, g, fn); err != nil {
				return err
			}
			if block.Encoding == segment.Raw {
				raw = nil // it is a part of the group
			}
		}
		if s.read != nil {
			s.read(g.size())
		}
	}
	return ctx.Err()
}

func (s *scanner) block(raw []byte, g *group, fn func(record.Batch, *segment.Footer) error) error {
	for len(raw) > 0 {
		b, rest, err := record.Next(raw)
		if err == nil {
			err = b.Verify()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", g.seg.Object, err)
		}
		if b.NextOffset() > s.from && b.BaseOffset() < s.to {
			if err := fn(b, g.footer); err != nil {
				return err
			}
		}
		raw = rest
	}
	return nil
}

// fetch queues the groups in order, each with a GET of its own under way. The queue's length bounds how many.
func (s *scanner) fetch(ctx context.Context, queue chan<- chan *group) {
	send := func(g *group) bool {
		waiting := make(chan *group, 1)
		select {
		case queue <- waiting:
		case <-ctx.Done():
			return false
		}
		if g.err != nil {
			waiting <- g
			return false
		}
		go func() {
			g.data = make([]byte, g.size())
			if _, err := (source{ctx, s.store, g.seg}).ReadAt(g.data, g.blocks[0].Position); err != nil {
				g.err = fmt.Errorf("read %s: %w", g.seg.Object, err)
			}
			waiting <- g
		}()
		return true
	}
	for at := s.from; at < s.to; {
		seg, ok, err := s.part.manifest.Find(ctx, s.store, at)
		if err != nil {
			send(&group{err: err})
			return
		}
		if !ok || seg.Base >= s.to {
			return
		}
		f, err := footer(ctx, s.store, s.part.id, seg)
		if err != nil {
			send(&group{err: err})
			return
		}
		for _, g := range groups(seg, f, at, s.to) {
			if !send(g) {
				return
			}
		}
		at = seg.End
	}
}

// firstAt finds the offset of the first record with a timestamp of at least ms; the manifest's end if there is none.
func (s *scanner) firstAt(ctx context.Context, ms int64) (record.Offset, error) {
	m := s.part.manifest
	seg, ok, err := m.FindTime(ctx, s.store, ms)
	if err != nil || !ok {
		return m.End(), err
	}
	f, err := footer(ctx, s.store, s.part.id, seg)
	if err != nil {
		return 0, err
	}
	i := f.FindTime(ms)
	if i == len(f.Blocks) {
		return seg.End, nil
	}
	found := seg.End
	one := &scanner{store: s.store, part: s.part, from: f.Blocks[i].First, to: f.Blocks[i].End}
	err = one.batches(ctx, func(b record.Batch, _ *segment.Footer) error {
		if found != seg.End || b.MaxTimestamp() < ms {
			return nil
		}
		return b.Each(func(r *record.Record) error {
			if found == seg.End && timestamp(b, r) >= ms {
				found = b.BaseOffset() + record.Offset(r.OffsetDelta)
			}
			return nil
		})
	})
	return max(found, m.LogStart()), err
}

// timestamp is the time of a record in Unix milliseconds.
func timestamp(b record.Batch, r *record.Record) int64 {
	if b.LogAppendTime() {
		return b.MaxTimestamp()
	}
	return b.BaseTimestamp() + r.TimestampDelta
}

// aborted tells whether a batch belongs to a transaction that was aborted.
func aborted(b record.Batch, f *segment.Footer) bool {
	if !b.IsTransactional() || b.IsControl() {
		return false
	}
	for _, t := range f.Aborted {
		if t.ProducerID == b.ProducerID() && t.First <= b.BaseOffset() && b.BaseOffset() <= t.Last {
			return true
		}
	}
	return false
}
