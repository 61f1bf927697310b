package manifest

import (
	"fmt"

	"github.com/everlog/everlog/tier/record"
)

// checkEntry verifies what an entry must satisfy by itself.
func checkEntry(s *Segment) error {
	switch {
	case s.Base < 0 || s.End <= s.Base:
		return fmt.Errorf("%w: segment [%d, %d)", ErrInvalid, s.Base, s.End)
	case s.Epoch < 0 || s.FirstEpoch < 0 || s.LastEpoch < s.FirstEpoch || s.LastEpoch > s.Epoch:
		return fmt.Errorf("%w: segment at %d of epochs %d to %d written in epoch %d", ErrInvalid, s.Base, s.FirstEpoch, s.LastEpoch, s.Epoch)
	case s.Object == "" || len(s.Object) > maxObjectName:
		return fmt.Errorf("%w: segment at %d has an object name of %d bytes", ErrInvalid, s.Base, len(s.Object))
	case s.Position < 0 || s.Size <= 0 || s.Position+s.Size < s.Position || s.FooterSize <= 0 || int64(s.FooterSize) > s.Size:
		return fmt.Errorf("%w: segment at %d has %d bytes at %d, footer %d", ErrInvalid, s.Base, s.Size, s.Position, s.FooterSize)
	case s.DataSize < 0 || s.Records < 0 || s.Aborted < 0 || s.MinTimestamp < -1 || s.MaxTimestamp < s.MinTimestamp:
		return fmt.Errorf("%w: segment at %d has %d records in %d bytes, %d to %d ms", ErrInvalid, s.Base, s.Records, s.DataSize, s.MinTimestamp, s.MaxTimestamp)
	case s.MaxTimestampOffset < -1 || s.MaxTimestampOffset >= 0 && (s.MaxTimestampOffset < s.Base || s.MaxTimestampOffset >= s.End):
		return fmt.Errorf("%w: latest timestamp at %d of segment [%d, %d)", ErrInvalid, s.MaxTimestampOffset, s.Base, s.End)
	}
	return nil
}

// checkRun verifies that decoded entries cover [first, end) without gap or overlap.
func checkRun(segments []Segment, first, end record.Offset) error {
	epoch := record.NoEpoch
	for i := range segments {
		s := &segments[i]
		if err := checkEntry(s); err != nil {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		if s.Base != first || s.FirstEpoch < epoch {
			return fmt.Errorf("%w: segment [%d, %d) of epoch %d where offset %d of epoch %d is next", ErrCorrupt, s.Base, s.End, s.FirstEpoch, first, epoch)
		}
		first, epoch = s.End, s.LastEpoch
	}
	if first != end {
		return fmt.Errorf("%w: segments end at %d instead of %d", ErrCorrupt, first, end)
	}
	return nil
}

// check verifies a whole root: what invariant 25 of the design demands of every version.
func (m *Manifest) check() error {
	if m.version == 0 || m.start < 0 || m.logStart < m.start || m.end < m.logStart || m.claim < record.NoEpoch {
		return fmt.Errorf("%w: version %d, log start %d, segments [%d, %d), claim %d", ErrCorrupt, m.version, m.logStart, m.start, m.end, m.claim)
	}
	next := m.start
	for i, p := range m.pages {
		if i == 0 && p.First <= m.start && p.End > m.start {
			next = p.First // the first page may begin with entries that were removed
		}
		if p.First < 0 || p.First != next || p.End <= p.First || p.End > m.end || p.Epoch < 0 || p.Epoch > m.claim || p.Count <= 0 || p.Size <= 0 || p.Bytes < 0 || p.DataBytes < 0 {
			return fmt.Errorf("%w: page %d of [%d, %d), epoch %d, where offset %d is next", ErrCorrupt, i, p.First, p.End, p.Epoch, next)
		}
		next = p.End
	}
	if err := checkRun(m.segments, next, m.end); err != nil {
		return err
	}
	if len(m.segments) > 0 {
		s := &m.segments[len(m.segments)-1]
		if len(m.pages) == 0 && m.segments[0].End <= m.logStart {
			return fmt.Errorf("%w: segment [%d, %d) below the log start %d", ErrCorrupt, m.segments[0].Base, m.segments[0].End, m.logStart)
		}
		if n := len(m.epochs); n == 0 || m.epochs[n-1].Epoch != s.LastEpoch {
			return fmt.Errorf("%w: last segment of epoch %d, history %v", ErrCorrupt, s.LastEpoch, m.epochs)
		}
	}
	return m.checkEpochs()
}

func (m *Manifest) checkEpochs() error {
	for i, e := range m.epochs {
		bad := e.Epoch < 0 || e.Epoch > m.claim || e.Start < 0 || e.Start > m.end || i == 0 && e.Start > m.start
		if i > 0 {
			last := m.epochs[i-1]
			bad = bad || e.Epoch <= last.Epoch || e.Start <= last.Start || e.Start <= m.start || e.Start >= m.end
		}
		if bad {
			return fmt.Errorf("%w: leader epoch %d from offset %d in [%d, %d), claimed by %d", ErrCorrupt, e.Epoch, e.Start, m.start, m.end, m.claim)
		}
	}
	if len(m.epochs) == 0 && m.start < m.end {
		return fmt.Errorf("%w: no leader epoch for [%d, %d)", ErrCorrupt, m.start, m.end)
	}
	return nil
}

// checkStep verifies what may change from one version to the next, whoever wrote them: the claim, the log start and the
// end never go back, and a tombstone stays one.
func checkStep(old, next *Manifest) error {
	if next.version <= old.version || next.claim < old.claim || next.logStart < old.logStart || next.start < old.start || next.end < old.end || old.deleted && !next.deleted {
		return fmt.Errorf("%w: version %d (claim %d, log start %d, [%d, %d)) cannot follow version %d (claim %d, log start %d, [%d, %d))", ErrCorrupt,
			next.version, next.claim, next.logStart, next.start, next.end, old.version, old.claim, old.logStart, old.start, old.end)
	}
	return nil
}
