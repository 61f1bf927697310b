package controller

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/everlog/everlog/cluster/metadata"
)

// plan is what a request makes of an image: the records to commit, and the answer if they are.
type plan struct {
	records []metadata.Record
	weight  int // partitions touched
	answer  any
	err     error // refuses the request as a whole; then there are no records
}

// request waits for a commit. plan is pure and may be called again, on a newer image.
type request struct {
	ctx  context.Context
	plan func(*metadata.Image) plan
	done chan outcome // capacity 1
}

type outcome struct {
	answer any
	img    *metadata.Image
	err    error
}

// finish answers a request whose records were committed into img, or were not because of err.
func (r *request) finish(p plan, img *metadata.Image, err error) {
	if err == nil {
		err = p.err
	}
	r.done <- outcome{answer: p.answer, img: img, err: err}
}

// submit waits for a request's outcome, no longer than Options.Timeout.
func submit[T any](ctx context.Context, c *Controller, build func(*metadata.Image) plan) (T, *metadata.Image, error) {
	var none T
	ctx, cancel := context.WithTimeout(ctx, c.o.Timeout)
	defer cancel()
	r := &request{ctx: ctx, plan: build, done: make(chan outcome, 1)}
	select {
	case c.queue <- r:
	case <-ctx.Done():
		return none, c.log.Image(), fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
	select {
	case o := <-r.done:
		answer, _ := o.answer.(T)
		return answer, o.img, o.err
	case <-ctx.Done():
		return none, c.log.Image(), fmt.Errorf("%w: %w; the change may yet happen", ErrUnavailable, ctx.Err())
	}
}

// eachChange submits n changes that are judged each for itself, and returns one error or nil for each. record makes the
// record of one change on the image that those before it leave, nil if it changes nothing; it may be called again.
func (c *Controller) eachChange(ctx context.Context, n int, validateOnly bool, record func(img *metadata.Image, i int) (metadata.Record, error)) []error {
	if n == 0 {
		return nil
	}
	errs, _, err := submit[[]error](ctx, c, func(img *metadata.Image) plan {
		p, errs := plan{}, make([]error, n)
		for i := range errs {
			r, err := record(img, i)
			if errs[i] = err; err == nil && r != nil {
				img = p.add(img, r, &errs[i])
			}
		}
		p.weight, p.answer = len(p.records), errs
		return p.unless(validateOnly)
	})
	if err != nil {
		errs = make([]error, n)
		for i := range errs {
			errs[i] = err
		}
	}
	return errs
}

// serve commits a batch of requests and answers them. It returns those that did not fit.
func (c *Controller) serve(ctx context.Context, batch []*request) []*request {
	ctx, cancel := within(ctx, batch)
	defer cancel()
	for {
		batch = waiting(batch)
		if len(batch) == 0 {
			return nil
		}
		epoch, err := c.lead(ctx)
		if err != nil {
			refuseBatch(batch, c.log.Image(), err)
			return nil
		}
		base := c.log.Image()
		plans, records, elected := c.plan(base, epoch, batch)
		if len(records) == elected {
			// Nothing to change: the answers are refusals, or what a validation found. A controller that has not committed in
			// its epoch yet may be behind the one before it; a commit would show that, an answer would not.
			if elected > 0 {
				if img, err := c.log.Sync(ctx); err == nil && img.Version != base.Version {
					continue
				} else if err != nil {
					refuseBatch(batch, base, err)
					return nil
				}
			}
			for i, p := range plans {
				batch[i].finish(p, base, nil)
			}
			return batch[len(plans):]
		}
		img, err := c.log.Commit(ctx, base, records...)
		if errors.Is(err, metadata.ErrLost) || errors.Is(err, metadata.ErrFenced) {
			continue
		}
		for i, p := range plans {
			batch[i].finish(p, img, err)
		}
		return batch[len(plans):]
	}
}

func refuseBatch(batch []*request, img *metadata.Image, err error) {
	for _, r := range batch {
		r.finish(plan{}, img, err)
	}
}

// plan makes each request's records on top of those before it, preceded by the election of this process if it did not
// commit in this epoch yet. elected is the number of records of that.
func (c *Controller) plan(base *metadata.Image, epoch int64, batch []*request) (plans []plan, records []metadata.Record, elected int) {
	if base.Controller.Epoch != epoch {
		records = append(records, metadata.ControllerElected{Epoch: epoch, Writer: c.log.Writer()})
	}
	elected = len(records)
	view, weight := base, 0
	for _, r := range batch {
		p := r.plan(view)
		if weight += p.weight; weight > batchPartitions && len(plans) > 0 {
			break
		}
		if len(p.records) > 0 {
			next, err := view.With(p.records...)
			if err != nil {
				p = plan{err: err}
			} else {
				view = next
				records = append(records, p.records...)
			}
		}
		plans = append(plans, p)
	}
	return plans, records, elected
}

// within bounds ctx by the last deadline of a batch.
func within(ctx context.Context, batch []*request) (context.Context, context.CancelFunc) {
	var last time.Time
	for _, r := range batch {
		if d, ok := r.ctx.Deadline(); ok && d.After(last) {
			last = d
		}
	}
	return context.WithDeadline(ctx, last) // submit gives every request a deadline
}

// waiting drops the requests that nobody waits for any more.
func waiting(batch []*request) []*request {
	var rest []*request
	for _, r := range batch {
		if r.ctx.Err() == nil {
			rest = append(rest, r)
		}
	}
	return rest
}

// lead waits until this process may commit, and returns the epoch to commit in.
func (c *Controller) lead(ctx context.Context) (int64, error) {
	for {
		changed := c.lease.Changed()
		epoch, ok := c.lease.Holding()
		if ok {
			img := c.log.Image()
			if c.log.Stale() {
				var err error
				if img, err = c.log.Sync(ctx); err != nil {
					return 0, err
				}
			}
			if by := img.Controller; by.Epoch < epoch || by.Epoch == epoch && by.Writer == c.log.Writer() {
				c.leads(epoch)
				return epoch, nil
			}
			// The log has seen a later controller, whatever the lease says.
			c.lease.Fence(img.Controller.Epoch + 1)
			if again, ok := c.lease.Holding(); ok && again == epoch {
				return 0, fmt.Errorf("%w: the log is in epoch %d, the lease in %d", ErrNotController, img.Controller.Epoch, epoch)
			}
			continue
		}
		if r, seen := c.lease.Seen(); seen && !r.Released && c.o.Holder != "" && r.Holder != c.o.Holder {
			return 0, fmt.Errorf("%w: %s at %s is", ErrNotController, r.Holder, r.Address)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: no controller lease: %w", ErrUnavailable, ctx.Err())
		}
	}
}

// leads notes when this process became the controller: brokers it never heard of get one session from then.
func (c *Controller) leads(epoch int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.epoch != epoch {
		c.epoch, c.since = epoch, time.Now()
	}
}
