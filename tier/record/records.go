package record

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"
)

// Header is one header of a record. A nil Value is a null.
type Header struct {
	Key   string
	Value []byte
}

// Record is one record of a batch. Nil Key and Value are nulls. In what Each passes, Key, Value and the bytes behind
// Headers are valid only during the call.
type Record struct {
	Attributes     int8
	TimestampDelta int64
	OffsetDelta    int32
	Key, Value     []byte

	headers     []byte
	headerCount int
}

// Headers decodes the record's headers. The values share the record's bytes.
func (r *Record) Headers() ([]Header, error) {
	if r.headerCount == 0 {
		return nil, nil
	}
	hs := make([]Header, 0, min(r.headerCount, 64))
	p := r.headers
	for range r.headerCount {
		key, rest, err := varBytes(p)
		if err != nil || key == nil {
			return nil, fmt.Errorf("%w: header key", ErrCorrupt)
		}
		value, rest, err := varBytes(rest)
		if err != nil {
			return nil, err
		}
		hs, p = append(hs, Header{Key: string(key), Value: value}), rest
	}
	return hs, nil
}

var scratch = sync.Pool{New: func() any { return new([]byte) }}

// decompressing bounds how many batches are decompressed at once, and with MaxDecompressed the memory that takes,
// whatever the clients send.
var decompressing = make(chan struct{}, max(runtime.GOMAXPROCS(0), 2))

// maxScratch keeps one huge batch from pinning its memory in the pool.
const maxScratch = 4 << 20

// Each calls fn for every record in order, decompressing if need be, and returns fn's first error. It returns
// ErrCorrupt if the records do not parse or their number is not Count. The record and its slices are reused: fn must
// copy what it keeps.
func (b Batch) Each(fn func(*Record) error) error {
	if b.Codec() == None {
		return b.each(b.Payload(), fn)
	}
	decompressing <- struct{}{}
	defer func() { <-decompressing }()
	buf := scratch.Get().(*[]byte)
	p, err := Decompress(b.Codec(), *buf, b.Payload())
	if err == nil {
		err = b.each(p, fn)
		if cap(p) <= maxScratch {
			*buf = p[:0]
		}
	}
	scratch.Put(buf)
	return err
}

func (b Batch) each(p []byte, fn func(*Record) error) error {
	var r Record
	var err error
	n := b.Count()
	for i := int32(0); i < n; i++ {
		if p, err = r.parse(p); err != nil {
			return fmt.Errorf("record %d of %d: %w", i, n, err)
		}
		if err := fn(&r); err != nil {
			return err
		}
	}
	if len(p) != 0 {
		return fmt.Errorf("%w: %d bytes follow the last of %d records", ErrCorrupt, len(p), n)
	}
	return nil
}

// parse reads one record from p and returns what follows.
func (r *Record) parse(p []byte) ([]byte, error) {
	size, n := binary.Varint(p)
	if n <= 0 || size < 0 || size > int64(len(p)-n) {
		return nil, fmt.Errorf("%w: record length", ErrCorrupt)
	}
	body, rest := p[n:n+int(size)], p[n+int(size):]
	if len(body) < 1 {
		return nil, fmt.Errorf("%w: empty record", ErrCorrupt)
	}
	r.Attributes = int8(body[0])
	body = body[1:]
	var delta int64
	if r.TimestampDelta, n = binary.Varint(body); n <= 0 {
		return nil, fmt.Errorf("%w: timestamp delta", ErrCorrupt)
	}
	body = body[n:]
	if delta, n = binary.Varint(body); n <= 0 || delta != int64(int32(delta)) {
		return nil, fmt.Errorf("%w: offset delta", ErrCorrupt)
	}
	r.OffsetDelta = int32(delta)
	var err error
	if r.Key, body, err = varBytes(body[n:]); err != nil {
		return nil, err
	}
	if r.Value, body, err = varBytes(body); err != nil {
		return nil, err
	}
	count, n := binary.Varint(body)
	if n <= 0 || count < 0 || count > int64(len(body)) {
		return nil, fmt.Errorf("%w: header count", ErrCorrupt)
	}
	r.headers, r.headerCount = body[n:], int(count)
	return rest, r.checkHeaders()
}

// checkHeaders verifies that the headers fill the rest of the record exactly.
func (r *Record) checkHeaders() error {
	p := r.headers
	for range r.headerCount {
		key, rest, err := varBytes(p)
		if err != nil || key == nil {
			return fmt.Errorf("%w: header key", ErrCorrupt)
		}
		if _, p, err = varBytes(rest); err != nil {
			return err
		}
	}
	if len(p) != 0 {
		return fmt.Errorf("%w: %d bytes follow a record's headers", ErrCorrupt, len(p))
	}
	return nil
}

// varBytes reads a varint length and that many bytes; -1 is null.
func varBytes(p []byte) (field, rest []byte, err error) {
	size, n := binary.Varint(p)
	if n <= 0 || size < -1 || size > int64(len(p)-n) {
		return nil, nil, fmt.Errorf("%w: field length", ErrCorrupt)
	}
	p = p[n:]
	if size == -1 {
		return nil, p, nil
	}
	return p[:size:size], p[size:], nil
}
