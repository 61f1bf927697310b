package partition

import (
	"context"
	"errors"
	"fmt"

	"github.com/everlog/everlog/tier/record"
)

// Found is a record found by time: its offset, timestamp in milliseconds and leader epoch. Offset -1 is "none".
type Found struct {
	Offset    record.Offset
	Timestamp int64
	Epoch     record.LeaderEpoch
}

// errFound ends a scan.
var errFound = errors.New("found")

var nothing = Found{Offset: -1, Timestamp: -1, Epoch: record.NoEpoch}

// EndOffsetFor answers where a leader epoch ends: for the newest epoch the log's end, for an older one the start of the
// next, for one between known epochs the largest below it; (NoEpoch, -1) if the epoch is above all known (KIP-101, KIP-320).
// The history covers remote data too.
func (p *Partition) EndOffsetFor(epoch record.LeaderEpoch) (record.LeaderEpoch, record.Offset) {
	return endOffsetFor(p.Epochs(), epoch, p.log.End())
}

// Epochs is the leader epoch history of the whole log, remote and local.
func (p *Partition) Epochs() []record.EpochStart {
	local := p.log.Epochs()
	if p.tier == nil {
		return local
	}
	return joinEpochs(p.tier.epochs(), local)
}

// joinEpochs appends what local knows beyond remote.
func joinEpochs(remote, local []record.EpochStart) []record.EpochStart {
	if len(remote) == 0 {
		return local
	}
	out := remote[:len(remote):len(remote)]
	last := remote[len(remote)-1].Epoch
	for _, e := range local {
		if e.Epoch > last {
			out = append(out, e)
		}
	}
	return out
}

func endOffsetFor(history []record.EpochStart, epoch record.LeaderEpoch, end record.Offset) (record.LeaderEpoch, record.Offset) {
	if epoch < 0 || len(history) == 0 || epoch > history[len(history)-1].Epoch {
		return record.NoEpoch, -1
	}
	if epoch == history[len(history)-1].Epoch {
		return epoch, end
	}
	if epoch < history[0].Epoch {
		return epoch, history[0].Start
	}
	i := 0
	for history[i+1].Epoch <= epoch {
		i++
	}
	return history[i].Epoch, history[i+1].Start
}

// EpochOf is the leader epoch that the record at o was written in, or record.NoEpoch.
func (p *Partition) EpochOf(o record.Offset) record.LeaderEpoch {
	epoch := record.NoEpoch
	for _, e := range p.Epochs() {
		if e.Start > o {
			break
		}
		epoch = e.Epoch
	}
	return epoch
}

// Earliest is the log start, EarliestLocal the start of what is on local disk.
func (p *Partition) Earliest() Found {
	o := p.View().LogStart
	return Found{o, -1, p.EpochOf(o)}
}

// EarliestLocal is the first offset on local disk that readers may see.
func (p *Partition) EarliestLocal() Found {
	o := max(p.log.Start(), p.View().LogStart)
	return Found{o, -1, p.EpochOf(o)}
}

// Latest is the end of what a reader may see.
func (p *Partition) Latest(committed bool) Found {
	v := p.View()
	return Found{ReadRequest{Committed: committed}.limit(v), -1, p.LeaderEpoch()}
}

// LatestTiered is the highest offset in the object store (inclusive; KIP-1005), or nothing.
func (p *Partition) LatestTiered() Found {
	if p.tier == nil {
		return nothing
	}
	start, end, ok := p.tier.bounds()
	if !ok || end == start {
		return nothing
	}
	return Found{end - 1, -1, p.EpochOf(end - 1)}
}

// EarliestPendingUpload is the first offset that is not in the object store (KIP-1023).
func (p *Partition) EarliestPendingUpload() Found {
	if p.tier == nil || !p.Settings().Remote {
		return nothing
	}
	o := max(p.LatestTiered().Offset+1, p.View().LogStart)
	return Found{o, -1, p.EpochOf(o)}
}

// MaxTimestamp is the record with the largest timestamp of both tiers (KIP-734).
func (p *Partition) MaxTimestamp(ctx context.Context) (Found, error) {
	best := nothing
	if ts, o := p.log.MaxTimestamp(); o >= 0 {
		if err := p.Committed(ctx, o+1, p.LeaderEpoch()); err != nil { // under load it is always being synced
			return nothing, err
		}
		v := p.View()
		var err error
		if best, err = p.firstAfter(ctx, ts, max(o, v.LogStart, p.log.Start()), v.HighWatermark); err != nil {
			return nothing, err
		}
	}
	if p.tier == nil {
		return best, nil
	}
	remote, err := p.tier.maxTimestamp(ctx)
	if err != nil {
		return nothing, err
	}
	if remote.Offset >= p.View().LogStart && (remote.Timestamp >= best.Timestamp || best.Offset < 0) {
		remote.Epoch = p.EpochOf(remote.Offset)
		return remote, nil
	}
	return best, nil
}

// FindTime is the first record whose timestamp is ts or later, in either tier; nothing if there is none below what the
// reader may see. Errors: ErrTierUnavailable.
func (p *Partition) FindTime(ctx context.Context, ts int64, committed bool) (Found, error) {
	v, searched := p.View(), p.log.Start()
	limit := ReadRequest{Committed: committed}.limit(v)
	if v.LogStart < searched && p.tier != nil {
		found, err := p.tier.findTime(ctx, ts, v.LogStart)
		if err != nil {
			return nothing, err
		}
		if found.Offset >= 0 {
			if found.Offset >= limit {
				return nothing, nil
			}
			found.Epoch = p.EpochOf(found.Offset)
			return found, nil
		}
	}
	o, at, ok, err := p.log.FindTime(ts, limit)
	if err != nil {
		return nothing, storageError(err)
	}
	if p.tier != nil && p.log.Start() > searched { // trimmed meanwhile: what was found may not be the first
		return p.FindTime(ctx, ts, committed)
	}
	if !ok || o >= limit {
		return nothing, nil
	}
	if o < v.LogStart {
		return p.firstAfter(ctx, ts, v.LogStart, limit)
	}
	return Found{o, at, p.EpochOf(o)}, nil
}

// firstAfter is FindTime for the case that the first match lies before the log start, inside the local log.
func (p *Partition) firstAfter(_ context.Context, ts int64, from, limit record.Offset) (Found, error) {
	found := nothing
	err := p.log.Scan(from, limit, func(b record.Batch) error {
		if b.MaxTimestamp() < ts || b.LastOffset() < from {
			return nil
		}
		err := b.Each(func(r *record.Record) error {
			o, at := b.BaseOffset()+record.Offset(r.OffsetDelta), b.BaseTimestamp()+r.TimestampDelta
			if b.LogAppendTime() {
				at = b.MaxTimestamp()
			}
			if found.Offset < 0 && o >= from && at >= ts {
				found = Found{o, at, p.EpochOf(o)}
			}
			return nil
		})
		if err == nil && found.Offset >= 0 {
			err = errFound
		}
		return err
	})
	if err != nil && !errors.Is(err, errFound) {
		return nothing, storageError(err)
	}
	return found, nil
}

// DeleteRecords raises the log start to o, or to the high watermark if o is -1, and returns the new log start. The new
// start is on local disk before it returns; remote objects below it go later. Errors: ErrOffsetOutOfRange, ErrNotLeader,
// ErrPolicy.
func (p *Partition) DeleteRecords(o record.Offset) (record.Offset, error) {
	if err := p.CheckEpoch(record.NoEpoch); err != nil {
		return -1, err
	}
	if c := p.Settings(); c.Compact && !c.Delete {
		return -1, fmt.Errorf("%w: %s is compacted, its records cannot be deleted by offset", ErrPolicy, p.topic)
	}
	v := p.View()
	if o == -1 {
		o = v.HighWatermark
	}
	if o < 0 || o > v.HighWatermark {
		return -1, fmt.Errorf("%w: %d is above the high watermark %d", ErrOffsetOutOfRange, o, v.HighWatermark)
	}
	return p.RaiseLogStart(o)
}

// RaiseLogStart makes o the log start if it is above the present one, durably, and returns the log start. Retention and
// DeleteRecords call it; it never passes the high watermark.
func (p *Partition) RaiseLogStart(o record.Offset) (record.Offset, error) {
	p.startMu.Lock()
	defer p.startMu.Unlock()
	now := record.Offset(p.logStart.Load())
	if o = min(o, record.Offset(p.highWatermark.Load())); o <= now {
		return now, nil
	}
	if err := p.saveLogStart(o); err != nil {
		return now, storageError(err)
	}
	p.logStart.Store(int64(o))
	if p.tier != nil {
		p.tier.wake()
	}
	return o, nil
}
