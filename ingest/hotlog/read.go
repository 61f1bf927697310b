package hotlog

import (
	"errors"
	"fmt"
	"io"
	"sort"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// Slice is a run of whole batches in one segment file, which it keeps open until Release, also if the segment is trimmed
// meanwhile. Safe for concurrent use; Release is to be called once.
type Slice struct {
	// First is the base offset of the first batch: at or below the offset asked for, if a batch contains that, else, where
	// compaction has removed some, above it. Next is where the next read goes on; First == Next in an empty slice.
	First, Next record.Offset
	// Position and Size are in bytes, in the segment file.
	Position, Size int64

	file   *file
	sparse bool // batches may be missing between those of the slice
}

// ReadAt reads at position off of the slice. It returns io.EOF at the slice's end, and io.ErrUnexpectedEOF if the file has
// been truncated below it.
func (s Slice) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= s.Size {
		return 0, io.EOF
	}
	end := off+int64(len(p)) > s.Size
	if end {
		p = p[:s.Size-off]
	}
	n, err := s.file.ReadAt(p, s.Position+off)
	switch {
	case n < len(p) && errors.Is(err, io.EOF):
		return n, io.ErrUnexpectedEOF
	case n == len(p) && !end:
		return n, nil
	case n == len(p):
		return n, io.EOF
	}
	return n, err
}

// Release lets go of the file.
func (s Slice) Release() {
	if s.file != nil {
		s.file.unpin()
	}
}

// Read finds whole batches from the one that contains offset, or else the first after it, up to limit, exclusive, a batch
// border such as the high watermark: at most max bytes, but with atLeastOne the first batch however large it is. It answers
// positions from tables and seldom looks at the file. If max allows, a slice ends at a border of the block table, so that a
// reader that goes on at Next starts where the table knows the position. It ends with a segment. At limit or End, and where
// compaction has left nothing up to there, the slice is empty.
//
// *ErrOutOfRange if offset is below Start or above End. The caller must release the slice.
func (l *Log) Read(offset, limit record.Offset, max int, atLeastOne bool) (Slice, error) {
	for at := offset; ; {
		sl, next, err := l.read(at, limit, int64(max), atLeastOne)
		switch {
		case errors.Is(err, errDropped): // between the look at the list and the opening of the file
		case err == nil && next > at: // nothing is left in the segment from there on
			at = next
		default:
			return sl, err
		}
	}
}

// read is Read in one segment. If that has no batch at or after offset, next is its end.
func (l *Log) read(offset, limit record.Offset, max int64, atLeastOne bool) (sl Slice, next record.Offset, err error) {
	l.mu.Lock()
	start, end := l.Start(), l.End()
	switch {
	case l.closed:
		l.mu.Unlock()
		return Slice{}, 0, ErrClosed
	case offset < start || offset > end:
		l.mu.Unlock()
		return Slice{}, 0, &ErrOutOfRange{offset, start, end}
	case offset >= min(limit, end):
		l.mu.Unlock()
		return Slice{First: offset, Next: offset}, 0, nil
	}
	s := l.findLocked(offset)
	if s.sealed {
		l.mu.Unlock()
		footer, f, err := l.footer(s)
		if err != nil {
			return Slice{}, 0, err
		}
		t := tableOf(footer)
		r := t.plan(offset, limit, max)
		if r.start.known && r.start.Position == t.end.Position {
			f.unpin()
			return Slice{First: offset, Next: offset}, s.end, nil
		}
		sl, err = r.finish(f, &t, atLeastOne)
		sl.sparse = footer.Sparse
		return sl, 0, err
	}
	t := s.tableLocked()
	f := s.file.pin()
	r := t.plan(offset, limit, max)
	l.mu.Unlock()
	t.open, t.marks = nil, nil // they change from here on
	sl, err = r.finish(f, &t, atLeastOne)
	return sl, 0, err
}

// findLocked returns the segment that holds offset, which is in [start, end).
func (l *Log) findLocked(offset record.Offset) *seg {
	i := sort.Search(len(l.segs), func(i int) bool { return l.segs[i].end > offset })
	if i < len(l.segs) {
		return l.segs[i]
	}
	return l.active
}

// footer returns the footer of a sealed segment and its file, pinned.
func (l *Log) footer(s *seg) (*segment.Footer, *file, error) {
	if s.rebuilt {
		f, err := l.files.file(l, s)
		return s.footer, f, err
	}
	footer, f, err := l.files.footer(l, s)
	if err != nil {
		return nil, nil, fmt.Errorf("segment %d: %w", s.base, err)
	}
	return footer, f, nil
}

// table is what is known of the positions in a segment.
type table struct {
	blocks []segment.Block         // closed ones; never change
	open   []segment.BatchPosition // batches of the block being filled; only valid under the log's mu
	marks  *marks                  // only valid under the log's mu
	end    segment.BatchPosition   // of the data
}

func tableOf(f *segment.Footer) table {
	return table{blocks: f.Blocks, end: segment.BatchPosition{Offset: f.End, Position: segment.HeaderSize + f.DataSize}}
}

// tableLocked returns the table of a segment that is not sealed. The caller holds mu.
func (s *seg) tableLocked() table {
	if s.builder == nil {
		return tableOf(s.footer)
	}
	return table{
		blocks: s.builder.Blocks(), open: s.builder.OpenBatches(), marks: &s.marks,
		end: segment.BatchPosition{Offset: s.builder.Next(), Position: s.builder.Position()},
	}
}

// place is where the batch that contains an offset begins: known, or somewhere in [from, to) of the file.
type place struct {
	segment.BatchPosition
	known    bool
	target   record.Offset
	from, to int64
}

// find looks up the batch that contains an offset, or else the first after it, or else the end; the caller ensures that the
// offset is in the segment.
func (t *table) find(o record.Offset) place {
	if o >= t.end.Offset {
		return place{BatchPosition: t.end, known: true}
	}
	if len(t.open) > 0 && o >= t.open[0].Offset {
		i := sort.Search(len(t.open), func(i int) bool { return t.open[i].Offset > o })
		return place{BatchPosition: t.open[i-1], known: true}
	}
	i := sort.Search(len(t.blocks), func(i int) bool { return t.blocks[i].End > o })
	if i == len(t.blocks) { // past the last block: the open one, whose batches are not at hand, or nothing (sparse)
		from := int64(segment.HeaderSize)
		if i > 0 {
			from = t.blocks[i-1].Position + int64(t.blocks[i-1].Stored)
		}
		if from == t.end.Position {
			return place{BatchPosition: t.end, known: true}
		}
		return place{target: o, from: from, to: t.end.Position}
	}
	b := &t.blocks[i]
	if o <= b.First {
		return place{BatchPosition: segment.BatchPosition{Offset: b.First, Position: b.Position}, known: true}
	}
	if t.marks != nil {
		if position, ok := t.marks.find(o); ok {
			return place{BatchPosition: segment.BatchPosition{Offset: o, Position: position}, known: true}
		}
	}
	return place{target: o, from: b.Position, to: b.Position + int64(b.Stored)}
}

// border returns the last known batch border at or below position; ok is false if there is none above the first block.
func (t *table) border(position int64) (p segment.BatchPosition, ok bool) {
	if t.end.Position <= position {
		return t.end, true
	}
	if n := len(t.open); n > 0 && t.open[0].Position <= position {
		i := sort.Search(n, func(i int) bool { return t.open[i].Position > position })
		return t.open[i-1], true
	}
	i := sort.Search(len(t.blocks), func(i int) bool { return t.blocks[i].Position > position })
	if n := len(t.blocks); i == n && n > 0 {
		if b := &t.blocks[n-1]; b.Position+int64(b.Stored) <= position {
			return segment.BatchPosition{Offset: b.End, Position: b.Position + int64(b.Stored)}, true
		}
	}
	if i == 0 {
		return p, false
	}
	return segment.BatchPosition{Offset: t.blocks[i-1].First, Position: t.blocks[i-1].Position}, true
}

// request is a read that is being worked out.
type request struct {
	limit       record.Offset
	max         int64
	start, stop place                 // of the offset and of the limit
	cut         segment.BatchPosition // the last known border within max, if start is known
}

// plan takes from the table all it knows about a read.
func (t *table) plan(offset, limit record.Offset, max int64) request {
	r := request{limit: limit, max: max, start: t.find(offset), stop: t.find(limit)}
	if r.start.known {
		r.cut, _ = t.border(r.start.Position + max)
	}
	return r
}

// finish settles what the table did not know by hopping over the batch headers of a block, and takes over the pin of f.
func (r *request) finish(f *file, t *table, atLeastOne bool) (Slice, error) {
	first, last, err := r.resolve(f, t, atLeastOne)
	if err != nil || last.Position <= first.Position {
		f.unpin()
		return Slice{First: first.Offset, Next: first.Offset}, err
	}
	return Slice{
		First: first.Offset, Next: min(last.Offset, max(r.limit, first.Offset)), Position: first.Position, Size: last.Position - first.Position, file: f,
	}, nil
}

func (r *request) resolve(f *file, t *table, atLeastOne bool) (first, last segment.BatchPosition, err error) {
	if !r.start.known {
		if r.start.BatchPosition, err = locate(f, r.start); err != nil {
			return first, last, err
		}
		r.cut, _ = t.border(r.start.Position + r.max)
	}
	first = r.start.BatchPosition
	bound := first.Position + r.max
	if !r.stop.known && r.stop.from < bound {
		if r.stop.BatchPosition, err = locate(f, r.stop); err != nil {
			return first, last, err
		}
		r.stop.known = true
	}
	switch {
	case r.stop.known && r.stop.Position <= bound:
		return first, r.stop.BatchPosition, nil
	case r.cut.Position > first.Position:
		return first, r.cut, nil
	}
	// Less than the rest of a block is wanted. The batch at first is below the limit, so its end is not past it.
	last, err = lastWithin(f, first, t.end.Position, bound, atLeastOne)
	return first, last, err
}
