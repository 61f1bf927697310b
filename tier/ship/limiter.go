package ship

import (
	"context"

	"golang.org/x/time/rate"
)

const (
	// DefaultConcurrency is how many uploads of a broker run at once: enough to fill a connection to the store while
	// another segment is being read, few enough to leave a processor to producers.
	DefaultConcurrency = 2

	// burst is how many bytes pass without waiting after a pause. It bounds how long producers feel one upload.
	burst = 1 << 20
)

// Limiter bounds the uploads of a broker together: how many at once, and how many bytes of log per second. Safe for
// concurrent use; shared by all Shippers.
type Limiter struct {
	slots  chan struct{}
	bucket *rate.Limiter
	pace   PaceOptions
}

// NewLimiter returns a Limiter for concurrency uploads at once (0 = DefaultConcurrency). It begins at the floor of the pace.
func NewLimiter(concurrency int, pace PaceOptions) *Limiter {
	if concurrency <= 0 {
		concurrency = DefaultConcurrency
	}
	pace = pace.withDefaults()
	return &Limiter{slots: make(chan struct{}, concurrency), bucket: rate.NewLimiter(rate.Limit(pace.Floor), burst), pace: pace}
}

// Adapt sets the pace for the load. Call it about once a second.
func (l *Limiter) Adapt(load Load) {
	pace := rate.Limit(Pace(load, l.pace))
	if pace > unlimited {
		pace = rate.Inf
	}
	l.bucket.SetLimit(pace)
}

// acquire waits for an upload slot, in the order of the callers, and returns what gives it back.
func (l *Limiter) acquire(ctx context.Context) (release func(), err error) {
	select {
	case l.slots <- struct{}{}:
		return func() { <-l.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// wait takes n bytes from the bucket, waiting for them in portions, so that a change of pace is felt within one of them.
func (l *Limiter) wait(ctx context.Context, n int64) error {
	for n > 0 {
		k := min(n, burst/4)
		if err := l.bucket.WaitN(ctx, int(k)); err != nil {
			return err
		}
		n -= k
	}
	return nil
}
