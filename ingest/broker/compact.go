package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"time"

	pace "golang.org/x/time/rate"

	"github.com/everlog/everlog/ingest/budget"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// Limits of key compaction. There is one pass at a time in a broker.
const (
	// compactMapBytes bounds the key map, some two million keys; log.cleaner.dedupe.buffer.size may ask for less. More keys
	// take more passes.
	compactMapBytes = 64 << 20
	// compactBytesPerSecond bounds what passes read and write, so that producers do not wait for the disk behind them;
	// log.cleaner.io.max.bytes.per.second may ask for less. compactBurst is what passes at once.
	compactBytesPerSecond = 32 << 20
	compactBurst          = 1 << 20
	// compactReserve is the free space that passes leave on the disk.
	compactReserve = budget.DefaultReserve / 2
	// compactRetry is how long a log is left alone whose pass has failed.
	compactRetry = 10 * time.Minute
)

// Compactions is what key compaction has done since the broker began.
type Compactions struct {
	// Passes ended, Failures did not; Replaced counts segments written.
	Passes, Failures, Replaced int64
	// BytesBefore and BytesAfter are the sizes of what passes have read and of what they left, RecordsBefore and
	// RecordsAfter the records in it.
	BytesBefore, BytesAfter     int64
	RecordsBefore, RecordsAfter int64
	// Exchanged counts objects that took the place of others in the store, of ExchangedBefore bytes; they have ExchangedAfter.
	Exchanged, ExchangedBefore, ExchangedAfter int64
	// Running is true while a pass is at work.
	Running bool
}

// compactor runs the passes of a broker, one after another.
type compactor struct {
	b       *Broker
	limiter *pace.Limiter
	running atomic.Bool

	mu     sync.Mutex
	done   Compactions
	failed map[*partition.Partition]time.Time // when a pass failed; of run alone but for forget
}

func (c *compactor) init(b *Broker) {
	c.b, c.limiter = b, pace.NewLimiter(compactBytesPerSecond, compactBurst)
	c.failed = map[*partition.Partition]time.Time{}
	b.Tier.Pace, b.Tier.Compacted = c.pace, c.exchanged
}

// Compactions returns what key compaction has done.
func (b *Broker) Compactions() Compactions {
	c := &b.tiers.compact
	c.mu.Lock()
	defer c.mu.Unlock()
	done := c.done
	done.Running = c.running.Load()
	return done
}

// run compacts what is due until ctx ends: always the log with the largest dirty part, those first whose records have waited
// for max.compaction.lag.ms.
func (c *compactor) run(ctx context.Context) {
	for ctx.Err() == nil {
		p := c.next(time.Now())
		if p == nil {
			sleep(ctx, max(c.b.Config().Millis("log.cleaner.backoff.ms"), time.Millisecond))
			continue
		}
		c.compact(ctx, p)
	}
}

// next is the partition whose log should be compacted now, or nil.
func (c *compactor) next(now time.Time) *partition.Partition {
	c.mu.Lock()
	defer c.mu.Unlock()
	var best *partition.Partition
	var most float64
	open := map[*partition.Partition]time.Time{}
	for _, p := range c.b.Partitions() {
		if at, ok := c.failed[p]; ok && now.Sub(at) < compactRetry {
			open[p] = at
			continue
		}
		plan := p.PlanCompaction(now)
		weight := plan.Ratio
		if plan.Overdue {
			weight++
		}
		if plan.Due && (best == nil || weight > most) {
			best, most = p, weight
		}
	}
	c.failed = open
	return best
}

func (c *compactor) compact(ctx context.Context, p *partition.Partition) {
	c.limiter.SetLimit(pace.Limit(min(max(c.b.Config().Float("log.cleaner.io.max.bytes.per.second"), 1), compactBytesPerSecond)))
	c.running.Store(true)
	began := time.Now()
	done, err := p.Compact(ctx, partition.CompactOptions{
		Now: began, KeyMapBytes: min(c.b.Config().Int("log.cleaner.dedupe.buffer.size"), compactMapBytes), Room: c.room, Pace: c.pace,
	})
	c.running.Store(false)
	c.note(p, done, err, began)
	if err != nil && ctx.Err() == nil && !errors.Is(err, partition.ErrClosed) && !errors.Is(err, partition.ErrBusy) {
		c.b.log.Warn("log could not be compacted", "topic", p.Topic(), "partition", p.Identity().Partition, "try_again_in", compactRetry, "err", err)
	}
}

// note counts what a pass did. A log whose pass did not end is left alone for a while; one that was busy only for moments.
func (c *compactor) note(p *partition.Partition, done partition.Compacted, err error, began time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := &c.done
	d.Replaced += int64(done.Replaced)
	d.BytesBefore, d.BytesAfter = d.BytesBefore+done.BytesBefore, d.BytesAfter+done.BytesAfter
	d.RecordsBefore, d.RecordsAfter = d.RecordsBefore+done.RecordsBefore, d.RecordsAfter+done.RecordsAfter
	switch {
	case err == nil:
		d.Passes++
		c.b.log.Debug("log compacted", "topic", p.Topic(), "partition", p.Identity().Partition, "offset", done.Cleaned,
			"bytes_before", done.BytesBefore, "bytes_after", done.BytesAfter, "took", time.Since(began))
	case errors.Is(err, partition.ErrBusy):
		c.failed[p] = began.Add(c.b.Config().Millis("log.cleaner.backoff.ms") - compactRetry)
	default:
		d.Failures++
		c.failed[p] = began
	}
}

// exchanged counts an object that took the place of others.
func (c *compactor) exchanged(before, after int64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done.Exchanged++
	c.done.ExchangedBefore += before
	c.done.ExchangedAfter += after
}

// pace takes n bytes from the bucket, in portions.
func (c *compactor) pace(ctx context.Context, n int) error {
	for n > 0 {
		k := min(n, compactBurst)
		if err := c.limiter.WaitN(ctx, k); err != nil {
			return err
		}
		n -= k
	}
	return ctx.Err()
}

// room is how many bytes passes may write.
func (c *compactor) room() (int64, error) {
	_, free, err := c.b.DiskUsage()
	return max(free-compactReserve, 0), err
}

// cleanedName is where the offset below which a log has been compacted is kept in the local state.
func cleanedName(id segment.Identity) string {
	return "cleaned/" + logName(id)
}

// cleaned is that offset as remembered on this disk, or 0.
func (b *Broker) cleaned(id segment.Identity) (record.Offset, error) {
	v, err := b.State.Get(cleanedName(id))
	if err != nil || len(v) != 8 {
		return 0, err
	}
	return record.Offset(min(binary.BigEndian.Uint64(v), math.MaxInt64)), nil
}

func (b *Broker) saveCleaned(id segment.Identity, o record.Offset) error {
	return b.State.Set(cleanedName(id), binary.BigEndian.AppendUint64(nil, uint64(o)))
}

// forgetNumbers removes what is remembered of a log beside its own state.
func (b *Broker) forgetNumbers(id segment.Identity) error {
	return errors.Join(b.State.Set(logStartName(id), nil), b.State.Set(cleanedName(id), nil))
}
