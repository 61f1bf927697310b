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

const (
	// maxAttempts bounds the tries of one read: objects that compaction replaces one after another, or damage in transit.
	maxAttempts = 3
	// maxSegments bounds the segments that one Read takes from. After the first it takes only what is there already.
	maxSegments = 16
)

// Read returns batches from offset on. It waits for the store no longer than ctx allows; what it asked for then still goes
// into the cache, so that the same read succeeds later. It may return fewer bytes than there are.
//
// ErrNotFound, ErrMissing, ErrCorrupt, ctx's error, or the store's; all but the first may pass.
func (r *Reader) Read(ctx context.Context, offset record.Offset, o Options) (Result, error) {
	st := r.streams.take(offset, r.src.Now())
	var res Result
	err := r.retry(ctx, func(m *manifest.Manifest) (string, error) {
		object, err := r.read(ctx, m, st, offset, o, &res)
		if err != nil {
			res.Release()
		}
		return object, err
	})
	if err != nil {
		if ctx.Err() == nil { // a GET has failed: the next brings no more than is wanted
			st.window, st.asked = window{rest: restGroups}, 0
		}
		r.streams.put(st, offset, offset, 0, r.src.Now())
		return Result{}, err
	}
	r.streams.put(st, offset, res.Next, res.size(), r.src.Now())
	return res, nil
}

// retry does a read, which tells the object it failed at, on the newest manifest. If the object is gone the manifest may be
// old: then it is loaded again, and if it still names the object, that is missing.
func (r *Reader) retry(ctx context.Context, read func(*manifest.Manifest) (string, error)) error {
	gone := ""
	for attempt := 1; ; attempt++ {
		m := r.src.Manifest()
		if m == nil {
			return fmt.Errorf("%w: the manifest is not loaded", ErrNotFound)
		}
		failed, err := read(m)
		switch {
		case err == nil:
			return nil
		case errors.Is(err, segment.ErrCorrupt):
			if attempt < maxAttempts && ctx.Err() == nil {
				continue
			}
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		case !errors.Is(err, object.ErrNotFound):
			return err
		case attempt > 1 && failed == gone || attempt == maxAttempts || r.src.Reload == nil:
			return fmt.Errorf("%w: %w", ErrMissing, err)
		}
		gone = failed
		if err := r.src.Reload(ctx); err != nil {
			return fmt.Errorf("reload manifest: %w", err)
		}
	}
}

// read fills res, and returns the name of the object it was at when it failed.
func (r *Reader) read(ctx context.Context, m *manifest.Manifest, st *stream, offset record.Offset, o Options, res *Result) (string, error) {
	*res = Result{Next: offset}
	if offset < m.LogStart() || offset >= m.End() {
		return "", fmt.Errorf("%w: %d is not in [%d, %d)", ErrNotFound, offset, m.LogStart(), m.End())
	}
	for {
		seg, ok, err := m.Find(ctx, r.src.Store, res.Next)
		if err != nil {
			return "", err
		}
		if !ok { // nothing but what compaction left out
			res.Next = m.End()
			return "", nil
		}
		l, err := r.src.Footers.get(ctx, r.src.Store, m.Identity(), seg)
		if err != nil {
			return seg.Object, err
		}
		from := l.footer.Find(res.Next)
		if from == len(l.footer.Blocks) {
			res.Next = l.footer.End
			continue
		}
		if err := r.readFirst(ctx, st, l, from, offset, o, res); err != nil {
			return seg.Object, err
		}
		r.readFollowing(st, l, offset, o, res)
		return "", nil
	}
}

// readFirst takes batches from the segment that holds the offset, and waits for them.
func (r *Reader) readFirst(ctx context.Context, st *stream, l *layout, from int, offset record.Offset, o Options, res *Result) error {
	to := l.until(from, o.MaxBytes)
	r.pace(st, l, from, to)
	span := Span{Flow: st.flow, From: from, To: to}
	if st.window.depth > 0 {
		_, span.Until = l.group(to-1, r.src.Blocks.GetSize())
		r.readAhead(st, l, from)
	}
	blocks, release, err := r.src.Blocks.Get(ctx, l, span)
	if err != nil {
		return err
	}
	res.releases = append(res.releases, release)
	if span.Until > to && r.src.Blocks.Missing(l, to, span.Until) == 0 {
		st.asked = max(st.asked, l.footer.Blocks[span.Until-1].End)
	}
	return res.take(l, from, blocks, offset, o)
}

// readFollowing adds batches of the next segments while little was found and they are there: many small segments are not to
// cost a request each.
func (r *Reader) readFollowing(st *stream, l *layout, offset record.Offset, o Options, res *Result) {
	there, cancel := context.WithCancel(context.Background())
	cancel()
	for range maxSegments - 1 {
		if res.Next != l.footer.End || res.size() >= o.MaxBytes/2 || len(res.Blocks) == 0 {
			return
		}
		if l = r.following.after(l); l == nil {
			return
		}
		if len(l.footer.Blocks) == 0 {
			res.Next = l.footer.End
			continue
		}
		to := l.until(0, o.MaxBytes-res.size())
		if r.src.Blocks.Missing(l, 0, to) > 0 {
			return
		}
		blocks, release, err := r.src.Blocks.Get(there, l, Span{Flow: st.flow, To: to})
		if err != nil {
			return
		}
		res.releases = append(res.releases, release)
		if res.take(l, 0, blocks, offset, o) != nil {
			return // whoever begins to read there will see it
		}
	}
}
