package fetch

import (
	"context"
	"fmt"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// Found is a record found by time. Offset -1 is "none".
type Found struct {
	Offset    record.Offset
	Timestamp int64 // milliseconds
	// Epoch is the leader epoch in which the record was written.
	Epoch record.LeaderEpoch
}

var none = Found{Offset: -1, Timestamp: -1, Epoch: record.NoEpoch}

// FindTime returns the first record at or above from, and at or above the log start, whose timestamp is ts or later. It
// reads one block, more only where log start or a producer's clock have made block and record disagree. Errors as Read.
func (r *Reader) FindTime(ctx context.Context, ts int64, from record.Offset) (Found, error) {
	found := none
	err := r.retry(ctx, func(m *manifest.Manifest) (object string, err error) {
		found, object, err = r.findTime(ctx, m, ts, max(from, m.LogStart()))
		return object, err
	})
	if err != nil {
		return none, err
	}
	return found, nil
}

func (r *Reader) findTime(ctx context.Context, m *manifest.Manifest, ts int64, from record.Offset) (found Found, object string, err error) {
	seg, ok, err := m.FindTime(ctx, r.src.Store, ts)
	if ok && seg.End <= from { // all matches there are out of bounds; go on at from
		seg, ok, err = m.Find(ctx, r.src.Store, from)
	}
	for ; ok && err == nil; seg, ok, err = m.Find(ctx, r.src.Store, seg.End) {
		if seg.MaxTimestamp < ts {
			continue
		}
		l, err := r.src.Footers.get(ctx, r.src.Store, m.Identity(), seg)
		if err != nil {
			return none, seg.Object, err
		}
		for i := l.footer.FindTime(ts); i < len(l.footer.Blocks); i++ {
			if b := l.footer.Blocks[i]; b.MaxTimestamp < ts || b.End <= from {
				continue
			}
			if found, err := r.findInBlock(ctx, l, i, ts, from); err != nil || found.Offset >= 0 {
				return found, seg.Object, err
			}
		}
	}
	return none, "", err
}

// findInBlock looks at the records of one block.
func (r *Reader) findInBlock(ctx context.Context, l *layout, i int, ts int64, from record.Offset) (Found, error) {
	blocks, release, err := r.src.Blocks.Get(ctx, l, Span{From: i, To: i + 1})
	if err != nil {
		return none, err
	}
	defer release()
	for rest := blocks[0]; len(rest) > 0; {
		var b record.Batch
		if b, rest, err = record.Next(rest); err != nil {
			break
		}
		if b.MaxTimestamp() < ts || b.NextOffset() <= from {
			continue
		}
		var found Found
		if found, err = findInBatch(b, ts, from); err != nil || found.Offset >= 0 {
			return found, err
		}
	}
	if err != nil {
		return none, fmt.Errorf("%w: block %d of %s: %w", segment.ErrCorrupt, i, l.object, err)
	}
	return none, nil
}

func findInBatch(b record.Batch, ts int64, from record.Offset) (Found, error) {
	found := none
	err := b.Each(func(rec *record.Record) error {
		o, at := b.BaseOffset()+record.Offset(rec.OffsetDelta), b.BaseTimestamp()+rec.TimestampDelta
		if b.LogAppendTime() {
			at = b.MaxTimestamp()
		}
		if found.Offset < 0 && o >= from && at >= ts {
			found = Found{Offset: o, Timestamp: at, Epoch: b.LeaderEpoch()}
		}
		return nil
	})
	if err != nil {
		return none, fmt.Errorf("records at offset %d: %w", b.BaseOffset(), err)
	}
	return found, nil
}
