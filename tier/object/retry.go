package object

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"
)

// RetryOptions bound the retries. The zero value is valid.
type RetryOptions struct {
	// Attempts is the most attempts at one operation, the first included. Default 5.
	Attempts int
	// Base is the longest wait before the second attempt, and doubles with each, up to Max; the actual wait is random
	// between half of it and all of it. Defaults 100 ms and 5 s. After ErrThrottled it is four times as long.
	Base, Max time.Duration
	// Timeout is the time for one attempt, beside the time for its bytes at MinRate. For a Put it is the time without progress: an
	// attempt whose body is still being taken goes on, however slowly. Default 20 s.
	Timeout time.Duration
	// MinRate, in bytes a second, is the slowest transfer that is waited for. Default 1 MiB/s.
	MinRate int64
	// Sleep waits for d, or less if ctx ends. Default: a timer. Simulation puts its own clock here.
	Sleep func(ctx context.Context, d time.Duration) error
}

func (o RetryOptions) withDefaults() RetryOptions {
	set := func(d *time.Duration, to time.Duration) {
		if *d <= 0 {
			*d = to
		}
	}
	set(&o.Base, 100*time.Millisecond)
	set(&o.Max, 5*time.Second)
	set(&o.Timeout, 20*time.Second)
	if o.Attempts <= 0 {
		o.Attempts = 5
	}
	if o.MinRate <= 0 {
		o.MinRate = 1 << 20
	}
	if o.Sleep == nil {
		o.Sleep = sleep
	}
	return o
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Retry returns s with a time limit for each attempt, and with further attempts after errors that may pass. It is the only
// place where operations on the store are repeated.
//
// A conditional Put is repeated too, unless NoRetry asks not to. If a later attempt then finds the condition false, that may
// be the doing of an earlier one: the answer is ErrUnknown, not ErrPrecondition.
func Retry(s Store, o RetryOptions) Store { return &retrier{s, o.withDefaults()} }

type retrier struct {
	Store
	o RetryOptions
}

// again reports whether an operation that answered err may succeed when repeated.
func again(err error) bool {
	for _, transient := range []error{ErrUnavailable, ErrUnknown, ErrThrottled, ErrConflict} {
		if errors.Is(err, transient) {
			return true
		}
	}
	return false
}

// limit is the time for an attempt that moves so many bytes at most.
func (r *retrier) limit(size int64) time.Duration {
	return r.o.Timeout + time.Duration(float64(size)/float64(r.o.MinRate)*float64(time.Second))
}

// do calls attempt until it answers something final. size is the number of bytes that one attempt moves at most.
func (r *retrier) do(ctx context.Context, size int64, attempt func(context.Context) error) error {
	limit := r.limit(size)
	return r.repeat(ctx, func() error {
		bounded, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		return attempt(bounded)
	})
}

// repeat calls attempt, which bounds itself, until it answers something final.
func (r *retrier) repeat(ctx context.Context, attempt func() error) error {
	wait := r.o.Base
	for n := 1; ; n++ {
		err := attempt()
		if err == nil || !again(err) || ctx.Err() != nil {
			return err
		}
		if n == r.o.Attempts {
			return fmt.Errorf("%d attempts: %w", n, err)
		}
		d := min(wait, r.o.Max)
		if errors.Is(err, ErrThrottled) {
			d *= 4
		}
		if r.o.Sleep(ctx, d/2+rand.N(d/2+1)) != nil {
			return err
		}
		wait = min(2*wait, r.o.Max)
	}
}

func (r *retrier) Put(ctx context.Context, name string, body Body, o PutOptions) (v Version, err error) {
	attempts := 0
	limit := r.limit(body.Size())
	once := func() error {
		attempts++
		moving, cancel := context.WithCancelCause(ctx)
		defer cancel(nil)
		stalled := time.AfterFunc(limit, func() { cancel(context.DeadlineExceeded) })
		defer stalled.Stop()
		v, err = r.Store.Put(moving, name, watch(body, func() { stalled.Reset(limit) }), o)
		return err
	}
	if o.NoRetry {
		single := *r
		single.o.Attempts = 1
		r = &single
	}
	err = r.repeat(ctx, once)
	if attempts > 1 && errors.Is(err, ErrPrecondition) {
		// %v: errors.Is must not find ErrPrecondition in it.
		return "", fmt.Errorf("put %s: %w: refused after an attempt without an answer: %v", name, ErrUnknown, err)
	}
	return v, err
}

func (r *retrier) Get(ctx context.Context, name string) (p []byte, v Version, err error) {
	err = r.do(ctx, MaxGet, func(ctx context.Context) error {
		p, v, err = r.Store.Get(ctx, name)
		return err
	})
	return p, v, err
}

func (r *retrier) ReadAt(ctx context.Context, name string, p []byte, position int64) (n int, err error) {
	err = r.do(ctx, int64(len(p)), func(ctx context.Context) error {
		n, err = r.Store.ReadAt(ctx, name, p, position)
		return err
	})
	return n, err
}

func (r *retrier) Head(ctx context.Context, name string) (a Attributes, err error) {
	err = r.do(ctx, 0, func(ctx context.Context) error {
		a, err = r.Store.Head(ctx, name)
		return err
	})
	return a, err
}

// Delete repeats the deletion of the names that are left.
func (r *retrier) Delete(ctx context.Context, names ...string) error {
	return r.do(ctx, 0, func(ctx context.Context) error {
		err := r.Store.Delete(ctx, names...)
		var partial *DeleteError
		if errors.As(err, &partial) {
			names = partial.Names
		}
		return err
	})
}

func (r *retrier) List(ctx context.Context, prefix, after string, limit int) (list []Attributes, err error) {
	err = r.do(ctx, 0, func(ctx context.Context) error {
		list, err = r.Store.List(ctx, prefix, after, limit)
		return err
	})
	return list, err
}

// watched is a Body that tells when bytes of it are taken.
type watched struct {
	Body
	moved func()
}

// watch is body, which calls moved. A body in memory is short, and stores take it as it is.
func watch(body Body, moved func()) Body {
	if _, ok := body.(memoryBody); ok {
		return body
	}
	return watched{body, moved}
}

func (w watched) ReadAt(p []byte, position int64) (int, error) {
	n, err := w.Body.ReadAt(p, position)
	w.moved()
	return n, err
}
