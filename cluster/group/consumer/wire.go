package consumer

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// errTruncated means that a record ends too early or counts more than it has.
var errTruncated = errors.New("record is truncated")

// writer appends Kafka's primitive types. Values are of a flexible version: compact strings and arrays, tagged fields.
type writer struct{ b []byte }

func (w *writer) int8(v int8)   { w.b = append(w.b, byte(v)) }
func (w *writer) int16(v int16) { w.b = binary.BigEndian.AppendUint16(w.b, uint16(v)) }
func (w *writer) int32(v int32) { w.b = binary.BigEndian.AppendUint32(w.b, uint32(v)) }
func (w *writer) int64(v int64) { w.b = binary.BigEndian.AppendUint64(w.b, uint64(v)) }
func (w *writer) uvarint(v int) { w.b = binary.AppendUvarint(w.b, uint64(v)) }
func (w *writer) id(v TopicID)  { w.b = append(w.b, v[:]...) }
func (w *writer) arrayLen(n int) {
	w.uvarint(n + 1)
}

// maxKeyString is the most bytes that a string in a key can have.
const maxKeyString = 1<<15 - 1

// keyString is a string as keys have it: not compact.
func (w *writer) keyString(s string) {
	w.int16(int16(len(s)))
	w.b = append(w.b, s...)
}

func (w *writer) string(s string) {
	w.uvarint(len(s) + 1)
	w.b = append(w.b, s...)
}

func (w *writer) nullableString(s *string) {
	if s == nil {
		w.uvarint(0)
		return
	}
	w.string(*s)
}

func (w *writer) strings(s []string) {
	w.arrayLen(len(s))
	for _, v := range s {
		w.string(v)
	}
}

func (w *writer) int32s(s []int32) {
	w.arrayLen(len(s))
	for _, v := range s {
		w.int32(v)
	}
}

func (w *writer) bytes(b []byte) {
	w.uvarint(len(b) + 1)
	w.b = append(w.b, b...)
}

// noTags ends a structure without tagged fields.
func (w *writer) noTags() { w.uvarint(0) }

// tag0 ends a structure with field 0, written by fn, as its only tagged field.
func (w *writer) tag0(fn func(*writer)) {
	var field writer
	fn(&field)
	w.uvarint(1)
	w.uvarint(0)
	w.uvarint(len(field.b))
	w.b = append(w.b, field.b...)
}

// reader reads what writer writes. After the first error it returns zeros.
type reader struct {
	b   []byte
	err error
}

func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n < 0 || n > len(r.b) {
		r.err = errTruncated
		return nil
	}
	b := r.b[:n]
	r.b = r.b[n:]
	return b
}

func (r *reader) int8() int8 {
	if b := r.take(1); b != nil {
		return int8(b[0])
	}
	return 0
}

func (r *reader) int16() int16 {
	if b := r.take(2); b != nil {
		return int16(binary.BigEndian.Uint16(b))
	}
	return 0
}

func (r *reader) int32() int32 {
	if b := r.take(4); b != nil {
		return int32(binary.BigEndian.Uint32(b))
	}
	return 0
}

func (r *reader) int64() int64 {
	if b := r.take(8); b != nil {
		return int64(binary.BigEndian.Uint64(b))
	}
	return 0
}

func (r *reader) uvarint() int {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 || v > 1<<31 {
		r.err = errTruncated
		return 0
	}
	r.b = r.b[n:]
	return int(v)
}

func (r *reader) id() (t TopicID) {
	copy(t[:], r.take(len(t)))
	return t
}

// arrayLen of elements of at least size bytes; a null array is an empty one.
func (r *reader) arrayLen(size int) int {
	n := r.uvarint() - 1
	if n > 0 && n > len(r.b)/size {
		r.err = errTruncated
	}
	if r.err != nil {
		return 0
	}
	return max(n, 0)
}

func (r *reader) keyString() string { return string(r.take(int(r.int16()))) }

func (r *reader) nullableString() *string {
	n := r.uvarint()
	if n == 0 {
		return nil
	}
	s := string(r.take(n - 1))
	return &s
}

func (r *reader) string() string { return deref(r.nullableString()) }

func (r *reader) strings() []string {
	n := r.arrayLen(1)
	s := make([]string, 0, n)
	for range n {
		s = append(s, r.string())
	}
	return s
}

func (r *reader) int32s() []int32 {
	n := r.arrayLen(4)
	s := make([]int32, 0, n)
	for range n {
		s = append(s, r.int32())
	}
	return s
}

func (r *reader) bytes() []byte {
	n := r.uvarint()
	if n == 0 {
		return nil
	}
	return append([]byte{}, r.take(n-1)...)
}

// tags ends a structure: fn reads field 0 if it is there, others, of newer brokers, are skipped.
func (r *reader) tags(fn func(*reader)) {
	for range r.uvarint() {
		tag := r.uvarint()
		field := reader{b: r.take(r.uvarint()), err: r.err}
		if r.err == nil && tag == 0 && fn != nil {
			fn(&field)
			r.err = field.err
		}
		if r.err != nil {
			return
		}
	}
}

// version reads a value's version; all known ones are 0.
func (r *reader) version() {
	if v := r.int16(); r.err == nil && v != 0 {
		r.err = fmt.Errorf("value of unknown version %d", v)
	}
}
