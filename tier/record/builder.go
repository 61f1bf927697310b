package record

import (
	"encoding/binary"
	"errors"
	"math"
)

// Attrs describe a batch beyond its records. The zero value is a plain batch of a producer that is not idempotent.
type Attrs struct {
	Codec         Codec
	Level         Level // 0 is DefaultLevel
	Transactional bool
	Control       bool
	Idempotent    bool // ProducerID, ProducerEpoch and BaseSequence are set
	ProducerID    ProducerID
	ProducerEpoch ProducerEpoch
	BaseSequence  int32
}

// ErrEmpty means that a batch without records was to be built.
var ErrEmpty = errors.New("record batch without records")

// Builder makes one batch. It is not safe for concurrent use; Reset makes it usable again.
type Builder struct {
	attrs    Attrs
	count    int32
	baseTime int64
	maxTime  int64
	records  []byte
	body     []byte
}

// NewBuilder returns an empty builder.
func NewBuilder(a Attrs) *Builder { return &Builder{attrs: a} }

// Reset drops the records appended so far and sets new attributes; memory is kept.
func (b *Builder) Reset(a Attrs) { *b = Builder{attrs: a, records: b.records[:0], body: b.body} }

// Count is the number of records appended so far, Size the bytes of their uncompressed form.
func (b *Builder) Count() int { return int(b.count) }

// Size is the number of bytes of the records appended so far, uncompressed.
func (b *Builder) Size() int { return len(b.records) }

// Append adds a record with a timestamp in milliseconds. Nil key and value are nulls.
func (b *Builder) Append(timestamp int64, key, value []byte, headers ...Header) {
	b.AppendAt(b.count, timestamp, key, value, headers...)
}

// AppendAt adds a record whose offset is delta past the base offset; deltas grow from call to call.
func (b *Builder) AppendAt(delta int32, timestamp int64, key, value []byte, headers ...Header) {
	if b.count == 0 {
		b.baseTime, b.maxTime = timestamp, math.MinInt64
	}
	body := append(b.body[:0], 0)
	body = binary.AppendVarint(body, timestamp-b.baseTime)
	body = binary.AppendVarint(body, int64(delta))
	body = appendVarBytes(body, key)
	body = appendVarBytes(body, value)
	body = binary.AppendVarint(body, int64(len(headers)))
	for _, h := range headers {
		body = binary.AppendVarint(body, int64(len(h.Key)))
		body = append(body, h.Key...)
		body = appendVarBytes(body, h.Value)
	}
	b.records = binary.AppendVarint(b.records, int64(len(body)))
	b.records = append(b.records, body...)
	b.body, b.count, b.maxTime = body, b.count+1, max(b.maxTime, timestamp)
}

// Build returns the batch at base offset 0 and leader epoch -1, to be stamped. It does not share the builder's memory.
func (b *Builder) Build() (Batch, error) {
	if b.count == 0 {
		return nil, ErrEmpty
	}
	level := b.attrs.Level
	if level == 0 {
		level = DefaultLevel
	}
	out, err := Compress(b.attrs.Codec, level, make([]byte, HeaderSize, HeaderSize+len(b.records)), b.records)
	if err != nil {
		return nil, err
	}
	return seal(out, b.attrs, b.count, b.baseTime, b.maxTime), nil
}

// seal fills the header of a batch whose records stand behind HeaderSize bytes.
func seal(out []byte, a Attrs, count int32, baseTime, maxTime int64) Batch {
	attributes := uint16(a.Codec)
	if a.Transactional {
		attributes |= attrTransactional
	}
	if a.Control {
		attributes |= attrControl
	}
	id, epoch, seq := NoProducer, ProducerEpoch(-1), int32(-1)
	if a.Idempotent {
		id, epoch, seq = a.ProducerID, a.ProducerEpoch, a.BaseSequence
	}
	binary.BigEndian.PutUint32(out[posLength:], uint32(len(out)-lengthOverhead))
	out[posMagic] = magicV2
	binary.BigEndian.PutUint16(out[posAttributes:], attributes)
	binary.BigEndian.PutUint32(out[posLastDelta:], uint32(count-1))
	binary.BigEndian.PutUint64(out[posBaseTime:], uint64(baseTime))
	binary.BigEndian.PutUint64(out[posMaxTime:], uint64(maxTime))
	binary.BigEndian.PutUint64(out[posProducerID:], uint64(id))
	binary.BigEndian.PutUint16(out[posProdEpoch:], uint16(epoch))
	binary.BigEndian.PutUint32(out[posBaseSeq:], uint32(seq))
	binary.BigEndian.PutUint32(out[posCount:], uint32(count))
	b := Batch(out)
	b.Stamp(0, NoEpoch)
	b.sign()
	return b
}

// Recompress returns the batch with its records in another codec; header fields but codec, length and CRC are kept.
func (b Batch) Recompress(c Codec, l Level) (Batch, error) {
	decompressing <- struct{}{}
	defer func() { <-decompressing }()
	buf := scratch.Get().(*[]byte)
	defer scratch.Put(buf)
	raw, err := Decompress(b.Codec(), *buf, b.Payload())
	if err != nil {
		return nil, err
	}
	if cap(raw) <= maxScratch {
		*buf = raw[:0]
	}
	out, err := Compress(c, l, append(make([]byte, 0, HeaderSize+len(raw)), b[:HeaderSize]...), raw)
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(out[posLength:], uint32(len(out)-lengthOverhead))
	binary.BigEndian.PutUint16(out[posAttributes:], uint16(b.Attributes())&^attrCodec|uint16(c))
	nb := Batch(out)
	nb.sign()
	return nb, nil
}

func appendVarBytes(p, field []byte) []byte {
	if field == nil {
		return binary.AppendVarint(p, -1)
	}
	return append(binary.AppendVarint(p, int64(len(field))), field...)
}
