package hotlog

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// TestReadsAfterRewrites reads from every offset, by time and by extent, in a log full of gaps, and after a restart.
func TestReadsAfterRewrites(t *testing.T) {
	for seed := range int64(8) {
		rng := rand.New(rand.NewSource(seed))
		m := segmented(t, seed, 6)
		for i := 0; i < len(m.log.Sealed(0)); i++ {
			count := min(1+rng.Intn(2), len(m.log.Sealed(0))-i)
			keep := []float64{0, 0.1, 0.5, 1}[rng.Intn(4)]
			if _, err := rewrite(m.log, i, count, shrink(rng, keep)); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 {
			if err := readEverywhere(m.log, rng); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			m.restart()
		}
		if err := m.log.Close(); err != nil {
			t.Fatal(err)
		}
		m.log = nil
		m.stop()
		if n := m.mem.OpenFiles(); n != 0 {
			t.Errorf("%d files left open", n)
		}
	}
}

func readEverywhere(l *Log, rng *rand.Rand) error {
	var batches []record.Batch
	if err := l.Scan(l.Start(), l.End(), func(b record.Batch) error { batches = append(batches, bytes.Clone(b)); return nil }); err != nil {
		return err
	}
	for o := l.Start(); o <= l.End(); o++ {
		limit := o + record.Offset(rng.Intn(int(l.End()-o)+1))
		if rng.Intn(3) == 0 {
			limit = l.End()
		}
		for _, b := range batches { // a limit is never inside a batch
			if b.BaseOffset() < limit && b.NextOffset() > limit {
				limit = b.NextOffset()
			}
		}
		if err := readAt(l, batches, o, limit, rng.Intn(4000)); err != nil {
			return fmt.Errorf("read [%d, %d): %w", o, limit, err)
		}
		var bytes, records int64
		for _, b := range batches {
			if b.BaseOffset() >= o && b.NextOffset() <= limit {
				bytes, records = bytes+int64(len(b)), records+int64(b.Count())
			}
		}
		if gotB, gotR, err := l.Extent(o, limit); err != nil || gotB != bytes || gotR != records {
			return fmt.Errorf("extent of [%d, %d): %d bytes, %d records, %v; want %d, %d", o, limit, gotB, gotR, err, bytes, records)
		}
		if err := findAt(l, batches, 1000+int64(o)); err != nil {
			return err
		}
	}
	return nil
}

// readAt compares one Read with the list of batches.
func readAt(l *Log, batches []record.Batch, offset, limit record.Offset, max int) error {
	s, err := l.Read(offset, limit, max, true)
	if err != nil {
		return err
	}
	defer s.Release()
	i := slices.IndexFunc(batches, func(b record.Batch) bool { return b.NextOffset() > offset })
	if i < 0 || batches[i].BaseOffset() >= limit {
		if s.Size != 0 {
			return fmt.Errorf("%d bytes where nothing is left", s.Size)
		}
		return nil
	}
	if s.Size == 0 || s.First != batches[i].BaseOffset() || s.Next <= offset || s.Next > limit {
		return fmt.Errorf("%d bytes of [%d, %d), the first batch is at %d", s.Size, s.First, s.Next, batches[i].BaseOffset())
	}
	p := make([]byte, s.Size)
	if _, err := s.ReadAt(p, 0); err != nil && len(p) > 0 && !errors.Is(err, io.EOF) {
		return err
	}
	next := offset
	for rest := record.Batch(p); len(rest) > 0; i++ {
		b, after, err := record.Next(rest)
		if err != nil || i == len(batches) || !bytes.Equal(b, batches[i]) {
			return fmt.Errorf("batch %d is not the one at %d: %v", i, b.BaseOffset(), err)
		}
		next, rest = b.NextOffset(), record.Batch(after)
	}
	if int(s.Size) > max && i > 0 && s.Size != int64(len(batches[i-1])) {
		return fmt.Errorf("%d bytes, allowed were %d", s.Size, max)
	}
	if next > s.Next || i < len(batches) && batches[i].BaseOffset() < s.Next {
		return fmt.Errorf("the last batch ends at %d, the slice says %d", next, s.Next)
	}
	return nil
}

// findAt compares FindTime with the list of batches.
func findAt(l *Log, batches []record.Batch, ts int64) error {
	want, at := record.Offset(-1), int64(-1)
	for _, b := range batches {
		_ = b.Each(func(r *record.Record) error {
			if t := b.BaseTimestamp() + r.TimestampDelta; want < 0 && t >= ts {
				want, at = b.BaseOffset()+record.Offset(r.OffsetDelta), t
			}
			return nil
		})
	}
	o, found, ok, err := l.FindTime(ts, l.End())
	if err != nil || ok != (want >= 0) || ok && (o != want || found != at) {
		return fmt.Errorf("record of %d ms: %d (%d ms), %v, %v; want %d (%d ms)", ts, o, found, ok, err, want, at)
	}
	return nil
}

// TestReadersOutliveARewrite: what was looked up before the segment was replaced is read from the old file, or looked up
// again; never is the new file taken for the old one.
func TestReadersOutliveARewrite(t *testing.T) {
	m := segmented(t, 6, 4)
	old := m.log.Sealed(0)
	want, err := contents(m.log)
	if err != nil {
		t.Fatal(err)
	}
	s, err := m.log.Read(old[1].Base, m.log.End(), 1<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	pinned, err := old[2].Open()
	if err != nil {
		t.Fatal(err)
	}
	footer, err := old[2].Footer()
	if err != nil {
		t.Fatal(err)
	}
	sizes := m.log.Size()
	if _, err := rewrite(m.log, 0, 4, shrink(rand.New(rand.NewSource(2)), 0.2)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, s.Size)
	if _, err := s.ReadAt(p, 0); err != nil && !errors.Is(err, io.EOF) || !bytes.Contains(want, p) {
		t.Errorf("a slice does not read what it did: %v", err)
	}
	s.Release()
	if err := segment.Verify(pinned, footer); err != nil {
		t.Errorf("an open segment: %v", err)
	}
	old[2].Release()
	if _, err := old[1].Footer(); !errors.Is(err, errDropped) {
		t.Errorf("footer of a replaced segment: %v", err)
	}
	if _, err := old[0].Open(); !errors.Is(err, errDropped) { // its name is the new file's
		t.Errorf("a replaced segment opens: %v", err)
	}
	var size int64
	for _, n := range m.log.Sealed(0) {
		size += n.Size
	}
	if _, _, active := m.log.ActiveInfo(); m.log.Size() != size+active || m.log.Size() >= sizes {
		t.Errorf("size %d, segments have %d, before %d", m.log.Size(), size+active, sizes)
	}
	m.stop()
}

// TestReadersDuringRewrites runs readers, searches, trims and appends beside rewrites on a real disk. Whatever a reader gets
// are records as they were written, in order, and it comes to the end.
func TestReadersDuringRewrites(t *testing.T) {
	dir := t.TempDir()
	store, err := localstate.Open(filepath.Join(dir, "state"), localstate.Options{Flush: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	fl := NewFlusher(FlusherOptions{OnError: func(err error) { t.Error(err) }})
	defer fl.Close()
	l, _, err := Open(vfs.OS(), filepath.Join(dir, "log"), testID, store.Log(testID.Topic, 0), fl, Options{SegmentBytes: 50 << 10, Files: NewFiles(2, 4<<10)})
	if err != nil {
		t.Fatal(err)
	}
	const last = record.Offset(1500)
	var all sync.WaitGroup
	var done atomic.Bool
	for r := range 2 {
		all.Go(func() { readSparse(t, l, &done, last, int64(r)) })
	}
	all.Go(func() {
		for !done.Load() {
			if err := l.Scan(l.Start(), l.Durable(), func(b record.Batch) error { return checkRecords(b) }); err != nil && !errors.As(err, new(*ErrOutOfRange)) {
				t.Error(err)
			}
			if _, _, _, err := l.FindTime(1000+int64(l.Start()), l.Durable()); err != nil {
				t.Error(err)
			}
			if _, _, err := l.Extent(l.Start(), l.Durable()); err != nil && !errors.As(err, new(*ErrOutOfRange)) {
				t.Error(err)
			}
		}
	})
	rng := rand.New(rand.NewSource(5))
	for l.End() < last {
		appendUntil(t, l, min(l.End()+100, last))
		n := len(l.Sealed(0))
		if n == 0 {
			continue
		}
		first := rng.Intn(n)
		if _, err := rewrite(l, first, 1+rng.Intn(min(3, n-first)), shrink(rng, 0.8)); err != nil {
			t.Error(err)
		}
		if rng.Intn(4) == 0 {
			if _, err := l.Trim(l.Sealed(0)[0].End); err != nil {
				t.Error(err)
			}
		}
	}
	l.Flush()
	done.Store(true)
	all.Wait()
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// readSparse reads from the start to the end again and again.
func readSparse(t *testing.T, l *Log, done *atomic.Bool, last record.Offset, seed int64) {
	rng := rand.New(rand.NewSource(seed))
	next := record.Offset(0)
	for !done.Load() || next < last {
		s, err := l.Read(next, l.End(), 1+rng.Intn(20<<10), true)
		var out *ErrOutOfRange
		if errors.As(err, &out) {
			next = out.Start
			continue
		}
		if err != nil {
			t.Error(err)
			return
		}
		p := make([]byte, s.Size)
		_, _ = s.ReadAt(p, 0) // what was not read fails the check below
		for at := s.First; len(p) > 0; {
			b, rest, err := record.Next(p)
			if err == nil {
				err = checkRecords(b)
			}
			if err != nil || b.BaseOffset() < at {
				t.Errorf("slice [%d, %d): %v", s.First, s.Next, err)
				break
			}
			at, p = b.NextOffset(), rest
		}
		if next = s.Next; next == l.End() && !done.Load() {
			next = l.Start()
		}
		s.Release()
	}
}

// checkRecords holds a batch against what batch makes.
func checkRecords(b record.Batch) error {
	if err := b.Verify(); err != nil {
		return err
	}
	return b.Each(func(r *record.Record) error {
		o := b.BaseOffset() + record.Offset(r.OffsetDelta)
		if string(r.Value) != string(value(o, len(r.Value))) {
			return fmt.Errorf("record %d is not what was written", o)
		}
		return nil
	})
}
