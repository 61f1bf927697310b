package partition

import (
	"context"
	"errors"
	"fmt"

	"github.com/everlog/everlog/compaction"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/ship"
	"github.com/everlog/everlog/tier/vfs"
)

const (
	// exchangeEntries is how many entries of the manifest are compared with the local log, and exchanged, at a time.
	exchangeEntries = 256
	// exchangeBytes is the raw size that an object made of several does not exceed.
	exchangeBytes = 64 << 20
)

// Exchanged is the offset below which local and remote log of a compacted partition are known to hold the same.
func (t *Tier) Exchanged() record.Offset {
	if t == nil {
		return -1
	}
	return record.Offset(t.exchanged.Load())
}

// lowerExchanged says that a pass has changed the local log from o on. p.compacting is held.
func (t *Tier) lowerExchanged(o record.Offset) {
	t.exchanged.Store(min(t.exchanged.Load(), int64(o)))
}

// trimmable is the largest end of a local segment up to which a compacted log may be trimmed, at most to: below it the store
// has the same, and an object ends there, so that what stays here can go on being exchanged. -1 if there is none.
// p.compacting is held.
func (t *Tier) trimmable(to record.Offset) record.Offset {
	best := record.Offset(-1)
	if t == nil || t.Manifest() == nil {
		return best
	}
	m := t.Manifest()
	borders := map[record.Offset]bool{m.End(): true}
	for _, s := range m.Root() {
		borders[s.Base] = true
	}
	to = min(to, t.Exchanged())
	for _, s := range t.p.log.Sealed(t.p.log.Start()) {
		if s.End > to {
			break
		}
		if borders[s.End] {
			best = s.End
		}
	}
	return best
}

// exchange brings the store up to the compacted local log: it compares entry after entry from where both were the same, and
// replaces the first run that differs. It reports whether there is more to do.
func (t *Tier) exchange(ctx context.Context, s *ship.Shipper) (more bool, err error) {
	if !t.p.compacted() {
		return false, nil
	}
	entries, err := t.unexchanged(ctx)
	if err != nil || len(entries) == 0 {
		return false, err
	}
	run, err := t.compare(entries)
	if err != nil {
		return false, err
	}
	if len(run) == 0 {
		return len(entries) == exchangeEntries && t.Exchanged() >= entries[len(entries)-1].End, nil
	}
	if t.p.Settings().RemoteCopyDisabled || int64(t.log.Load().Manifest().End()) < t.p.superseded.Load() {
		return false, nil // the store keeps what it has until it has what took its place
	}
	if err := s.Claim(ctx); err != nil {
		return false, err
	}
	g := &compaction.Exchanger{Store: t.parts.Store, FS: t.parts.FS, Scratch: t.parts.Scratch, Deleter: t.parts.Deleter}
	x, err := g.Begin(ctx, t.p.id, run)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, x.Close()) }()
	switch ok, err := t.build(ctx, x, run); {
	case errors.Is(err, vfs.ErrNoSpace):
		t.logger.Warn("no room to exchange compacted segments in the object store", "offset", run[0].Base, "err", err)
		return false, nil
	case err != nil || !ok:
		return false, err
	}
	if err := t.pace(ctx, int(x.Size())); err != nil {
		return false, err
	}
	if err := x.Commit(ctx, t.log.Load(), t.epoch); err != nil {
		return false, err
	}
	if fn := t.parts.Compacted; fn != nil {
		var before int64
		for _, s := range run {
			before += s.Size
		}
		fn(before, x.Size())
	}
	return true, nil
}

// unexchanged are the next entries of the manifest from where local and remote log are known to be the same.
func (t *Tier) unexchanged(ctx context.Context) ([]manifest.Segment, error) {
	at, ok := t.same()
	if !ok {
		return nil, nil
	}
	m := t.log.Load().Manifest()
	var out []manifest.Segment
	for at < m.End() && len(out) < exchangeEntries {
		s, ok, err := m.Find(ctx, t.parts.Store, at)
		if err != nil || !ok {
			return out, err
		}
		out, at = append(out, s), s.End
	}
	return out, nil
}

// same is where the exchange goes on: up to there the store has what the local log has, or nothing is left to read, or what
// the local log does not have. It is false while that is not known.
func (t *Tier) same() (record.Offset, bool) {
	start, ok := t.p.compactStart()
	return max(start, t.Exchanged(), t.log.Load().Manifest().Start()), ok
}

// compare moves on over the entries that hold what the local log does, and returns the run of those after it that do not, as
// many as make one object. Nothing is known while a pass is at work.
func (t *Tier) compare(entries []manifest.Segment) ([]manifest.Segment, error) {
	p := t.p
	if !p.compacting.TryLock() {
		return nil, nil
	}
	defer p.compacting.Unlock()
	var run []manifest.Segment
	var size, records int64
	for _, s := range entries {
		if s.End > p.log.End() || s.End <= p.log.Start() {
			break // lost here, or deleted meanwhile
		}
		bytes, n, err := p.log.Extent(max(s.Base, p.log.Start()), s.End)
		if err != nil {
			return nil, storageError(err)
		}
		same := bytes == s.DataSize && n == s.Records && len(p.abortedLocal(s.Base, s.End)) == int(s.Aborted)
		switch {
		case same && len(run) == 0:
			t.exchanged.Store(max(t.exchanged.Load(), int64(s.End)))
			continue
		case len(run) > 0 && size+bytes > t.objectBytes, same && records > 0:
			return run, nil
		}
		run, size, records = append(run, s), size+bytes, records+n
	}
	return run, nil
}

// build makes the object of a run from the local log; false if that is being changed, or was deleted in part.
func (t *Tier) build(ctx context.Context, x *compaction.Exchange, run []manifest.Segment) (bool, error) {
	p := t.p
	if !p.compacting.TryLock() {
		return false, nil
	}
	defer p.compacting.Unlock()
	base, end := run[0].Base, run[len(run)-1].End
	if at, ok := t.same(); !ok || at < base || end <= p.log.Start() {
		return false, nil // a pass has changed what lies before it
	}
	err := x.Build(p.Aborted(base, end), func(fn func(record.Batch) error) error {
		return p.log.Scan(max(base, p.log.Start()), end, func(b record.Batch) error {
			if err := t.pace(ctx, len(b)); err != nil {
				return err
			}
			return fn(b)
		})
	})
	if err != nil {
		return false, fmt.Errorf("make an object of the compacted log: %w", err)
	}
	return true, nil
}

// pace waits until n more bytes may be read or written for compaction.
func (t *Tier) pace(ctx context.Context, n int) error {
	if t.parts.Pace == nil {
		return ctx.Err()
	}
	return t.parts.Pace(ctx, n)
}
