package fetch

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// merge replaces entries by one object, as compaction's Merger does.
func (h *history) merge(t testing.TB, old []manifest.Segment, batches []record.Batch) {
	t.Helper()
	b := segment.NewBuilder(testID, old[0].Base, 5)
	for _, k := range batches {
		if err := b.Add(k); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.log.Replace(t.Context(), old, []manifest.Segment{h.put(t, b, batches, shape{})}); err != nil {
		t.Fatal(err)
	}
}

// inOnePage opens the history's manifest with pages of the usual size.
func (h *history) inOnePage(t testing.TB) {
	t.Helper()
	var err error
	if h.log, err = manifest.Open(t.Context(), h.store, testID, manifest.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := h.log.Claim(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
}

// A reader whose look-ahead met small segments before they were merged, and the merged one after it: nothing comes twice.
func TestMergedWhileBeingRead(t *testing.T) {
	for most := 1 << 10; most < 12<<10; most += 256 {
		h := newHistory(t, object.NewMemory(), 8)
		h.inOnePage(t)
		for range 40 {
			h.add(t, shape{batches: 2, size: 500})
		}
		r, _ := h.reader(t, 4<<10)
		offset := follow(t, r, 0, 1, 5)
		looked(r)
		base := record.Offset(-1) // of the last segment that was looked up
		for _, l := range r.following.byBase {
			base = max(base, l.Value().footer.Base)
		}
		n, root := 0, h.log.Manifest().Root()
		for root[n].Base < base {
			n++
		}
		h.merge(t, root[n:], h.from(base))
		for o := (Options{MaxBytes: most, AtLeastOne: true}); offset < h.next; {
			looked(r)
			res, err := r.Read(t.Context(), offset, o)
			if err != nil {
				t.Fatal(err)
			}
			if err := h.differs(offset, o, res); err != nil {
				t.Fatalf("%d bytes at most, from %d: %v", most, offset, err)
			}
			offset = res.Next
			res.Release()
		}
	}
}

// looked returns when no look-ahead is under way.
func looked(r *Reader) {
	for limit := time.Now().Add(time.Minute); time.Now().Before(limit); time.Sleep(50 * time.Microsecond) {
		r.following.mu.Lock()
		looking := r.following.looking
		r.following.mu.Unlock()
		if !looking {
			return
		}
	}
}

// A page that is gone: the manifest at hand is old, a newer one is looked for.
func TestPageGone(t *testing.T) {
	h := newHistory(t, object.NewMemory(), 8)
	for range 12 {
		h.add(t, shape{batches: 2, size: 500})
	}
	old, err := manifest.Open(t.Context(), h.store, testID, manifest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	var all []manifest.Segment
	for s := range h.log.Manifest().All(t.Context(), h.store) {
		all = append(all, s)
	}
	h.merge(t, all[:2], h.batches[:4])
	if err := h.store.Delete(t.Context(), append(h.log.Unreferenced(), all[0].Object, all[1].Object)...); err != nil {
		t.Fatal(err)
	}
	h.log = old
	r, _ := h.reader(t, 1<<20)
	o := Options{MaxBytes: 1 << 20, AtLeastOne: true}
	res, err := r.Read(t.Context(), 0, o)
	if err != nil {
		t.Fatal(err)
	}
	h.check(t, 0, o, res)
	res.Release()
}

// slowPages answers a GET of a page after a while, unless its context ends before.
type slowPages struct {
	object.Store
	takes time.Duration
	gets  int
}

func (s *slowPages) Get(ctx context.Context, name string) ([]byte, object.Version, error) {
	if strings.Contains(name, "/page/") {
		s.gets++
		select {
		case <-time.After(s.takes):
		case <-ctx.Done():
			return nil, "", fmt.Errorf("%w: %w", object.ErrUnavailable, ctx.Err())
		}
	}
	return s.Store.Get(ctx, name)
}

// The GET of a page goes on behind a read that its context ends: the read that comes again finds it.
func TestPageSlowerThanAFetchWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		slow := &slowPages{Store: object.NewMemory(), takes: time.Second}
		h := newHistory(t, slow, 8)
		for range 12 {
			h.add(t, shape{batches: 2, size: 500})
		}
		var err error
		if h.log, err = manifest.Open(t.Context(), slow, testID, manifest.Options{}); err != nil { // without any page at hand
			t.Fatal(err)
		}
		r, _ := h.reader(t, 1<<20)
		for range 4 {
			ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
			res, err := r.Read(ctx, 0, Options{MaxBytes: 1 << 20, AtLeastOne: true})
			cancel()
			if err == nil {
				res.Release()
				if slow.gets != 1 {
					t.Errorf("%d GETs of the page", slow.gets)
				}
				return
			}
		}
		t.Errorf("history cannot be read, after %d GETs of its page", slow.gets)
	})
}
