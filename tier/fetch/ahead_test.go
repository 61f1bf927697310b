package fetch

import (
	"fmt"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
)

func objectCount(reads *atomic.Int32) object.Observer {
	return func(op string, _ int64, _ time.Duration, _ error) {
		if op == "read" {
			reads.Add(1)
		}
	}
}

// follow reads n times from offset on, and returns where it got. Searches for following segments end before each read.
func follow(t testing.TB, r *Reader, offset record.Offset, max, n int) record.Offset {
	t.Helper()
	for range n {
		for deadline := time.Now().Add(10 * time.Second); ; {
			r.following.mu.Lock()
			looking := r.following.looking
			r.following.mu.Unlock()
			if !looking || time.Now().After(deadline) {
				break
			}
			<-time.After(50 * time.Microsecond)
		}
		res, err := r.Read(t.Context(), offset, Options{MaxBytes: max, AtLeastOne: true})
		if err != nil {
			t.Fatal(err)
		}
		offset = res.Next
		res.Release()
	}
	return offset
}

// three is a history of three segments of 8 blocks; each block is one batch just past the target.
func three(t testing.TB) *history {
	h := newHistory(t, object.NewMemory(), 7)
	for range 3 {
		h.rng.Seed(99) // as many records in each batch, and no compression
		h.add(t, shape{batches: 8, size: 800_000})
	}
	return h
}

func TestReadAheadTrace(t *testing.T) {
	h := three(t)
	blocks := h.log.Manifest().Root()[0]
	r, cache := h.reader(t, int(blocks.DataSize/4)+1000) // a GET brings about two blocks
	layout, err := r.src.Footers.get(t.Context(), h.store, testID, blocks)
	if err != nil {
		t.Fatal(err)
	}
	if len(layout.footer.Blocks) != 8 {
		t.Fatalf("%d blocks", len(layout.footer.Blocks))
	}
	offset := follow(t, r, 0, 1, 1)
	if len(cache.trace) != 0 {
		t.Fatalf("a first read reads ahead %v", cache.trace)
	}
	offset = follow(t, r, offset, 1, 23)
	if offset != h.next {
		t.Fatalf("24 reads of a batch come to %d of %d", offset, h.next)
	}
	// Every block is asked for once, in order, in the groups of the layout, and across the borders.
	second, third := h.log.Manifest().Root()[1].Base, h.log.Manifest().Root()[2].Base
	seen := map[string]bool{}
	for _, line := range cache.trace {
		if seen[line] {
			t.Errorf("%s was asked for twice", line)
		}
		seen[line] = true
	}
	_, end := layout.group(0, r.src.Blocks.GetSize())
	for _, base := range []record.Offset{second, third} {
		if want := traceLine(base, 0, end); !slices.Contains(cache.trace, want) {
			t.Errorf("%s was not read ahead: %v", want, cache.trace)
		}
	}
}

func traceLine(base record.Offset, from, to int) string {
	return fmt.Sprintf("%d: [%d, %d)", base, from, to)
}

func TestAFullCacheIsAskedOnceARead(t *testing.T) {
	h := three(t)
	r, cache := h.reader(t, 1<<20)
	cache.full = true
	if got := follow(t, r, 0, 1, 24); got != h.next {
		t.Fatalf("came to %d of %d", got, h.next)
	}
}

func TestEvictionUnreadShrinksTheWindow(t *testing.T) {
	h := three(t)
	r, cache := h.reader(t, 1<<20)
	offset := follow(t, r, 0, 1, 6)
	depth := func() int {
		r.streams.mu.Lock()
		defer r.streams.mu.Unlock()
		return r.streams.list[0].window.depth
	}
	before := depth()
	cache.mu.Lock()
	clear(cache.have)
	cache.mu.Unlock()
	offset = follow(t, r, offset, 1, 1)
	if after := depth(); before == 0 || after != before/2 {
		t.Fatalf("the window went from %d to %d", before, after)
	}
	if got := follow(t, r, offset, 1, 17); got != h.next {
		t.Fatalf("came to %d of %d", got, h.next)
	}
}

func TestStreamsAreRecognisedAndBounded(t *testing.T) {
	var s streams
	now := time.Unix(1, 0)
	a := s.take(0, now)
	s.put(a, 0, 100, 5000, now)
	if s.take(100, now.Add(time.Second)) != a || a.busy != time.Second {
		t.Error("a reader that goes on is not recognised")
	}
	s.put(a, 100, 200, 5000, now)
	if s.take(150, now) != a {
		t.Error("a reader that used a part is not recognised")
	}
	s.put(a, 150, 250, 5000, now)
	if s.take(300, now) == a || s.take(150, now) == a {
		t.Error("a reader that jumped is taken for another")
	}
	for i := range record.Offset(3 * maxStreams) {
		s.put(&stream{}, 1000*i, 1000*i+1, 1, now)
	}
	if len(s.list) != maxStreams {
		t.Errorf("%d streams are remembered", len(s.list))
	}
}
