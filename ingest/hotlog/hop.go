package hotlog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// hopSize is how much is read at a time to look at batch headers: a few batches of usual size.
const hopSize = 64 << 10

var hopBuffers = sync.Pool{New: func() any { p := make([]byte, hopSize); return &p }}

// lengthOverhead is the part of a batch that its length field, at lengthPosition, does not count.
const (
	lengthPosition = 8
	lengthOverhead = 12
)

// header is the first record.HeaderSize bytes of a batch of size bytes.
type header struct {
	record.Batch
	position, size int64
}

// hop calls fn for the header of each batch in [from, to) of a segment file until it returns false, reading no more of
// large batches than that. It returns the position after the last batch it saw.
func hop(f io.ReaderAt, from, to int64, fn func(h header) bool) (int64, error) {
	buffer := hopBuffers.Get().(*[]byte)
	defer hopBuffers.Put(buffer)
	for position := from; position < to; {
		p := (*buffer)[:min(int64(len(*buffer)), to-position)]
		if n, err := f.ReadAt(p, position); n < len(p) {
			if errors.Is(err, io.EOF) {
				err = fmt.Errorf("%w: file ends at %d, should hold batches up to %d", ErrDamaged, position+int64(n), to)
			}
			return position, fmt.Errorf("read batch headers: %w", err)
		}
		if len(p) < record.HeaderSize {
			return position, fmt.Errorf("%w: %d bytes where a batch should be at %d", ErrDamaged, len(p), position)
		}
		for read := position; len(p) >= record.HeaderSize; {
			size := int64(int32(binary.BigEndian.Uint32(p[lengthPosition:]))) + lengthOverhead
			if size < record.HeaderSize || size > to-read {
				return read, fmt.Errorf("%w: batch of %d bytes at %d", ErrDamaged, size, read)
			}
			if !fn(header{Batch: record.Batch(p[:record.HeaderSize]), position: read, size: size}) {
				return read + size, nil
			}
			read += size
			position = read
			p = p[min(size, int64(len(p))):]
		}
	}
	return to, nil
}

// locate finds the batch that contains, or else follows, the target of a place that the table does not know.
func locate(f io.ReaderAt, p place) (segment.BatchPosition, error) {
	var found segment.BatchPosition
	ok := false
	_, err := hop(f, p.from, p.to, func(h header) bool {
		if h.NextOffset() <= p.target {
			return true
		}
		found, ok = segment.BatchPosition{Offset: h.BaseOffset(), Position: h.position}, true
		return false
	})
	if err == nil && !ok {
		err = fmt.Errorf("%w: offset %d is not in [%d, %d) of the segment", ErrDamaged, p.target, p.from, p.to)
	}
	return found, err
}

// lastWithin returns the last batch border in (first, bound], looking no further than end. If the batch at first alone
// goes past bound it is where that batch ends, or first itself unless atLeastOne.
func lastWithin(f io.ReaderAt, first segment.BatchPosition, end, bound int64, atLeastOne bool) (segment.BatchPosition, error) {
	last := first
	_, err := hop(f, first.Position, end, func(h header) bool {
		next := h.position + h.size
		if next > bound && !(atLeastOne && h.position == first.Position) {
			return false
		}
		last = segment.BatchPosition{Offset: h.NextOffset(), Position: next}
		return next < bound
	})
	return last, err
}

// walkBuffer is what walk reads at a time, if no batch is larger.
const walkBuffer = 1 << 20

var walkBuffers = sync.Pool{New: func() any { p := make([]byte, walkBuffer); return &p }}

// errStop ends a walk without an error.
var errStop = errors.New("stop")

// walk calls fn with each whole batch of [from, to) of a segment file. It does not check CRCs. A batch is valid only
// during the call. It returns where it stopped: at to, at the first batch that cannot be one (reason says why; a batch
// that would end past to is record.ErrShort), or at the batch for which fn returned an error, which is the reason then.
// err is an error of reading.
func walk(f io.ReaderAt, from, to int64, fn func(b record.Batch, position int64) error) (position int64, reason, err error) {
	pooled := walkBuffers.Get().(*[]byte)
	defer walkBuffers.Put(pooled)
	buffer := *pooled
	for position = from; position < to; {
		p := buffer[:min(int64(len(buffer)), to-position)]
		if n, err := f.ReadAt(p, position); n < len(p) {
			if !errors.Is(err, io.EOF) {
				return position, nil, fmt.Errorf("read segment at %d: %w", position, err)
			}
			if p, to = p[:n], position+int64(n); n == 0 {
				break
			}
		}
		rest := p
		for len(rest) > 0 {
			b, after, err := record.Next(rest)
			if errors.Is(err, record.ErrShort) && position+int64(len(rest)) < to {
				break // the rest is further on
			}
			if err == nil {
				err = fn(b, position)
			}
			if err != nil {
				return position, err, nil
			}
			position += int64(len(b))
			rest = after
		}
		if len(rest) == len(p) { // not one whole batch
			size := int64(int32(binary.BigEndian.Uint32(p[lengthPosition:]))) + lengthOverhead
			if size > to-position {
				return position, record.ErrShort, nil
			}
			buffer = make([]byte, size)
		}
	}
	return position, nil, nil
}
