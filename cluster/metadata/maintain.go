package metadata

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/everlog/everlog/tier/object"
)

const (
	// markInterval is the least time between two marks, so that a root holds about Retain/markInterval of them.
	markInterval = time.Hour
	// sweepPages bounds how many thousand leftovers one Maintain deletes.
	sweepPages = 10
)

// Maintain writes a snapshot if one is due, moves the boundary past numbers that a snapshot covers and that are older than
// Options.Retain, and deletes what lies below. The controller calls it now and then; it does little unless something is
// due. Doing it from two processes is safe: the boundary is swapped by compare-and-swap and only moves forward.
func (l *Log) Maintain(ctx context.Context) error {
	l.upkeep.Lock()
	defer l.upkeep.Unlock()
	if err := l.Err(); err != nil {
		return err
	}
	img, every := l.Image(), uint64(l.o.SnapshotEvery)
	if l.applied.Load() < int64(every) && img.Version < every {
		return nil // a small new cluster asks nothing
	}
	if err := l.lock(ctx); err != nil {
		return err
	}
	r, version, err := l.readRoot(ctx, img.ClusterIDString())
	l.unlock()
	if err != nil {
		return l.fail(away(err))
	}
	behind := img.Version - min(img.Version, r.Snapshot.Version)
	if behind == 0 || l.applied.Load() < int64(every) && behind < every {
		return nil
	}
	next, err := l.writeSnapshot(ctx, img, r)
	if err != nil {
		return err
	}
	if err := l.swapRoot(ctx, next, version); err != nil {
		return l.fail(away(err))
	}
	l.applied.Store(0)
	return l.sweep(ctx, next)
}

// writeSnapshot stores the image under a new name and returns the root that names it.
func (l *Log) writeSnapshot(ctx context.Context, img *Image, r root) (root, error) {
	nonce, now := newNonce(), time.Now().UTC().Round(0)
	body := img.encodeSnapshot(nonce, now)
	name := snapshotName(img.Version, nonce)
	if len(body) > object.MaxGet {
		return r, fmt.Errorf("%w: snapshot of %d bytes", ErrInvalid, len(body))
	}
	once, cancel := context.WithTimeout(ctx, 10*l.o.Timeout)
	defer cancel()
	// The name is new, so a write whose outcome is unknown leaves a leftover at worst.
	if _, err := l.store.Put(once, name, object.Bytes(body), object.PutOptions{Condition: object.IfAbsent(), NoRetry: true}); err != nil {
		return r, away(fmt.Errorf("write %s: %w", name, err))
	}
	r.Generation++
	r.Nonce = nonce
	r.Before, r.Snapshot = r.Snapshot, snapshotRef{Version: img.Version, Name: name, SHA256: sum(body).String()}
	r.Marks = slices.Clone(r.Marks)
	if n := len(r.Marks); n == 0 || now.Sub(r.Marks[n-1].Time) >= markInterval {
		r.Marks = append(r.Marks, mark{Version: img.Version, Time: now})
	}
	for len(r.Marks) > 0 && now.Sub(r.Marks[0].Time) > l.o.Retain {
		r.FirstRetained = max(r.FirstRetained, r.Marks[0].Version+1)
		r.Marks = r.Marks[1:]
	}
	return r, nil
}

// swapRoot replaces meta/root if it is still the version read before.
func (l *Log) swapRoot(ctx context.Context, next root, version object.Version) error {
	c := object.IfAbsent()
	if version != "" {
		c = object.IfMatch(version)
	}
	_, err := l.put(ctx, rootName, seal(next), c)
	if err == nil {
		return nil
	}
	if lockErr := l.lock(ctx); lockErr != nil {
		return lockErr
	}
	defer l.unlock()
	now, _, readErr := l.readRoot(ctx, next.Cluster)
	if readErr == nil && now.Nonce == next.Nonce {
		return nil
	}
	// Not ours, or not ours yet: a later Maintain starts from what is there. A late arrival is as good as a timely one.
	return fmt.Errorf("swap %s: %w", rootName, errors.Join(err, readErr))
}

// sweep deletes numbers below the boundary, also those that a delayed request created there, and replaced snapshots.
func (l *Log) sweep(ctx context.Context, r root) error {
	err := l.drop(ctx, logPrefix, func(a object.Attributes) bool {
		v, ok := versionOf(a.Name)
		return ok && v < r.FirstRetained
	})
	if err != nil {
		return away(err)
	}
	return away(l.drop(ctx, snapshotPrefix, func(a object.Attributes) bool {
		v, ok := versionOf(a.Name)
		return ok && v < r.Snapshot.Version && a.Name != r.Before.Name
	}))
}

// drop deletes the objects at the head of a listing for as long as there are any that old finds old.
func (l *Log) drop(ctx context.Context, prefix string, old func(object.Attributes) bool) error {
	for range sweepPages {
		once, cancel := context.WithTimeout(ctx, 10*l.o.Timeout)
		listed, err := l.store.List(once, prefix, "", object.MaxList)
		var names []string
		for _, a := range listed {
			if old(a) {
				names = append(names, a.Name)
			}
		}
		if err == nil && len(names) > 0 {
			err = l.store.Delete(once, names...)
		}
		cancel()
		if err != nil {
			return fmt.Errorf("sweep %s: %w", prefix, err)
		}
		if len(names) < object.MaxList {
			return nil
		}
	}
	return nil
}
