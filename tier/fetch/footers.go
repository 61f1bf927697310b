package fetch

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"golang.org/x/sync/singleflight"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// DefaultFooterBytes is how much memory decoded footers may take: some 600 of full segments.
const DefaultFooterBytes = 16 << 20

// Footers keeps the decoded footers of remote segments read lately; one serves all partitions of a broker. Footers never
// change, so none is ever invalid. Safe for concurrent use.
type Footers struct {
	limit int64
	loads singleflight.Group

	mu    sync.Mutex
	bytes int64
	order *list.List // of *layout, the last used first
	index map[layoutKey]*list.Element
}

type layoutKey struct {
	object   string
	position int64
}

// NewFooters returns an empty cache of at most limit bytes; 0 is DefaultFooterBytes.
func NewFooters(limit int64) *Footers {
	if limit <= 0 {
		limit = DefaultFooterBytes
	}
	return &Footers{limit: limit, order: list.New(), index: map[layoutKey]*list.Element{}}
}

// layout is one remote segment: where its blocks lie in the object. It is what the block cache is asked with.
type layout struct {
	object   string
	position int64 // of the segment in the object
	footer   *segment.Footer
}

// Object is the object's name.
func (l *layout) Object() string { return l.object }

// Block is where block i lies in the object, and its sizes stored and decoded.
func (l *layout) Block(i int) (position int64, stored, raw int) {
	b := &l.footer.Blocks[i]
	return l.position + b.Position, int(b.Stored), int(b.Raw)
}

// Decode checks block i and returns its batches.
func (l *layout) Decode(i int, dst, stored []byte) ([]byte, error) {
	return segment.DecodeBlock(dst, stored, l.footer.Blocks[i])
}

// until is the end of the blocks from from on that hold at least max bytes beyond the first block, which may be skipped
// in part.
func (l *layout) until(from, max int) int {
	to, bytes := from+1, 0
	for to < len(l.footer.Blocks) && bytes+int(l.footer.Blocks[to].Raw) <= max {
		bytes += int(l.footer.Blocks[to].Raw)
		to++
	}
	return to
}

func (l *layout) bytes() int64 {
	f := l.footer
	return int64(len(f.Blocks))*56 + int64(len(f.Epochs))*16 + int64(len(f.Aborted))*32 + int64(len(f.Producers)) + 512
}

// cached returns a segment's layout if it is known.
func (c *Footers) cached(s manifest.Segment) *layout {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.index[layoutKey{s.Object, s.Position}]
	if !ok {
		return nil
	}
	c.order.MoveToFront(e)
	return e.Value.(*layout)
}

// get returns a segment's layout, with one GET if it is not known. Callers for the same segment share the GET, which a
// caller's ctx does not end for the others.
func (c *Footers) get(ctx context.Context, store object.Store, s manifest.Segment) (*layout, error) {
	if l := c.cached(s); l != nil {
		return l, nil
	}
	done := c.loads.DoChan(fmt.Sprintf("%s@%d", s.Object, s.Position), func() (any, error) {
		l, err := loadLayout(context.WithoutCancel(ctx), store, s)
		if err == nil {
			c.put(l)
		}
		return l, err
	})
	select {
	case r := <-done:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*layout), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func loadLayout(ctx context.Context, store object.Store, s manifest.Segment) (*layout, error) {
	buf := make([]byte, s.FooterSize)
	n, err := store.ReadAt(ctx, s.Object, buf, s.Position+s.Size-int64(s.FooterSize))
	if err != nil && !(errors.Is(err, io.EOF) && n == len(buf)) {
		return nil, fmt.Errorf("read footer of %s: %w", s.Object, err)
	}
	f, err := segment.ParseFooter(buf)
	if err != nil {
		return nil, fmt.Errorf("%w: footer of %s: %w", ErrCorrupt, s.Object, err)
	}
	if f.Base != s.Base || f.End != s.End {
		return nil, fmt.Errorf("%w: %s holds [%d, %d), the manifest says [%d, %d)", ErrCorrupt, s.Object, f.Base, f.End, s.Base, s.End)
	}
	return &layout{object: s.Object, position: s.Position, footer: f}, nil
}

func (c *Footers) put(l *layout) {
	c.mu.Lock()
	defer c.mu.Unlock()
	k := layoutKey{l.object, l.position}
	if _, ok := c.index[k]; ok {
		return
	}
	c.index[k] = c.order.PushFront(l)
	c.bytes += l.bytes()
	for c.bytes > c.limit && c.order.Len() > 1 {
		e := c.order.Back()
		old := c.order.Remove(e).(*layout)
		delete(c.index, layoutKey{old.object, old.position})
		c.bytes -= old.bytes()
	}
}

func sortByFirst(txns []record.AbortedTxn) {
	slices.SortFunc(txns, func(a, b record.AbortedTxn) int { return int(a.First - b.First) })
}
