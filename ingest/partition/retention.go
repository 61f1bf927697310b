package partition

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sort"
	"time"

	"github.com/everlog/everlog/compaction"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/ship"
)

// maintain does what is due besides shipping: publish a raised log start, retention, and once in a leadership the sweep
// of what earlier ones left.
func (t *Tier) maintain(ctx context.Context, s *ship.Shipper) error {
	t.maintained = time.Now()
	log := t.log.Load()
	m := log.Manifest()
	start := t.p.View().LogStart
	if to := min(start, m.End()); m.Version() > 0 && to > m.LogStart() { // beyond the end the next upload skips
		if err := t.advance(ctx, s, to); err != nil {
			return err
		}
	}
	if !t.swept && m.ClaimEpoch() == t.epoch {
		_, err := compaction.SweepOrphans(ctx, log, t.parts.Store, compaction.Sweep{Epoch: t.epoch, InFlight: s.InFlight, Before: t.started.Add(-sweepMargin)}, t.parts.Deleter)
		if err != nil {
			return fmt.Errorf("sweep orphans: %w", err)
		}
		t.swept = true
	}
	more, err := t.exchange(ctx, s)
	if err != nil {
		return fmt.Errorf("exchange compacted segments: %w", err)
	}
	if more {
		t.wake()
	}
	if time.Since(t.retained) < t.schedule.Retention {
		return nil
	}
	t.retained = time.Now()
	if err := t.retain(ctx, s); err != nil {
		return err
	}
	return t.merge(ctx)
}

// merge replaces a run of small objects by one, so that sealing by age does not leave a history of splinters.
func (t *Tier) merge(ctx context.Context) error {
	log := t.log.Load()
	m := log.Manifest()
	if m.ClaimEpoch() != t.epoch {
		return nil // nothing was shipped in this leadership: what is there can wait
	}
	root := m.Root()
	if t.p.compacted() { // no object across the local start: what lies above it is exchanged, what lies below is not
		n := sort.Search(len(root), func(i int) bool { return root[i].End > t.p.log.Start() })
		if _, _, ok := compaction.PlanMerge(root[:n], compaction.MergeOptions{}); ok {
			root = root[:n]
		} else {
			root = root[n:]
		}
	}
	from, to, ok := compaction.PlanMerge(root, compaction.MergeOptions{})
	if !ok {
		return nil
	}
	g := &compaction.Merger{Store: t.parts.Store, FS: t.parts.FS, Scratch: t.parts.Scratch, Deleter: t.parts.Deleter}
	return g.Merge(ctx, log, t.epoch, root[from:to])
}

// advance publishes a log start in the manifest, and only then has the objects below it deleted.
func (t *Tier) advance(ctx context.Context, s *ship.Shipper, to record.Offset) error {
	if err := s.Claim(ctx); err != nil {
		return err
	}
	return compaction.AdvanceLogStart(ctx, t.log.Load(), t.epoch, to, t.parts.Deleter)
}

// retain applies retention.ms and retention.bytes over both tiers.
func (t *Tier) retain(ctx context.Context, s *ship.Shipper) error {
	m := t.log.Load().Manifest()
	to, err := t.p.PlanRetention(ctx, time.Now(), m, t.parts.Store)
	if err != nil {
		return fmt.Errorf("plan retention: %w", err)
	}
	if to <= t.p.View().LogStart {
		return nil
	}
	to, err = t.p.RaiseLogStart(to)
	if err != nil {
		return err
	}
	if m.Version() == 0 {
		return nil
	}
	return t.advance(ctx, s, min(to, m.End()))
}

// PlanRetention is the log start that the topic's retention asks for. m and store are nil if there is no remote log.
func (p *Partition) PlanRetention(ctx context.Context, now time.Time, m *manifest.Manifest, store object.Store) (record.Offset, error) {
	c, v := p.Settings(), p.View()
	if !c.Delete {
		return v.LogStart, nil
	}
	in := compaction.RetentionInput{Retention: retention(c.Retention, c.RetentionBytes), NowMs: now.UnixMilli(), LogStart: v.LogStart, HighWatermark: v.HighWatermark,
		RemoteEnd: -1, Local: p.LocalSegments()}
	if m == nil {
		return compaction.PlanRetention(in, nil)
	}
	in.RemoteEnd = m.End()
	if in.Retention.Bytes != compaction.Unlimited {
		var err error
		if in.RemoteBytes, err = m.LiveDataBytes(ctx, store); err != nil {
			return v.LogStart, err
		}
	}
	return compaction.PlanRetention(in, m.All(ctx, store))
}

// retention turns settings, where negative is unlimited, into the planner's.
func retention(age time.Duration, bytes int64) compaction.Retention {
	r := compaction.Retention{Ms: compaction.Unlimited, Bytes: compaction.Unlimited}
	if age >= 0 && age.Milliseconds() < math.MaxInt64/2 {
		r.Ms = age.Milliseconds()
	}
	if bytes >= 0 {
		r.Bytes = bytes
	}
	return r
}

// LocalSegments describes the local log to planners, the active segment last.
func (p *Partition) LocalSegments() []compaction.LocalSegment {
	var out []compaction.LocalSegment
	for _, s := range p.log.Sealed(p.log.Start()) {
		ts := s.MaxTimestamp
		if s.Records == 0 {
			ts = 0 // compaction has left no record whose time could be waited for
		}
		out = append(out, compaction.LocalSegment{Base: s.Base, End: s.End, Bytes: s.Size, MaxTimestamp: ts})
	}
	base, _, bytes := p.log.ActiveInfo()
	ts, _ := p.log.MaxTimestamp()
	return append(out, compaction.LocalSegment{Base: base, End: p.log.End(), Bytes: bytes, MaxTimestamp: ts, Active: true})
}

// LocalLog describes the local log to the trim planner. Without a remote log nothing is trimmed.
func (p *Partition) LocalLog() compaction.LocalLog {
	c := p.Settings()
	l := compaction.LocalLog{RemoteEnd: -1, HighWatermark: p.View().HighWatermark, Local: retention(c.LocalRetention, c.LocalRetentionBytes), Segments: p.LocalSegments()}
	if c.Compact && !c.Delete {
		l.Local = retention(-1, -1) // of its records only the newest of a key are left: no time is up for them
	}
	if p.tier != nil {
		l.RemoteEnd = p.tier.RemoteEnd()
		if p.compacted() {
			l.RemoteEnd = min(l.RemoteEnd, p.tier.Exchanged())
		}
	}
	return l
}

// Trim drops local segments that end at or below to, which must be in the object store or below the log start. Of a
// compacted log it drops no more than what the store has in its present form, and nothing while that may change.
func (p *Partition) Trim(to record.Offset) (freed int64, err error) {
	if start := p.View().LogStart; to > start && p.compacted() {
		if !p.compacting.TryLock() {
			return 0, nil
		}
		defer p.compacting.Unlock()
		to = max(p.tier.trimmable(to), start)
	}
	if freed, err = p.log.Trim(to); err != nil {
		return freed, storageError(err)
	}
	p.producerMu.Lock()
	p.producers.ForgetAborted(p.log.Start()) // kept as long as the records they concern are read from here
	p.producerMu.Unlock()
	return freed, nil
}

// TrimDeleted drops local segments below the log start.
func (p *Partition) TrimDeleted() error {
	_, err := p.Trim(p.View().LogStart)
	return err
}

// RollIfOlder seals the active segment if its first record was appended longer ago than age.
func (p *Partition) RollIfOlder(age time.Duration, now time.Time) error {
	if _, created, _ := p.log.ActiveInfo(); created.IsZero() || now.Sub(created) < age {
		return nil
	}
	return p.Roll()
}

// Roll seals the active segment, if it holds records.
func (p *Partition) Roll() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return ErrClosed
	}
	if _, created, _ := p.log.ActiveInfo(); created.IsZero() {
		return nil
	}
	return p.rollLocked()
}

// DeleteRemote turns the remote log into a tombstone and has its objects deleted. To be called again until it succeeds.
func DeleteRemote(ctx context.Context, log *manifest.Log, parts TierParts) error {
	if err := compaction.DeletePartition(ctx, log, parts.Store, parts.Deleter); err != nil && !errors.Is(err, manifest.ErrDeleted) {
		return fmt.Errorf("delete remote log: %w", err)
	}
	return nil
}
