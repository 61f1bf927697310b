package segment

import (
	"encoding/binary"
	"hash/crc32"
	"sort"

	"github.com/everlog/everlog/tier/record"
)

// Footer describes a sealed segment. A Footer that was read is complete and consistent: every block follows the one
// before, positions and sizes add up, offsets and epochs only grow. Treat it as immutable once shared.
type Footer struct {
	Identity Identity
	// Base and End are the offsets the segment covers, [Base, End).
	Base, End record.Offset
	// CreatedEpoch is the leader epoch in which the segment was created.
	CreatedEpoch record.LeaderEpoch
	// Sparse says that compaction removed whole batches: blocks and batches may then leave gaps between them.
	Sparse bool
	Blocks []Block
	// Epochs covers [Base, End): the first entry starts at or below Base, the others inside. Empty only if Base == End.
	Epochs []record.EpochStart
	// MinTimestamp and MaxTimestamp are in milliseconds, -1 if no record has one. MaxTimestamp is exact; MinTimestamp is
	// the smallest first timestamp of a batch, and a later record of a batch may be older.
	MinTimestamp, MaxTimestamp int64
	// MaxTimestampOffset is the base offset of the first batch that holds MaxTimestamp, or -1.
	MaxTimestampOffset record.Offset
	// Records counts records, control records included.
	Records int64
	// DataSize is the raw size of all blocks in bytes.
	DataSize int64
	// Aborted holds the aborted transactions that overlap [Base, End), in the order of Last, as far as they were known
	// when the footer was written. A segment shipped below the last stable offset has all of them.
	Aborted []record.AbortedTxn
	// Producers is the producer snapshot at End, opaque here; empty if none was taken.
	Producers []byte
}

// Sizes of the footer's fixed part and of the smallest entries of its sections, for checks before allocating.
const (
	footerFixed  = 120
	minBlockSize = 10
	epochSize    = 12
	abortedSize  = 32

	flagSparse = 1
)

// Find returns the index of the block that contains o, or else of the first block after it; len(Blocks) if none.
func (f *Footer) Find(o record.Offset) int {
	return sort.Search(len(f.Blocks), func(i int) bool { return f.Blocks[i].End > o })
}

// FindTime returns the index of the first block that holds a record with a timestamp of at least ts, in milliseconds;
// len(Blocks) if none.
func (f *Footer) FindTime(ts int64) int {
	for i := range f.Blocks {
		if f.Blocks[i].MaxTimestamp >= ts {
			return i
		}
	}
	return len(f.Blocks)
}

// DataEnd is the position after the last block: where the footer of a sealed segment is, and its data in bytes with the
// header.
func (f *Footer) DataEnd() int64 {
	if n := len(f.Blocks); n > 0 {
		return f.Blocks[n-1].Position + int64(f.Blocks[n-1].Stored)
	}
	return HeaderSize
}

// Encode returns the footer and the tail: what follows the last block. It does not check what ParseFooter checks.
func (f *Footer) Encode() []byte {
	p := make([]byte, 0, footerFixed+len(f.Blocks)*20+len(f.Epochs)*epochSize+len(f.Aborted)*abortedSize+len(f.Producers)+TailSize)
	p = append(p, f.Identity.Cluster[:]...)
	p = append(p, f.Identity.Topic[:]...)
	p = binary.BigEndian.AppendUint32(p, uint32(f.Identity.Partition))
	p = binary.BigEndian.AppendUint32(p, uint32(f.CreatedEpoch))
	for _, v := range []int64{int64(f.Base), int64(f.End), f.Records, f.DataSize, f.MinTimestamp, f.MaxTimestamp, int64(f.MaxTimestampOffset)} {
		p = binary.BigEndian.AppendUint64(p, uint64(v))
	}
	var flags uint32
	if f.Sparse {
		flags |= flagSparse
	}
	for _, v := range []int{int(flags), len(f.Blocks), len(f.Epochs), len(f.Aborted), len(f.Producers), 0} {
		p = binary.BigEndian.AppendUint32(p, uint32(v))
	}
	p = f.appendBlocks(p)
	for _, e := range f.Epochs {
		p = binary.BigEndian.AppendUint32(p, uint32(e.Epoch))
		p = binary.BigEndian.AppendUint64(p, uint64(e.Start))
	}
	for _, a := range f.Aborted {
		for _, v := range [4]int64{int64(a.ProducerID), int64(a.First), int64(a.Last), int64(a.LastStable)} {
			p = binary.BigEndian.AppendUint64(p, uint64(v))
		}
	}
	p = append(p, f.Producers...)
	return f.appendTail(p)
}

// appendBlocks writes the block table: varints, each entry relative to the one before.
func (f *Footer) appendBlocks(p []byte) []byte {
	end, ts := f.Base, int64(0)
	for i := range f.Blocks {
		k := &f.Blocks[i]
		p = binary.AppendUvarint(p, uint64(k.First-end))
		p = binary.AppendUvarint(p, uint64(k.End-k.First))
		p = binary.AppendUvarint(p, uint64(k.Stored))
		p = binary.AppendUvarint(p, uint64(k.Raw))
		p = append(p, byte(k.Encoding))
		p = binary.BigEndian.AppendUint32(p, k.CRC)
		p = binary.AppendVarint(p, k.MaxTimestamp-ts)
		end, ts = k.End, k.MaxTimestamp
	}
	return p
}

// appendTail closes a footer that is all of p.
func (f *Footer) appendTail(p []byte) []byte {
	size := len(p)
	p = binary.BigEndian.AppendUint64(p, uint64(f.DataEnd()))
	p = binary.BigEndian.AppendUint32(p, uint32(size))
	p = binary.BigEndian.AppendUint16(p, Version)
	p = append(p, 0, 0, 0, 0, 0, 0) // flags and reserve: none in version 1
	p = binary.BigEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
	return append(p, tailMagic[:]...)
}
