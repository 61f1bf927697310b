package compaction

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/everlog/everlog/tier/object"
)

const (
	// DefaultGrace is how long an object outlives the last reference to it, for readers that hold an older manifest.
	DefaultGrace = 60 * time.Second
	// MaxScheduled bounds the names a Deleter holds, some 200 bytes each. More are left to the next orphan sweep.
	MaxScheduled = 200_000

	// deleteBatch is what S3 takes in one request.
	deleteBatch = 1000
	// A name that could not be deleted is tried again after this time, doubled with each failure up to retryDoublings times.
	retryAfter     = 30 * time.Second
	retryDoublings = 5
)

// Deleter deletes objects of a store after a grace period. One serves a whole broker. Its queue is in memory only: what it
// has not deleted when the broker stops is found again by the orphan sweep. Safe for concurrent use.
type Deleter struct {
	store object.Store
	grace time.Duration
	now   func() time.Time
	wake  chan struct{}

	mu      sync.Mutex
	queue   []scheduled     // in order of due
	waiting map[string]bool // names in queue, and those being deleted now
	deleted int64
	dropped int64
}

type scheduled struct {
	name   string
	due    time.Time
	failed int
}

// NewDeleter returns a Deleter with the grace period (0 = DefaultGrace). now may be nil for the system's clock; its
// monotonic part is what counts.
func NewDeleter(store object.Store, grace time.Duration, now func() time.Time) *Deleter {
	if grace <= 0 {
		grace = DefaultGrace
	}
	if now == nil {
		now = time.Now
	}
	return &Deleter{store: store, grace: grace, now: now, wake: make(chan struct{}, 1), waiting: map[string]bool{}}
}

// Schedule deletes the objects after the grace period; those that wait already keep their time. The caller has made sure
// that nothing refers to them, nor ever will.
func (d *Deleter) Schedule(names ...string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	due := d.now().Add(d.grace)
	for _, name := range names {
		switch {
		case d.waiting[name]:
		case len(d.waiting) >= MaxScheduled:
			d.dropped++
		default:
			d.waiting[name] = true
			d.addLocked(scheduled{name: name, due: due})
		}
	}
}

// addLocked keeps the queue in order: everything is scheduled by the same delays, so new names belong near its end.
func (d *Deleter) addLocked(s scheduled) {
	i := len(d.queue)
	for i > 0 && d.queue[i-1].due.After(s.due) {
		i--
	}
	d.queue = append(d.queue, scheduled{})
	copy(d.queue[i+1:], d.queue[i:])
	d.queue[i] = s
	select {
	case d.wake <- struct{}{}:
	default:
	}
}

// Scheduled returns how many objects wait, how many were deleted, and how many were left to the orphan sweep.
func (d *Deleter) Scheduled() (waiting int, deleted, dropped int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.queue), d.deleted, d.dropped
}

// Run deletes what falls due until ctx ends.
func (d *Deleter) Run(ctx context.Context) error {
	for {
		wait := d.Step(ctx)
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-d.wake:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return nil
		}
	}
}

// Step deletes what is due now, and returns after how long to come again.
func (d *Deleter) Step(ctx context.Context) time.Duration {
	for {
		due, wait := d.take()
		if len(due) == 0 {
			return wait
		}
		d.delete(ctx, due)
		if ctx.Err() != nil {
			return retryAfter
		}
	}
}

// take removes up to one request's worth of names that are due, or says when the next one is.
func (d *Deleter) take() ([]scheduled, time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now, n := d.now(), 0
	for n < len(d.queue) && n < deleteBatch && !d.queue[n].due.After(now) {
		n++
	}
	if n == 0 {
		if len(d.queue) == 0 {
			return nil, retryAfter
		}
		return nil, d.queue[0].due.Sub(now)
	}
	due := append([]scheduled(nil), d.queue[:n]...)
	d.queue = append(d.queue[:0], d.queue[n:]...)
	return due, 0
}

// delete puts back what could not be deleted. One name that the store refuses does not hold up the others.
func (d *Deleter) delete(ctx context.Context, due []scheduled) {
	names := make([]string, len(due))
	for i, s := range due {
		names[i] = s.name
	}
	err := d.store.Delete(ctx, names...)
	left := map[string]bool{}
	var partial *object.DeleteError
	switch {
	case errors.As(err, &partial):
		names = partial.Names
		fallthrough
	case err != nil:
		for _, name := range names {
			left[name] = true
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	now := d.now()
	for _, s := range due {
		if !left[s.name] {
			d.deleted++
			delete(d.waiting, s.name)
			continue
		}
		again := now.Add(retryAfter << min(s.failed, retryDoublings))
		d.addLocked(scheduled{name: s.name, due: again, failed: s.failed + 1})
	}
}
