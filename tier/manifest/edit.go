package manifest

import (
	"context"
	"fmt"
	"slices"
	"sort"

	"github.com/everlog/everlog/tier/record"
)

// Claim commits that the leader of epoch writes from now on: no commit of an older epoch can follow. It writes a new
// version also if the epoch is the claimed one already, so that no request sent before can take effect after. ErrFenced
// if a newer epoch has claimed.
func (l *Log) Claim(ctx context.Context, epoch record.LeaderEpoch) error {
	if epoch < 0 {
		return fmt.Errorf("claim manifest: %w: leader epoch %d", ErrInvalid, epoch)
	}
	err := l.commit(ctx, "claim manifest", func(_ context.Context, m *Manifest) (*Manifest, error) {
		if m.deleted {
			return nil, ErrDeleted
		}
		if max(m.claim, l.epoch) > epoch {
			return nil, fmt.Errorf("%w: epoch %d claims, %d has claimed", ErrFenced, epoch, m.claim)
		}
		next := *m
		next.claim = epoch
		return &next, nil
	})
	if err == nil {
		l.epoch = epoch
	}
	return err
}

// writable refuses edits of anyone but the newest leader that claimed.
func (l *Log) writable(m *Manifest) error {
	switch {
	case m.deleted:
		return ErrDeleted
	case l.epoch == record.NoEpoch:
		return fmt.Errorf("%w: claim the manifest first", ErrFenced)
	case m.claim != l.epoch:
		return fmt.Errorf("%w: epoch %d writes, %d has claimed", ErrFenced, l.epoch, m.claim)
	}
	return nil
}

// Append commits segments that continue the remote log, all or none. Their objects must be in the store, and written in
// the claimed epoch. Segments that are already there (the same object, position and offsets) are left out, so that an
// Append with an unknown outcome may be repeated. ErrGap, ErrLineage, ErrFenced, ErrInvalid, ErrDeleted, ErrFull,
// ErrUnknown.
func (l *Log) Append(ctx context.Context, segs ...Segment) error {
	return l.commit(ctx, "append to manifest", func(ctx context.Context, m *Manifest) (*Manifest, error) {
		if err := l.writable(m); err != nil {
			return nil, err
		}
		rest, err := l.unseen(ctx, m, segs)
		if err != nil || len(rest) == 0 {
			return m, err
		}
		next := *m
		next.epochs, next.segments = slices.Clip(m.epochs), slices.Clip(m.segments)
		for i := range rest {
			if err := l.extend(&next, rest[i]); err != nil {
				return nil, err
			}
		}
		return &next, l.fold(ctx, &next)
	})
}

// unseen leaves out the leading segments that the manifest has.
func (l *Log) unseen(ctx context.Context, m *Manifest, segs []Segment) ([]Segment, error) {
	for len(segs) > 0 && segs[0].Base < m.end {
		s := segs[0]
		have, ok, err := m.Find(ctx, l.store, s.Base)
		if err != nil {
			return nil, err
		}
		if !ok || have.Base != s.Base || have.End != s.End || have.Object != s.Object || have.Position != s.Position {
			return nil, fmt.Errorf("%w: [%d, %d), the end is %d", ErrGap, s.Base, s.End, m.end)
		}
		segs = segs[1:]
	}
	return segs, nil
}

// extend adds one segment to next.
func (l *Log) extend(next *Manifest, s Segment) error {
	if err := checkEntry(&s); err != nil {
		return err
	}
	if s.Base != next.end {
		return fmt.Errorf("%w: [%d, %d), the end is %d", ErrGap, s.Base, s.End, next.end)
	}
	if s.Epoch != l.epoch {
		return fmt.Errorf("%w: object written in epoch %d, the claim is %d", ErrFenced, s.Epoch, l.epoch)
	}
	if l.options.Limit != nil && s.End > l.options.Limit() {
		return fmt.Errorf("%w: [%d, %d) goes beyond what is committed, %d", ErrInvalid, s.Base, s.End, l.options.Limit())
	}
	if n := len(next.segments); n > 0 && s.Object == next.segments[n-1].Object && s.Position < next.segments[n-1].Position+next.segments[n-1].Size {
		return fmt.Errorf("%w: segments at %d and %d share bytes of %s", ErrInvalid, next.segments[n-1].Base, s.Base, s.Object)
	}
	if err := next.extendEpochs(&s); err != nil {
		return err
	}
	s.Epochs = nil
	next.segments = append(next.segments, s)
	next.end = s.End
	return nil
}

// extendEpochs continues the epoch history by that of s.
func (m *Manifest) extendEpochs(s *Segment) error {
	epochs := s.Epochs
	if len(epochs) == 0 && s.FirstEpoch == s.LastEpoch {
		epochs = []record.EpochStart{{Epoch: s.FirstEpoch, Start: s.Base}}
	}
	if n := len(epochs); n == 0 || epochs[0].Epoch != s.FirstEpoch || epochs[n-1].Epoch != s.LastEpoch || epochs[0].Start > s.Base {
		return fmt.Errorf("%w: segment at %d has epochs %d to %d, history %v", ErrInvalid, s.Base, s.FirstEpoch, s.LastEpoch, epochs)
	}
	empty := m.start == m.end
	for i, e := range epochs {
		last := record.EpochStart{Epoch: record.NoEpoch}
		if n := len(m.epochs); n > 0 {
			last = m.epochs[n-1]
		}
		if i > 0 && (e.Epoch <= epochs[i-1].Epoch || e.Start <= s.Base || e.Start >= s.End) {
			return fmt.Errorf("%w: epochs %v of segment [%d, %d)", ErrInvalid, epochs, s.Base, s.End)
		}
		if e.Epoch < last.Epoch || i == 0 && e.Epoch > last.Epoch && e.Start < s.Base && !empty {
			return fmt.Errorf("%w: epoch %d from offset %d, the remote log has epoch %d up to %d", ErrLineage, e.Epoch, e.Start, last.Epoch, m.end)
		}
		if e.Epoch == last.Epoch {
			continue
		}
		if empty && i == 0 {
			m.epochs = nil // nothing is left of the history before
		}
		m.epochs = append(m.epochs, record.EpochStart{Epoch: e.Epoch, Start: max(e.Start, s.Base)})
	}
	return nil
}

// SetLogStart commits that records below o are gone. It only grows: a smaller o changes nothing. Segments and pages wholly
// below leave the manifest; what it returns of them are the entries nothing refers to any more, oldest first, to be deleted after
// the readers' grace (where objects are shared, once no other entry names the object). An o beyond End is an explicit
// skip: the next segment begins there. After ErrUnknown what was removed, if it was, is left to the sweep of orphans. It reads the pages it drops. The whole list is in memory, about 250 bytes an entry.
func (l *Log) SetLogStart(ctx context.Context, o record.Offset) ([]Segment, error) {
	var removed []Segment
	var pages []string
	err := l.commit(ctx, "raise log start in manifest", func(ctx context.Context, m *Manifest) (*Manifest, error) {
		removed, pages = nil, nil
		if err := l.writable(m); err != nil {
			return nil, err
		}
		if o <= m.logStart {
			return m, nil
		}
		next := *m
		next.logStart, next.end = o, max(o, m.end)
		var err error
		if removed, pages, err = l.drop(ctx, m, &next, o); err != nil {
			return nil, err
		}
		next.epochs = trimEpochs(m.epochs, next.start)
		return &next, nil
	})
	if err != nil {
		return nil, err
	}
	l.garbage = append(l.garbage, pages...)
	return removed, nil
}

// drop takes everything that ends at or below o out of next, a copy of m, and sets its start.
func (l *Log) drop(ctx context.Context, m, next *Manifest, o record.Offset) (removed []Segment, pages []string, err error) {
	for i, p := range m.pages {
		next.pages = m.pages[i:]
		if p.First >= o {
			next.start = p.First
			return removed, pages, nil
		}
		segs, err := m.page(ctx, l.store, i)
		if err != nil {
			return nil, nil, err
		}
		n := below(segs, o)
		removed = append(removed, segs[:n]...)
		if n < len(segs) {
			next.start = segs[n].Base
			return removed, pages, nil
		}
		pages = append(pages, PageName(m.id, p))
	}
	next.pages = nil
	n := below(m.segments, o)
	removed = append(removed, m.segments[:n]...)
	next.segments, next.start = m.segments[n:], next.end
	if n < len(m.segments) {
		next.start = m.segments[n].Base
	}
	return removed, pages, nil
}

// below is how many of the segments end at or below o.
func below(segs []Segment, o record.Offset) int {
	return sort.Search(len(segs), func(i int) bool { return segs[i].End > o })
}

// trimEpochs drops the epochs that end at or below start.
func trimEpochs(epochs []record.EpochStart, start record.Offset) []record.EpochStart {
	return epochs[max(sort.Search(len(epochs), func(i int) bool { return epochs[i].Start > start })-1, 0):]
}

// Delete commits a tombstone: no claim, Append or other edit succeeds afterwards, whoever tries. It needs no claim, since
// the deletion of a topic is decided elsewhere and is final. The entries stay, so that their objects can be found and
// deleted; the root must stay for ever.
func (l *Log) Delete(ctx context.Context) error {
	return l.commit(ctx, "delete manifest", func(_ context.Context, m *Manifest) (*Manifest, error) {
		if m.deleted {
			return m, nil
		}
		next := *m
		next.deleted = true
		return &next, nil
	})
}
