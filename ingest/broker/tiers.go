package broker

import (
	"context"
	"errors"

	"sync"
	"sync/atomic"
	"time"

	"github.com/everlog/everlog/compaction"
	"github.com/everlog/everlog/ingest/budget"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/ship"
)

// How the background work is paced.
const (
	sealEvery      = time.Second
	trimEvery      = 5 * time.Second
	retryAtMost    = 30 * time.Second
	restoreRetry   = time.Second
	restoreAtOnce  = 16 // manifests and footers read at the same time
	expireProducer = time.Minute
)

// scheduler runs the remote logs of the partitions led here, one goroutine each, and what concerns all local logs
// together: sealing by age, trimming, retention of topics without a remote log.
type scheduler struct {
	b       *Broker
	trimNow chan struct{}
	loads   chan struct{} // bounds restores

	mu      sync.Mutex
	ctx     context.Context // of run; nil before
	running map[*partition.Partition]*running
	waiting []func(context.Context) // restores asked for before run
	wg      sync.WaitGroup
	gone    atomic.Int64 // bytes shipped by tiers that have ended

	ingestedGone atomic.Int64 // bytes appended to partitions that are closed

	compact compactor
}

type running struct {
	epoch  record.LeaderEpoch
	cancel context.CancelFunc
	done   chan struct{}
}

func (s *scheduler) init(b *Broker) {
	s.b, s.trimNow, s.running = b, make(chan struct{}, 1), map[*partition.Partition]*running{}
	s.loads = make(chan struct{}, restoreAtOnce)
	s.compact.init(b)
}

func (s *scheduler) run(ctx context.Context) {
	s.mu.Lock()
	s.ctx = ctx
	waiting := s.waiting
	s.waiting = nil
	s.mu.Unlock()
	for _, restore := range waiting {
		s.wg.Go(func() { restore(ctx) })
	}
	for _, p := range s.b.Partitions() {
		s.lead(p)
	}
	s.b.finishDeletes(ctx, &s.wg)
	s.wg.Go(func() { s.compact.run(ctx) })
	s.loop(ctx)
	s.mu.Lock()
	for _, r := range s.running {
		r.cancel()
	}
	s.mu.Unlock()
	s.wg.Wait()
}

func (s *scheduler) loop(ctx context.Context) {
	seal, trim, expire := time.NewTicker(sealEvery), time.NewTicker(trimEvery), time.NewTicker(expireProducer)
	defer seal.Stop()
	defer trim.Stop()
	defer expire.Stop()
	retained := time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-seal.C:
			s.seal(now)
		case now := <-expire.C:
			for _, p := range s.b.Partitions() {
				p.ExpireProducers(now)
			}
		case now := <-trim.C:
			s.trim(now)
			if now.Sub(retained) >= s.b.Config().RetentionCheck {
				retained = now
				s.retainLocal(ctx, now)
			}
		case <-s.trimNow:
			s.trim(time.Now())
		}
	}
}

// seal ends active segments that are old enough: those of topics by segment.ms, those with records that are not in the
// store by tier.seal.ms, so that the bucket is never further behind than that, and those of compacted topics by
// max.compaction.lag.ms, for only sealed segments are compacted.
func (s *scheduler) seal(now time.Time) {
	early := s.b.Config().TierSeal
	for _, p := range s.b.Partitions() {
		c := p.Settings()
		age := c.SegmentAge
		if p.Tier() != nil && c.Remote && !c.RemoteCopyDisabled && early > 0 && (age < 0 || early < age) {
			age = early
		}
		if c.Compact && (age < 0 || c.MaxCompactionLag < age) {
			age = c.MaxCompactionLag
		}
		if age < 0 || p.LeaderEpoch() == record.NoEpoch {
			continue
		}
		if err := p.RollIfOlder(age, now); err != nil && !errors.Is(err, partition.ErrClosed) {
			s.b.log.Warn("segment could not be sealed", "topic", p.Topic(), "partition", p.Identity().Partition, "err", err)
		}
	}
}

// trim drops local segments by the topics' local retention and the broker's budget.
func (s *scheduler) trim(now time.Time) {
	ps := s.b.Partitions()
	logs := make([]compaction.LocalLog, len(ps))
	for i, p := range ps {
		logs[i] = p.LocalLog()
		if err := p.TrimDeleted(); err != nil {
			s.b.log.Warn("deleted records could not be dropped from disk", "topic", p.Topic(), "partition", p.Identity().Partition, "err", err)
		}
	}
	target := int64(compaction.Unlimited)
	if budget.Level(s.b.disk.level.Load()) >= budget.Trim {
		target = s.b.disk.target.Load()
	}
	for _, t := range compaction.PlanTrim(logs, target, now.UnixMilli()) {
		if _, err := ps[t.Log].Trim(t.To); err != nil {
			s.b.log.Warn("local segments could not be dropped", "topic", ps[t.Log].Topic(), "partition", ps[t.Log].Identity().Partition, "err", err)
		}
	}
}

// retainLocal applies retention to the partitions that have no remote log.
func (s *scheduler) retainLocal(ctx context.Context, now time.Time) {
	for _, p := range s.b.Partitions() {
		if p.Tier() != nil || p.LeaderEpoch() == record.NoEpoch {
			continue
		}
		to, err := p.PlanRetention(ctx, now, nil, nil)
		if err == nil {
			_, err = p.RaiseLogStart(to)
		}
		if err == nil {
			err = p.TrimDeleted()
		}
		if err != nil {
			s.b.log.Warn("retention could not be applied", "topic", p.Topic(), "partition", p.Identity().Partition, "err", err)
		}
	}
}

func (s *scheduler) trimSoon() {
	select {
	case s.trimNow <- struct{}{}:
	default:
	}
}

// lead starts the remote log's work of a partition that is led here, or restarts it for a new epoch.
func (s *scheduler) lead(p *partition.Partition) {
	t, epoch := p.Tier(), p.LeaderEpoch()
	s.mu.Lock()
	defer s.mu.Unlock()
	old := s.running[p]
	if s.ctx == nil || s.ctx.Err() != nil || old != nil && old.epoch == epoch {
		return
	}
	if old != nil {
		old.cancel()
		delete(s.running, p)
	}
	if t == nil || epoch == record.NoEpoch || s.b.undecided(p) {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	r := &running{epoch: epoch, cancel: cancel, done: make(chan struct{})}
	s.running[p] = r
	s.wg.Go(func() {
		defer close(r.done)
		if old != nil {
			<-old.done // one owner of the manifest's log at a time
		}
		_ = t.Run(ctx, epoch) // it has logged why it stopped, and shows it as a metric
	})
}

// forget stops the remote log's work of a partition, and if its topic was deleted begins to delete the remote log.
func (s *scheduler) forget(p *partition.Partition, deleted bool) {
	s.mu.Lock()
	r := s.running[p]
	delete(s.running, p)
	s.mu.Unlock()
	if r != nil {
		r.cancel()
		<-r.done
	}
	s.ingestedGone.Add(p.Ingested())
	if t := p.Tier(); t != nil {
		s.gone.Add(t.Shipped())
		if deleted {
			s.b.deleteRemote(p.Identity(), p.LeaderEpoch())
		}
	}
}

// restore has load called until it succeeds: a replica whose past is in the object store.
func (s *scheduler) restore(r *replica, load func(context.Context) error) {
	work := func(ctx context.Context) {
		select {
		case s.loads <- struct{}{}:
		case <-ctx.Done():
			return
		}
		defer func() { <-s.loads }()
		for ctx.Err() == nil && !r.isGone() {
			err := load(ctx)
			if err == nil {
				if p := r.partition.Load(); p != nil {
					s.lead(p)
				}
				return
			}
			s.b.log.Warn("partition waits for the object store to restore from", "topic", r.topic, "partition", r.key.partition, "err", err)
			sleep(ctx, restoreRetry)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ctx == nil {
		s.waiting = append(s.waiting, work)
		return
	}
	ctx := s.ctx
	s.wg.Go(func() { work(ctx) })
}

// shipped is the bytes of records shipped since the broker began.
func (s *scheduler) shipped() int64 {
	n := s.gone.Load()
	for _, p := range s.b.Partitions() {
		if t := p.Tier(); t != nil {
			n += t.Shipped()
		}
	}
	return n
}

// adapt sets the pace of uploads.
func (s *scheduler) adapt(in budget.Input) {
	s.b.Tier.Limiter.Adapt(ship.Load{Ingest: in.IngestRate, Backlog: in.Used - in.Tiered, Budget: in.Budget, Within: s.b.Config().TierSeal})
}

func sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}
