package partition

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sort"
	"sync/atomic"
	"time"

	"github.com/everlog/everlog/compaction"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/ship"
	"github.com/everlog/everlog/tier/vfs"
)

// TierParts are what the remote logs of a broker share.
type TierParts struct {
	Store object.Store
	// History returns the reader of a partition's remote log; manifest returns the newest version, reload fetches a newer.
	History func(id segment.Identity, manifest func() *manifest.Manifest, reload func(context.Context) error) History
	Pages   *manifest.PageCache
	Limiter *ship.Limiter
	Deleter *compaction.Deleter
	// FS and Scratch are where uploads are put together.
	FS      vfs.FS
	Scratch string
	// Pace waits until n more bytes may be read or written for compaction; Compacted is told the sizes of objects that were
	// exchanged, and of what took their place. Both may be nil.
	Pace      func(ctx context.Context, n int) error
	Compacted func(before, after int64)
	Logger    *slog.Logger
}

// TierSchedule is how often the parts of a tier's work come round.
type TierSchedule struct {
	// Retention is how often retention is looked at; Kafka's log.retention.check.interval.ms.
	Retention time.Duration
	// Retry is the longest wait after the store failed.
	Retry time.Duration
}

// How a tier waits.
const (
	tierPoll       = 10 * time.Second // for work that nobody announced
	tierRetryFirst = 200 * time.Millisecond
	sweepMargin    = time.Hour // an object of this leader's own epoch younger than its start by less is left alone
)

// Tier is the remote log of one partition. Run, one goroutine, owns the manifest's log: shipping, retention and the
// sweep take turns in it. Reads go past it, over the newest manifest.
type Tier struct {
	p        *Partition
	parts    TierParts
	history  History
	schedule TierSchedule
	logger   *slog.Logger

	log     atomic.Pointer[manifest.Log]      // Run's; nil until the manifest is loaded
	loaded  chan struct{}                     // closed then
	seen    atomic.Pointer[manifest.Manifest] // what a reader found newer than that
	shipper atomic.Pointer[ship.Shipper]
	end     atomic.Int64 // of the remote log as far as committed, from earlier runs at first; -1 is unknown
	failure atomic.Pointer[error]
	warned  atomic.Int64 // when it was last logged that history cannot be read, Unix milliseconds
	wakeUp  chan struct{}

	// exchanged is the offset below which a compacted local log and the remote one are known to hold the same; written under
	// p.compacting.
	exchanged   atomic.Int64
	objectBytes int64 // exchangeBytes

	// Of Run alone:
	epoch                record.LeaderEpoch
	started              time.Time
	swept                bool
	retained, maintained time.Time
}

// NewTier gives the partition a remote log. known is the remote log's end as remembered on this disk, or -1; log is its
// manifest if that is loaded already. It must be called before the partition is used.
func (p *Partition) NewTier(parts TierParts, schedule TierSchedule, known record.Offset, log *manifest.Log) *Tier {
	t := &Tier{p: p, parts: parts, schedule: schedule, logger: parts.Logger.With("topic", p.topic, "partition", p.id.Partition), loaded: make(chan struct{}), wakeUp: make(chan struct{}, 1), objectBytes: exchangeBytes}
	t.end.Store(int64(known))
	if log != nil {
		t.log.Store(log)
		close(t.loaded)
		t.end.Store(int64(log.Manifest().End()))
	}
	t.history = parts.History(p.id, t.Manifest, t.reload)
	p.tier = t
	p.log.NotifySealed(t.wake)
	return t
}

// Tier is the partition's remote log, or nil.
func (p *Partition) Tier() *Tier { return p.tier }

// Untiered is the number of local bytes that are not in the object store; all, while that is not known.
func (p *Partition) Untiered() int64 {
	size := p.Size()
	if p.tier == nil {
		return size
	}
	end := p.tier.RemoteEnd()
	for _, s := range p.log.Sealed(p.log.Start()) {
		if s.End > end {
			break
		}
		size -= s.Size
	}
	return max(size, 0)
}

// RemoteEnd is the end of the remote log as far as it is known to be committed, -1 if nothing is known.
func (t *Tier) RemoteEnd() record.Offset { return record.Offset(t.end.Load()) }

// Manifest is the newest known manifest, or nil.
func (t *Tier) Manifest() *manifest.Manifest {
	seen := t.seen.Load()
	if l := t.log.Load(); l != nil {
		if m := l.Manifest(); seen == nil || m.Version() >= seen.Version() {
			return m
		}
	}
	return seen
}

// Err is why the tier's last attempt failed; nil after a success.
func (t *Tier) Err() error {
	if e := t.failure.Load(); e != nil {
		return *e
	}
	if s := t.shipper.Load(); s != nil {
		return s.Status().Err
	}
	return nil
}

// Lag is for how long the oldest record that is not in the store has been in the log, and how many bytes are not.
func (t *Tier) Lag(now time.Time) (time.Duration, int64) {
	if s := t.shipper.Load(); s != nil {
		return s.Lag(now)
	}
	pending := t.p.Pending(t.RemoteEnd())
	if pending.OldestMs < 0 {
		return 0, pending.Bytes
	}
	return max(now.Sub(time.UnixMilli(pending.OldestMs)), 0), pending.Bytes
}

// Shipped is the bytes of records shipped since the tier began.
func (t *Tier) Shipped() int64 {
	if s := t.shipper.Load(); s != nil {
		return s.Status().Bytes
	}
	return 0
}

// reload looks for a newer manifest than the one known: a reader found an object gone. It leaves Run's log alone.
func (t *Tier) reload(ctx context.Context) error {
	fresh, err := t.open(ctx)
	if err != nil {
		return err
	}
	t.seen.Store(fresh.Manifest())
	return nil
}

func (t *Tier) wake() {
	select {
	case t.wakeUp <- struct{}{}:
	default:
	}
}

// Run does the remote log's work for a leadership in epoch until ctx ends. It returns an error if it cannot go on:
// ship.ErrFenced, ship.ErrDeleted, ship.ErrDamaged, ship.ErrGap. A store that is away is waited for.
func (t *Tier) Run(ctx context.Context, epoch record.LeaderEpoch) error {
	s, err := t.begin(ctx, epoch)
	if err != nil {
		return err
	}
	wait := tierRetryFirst
	for ctx.Err() == nil {
		progress, err := t.step(ctx, s)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
			t.failure.Store(nil)
			wait = tierRetryFirst
			if progress {
				continue
			}
			t.pause(ctx, tierPoll)
		case errors.Is(err, ship.ErrFenced), errors.Is(err, ship.ErrDeleted), errors.Is(err, ship.ErrDamaged), errors.Is(err, ship.ErrGap), errors.Is(err, manifest.ErrFenced), errors.Is(err, manifest.ErrLineage):
			t.failure.Store(&err)
			t.logger.Error("remote log stopped", "epoch", epoch, "err", err)
			if errors.Is(err, manifest.ErrLineage) {
				t.p.takeOffline(err)
			}
			return err
		default:
			t.failure.Store(&err)
			t.logger.Warn("remote log is behind; trying again", "in", wait, "err", err)
			sleep(ctx, wait)
			wait = min(2*wait, t.schedule.Retry)
		}
	}
	return nil
}

// begin takes up a leadership: it loads the manifest, however long that takes, and returns a Shipper that has done nothing yet.
func (t *Tier) begin(ctx context.Context, epoch record.LeaderEpoch) (*ship.Shipper, error) {
	t.epoch, t.started, t.swept, t.retained, t.maintained = epoch, time.Now(), false, time.Now(), time.Now()
	t.exchanged.Store(0) // others may have led since
	if err := t.load(ctx); err != nil {
		return nil, err
	}
	s := ship.New(ship.Config{ID: t.p.id, Epoch: epoch, Log: t.log.Load(), Source: source{t.p}, Store: t.parts.Store, Limiter: t.parts.Limiter, FS: t.parts.FS, Scratch: t.parts.Scratch,
		Committed: t.committed, Removed: t.removed, Logger: t.logger})
	t.shipper.Store(s)
	return s, nil
}

// step does one thing: an upload if there is one, else what retention asks for.
func (t *Tier) step(ctx context.Context, s *ship.Shipper) (bool, error) {
	if t.p.Settings().RemoteCopyDisabled {
		return false, t.maintain(ctx, s)
	}
	progress, err := s.Step(ctx)
	if err != nil && time.Since(t.retained) >= t.schedule.Retention {
		t.retained = time.Now()
		m := t.log.Load().Manifest()
		if to, perr := t.p.PlanRetention(ctx, time.Now(), m, t.parts.Store); perr == nil {
			_, _ = t.p.RaiseLogStart(to) // the bucket is told when it is back
		}
	}
	if err != nil || progress && time.Since(t.maintained) < t.schedule.Retention {
		return progress, err // a long backlog must not starve retention: it has its turn by time as well
	}
	return progress, t.maintain(ctx, s)
}

// load opens the manifest, however long the store is away.
func (t *Tier) load(ctx context.Context) error {
	wait := tierRetryFirst
	for t.log.Load() == nil {
		log, err := t.open(ctx)
		if err == nil {
			t.log.Store(log)
			close(t.loaded)
			break
		}
		t.failure.Store(&err)
		if sleep(ctx, wait); ctx.Err() != nil {
			return nil
		}
		wait = min(2*wait, t.schedule.Retry)
	}
	if ctx.Err() != nil {
		return nil
	}
	log := t.log.Load()
	if err := t.checkLineage(log.Manifest()); err != nil {
		return err
	}
	t.adopt(log)
	return nil
}

func (t *Tier) open(ctx context.Context) (*manifest.Log, error) {
	return manifest.Open(ctx, t.parts.Store, t.p.id, ManifestOptions(t.parts))
}

// ManifestOptions are those by which a broker opens every manifest.
func ManifestOptions(parts TierParts) manifest.Options { return manifest.Options{Pages: parts.Pages} }

func (t *Tier) adopt(log *manifest.Log) {
	t.log.Store(log)
	t.end.Store(int64(log.Manifest().End()))
	if o := log.Manifest().LogStart(); o > record.Offset(t.p.logStart.Load()) {
		if _, err := t.p.RaiseLogStart(o); err != nil {
			t.logger.Error("log start of the remote log could not be kept locally", "offset", o, "err", err)
		}
	}
}

// checkLineage refuses a local log that ends before the remote one, or that has another epoch where the remote one ends:
// this disk has lost records that were shipped, and what it wrote since stands at their offsets.
func (t *Tier) checkLineage(m *manifest.Manifest) error {
	local, end := t.p.log, m.End()
	var err error
	switch remotely, locally := epochBefore(m.Epochs(), end), epochBefore(local.Epochs(), end); {
	case end > local.End():
		err = fmt.Errorf("%w: the remote log of %s-%d ends at %d, the local one at %d", ship.ErrGap, t.p.topic, t.p.id.Partition, end, local.End())
	case local.Start() >= end || t.p.compacted(): // what was compacted before it was shipped may end in an earlier epoch
		return nil
	case remotely != record.NoEpoch && locally != record.NoEpoch && remotely != locally:
		err = fmt.Errorf("%w: offset %d of %s-%d was written in epoch %d remotely, in %d locally", manifest.ErrLineage, end-1, t.p.topic, t.p.id.Partition, remotely, locally)
	default:
		return nil
	}
	t.end.Store(-1) // nothing local may be trimmed by it
	t.failure.Store(&err)
	t.p.takeOffline(err)
	t.logger.Error("this disk has lost records that are in the object store; the partition takes no more", "err", err)
	return err
}

// epochBefore is the epoch of the last record below end, as far as known.
func epochBefore(history []record.EpochStart, end record.Offset) record.LeaderEpoch {
	n := sort.Search(len(history), func(i int) bool { return history[i].Start >= end })
	if n == 0 {
		return record.NoEpoch
	}
	return history[n-1].Epoch
}

func (t *Tier) committed(s manifest.Segment) {
	t.end.Store(int64(s.End))
	t.p.wakeWatchers()
}

func (t *Tier) removed(segs []manifest.Segment) {
	for _, s := range segs {
		t.parts.Deleter.Schedule(s.Object)
	}
	t.parts.Deleter.Schedule(t.log.Load().Unreferenced()...)
}

func (t *Tier) pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-t.wakeUp:
	case <-timer.C:
	case <-ctx.Done():
	}
}

func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}
