package fetch

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/segment"
)

const (
	// DefaultFooterBytes is how much memory decoded footers may take: some 500 of segments of 128 MiB.
	DefaultFooterBytes = 16 << 20
	// footerTimeout bounds the GET of a footer, which does not end with who waits for it.
	footerTimeout = 30 * time.Second
	// maxBackground bounds the searches for following segments of all partitions.
	maxBackground = 16
)

// Footers keeps the decoded footers of remote segments read lately; one serves all partitions of a broker. Footers never
// change, so none is ever invalid. Safe for concurrent use.
type Footers struct {
	limit int64
	loads singleflight.Group
	slots chan struct{} // of searches in the background
	stop  chan struct{}
	wg    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	bytes  int64
	order  *list.List // of *layout, the last used first
	index  map[layoutKey]*list.Element
}

type layoutKey struct {
	object   string
	position int64
}

// NewFooters returns an empty cache of at most limit bytes; 0 is DefaultFooterBytes. Close it if searches in the background
// are to end before the process does.
func NewFooters(limit int64) *Footers {
	if limit <= 0 {
		limit = DefaultFooterBytes
	}
	return &Footers{
		limit: limit, slots: make(chan struct{}, maxBackground), stop: make(chan struct{}),
		order: list.New(), index: map[layoutKey]*list.Element{},
	}
}

// Close ends what goes on in the background and waits for it. Reads go on to work, without looking ahead across segments.
func (c *Footers) Close() error {
	c.mu.Lock()
	if !c.closed {
		c.closed = true
		close(c.stop)
	}
	c.mu.Unlock()
	c.wg.Wait()
	return nil
}

// background runs fn beside its caller; false if too much goes on already.
func (c *Footers) background(fn func(ctx context.Context)) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return false
	}
	select {
	case c.slots <- struct{}{}:
	default:
		return false
	}
	ctx, cancel := context.WithTimeout(context.Background(), footerTimeout)
	c.wg.Go(func() {
		defer cancel()
		defer func() { <-c.slots }()
		ended := make(chan struct{})
		defer close(ended)
		c.wg.Go(func() {
			select {
			case <-c.stop:
				cancel()
			case <-ended:
			}
		})
		fn(ctx)
	})
	return true
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

// get returns a segment's layout, with one GET if it is not known. Callers for the same segment share the GET, which does
// not end with the ctx of any.
func (c *Footers) get(ctx context.Context, store object.Store, id segment.Identity, s manifest.Segment) (*layout, error) {
	if l := c.cached(s); l != nil {
		return l, nil
	}
	loaded := c.loads.DoChan(fmt.Sprintf("%s@%d", s.Object, s.Position), func() (any, error) {
		if l := c.cached(s); l != nil { // another load has ended since
			return l, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), footerTimeout)
		defer cancel()
		l, err := loadLayout(ctx, store, id, s)
		if err == nil {
			c.put(l)
		}
		return l, err
	})
	select {
	case r := <-loaded:
		if r.Err != nil {
			return nil, r.Err
		}
		return r.Val.(*layout), nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

func loadLayout(ctx context.Context, store object.Store, id segment.Identity, s manifest.Segment) (*layout, error) {
	buf := make([]byte, s.FooterSize)
	n, err := store.ReadAt(ctx, s.Object, buf, s.Position+s.Size-int64(s.FooterSize))
	if n < len(buf) {
		if err == nil || errors.Is(err, io.EOF) || errors.Is(err, object.ErrRange) {
			err = fmt.Errorf("%w: %d bytes of %d", segment.ErrCorrupt, n, len(buf))
		}
		return nil, fmt.Errorf("read footer of %s: %w", s.Object, err)
	}
	f, err := segment.ParseFooter(buf)
	if errors.Is(err, segment.ErrNoFooter) {
		err = fmt.Errorf("%w: %w", segment.ErrCorrupt, err)
	}
	if err != nil {
		return nil, fmt.Errorf("footer of %s: %w", s.Object, err)
	}
	if f.Base != s.Base || f.End != s.End {
		return nil, fmt.Errorf("%w: %s holds [%d, %d), the manifest says [%d, %d)", segment.ErrCorrupt, s.Object, f.Base, f.End, s.Base, s.End)
	}
	if f.Identity != id {
		return nil, fmt.Errorf("%w: %s belongs to another partition: %+v", segment.ErrCorrupt, s.Object, f.Identity)
	}
	return &layout{object: s.Object, position: s.Position, footer: f}, nil
}

// put keeps a layout, and forgets those not used for longest.
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
		old := c.order.Remove(c.order.Back()).(*layout)
		delete(c.index, layoutKey{old.object, old.position})
		c.bytes -= old.bytes()
	}
}
