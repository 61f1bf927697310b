package lease

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/everlog/everlog/tier/object"
)

// Options of a lease. The zero value of each field but Name and Holder means its default.
type Options struct {
	// Name of the lease, and so of its object.
	Name string
	// Holder identifies the contender. Two processes that may be alive at the same time must never share it; a process that
	// starts with the Holder of a lease still held takes it at once. The id of a data directory, whose lock the process
	// holds, is such a name.
	Holder string
	// Address is where the holder can be reached; not interpreted.
	Address string
	// Duration of the lease, default 10 s. The holder acts for two thirds of it after its last renewal began.
	Duration time.Duration
	// Renew is the time between renewals, and between the reads of a candidate; default 3 s.
	Renew time.Duration
	// Retry is the wait after a request that told nothing; default 250 ms.
	Retry time.Duration
	// Timeout of one request, default 2 s.
	Timeout time.Duration
	// Log gets one line per change of state; default none.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&o.Duration, 10*time.Second)
	set(&o.Renew, 3*time.Second)
	set(&o.Retry, 250*time.Millisecond)
	set(&o.Timeout, 2*time.Second)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

func (o Options) check() error {
	switch {
	case o.Name == "" || o.Holder == "":
		return errors.New("a lease needs a name and a holder")
	case len(o.Name) > 200 || len(o.Holder) > 200 || len(o.Address) > 300:
		return fmt.Errorf("lease %.20s…: name, holder or address too long", o.Name)
	case o.Renew+o.Timeout > o.Duration*2/3:
		return fmt.Errorf("lease %s of %v: a renewal every %v with a timeout of %v cannot keep it", o.Name, o.Duration, o.Renew, o.Timeout)
	}
	return nil
}

// Lease contends for one lease while Run runs. Safe for concurrent use.
type Lease struct {
	o     Options
	store object.Store
	start time.Time // its monotonic reading is the machine's zero

	mu      sync.Mutex
	machine *Machine
	todo    chan Action // capacity 1: the machine has one action at most under way
	poke    chan struct{}
	changed chan struct{} // closed and replaced at every change of holder, epoch or holding
	last    status
}

type status struct {
	holding bool
	epoch   int64
	holder  string
}

// New returns a lease that is not contended for until Run is called. It does no I/O.
func New(store object.Store, o Options) (*Lease, error) {
	o = o.withDefaults()
	if err := o.check(); err != nil {
		return nil, err
	}
	return &Lease{o: o, store: store, start: time.Now(), machine: NewMachine(o, rand.Text), todo: make(chan Action, 1),
		poke: make(chan struct{}, 1), changed: make(chan struct{})}, nil
}

func (l *Lease) now() time.Duration { return time.Since(l.start) }

// Holding returns the epoch and true while the lease is held. It asks the clock at every call, and only that: ask again
// after everything that may have taken time.
func (l *Lease) Holding() (int64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.machine.Holding(l.now())
}

// Seen returns the lease as last read or written, to find its holder; false while nothing is known.
func (l *Lease) Seen() (Record, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.machine.Seen()
}

// Changed returns a channel that is closed at the next change of holder, epoch, or of whether this process holds the lease.
// Take it before looking.
func (l *Lease) Changed() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.changed
}

// Suspect says that a holder seems dead: if it misses a renewal now, its lease is taken. A wrong suspicion costs an
// election, not safety.
func (l *Lease) Suspect(holder string) { l.step(Suspect{holder}) }

// Fence says that an epoch was seen in use. A lower one that is held is given up, and the next acquisition is above it.
func (l *Lease) Fence(epoch int64) { l.step(Fence{epoch}) }

func (l *Lease) step(e Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.stepLocked(e)
	select {
	case l.poke <- struct{}{}:
	default:
	}
}

func (l *Lease) stepLocked(e Event) {
	now := l.now()
	if a := l.machine.Step(now, e); a != nil {
		l.todo <- a
	}
	var s status
	s.epoch, s.holding = l.machine.Holding(now)
	r, _ := l.machine.Seen()
	s.holder = r.Holder
	if s == l.last {
		return
	}
	if s.holding != l.last.holding || s.holding && s.epoch != l.last.epoch {
		l.o.Log.Info("lease", "name", l.o.Name, "held", s.holding, "epoch", s.epoch, "holder", s.holder)
	}
	l.last = s
	close(l.changed)
	l.changed = make(chan struct{})
}

// Run contends until ctx ends, then releases what is held (within one Timeout) and returns ctx's error. Call it once.
func (l *Lease) Run(ctx context.Context) error {
	// Requests outlive ctx: the release is one of them.
	requests, stop := context.WithCancel(context.WithoutCancel(ctx))
	answers := make(chan Event, 1)
	var under sync.WaitGroup
	defer under.Wait()
	defer stop()
	l.step(Tick{})
	ended, limit := ctx.Done(), (<-chan time.Time)(nil)
	for {
		l.mu.Lock()
		at, timed := l.machine.Wake()
		finished := l.machine.Finished()
		l.mu.Unlock()
		if finished {
			return ctx.Err()
		}
		var tick <-chan time.Time
		if timed {
			tick = time.After(max(at-l.now(), 0))
		}
		select {
		case a := <-l.todo:
			under.Go(func() { answers <- l.do(requests, a) })
		case e := <-answers:
			l.step(e)
		case <-tick:
			l.step(Tick{})
		case <-l.poke:
		case <-ended:
			ended, limit = nil, time.After(l.o.Timeout)
			l.step(Resign{})
		case <-limit:
			return ctx.Err()
		}
	}
}

func (l *Lease) do(ctx context.Context, a Action) Event {
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	name := ObjectName(l.o.Name)
	switch a := a.(type) {
	case Write:
		a.Record.Written = time.Now().UTC().Round(0)
		v, err := l.store.Put(ctx, name, object.Bytes(a.Record.encode()), object.PutOptions{Condition: a.Condition, NoRetry: true})
		if err != nil {
			if !errors.Is(err, object.ErrPrecondition) {
				l.o.Log.Debug("lease write", "name", l.o.Name, "err", err)
			}
			return NotWritten{}
		}
		return Written{v}
	default:
		p, v, err := l.store.Get(ctx, name)
		if errors.Is(err, object.ErrNotFound) {
			return Absent{}
		}
		if err != nil {
			l.o.Log.Debug("lease read", "name", l.o.Name, "err", err)
			return ReadFailed{}
		}
		r, err := decode(p, l.o.Name)
		if err != nil {
			l.o.Log.Error("lease object cannot be read; delete nothing, look at it", "object", name, "err", err)
			return ReadFailed{}
		}
		return Found{r, v}
	}
}
