// Package segment owns the segment format: how a run of record batches of one partition lies in a local file and in an
// object of the store, and the block table, time range, epochs, aborted transactions and producer snapshot that its
// footer carries. FORMAT.md is its map; change both in one commit.
//
// It does no I/O of its own beyond the io.ReaderAt and io.Writer it is given, and knows nothing of files, stores or
// manifests. ingest/hotlog writes local segments with a Builder and reads them with a Footer; tier/ship turns them into
// objects with Recode; tier/fetch and cache read objects with ReadFooter and DecodeBlock; compaction writes new ones.
package segment

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/everlog/everlog/tier/record"
)

// Version is the format version this package writes. Readers read every version up to it.
const Version = 1

// Sizes of the format.
const (
	// HeaderSize is the size in bytes of the header; the first block starts there.
	HeaderSize = 64
	// TailSize is the size in bytes of the tail, the last bytes of a sealed segment.
	TailSize = 32
	// BlockTarget is the raw size in bytes at which a writer closes a block, at the next batch border. Readers do not
	// depend on it: a cut segment has a shorter first block.
	BlockTarget = 256 << 10
	// MaxBlockSize bounds the raw and the stored size of a block: one byte short of the target, then the largest batch.
	MaxBlockSize = BlockTarget + record.MaxBatchSize
	// MaxFooterSize bounds a footer, so that a damaged tail cannot make a reader allocate without limit.
	MaxFooterSize = 256 << 20
)

var (
	headerMagic = [8]byte{'e', 'v', 'e', 'r', 'l', 'o', 'g', 'S'}
	tailMagic   = [8]byte{'e', 'v', 'e', 'r', 'l', 'o', 'g', 'F'}
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var (
	// ErrCorrupt means that bytes are not what a writer of this format wrote.
	ErrCorrupt = errors.New("corrupt segment")
	// ErrNoFooter means that the segment does not end in a tail: it is active, or was when its writer stopped.
	ErrNoFooter = errors.New("segment has no footer")
	// ErrVersion means that a newer everlog wrote the segment.
	ErrVersion = errors.New("unknown segment format version")
	// ErrOrder means that a batch does not continue the segment: its base offset is not the next one, its offsets run
	// backwards, or its leader epoch is older than the batch before.
	ErrOrder = errors.New("batch out of order")
	// ErrBorder means that a cut was asked for inside a batch, or outside the segment.
	ErrBorder = errors.New("not a batch border")
)

// Identity says which log a segment belongs to. A segment is never read for another one.
type Identity struct {
	Cluster   [16]byte
	Topic     record.TopicID
	Partition int32
}

// Encoding is how a block is stored.
type Encoding uint8

// The encodings of version 1.
const (
	Raw  Encoding = 0 // the batches as they are
	Zstd Encoding = 1 // one zstd frame (RFC 8878) that states its content size
)

// String returns the encoding's name.
func (e Encoding) String() string {
	switch e {
	case Raw:
		return "raw"
	case Zstd:
		return "zstd"
	}
	return fmt.Sprintf("encoding(%d)", uint8(e))
}

// Block is one entry of the block table: a run of whole batches, checked and compressed as one.
type Block struct {
	// First is the base offset of the first batch, End the offset after the last one.
	First, End record.Offset
	// Position counts from the start of the segment.
	Position int64
	// Stored and Raw are sizes in bytes, as stored and decoded.
	Stored, Raw int32
	Encoding    Encoding
	// CRC is the CRC-32C of the stored bytes.
	CRC uint32
	// MaxTimestamp is the largest record timestamp of the block in milliseconds, or -1 if no record has one.
	MaxTimestamp int64
}

// appendHeader appends the HeaderSize bytes of a header to p.
func appendHeader(p []byte, id Identity, base record.Offset, epoch record.LeaderEpoch) []byte {
	start := len(p)
	p = append(p, headerMagic[:]...)
	p = binary.BigEndian.AppendUint16(p, Version)
	p = binary.BigEndian.AppendUint16(p, 0) // flags: none in version 1
	p = binary.BigEndian.AppendUint32(p, uint32(id.Partition))
	p = append(p, id.Cluster[:]...)
	p = append(p, id.Topic[:]...)
	p = binary.BigEndian.AppendUint64(p, uint64(base))
	p = binary.BigEndian.AppendUint32(p, uint32(epoch))
	return binary.BigEndian.AppendUint32(p, crc32.Checksum(p[start:], castagnoli))
}

// ReadHeader reads and checks the header at the start of r. A segment shorter than a header is ErrCorrupt; a newer
// version is ErrVersion.
func ReadHeader(r io.ReaderAt) (Identity, record.Offset, record.LeaderEpoch, error) {
	var p [HeaderSize]byte
	if n, err := r.ReadAt(p[:], 0); n < len(p) {
		if err == io.EOF {
			err = fmt.Errorf("%w: %d bytes where the header should be", ErrCorrupt, n)
		}
		return Identity{}, 0, 0, fmt.Errorf("read segment header: %w", err)
	}
	return parseHeader(p[:])
}

func parseHeader(p []byte) (id Identity, base record.Offset, epoch record.LeaderEpoch, err error) {
	if [8]byte(p[:8]) != headerMagic {
		return id, 0, 0, fmt.Errorf("%w: header magic %x", ErrCorrupt, p[:8])
	}
	if v := binary.BigEndian.Uint16(p[8:]); v > Version {
		return id, 0, 0, fmt.Errorf("%w %d: this everlog reads up to %d, upgrade it", ErrVersion, v, Version)
	}
	if sum := crc32.Checksum(p[:HeaderSize-4], castagnoli); sum != binary.BigEndian.Uint32(p[HeaderSize-4:]) {
		return id, 0, 0, fmt.Errorf("%w: header checksum", ErrCorrupt)
	}
	id.Partition = int32(binary.BigEndian.Uint32(p[12:]))
	copy(id.Cluster[:], p[16:])
	copy(id.Topic[:], p[32:])
	base = record.Offset(binary.BigEndian.Uint64(p[48:]))
	epoch = record.LeaderEpoch(binary.BigEndian.Uint32(p[56:]))
	if v, flags := binary.BigEndian.Uint16(p[8:]), binary.BigEndian.Uint16(p[10:]); v == 0 || flags != 0 || base < 0 || id.Partition < 0 {
		return id, 0, 0, fmt.Errorf("%w: header version %d, flags %#x, base offset %d, partition %d", ErrCorrupt, v, flags, base, id.Partition)
	}
	return id, base, epoch, nil
}
