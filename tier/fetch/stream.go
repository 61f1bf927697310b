package fetch

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/everlog/everlog/tier/record"
)

// maxStreams bounds the sequential readers remembered for a partition; the one that was longest away is forgotten.
const maxStreams = 64

// flows numbers the streams of all partitions: the block cache tells readers apart by it.
var flows atomic.Uint64

// stream is one sequential reader, as its offsets show. A Read takes it out of streams, owns it, and puts it back.
type stream struct {
	flow uint64
	// start and next are where it last read from, and where it is expected to go on; bytes what it got, at the time left.
	start record.Offset
	next  record.Offset
	bytes int
	left  time.Time
	// busy is the time from left to when it came back; again says that it did.
	busy  time.Duration
	again bool

	window window
	// group is the first offset of the GET's worth that it reads in; asked is the offset up to which blocks were loaded ahead.
	group record.Offset
	asked record.Offset
}

// streams are the sequential readers of a partition. The zero value is empty.
type streams struct {
	mu sync.Mutex
	// list is in the order of put.
	list []*stream
}

// take returns the stream that goes on at offset, or a new one.
func (s *streams) take(offset record.Offset, now time.Time) *stream {
	s.mu.Lock()
	defer s.mu.Unlock()
	found := -1
	for i, st := range s.list {
		if st.next == offset {
			found = i
			break
		}
		if st.start < offset && offset < st.next { // it did not use all it got
			found = i
		}
	}
	if found < 0 {
		return &stream{flow: flows.Add(1)}
	}
	st := s.list[found]
	s.list = append(s.list[:found], s.list[found+1:]...)
	st.busy = now.Sub(st.left)
	return st
}

// put says what the stream got, and where it will go on.
func (s *streams) put(st *stream, start, next record.Offset, bytes int, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	st.start, st.next, st.bytes, st.left, st.again = start, next, bytes, now, bytes > 0
	if len(s.list) == maxStreams {
		s.list = append(s.list[:0], s.list[1:]...)
	}
	s.list = append(s.list, st)
}
