package fetch

import (
	"context"
	"errors"
	"math/rand"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
	"github.com/everlog/everlog/tier/record"
)

// varied is a history of segments large and small, dense and sparse, raw and encoded.
func varied(t testing.TB, store object.Store) *history {
	h := newHistory(t, store, 1)
	for i := range 4 {
		h.add(t, shape{batches: 30, size: 40_000, zstd: i%2 == 0})
		h.add(t, shape{batches: 25, size: 40_000, gaps: true, zstd: i%2 == 1})
		for range 4 {
			h.add(t, shape{batches: 2, size: 500})
		}
		h.add(t, shape{batches: 1, size: 700_000})
	}
	return h
}

func TestReadFromAnywhere(t *testing.T) {
	h := varied(t, object.NewMemory())
	for _, size := range []int{1, 300_000, 8 << 20} {
		r, _ := h.reader(t, size)
		rng := rand.New(rand.NewSource(int64(size)))
		for range 200 {
			offset := record.Offset(rng.Int63n(int64(h.next)))
			o := Options{MaxBytes: rng.Intn(1 << (5 + rng.Intn(18))), AtLeastOne: rng.Intn(4) > 0}
			res, err := r.Read(t.Context(), offset, o)
			if err != nil {
				t.Fatal(err)
			}
			h.check(t, offset, o, res)
			res.Release()
			res.Release()
		}
	}
}

func TestReadInOrderMeetsEveryBatchOnce(t *testing.T) {
	h := varied(t, object.NewMemory())
	for _, max := range []int{1, 100_000, 1 << 20, 50 << 20} {
		r, _ := h.reader(t, 1<<20)
		count := 0
		for offset := record.Offset(0); offset < h.next; {
			o := Options{MaxBytes: max, AtLeastOne: true}
			res, err := r.Read(t.Context(), offset, o)
			if err != nil {
				t.Fatal(err)
			}
			h.check(t, offset, o, res)
			for _, block := range res.Blocks {
				for len(block) > 0 {
					b, rest, _ := record.Next(block)
					block = rest
					count += int(b.Count())
				}
			}
			if res.Next <= offset {
				t.Fatalf("the read at %d does not go on", offset)
			}
			offset = res.Next
			res.Release()
		}
		want := 0
		for _, b := range h.batches {
			want += int(b.Count())
		}
		if count != want {
			t.Fatalf("%d records came with max %d, want %d", count, max, want)
		}
	}
}

func TestSmallSegmentsShareAReadWhenTheyAreThere(t *testing.T) {
	h := newHistory(t, object.NewMemory(), 8)
	for range 30 {
		h.add(t, shape{batches: 2, size: 500})
	}
	r, _ := h.reader(t, 1<<20)
	reads, offset := 0, record.Offset(0)
	for ; offset < h.next; reads++ {
		offset = follow(t, r, offset, 1<<20, 1)
	}
	if reads > 6 {
		t.Errorf("%d reads for 30 segments of a KiB", reads)
	}
}

func TestOffsetsOutside(t *testing.T) {
	h := varied(t, object.NewMemory())
	r, _ := h.reader(t, 1<<20)
	if _, err := h.log.SetLogStart(t.Context(), 40); err != nil {
		t.Fatal(err)
	}
	for _, o := range []record.Offset{-1, 0, 39, h.next, h.next + 100} {
		if _, err := r.Read(t.Context(), o, Options{MaxBytes: 1000}); !errors.Is(err, ErrNotFound) {
			t.Errorf("a read of %d answers %v", o, err)
		}
	}
	nothing := NewReader(Source{Store: h.store, Manifest: func() *manifest.Manifest { return nil }, Footers: NewFooters(0)})
	if _, err := nothing.Read(t.Context(), 50, Options{}); !errors.Is(err, ErrNotFound) {
		t.Errorf("without a manifest: %v", err)
	}
}

func TestAbortedTransactions(t *testing.T) {
	h := newHistory(t, object.NewMemory(), 2)
	spans := record.AbortedTxn{ProducerID: 1, First: 2, Last: 80, LastStable: 81}
	h.add(t, shape{batches: 20, size: 9000, aborted: []record.AbortedTxn{{ProducerID: 2, First: 5, Last: 9, LastStable: 2}, spans}})
	border := h.next
	h.add(t, shape{batches: 20, size: 9000, aborted: []record.AbortedTxn{{ProducerID: 3, First: border + 1, Last: border + 3, LastStable: 2}, spans}})
	r, _ := h.reader(t, 1<<20)
	for offset := record.Offset(0); offset < h.next; offset += 3 {
		for _, max := range []int{100, 20_000, 10 << 20} {
			res, err := r.Read(t.Context(), offset, Options{MaxBytes: max, AtLeastOne: true, Committed: true})
			if err != nil {
				t.Fatal(err)
			}
			var want []record.AbortedTxn
			for _, a := range h.aborted {
				inRead := a.First < res.Next && a.Last >= offset
				known := a.Last < border || a == spans || res.Next > border
				if inRead && known && !slices.Contains(want, a) {
					want = append(want, a)
				}
			}
			slices.SortFunc(want, func(a, b record.AbortedTxn) int { return int(a.First - b.First) })
			if !slices.Equal(res.Aborted, want) {
				t.Fatalf("[%d, %d): aborted %v, want %v", offset, res.Next, res.Aborted, want)
			}
			res.Release()
		}
	}
	res, err := r.Read(t.Context(), 0, Options{MaxBytes: 1 << 20, AtLeastOne: true})
	if err != nil || res.Aborted != nil {
		t.Fatalf("uncommitted reads are told of %v, %v", res.Aborted, err)
	}
	res.Release()
}

// TestReplacedObjects: compaction has replaced a segment and deleted its object; the reader's manifest is older.
func TestReplacedObjects(t *testing.T) {
	h := newHistory(t, object.NewMemory(), 3)
	old := h.add(t, shape{batches: 20, size: 30_000})
	h.add(t, shape{batches: 20, size: 30_000})
	r, _ := h.reader(t, 1<<20)
	stale := h.log.Manifest()
	var reloads atomic.Int32
	current := atomic.Pointer[manifest.Manifest]{}
	current.Store(stale)
	r.src.Manifest = current.Load
	r.src.Reload = func(context.Context) error {
		reloads.Add(1)
		current.Store(h.log.Manifest())
		return nil
	}
	res, err := r.Read(t.Context(), 3, Options{MaxBytes: 1000, AtLeastOne: true}) // the footer is known from now on
	if err != nil {
		t.Fatal(err)
	}
	res.Release()

	next := h.next
	h.next, h.rng = 0, rand.New(rand.NewSource(3)) // the same batches again
	h.clock = 1_700_000_000_000
	replacement, _ := h.write(t, shape{batches: 20, size: 30_000, zstd: true})
	h.next = next
	if err := h.log.Replace(t.Context(), []manifest.Segment{old}, []manifest.Segment{replacement}); err != nil {
		t.Fatal(err)
	}
	if err := h.store.Delete(t.Context(), old.Object); err != nil {
		t.Fatal(err)
	}
	o := Options{MaxBytes: 200_000, AtLeastOne: true}
	res, err = r.Read(t.Context(), 3, o)
	if err != nil || reloads.Load() != 1 {
		t.Fatalf("%v after %d reloads", err, reloads.Load())
	}
	h.check(t, 3, o, res)
	res.Release()

	if err := h.store.Delete(t.Context(), replacement.Object); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Read(t.Context(), 3, o); !errors.Is(err, ErrMissing) || errors.Is(err, ErrNotFound) {
		t.Fatalf("an object that is gone but named: %v", err)
	}
	if _, err := r.FindTime(t.Context(), 0, 0); !errors.Is(err, ErrMissing) {
		t.Fatalf("an object that is gone but named, by time: %v", err)
	}
}

func TestAnotherPartitionsObjectIsRefused(t *testing.T) {
	h := newHistory(t, object.NewMemory(), 4)
	h.add(t, shape{batches: 3, size: 1000})
	other := testID
	other.Partition++
	seg := h.log.Manifest().Root()[0]
	if _, err := NewFooters(0).get(t.Context(), h.store, other, seg); err == nil {
		t.Fatal("the footer of another partition was taken")
	}
}

// TestFaultsGiveErrorsOrTheTruth reads while the store fails in every way it can.
func TestFaultsGiveErrorsOrTheTruth(t *testing.T) {
	inner := object.NewMemory()
	h := varied(t, inner)
	kinds := []objecttest.Kind{objecttest.Before, objecttest.Throttle, objecttest.Cut, objecttest.Corrupt, objecttest.Misread}
	rng := rand.New(rand.NewSource(5))
	h.store = objecttest.NewFaulty(inner, func(objecttest.Call) objecttest.Fault {
		if rng.Intn(6) > 0 {
			return objecttest.Fault{}
		}
		return objecttest.Fault{Kind: kinds[rng.Intn(len(kinds))]}
	})
	good, bad := 0, 0
	for round := range 10 {
		r, _ := h.reader(t, 1<<20)
		rng := rand.New(rand.NewSource(int64(round)))
		for range 40 {
			offset := record.Offset(rng.Int63n(int64(h.next)))
			o := Options{MaxBytes: 600_000, AtLeastOne: true}
			res, err := r.Read(t.Context(), offset, o)
			if err == nil {
				good++
				h.check(t, offset, o, res)
				res.Release()
				continue
			}
			bad++
			if errors.Is(err, ErrNotFound) {
				t.Fatalf("a fault became %v", err)
			}
		}
	}
	if good == 0 || bad == 0 {
		t.Fatalf("%d good, %d bad reads", good, bad)
	}
}

// held is a store whose reads wait.
type held struct {
	object.Store
	arrived chan struct{}
	release chan struct{}
}

func (s *held) ReadAt(ctx context.Context, name string, p []byte, position int64) (int, error) {
	s.arrived <- struct{}{}
	select {
	case <-s.release:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return s.Store.ReadAt(ctx, name, p, position)
}

func TestAFooterIsFetchedOnceAndOutlivesItsWaiter(t *testing.T) {
	inner := object.NewMemory()
	h := newHistory(t, inner, 6)
	h.add(t, shape{batches: 3, size: 1000})
	var reads atomic.Int32
	counted := object.Observe(inner, objectCount(&reads))
	store := &held{Store: counted, arrived: make(chan struct{}, 10), release: make(chan struct{})}
	r, _ := h.reader(t, 1<<20)
	r.src.Store = store

	ctx, cancel := context.WithCancel(t.Context())
	failed := make(chan error)
	go func() {
		_, err := r.Read(ctx, 0, Options{MaxBytes: 10, AtLeastOne: true})
		failed <- err
	}()
	<-store.arrived
	cancel()
	if err := <-failed; !errors.Is(err, context.Canceled) {
		t.Fatalf("the reader got %v", err)
	}
	var wg sync.WaitGroup
	for range 10 {
		wg.Go(func() {
			res, err := r.Read(t.Context(), 0, Options{MaxBytes: 10, AtLeastOne: true})
			if err != nil {
				t.Error(err)
			}
			res.Release()
		})
	}
	close(store.release)
	wg.Wait()
	if n := reads.Load(); n != 1 {
		t.Fatalf("the footer was fetched %d times", n)
	}
}

func TestFootersAreBounded(t *testing.T) {
	h := varied(t, object.NewMemory())
	f := NewFooters(4000)
	r, _ := h.reader(t, 1<<20)
	r.src.Footers = f
	for o := record.Offset(0); o < h.next; o += 7 {
		res, err := r.Read(t.Context(), o, Options{MaxBytes: 10, AtLeastOne: true})
		if err != nil {
			t.Fatal(err)
		}
		res.Release()
	}
	if f.bytes > 4000 || f.order.Len() != len(f.index) || f.order.Len() < 2 {
		t.Fatalf("%d footers of %d bytes", f.order.Len(), f.bytes)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
