package fetch

import (
	"context"
	"sync"
	"time"

	"github.com/everlog/everlog/tier/record"
)

// Read-ahead: a reader that asks for the offset after what it got is sequential, and has the next blocks loaded before it
// asks. How far grows with each read, from one GET to aheadGets of them, and crosses into following segments.
const (
	aheadGets = 4
	// maxStreams bounds the sequential readers remembered for a partition; the longest unused is forgotten.
	maxStreams = 64
	// borderTimeout bounds the search for the next segment, which no reader waits for.
	borderTimeout = 30 * time.Second
)

// stream is one sequential reader, as its offsets show.
type stream struct {
	flow  uint64
	next  record.Offset // where it is expected to go on
	depth int           // GETs to have under way ahead of it; 0 for one seen for the first time
	used  uint64        // by streams.clock
}

type streams struct {
	mu      sync.Mutex
	list    []*stream
	clock   uint64
	flows   uint64
	border  sync.WaitGroup
	crossed map[record.Offset]bool // segments whose successor is being looked up
}

// take returns the stream that goes on at offset, or a new one. While it reads nobody else finds it.
func (s *streams) take(offset record.Offset) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, st := range s.list {
		if st.next == offset {
			s.list = append(s.list[:i], s.list[i+1:]...)
			st.depth = min(max(2*st.depth, 1), aheadGets)
			return st
		}
	}
	s.flows++
	return &stream{flow: s.flows}
}

// put says where the stream will go on.
func (s *streams) put(st *stream, next record.Offset) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.clock++
	st.next, st.used = next, s.clock
	if len(s.list) >= maxStreams {
		oldest := 0
		for i := range s.list {
			if s.list[i].used < s.list[oldest].used {
				oldest = i
			}
		}
		s.list[oldest] = st
		return
	}
	s.list = append(s.list, st)
}

// readAhead has the blocks from from on loaded, as far as the stream's depth reaches.
func (r *Reader) readAhead(st *stream, l *layout, from int) {
	want := st.depth * r.src.Blocks.GetSize()
	to, bytes := from, 0
	for to < len(l.footer.Blocks) && bytes < want {
		bytes += int(l.footer.Blocks[to].Raw)
		to++
	}
	if to > from && r.src.Blocks.Ahead(st.flow, l, from, to) < to-from {
		return // no room: further ones have none either
	}
	if left := want - bytes; to == len(l.footer.Blocks) && left > 0 {
		r.cross(st.flow, l.footer.End, left)
	}
}

// cross reads ahead in the segment that begins at base. If its footer is not known, that is fetched in the background.
func (r *Reader) cross(flow uint64, base record.Offset, bytes int) {
	s := &r.streams
	s.mu.Lock()
	if s.crossed[base] {
		s.mu.Unlock()
		return
	}
	if s.crossed == nil {
		s.crossed = map[record.Offset]bool{}
	}
	s.crossed[base] = true
	s.mu.Unlock()
	s.border.Go(func() {
		defer func() {
			s.mu.Lock()
			delete(s.crossed, base)
			s.mu.Unlock()
		}()
		ctx, cancel := context.WithTimeout(context.Background(), borderTimeout)
		defer cancel()
		if m := r.src.Manifest(); m == nil || base >= m.End() {
			return
		}
		l, err := r.locate(ctx, base)
		if err != nil {
			return // whoever reads there will see it
		}
		to, n := 0, 0
		for to < len(l.footer.Blocks) && n < bytes {
			n += int(l.footer.Blocks[to].Raw)
			to++
		}
		r.src.Blocks.Ahead(flow, l, 0, to)
	})
}

// Wait returns when nothing that the reader began in the background is under way.
func (r *Reader) Wait() { r.streams.border.Wait() }
