package connect

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// DeliveryOptions are for producers whose records may have any timestamp: the library's own delivery timeout counts from
// the record's timestamp and would give up at once on an old one. A retriable answer is given up on after some seconds and
// then told by its name; silence is Patience's matter.
func DeliveryOptions() []kgo.Opt {
	return []kgo.Opt{kgo.AllowAutoTopicCreation(), kgo.RecordRetries(10), kgo.UnknownTopicRetries(10), kgo.AllowIdempotentProduceCancellation()}
}

// Patience watches records on their way and ends its context, with kgo.ErrRecordTimeout as the cause, when some are and none
// has arrived for as long as the limit. Safe for concurrent use.
type Patience struct {
	limit   time.Duration
	waiting atomic.Int64
	moved   atomic.Int64 // Unix nanoseconds of the last arrival, or of the first departure after quiet
	cancel  context.CancelCauseFunc
	ended   chan struct{}
}

// Watch begins to watch. The caller closes what it returns.
func (f *Flags) Watch(ctx context.Context) (context.Context, *Patience) {
	ctx, cancel := context.WithCancelCause(ctx)
	p := &Patience{limit: f.Timeout, cancel: cancel, ended: make(chan struct{})}
	go p.run(ctx)
	return ctx, p
}

// Sent counts a record that is on its way now.
func (p *Patience) Sent() {
	if p.waiting.Add(1) == 1 {
		p.moved.Store(time.Now().UnixNano())
	}
}

// Arrived counts one that is so no more, whatever became of it.
func (p *Patience) Arrived() {
	p.moved.Store(time.Now().UnixNano())
	p.waiting.Add(-1)
}

// Stop ends the context with a cause of the caller's.
func (p *Patience) Stop(cause error) { p.cancel(cause) }

// Close ends the watch, and the context with it.
func (p *Patience) Close() {
	p.cancel(nil)
	<-p.ended
}

func (p *Patience) run(ctx context.Context) {
	defer close(p.ended)
	tick := time.NewTicker(max(p.limit/10, time.Millisecond))
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			if p.waiting.Load() > 0 && now.UnixNano()-p.moved.Load() > int64(p.limit) {
				p.cancel(kgo.ErrRecordTimeout)
			}
		}
	}
}
