package hotlog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// emptied is a batch's header alone, as compaction leaves it.
func emptied(b record.Batch) record.Batch {
	p := bytes.Clone(b[:record.HeaderSize])
	binary.BigEndian.PutUint32(p[8:], record.HeaderSize-12)
	binary.BigEndian.PutUint32(p[57:], 0)
	e := record.Batch(p)
	e.SetMaxTimestamp(b.MaxTimestamp())
	return e
}

// shrink is a filter that keeps a part of the batches, and empties some; 1 keeps all, 0 none.
func shrink(rng *rand.Rand, keep float64) Filter {
	return func(b record.Batch) (record.Batch, error) {
		switch f := rng.Float64(); {
		case f < keep:
			return b, nil
		case f < keep+(1-keep)/4 && keep > 0:
			return emptied(b), nil
		}
		return nil, nil
	}
}

// rewrite replaces so many sealed segments, beginning at the first-th, by what the filter leaves.
func rewrite(l *Log, first, count int, filter Filter) (bool, error) {
	r := l.Rewrite()
	defer r.Abort()
	segs := l.Sealed(0)[first : first+count]
	for _, s := range segs {
		if err := r.Take(s, filter); err != nil {
			return false, err
		}
	}
	return r.Commit(abortedOf(segs[0].Base, segs[count-1].End))
}

// abortedOf are the aborted transactions of the tests: one at every hundredth offset.
func abortedOf(from, to record.Offset) []record.AbortedTxn {
	var out []record.AbortedTxn
	for o := from / 100 * 100; o < to; o += 100 {
		if o+30 >= from {
			out = append(out, record.AbortedTxn{ProducerID: 1, First: o, Last: o + 30, LastStable: o + 31})
		}
	}
	return out
}

// contents are the batches of a log as Scan shows them.
func contents(l *Log) ([]byte, error) {
	var p []byte
	err := l.Scan(l.Start(), l.End(), func(b record.Batch) error { p = append(p, b...); return nil })
	return p, err
}

// segmented returns a machine with sealed segments of small batches in several epochs, and a few records after them.
func segmented(t testing.TB, seed int64, segments int) *machine {
	m := newMachine(t, Options{SegmentBytes: 20 << 10})
	m.mustStart()
	rng := rand.New(rand.NewSource(seed))
	for i := range segments {
		for range 3 + rng.Intn(25) {
			m.mustAppend(1+rng.Intn(4), rng.Intn(800), record.LeaderEpoch(1+i/2))
		}
		m.log.SetTransactions(abortedOf(m.log.active.base, m.log.End()))
		if err := m.log.Roll(fmt.Append(nil, "at ", m.log.End())); err != nil {
			t.Fatal(err)
		}
	}
	m.mustAppend(2, 100, record.LeaderEpoch(1+segments/2))
	m.log.flush()
	return m
}

// TestPowerCutAtEveryOperationOfRewrites replaces segments, one or several by one, and cuts the power before every operation
// of the disk. A restart must find what was before or what comes after, footers included, and nothing left over.
func TestPowerCutAtEveryOperationOfRewrites(t *testing.T) {
	for seed := range int64(12) {
		rng := rand.New(rand.NewSource(seed))
		m := segmented(t, seed, 6)
		points := 0
		var before, after []byte
		point := func() {
			points++
			c := m.powerCut(rng.Int63(), []float64{0, 0.3, 0.5, 0.7, 1}[rng.Intn(5)])
			c.mustStart()
			if err := isEither(c, before, after); err != nil {
				t.Fatalf("seed %d, power cut %d: %v", seed, points, err)
			}
			again := c.powerCut(rng.Int63(), rng.Float64())
			again.mustStart()
			if err := isEither(again, before, after); err != nil {
				t.Fatalf("seed %d, power cut %d and another: %v", seed, points, err)
			}
			again.stop()
			c.stop()
		}
		m.restartWith(func(op vfs.Op) error {
			switch op.Kind {
			case vfs.OpRead, vfs.OpSize, vfs.OpStat, vfs.OpList, vfs.OpOpen, vfs.OpClose:
			default:
				if before != nil {
					point()
				}
			}
			return nil
		})
		for range 6 {
			segs := m.log.Sealed(0)
			first := rng.Intn(len(segs))
			count, keep := 1+rng.Intn(min(3, len(segs)-first)), rng.Float64()
			plan := rng.Int63()
			var err error
			if before, err = contents(m.log); err != nil {
				t.Fatal(err)
			}
			after = filtered(t, m.log, segs[first].Base, segs[first+count-1].End, shrink(rand.New(rand.NewSource(plan)), keep))
			if _, err := rewrite(m.log, first, count, shrink(rand.New(rand.NewSource(plan)), keep)); err != nil {
				t.Fatal(err)
			}
			if before, err = contents(m.log); err != nil || !bytes.Equal(before, after) {
				t.Fatalf("seed %d: %d bytes are left, want %d: %v", seed, len(before), len(after), err)
			}
			point()
			before = nil
		}
		if points < 25 {
			t.Errorf("only %d crash points", points)
		}
		m.stop()
	}
}

// filtered is what the log will hold when the filter has been at work in [from, to).
func filtered(t *testing.T, l *Log, from, to record.Offset, filter Filter) []byte {
	after := []byte{}
	err := l.Scan(l.Start(), l.End(), func(b record.Batch) error {
		if b.BaseOffset() >= from && b.BaseOffset() < to {
			var err error
			if b, err = filter(b); err != nil {
				return err
			}
		}
		after = append(after, b...)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return after
}

// restartWith opens the log again on a file system that asks decide.
func (m *machine) restartWith(decide func(vfs.Op) error) {
	m.t.Helper()
	if err := m.log.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.log = nil
	m.stop()
	m.fs = vfs.Fault(m.mem, decide)
	m.mustStart()
}

// isEither checks a recovered log against what it may hold.
func isEither(m *machine, before, after []byte) error {
	if m.found.Damaged != nil {
		return m.found.Damaged
	}
	got, err := contents(m.log)
	if err != nil {
		return err
	}
	if !bytes.Equal(got, before) && !bytes.Equal(got, after) {
		return fmt.Errorf("%d bytes of batches; there were %d, and should become %d", len(got), len(before), len(after))
	}
	next := m.log.Start()
	for _, s := range m.log.Sealed(0) {
		f, err := s.Footer()
		if err != nil {
			return err
		}
		r, err := s.Open()
		if err == nil {
			err = segment.Verify(r, f)
		}
		s.Release()
		if err != nil {
			return fmt.Errorf("segment %d: %w", s.Base, err)
		}
		if s.Base != next || f.Base != next || f.End != s.End || string(f.Producers) != fmt.Sprint("at ", s.End) || !slices.Equal(f.Aborted, abortedOf(s.Base, s.End)) {
			return fmt.Errorf("footer of [%d, %d) where %d is next, snapshot %q, aborted %v", f.Base, f.End, next, f.Producers, f.Aborted)
		}
		if e := epochAt(m.log.Epochs(), f.Base); f.Epochs[0].Epoch != e {
			return fmt.Errorf("segment %d begins with epoch %d, the history says %d", f.Base, f.Epochs[0].Epoch, e)
		}
		next = s.End
	}
	names, err := m.mem.List(testDir)
	if err != nil {
		return err
	}
	if n := len(m.log.Sealed(0)) + 1; len(names) > n { // the active one may have no file
		return fmt.Errorf("%d files for %d segments: %v", len(names), n, names)
	}
	return nil
}

// TestRewritesAfterAKill: the process dies at every operation, and the power fails while the next one recovers, when what the
// first had renamed may still be undone.
func TestRewritesAfterAKill(t *testing.T) {
	killed := errors.New("killed")
	for n := 0; ; n++ {
		m := segmented(t, 4, 5)
		at, dead := 0, false
		m.restartWith(func(op vfs.Op) error {
			if !dead {
				return nil
			}
			if op.Kind != vfs.OpClose && at >= n {
				return killed
			}
			at++
			return nil
		})
		before, err := contents(m.log)
		if err != nil {
			t.Fatal(err)
		}
		filter := func() Filter { return shrink(rand.New(rand.NewSource(1)), 0.4) }
		segs := m.log.Sealed(0)
		after := filtered(t, m.log, segs[1].Base, segs[3].End, filter())
		dead = true
		_, err = rewrite(m.log, 1, 3, filter())
		m.stop()
		if err == nil && at < n {
			if n < 10 {
				t.Errorf("only %d operations", n)
			}
			return
		}
		rng := rand.New(rand.NewSource(int64(n)))
		points := 0
		m.fs = vfs.Fault(m.mem, func(op vfs.Op) error {
			if op.Kind == vfs.OpRead || op.Kind == vfs.OpSize || op.Kind == vfs.OpOpen || op.Kind == vfs.OpClose {
				return nil
			}
			for range 6 {
				points++
				c := m.powerCut(rng.Int63(), rng.Float64())
				c.mustStart()
				if err := isEither(c, before, after); err != nil {
					t.Fatalf("killed at operation %d, power cut %d of recovery: %v", n, points, err)
				}
				c.stop()
			}
			return nil
		})
		m.mustStart()
		if err := isEither(m, before, after); err != nil {
			t.Fatalf("killed at operation %d: %v", n, err)
		}
		m.fs = m.mem
		m.stop()
	}
}

func TestRewriteOfNothingWritesNothing(t *testing.T) {
	m := segmented(t, 3, 3)
	written := 0
	m.restartWith(func(op vfs.Op) error {
		if op.Kind == vfs.OpWrite || op.Kind == vfs.OpCreate || op.Kind == vfs.OpSync || op.Kind == vfs.OpRename {
			written++
		}
		return nil
	})
	written = 0
	if changed, err := rewrite(m.log, 1, 1, shrink(rand.New(rand.NewSource(1)), 1)); changed || err != nil || written > 0 {
		t.Errorf("changed %v, %d operations, %v", changed, written, err)
	}
	// Another list of aborted transactions is a change.
	r := m.log.Rewrite()
	if err := r.Take(m.log.Sealed(0)[1], shrink(rand.New(rand.NewSource(1)), 1)); err != nil {
		t.Fatal(err)
	}
	o := m.log.Sealed(0)[1].Base
	if changed, err := r.Commit([]record.AbortedTxn{{ProducerID: 3, First: o, Last: o + 1}}); !changed || err != nil {
		t.Errorf("changed %v, %v", changed, err)
	}
	if f, err := m.log.Sealed(0)[1].Footer(); err != nil || len(f.Aborted) != 1 || f.Aborted[0].ProducerID != 3 || f.Sparse {
		t.Errorf("footer %+v, %v", f, err)
	}
	m.stop()
}

func TestRewriteOfSegmentsThatAreGone(t *testing.T) {
	m := segmented(t, 5, 5)
	r := m.log.Rewrite()
	old := m.log.Sealed(0)
	if err := r.Take(old[0], shrink(rand.New(rand.NewSource(1)), 0.5)); err != nil {
		t.Fatal(err)
	}
	if _, err := m.log.Trim(old[0].End); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Commit(nil); !errors.Is(err, ErrReplaced) {
		t.Errorf("commit of a trimmed segment: %v", err)
	}
	r = m.log.Rewrite()
	if err := r.Take(old[0], nil); !errors.Is(err, ErrReplaced) {
		t.Errorf("a trimmed segment: %v", err)
	}
	r.Abort()
	r = m.log.Rewrite()
	if err := r.Take(old[1], shrink(rand.New(rand.NewSource(1)), 0.5)); err != nil {
		t.Fatal(err)
	}
	if err := r.Take(old[3], nil); !errors.Is(err, ErrReplaced) {
		t.Errorf("a segment is left out: %v", err)
	}
	r.Abort()
	if names, err := m.mem.List(testDir); err != nil || strings.Contains(fmt.Sprint(names), rewriteSuffix) {
		t.Errorf("files %v, %v", names, err)
	}
	m.stop()
}

// TestRewriteFaults makes every operation of a rewrite fail. On a full disk the log goes on with the old segments or the new;
// any other error fails it.
func TestRewriteFaults(t *testing.T) {
	for _, fault := range []error{vfs.ErrNoSpace, syscall.EIO} {
		for n := 0; ; n++ {
			m := segmented(t, int64(n), 4)
			at, armed, hit := 0, false, ""
			m.restartWith(func(op vfs.Op) error {
				if !armed || op.Kind == vfs.OpClose || op.Kind == vfs.OpRead || op.Kind == vfs.OpSize || op.Kind == vfs.OpOpen {
					return nil
				}
				if at++; at != n+1 {
					return nil
				}
				hit = string(op.Kind)
				return fault
			})
			filter := func() Filter { return shrink(rand.New(rand.NewSource(1)), 0.3) }
			segs := m.log.Sealed(0)
			before, err := contents(m.log)
			if err != nil {
				t.Fatal(err)
			}
			after := filtered(t, m.log, segs[0].Base, segs[2].End, filter())
			armed = true
			_, err = rewrite(m.log, 0, 3, filter())
			armed = false
			if hit == "" {
				m.stop()
				break
			}
			fatal := hit != "remove" && (fault == syscall.EIO || hit == "syncdir")
			if failed := len(m.failed) > 0; failed != fatal {
				t.Fatalf("%v at %s: the log failed: %v (%v)", fault, hit, failed, err)
			}
			if got, rerr := contents(m.log); rerr != nil || !bytes.Equal(got, before) && !bytes.Equal(got, after) {
				t.Fatalf("%v at %s: the log reads neither as before nor as after: %v", fault, hit, rerr)
			}
			if got, _ := contents(m.log); hit == "rename" && !fatal && (!bytes.Equal(got, before) || len(m.log.Sealed(0)) != 4) {
				t.Fatalf("%v at %s: the old segments are not in place again", fault, hit)
			}
			if !fatal {
				if err := m.append(1, 10, 9); err != nil {
					t.Fatalf("%v at %s: append: %v", fault, hit, err)
				}
				m.log.flush()
			}
			m.stop()
			m.mustStart()
			if got, rerr := contents(m.log); rerr != nil || !bytes.HasPrefix(got, before) && !bytes.HasPrefix(got, after) {
				t.Fatalf("%v at %s: after a restart the log reads neither as before nor as after: %v", fault, hit, rerr)
			}
			m.stop()
		}
	}
}
