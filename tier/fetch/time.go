package fetch

import (
	"context"
	"errors"
	"fmt"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
)

// Found is a record found by time. Offset -1 is "none".
type Found struct {
	Offset    record.Offset
	Timestamp int64 // milliseconds
}

// FindTime returns the first record at or above from whose timestamp is ts or later. Errors as Read.
func (r *Reader) FindTime(ctx context.Context, ts int64, from record.Offset) (Found, error) {
	for attempt := 0; ; attempt++ {
		f, err := r.findTime(ctx, ts, from)
		if err == nil || !errors.Is(err, object.ErrNotFound) || attempt > 0 || r.src.Reload == nil {
			return f, err
		}
		if err := r.src.Reload(ctx); err != nil {
			return f, err
		}
	}
}

func (r *Reader) findTime(ctx context.Context, ts int64, from record.Offset) (Found, error) {
	none := Found{Offset: -1, Timestamp: -1}
	m := r.src.Manifest()
	if m == nil {
		return none, fmt.Errorf("%w: the manifest is not loaded", ErrNotFound)
	}
	seg, ok, err := m.FindTime(ctx, r.src.Store, ts)
	if err != nil || !ok {
		return none, err
	}
	if seg.End <= from { // all matches there are deleted; go on at from, segment by segment
		if seg, ok, err = m.Find(ctx, r.src.Store, from); err != nil || !ok {
			return none, err
		}
	}
	for {
		l, err := r.src.Footers.get(ctx, r.src.Store, seg)
		if err != nil {
			return none, err
		}
		for i := l.footer.FindTime(ts); i < len(l.footer.Blocks); i++ {
			if b := l.footer.Blocks[i]; b.MaxTimestamp < ts || b.End <= from {
				continue
			}
			if f, err := r.findInBlock(ctx, l, i, ts, from); err != nil || f.Offset >= 0 {
				return f, err
			}
		}
		if seg, ok, err = m.Find(ctx, r.src.Store, seg.End); err != nil || !ok {
			return none, err
		}
	}
}

// findInBlock looks at the records of one block.
func (r *Reader) findInBlock(ctx context.Context, l *layout, i int, ts int64, from record.Offset) (Found, error) {
	found := Found{Offset: -1, Timestamp: -1}
	blocks, release, err := r.src.Blocks.Get(ctx, 0, l, i, i+1)
	if err != nil {
		return found, err
	}
	defer release()
	for rest := blocks[0]; len(rest) > 0; {
		var b record.Batch
		if b, rest, err = record.Next(rest); err != nil {
			return found, fmt.Errorf("%w: %s: %w", ErrCorrupt, l.object, err)
		}
		if b.MaxTimestamp() < ts || b.NextOffset() <= from {
			continue
		}
		err := b.Each(func(rec *record.Record) error {
			o, at := b.BaseOffset()+record.Offset(rec.OffsetDelta), b.BaseTimestamp()+rec.TimestampDelta
			if b.LogAppendTime() {
				at = b.MaxTimestamp()
			}
			if found.Offset < 0 && o >= from && at >= ts {
				found = Found{o, at}
			}
			return nil
		})
		if err != nil {
			return found, fmt.Errorf("%w: %s: %w", ErrCorrupt, l.object, err)
		}
		if found.Offset >= 0 {
			return found, nil
		}
	}
	return found, nil
}
