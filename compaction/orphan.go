package compaction

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// Sweep is what an orphan sweep is told.
type Sweep struct {
	// Epoch is the leader epoch that has claimed the manifest.
	Epoch record.LeaderEpoch
	// InFlight returns the name of the object that the leader's own Shipper is uploading or committing, "" if none. It is
	// asked about each object of Epoch, for uploads may begin while the sweep runs. May be nil.
	InFlight func() string
	// Before is the time of the store's clock below which an object of Epoch itself may be an orphan; the zero time
	// spares all of them. It is a margin: what makes the sweep safe is the epoch.
	Before time.Time
}

// Swept is what an orphan sweep found.
type Swept struct {
	// Orphans were handed to the deleter; Kept are referred to, or may be yet.
	Orphans, Kept int
	// Foreign are names that are not the remote log's: they are left alone.
	Foreign int
}

// verdict is what becomes of one listed object.
type verdict uint8

const (
	keep verdict = iota
	orphan
	foreign
)

// judge decides about one object of the partition's prefix. referred tells whether the manifest, read after the listing,
// refers to it; if that is not known, it does.
//
// An object of an older epoch that is unreferenced now stays so: its writer is fenced by the claim, and edits of this
// leader only refer to names it makes up later. An object of the own epoch could be one whose commit is under way.
func (s *Sweep) judge(a object.Attributes, epoch record.LeaderEpoch, referred bool) verdict {
	switch {
	case referred, epoch > s.Epoch:
		return keep
	case epoch == s.Epoch && (!a.Modified.Before(s.Before) || s.InFlight != nil && s.InFlight() == a.Name):
		return keep
	}
	return orphan
}

// SweepOrphans lists the partition's segments and pages and hands those that nothing refers to, nor ever will, to the
// deleter. It runs on the goroutine that owns log, after a claim, so that no commit is under way meanwhile. An entry that
// cannot be judged is kept and does not stop the rest; the first reason is returned with what was found.
func SweepOrphans(ctx context.Context, log *manifest.Log, store object.Store, s Sweep, d *Deleter) (Swept, error) {
	var found Swept
	if _, err := claimed(log, s.Epoch); err != nil {
		return found, err
	}
	if log.Pending() {
		// A commit of unknown outcome may yet refer to what looks like an orphan: one more version decides it.
		if err := log.Claim(ctx, s.Epoch); err != nil {
			return found, fmt.Errorf("sweep orphans: %w", err)
		}
	}
	m := log.Manifest()
	pages := map[string]bool{}
	for _, p := range m.Pages() {
		pages[manifest.PageName(m.Identity(), p)] = true
	}
	var firstErr error
	err := eachObject(ctx, store, m.Identity(), func(a object.Attributes) {
		what := foreign
		if id, err := segment.ParseObjectName(a.Name); err == nil {
			seg, ok, err := m.Find(ctx, store, id.Base)
			if err != nil && firstErr == nil {
				firstErr = fmt.Errorf("judge %s: %w", a.Name, err)
			}
			what = s.judge(a, id.Epoch, err != nil || ok && seg.Object == a.Name)
		} else if epoch, ok := pageEpoch(m.Identity(), a.Name); ok {
			what = s.judge(a, epoch, pages[a.Name])
		}
		switch what {
		case keep:
			found.Kept++
		case orphan:
			found.Orphans++
			d.Schedule(a.Name)
		case foreign:
			found.Foreign++
		}
	})
	return found, errors.Join(firstErr, err)
}

// eachObject lists the objects of a partition beside its root.
func eachObject(ctx context.Context, store object.Store, id segment.Identity, fn func(object.Attributes)) error {
	prefix, after := segment.Prefix(id), ""
	for {
		list, err := store.List(ctx, prefix, after, object.MaxList)
		if err != nil {
			return fmt.Errorf("list %s: %w", prefix, err)
		}
		for _, a := range list {
			if after = a.Name; a.Name != manifest.RootName(id) {
				fn(a)
			}
		}
		if len(list) < object.MaxList {
			return nil
		}
	}
}

// pageEpoch reads the epoch of the leader that wrote a page from its name; false if it is no page of the partition.
func pageEpoch(id segment.Identity, name string) (record.LeaderEpoch, bool) {
	rest, ok := strings.CutPrefix(name, manifest.PagePrefix(id))
	if !ok {
		return 0, false
	}
	var p manifest.PageRef
	var uuid []byte
	if n, err := fmt.Sscanf(rest, "%d-%d-%d-%x", &p.First, &p.End, &p.Epoch, &uuid); n != 4 || err != nil || len(uuid) != len(p.UUID) {
		return 0, false
	}
	copy(p.UUID[:], uuid)
	return p.Epoch, manifest.PageName(id, p) == name
}

// DeletePartition turns the manifest into a tombstone, so that nothing can be appended any more, and then hands all other
// objects of the partition to the deleter. While there are any it returns ErrUnfinished: call it again, after a crash too,
// until it returns nil. The tombstone stays for ever: it is what keeps a writer that comes back late from starting over.
func DeletePartition(ctx context.Context, log *manifest.Log, store object.Store, d *Deleter) error {
	if !log.Manifest().Deleted() {
		if err := log.Delete(ctx); err != nil {
			return fmt.Errorf("delete remote log: %w", err)
		}
	}
	left := 0
	err := eachObject(ctx, store, log.Manifest().Identity(), func(a object.Attributes) {
		left++
		d.Schedule(a.Name)
	})
	if err == nil && left > 0 {
		err = fmt.Errorf("%w: %d objects of partition %d of %s", ErrUnfinished, left, log.Manifest().Identity().Partition, log.Manifest().Identity().Topic)
	}
	return err
}
