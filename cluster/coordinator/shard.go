package coordinator

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/everlog/everlog/tier/record"
)

// reloadPause is how long a shard whose append failed waits before it loads again: a full disk fails every append.
const reloadPause = time.Second

// Parts of a Shard. All are needed but Logger.
type Parts struct {
	Log Log
	// Machine makes an empty machine for each load.
	Machine func() Machine
	// Load replays the log from its start to its end into fn. Only the shard appends to it.
	Load func(ctx context.Context, fn func(record.Batch) error) error
	// Request carries out what a machine asked for besides records. It must not block, nor call the shard.
	Request func(any)
	// Loaded, if set, is called after each load, when the shard takes events.
	Loaded func()
	// Now is the clock.
	Now    func() time.Time
	Logger *slog.Logger
}

// Shard is one coordinator partition led here. Its methods are safe for concurrent use; calls are answered while Run runs.
//
// Locks: mu guards the machine, and is held over appends, which do not wait for the disk. outMu guards what waits for the
// disk; the log calls back into it, from inside an append too. outMu is taken under mu, never the other way.
type Shard struct {
	p Parts

	mu      sync.Mutex
	machine Machine // nil while loading
	closed  bool
	calls   map[Token]*Call
	last    Token
	armed   time.Time // when Run will look at the deadline

	outMu  sync.Mutex
	out    []outgoing // in log order
	failed bool       // a commit failed: the machine is ahead of the log
	loads  int        // counts loads: what a commit of an earlier one says is of no interest any more

	wake chan struct{} // of one: Run looks at deadline and failure
}

// outgoing is what may leave when everything below next is committed.
type outgoing struct {
	next     record.Offset
	epoch    record.LeaderEpoch // of the append: in another, next names other records
	replies  []answered
	requests []any
}

type answered struct {
	call  *Call
	value any
}

// Call is an event under way.
type Call struct {
	token Token
	done  chan result
}

type result struct {
	value any
	err   error
}

// Wait returns the event's answer. Errors: ErrLoading, ErrNotCoordinator, ctx's. The event may have taken effect all the same.
func (c *Call) Wait(ctx context.Context) (any, error) {
	select {
	case r := <-c.done:
		return r.value, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// New returns a shard that loads when Run begins.
func New(p Parts) *Shard {
	if p.Logger == nil {
		p.Logger = slog.New(slog.DiscardHandler)
	}
	return &Shard{p: p, calls: map[Token]*Call{}, wake: make(chan struct{}, 1)}
}

// Run loads the log and keeps the machine's time until ctx ends, then fails what still waits.
func (s *Shard) Run(ctx context.Context) {
	defer s.close()
	for ctx.Err() == nil {
		if err := s.load(ctx); err != nil {
			if ctx.Err() == nil {
				s.p.Logger.Warn("coordinator could not load its log; trying again", "err", err)
			}
		} else {
			s.keepTime(ctx)
		}
		pause(ctx, reloadPause)
	}
}

// load replays the log into a new machine.
func (s *Shard) load(ctx context.Context) error {
	m := s.p.Machine()
	err := s.p.Load(ctx, func(b record.Batch) error { return Entries(b, m.Replay) })
	if err != nil {
		return err
	}
	s.mu.Lock()
	s.machine = m
	now := s.p.Now()
	s.carryOutLocked(m.Loaded(now), now)
	s.mu.Unlock()
	if s.p.Loaded != nil {
		s.p.Loaded()
	}
	return nil
}

// keepTime runs the machine's deadlines until it has failed or ctx ends.
func (s *Shard) keepTime(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		wait, ok := s.tick()
		if !ok {
			return
		}
		timer.Reset(wait)
		select {
		case <-timer.C:
		case <-s.wake:
		case <-ctx.Done():
			return
		}
	}
}

// idle is how long a shard without deadlines sleeps.
const idle = time.Hour

// tick does what is due and returns the time to the next deadline; false if the machine is gone.
func (s *Shard) tick() (time.Duration, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropFailedLocked()
	if s.machine == nil {
		return 0, false
	}
	now := s.p.Now()
	if d := s.machine.Deadline(); !d.IsZero() && !d.After(now) {
		s.carryOutLocked(s.machine.Tick(now), now)
		if s.machine == nil {
			return 0, false
		}
	}
	s.armed = s.machine.Deadline()
	if s.armed.IsZero() {
		return idle, true
	}
	return max(s.armed.Sub(now), time.Millisecond), true
}

// Start gives the machine an event. The answer comes by the call's Wait.
func (s *Shard) Start(event any) *Call {
	return s.start(nil, event)
}

// StartIf is Start if check returns nil, else an answer with its error. Nothing is appended between the two: check can
// find out whether the log would take what the machine will append.
func (s *Shard) StartIf(check func() error, event any) *Call {
	return s.start(check, event)
}

// StartWith appends a batch that is not the machine's, a transaction's marker, and gives it the event that the batch is
// in the log. check is that of StartIf.
func (s *Shard) StartWith(check func() error, b record.Batch, event any) *Call {
	return s.start(func() error {
		if err := check(); err != nil {
			return err
		}
		return s.appendLocked(b)
	}, event)
}

// start gives the machine an event, unless first fails: nothing of the machine's is lost then, and it is kept.
func (s *Shard) start(first func() error, event any) *Call {
	c := &Call{done: make(chan result, 1)}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.dropFailedLocked()
	if s.machine == nil {
		err := ErrLoading
		if s.closed {
			err = ErrNotCoordinator
		}
		c.done <- result{err: err}
		return c
	}
	if first != nil {
		if err := first(); err != nil {
			c.done <- result{err: err}
			return c
		}
	}
	s.last++
	c.token = s.last
	s.calls[c.token] = c
	now := s.p.Now()
	s.carryOutLocked(s.machine.Step(c.token, event, now), now)
	if s.machine != nil {
		if d := s.machine.Deadline(); !d.IsZero() && (s.armed.IsZero() || d.Before(s.armed)) {
			s.wakeRun()
		}
	}
	return c
}

// Forget drops a call whose client is gone; its answer, if it comes, goes nowhere.
func (s *Shard) Forget(c *Call) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.calls, c.token)
}

// Do starts an event and waits for its answer.
func (s *Shard) Do(ctx context.Context, event any) (any, error) {
	return s.await(ctx, s.Start(event))
}

// DoIf is Do with the check of StartIf.
func (s *Shard) DoIf(ctx context.Context, check func() error, event any) (any, error) {
	return s.await(ctx, s.StartIf(check, event))
}

func (s *Shard) await(ctx context.Context, c *Call) (any, error) {
	v, err := c.Wait(ctx)
	if err != nil {
		s.Forget(c)
	}
	return v, err
}

// carryOutLocked appends what the machine asks for and queues what must wait for it.
func (s *Shard) carryOutLocked(e Effects, now time.Time) {
	o := outgoing{requests: e.Requests}
	for _, r := range e.Replies {
		if c := s.calls[r.To]; c != nil {
			delete(s.calls, r.To)
			o.replies = append(o.replies, answered{c, r.Value})
		}
	}
	for _, batch := range e.Append {
		b, err := build(batch, now.UnixMilli())
		if err == nil {
			err = s.appendLocked(b)
		}
		if err != nil {
			s.p.Logger.Warn("coordinator could not append; it loads its log again", "err", err)
			if !errors.Is(err, ErrTooLarge) {
				err = errors.Join(ErrNotCoordinator, err) // what the disk says means something else to a coordinator's client
			}
			for _, r := range o.replies {
				r.call.done <- result{err: err}
			}
			s.dropLocked(err)
			s.wakeRun()
			return
		}
	}
	s.queue(o)
}

// appendLocked appends one batch and has the outbox told when it is committed.
func (s *Shard) appendLocked(b record.Batch) error {
	next, epoch, err := s.p.Log.Append(b)
	if err != nil {
		return fmt.Errorf("append to the coordinator's log: %w", err)
	}
	s.outMu.Lock()
	s.out = append(s.out, outgoing{next: next, epoch: epoch})
	load := s.loads
	s.outMu.Unlock()
	s.p.Log.Await(next, epoch, func(err error) { s.committed(load, next, epoch, err) })
	return nil
}

// queue lets o out, at once if nothing is under way, else behind what was appended last.
func (s *Shard) queue(o outgoing) {
	s.outMu.Lock()
	if n := len(s.out); n > 0 {
		last := &s.out[n-1]
		last.replies = append(last.replies, o.replies...)
		last.requests = append(last.requests, o.requests...)
		s.outMu.Unlock()
		return
	}
	s.outMu.Unlock()
	s.request(o) // s.mu is held: no other load begins
	o.reply()
}

// committed lets out what waited for the log up to next.
func (s *Shard) committed(load int, next record.Offset, epoch record.LeaderEpoch, err error) {
	s.outMu.Lock()
	if load != s.loads || s.failed {
		s.outMu.Unlock()
		return
	}
	if err != nil || len(s.out) > 0 && s.out[0].epoch != epoch {
		s.failed = true
		s.outMu.Unlock()
		s.wakeRun()
		return
	}
	n := 0
	for n < len(s.out) && s.out[n].next <= next {
		n++
	}
	done := s.out[:n:n]
	if s.out = s.out[n:]; len(s.out) == 0 {
		s.out = nil
	}
	for _, o := range done { // under the lock: a request must not be carried out among those of a later load
		s.request(o)
	}
	s.outMu.Unlock()
	for _, o := range done {
		o.reply()
	}
}

func (s *Shard) request(o outgoing) {
	for _, r := range o.requests {
		s.p.Request(r)
	}
}

func (o outgoing) reply() {
	for _, r := range o.replies {
		r.call.done <- result{value: r.value}
	}
}

// dropLocked forgets the machine and fails everything that waits; what is in the log is found again by the next load.
func (s *Shard) dropLocked(err error) {
	s.machine = nil
	if !errors.Is(err, ErrNotCoordinator) {
		err = errors.Join(ErrNotCoordinator, err)
	}
	s.outMu.Lock()
	waiting := s.out
	s.out, s.failed = nil, false
	s.loads++
	s.outMu.Unlock()
	for _, o := range waiting {
		for _, r := range o.replies {
			r.call.done <- result{err: err}
		}
	}
	for t, c := range s.calls {
		c.done <- result{err: err}
		delete(s.calls, t)
	}
}

// dropFailedLocked drops the machine if a commit failed: its state has what the log has not.
func (s *Shard) dropFailedLocked() {
	s.outMu.Lock()
	failed := s.failed
	s.outMu.Unlock()
	if failed {
		s.dropLocked(ErrNotCoordinator)
	}
}

func (s *Shard) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	s.dropLocked(ErrNotCoordinator)
}

func (s *Shard) wakeRun() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
