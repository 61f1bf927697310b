package compaction

import (
	"context"
	"fmt"
	"iter"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
)

// Unlimited is the value of a retention setting that keeps everything.
const Unlimited = -1

// Retention says how long and how much of a log is kept, over both tiers: Kafka's retention.ms and retention.bytes.
type Retention struct {
	// Ms is in milliseconds, Bytes in bytes of log data before the tier's compression; negative means without limit.
	Ms, Bytes int64
}

// LocalSegment is one segment of a local log, as planners see it.
type LocalSegment struct {
	Base, End record.Offset
	Bytes     int64
	// MaxTimestamp is the largest record timestamp in milliseconds, -1 if no record has one.
	MaxTimestamp int64
	// Active marks the segment being written: it counts, and is never removed.
	Active bool
}

// RetentionInput is the state of a log that PlanRetention looks at.
type RetentionInput struct {
	Retention
	NowMs                   int64
	LogStart, HighWatermark record.Offset
	// RemoteEnd and RemoteBytes are the manifest's End and LiveDataBytes.
	RemoteEnd   record.Offset
	RemoteBytes int64
	// Local is the local log in order of offsets, the active segment last.
	Local []LocalSegment
}

// PlanRetention returns the log start offset that retention asks for; LogStart if nothing is to go. remote yields the
// manifest's segments from the first on (Manifest.All), or is nil if there is no remote log; it is read only as far as segments
// are deleted, and its error is returned.
//
// Whole segments go, oldest first, up to the first one that must stay. By time, one goes when its largest timestamp is older
// than Ms; one without timestamps, or from the future, stays. By size, one goes when what would remain is still at least
// Bytes. Every offset counts once: a local segment counts if all of it lies at or above RemoteEnd, so that one that straddles
// it errs on the side of keeping. The result never exceeds HighWatermark and never lies inside a batch above RemoteEnd.
func PlanRetention(in RetentionInput, remote iter.Seq2[manifest.Segment, error]) (record.Offset, error) {
	start := in.LogStart
	if in.Ms < 0 && in.Bytes < 0 {
		return start, nil
	}
	if remote == nil {
		remote = func(func(manifest.Segment, error) bool) {}
	}
	size := in.RemoteBytes
	for _, l := range in.Local {
		if l.Base >= in.RemoteEnd && l.End > in.LogStart {
			size += l.Bytes
		}
	}
	// goes decides about the oldest segment left.
	goes := func(end record.Offset, bytes, maxTimestamp int64) bool {
		return end <= in.HighWatermark && (in.expired(maxTimestamp) || in.Bytes >= 0 && size-bytes >= in.Bytes)
	}
	for s, err := range remote {
		if err != nil {
			return in.LogStart, fmt.Errorf("plan retention: %w", err)
		}
		if s.End <= in.LogStart {
			size -= s.DataSize // deleted, though the manifest has not said so yet
			continue
		}
		latest := s.MaxTimestamp
		if s.Records == 0 {
			latest = 0 // key compaction has left no record whose time could be waited for
		}
		if !goes(s.End, s.DataSize, latest) {
			return start, nil
		}
		size -= s.DataSize
		start = s.End
	}
	for _, l := range in.Local {
		if l.End <= in.RemoteEnd || l.End <= in.LogStart {
			continue
		}
		bytes := l.Bytes
		if l.Base < in.RemoteEnd {
			bytes = 0 // was not counted
		}
		if l.Active || !goes(l.End, bytes, l.MaxTimestamp) || bytes == 0 && !in.expired(l.MaxTimestamp) {
			return start, nil
		}
		size -= bytes
		start = l.End
	}
	return start, nil
}

// expired is written as a difference, so that retention.ms = 2^63-1 cannot overflow.
func (in *RetentionInput) expired(maxTimestamp int64) bool {
	return in.Ms >= 0 && maxTimestamp >= 0 && in.NowMs-maxTimestamp > in.Ms
}

// AdvanceLogStart makes to the log start offset, durably in the manifest, and then hands the objects that are referred to no
// more to the deleter. Above the manifest's end, to must be a batch border, for the next upload begins there. A to that is
// not above the log start changes nothing. After a crash in between, the orphan sweep deletes what was left.
//
// ErrNotClaimed, manifest.ErrFenced and the other errors of Log.SetLogStart; nothing was deleted then.
func AdvanceLogStart(ctx context.Context, log *manifest.Log, epoch record.LeaderEpoch, to record.Offset, d *Deleter) error {
	m, err := claimed(log, epoch)
	if err != nil {
		return err
	}
	if to <= m.LogStart() {
		return nil
	}
	removed, err := log.SetLogStart(ctx, to)
	if err != nil {
		return fmt.Errorf("advance log start to %d: %w", to, err)
	}
	kept, err := neighbour(ctx, log.Manifest(), d.store)
	d.Schedule(log.Unreferenced()...)
	d.Schedule(objects(removed, kept, err)...)
	return nil
}

// neighbour is the object of the first segment left, which the last ones removed may share; "" if none is left.
func neighbour(ctx context.Context, m *manifest.Manifest, store object.Store) (string, error) {
	s, _, err := m.Find(ctx, store, m.LogStart())
	return s.Object, err
}

// objects returns the names of the removed segments' objects, but the one that is still in use. If that is not known,
// none: the orphan sweep will find them.
func objects(removed []manifest.Segment, inUse string, err error) []string {
	if err != nil {
		return nil
	}
	var names []string
	for _, s := range removed {
		if s.Object != inUse && (len(names) == 0 || s.Object != names[len(names)-1]) {
			names = append(names, s.Object)
		}
	}
	return names
}
