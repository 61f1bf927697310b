package bucket

import (
	"context"
	"fmt"
	"io"

	"github.com/everlog/everlog/tier/fetch"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// source reads one segment where it lies in its object: position 0 is the segment's first byte.
type source struct {
	ctx   context.Context // of the command: io.ReaderAt has no place for it
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

// firstAt finds the offset of the first record with a timestamp of at least ms; the manifest's end if there is none.
func (p *partition) firstAt(ctx context.Context, store object.Store, ms int64) (record.Offset, error) {
	m := p.manifest
	seg, ok, err := m.FindTime(ctx, store, ms)
	if err != nil || !ok {
		return m.End(), err
	}
	f, err := footer(ctx, store, p.id, seg)
	if err != nil {
		return 0, err
	}
	i := f.FindTime(ms)
	if i == len(f.Blocks) {
		return seg.End, nil
	}
	found := seg.End
	one := fetch.ScanOptions{From: f.Blocks[i].First, To: f.Blocks[i].End}
	_, err = fetch.Scan(ctx, store, m, one, func(b record.Batch, _ *segment.Footer) error {
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
