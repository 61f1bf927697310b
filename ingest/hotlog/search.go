package hotlog

import (
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// MaxTimestamp returns the largest timestamp of the local log in milliseconds, and the base offset of the first batch that
// holds it (FindTime of that timestamp gives the record); both -1 if no record has one.
func (l *Log) MaxTimestamp() (ts int64, o record.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	ts, o = -1, -1
	for _, s := range l.segs {
		if s.maxTime > ts {
			ts, o = s.maxTime, s.maxTimeOffset
		}
	}
	if b := l.active.builder; b != nil {
		if t, at := b.MaxTimestamp(); t > ts {
			ts, o = t, at
		}
	}
	return ts, o
}

// FindTime returns the first record below limit with a timestamp of at least ts, in milliseconds, and that record's
// timestamp; false if there is none. It reads one block per segment whose time range may match, and decompresses a batch.
func (l *Log) FindTime(ts int64, limit record.Offset) (record.Offset, int64, bool, error) {
	l.mu.Lock()
	segs := append(l.segs[:len(l.segs):len(l.segs)], l.active)
	closed := l.closed
	l.mu.Unlock()
	if closed {
		return 0, 0, false, ErrClosed
	}
	for _, s := range segs {
		if s.base >= limit {
			break
		}
		o, found, ok, err := l.findTimeIn(s, ts)
		if errors.Is(err, errDropped) {
			return l.FindTime(ts, limit)
		}
		if err != nil || ok {
			return o, found, ok && o < limit, err
		}
	}
	return 0, 0, false, nil
}

// findTimeIn is FindTime in one segment.
func (l *Log) findTimeIn(s *seg, ts int64) (o record.Offset, found int64, ok bool, err error) {
	t, f, err := l.openTable(s, ts)
	if f == nil || err != nil {
		return 0, 0, false, err
	}
	defer f.unpin()
	search := func(from, to int64) error {
		if from >= to {
			return nil
		}
		_, reason, err := walk(f, from, to, func(b record.Batch, _ int64) error {
			if b.MaxTimestamp() < ts {
				return nil
			}
			if err := b.Verify(); err != nil {
				return err
			}
			if o, found, ok, err = firstAtOrAfter(b, ts); err == nil && ok {
				err = errStop
			}
			return err
		})
		if err == nil && reason != nil && !errors.Is(reason, errStop) {
			err = fmt.Errorf("%w: segment %d: %w", ErrDamaged, s.base, reason)
		}
		return err
	}
	tail := int64(segment.HeaderSize)
	for i := range t.blocks {
		b := &t.blocks[i]
		tail = b.Position + int64(b.Stored)
		if b.MaxTimestamp < ts {
			continue
		}
		if err := search(b.Position, tail); err != nil || ok {
			return o, found, ok, err
		}
	}
	err = search(tail, t.end.Position)
	return o, found, ok, err
}

// openTable returns the table of a segment and its file, pinned; no file if no record is as new as ts.
func (l *Log) openTable(s *seg, ts int64) (table, *file, error) {
	l.mu.Lock()
	if s.sealed {
		l.mu.Unlock()
		if s.maxTime < ts {
			return table{}, nil, nil
		}
		footer, f, err := l.footer(s)
		if err != nil {
			return table{}, nil, err
		}
		return tableOf(footer), f, nil
	}
	defer l.mu.Unlock()
	if s.file == nil || l.closed {
		return table{}, nil, nil
	}
	t := s.tableLocked()
	t.open, t.marks = nil, nil
	return t, s.file.pin(), nil
}

// firstAtOrAfter returns the first record of a batch with a timestamp of at least ts.
func firstAtOrAfter(b record.Batch, ts int64) (o record.Offset, found int64, ok bool, err error) {
	if b.LogAppendTime() && int64(b.Count()) == int64(b.LastOffsetDelta())+1 {
		return b.BaseOffset(), b.MaxTimestamp(), true, nil
	}
	err = b.Each(func(r *record.Record) error {
		t := b.BaseTimestamp() + r.TimestampDelta
		if b.LogAppendTime() {
			t = b.MaxTimestamp()
		}
		if t >= ts {
			o, found, ok = b.BaseOffset()+record.Offset(r.OffsetDelta), t, true
			return errStop
		}
		return nil
	})
	if errors.Is(err, errStop) {
		err = nil
	}
	return o, found, ok, err
}

// Scan calls fn with every whole batch from the one that contains from up to to, exclusive, in order, each with its CRC
// verified, and returns fn's first error. A batch is valid only during the call. *ErrOutOfRange if from is not in the log;
// ErrDamaged if a batch is not what was written.
func (l *Log) Scan(from, to record.Offset, fn func(record.Batch) error) error {
	const all = 1 << 30
	for next := from; ; {
		s, err := l.Read(next, to, all, true)
		if err != nil {
			return err
		}
		if s.Size == 0 {
			return nil
		}
		var failed error
		next = s.First
		stopped, reason, err := walk(s.file, s.Position, s.Position+s.Size, func(b record.Batch, _ int64) error {
			if err := b.Verify(); err != nil {
				return err
			}
			if b.BaseOffset() < next || b.BaseOffset() > next && !s.sparse { // not under the CRC
				return fmt.Errorf("batch says it begins at %d, not at %d", b.BaseOffset(), next)
			}
			next = b.NextOffset()
			failed = fn(b)
			return failed
		})
		s.Release()
		switch {
		case err != nil:
			return err
		case failed != nil:
			return failed
		case reason != nil || stopped != s.Position+s.Size || next > s.Next || next < s.Next && !s.sparse:
			if reason == nil {
				reason = io.ErrUnexpectedEOF
			}
			return fmt.Errorf("%w: [%d, %d) at position %d: %w", ErrDamaged, s.First, s.Next, stopped, reason)
		}
		next = s.Next
	}
}

// Extent returns the bytes of the batches that lie in [from, to), both batch borders, and how many records they hold. It
// reads batch headers only where from or to lies inside a segment.
func (l *Log) Extent(from, to record.Offset) (bytes, records int64, err error) {
	if from < l.Start() || to > l.End() {
		return 0, 0, &ErrOutOfRange{from, l.Start(), l.End()}
	}
	l.mu.Lock()
	segs, active, closed := l.segs, l.active, l.closed
	l.mu.Unlock()
	if closed {
		return 0, 0, ErrClosed
	}
	segs = append(segs[sort.Search(len(segs), func(i int) bool { return segs[i].end > from }):len(segs):len(segs)], active)
	for _, s := range segs {
		if s.base >= to {
			break
		}
		if s != active && s.base >= from && s.end <= to {
			bytes, records = bytes+s.dataEnd-segment.HeaderSize, records+s.records
			continue
		}
		b, n, err := l.extentIn(s, from, to)
		if errors.Is(err, errDropped) {
			return l.Extent(from, to)
		}
		if err != nil {
			return 0, 0, err
		}
		bytes, records = bytes+b, records+n
	}
	return bytes, records, nil
}

// extentIn is Extent in one segment.
func (l *Log) extentIn(s *seg, from, to record.Offset) (bytes, records int64, err error) {
	t, f, err := l.openTable(s, -1)
	if f == nil || err != nil {
		return 0, 0, err
	}
	defer f.unpin()
	first, end := int64(segment.HeaderSize), t.end.Position
	for i := range t.blocks {
		b := &t.blocks[i]
		if b.End <= from {
			first = b.Position + int64(b.Stored)
		}
		if b.First >= to {
			end = b.Position
			break
		}
	}
	_, err = hop(f, first, end, func(h header) bool {
		if h.BaseOffset() >= from && h.NextOffset() <= to {
			bytes, records = bytes+h.size, records+int64(h.Count())
		}
		return h.NextOffset() < to
	})
	return bytes, records, err
}
