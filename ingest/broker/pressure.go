package broker

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/everlog/everlog/ingest/budget"
	"github.com/everlog/everlog/ingest/partition"
)

// How the disk is watched.
const (
	watchEvery = time.Second
	// rateWindow is the time constant of the averaged rates.
	rateWindow = 10 * time.Second
	// maxThrottle bounds how long one response's producer is muted, so that a connection is never silent for long.
	maxThrottle = 2 * time.Second
	// warnEvery is how often a full disk is logged while it lasts.
	warnEvery = 30 * time.Second
)

// pressure is what the disk budget says now. It is written by watchDisk and read by every produce request.
type pressure struct {
	level      atomic.Int32
	delayPerMB atomic.Int64 // time.Duration for one MiB
	target     atomic.Int64 // bytes the local logs should take at most
	toFull     atomic.Uint64
	budget     atomic.Int64
	used       atomic.Int64
	untiered   atomic.Int64

	// Of watchDisk alone:
	ingest, shipped rate
	warned          time.Time
}

// rate is an exponentially averaged rate of a growing counter.
type rate struct {
	last int64
	perS float64
}

func (r *rate) update(counter int64, dt time.Duration) float64 {
	if dt > 0 {
		now := float64(counter-r.last) / dt.Seconds()
		r.perS += (now - r.perS) * (1 - math.Exp(-dt.Seconds()/rateWindow.Seconds()))
	}
	r.last = counter
	return r.perS
}

// Pressure is the state of the disk budget, for metrics and health.
type Pressure struct {
	Level budget.Level
	// TimeToFull is the seconds until untiered bytes fill the budget at present rates; +Inf if they never do.
	TimeToFull             float64
	Used, Untiered, Budget int64
}

// Pressure returns the present state.
func (b *Broker) Pressure() Pressure {
	return Pressure{Level: budget.Level(b.disk.level.Load()), TimeToFull: math.Float64frombits(b.disk.toFull.Load()),
		Used: b.disk.used.Load(), Untiered: b.disk.untiered.Load(), Budget: b.disk.budget.Load()}
}

// Admit refuses produce requests while the disk is full; ErrNoSpace of ingest/partition, retriable.
func (b *Broker) Admit() error {
	if budget.Level(b.disk.level.Load()) >= budget.Refuse {
		return partition.ErrNoSpace
	}
	return nil
}

// Throttle is how long a producer of so many bytes is to be slowed down.
func (b *Broker) Throttle(bytes int) time.Duration {
	per := b.disk.delayPerMB.Load()
	if per == 0 {
		return 0
	}
	return min(time.Duration(float64(per)*float64(bytes)/(1<<20)), maxThrottle)
}

// watchDisk decides about once a second what the disk's filling asks for.
func (b *Broker) watchDisk(ctx context.Context) {
	t := time.NewTicker(watchEvery)
	defer t.Stop()
	last := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-t.C:
			b.decide(now, now.Sub(last))
			last = now
		}
	}
}

func (b *Broker) decide(now time.Time, dt time.Duration) {
	in := budget.Input{Budget: b.Config().LocalBudgetBytes}
	total, free, err := b.DiskUsage()
	if err != nil {
		b.log.Error("the disk's free space cannot be read", "dir", b.Dir, "err", err)
		free = math.MaxInt64
	}
	in.Free = free
	if in.Budget == 0 {
		in.Budget = total / 5 * 4
	}
	ingested := b.tiers.ingestedGone.Load()
	for _, p := range b.Partitions() {
		size := p.Size()
		in.Used += size
		in.Tiered += size - min(size, p.Untiered())
		ingested += p.Ingested()
	}
	in.IngestRate = b.disk.ingest.update(max(ingested, b.disk.ingest.last), dt)
	in.ShipRate = b.disk.shipped.update(b.tiers.shipped(), dt)
	d := budget.Decide(in, budget.Level(b.disk.level.Load()))
	b.disk.delayPerMB.Store(int64(d.DelayPerMiB))
	b.disk.target.Store(d.TrimTarget)
	b.disk.toFull.Store(math.Float64bits(d.TimeToFull))
	b.disk.used.Store(in.Used)
	b.disk.untiered.Store(in.Used - in.Tiered)
	b.disk.budget.Store(in.Budget)
	b.tiers.adapt(in)
	if was := budget.Level(b.disk.level.Swap(int32(d.Level))); was != d.Level || d.Level >= budget.Throttle && now.Sub(b.disk.warned) > warnEvery {
		b.disk.warned = now
		b.log.Warn("hot tier", "level", d.Level.String(), "used_bytes", in.Used, "untiered_bytes", in.Used-in.Tiered, "budget_bytes", in.Budget,
			"free_bytes", in.Free, "time_to_full_s", d.TimeToFull)
	}
	if d.Level >= budget.Trim {
		b.tiers.trimSoon()
	}
}

// LogDir is where the logs are.
func (b *Broker) LogDir() string { return b.Dir }

// DiskUsage is the size and the free bytes of the file system that the logs are on.
func (b *Broker) DiskUsage() (total, free int64, err error) { return b.FS.Usage(b.Dir) }
