package hotlog

import (
	"errors"
	"io"
	"io/fs"
	"math/rand"
	"strings"
	"testing"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/vfs"
)

// fill appends batches of mixed sizes, rolling and flushing now and then, and returns their borders.
func fill(m *machine, rng *rand.Rand, batches int) []record.Offset {
	m.t.Helper()
	borders := []record.Offset{m.log.End()}
	for range batches {
		size := 1 << (4 + rng.Intn(12))
		if rng.Intn(20) == 0 {
			size = 300 << 10
		}
		if m.log.NeedsRoll(size) {
			if err := m.log.Roll(nil); err != nil {
				m.t.Fatal(err)
			}
		}
		m.mustAppend(1+rng.Intn(3), size, 1)
		borders = append(borders, m.log.End())
		if rng.Intn(10) == 0 {
			m.log.flush()
		}
	}
	return borders
}

// naive is what Read must do, from the list of borders: whole batches from the one with offset, below limit, within max.
func naive(borders []record.Offset, offset, limit record.Offset) (first record.Offset, possible map[record.Offset]bool) {
	possible = map[record.Offset]bool{}
	for i := range borders[:len(borders)-1] {
		if borders[i+1] <= offset {
			continue
		}
		if len(possible) == 0 {
			first = borders[i]
		}
		if borders[i+1] <= limit {
			possible[borders[i+1]] = true
		}
	}
	return first, possible
}

// TestReadAgainstNaive reads from every kind of place, sealed, rolled, closed block and open block, in small and large
// bites, and compares with the list of what was appended.
func TestReadAgainstNaive(t *testing.T) {
	rng := rand.New(rand.NewSource(1))
	m := newMachine(t, Options{SegmentBytes: 2 << 20})
	m.mustStart()
	defer m.stop()
	borders := fill(m, rng, 700)
	if len(m.log.Sealed(0)) < 3 || len(m.log.active.builder.Blocks()) < 2 {
		t.Fatalf("%d sealed segments, %d blocks", len(m.log.Sealed(0)), len(m.log.active.builder.Blocks()))
	}
	for range 5000 {
		offset := record.Offset(rng.Int63n(int64(m.log.End())))
		limit := borders[rng.Intn(len(borders))]
		if rng.Intn(3) > 0 {
			limit = m.log.End()
		}
		max, atLeast := 1<<rng.Intn(22), rng.Intn(2) == 0
		s, err := m.log.Read(offset, limit, max, atLeast)
		if err != nil {
			t.Fatal(err)
		}
		checkSlice(t, s, borders, offset, limit, max, atLeast)
		s.Release()
	}
}

func checkSlice(t *testing.T, s Slice, borders []record.Offset, offset, limit record.Offset, max int, atLeast bool) {
	t.Helper()
	first, possible := naive(borders, offset, limit)
	if s.Size == 0 {
		if s.First != s.Next {
			t.Fatalf("empty slice [%d, %d)", s.First, s.Next)
		}
		if len(possible) > 0 && atLeast {
			t.Fatalf("read(%d, %d, %d) is empty", offset, limit, max)
		}
		return
	}
	p := make([]byte, s.Size)
	if n, err := s.ReadAt(p, 0); n != len(p) || err != nil && err != io.EOF {
		t.Fatalf("read %d of %d bytes: %v", n, len(p), err)
	}
	count, next := 0, s.First
	for rest := p; len(rest) > 0; count++ {
		b, after, err := record.Next(rest)
		if err != nil || b.Verify() != nil || b.BaseOffset() != next {
			t.Fatalf("slice [%d, %d) of %d bytes: %v", s.First, s.Next, s.Size, err)
		}
		next, rest = b.NextOffset(), after
	}
	if s.First != first || s.Next != next || !possible[s.Next] || int(s.Size) > max && !(atLeast && count == 1) {
		t.Fatalf("read(%d, %d, %d, %v) gave [%d, %d) in %d bytes, %d batches", offset, limit, max, atLeast, s.First, s.Next, s.Size, count)
	}
}

// A reader that goes on where the last slice ended never looks at the file, whatever the watermark does.
func TestSequentialReadTouchesNoFile(t *testing.T) {
	m := newMachine(t, Options{SegmentBytes: 4 << 20})
	reads := 0
	m.fs = vfs.Fault(m.mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpRead {
			reads++
		}
		return nil
	})
	m.mustStart()
	defer m.stop()
	rng := rand.New(rand.NewSource(2))
	next := record.Offset(0)
	for range 400 {
		fill(m, rng, 1)
		m.log.flush()
		for next < m.log.Durable() {
			s, err := m.log.Read(next, m.log.Durable(), 1<<20, true)
			if err != nil || s.Size == 0 {
				t.Fatalf("read at %d: %d bytes, %v", next, s.Size, err)
			}
			next = s.Next
			s.Release()
		}
	}
	if reads != 0 {
		t.Errorf("%d reads of the file to find positions", reads)
	}
}

func TestReadRange(t *testing.T) {
	m := newMachine(t, Options{})
	m.mustStart()
	defer m.stop()
	m.mustAppend(10, 100, 1)
	var out *ErrOutOfRange
	if _, err := m.log.Read(11, 11, 1, true); !errors.As(err, &out) || out.Start != 0 || out.End != 10 {
		t.Errorf("read past the end: %v", err)
	}
	for _, limit := range []record.Offset{10, 0, 100} {
		s, err := m.log.Read(10, limit, 1, true)
		if err != nil || s.Size != 0 || s.Next != 10 {
			t.Errorf("read at the end: %+v, %v", s, err)
		}
	}
	if err := m.log.Roll(nil); err != nil {
		t.Fatal(err)
	}
	m.mustAppend(1, 1, 1)
	m.log.flush()
	if _, err := m.log.Trim(10); err != nil {
		t.Fatal(err)
	}
	if _, err := m.log.Read(9, 11, 1, true); !errors.As(err, &out) || out.Start != 10 {
		t.Errorf("read below the start: %v", err)
	}
}

// A slice, and an open sealed segment, outlive the trimming of their file, and let go of it when released.
func TestTrimWhileReading(t *testing.T) {
	m := newMachine(t, Options{Files: NewFiles(1, 1)})
	m.mustStart()
	for range 4 {
		m.mustAppend(5, 1000, 1)
		if err := m.log.Roll(nil); err != nil {
			t.Fatal(err)
		}
		m.log.flush()
	}
	m.mustAppend(1, 1, 1)
	s, err := m.log.Read(3, 20, 1<<20, true)
	if err != nil {
		t.Fatal(err)
	}
	sealed := m.log.Sealed(0)
	r, err := sealed[1].Open()
	if err != nil {
		t.Fatal(err)
	}
	before := m.log.Size()
	freed, err := m.log.Trim(15)
	if err != nil || freed != sealed[0].Size+sealed[1].Size+sealed[2].Size || m.log.Size() != before-freed {
		t.Errorf("freed %d: %v", freed, err)
	}
	if names, _ := m.mem.List(testDir); len(names) != 2 || m.log.Start() != 15 {
		t.Errorf("start %d, files %v", m.log.Start(), names)
	}
	p := make([]byte, s.Size)
	if _, err := s.ReadAt(p, 0); err != nil && err != io.EOF {
		t.Errorf("slice of a trimmed segment: %v", err)
	}
	if _, err := r.ReadAt(p[:64], 0); err != nil || !strings.HasPrefix(string(p), "everlogS") {
		t.Errorf("trimmed segment %q: %v", p[:8], err)
	}
	if _, err := sealed[2].Footer(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("footer of a trimmed segment: %v", err)
	}
	s.Release()
	sealed[1].Release()
	if err := m.log.Close(); err != nil {
		t.Fatal(err)
	}
	m.log = nil
	m.stop()
	if n := m.mem.OpenFiles(); n != 0 {
		t.Errorf("%d files left open", n)
	}
}

func TestFindTime(t *testing.T) {
	m := newMachine(t, Options{SegmentBytes: 300 << 10})
	m.mustStart()
	defer m.stop()
	rng := rand.New(rand.NewSource(3))
	var times []int64
	for range 300 {
		rb := record.NewBuilder(record.Attrs{Codec: record.Codec(rng.Intn(5))})
		for range 1 + rng.Intn(5) {
			ts := int64(1000 + len(times)*10 + rng.Intn(500))
			times = append(times, ts)
			rb.Append(ts, nil, value(record.Offset(ts), rng.Intn(8000)))
		}
		b, err := rb.Build()
		if err != nil {
			t.Fatal(err)
		}
		b.Stamp(m.log.End(), 1)
		if m.log.NeedsRoll(len(b)) {
			if err := m.log.Roll(nil); err != nil {
				t.Fatal(err)
			}
			m.log.flush()
		}
		if err := m.log.Append(b); err != nil {
			t.Fatal(err)
		}
	}
	for range 2000 {
		ts, limit := int64(900+rng.Intn(len(times)*10+800)), record.Offset(rng.Intn(len(times)+1))
		want := record.Offset(-1)
		for o, at := range times {
			if at >= ts && record.Offset(o) < limit {
				want = record.Offset(o)
				break
			}
		}
		o, at, ok, err := m.log.FindTime(ts, limit)
		if err != nil {
			t.Fatal(err)
		}
		if ok != (want >= 0) || ok && (o != want || at != times[o]) {
			t.Fatalf("first at or after %d below %d: %d (%d, %v), want %d", ts, limit, o, at, ok, want)
		}
	}
	ts, base := m.log.MaxTimestamp()
	o, at, ok, err := m.log.FindTime(ts, m.log.End())
	if err != nil || !ok || at != ts || o < base {
		t.Errorf("largest timestamp %d from %d on: record %d at %d, %v", ts, base, o, at, err)
	}
	for o, at := range times {
		if at > ts {
			t.Fatalf("record %d is newer", o)
		}
	}
}

func TestEndOffsetFor(t *testing.T) {
	epochs := []record.EpochStart{{Epoch: 2, Start: 10}, {Epoch: 4, Start: 20}, {Epoch: 7, Start: 30}}
	for _, c := range []struct {
		ask, epoch record.LeaderEpoch
		end        record.Offset
	}{{-1, -1, -1}, {0, 0, 10}, {1, 1, 10}, {2, 2, 20}, {3, 2, 20}, {4, 4, 30}, {6, 4, 30}, {7, 7, 35}, {8, -1, -1}} {
		if e, o := endOffsetFor(epochs, c.ask, 35); e != c.epoch || o != c.end {
			t.Errorf("epoch %d: %d ends at %d, want %d at %d", c.ask, e, o, c.epoch, c.end)
		}
	}
	if e, o := endOffsetFor(nil, 3, 35); e != -1 || o != -1 {
		t.Errorf("no history: %d, %d", e, o)
	}
}

func TestEpochsAreDurableAndTruncated(t *testing.T) {
	m := newMachine(t, Options{})
	m.mustStart()
	defer m.stop()
	if err := m.log.SetEpoch(3); err != nil {
		t.Fatal(err)
	}
	m.mustAppend(5, 10, 3)
	m.mustAppend(5, 10, 4) // learned from a leader's batch
	if err := m.log.SetEpoch(6); err != nil {
		t.Fatal(err)
	}
	wantErr(t, m.log.SetEpoch(5), ErrOrder)
	wantErr(t, m.append(1, 1, 5), ErrOrder)
	m.log.flush()

	c := m.powerCut(1, 0)
	c.mustStart()
	defer func() { c.stop() }()
	if e, o := c.log.EndOffsetFor(6); e != 6 || o != 10 {
		t.Errorf("epoch 6, in which nothing was written, after a crash: %d ends at %d", e, o)
	}
	// A follower whose leader has never heard of epoch 6 truncates to its own end: the epoch must go.
	if err := c.log.Truncate(10); err != nil {
		t.Fatal(err)
	}
	if e, _ := c.log.EndOffsetFor(6); e != record.NoEpoch {
		t.Error("epoch 6 is still known")
	}
	if err := c.log.Truncate(7); err != nil {
		t.Fatal(err)
	}
	if e, o := c.log.EndOffsetFor(4); c.log.End() != 5 || e != record.NoEpoch {
		t.Errorf("end %d, epoch %d ends at %d", c.log.End(), e, o)
	}
}
