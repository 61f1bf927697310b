package manifest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
	"sort"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
)

// Replace commits that the run of entries old, all of them in the manifest, gives way to new: the same offsets [base, end), the
// same leader epochs at both ends, no more records, new objects written in the claimed epoch. A run that is already replaced
// by new is no error. The objects of old are unreferenced afterwards, to be deleted after the readers' grace. ErrInvalid if the manifest does
// not hold old as it is; ErrFenced, ErrDeleted, ErrUnknown.
func (l *Log) Replace(ctx context.Context, old, replacement []Segment) error {
	if err := l.checkReplace(old, replacement); err != nil {
		return fmt.Errorf("replace in manifest: %w", err)
	}
	var pages []string
	err := l.commit(ctx, "replace in manifest", func(ctx context.Context, m *Manifest) (*Manifest, error) {
		pages = nil
		if err := l.writable(m); err != nil {
			return nil, err
		}
		r, err := m.run(ctx, l.store, old[0].Base, old[len(old)-1].End)
		if err != nil {
			return nil, err
		}
		switch {
		case r.holds(replacement):
			return m, nil
		case !r.holds(old):
			return nil, fmt.Errorf("%w: the manifest does not hold the segments of [%d, %d) to be replaced", ErrInvalid, old[0].Base, old[len(old)-1].End)
		}
		next := *m
		for _, p := range m.pages[r.firstPage:r.endPage] {
			pages = append(pages, PageName(m.id, p))
		}
		return &next, l.splice(ctx, &next, r, replacement)
	})
	if err != nil {
		return err
	}
	l.garbage = append(l.garbage, pages...)
	return nil
}

// checkReplace verifies what can be known without the manifest.
func (l *Log) checkReplace(old, replacement []Segment) error {
	if len(old) == 0 || len(replacement) == 0 {
		return fmt.Errorf("%w: %d segments by %d", ErrInvalid, len(old), len(replacement))
	}
	first, last := &old[0], &old[len(old)-1]
	records := int64(0)
	for i := range old {
		records += old[i].Records
	}
	for i := range replacement {
		s := &replacement[i]
		records -= s.Records
		if s.Epoch != l.epoch {
			return fmt.Errorf("%w: object written in epoch %d, the claim is %d", ErrFenced, s.Epoch, l.epoch)
		}
		if slices.ContainsFunc(old, func(o Segment) bool { return o.Object == s.Object }) {
			return fmt.Errorf("%w: %s replaces itself", ErrInvalid, s.Object)
		}
	}
	if err := checkRun(replacement, first.Base, last.End); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if replacement[0].FirstEpoch != first.FirstEpoch || replacement[len(replacement)-1].LastEpoch != last.LastEpoch || records < 0 {
		return fmt.Errorf("%w: epochs %d to %d become %d to %d, %d records more", ErrInvalid,
			first.FirstEpoch, last.LastEpoch, replacement[0].FirstEpoch, replacement[len(replacement)-1].LastEpoch, -records)
	}
	return nil
}

// run is a part of a manifest: whole pages, the root's entries if it reaches them, and in it the entries of a range.
type run struct {
	firstPage, endPage int
	inRoot             bool
	segments           []Segment
	from, to           int // of segments
}

// run collects the pages and root entries that overlap [base, end).
func (m *Manifest) run(ctx context.Context, store object.Store, base, end record.Offset) (run, error) {
	r := run{firstPage: sort.Search(len(m.pages), func(i int) bool { return m.pages[i].End > base })}
	r.endPage = r.firstPage
	for ; r.endPage < len(m.pages) && m.pages[r.endPage].First < end; r.endPage++ {
		segs, err := m.page(ctx, store, r.endPage)
		if err != nil {
			return r, err
		}
		r.segments = append(r.segments, segs...)
	}
	if len(m.segments) > 0 && end > m.segments[0].Base {
		r.inRoot = true
		r.segments = append(r.segments, m.segments...)
	}
	r.from = sort.Search(len(r.segments), func(i int) bool { return r.segments[i].Base >= base })
	r.to = below(r.segments, end)
	return r, nil
}

// holds reports whether the range consists of exactly these entries.
func (r *run) holds(segs []Segment) bool {
	return r.to-r.from == len(segs) && slices.EqualFunc(r.segments[r.from:r.to], segs, func(a, b Segment) bool {
		return a.Base == b.Base && a.End == b.End && a.Object == b.Object && a.Position == b.Position
	})
}

// splice puts the replacement in the run's place: pages are written anew, the root's part stays in the root.
func (l *Log) splice(ctx context.Context, next *Manifest, r run, replacement []Segment) error {
	replacement = slices.Clone(replacement)
	for i := range replacement {
		replacement[i].Epochs = nil
	}
	segs := slices.Concat(r.segments[:r.from], replacement, r.segments[r.to:])
	old := next.pages
	if r.inRoot {
		border := next.segments[0].Base
		n := sort.Search(len(segs), func(i int) bool { return segs[i].Base >= border })
		if r.firstPage == r.endPage {
			n = 0
		}
		next.segments, segs = segs[n:], segs[:n]
	}
	next.pages = slices.Clone(old[:r.firstPage])
	for len(segs) > 0 {
		n := min(len(segs), l.options.PageSegments)
		ref, err := l.writePage(ctx, segs[:n])
		if err != nil {
			return err
		}
		next.pages, segs = append(next.pages, ref), segs[n:]
	}
	next.pages = append(next.pages, old[r.endPage:]...)
	return nil
}

// fold moves the oldest root entries into pages while there are too many.
func (l *Log) fold(ctx context.Context, next *Manifest) error {
	next.pages = slices.Clip(next.pages)
	for len(next.segments) >= l.options.RootSegments+l.options.PageSegments {
		if len(next.pages) >= MaxPages {
			return ErrFull
		}
		ref, err := l.writePage(ctx, next.segments[:l.options.PageSegments])
		if err != nil {
			return err
		}
		next.pages = append(next.pages, ref)
		next.segments = next.segments[l.options.PageSegments:]
	}
	return nil
}

// writePage puts a page under a new name. If an answer is lost, the same bytes are sent again: only they can ever have
// this name. A page that no commit comes to refer to is an orphan, like a segment object.
func (l *Log) writePage(ctx context.Context, segs []Segment) (PageRef, error) {
	p, ref := encodePage(l.id, segs)
	ref.Epoch = l.epoch
	_, _ = rand.Read(ref.UUID[:]) // never fails since Go 1.24
	name := PageName(l.id, ref)
	sum := crc32.Checksum(p, castagnoli)
	var reason error
	for attempt := range l.options.Attempts {
		if attempt > 0 {
			if err := l.pause(ctx, attempt); err != nil {
				return ref, fmt.Errorf("write manifest page: %w", errors.Join(reason, err))
			}
		}
		_, err := l.store.Put(ctx, name, object.Bytes(p), object.PutOptions{Condition: object.IfAbsent(), CRC32C: &sum, NoRetry: true})
		if err == nil {
			return ref, nil
		}
		if got, _, readErr := l.store.Get(ctx, name); readErr == nil && bytes.Equal(got, p) {
			return ref, nil
		}
		reason = err
	}
	return ref, fmt.Errorf("write manifest page: %w", reason)
}
