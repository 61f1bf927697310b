package fetch

import (
	"context"
	"sync"
	"weak"

	"golang.org/x/sync/errgroup"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/record"
)

// Read-ahead works in groups: the blocks that one GET brings, the same ones whoever asks, so that all readers of a segment
// share its GETs. A sequential reader has the rest of its group loaded, and as many bytes more as its window says, through
// the following segments.

const (
	// maxFollowing bounds the segments whose footers are looked up ahead in one go, and the successors remembered.
	maxFollowing = 16
	// footersAtOnce is how many of them are read at a time.
	footersAtOnce = 4
)

// pace moves the window of a stream that comes to read the blocks [from, to).
func (r *Reader) pace(st *stream, l *layout, from, to int) {
	_, end := l.group(from, r.src.Blocks.GetSize())
	group := l.footer.Blocks[end-1].End
	if st.again {
		st.again = false
		p := progress{bytes: st.bytes, busy: st.busy, entered: group != st.group, getSize: r.src.Blocks.GetSize(), getTime: r.src.Blocks.GetTime()}
		if p.lost = l.footer.Blocks[to-1].End <= st.asked && r.src.Blocks.Missing(l, from, to) > 0; p.lost {
			st.asked = 0
		}
		st.window.step(p)
	}
	st.group = group
}

// readAhead has loaded what comes from block from on, which is about to be read: the rest of its group, and what the stream's
// window reaches beyond it.
func (r *Reader) readAhead(st *stream, l *layout, from int) {
	size := r.src.Blocks.GetSize()
	left := st.window.depth * size
	first := true
	for range maxFollowing {
		for n := len(l.footer.Blocks); from < n; first = false {
			if left <= 0 {
				return
			}
			_, end := l.group(from, size)
			if !first {
				left -= l.raw(from, end)
			}
			if l.footer.Blocks[end-1].End > st.asked {
				n := r.src.Blocks.Ahead(st.flow, l, from, end)
				if n > 0 {
					st.asked = l.footer.Blocks[from+n-1].End
				}
				if n < end-from {
					return // no room: for what follows there is none either
				}
			}
			from = end
		}
		if left <= 0 {
			return
		}
		next := r.following.after(l)
		if next == nil {
			r.lookAhead(l.footer.End, left)
			return
		}
		l, from = next, 0
	}
}

// following knows the segments behind others, as far as they were looked up. The zero value is empty.
type following struct {
	mu sync.Mutex
	// byBase finds a layout by the offset where its predecessor ends. One that was replaced since only costs a GET. It is Footers
	// that keeps them, within its bounds.
	byBase  map[record.Offset]weak.Pointer[layout]
	looking bool
}

// after returns the segment behind l, nil if it was not looked up.
func (f *following) after(l *layout) *layout {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.byBase[l.footer.End].Value()
}

// lookAhead finds the segments from base on that hold the given bytes, in the background. One such search at a time is
// enough for a partition: who comes too early comes again.
func (r *Reader) lookAhead(base record.Offset, bytes int) {
	m := r.src.Manifest()
	if m == nil || base >= m.End() {
		return
	}
	f := &r.following
	f.mu.Lock()
	busy := f.looking
	f.looking = true
	f.mu.Unlock()
	if busy {
		return
	}
	done := func() {
		f.mu.Lock()
		f.looking = false
		f.mu.Unlock()
	}
	if !r.src.Footers.background(func(ctx context.Context) {
		defer done()
		r.lookUp(ctx, m, base, bytes)
	}) {
		done()
	}
}

// lookUp reads the footers of the segments from base on. What fails is left to whoever comes to read there.
func (r *Reader) lookUp(ctx context.Context, m *manifest.Manifest, base record.Offset, bytes int) {
	var g errgroup.Group
	g.SetLimit(footersAtOnce)
	for range maxFollowing {
		seg, ok, err := m.Find(ctx, r.src.Store, base)
		if err != nil || !ok {
			break
		}
		at := base
		g.Go(func() error {
			if l, err := r.src.Footers.get(ctx, r.src.Store, m.Identity(), seg); err == nil && seg.Base == at {
				r.following.put(at, l)
			}
			return nil
		})
		base = seg.End
		if bytes -= int(seg.DataSize); bytes <= 0 {
			break
		}
	}
	_ = g.Wait() // nothing fails
}

func (f *following) put(base record.Offset, l *layout) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.byBase == nil {
		f.byBase = map[record.Offset]weak.Pointer[layout]{}
	}
	for old := range f.byBase {
		if len(f.byBase) < 4*maxFollowing {
			break
		}
		delete(f.byBase, old)
	}
	f.byBase[base] = weak.Make(l)
}
