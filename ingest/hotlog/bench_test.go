package hotlog

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/vfs"
)

// window bounds the bytes that wait for an fsync, over all logs: what a few clients have in flight.
const window = 16 << 20

// inFlight counts bytes appended and not yet durable.
type inFlight struct {
	mu    sync.Mutex
	moved sync.Cond
	bytes int64
}

func (w *inFlight) add(n int64, limit int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.bytes += n
	if n < 0 {
		w.moved.Signal()
		return
	}
	for w.bytes > limit {
		w.moved.Wait()
	}
}

// BenchmarkAppend appends batches round robin to logs on a real disk, each acknowledged after its fsync, or, with flush=os,
// at once. It reports MB/s and CPU seconds of the process per GiB.
func BenchmarkAppend(b *testing.B) {
	for _, os := range []bool{false, true} {
		for _, logs := range []int{1, 100} {
			for _, size := range []int{16 << 10, 256 << 10} {
				b.Run(fmt.Sprintf("os=%v/logs=%d/batch=%dKiB", os, logs, size>>10), func(b *testing.B) {
					benchmarkAppend(b, logs, size, Options{FlushOS: os})
				})
			}
		}
	}
}

func benchmarkAppend(b *testing.B, logs, size int, o Options) {
	dir := b.TempDir()
	store, err := localstate.Open(filepath.Join(dir, "state"), localstate.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer store.Close()
	fl := NewFlusher(FlusherOptions{OnError: func(err error) { b.Error(err) }})
	defer fl.Close()
	o.Files = NewFiles(0, 0)
	w := &inFlight{}
	w.moved.L = &w.mu
	proto := batch(0, 0, 1, size-record.HeaderSize-12, 1000)
	all := make([]*Log, logs)
	// Sealed segments are trimmed beside the appends, as retention does, so that the disk does not fill.
	sealed := make(chan *Log, 1000)
	var trims sync.WaitGroup
	trims.Go(func() {
		for l := range sealed {
			if _, err := l.Trim(l.Durable()); err != nil && !errors.Is(err, ErrClosed) {
				b.Error(err)
			}
		}
	})
	defer trims.Wait()
	defer close(sealed)
	for i := range all {
		id := testID
		id.Partition = int32(i)
		l, _, err := Open(vfs.OS(), filepath.Join(dir, "log", fmt.Sprint(i)), id, store.Log(id.Topic, id.Partition), fl, o)
		if err != nil {
			b.Fatal(err)
		}
		done := record.Offset(0)
		l.Notify(func(durable record.Offset) {
			n := int64(durable-done) * int64(len(proto))
			done = durable
			w.add(-n, 0)
		})
		all[i] = l
		defer l.Close()
		l.NotifySealed(func() { sealed <- l })
	}
	b.SetBytes(int64(len(proto)))
	b.ReportAllocs()
	before := cpu()
	b.ResetTimer()
	for i := range b.N {
		l := all[i%logs]
		if l.NeedsRoll(len(proto)) {
			if err := l.Roll(nil); err != nil {
				b.Fatal(err)
			}
		}
		proto.Stamp(l.End(), 1)
		w.mu.Lock()
		w.bytes += int64(len(proto))
		w.mu.Unlock()
		if err := l.Append(proto); err != nil {
			b.Fatal(err)
		}
		w.add(0, window)
	}
	w.add(0, 0)
	b.StopTimer()
	b.ReportMetric((cpu()-before)/float64(b.N)/float64(len(proto))*(1<<30), "cpu-s/GiB")
}

// cpu returns the process's CPU time in seconds.
func cpu() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}

// BenchmarkAck appends one small batch at a time and waits until it is durable; raw is the same write and fdatasync
// without a log, the floor of this disk.
func BenchmarkAck(b *testing.B) {
	proto := batch(0, 0, 1, 4000, 1000)
	b.Run("log", func(b *testing.B) {
		dir := b.TempDir()
		store, err := localstate.Open(filepath.Join(dir, "state"), localstate.Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer store.Close()
		fl := NewFlusher(FlusherOptions{})
		defer fl.Close()
		l, _, err := Open(vfs.OS(), filepath.Join(dir, "log"), testID, store.Log(testID.Topic, 0), fl, Options{})
		if err != nil {
			b.Fatal(err)
		}
		defer l.Close()
		acked := make(chan struct{}, 1)
		l.Notify(func(record.Offset) { acked <- struct{}{} })
		b.ResetTimer()
		for range b.N {
			proto.Stamp(l.End(), 1)
			if err := l.Append(proto); err != nil {
				b.Fatal(err)
			}
			<-acked
		}
	})
	b.Run("raw", func(b *testing.B) {
		f, err := vfs.OS().Create(filepath.Join(b.TempDir(), "f"))
		if err != nil {
			b.Fatal(err)
		}
		defer f.Close()
		b.ResetTimer()
		for i := range b.N {
			if _, err := f.WriteAt(proto, int64(i*len(proto))); err != nil {
				b.Fatal(err)
			}
			if err := f.Sync(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
