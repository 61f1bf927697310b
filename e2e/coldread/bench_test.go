package coldread

import (
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/everlog/everlog/cache"
	"github.com/everlog/everlog/e2e/servers"
	"github.com/everlog/everlog/tier/fetch"
	"github.com/everlog/everlog/tier/minio"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// What the benchmarks read: incompressible segments of 64 MiB, more of them than the cache holds or remembers. There is one
// long partition, and as much again in ten.
var (
	long  = recipe{segments: 16, segmentBytes: 64 << 20, batchBytes: 64 << 10}
	short = recipe{segments: 2, segmentBytes: 64 << 20, batchBytes: 64 << 10}
)

// pass reads histories once.
type pass func(b *testing.B, hs []*history, rs []*fetch.Reader) (bytes int64)

// BenchmarkMinIO and BenchmarkDirectory alternate each kind of read with plain GETs of 8 MiB, four at once, of the same
// objects, and report both, their ratio, and the CPU seconds of this process for a GiB delivered. The ratio is what counts:
// it survives a busy machine.
func BenchmarkMinIO(b *testing.B) {
	server := servers.MinIO(b)
	store, err := minio.Open(b.Context(), server.MinIOURL("everlog", "bench"))
	if err != nil {
		b.Fatal(err)
	}
	benchmark(b, store)
}

func BenchmarkDirectory(b *testing.B) {
	store, err := object.NewDirectory(b.TempDir(), vfs.OS())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	benchmark(b, store)
}

func benchmark(b *testing.B, store object.Store) {
	one := []*history{write(b, store, long)}
	var ten []*history
	for i := range 10 {
		r := short
		r.partition = int32(i) + 1
		ten = append(ten, write(b, store, r))
	}
	for _, k := range []struct {
		name      string
		histories []*history
		read      pass
	}{
		{"1 reader, 1 MiB reads", one, readers(1, 1<<20)},
		{"1 reader, 8 MiB reads", one, readers(1, 8<<20)},
		{"10 readers of 1 partition", one, readers(10, 1<<20)},
		{"10 readers of 10 partitions", ten, readers(1, 1<<20)},
		{"scan", one, scan},
	} {
		b.Run(k.name, func(b *testing.B) { compare(b, k.histories, k.read) })
	}
}

// compare alternates plain GETs and a kind of read.
func compare(b *testing.B, hs []*history, read pass) {
	c := open(b, hs[0].store, cache.Options{})
	var rs []*fetch.Reader
	for _, h := range hs {
		rs = append(rs, h.reader(b, h.store, c))
	}
	plain, ours := newRaw(hs).pass, func(b *testing.B) int64 { return read(b, hs, rs) }
	measure(b, plain)
	measure(b, ours) // memory is warm from here on
	warm := c.Stats()
	var p, o figures
	for b.Loop() {
		p.add(measure(b, plain))
		o.add(measure(b, ours))
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(p.rate()/1e6, "raw-MB/s")
	b.ReportMetric(o.rate()/1e6, "MB/s")
	b.ReportMetric(o.rate()/p.rate(), "ratio")
	b.ReportMetric(p.cost(), "raw-CPU-s/GiB")
	b.ReportMetric(o.cost(), "CPU-s/GiB")
	if s := c.Stats(); s.Gets > warm.Gets {
		b.ReportMetric(float64(s.GetBytes-warm.GetBytes)/(1<<20)/float64(s.Gets-warm.Gets), "MiB/GET")
		b.ReportMetric(float64(s.FreshBytes-warm.FreshBytes)/float64(s.GetBytes-warm.GetBytes), "fresh")
	}
}

// figures are bytes delivered, and the wall and CPU seconds of this process that it took.
type figures struct{ bytes, wall, cpu float64 }

func (f *figures) add(g figures) {
	f.bytes, f.wall, f.cpu = f.bytes+g.bytes, f.wall+g.wall, f.cpu+g.cpu
}

func (f *figures) rate() float64 { return f.bytes / f.wall }
func (f *figures) cost() float64 { return f.cpu / (f.bytes / (1 << 30)) }

func measure(b *testing.B, read func(*testing.B) int64) figures {
	start, cpu := time.Now(), cpuTime(b)
	bytes := read(b)
	return figures{float64(bytes), time.Since(start).Seconds(), (cpuTime(b) - cpu).Seconds()}
}

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// readers has n readers go through each history.
func readers(n, max int) pass {
	return func(b *testing.B, hs []*history, rs []*fetch.Reader) int64 {
		return inParallel(b, n*len(hs), func(i int) (int64, error) {
			i %= len(hs)
			return follow(b.Context(), rs[i], 0, hs[i].next, max, func([]byte) {})
		})
	}
}

func scan(b *testing.B, hs []*history, _ []*fetch.Reader) int64 {
	n := int64(0)
	if _, err := fetch.Scan(b.Context(), hs[0].store, hs[0].log.Manifest(), fetch.ScanOptions{From: 0, To: hs[0].next}, func(k record.Batch, _ *segment.Footer) error {
		n += int64(len(k))
		return nil
	}); err != nil {
		b.Fatal(err)
	}
	return n
}

func inParallel(b *testing.B, n int, read func(i int) (int64, error)) int64 {
	var total atomic.Int64
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			got, err := read(i)
			if err != nil {
				b.Error(err)
			}
			total.Add(got)
		})
	}
	wg.Wait()
	return total.Load()
}

// raw is plain GETs of 8 MiB, four at once, into buffers used again.
type raw struct {
	hs      []*history
	buffers [4][]byte
}

func newRaw(hs []*history) *raw {
	r := &raw{hs: hs}
	for i := range r.buffers {
		r.buffers[i] = make([]byte, 8<<20)
	}
	return r
}

func (r *raw) pass(b *testing.B) int64 {
	type job struct {
		name     string
		position int64
	}
	jobs := make(chan job)
	go func() {
		defer close(jobs)
		for _, h := range r.hs {
			for _, s := range h.log.Manifest().Root() {
				for at := int64(0); at+8<<20 <= s.Size; at += 8 << 20 {
					jobs <- job{s.Object, at}
				}
			}
		}
	}()
	return inParallel(b, len(r.buffers), func(i int) (int64, error) {
		n := int64(0)
		for j := range jobs {
			got, err := r.hs[0].store.ReadAt(b.Context(), j.name, r.buffers[i], j.position)
			if n += int64(got); err != nil {
				return n, err
			}
		}
		return n, nil
	})
}
