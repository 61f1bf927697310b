package partition

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/record"
)

// History reads the remote log of one partition, through a cache. tier/fetch is behind it; cmd/node adapts it.
type History interface {
	// Read returns whole batches from the one that contains offset on: at most max bytes, but one batch at least if
	// atLeastOne. With committed it adds the aborted transactions that overlap what is returned.
	Read(ctx context.Context, offset record.Offset, max int, atLeastOne, committed bool) (HistoryResult, error)
	// FindTime returns the first record at or above from with a timestamp of ts or later; offset -1 if there is none.
	FindTime(ctx context.Context, ts int64, from record.Offset) (Found, error)
}

// HistoryResult is what History.Read found.
type HistoryResult struct {
	// Blocks hold whole batches; they are valid until Release.
	Blocks  [][]byte
	Release func()
	// Next is the offset to go on at. It is above the offset asked for also without blocks, where compaction left none
	// from there on (KAFKA-15388).
	Next    record.Offset
	Aborted []record.AbortedTxn
}

// read reads history for a request.
func (t *Tier) read(ctx context.Context, req ReadRequest) (HistoryResult, error) {
	if _, err := t.awaitManifest(ctx); err != nil {
		return HistoryResult{}, err
	}
	res, err := t.history.Read(ctx, req.Offset, req.MaxBytes, req.AtLeastOne, req.Committed)
	if err != nil {
		return HistoryResult{}, t.remoteError(ctx, err)
	}
	return res, nil
}

// manifestWait bounds how long a read waits for the first manifest: it comes at once, or the store is away.
const manifestWait = 2 * time.Second

// awaitManifest returns the newest known manifest; the first is still being loaded when the partition takes its first
// requests. Errors: ctx's, ErrTierUnavailable if the store has failed, or takes long.
func (t *Tier) awaitManifest(ctx context.Context) (*manifest.Manifest, error) {
	if m := t.Manifest(); m != nil {
		return m, nil
	}
	timer := time.NewTimer(manifestWait)
	defer timer.Stop()
	select {
	case <-t.loaded:
		return t.Manifest(), nil
	case <-ctx.Done():
		if t.failure.Load() == nil {
			return nil, ctx.Err()
		}
	case <-timer.C:
	}
	err := fmt.Errorf("%w: the manifest of %s-%d is not loaded yet", ErrTierUnavailable, t.p.topic, t.p.id.Partition)
	if f := t.failure.Load(); f != nil {
		err = fmt.Errorf("%w: %w", err, *f)
	}
	return nil, err
}

// warnEvery is how often it is logged that a partition's history cannot be read.
const warnEvery = 10 * time.Second

// remoteError never says that an offset is out of range: consumers would jump (reference: KAFKA's reset policy).
func (t *Tier) remoteError(ctx context.Context, err error) error {
	if ctx.Err() != nil && errors.Is(err, ctx.Err()) {
		return ctx.Err()
	}
	now := time.Now().UnixMilli()
	if last := t.warned.Load(); now-last >= warnEvery.Milliseconds() && t.warned.CompareAndSwap(last, now) {
		t.logger.Warn("history cannot be read; readers try again", "err", err)
	}
	return fmt.Errorf("%w: %w", ErrTierUnavailable, err)
}

func (t *Tier) findTime(ctx context.Context, ts int64, from record.Offset) (Found, error) {
	if _, err := t.awaitManifest(ctx); err != nil {
		return nothing, err
	}
	found, err := t.history.FindTime(ctx, ts, from)
	if err != nil {
		return nothing, t.remoteError(ctx, err)
	}
	return found, nil
}

// maxTimestamp is the record with the largest timestamp of the remote log, as its entries say.
func (t *Tier) maxTimestamp(ctx context.Context) (Found, error) {
	m, err := t.awaitManifest(ctx)
	if err != nil {
		return nothing, err
	}
	best := nothing
	start := t.p.View().LogStart
	for s, err := range m.All(ctx, t.parts.Store) {
		if err != nil {
			return nothing, t.remoteError(ctx, err)
		}
		if s.End > start && s.MaxTimestampOffset >= 0 && s.MaxTimestamp > best.Timestamp {
			best = Found{Offset: s.MaxTimestampOffset, Timestamp: s.MaxTimestamp, Epoch: record.NoEpoch}
		}
	}
	if best.Offset < 0 {
		return nothing, nil
	}
	// The entry names the batch; the record is the first with that timestamp.
	return t.findTime(ctx, best.Timestamp, max(best.Offset, start))
}

// epochs is the leader epoch history of the remote log.
func (t *Tier) epochs() []record.EpochStart {
	if m := t.Manifest(); m != nil {
		return m.Epochs()
	}
	return nil
}

// bounds is the range [start, end) of the remote log; false while the manifest is not loaded.
func (t *Tier) bounds() (start, end record.Offset, ok bool) {
	m := t.Manifest()
	if m == nil {
		return 0, 0, false
	}
	return m.Start(), m.End(), true
}
