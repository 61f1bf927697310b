package producer

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"github.com/everlog/everlog/tier/record"
)

// A transaction marker is a control batch of one record (Kafka's ControlRecordType and EndTransactionMarker):
//
//	key   version int16 = 0, type int16: 0 abort, 1 commit
//	value version int16 = 0, coordinatorEpoch int32
const (
	typeAbort      = 0
	typeCommit     = 1
	markerKeySize  = 4
	markerDataSize = 6
)

type marker struct {
	commit           bool
	coordinatorEpoch int32
}

// parseMarker reads the marker of a control batch. It is false for a control batch that compaction emptied and for
// control types that are not of transactions. Later versions may append fields: what follows the known ones is ignored.
func parseMarker(b record.Batch) (marker, bool, error) {
	if b.Count() == 0 {
		return marker{}, false, nil
	}
	p := b.Payload()
	if _, p = varint(p); len(p) < 1 {
		return marker{}, false, notMarker(b)
	}
	p = p[1:] // attributes
	_, p = varint(p)
	_, p = varint(p)
	key, p := field(p)
	if len(key) < markerKeySize {
		return marker{}, false, notMarker(b)
	}
	kind := int16(binary.BigEndian.Uint16(key[2:]))
	if kind != typeAbort && kind != typeCommit {
		return marker{}, false, nil
	}
	value, _ := field(p)
	if len(value) < markerDataSize {
		return marker{}, false, notMarker(b)
	}
	return marker{commit: kind == typeCommit, coordinatorEpoch: int32(binary.BigEndian.Uint32(value[2:]))}, true, nil
}

func notMarker(b record.Batch) error {
	return fmt.Errorf("%w: control batch at %d is not a marker", record.ErrCorrupt, b.BaseOffset())
}

// varint reads a zigzag varint; at the end of p, or in garbage, it returns nil for the rest.
func varint(p []byte) (int64, []byte) {
	v, n := binary.Varint(p)
	if n <= 0 {
		return 0, nil
	}
	return v, p[n:]
}

// field reads a length and that many bytes; nil if there are not so many.
func field(p []byte) (value, rest []byte) {
	n, p := varint(p)
	if n < 0 || n > int64(len(p)) {
		return nil, nil
	}
	return p[:n], p[n:]
}

// Marker returns the control batch that ends the producer's transaction on a partition, as WriteTxnMarkers appends it:
// offset 0, to be stamped by the leader, timestamp nowMs.
func Marker(id record.ProducerID, epoch record.ProducerEpoch, commit bool, coordinatorEpoch int32, nowMs int64) record.Batch {
	be := binary.BigEndian
	kind := uint16(typeAbort)
	if commit {
		kind = typeCommit
	}
	r := []byte{0} // attributes
	r = binary.AppendVarint(r, 0)
	r = binary.AppendVarint(r, 0)
	r = binary.AppendVarint(r, markerKeySize)
	r = be.AppendUint16(be.AppendUint16(r, 0), kind)
	r = binary.AppendVarint(r, markerDataSize)
	r = be.AppendUint32(be.AppendUint16(r, 0), uint32(coordinatorEpoch))
	r = binary.AppendVarint(r, 0) // headers

	p := make([]byte, 17, record.HeaderSize+len(r)+1) // base offset, length, leader epoch, magic
	p[16] = 2
	p = be.AppendUint32(p, 0)
	p = be.AppendUint16(p, 0x30) // transactional, control
	p = be.AppendUint32(p, 0)
	p = be.AppendUint64(p, uint64(nowMs))
	p = be.AppendUint64(p, uint64(nowMs))
	p = be.AppendUint64(p, uint64(id))
	p = be.AppendUint16(p, uint16(epoch))
	p = be.AppendUint32(p, 0xffffffff) // no sequence
	p = be.AppendUint32(p, 1)
	p = append(binary.AppendVarint(p, int64(len(r))), r...)
	be.PutUint32(p[8:], uint32(len(p)-12))
	be.PutUint32(p[17:], crc32.Checksum(p[21:], castagnoli))
	return record.Batch(p)
}
