package kafka

import (
	"encoding/binary"
	"errors"
)

// errMalformed means that a request does not decode; the connection is closed, as Kafka does.
var errMalformed = errors.New("malformed request")

// wireReader decodes the primitive types of the Kafka protocol from p. After the first error every read returns zero
// and err stays set.
type wireReader struct {
	p   []byte
	err error
}

func (r *wireReader) take(n int) []byte {
	if r.err != nil || n < 0 || n > len(r.p) {
		r.err, r.p = errMalformed, nil
		return nil
	}
	b := r.p[:n:n]
	r.p = r.p[n:]
	return b
}

func (r *wireReader) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *wireReader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *wireReader) uvarint() uint64 {
	v, n := binary.Uvarint(r.p)
	if n <= 0 || v > 1<<31 {
		r.err, r.p = errMalformed, nil
		return 0
	}
	r.p = r.p[n:]
	return v
}

// nullableString reads a string; compact in flexible versions. The result shares the frame.
func (r *wireReader) nullableString(flexible bool) (s []byte, null bool) {
	n := 0
	if flexible {
		n = int(r.uvarint()) - 1
	} else {
		n = int(r.int16())
	}
	if n < 0 {
		return nil, true
	}
	return r.take(n), false
}

// nullableBytes reads a byte string; compact in flexible versions. The result shares the frame.
func (r *wireReader) nullableBytes(flexible bool) []byte {
	n := 0
	if flexible {
		n = int(r.uvarint()) - 1
	} else {
		n = int(r.int32())
	}
	if n < 0 {
		return nil
	}
	return r.take(n)
}

// arrayLen reads an array's length and refuses one whose elements, of at least min bytes each, cannot fit in what is
// left. A null array has length 0.
func (r *wireReader) arrayLen(flexible bool, min int) int {
	n := 0
	if flexible {
		n = int(r.uvarint()) - 1
	} else {
		n = int(r.int32())
	}
	if n > len(r.p)/min {
		r.err, r.p = errMalformed, nil
	}
	if n < 0 || r.err != nil {
		return 0
	}
	return n
}

// tags skips a section of tagged fields.
func (r *wireReader) tags(flexible bool) {
	if !flexible {
		return
	}
	n := r.uvarint()
	if n > uint64(len(r.p)) {
		r.err, r.p = errMalformed, nil
	}
	for ; n > 0 && r.err == nil; n-- {
		r.uvarint()
		r.take(int(r.uvarint()))
	}
}

func appendInt16(p []byte, v int16) []byte { return binary.BigEndian.AppendUint16(p, uint16(v)) }
func appendInt32(p []byte, v int32) []byte { return binary.BigEndian.AppendUint32(p, uint32(v)) }
func appendInt64(p []byte, v int64) []byte { return binary.BigEndian.AppendUint64(p, uint64(v)) }

func appendArrayLen(p []byte, flexible bool, n int) []byte {
	if flexible {
		return binary.AppendUvarint(p, uint64(n)+1)
	}
	return appendInt32(p, int32(n))
}

func appendNullArray(p []byte, flexible bool) []byte {
	if flexible {
		return append(p, 0)
	}
	return appendInt32(p, -1)
}

func appendString(p []byte, flexible bool, s string) []byte {
	if flexible {
		p = binary.AppendUvarint(p, uint64(len(s))+1)
	} else {
		p = appendInt16(p, int16(len(s)))
	}
	return append(p, s...)
}

// appendBytesLen writes the length that stands before a byte string.
func appendBytesLen(p []byte, flexible bool, n int) []byte { return appendArrayLen(p, flexible, n) }

// appendNoTags writes an empty section of tagged fields.
func appendNoTags(p []byte, flexible bool) []byte {
	if flexible {
		return append(p, 0)
	}
	return p
}

// appendNullableString writes "" as null.
func appendNullableString(p []byte, flexible bool, s string) []byte {
	switch {
	case s != "":
		return appendString(p, flexible, s)
	case flexible:
		return append(p, 0)
	default:
		return appendInt16(p, -1)
	}
}

func appendNew(list []int32, v int32) []int32 {
	for _, x := range list {
		if x == v {
			return list
		}
	}
	return append(list, v)
}
