package record

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// HeaderSize is the size in bytes of a batch's header; its records follow.
const HeaderSize = 61

// Positions of a batch's fields.
//
//	 0 baseOffset int64          outside the CRC: stamped by the leader
//	 8 batchLength int32         bytes after this field
//	12 partitionLeaderEpoch int32 outside the CRC: stamped by the leader
//	16 magic int8                always 2
//	17 crc uint32                CRC-32C of everything from attributes on
//	21 attributes int16          0-2 codec, 3 LogAppendTime, 4 transactional, 5 control, 6 delete horizon
//	23 lastOffsetDelta int32
//	27 baseTimestamp int64       milliseconds
//	35 maxTimestamp int64        milliseconds
//	43 producerId int64
//	51 producerEpoch int16
//	53 baseSequence int32
//	57 count int32
const (
	posLength     = 8
	posEpoch      = 12
	posMagic      = 16
	posCRC        = 17
	posAttributes = 21
	posLastDelta  = 23
	posBaseTime   = 27
	posMaxTime    = 35
	posProducerID = 43
	posProdEpoch  = 51
	posBaseSeq    = 53
	posCount      = 57

	lengthOverhead = 12 // bytes before what batchLength counts
	magicV2        = 2
)

// Attribute bits above the codec.
const (
	attrCodec         = 0x07
	attrLogAppendTime = 0x08
	attrTransactional = 0x10
	attrControl       = 0x20
	attrDeleteHorizon = 0x40
)

// MaxBatchSize bounds the size of one batch that Next accepts: a length beyond it is corruption, not a batch.
const MaxBatchSize = 1 << 30

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Batch is the bytes of exactly one record batch of format v2. The accessors assume at least HeaderSize bytes, which
// Next guarantees. A Batch does not own its bytes.
type Batch []byte

// Next returns the first batch of p and what follows it. It returns ErrShort if p ends before the batch does (also when
// p is empty), and ErrCorrupt if the length or the magic cannot be those of a batch. It does not check the CRC.
func Next(p []byte) (Batch, []byte, error) {
	if len(p) < posMagic+1 {
		return nil, p, ErrShort
	}
	size := int64(int32(binary.BigEndian.Uint32(p[posLength:]))) + lengthOverhead
	if size < HeaderSize || size > MaxBatchSize {
		return nil, p, fmt.Errorf("%w: length %d", ErrCorrupt, size)
	}
	if p[posMagic] != magicV2 {
		return nil, p, fmt.Errorf("%w: magic %d", ErrCorrupt, int8(p[posMagic]))
	}
	if int64(len(p)) < size {
		return nil, p, ErrShort
	}
	return Batch(p[:size:size]), p[size:], nil
}

// Size is the number of bytes of the batch, header included.
func (b Batch) Size() int { return len(b) }

// BaseOffset is the offset of the first record that the batch was written with.
func (b Batch) BaseOffset() Offset { return Offset(binary.BigEndian.Uint64(b)) }

// LastOffset is the offset of the last record (inclusive).
func (b Batch) LastOffset() Offset { return b.BaseOffset() + Offset(b.LastOffsetDelta()) }

// NextOffset is the offset after the last record.
func (b Batch) NextOffset() Offset { return b.LastOffset() + 1 }

// LeaderEpoch is the epoch of the leader that appended the batch.
func (b Batch) LeaderEpoch() LeaderEpoch {
	return LeaderEpoch(binary.BigEndian.Uint32(b[posEpoch:]))
}

// Magic is the format version: 2.
func (b Batch) Magic() int8 { return int8(b[posMagic]) }

// CRC is the stored checksum.
func (b Batch) CRC() uint32 { return binary.BigEndian.Uint32(b[posCRC:]) }

// Attributes are the batch's attribute bits.
func (b Batch) Attributes() int16 { return int16(binary.BigEndian.Uint16(b[posAttributes:])) }

// Codec is the compression of the records.
func (b Batch) Codec() Codec { return Codec(b.Attributes() & attrCodec) }

// LogAppendTime reports whether MaxTimestamp, the broker's clock at append, stands for every record's timestamp.
func (b Batch) LogAppendTime() bool { return b.Attributes()&attrLogAppendTime != 0 }

// IsTransactional reports whether the batch belongs to a transaction.
func (b Batch) IsTransactional() bool { return b.Attributes()&attrTransactional != 0 }

// IsControl reports whether the batch holds a control record, such as a transaction marker.
func (b Batch) IsControl() bool { return b.Attributes()&attrControl != 0 }

// DeleteHorizon is the time in milliseconds from which compaction may remove the batch's tombstones, or its marker; false
// if it is not set (KIP-534). It takes the place of the first timestamp: it is BaseTimestamp too.
func (b Batch) DeleteHorizon() (int64, bool) {
	return b.BaseTimestamp(), b.Attributes()&attrDeleteHorizon != 0
}

// LastOffsetDelta is the last record's offset relative to BaseOffset.
func (b Batch) LastOffsetDelta() int32 { return int32(binary.BigEndian.Uint32(b[posLastDelta:])) }

// BaseTimestamp is what the records' timestamps count from, in milliseconds: the timestamp of the first record, unless
// compaction has removed that or set a delete horizon.
func (b Batch) BaseTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[posBaseTime:])) }

// MaxTimestamp is the largest timestamp of the batch, in milliseconds.
func (b Batch) MaxTimestamp() int64 { return int64(binary.BigEndian.Uint64(b[posMaxTime:])) }

// ProducerID is the producer's id, or NoProducer.
func (b Batch) ProducerID() ProducerID { return ProducerID(binary.BigEndian.Uint64(b[posProducerID:])) }

// ProducerEpoch is the producer's epoch, or -1.
func (b Batch) ProducerEpoch() ProducerEpoch {
	return ProducerEpoch(binary.BigEndian.Uint16(b[posProdEpoch:]))
}

// BaseSequence is the sequence of the first record, or -1.
func (b Batch) BaseSequence() int32 { return int32(binary.BigEndian.Uint32(b[posBaseSeq:])) }

// LastSequence is the sequence of the last record; sequences wrap from 2^31-1 to 0.
func (b Batch) LastSequence() int32 {
	first := b.BaseSequence()
	if first < 0 {
		return first
	}
	return int32((int64(first) + int64(b.LastOffsetDelta())) & 0x7fffffff)
}

// Count is the number of records.
func (b Batch) Count() int32 { return int32(binary.BigEndian.Uint32(b[posCount:])) }

// Payload is the records, compressed as Codec says.
func (b Batch) Payload() []byte { return b[HeaderSize:] }

// Checksum computes the CRC-32C that CRC should hold.
func (b Batch) Checksum() uint32 { return crc32.Checksum(b[posAttributes:], castagnoli) }

// Verify checks the CRC and that the header's counts can be: ErrCorrupt if not.
func (b Batch) Verify() error {
	if sum := b.Checksum(); sum != b.CRC() {
		return fmt.Errorf("%w: CRC-32C is %08x, header says %08x", ErrCorrupt, sum, b.CRC())
	}
	if b.LastOffsetDelta() < 0 {
		return fmt.Errorf("%w: last offset delta %d", ErrCorrupt, b.LastOffsetDelta())
	}
	return nil
}

// Stamp sets the base offset and the leader epoch in place. Both lie outside the CRC.
func (b Batch) Stamp(base Offset, epoch LeaderEpoch) {
	binary.BigEndian.PutUint64(b, uint64(base))
	binary.BigEndian.PutUint32(b[posEpoch:], uint32(epoch))
}

// StampAppendTime makes ms, the broker's clock in milliseconds, the timestamp of every record, and renews the CRC.
func (b Batch) StampAppendTime(ms int64) {
	binary.BigEndian.PutUint16(b[posAttributes:], uint16(b.Attributes()|attrLogAppendTime))
	binary.BigEndian.PutUint64(b[posMaxTime:], uint64(ms))
	b.sign()
}

// SetMaxTimestamp makes ms, in milliseconds, the largest timestamp that the header names, and renews the CRC.
func (b Batch) SetMaxTimestamp(ms int64) {
	binary.BigEndian.PutUint64(b[posMaxTime:], uint64(ms))
	b.sign()
}

func (b Batch) sign() { binary.BigEndian.PutUint32(b[posCRC:], b.Checksum()) }
