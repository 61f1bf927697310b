package hotlog

import (
	"errors"
	"fmt"
	"math/rand"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/vfs"
)

// TestConcurrentUse runs an appender, readers, a trimmer, searches and the real flusher on logs on a real disk. Notify must
// come in order and cover everything; what readers see must be what was appended.
func TestConcurrentUse(t *testing.T) {
	for _, o := range []Options{{SegmentBytes: 200 << 10}, {SegmentBytes: 200 << 10, FlushOS: true}} {
		t.Run(fmt.Sprintf("os=%v", o.FlushOS), func(t *testing.T) { concurrentUse(t, o) })
	}
}

func concurrentUse(t *testing.T, o Options) {
	dir := t.TempDir()
	store, err := localstate.Open(filepath.Join(dir, "state"), localstate.Options{Flush: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	fl := NewFlusher(FlusherOptions{Background: time.Millisecond, OnError: func(err error) { t.Error(err) }})
	defer fl.Close()
	o.Files = NewFiles(2, 10<<10)
	var all sync.WaitGroup
	var logs []*Log
	for p := range int32(3) {
		id := testID
		id.Partition = p
		l, _, err := Open(vfs.OS(), filepath.Join(dir, "log", fmt.Sprint(p)), id, store.Log(id.Topic, p), fl, o)
		if err != nil {
			t.Fatal(err)
		}
		logs = append(logs, l)
		var done atomic.Bool
		reached := make(chan struct{})
		const last = record.Offset(1200)
		seen := record.Offset(0)
		l.Notify(func(d record.Offset) {
			if d <= seen || d > l.End() {
				t.Errorf("told %d after %d, end %d", d, seen, l.End())
			}
			if seen = d; d == last {
				close(reached)
			}
		})
		all.Go(func() {
			defer done.Store(true)
			appendUntil(t, l, last)
			<-reached
		})
		for r := range 2 {
			all.Go(func() { readWhile(t, l, &done, int64(r)) })
		}
		all.Go(func() {
			for !done.Load() {
				if _, err := l.Trim(l.Durable() - 300); err != nil {
					t.Error(err)
				}
				if _, _, _, err := l.FindTime(1000+int64(l.Start()), l.Durable()); err != nil {
					t.Error(err)
				}
				l.ActiveInfo()
				l.MaxTimestamp()
				l.EndOffsetFor(1)
			}
		})
	}
	all.Wait()
	for _, l := range logs {
		if err := checkLog(l, 0); err != nil {
			t.Error(err)
		}
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}

func appendUntil(t *testing.T, l *Log, last record.Offset) {
	rng := rand.New(rand.NewSource(1))
	for l.End() < last {
		b := batch(l.End(), 1, min(1+rng.Intn(5), int(last-l.End())), rng.Intn(3000), 1000+int64(l.End()))
		if l.NeedsRoll(len(b)) {
			if err := l.Roll(nil); err != nil {
				t.Error(err)
			}
		}
		if err := l.Append(b); err != nil {
			t.Error(err)
			return
		}
	}
}

func readWhile(t *testing.T, l *Log, done *atomic.Bool, seed int64) {
	rng := rand.New(rand.NewSource(seed))
	next := record.Offset(0)
	buffer := make([]byte, 1<<20)
	for !done.Load() || next < l.End() {
		s, err := l.Read(next, l.Durable(), 1+rng.Intn(50<<10), true)
		var out *ErrOutOfRange
		if errors.As(err, &out) {
			next = out.Start
			continue
		}
		if err != nil {
			t.Error(err)
			return
		}
		p := buffer[:s.Size]
		_, _ = s.ReadAt(p, 0) // what was not read fails the check below
		for at := s.First; len(p) > 0; {
			b, rest, err := record.Next(p)
			if err != nil || b.Verify() != nil || b.BaseOffset() != at {
				t.Errorf("slice [%d, %d): %v", s.First, s.Next, err)
				break
			}
			at, p = b.NextOffset(), rest
		}
		next = s.Next
		s.Release()
		if rng.Intn(50) == 0 {
			next = l.Start()
		}
	}
}

// With flush=os a record is acknowledged at once, but a checkpoint never claims what no fsync has covered.
func TestFlushOSAcknowledgesAtOnce(t *testing.T) {
	m := newMachine(t, Options{FlushOS: true})
	m.mustStart()
	defer m.stop()
	var told []record.Offset
	m.log.Notify(func(d record.Offset) { told = append(told, d) })
	m.ten()
	if m.log.Durable() != 20 || len(told) != 10 || told[9] != 20 {
		t.Errorf("durable %d, told %v", m.log.Durable(), told)
	}
	m.must(m.store.Flush())
	c := m.powerCut(1, 0)
	c.mustStart()
	if c.found.Damaged != nil || c.log.End() != 0 {
		t.Errorf("unsynced: end %d, %v", c.log.End(), c.found.Damaged)
	}
	c.stop()
	m.must(m.log.Roll(nil))
	m.checkpointed()
	c = m.powerCut(1, 0)
	c.mustStart()
	if c.found.Damaged != nil || c.log.End() != 20 || len(c.log.Sealed(0)) != 1 {
		t.Errorf("sealed: end %d, %v", c.log.End(), c.found.Damaged)
	}
	c.stop()
	if len(told) != 10 {
		t.Errorf("told again: %v", told)
	}
}

// Rolled segments that have lost their footers tell of the aborted transactions all the same.
func TestRebuiltFooterKnowsAbortedTransactions(t *testing.T) {
	m := newMachine(t, Options{})
	m.mustStart()
	add := func(id record.ProducerID, control []byte) {
		rb := record.NewBuilder(record.Attrs{Transactional: true, Control: control != nil, Idempotent: true, ProducerID: id})
		rb.Append(1000, control, []byte("value"))
		b, err := rb.Build()
		m.must(err)
		b.Stamp(m.log.End(), 1)
		m.must(m.log.Append(b))
	}
	abort, commit := []byte{0, 0, 0, 0}, []byte{0, 0, 0, 1}
	add(1, nil)    // 0
	add(2, nil)    // 1
	add(1, commit) // 2
	add(1, nil)    // 3: begins here, aborted two segments on
	m.must(m.log.Roll([]byte("s")))
	add(3, nil) // 4
	m.must(m.log.Roll([]byte("s")))
	add(1, nil)    // 5
	add(2, commit) // 6
	add(1, abort)  // 7
	add(1, nil)    // 8
	add(1, abort)  // 9
	add(3, abort)  // 10: nothing of it in this segment
	m.must(m.log.Roll([]byte("s")))
	add(1, nil) // 11
	m.must(m.log.Roll([]byte("s")))
	m.log.flush()
	m.flip(m.log.name(5), m.size(m.log.name(5))-40)
	c := m.powerCut(1, 1)
	m.stop()
	c.mustStart()
	defer func() { c.stop() }()
	f, err := c.log.Sealed(5)[0].Footer()
	c.must(err)
	want := []record.AbortedTxn{
		{ProducerID: 1, First: 3, Last: 7, LastStable: 3}, {ProducerID: 1, First: 8, Last: 9, LastStable: 5},
		{ProducerID: 3, First: 4, Last: 10, LastStable: 4},
	}
	if fmt.Sprint(f.Aborted) != fmt.Sprint(want) {
		t.Errorf("aborted %v, want %v", f.Aborted, want)
	}
}

// What is appended while a file is being synced is not covered by that fsync, also if the segment is rolled meanwhile.
func TestRollDuringSyncCountsNothingMore(t *testing.T) {
	m := newMachine(t, Options{})
	var during func()
	m.fs = vfs.Fault(m.mem, func(op vfs.Op) error {
		if run := during; op.Kind == vfs.OpSync && run != nil {
			during = nil
			run()
		}
		return nil
	})
	m.mustStart()
	defer m.stop()
	m.mustAppend(2, 500, 1)
	during = func() {
		m.mustAppend(2, 500, 1)
		m.must(m.log.Roll(nil))
		m.mustAppend(2, 500, 1)
	}
	m.log.flush()
	if m.log.Durable() != 2 || !m.log.queued.Load() {
		t.Errorf("durable %d, another flush asked for: %v", m.log.Durable(), m.log.queued.Load())
	}
	m.log.flush()
	if m.log.Durable() != 6 || len(m.log.Sealed(0)) != 1 {
		t.Errorf("durable %d, sealed %d", m.log.Durable(), len(m.log.Sealed(0)))
	}
}
