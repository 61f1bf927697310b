package manifest

import (
	"container/list"
	"context"
	"fmt"
	"iter"
	"sort"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
)

// PageCache keeps the pages last used, decoded. One may serve all partitions of a broker. Safe for concurrent use.
type PageCache struct {
	loads singleflight.Group
	mu    sync.Mutex
	limit int
	order *list.List // of *cachedPage, the last used first
	pages map[string]*list.Element
}

type cachedPage struct {
	name     string
	segments []Segment
}

// pageTimeout bounds the GET of a page, which does not end with who waits for it.
const pageTimeout = 2 * time.Minute

// NewPageCache returns a cache of at most n pages; one of 2048 entries takes about 0.9 MB.
func NewPageCache(n int) *PageCache {
	return &PageCache{limit: max(n, 1), order: list.New(), pages: map[string]*list.Element{}}
}

func (c *PageCache) get(name string) ([]Segment, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	e, ok := c.pages[name]
	if !ok {
		return nil, false
	}
	c.order.MoveToFront(e)
	return e.Value.(*cachedPage).segments, true
}

func (c *PageCache) put(name string, segments []Segment) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.pages[name]; ok {
		return
	}
	c.pages[name] = c.order.PushFront(&cachedPage{name, segments})
	if c.order.Len() > c.limit {
		delete(c.pages, c.order.Remove(c.order.Back()).(*cachedPage).name)
	}
}

// page returns the entries of page i that the manifest still has; one GET if they are not cached.
func (m *Manifest) page(ctx context.Context, store object.Store, i int) ([]Segment, error) {
	r := m.pages[i]
	name := PageName(m.id, r)
	segments, ok := m.cache.get(name)
	if !ok {
		loaded := m.cache.loads.DoChan(name, func() (any, error) {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), pageTimeout)
			defer cancel()
			p, _, err := store.Get(ctx, name)
			if err != nil {
				return nil, fmt.Errorf("read manifest page: %w", err)
			}
			segments, err := decodePage(p, m.id, r)
			if err != nil {
				return nil, fmt.Errorf("read manifest page %s: %w", name, err)
			}
			m.cache.put(name, segments)
			return segments, nil
		})
		select {
		case l := <-loaded:
			if l.Err != nil {
				return nil, l.Err
			}
			segments = l.Val.([]Segment)
		case <-ctx.Done():
			return nil, fmt.Errorf("read manifest page: %w", context.Cause(ctx))
		}
	}
	if i == 0 {
		segments = segments[sort.Search(len(segments), func(j int) bool { return segments[j].End > m.start }):]
	}
	return segments, nil
}

// Find returns the segment that contains o, or the first one after it; false if there is none, that is if o >= End. It
// reads a page if o is older than the root's entries and the page is not cached.
func (m *Manifest) Find(ctx context.Context, store object.Store, o record.Offset) (Segment, bool, error) {
	if i := sort.Search(len(m.pages), func(i int) bool { return m.pages[i].End > o }); i < len(m.pages) {
		segments, err := m.page(ctx, store, i)
		if err != nil {
			return Segment{}, false, err
		}
		return segments[sort.Search(len(segments), func(j int) bool { return segments[j].End > o })], true, nil
	}
	i := sort.Search(len(m.segments), func(i int) bool { return m.segments[i].End > o })
	if i == len(m.segments) {
		return Segment{}, false, nil
	}
	return m.segments[i], true, nil
}

// FindTime returns the first segment that holds a record with a timestamp of at least ts, in milliseconds; false if none
// does. Where the log start lies inside that segment, the record may be below it.
func (m *Manifest) FindTime(ctx context.Context, store object.Store, ts int64) (Segment, bool, error) {
	for i := range m.pages {
		if m.pages[i].MaxTimestamp < ts {
			continue
		}
		segments, err := m.page(ctx, store, i)
		if err != nil {
			return Segment{}, false, err
		}
		for j := range segments {
			if segments[j].MaxTimestamp >= ts {
				return segments[j], true, nil
			}
		}
	}
	for i := range m.segments {
		if m.segments[i].MaxTimestamp >= ts {
			return m.segments[i], true, nil
		}
	}
	return Segment{}, false, nil
}

// All yields every segment in offset order, reading page after page. An error ends it.
func (m *Manifest) All(ctx context.Context, store object.Store) iter.Seq2[Segment, error] {
	return func(yield func(Segment, error) bool) {
		for i := range m.pages {
			segments, err := m.page(ctx, store, i)
			if err != nil {
				yield(Segment{}, err)
				return
			}
			for _, s := range segments {
				if !yield(s, nil) {
					return
				}
			}
		}
		for _, s := range m.segments {
			if !yield(s, nil) {
				return
			}
		}
	}
}

// LiveDataBytes is DataBytes without the entries of the first page that were removed already.
func (m *Manifest) LiveDataBytes(ctx context.Context, store object.Store) (int64, error) {
	n := m.DataBytes()
	if len(m.pages) == 0 || m.pages[0].First >= m.start {
		return n, nil
	}
	left, err := m.page(ctx, store, 0)
	if err != nil {
		return 0, err
	}
	n -= m.pages[0].DataBytes
	for i := range left {
		n += left[i].DataSize
	}
	return n, nil
}
