package segment

import (
	"fmt"
	"hash/crc32"
	"sync"

	"github.com/klauspost/compress/zstd"
)

// One encoder and one decoder serve the process: both are safe for concurrent use by EncodeAll and DecodeAll, and keep
// as many states as there are processors.
var (
	encoder = sync.OnceValue(func() *zstd.Encoder {
		e, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderCRC(false), zstd.WithSingleSegment(true))
		if err != nil {
			panic(err) // the options are constant
		}
		return e
	})
	frameDecoder = sync.OnceValue(func() *zstd.Decoder {
		d, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(0), zstd.WithDecodeAllCapLimit(true), zstd.WithDecoderMaxMemory(MaxBlockSize))
		if err != nil {
			panic(err)
		}
		return d
	})
)

// DecodeBlock checks the stored bytes of block b against its checksum and returns its batches. A raw block is stored
// itself, not copied; a compressed one is decoded into dst's memory, which grows if it must. ErrCorrupt if the bytes are
// not the block's. It never allocates more than b.Raw bytes. Safe for concurrent use.
func DecodeBlock(dst, stored []byte, b Block) ([]byte, error) {
	if len(stored) != int(b.Stored) || crc32.Checksum(stored, castagnoli) != b.CRC {
		return nil, fmt.Errorf("%w: %d stored bytes do not match the checksum of block [%d, %d)", ErrCorrupt, len(stored), b.First, b.End)
	}
	switch b.Encoding {
	case Raw:
		return stored, nil
	case Zstd:
	default:
		return nil, fmt.Errorf("%w: block [%d, %d) has %v", ErrVersion, b.First, b.End, b.Encoding)
	}
	var h zstd.Header
	if err := h.Decode(stored); err != nil || !h.HasFCS || b.Raw < 0 || h.FrameContentSize != uint64(b.Raw) {
		return nil, fmt.Errorf("%w: block [%d, %d) holds another zstd frame than the table says", ErrCorrupt, b.First, b.End)
	}
	if cap(dst) < int(b.Raw) {
		dst = make([]byte, 0, b.Raw)
	}
	p, err := frameDecoder().DecodeAll(stored, dst[:0:b.Raw])
	if err != nil || len(p) != int(b.Raw) {
		return nil, fmt.Errorf("%w: block [%d, %d): %d of %d bytes decoded: %v", ErrCorrupt, b.First, b.End, len(p), b.Raw, err)
	}
	return p, nil
}

// Sampling: what is compressed of a block to learn whether the rest is worth it, and how many blocks are stored raw
// without asking after failures in a row.
const (
	samplePieces = 4
	samplePiece  = 4 << 10
	sampleMin    = 4 * samplePieces * samplePiece // smaller blocks are tried whole
	maxBackoff   = 15
)

// sampler decides which blocks to compress, so that incompressible data (most of it compressed by producers) costs next
// to nothing: a block is sampled first, and each failure doubles the number of blocks that are not even sampled.
type sampler struct {
	skip, backoff  int
	sample, result []byte
}

// worth reports whether to compress the block. Blocks that producers compressed are sampled at the longest interval from
// the start: many small compressed batches may still share much.
func (s *sampler) worth(raw []byte, compressed bool, minSaving float64) bool {
	if minSaving >= 1 {
		return false
	}
	if s.skip > 0 {
		s.skip--
		return false
	}
	if compressed {
		s.backoff = maxBackoff
	}
	if len(raw) < sampleMin {
		return true
	}
	s.sample = s.sample[:0]
	for i := range samplePieces {
		at := (len(raw) - samplePiece) / (samplePieces - 1) * i
		s.sample = append(s.sample, raw[at:at+samplePiece]...)
	}
	s.result = encoder().EncodeAll(s.sample, s.result[:0])
	// A sample sees less of what repeats than the block: half the saving is promise enough.
	if float64(len(s.result)) > float64(len(s.sample))*(1-minSaving/2) {
		s.learn(false)
		return false
	}
	return true
}

// learn takes in whether the last block tried was worth it.
func (s *sampler) learn(saves bool) {
	if saves {
		s.backoff = 0
		return
	}
	s.backoff = min(2*s.backoff+1, maxBackoff)
	s.skip = s.backoff
}
