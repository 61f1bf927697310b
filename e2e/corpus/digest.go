package corpus

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"iter"
)

// Sum says what a partition holds. Two copies are equal if their Sums are.
type Sum struct {
	Records int64
	Bytes   int64    // keys, values and headers
	Content [32]byte // SHA-256 over offset, key, value and headers
	Whole   [32]byte // the same with timestamps
	Folded  [32]byte // Whole with null taken for empty, for clients that cannot tell them apart
}

func (s Sum) String() string {
	return fmt.Sprintf("%d records, %d bytes, content %x, whole %x", s.Records, s.Bytes, s.Content[:6], s.Whole[:6])
}

// Digest computes a Sum. The zero Digest is not usable.
type Digest struct {
	sum                    Sum
	content, whole, folded hash.Hash
	buffer                 []byte
}

// NewDigest returns a Digest of no records.
func NewDigest() *Digest {
	return &Digest{content: sha256.New(), whole: sha256.New(), folded: sha256.New()}
}

// Add accounts the next record. The canonical form is offset, timestamp, key, value, number of headers, headers; numbers are 8
// bytes big-endian, and every string is preceded by its length, -1 for null.
func (d *Digest) Add(r Record) {
	exact := canonical(d.buffer[:0], r, appendBytes)
	d.content.Write(exact)
	d.whole.Write(exact)
	folded := canonical(exact[:0], r, appendFolded)
	d.folded.Write(folded)
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(r.Timestamp))
	d.whole.Write(at[:])
	d.folded.Write(at[:])
	d.sum.Records++
	d.sum.Bytes += r.Bytes()
	d.buffer = folded
}

func canonical(b []byte, r Record, add func(b, p []byte) []byte) []byte {
	b = binary.BigEndian.AppendUint64(b, uint64(r.Offset))
	b = add(add(b, r.Key), r.Value)
	b = binary.BigEndian.AppendUint64(b, uint64(len(r.Headers)))
	for _, h := range r.Headers {
		b = add(appendFolded(b, []byte(h.Key)), h.Value)
	}
	return b
}

func appendBytes(b, p []byte) []byte {
	if p == nil {
		return binary.BigEndian.AppendUint64(b, 1<<64-1)
	}
	return appendFolded(b, p)
}

func appendFolded(b, p []byte) []byte {
	return append(binary.BigEndian.AppendUint64(b, uint64(len(p))), p...)
}

// Sum returns what was added so far.
func (d *Digest) Sum() Sum {
	s := d.sum
	d.content.Sum(s.Content[:0])
	d.whole.Sum(s.Whole[:0])
	d.folded.Sum(s.Folded[:0])
	return s
}

// SumOf returns the Sum of the records.
func SumOf(records iter.Seq[Record]) Sum {
	d := NewDigest()
	for r := range records {
		d.Add(r)
	}
	return d.Sum()
}
