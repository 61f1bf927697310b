package stores

import (
	"fmt"
	"math/rand"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/everlog/everlog/e2e/servers"
	"github.com/everlog/everlog/tier/minio"
	"github.com/everlog/everlog/tier/object"
)

// BenchmarkMinIO moves segments and blocks through both drivers. client-s/GiB is the CPU time of this process.
func BenchmarkMinIO(b *testing.B) {
	s := servers.MinIO(b)
	for _, pair := range s.Env() {
		key, value, _ := strings.Cut(pair, "=")
		b.Setenv(key, value)
	}
	if _, err := minio.Open(b.Context(), s.MinIOURL(bucket, "")); err != nil {
		b.Fatal(err)
	}
	noise := make([]byte, 128<<20)
	rand.New(rand.NewSource(1)).Read(noise)
	for _, d := range drivers {
		store, err := d.open(b.Context(), s, "bench-"+d.name)
		if err != nil {
			b.Fatal(err)
		}
		for _, mib := range []int{8, 64, 128} {
			b.Run(fmt.Sprintf("%s/Put%dMiB", d.name, mib), func(b *testing.B) {
				measure(b, int64(mib)<<20, func(i int) error {
					_, err := store.Put(b.Context(), fmt.Sprintf("o-%d", mib), object.Bytes(noise[:mib<<20]), object.PutOptions{})
					return err
				})
			})
		}
		for _, mib := range []int{1, 8} {
			b.Run(fmt.Sprintf("%s/ReadAt%dMiB", d.name, mib), func(b *testing.B) {
				p := make([]byte, mib<<20)
				measure(b, int64(mib)<<20, func(i int) error {
					_, err := store.ReadAt(b.Context(), "o-128", p, int64(i%16)*int64(len(p)))
					return err
				})
			})
		}
		b.Run(d.name+"/Create4KiBx8", func(b *testing.B) {
			var n atomic.Int64
			b.SetParallelism(4)
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					name := fmt.Sprintf("small/%d-%d", b.N, n.Add(1))
					if _, err := store.Put(b.Context(), name, object.Bytes(noise[:4096]), object.PutOptions{Condition: object.IfAbsent()}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func measure(b *testing.B, size int64, op func(i int) error) {
	b.SetBytes(size)
	before := cpuSeconds(b)
	b.ResetTimer()
	for i := range b.N {
		if err := op(i); err != nil {
			b.Fatal(err)
		}
	}
	b.StopTimer()
	b.ReportMetric((cpuSeconds(b)-before)/(float64(size)*float64(b.N)/(1<<30)), "client-s/GiB")
}

func cpuSeconds(b *testing.B) float64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
