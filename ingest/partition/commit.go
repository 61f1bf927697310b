package partition

import (
	"context"
	"github.com/everlog/everlog/tier/record"
)

// CommitWaiter is told the outcome of an append. Committed is called once, by the flusher's goroutine: it must not
// block. token is what AwaitCommit was given; err is nil if the records are committed.
type CommitWaiter interface {
	Committed(token int, err error)
}

type commitWaiter struct {
	next   record.Offset // committed when the high watermark reaches it
	epoch  record.LeaderEpoch
	waiter CommitWaiter
	token  int
}

// AwaitCommit has w told when everything below next is committed, at once if it is. The acknowledgement counts only in
// the leader epoch of the append: after a new election another record may stand at the same offset.
func (p *Partition) AwaitCommit(next record.Offset, epoch record.LeaderEpoch, w CommitWaiter, token int) {
	p.commitMu.Lock()
	if record.Offset(p.highWatermark.Load()) >= next {
		p.commitMu.Unlock()
		w.Committed(token, nil)
		return
	}
	if record.LeaderEpoch(p.epoch.Load()) != epoch {
		p.commitMu.Unlock()
		w.Committed(token, p.notLeader())
		return
	}
	cw := commitWaiter{next, epoch, w, token}
	i := len(p.waiters)
	for i > 0 && p.waiters[i-1].next > next { // nearly always at the end already: appends grow
		i--
	}
	p.waiters = append(p.waiters, commitWaiter{})
	copy(p.waiters[i+1:], p.waiters[i:])
	p.waiters[i] = cw
	p.commitMu.Unlock()
}

// durable is the log's notification that everything below o is on disk. With this replica alone in the ISR that is the
// high watermark.
func (p *Partition) durable(o record.Offset) {
	p.commitMu.Lock()
	if int64(o) <= p.highWatermark.Load() {
		p.commitMu.Unlock()
		return
	}
	p.highWatermark.Store(int64(o))
	n := 0
	for n < len(p.waiters) && p.waiters[n].next <= o {
		n++
	}
	done := p.waiters[:n:n]
	if n == len(p.waiters) {
		p.waiters = nil
	} else {
		p.waiters = p.waiters[n:]
	}
	p.commitMu.Unlock()
	// After the high watermark is stored: a marker that is applied meanwhile finds it there, one applied before is found here.
	if p.firstUnstable.Load() != noUnstable {
		p.producerMu.Lock()
		p.producers.SetHighWatermark(o)
		p.updateUnstableLocked()
		p.producerMu.Unlock()
	}
	epoch := record.LeaderEpoch(p.epoch.Load())
	for _, w := range done {
		if w.epoch == epoch {
			w.waiter.Committed(w.token, nil)
		} else {
			w.waiter.Committed(w.token, p.notLeader())
		}
	}
	p.wakeWatchers()
}

func (p *Partition) failWaiters(err error) {
	p.commitMu.Lock()
	failed := p.waiters
	p.waiters = nil
	p.commitMu.Unlock()
	for _, w := range failed {
		w.waiter.Committed(w.token, err)
	}
}

// Watcher is woken when what can be read of a partition, or who leads it, changes. One watcher may watch many
// partitions.
type Watcher struct{ wake chan struct{} }

// NewWatcher returns a watcher of nothing yet.
func NewWatcher() *Watcher { return &Watcher{wake: make(chan struct{}, 1)} }

// Wake receives after a change; several changes may be one wake-up.
func (w *Watcher) Wake() <-chan struct{} { return w.wake }

// Watch has w woken by every change from now on, until Unwatch.
func (p *Partition) Watch(w *Watcher) {
	p.watchMu.Lock()
	p.watchers[w] = struct{}{}
	p.watched.Store(int32(len(p.watchers)))
	p.watchMu.Unlock()
}

// Unwatch ends Watch.
func (p *Partition) Unwatch(w *Watcher) {
	p.watchMu.Lock()
	delete(p.watchers, w)
	p.watched.Store(int32(len(p.watchers)))
	p.watchMu.Unlock()
}

func (p *Partition) wakeWatchers() {
	if p.watched.Load() == 0 {
		return
	}
	p.watchMu.Lock()
	defer p.watchMu.Unlock()
	for w := range p.watchers {
		select {
		case w.wake <- struct{}{}:
		default:
		}
	}
}

// Committed returns when everything below next is committed, as AwaitCommit tells it. Errors: those told to a CommitWaiter, ctx's.
func (p *Partition) Committed(ctx context.Context, next record.Offset, epoch record.LeaderEpoch) error {
	done := make(outcome, 1)
	p.AwaitCommit(next, epoch, done, 0)
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// outcome is a CommitWaiter that passes on what it is told.
type outcome chan error

// Committed implements CommitWaiter.
func (o outcome) Committed(_ int, err error) { o <- err }
