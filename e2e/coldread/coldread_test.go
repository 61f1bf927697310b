package coldread

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everlog/everlog/cache"
	"github.com/everlog/everlog/tier/fetch"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// TestEqualBytesWhateverTheCache reads one script without a cache, through a tiny one, a huge one and a disk.
func TestEqualBytesWhateverTheCache(t *testing.T) {
	h := write(t, object.NewMemory(), recipe{segments: 6, segmentBytes: 3 << 20, batchBytes: 20_000, mixed: true})
	var all bytes.Buffer
	if _, err := fetch.Scan(t.Context(), h.store, h.log.Manifest(), fetch.ScanOptions{From: 0, To: h.next}, func(b record.Batch, _ *segment.Footer) error {
		all.Write(b)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]cache.Options{
		"off":  {MemoryBytes: -1},
		"tiny": {MemoryBytes: 1 << 20, ReadBudget: 1 << 20},
		"huge": {},
		"disk": {MemoryBytes: 2 << 20, ReadBudget: 2 << 20, Disk: vfs.NewMem(), Dir: "cache", DiskBytes: 4 << 20},
	} {
		t.Run(name, func(t *testing.T) {
			c := open(t, h.store, o)
			r := h.reader(t, h.store, c)
			var got bytes.Buffer
			if _, err := follow(t.Context(), r, 0, h.next, 700_000, func(b []byte) { got.Write(b) }); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got.Bytes(), all.Bytes()) {
				t.Fatal("read in order, other bytes come")
			}
			rng := rand.New(rand.NewSource(4))
			for range 200 {
				offset, max := record.Offset(rng.Int63n(int64(h.next))), 1+rng.Intn(1<<20)
				res, err := r.Read(t.Context(), offset, fetch.Options{MaxBytes: max, AtLeastOne: true})
				if err != nil {
					t.Fatal(err)
				}
				at := int(offset) * (all.Len() / int(h.next))
				for _, b := range res.Blocks {
					if !bytes.Equal(b, all.Bytes()[at:at+len(b)]) {
						t.Fatalf("read at %d, other bytes come", offset)
					}
					at += len(b)
				}
				res.Release()
			}
		})
	}
}

// TestReadersShareEveryGet: ten readers of one history, one of them late, cost the store what one does.
func TestReadersShareEveryGet(t *testing.T) {
	inner := object.NewMemory()
	h := write(t, inner, recipe{segments: 3, segmentBytes: 12 << 20, batchBytes: 50_000, mixed: true})
	var gets, read atomic.Int64
	store := object.Observe(inner, func(op string, n int64, _ time.Duration, _ error) {
		if op == "read" {
			gets.Add(1)
			read.Add(n)
		}
	})
	c := open(t, store, cache.Options{})
	r := h.reader(t, store, c)
	sums := make([]uint32, 10)
	var wg sync.WaitGroup
	for i := range sums {
		wg.Go(func() {
			if _, err := follow(t.Context(), r, 0, h.next, 1<<20, func(b []byte) { sums[i] = crc32.Update(sums[i], crc32.IEEETable, b) }); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	for _, s := range sums {
		if s != sums[0] {
			t.Fatal("readers see different bytes")
		}
	}
	if stored := h.log.Manifest().Bytes(); read.Load() > stored {
		t.Errorf("%d bytes were read of %d stored", read.Load(), stored)
	}
	if n := gets.Load(); n > 24 {
		t.Errorf("%d GETs for 36 MiB and three footers", n)
	}
}

// TestMemoryStaysWithinItsBudgets: more readers than the memory has room for, at different places.
func TestMemoryStaysWithinItsBudgets(t *testing.T) {
	h := write(t, object.NewMemory(), recipe{segments: 8, segmentBytes: 4 << 20, batchBytes: 30_000, mixed: true})
	o := cache.Options{MemoryBytes: 6 << 20, ReadBudget: 4 << 20}
	c := open(t, h.store, o)
	r := h.reader(t, h.store, c)
	var wg sync.WaitGroup
	for i := range 10 {
		from := h.next * record.Offset(i) / 10
		wg.Go(func() {
			_, err := follow(t.Context(), r, from, h.next, 1<<20, func([]byte) {
				s := c.Stats()
				if s.MemoryBytes > o.MemoryBytes || s.InFlightBytes > o.ReadBudget || s.LentBytes+s.IdleBytes > o.MemoryBytes+o.ReadBudget {
					t.Errorf("budgets are broken: %+v", s)
				}
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

// TestATailReaderIsNotStarved: while ten scans keep the store busy, each of the tail's reads waits for no more than one GET
// of every scan.
func TestATailReaderIsNotStarved(t *testing.T) {
	inner := object.NewMemory()
	h := write(t, inner, recipe{segments: 10, segmentBytes: 2 << 20, batchBytes: 30_000})
	var gets atomic.Int64
	store := object.Observe(inner, func(op string, _ int64, _ time.Duration, _ error) { gets.Add(1) })
	c := open(t, store, cache.Options{MemoryBytes: 4 << 20, ReadBudget: 2 << 20, Parallel: 2})
	r := h.reader(t, store, c)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 10 {
		wg.Go(func() {
			for {
				_, err := follow(t.Context(), r, h.next*record.Offset(i)/10, h.next*record.Offset(i+1)/10, 1<<20, func([]byte) {})
				if err != nil {
					t.Error(err)
				}
				select {
				case <-stop:
					return
				default:
				}
			}
		})
	}
	for i := range 50 {
		offset := h.next - 1 - record.Offset(i)
		before := gets.Load()
		res, err := r.Read(t.Context(), offset, fetch.Options{MaxBytes: 1, AtLeastOne: true})
		if err != nil {
			t.Fatal(err)
		}
		res.Release()
		if n := gets.Load() - before; n > 40 {
			t.Errorf("%d GETs passed while one read waited", n)
		}
	}
	close(stop)
	wg.Wait()
	if s := fmt.Sprint(c.Stats().Waiting); s != "0" {
		t.Errorf("%s GETs still wait", s)
	}
}
