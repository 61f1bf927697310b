package segment

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"io"
	"math"

	"github.com/everlog/everlog/tier/record"
)

// tail is the decoded form of the last TailSize bytes.
type tail struct {
	position int64 // of the footer
	size     int64 // of the footer, tail excluded
}

// parseTail checks what must be known before the footer can be read. The CRC is the caller's.
func parseTail(p []byte) (tail, error) {
	if [8]byte(p[TailSize-8:]) != tailMagic {
		return tail{}, ErrNoFooter
	}
	if v := binary.BigEndian.Uint16(p[12:]); v > Version {
		return tail{}, fmt.Errorf("%w %d: this everlog reads up to %d, upgrade it", ErrVersion, v, Version)
	}
	t := tail{position: int64(binary.BigEndian.Uint64(p)), size: int64(binary.BigEndian.Uint32(p[8:]))}
	if t.position < HeaderSize || t.size < footerFixed || t.size > MaxFooterSize {
		return tail{}, fmt.Errorf("%w: footer of %d bytes at %d", ErrCorrupt, t.size, t.position)
	}
	return t, nil
}

// footerGuess is what ReadFooter reads at first: the footer of nearly every segment, so that one GET is enough.
const footerGuess = 64 << 10

// ReadFooter reads the footer of the segment that is the first size bytes of r: in one read if it is small, else in two.
// ErrNoFooter if there is none, ErrVersion if it is newer than this package, ErrCorrupt if it is damaged.
func ReadFooter(r io.ReaderAt, size int64) (*Footer, error) {
	if size < HeaderSize+footerFixed+TailSize {
		return nil, ErrNoFooter
	}
	p := make([]byte, min(size, footerGuess))
	if err := readFull(r, p, size-int64(len(p))); err != nil {
		return nil, fmt.Errorf("read segment tail: %w", err)
	}
	t, err := parseTail(p[len(p)-TailSize:])
	if err != nil {
		return nil, err
	}
	if t.position != size-TailSize-t.size {
		return nil, fmt.Errorf("%w: footer of %d bytes at %d in a segment of %d", ErrCorrupt, t.size, t.position, size)
	}
	if need := int(t.size) + TailSize; need <= len(p) {
		p = p[len(p)-need:]
	} else {
		whole := make([]byte, need)
		rest := need - len(p)
		copy(whole[rest:], p)
		if err := readFull(r, whole[:rest], t.position); err != nil {
			return nil, fmt.Errorf("read segment footer: %w", err)
		}
		p = whole
	}
	return ParseFooter(p)
}

// readFull fills p; a source that ends early is io.ErrUnexpectedEOF.
func readFull(r io.ReaderAt, p []byte, position int64) error {
	n, err := r.ReadAt(p, position)
	if n == len(p) {
		return nil
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// ParseFooter reads exactly the bytes that Encode wrote, footer and tail. It keeps no reference to p. What it allocates
// is bounded by a small multiple of len(p).
func ParseFooter(p []byte) (*Footer, error) {
	if len(p) < footerFixed+TailSize {
		return nil, fmt.Errorf("%w: footer of %d bytes", ErrCorrupt, len(p))
	}
	t, err := parseTail(p[len(p)-TailSize:])
	if err != nil {
		return nil, err
	}
	end := len(p) - TailSize
	if int64(end) != t.size {
		return nil, fmt.Errorf("%w: footer of %d bytes, tail says %d", ErrCorrupt, end, t.size)
	}
	if sum := crc32.Checksum(p[:len(p)-12], castagnoli); sum != binary.BigEndian.Uint32(p[len(p)-12:]) {
		return nil, fmt.Errorf("%w: footer checksum", ErrCorrupt)
	}
	if v := binary.BigEndian.Uint16(p[end+12:]); v == 0 || [6]byte(p[end+14:]) != [6]byte{} {
		return nil, fmt.Errorf("%w: tail version %d, flags %x", ErrCorrupt, v, p[end+14:end+20])
	}
	f, err := parseBody(p[:end])
	if err != nil {
		return nil, err
	}
	if f.DataEnd() != t.position {
		return nil, fmt.Errorf("%w: blocks end at %d, footer is at %d", ErrCorrupt, f.DataEnd(), t.position)
	}
	return f, nil
}

// parseBody reads the fixed part and the sections.
func parseBody(p []byte) (*Footer, error) {
	at := func(i int) int64 { return int64(binary.BigEndian.Uint64(p[i:])) }
	count := func(i int) int64 { return int64(binary.BigEndian.Uint32(p[i:])) }
	f := &Footer{
		CreatedEpoch: record.LeaderEpoch(binary.BigEndian.Uint32(p[36:])),
		Base:         record.Offset(at(40)), End: record.Offset(at(48)), Records: at(56), DataSize: at(64),
		MinTimestamp: at(72), MaxTimestamp: at(80), MaxTimestampOffset: record.Offset(at(88)),
	}
	copy(f.Identity.Cluster[:], p)
	copy(f.Identity.Topic[:], p[16:])
	f.Identity.Partition = int32(binary.BigEndian.Uint32(p[32:]))
	flags, blocks, epochs, aborted, producers := count(96), count(100), count(104), count(108), count(112)
	f.Sparse = flags&flagSparse != 0
	if flags&^flagSparse != 0 || count(116) != 0 || f.Base < 0 || f.End < f.Base || f.Records < 0 || f.Identity.Partition < 0 {
		return nil, fmt.Errorf("%w: footer of [%d, %d), partition %d, %d records, flags %#x", ErrCorrupt, f.Base, f.End, f.Identity.Partition, f.Records, flags)
	}
	rest := p[footerFixed:]
	if blocks*minBlockSize+epochs*epochSize+aborted*abortedSize+producers > int64(len(rest)) {
		return nil, fmt.Errorf("%w: footer counts %d blocks, %d epochs, %d transactions, %d producer bytes in %d bytes", ErrCorrupt, blocks, epochs, aborted, producers, len(rest))
	}
	rest, err := f.parseBlocks(rest, int(blocks))
	if err != nil {
		return nil, err
	}
	if int64(len(rest)) != epochs*epochSize+aborted*abortedSize+producers {
		return nil, fmt.Errorf("%w: %d bytes of footer sections", ErrCorrupt, len(rest))
	}
	rest = f.parseEpochs(rest, int(epochs))
	rest = f.parseAborted(rest, int(aborted))
	if producers > 0 {
		f.Producers = append([]byte(nil), rest...)
	}
	return f, f.check()
}

func (f *Footer) parseBlocks(p []byte, n int) ([]byte, error) {
	if n > 0 {
		f.Blocks = make([]Block, n)
	}
	end, position, ts, raw := f.Base, int64(HeaderSize), int64(0), int64(0)
	for i := range f.Blocks {
		d := decoder{p: p}
		gap, length, stored, size := d.uvarint(), d.uvarint(), d.uvarint(), d.uvarint()
		encoding, crc := Encoding(d.byte()), d.uint32()
		ts += d.varint()
		left := uint64(f.End - end)
		if d.bad || gap > left || length == 0 || length > left-gap || stored == 0 || stored > MaxBlockSize ||
			size < record.HeaderSize || size > MaxBlockSize || encoding > Zstd || encoding == Raw && stored != size {
			return nil, fmt.Errorf("%w: block %d of the table", ErrCorrupt, i)
		}
		if gap > 0 && !f.Sparse {
			return nil, fmt.Errorf("%w: gap of %d offsets before block %d", ErrCorrupt, gap, i)
		}
		first := end + record.Offset(gap)
		end = first + record.Offset(length)
		f.Blocks[i] = Block{First: first, End: end, Position: position, Stored: int32(stored), Raw: int32(size), Encoding: encoding, CRC: crc, MaxTimestamp: ts}
		position += int64(stored)
		raw += int64(size)
		p = d.p
	}
	if raw != f.DataSize || end != f.End && !f.Sparse {
		return nil, fmt.Errorf("%w: blocks hold %d bytes up to offset %d, footer says %d up to %d", ErrCorrupt, raw, end, f.DataSize, f.End)
	}
	return p, nil
}

func (f *Footer) parseEpochs(p []byte, n int) []byte {
	if n > 0 {
		f.Epochs = make([]record.EpochStart, n)
	}
	for i := range f.Epochs {
		f.Epochs[i] = record.EpochStart{Epoch: record.LeaderEpoch(binary.BigEndian.Uint32(p)), Start: record.Offset(binary.BigEndian.Uint64(p[4:]))}
		p = p[epochSize:]
	}
	return p
}

func (f *Footer) parseAborted(p []byte, n int) []byte {
	if n > 0 {
		f.Aborted = make([]record.AbortedTxn, n)
	}
	for i := range f.Aborted {
		at := func(j int) record.Offset { return record.Offset(binary.BigEndian.Uint64(p[8*j:])) }
		f.Aborted[i] = record.AbortedTxn{ProducerID: record.ProducerID(at(0)), First: at(1), Last: at(2), LastStable: at(3)}
		p = p[abortedSize:]
	}
	return p
}

// check verifies what the sections promise each other.
func (f *Footer) check() error {
	if len(f.Epochs) == 0 && f.End > f.Base {
		return fmt.Errorf("%w: no leader epoch for [%d, %d)", ErrCorrupt, f.Base, f.End)
	}
	for i, e := range f.Epochs {
		switch {
		case e.Epoch < 0 || e.Start < 0 || i > 0 && (e.Epoch <= f.Epochs[i-1].Epoch || e.Start <= f.Epochs[i-1].Start),
			i == 0 && e.Start > f.Base, i > 0 && (e.Start <= f.Base || e.Start >= f.End):
			return fmt.Errorf("%w: leader epoch %d from offset %d in [%d, %d)", ErrCorrupt, e.Epoch, e.Start, f.Base, f.End)
		}
	}
	latest := int64(noTimestamp)
	for i := range f.Blocks {
		latest = max(latest, f.Blocks[i].MaxTimestamp)
	}
	if latest != f.MaxTimestamp {
		return fmt.Errorf("%w: largest timestamp of a block is %d, footer says %d", ErrCorrupt, latest, f.MaxTimestamp)
	}
	last := record.Offset(math.MinInt64)
	for _, a := range f.Aborted {
		if a.First < 0 || a.First > a.Last || a.First >= f.End || a.Last < f.Base || a.Last < last {
			return fmt.Errorf("%w: aborted transaction [%d, %d] in [%d, %d)", ErrCorrupt, a.First, a.Last, f.Base, f.End)
		}
		last = a.Last
	}
	return nil
}

// decoder reads a byte slice from the front and remembers whether it ran out.
type decoder struct {
	p   []byte
	bad bool
}

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.p)
	return take(d, v, n)
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.p)
	return take(d, v, n)
}

func (d *decoder) byte() byte {
	if len(d.p) == 0 {
		return take(d, byte(0), 0)
	}
	return take(d, d.p[0], 1)
}

func (d *decoder) uint32() uint32 {
	if len(d.p) < 4 {
		return take(d, uint32(0), 0)
	}
	return take(d, binary.BigEndian.Uint32(d.p), 4)
}

// take consumes n bytes; n <= 0 marks the input as bad.
func take[T any](d *decoder, v T, n int) T {
	if n <= 0 {
		d.bad = true
		var zero T
		return zero
	}
	d.p = d.p[n:]
	return v
}
