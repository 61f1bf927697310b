package cache

import (
	"context"
	"fmt"
	"math/rand"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/vfs"
)

// openWithDisk waits until the disk tier has read its directory.
func openWithDisk(t testing.TB, store object.Store, o Options) *Cache {
	t.Helper()
	o.Dir = "cache/blocks"
	c := open(t, store, o)
	waitFor(t, func() bool {
		c.disk.mu.Lock()
		defer c.disk.mu.Unlock()
		return c.disk.ready
	})
	return c
}

func waitFor(t testing.TB, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); yield() {
		if time.Now().After(deadline) {
			t.Fatal("it did not happen")
		}
	}
}

// fill reads an object and waits until what the disk tier took of it is written.
func fill(t testing.TB, c *Cache, p *packed) {
	t.Helper()
	for i := 0; i < len(p.blocks); i += 4 {
		mustGet(t, c, 1, p, i, min(i+4, len(p.blocks)))
		settle(t, c)
		waitFor(t, func() bool { return len(c.disk.jobs) == 0 && c.Stats().InFlightBytes == 0 })
	}
}

func TestDiskTierOutlivesTheProcess(t *testing.T) {
	store, fs := object.NewMemory(), vfs.NewMem()
	p := pack(t, store, "p", 40, 10_000, true)
	o := Options{MemoryBytes: -1, Disk: fs, DiskBytes: 1 << 20}
	first := openWithDisk(t, store, o)
	fill(t, first, p)
	if err := first.disk.fs.Remove("cache/blocks/00000000000000000003.blocks"); err != nil {
		t.Fatal(err)
	}
	second := openWithDisk(t, store, o)
	fill(t, second, p)
	if s := second.Stats(); s.Gets != 1 || s.DiskHits != 9 {
		t.Fatalf("%d GETs and %d reads of the disk, want 1 and 9: %+v", s.Gets, s.DiskHits, s)
	}
}

// TestDiskTierSurvivesCrashes cuts the power after each number of operations on the disk: whatever is left of the files, what
// comes out of the next cache is right, and the cache works.
func TestDiskTierSurvivesCrashes(t *testing.T) {
	store := object.NewMemory()
	p := pack(t, store, "p", 24, 9_000, true)
	rng := rand.New(rand.NewSource(3))
	served := int64(0)
	for stop := int64(1); stop < 60; stop++ {
		mem := vfs.NewMem()
		var clone *vfs.Mem
		var n atomic.Int64
		fs := vfs.Fault(mem, func(vfs.Op) error {
			if n.Add(1) == stop {
				clone = mem.CrashClone(rng, rng.Float64())
			}
			return nil
		})
		c := openWithDisk(t, store, Options{MemoryBytes: -1, Disk: fs, DiskBytes: 150_000})
		fill(t, c, p)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if clone == nil {
			break
		}
		after := openWithDisk(t, store, Options{MemoryBytes: -1, Disk: clone, DiskBytes: 150_000})
		fill(t, after, p)
		served += after.Stats().DiskHits
		fill(t, after, p)
		if s := after.Stats(); s.DiskBytes == 0 || s.DiskBytes > 150_000 {
			t.Fatalf("stopped at %d: the disk tier holds %d bytes", stop, s.DiskBytes)
		}
		after.Close()
	}
	if served == 0 {
		t.Fatal("no file ever outlived a crash")
	}
}

func TestDamageOnTheDiskIsReadFromTheStore(t *testing.T) {
	store, fs := object.NewMemory(), vfs.NewMem()
	p := pack(t, store, "p", 8, 10_000, false)
	c := openWithDisk(t, store, Options{MemoryBytes: -1, Disk: fs, DiskBytes: 1 << 20})
	fill(t, c, p)
	f, err := fs.Open("cache/blocks/00000000000000000001.blocks")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte("damage"), 20_000); err != nil {
		t.Fatal(err)
	}
	f.Close()
	fill(t, c, p)
	if s := c.Stats(); s.DiskHits != 1 || s.Gets != 3 || s.DiskErrors != 1 {
		t.Fatalf("%d reads of the disk, %d GETs, %d errors", s.DiskHits, s.Gets, s.DiskErrors)
	}
	fill(t, c, p)
	if s := c.Stats(); s.Gets != 3 {
		t.Fatal("the good copy was not kept")
	}
}

func TestAFullDiskIsSurvived(t *testing.T) {
	store := object.NewMemory()
	p := pack(t, store, "p", 40, 10_000, false)
	var full atomic.Bool
	fs := vfs.Fault(vfs.NewMem(), func(op vfs.Op) error {
		if full.Load() && op.Kind == vfs.OpWrite {
			return &vfs.Partial{Size: op.Size / 2, Err: vfs.ErrNoSpace}
		}
		return nil
	})
	now := &clock{now: time.Unix(1, 0)}
	c := openWithDisk(t, store, Options{MemoryBytes: -1, Disk: fs, DiskBytes: 1 << 20, Now: now.Now})
	fill(t, c, &packed{name: p.name, blocks: p.blocks[:32]})
	before := c.Stats().DiskBytes
	full.Store(true)
	mustGet(t, c, 1, p, 32, 36)
	waitFor(t, func() bool { return c.Stats().DiskErrors > 0 && c.Stats().DiskBytes <= before-before/8 })
	names, err := fs.List("cache/blocks")
	if held := c.Stats().DiskBytes / 40_000; err != nil || int64(len(names)) != held {
		t.Fatalf("%d files for %d held, %v", len(names), held, err)
	}
	mustGet(t, c, 1, p, 36, 40) // not written: the disk rests
	now.pass(2 * diskPause)
	full.Store(false)
	written := c.Stats().DiskWritten
	fill(t, c, p)
	now.pass(2 * correlated)
	fill(t, c, p)
	if s := c.Stats(); s.DiskWritten == written || s.DiskErrors != 1 {
		t.Fatalf("nothing is written after the disk had room again: %+v", s)
	}
}

func TestDiskTierKeepsWhatIsReadAndItsLimit(t *testing.T) {
	store, fs := object.NewMemory(), vfs.NewMem()
	now := &clock{now: time.Unix(1, 0)}
	c := openWithDisk(t, store, Options{MemoryBytes: 8 << 16, ReadBudget: 1 << 20, Disk: fs, DiskBytes: 500_000, Now: now.Now})
	loved := pack(t, store, "loved", 8, 10_000, false)
	fill(t, c, loved)
	for i := range 10 {
		other := pack(t, store, fmt.Sprint("other", i), 80, 10_000, false)
		fill(t, c, other)
		now.pass(2 * correlated)
		fill(t, c, other)
		now.pass(2 * correlated)
		mustGet(t, c, 1, loved, 0, 8)
		if s := c.Stats(); s.DiskBytes > 500_000 {
			t.Fatalf("%d bytes on the disk", s.DiskBytes)
		}
	}
	if err := c.Close(); err != nil { // the last write has ended
		t.Fatal(err)
	}
	names, err := fs.List("cache/blocks")
	if err != nil {
		t.Fatal(err)
	}
	sum := int64(0)
	for _, name := range names {
		info, err := fs.Stat("cache/blocks/" + name)
		if err != nil {
			t.Fatal(err)
		}
		sum += info.Size
	}
	if s := c.Stats(); sum != s.DiskBytes || s.DiskEvicted == 0 {
		t.Fatalf("files of %d bytes, counted %d, evicted %d", sum, s.DiskBytes, s.DiskEvicted)
	}
}

// TestEqualBytes reads the same script through every kind of cache.
func TestEqualBytes(t *testing.T) {
	store := object.NewMemory()
	var objects []*packed
	for i := range 5 {
		objects = append(objects, pack(t, store, fmt.Sprint("o", i), 30, 5_000, i%2 == 0))
	}
	for name, o := range map[string]Options{
		"off":  {MemoryBytes: -1},
		"tiny": {MemoryBytes: 40_000, ReadBudget: 20_000},
		"huge": {},
		"disk": {MemoryBytes: 40_000, Disk: vfs.NewMem(), DiskBytes: 200_000},
	} {
		t.Run(name, func(t *testing.T) {
			o.Dir = "blocks"
			c := open(t, store, o)
			rng := rand.New(rand.NewSource(11))
			for range 500 {
				p := objects[rng.Intn(len(objects))]
				from := rng.Intn(30)
				to := min(30, from+1+rng.Intn(6))
				c.Ahead(1, p, to, min(30, to+rng.Intn(10)))
				for from < to {
					blocks, release, err := c.Get(context.Background(), p, Span{Flow: 1, From: from, To: to})
					if err != nil {
						t.Fatal(err)
					}
					check(t, p, from, blocks)
					from += len(blocks)
					release()
				}
			}
		})
	}
}
