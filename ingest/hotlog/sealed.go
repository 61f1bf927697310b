package hotlog

import (
	"io"
	"sort"
	"sync"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// Sealed is a sealed segment: complete, synced, never changing. It may be trimmed or rewritten at any time unless it is open.
type Sealed struct {
	// Base and End are its offsets, [Base, End).
	Base, End record.Offset
	// Size is that of the file in bytes, footer included.
	Size int64
	// FirstTimestamp is the smallest first timestamp of a batch, MaxTimestamp the largest of all; in milliseconds, -1 if no
	// record has one.
	FirstTimestamp, MaxTimestamp int64
	// Records is the number of records; compaction may leave none.
	Records int64

	log *Log
	s   *seg

	mu   sync.Mutex
	file *file
}

// Sealed returns the sealed segments with records at or above from, in order.
func (l *Log) Sealed(from record.Offset) []*Sealed {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return nil
	}
	var out []*Sealed
	for _, s := range l.segs[sort.Search(len(l.segs), func(i int) bool { return l.segs[i].end > from }):] {
		if !s.sealed {
			break // those after it are not sealed either
		}
		out = append(out, &Sealed{Base: s.base, End: s.end, Size: s.size, FirstTimestamp: s.minTime, MaxTimestamp: s.maxTime, Records: s.records, log: l, s: s})
	}
	return out
}

// Footer returns the footer. It must not be modified. fs.ErrNotExist if the segment has been trimmed or rewritten.
func (s *Sealed) Footer() (*segment.Footer, error) {
	footer, f, err := s.log.footer(s.s)
	if err != nil {
		return nil, err
	}
	f.unpin()
	return footer, nil
}

// Open returns the bytes of the segment, and keeps them readable until Release even if it is trimmed or rewritten.
// fs.ErrNotExist if it has been.
func (s *Sealed) Open() (io.ReaderAt, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file == nil {
		f, err := s.log.files.file(s.log, s.s)
		if err != nil {
			return nil, err
		}
		s.file = f
	}
	return io.NewSectionReader(s.file, 0, s.Size), nil
}

// Release undoes Open.
func (s *Sealed) Release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.file != nil {
		s.file.unpin()
		s.file = nil
	}
}
