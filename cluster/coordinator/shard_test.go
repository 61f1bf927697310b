package coordinator

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/everlog/everlog/tier/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// add is an event: the sum grows by n, and the answer is the sum.
type add struct{ n uint64 }

// get is an event answered with the sum, without a record.
type get struct{}

// alarm is an event: after its time the sum grows by 1000.
type alarm struct{ after time.Duration }

// sum is a machine that adds up what its log says.
type sum struct {
	total  uint64
	alarms []time.Time
}

func (s *sum) Replay(_ record.Offset, e Entry) error {
	if !e.Marker {
		s.total += binary.BigEndian.Uint64(e.Value)
	}
	return nil
}

func (s *sum) Loaded(time.Time) Effects { return Effects{Requests: []any{s.total}} }

func (s *sum) grow(n uint64) Batch {
	s.total += n
	return Batch{Records: []Record{{Key: []byte("k"), Value: binary.BigEndian.AppendUint64(nil, n)}}}
}

func (s *sum) Step(to Token, event any, now time.Time) Effects {
	switch e := event.(type) {
	case add:
		b := s.grow(e.n)
		return Effects{Append: []Batch{b}, Replies: []Reply{{to, s.total}}}
	case alarm:
		s.alarms = append(s.alarms, now.Add(e.after))
		return Effects{Replies: []Reply{{to, nil}}}
	default:
		return Effects{Replies: []Reply{{to, s.total}}}
	}
}

func (s *sum) Deadline() time.Time {
	if len(s.alarms) == 0 {
		return time.Time{}
	}
	return s.alarms[0]
}

func (s *sum) Tick(time.Time) Effects {
	s.alarms = s.alarms[1:]
	return Effects{Append: []Batch{s.grow(1000)}, Requests: []any{s.total}}
}

// disk is a log whose commits and failures the test decides.
type disk struct {
	mu      sync.Mutex
	log     []record.Batch
	durable int // batches committed
	waiting []waiting
	refuse  error // of Append
	hold    bool  // Await waits for commit
	epoch   record.LeaderEpoch
}

type waiting struct {
	next record.Offset
	done func(error)
}

var errFull = errors.New("disk is full")

func (d *disk) Append(b record.Batch) (record.Offset, record.LeaderEpoch, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refuse != nil {
		return 0, 0, d.refuse
	}
	b.Stamp(record.Offset(len(d.log)), 1)
	d.log = append(d.log, b)
	return record.Offset(len(d.log)), d.epoch, nil
}

func (d *disk) Await(next record.Offset, epoch record.LeaderEpoch, done func(error)) {
	d.mu.Lock()
	if epoch != d.epoch {
		d.mu.Unlock()
		done(errFull)
		return
	}
	if d.hold {
		d.waiting = append(d.waiting, waiting{next, done})
		d.mu.Unlock()
		return
	}
	d.mu.Unlock()
	done(nil)
}

// settle ends all waits with err; if it is an error, what was not committed is lost.
func (d *disk) settle(err error) {
	d.mu.Lock()
	all := d.waiting
	d.waiting = nil
	if err != nil {
		d.log = d.log[:d.durable]
		d.epoch++
	}
	d.durable = len(d.log)
	d.mu.Unlock()
	for _, w := range all {
		w.done(err)
	}
}

func (d *disk) set(change func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	change()
}

func (d *disk) load(_ context.Context, fn func(record.Batch) error) error {
	d.mu.Lock()
	log := d.log
	d.mu.Unlock()
	for _, b := range log {
		if err := fn(b); err != nil {
			return err
		}
	}
	return nil
}

// run starts a shard over d, and returns it with what tells each load's sum.
func run(t *testing.T, d *disk) (*Shard, <-chan uint64) {
	t.Helper()
	loads := make(chan uint64, 100)
	s := New(Parts{Log: d, Load: d.load, Machine: func() Machine { return &sum{} }, Now: time.Now, Request: func(r any) { loads <- r.(uint64) }})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return s, loads
}

func do(t *testing.T, s *Shard, event any) uint64 {
	t.Helper()
	v, err := s.Do(t.Context(), event)
	if err != nil {
		t.Fatalf("%#v: %v", event, err)
	}
	n, _ := v.(uint64)
	return n
}

func TestAnswersWaitForCommit(t *testing.T) {
	d := &disk{}
	s, loads := run(t, d)
	<-loads
	d.set(func() { d.hold = true })
	first, second := s.Start(add{1}), s.Start(get{})
	select {
	case <-first.done:
		t.Fatal("an answer left before its record was committed")
	case <-second.done:
		t.Fatal("a read showed what was not committed")
	default:
	}
	d.settle(nil)
	for _, c := range []*Call{first, second} {
		if v, err := c.Wait(t.Context()); err != nil || v != uint64(1) {
			t.Fatalf("answer %v, %v; want 1", v, err)
		}
	}
}

func TestFailedAppendLoadsAgain(t *testing.T) {
	d := &disk{}
	s, loads := run(t, d)
	<-loads
	do(t, s, add{5})
	d.set(func() { d.refuse = errFull })
	if _, err := s.Do(t.Context(), add{7}); !errors.Is(err, errFull) || !errors.Is(err, ErrNotCoordinator) || errors.Is(err, ErrLoading) {
		t.Fatalf("error %v, want %v and the disk's", err, ErrNotCoordinator)
	}
	if _, err := s.Do(t.Context(), get{}); !errors.Is(err, ErrLoading) {
		t.Fatalf("error %v while loading, want %v", err, ErrLoading)
	}
	d.set(func() { d.refuse = nil })
	if got := <-loads; got != 5 {
		t.Fatalf("loaded %d, want 5: what could not be appended must not count", got)
	}
	if got := do(t, s, get{}); got != 5 {
		t.Fatalf("sum %d, want 5", got)
	}
}

func TestRefusedCheckKeepsTheMachine(t *testing.T) {
	d := &disk{}
	s, loads := run(t, d)
	<-loads
	do(t, s, add{5})
	errFenced := errors.New("fenced")
	if v, err := s.DoIf(t.Context(), func() error { return errFenced }, add{7}); !errors.Is(err, errFenced) {
		t.Fatalf("answer %v, %v; want %v", v, err, errFenced)
	}
	if v, err := s.DoIf(t.Context(), func() error { return nil }, add{7}); err != nil || v != uint64(12) {
		t.Fatalf("answer %v, %v; want 12", v, err)
	}
	if len(d.log) != 2 {
		t.Fatalf("%d batches in the log, want 2", len(d.log))
	}
}

func TestFailedCommitLoadsAgain(t *testing.T) {
	d := &disk{}
	s, loads := run(t, d)
	<-loads
	do(t, s, add{5})
	d.settle(nil)
	d.set(func() { d.hold = true })
	lost, behind := s.Start(add{7}), s.Start(get{})
	d.settle(errors.New("leadership moved"))
	for _, c := range []*Call{lost, behind} {
		if v, err := c.Wait(t.Context()); !errors.Is(err, ErrNotCoordinator) {
			t.Fatalf("answer %v, %v; want %v", v, err, ErrNotCoordinator)
		}
	}
	d.set(func() { d.hold = false })
	if got := <-loads; got != 5 {
		t.Fatalf("loaded %d, want 5", got)
	}
}

func TestDeadlines(t *testing.T) {
	d := &disk{}
	s, loads := run(t, d)
	<-loads
	do(t, s, alarm{after: time.Millisecond})
	if got := <-loads; got != 1000 {
		t.Fatalf("sum %d after the alarm, want 1000", got)
	}
}

func TestMarkerIsAppendedBeforeItsEvent(t *testing.T) {
	d := &disk{}
	s, loads := run(t, d)
	<-loads
	b := record.NewBuilder(record.Attrs{})
	b.Append(1, []byte("k"), binary.BigEndian.AppendUint64(nil, 0))
	marker, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	if v, err := s.StartWith(func() error { return nil }, marker, add{3}).Wait(t.Context()); err != nil || v != uint64(3) {
		t.Fatalf("answer %v, %v; want 3", v, err)
	}
	if len(d.log) != 2 || d.log[0].Count() != 1 {
		t.Fatalf("%d batches in the log, want the marker and the record", len(d.log))
	}
}

// TestAnsweredIsKept runs callers against a disk that fails at random: what was answered is in the log, and every call is
// answered or fails.
func TestAnsweredIsKept(t *testing.T) {
	d := &disk{hold: true}
	s, loads := run(t, d)
	<-loads
	ctx, cancel := context.WithCancel(t.Context())
	var driver, callers sync.WaitGroup
	driver.Go(func() {
		r := rand.New(rand.NewPCG(1, 2))
		for ctx.Err() == nil {
			switch r.IntN(200) {
			case 0:
				d.settle(errFull)
			default:
				d.settle(nil)
			}
			select {
			case <-loads:
			default:
			}
		}
		d.set(func() { d.hold = false })
		d.settle(nil)
	})
	answered := make([]uint64, 4)
	for i := range answered {
		callers.Go(func() {
			for range 300 {
				if _, err := s.Do(t.Context(), add{1 << (16 * i)}); err == nil {
					answered[i]++
				} else if !errors.Is(err, ErrNotCoordinator) && !errors.Is(err, ErrLoading) {
					t.Errorf("error %v", err)
				}
			}
		})
	}
	callers.Wait()
	cancel()
	driver.Wait()
	m := &sum{}
	if err := d.load(t.Context(), func(b record.Batch) error { return Entries(b, m.Replay) }); err != nil {
		t.Fatal(err)
	}
	for i, n := range answered {
		if got := m.total >> (16 * i) & 0xffff; got < n {
			t.Errorf("caller %d was answered %d times, the log has %d", i, n, got)
		}
	}
}
