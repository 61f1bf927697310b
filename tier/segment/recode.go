package segment

import (
	"fmt"
	"hash/crc32"
	"io"

	"github.com/everlog/everlog/tier/record"
)

// RecodeOptions say what part of a segment Recode copies, and how. The zero value copies all of it.
type RecodeOptions struct {
	// From and To cut the result to [From, To); both must be batch borders. A From below the segment's base means the
	// base, a To of 0 the segment's end.
	From, To record.Offset
	// MinSaving is the part of a block's bytes that zstd must save for the block to be stored compressed; default 0.1.
	// At 1 or more nothing is compressed.
	MinSaving float64
	// Aborted replaces the footer's aborted transactions if it is not nil: a shipper below the last stable offset knows
	// all that overlap. Those outside [From, To) are left out in any case.
	Aborted []record.AbortedTxn
	// Producers is the producer snapshot at To, if the caller has one. Otherwise the footer's is carried if To is its
	// End, and none if it is not.
	Producers []byte
}

// Recode copies a sealed segment from src to w as an object: every block compressed where that pays, every batch byte
// for byte. On the way it verifies the header against f, every block's and every batch's checksum, that offsets and
// epochs continue as f says, and that src holds nothing else. It reads and writes block by block and holds two blocks in
// memory. It returns the result's footer, its size in bytes, and the CRC-32C of all of it.
//
// ErrCorrupt if src is not what f describes, ErrBorder if a cut is not a batch border or leaves nothing. After an error
// what w was given is worthless.
func Recode(w io.Writer, src io.ReaderAt, f *Footer, o RecodeOptions) (*Footer, int64, uint32, error) {
	from, to := max(o.From, f.Base), o.To
	if to == 0 {
		to = f.End
	}
	if from >= to || to > f.End {
		return nil, 0, 0, fmt.Errorf("%w: cut [%d, %d) of segment [%d, %d)", ErrBorder, from, to, f.Base, f.End)
	}
	s, err := newScanner(src, f)
	if err != nil {
		return nil, 0, 0, err
	}
	out := &output{w: w, minSaving: o.MinSaving}
	if out.minSaving == 0 {
		out.minSaving = 0.1
	}
	if err := out.write(appendHeader(nil, f.Identity, from, f.CreatedEpoch)); err != nil {
		return nil, 0, 0, err
	}
	r := &Footer{Identity: f.Identity, Base: from, End: to, CreatedEpoch: f.CreatedEpoch, Sparse: f.Sparse}
	var sums totals
	for i := f.Find(from); i < len(f.Blocks) && f.Blocks[i].First < to; i++ {
		raw, k, err := s.block(i, from, to, &sums)
		if err != nil {
			return nil, 0, 0, err
		}
		if len(raw) == 0 {
			continue
		}
		if err := out.block(raw, &k, s.compressed); err != nil {
			return nil, 0, 0, err
		}
		r.Blocks = append(r.Blocks, k)
	}
	sums.apply(r)
	r.Epochs = clipEpochs(f.Epochs, from, to)
	r.Aborted = clipAborted(f.Aborted, o.Aborted, from, to)
	r.Producers = o.Producers
	if r.Producers == nil && to == f.End {
		r.Producers = f.Producers
	}
	if err := out.write(r.Encode()); err != nil {
		return nil, 0, 0, err
	}
	return r, out.size, out.crc, nil
}

// Verify reads a whole sealed segment and checks all that Recode does. ErrCorrupt names the first damage.
func Verify(src io.ReaderAt, f *Footer) error {
	s, err := newScanner(src, f)
	if err != nil {
		return err
	}
	var sums totals
	for i := range f.Blocks {
		if _, _, err := s.block(i, f.Base, f.End, &sums); err != nil {
			return err
		}
	}
	want := *f
	sums.apply(&want)
	if want.Records != f.Records || want.MinTimestamp != f.MinTimestamp || want.MaxTimestamp != f.MaxTimestamp || want.MaxTimestampOffset != f.MaxTimestampOffset {
		return fmt.Errorf("%w: %d records from %d to %d ms, footer says %d from %d to %d", ErrCorrupt,
			want.Records, want.MinTimestamp, want.MaxTimestamp, f.Records, f.MinTimestamp, f.MaxTimestamp)
	}
	return nil
}

// scanner reads the blocks of a segment in order and checks every batch.
type scanner struct {
	src         io.ReaderAt
	f           *Footer
	epoch       int // index into f.Epochs of the batch before
	stored, raw []byte
	// compressed reports whether the producers had compressed most of the block last read.
	compressed bool
}

func newScanner(src io.ReaderAt, f *Footer) (*scanner, error) {
	id, base, epoch, err := ReadHeader(src)
	if err != nil {
		return nil, err
	}
	if id != f.Identity || base != f.Base || epoch != f.CreatedEpoch {
		return nil, fmt.Errorf("%w: header is of partition %d of %s at %d, epoch %d; footer of partition %d of %s at %d, epoch %d", ErrCorrupt,
			id.Partition, id.Topic, base, epoch, f.Identity.Partition, f.Identity.Topic, f.Base, f.CreatedEpoch)
	}
	return &scanner{src: src, f: f}, nil
}

// block reads block i whole, checks it, and returns what lies in [from, to) with its entry as a raw block, not yet
// placed. The bytes are valid until the next call. Batches in [from, to) are added to sums.
func (s *scanner) block(i int, from, to record.Offset, sums *totals) ([]byte, Block, error) {
	in := s.f.Blocks[i]
	if cap(s.stored) < int(in.Stored) {
		s.stored = make([]byte, in.Stored)
	}
	s.stored = s.stored[:in.Stored]
	if err := readFull(s.src, s.stored, in.Position); err != nil {
		return nil, Block{}, fmt.Errorf("read block %d at %d: %w", i, in.Position, err)
	}
	raw := s.stored
	if in.Encoding != Raw {
		var err error
		if s.raw, err = DecodeBlock(s.raw, s.stored, in); err != nil {
			return nil, Block{}, fmt.Errorf("block %d at %d: %w", i, in.Position, err)
		}
		raw = s.raw
	}
	out := Block{MaxTimestamp: noTimestamp}
	first, last, crc, err := s.batches(raw, in, from, to, sums, &out)
	if err != nil {
		return nil, Block{}, fmt.Errorf("block %d at %d: %w", i, in.Position, err)
	}
	if in.Encoding == Raw && crc != in.CRC {
		return nil, Block{}, fmt.Errorf("%w: block %d at %d has another checksum than the footer says", ErrCorrupt, i, in.Position)
	}
	if out.CRC = crc; last-first < len(raw) {
		out.CRC = crc32.Checksum(raw[first:last], castagnoli)
	}
	out.Raw, out.Stored = int32(last-first), int32(last-first)
	return raw[first:last], out, nil
}

// batches walks the batches of a block. It returns the positions in raw between which [from, to) lies, and the CRC of
// raw as its batches' checksums make it.
func (s *scanner) batches(raw []byte, in Block, from, to record.Offset, sums *totals, out *Block) (first, last int, crc uint32, err error) {
	next, compressed := in.First, 0
	latest := int64(noTimestamp)
	for p := raw; len(p) > 0; {
		b, rest, err := record.Next(p)
		if err == nil {
			err = b.Verify()
		}
		if err == nil {
			err = s.continues(b, in, next)
		}
		if err != nil {
			return 0, 0, 0, fmt.Errorf("%w: batch at byte %d, offset %d: %w", ErrCorrupt, len(raw)-len(p), next, err)
		}
		if b.Codec() != record.None {
			compressed += len(b)
		}
		base, end := b.BaseOffset(), b.NextOffset()
		if base < from && end > from || base < to && end > to {
			return 0, 0, 0, fmt.Errorf("%w: cut [%d, %d) divides batch [%d, %d)", ErrBorder, from, to, base, end)
		}
		if base >= from && base < to {
			if last == 0 {
				first, out.First = len(raw)-len(p), base
			}
			last, out.End = len(raw)-len(rest), end
			out.MaxTimestamp = max(out.MaxTimestamp, latestIn(b))
			sums.add(b)
		}
		latest = max(latest, latestIn(b))
		crc = addBatch(crc, b)
		next, p = end, rest
	}
	if next != in.End || latest != in.MaxTimestamp {
		return 0, 0, 0, fmt.Errorf("%w: batches end at offset %d, latest at %d ms; the footer says %d, %d", ErrCorrupt, next, latest, in.End, in.MaxTimestamp)
	}
	s.compressed = compressed > len(raw)/2
	return first, last, crc, nil
}

// continues checks a batch against the one before and against the footer's epochs.
func (s *scanner) continues(b record.Batch, in Block, next record.Offset) error {
	base, end := b.BaseOffset(), b.NextOffset()
	if base < next || base > next && (!s.f.Sparse || next == in.First) || end > in.End {
		return fmt.Errorf("%w: offsets [%d, %d)", ErrOrder, base, end)
	}
	epochs := s.f.Epochs
	for s.epoch+1 < len(epochs) && epochs[s.epoch+1].Start <= base {
		s.epoch++
	}
	if s.epoch >= len(epochs) || epochs[s.epoch].Epoch != b.LeaderEpoch() || s.epoch+1 < len(epochs) && epochs[s.epoch+1].Start < end {
		return fmt.Errorf("%w: leader epoch %d, the footer says otherwise", ErrOrder, b.LeaderEpoch())
	}
	return nil
}

// clipEpochs returns the epochs that cover [from, to).
func clipEpochs(epochs []record.EpochStart, from, to record.Offset) []record.EpochStart {
	var out []record.EpochStart
	for i, e := range epochs {
		if e.Start < to && (i+1 == len(epochs) || epochs[i+1].Start > from) {
			out = append(out, e)
		}
	}
	return out
}

// clipAborted returns the aborted transactions that overlap [from, to): of the replacement if there is one.
func clipAborted(known, replacement []record.AbortedTxn, from, to record.Offset) []record.AbortedTxn {
	if replacement != nil {
		known = replacement
	}
	var out []record.AbortedTxn
	for _, a := range known {
		if a.First < to && a.Last >= from {
			out = append(out, a)
		}
	}
	return out
}

// output writes an object and keeps its size and checksum.
type output struct {
	w         io.Writer
	size      int64
	crc       uint32
	minSaving float64
	sampler   sampler
	buffer    []byte
}

// block places one raw block, compressed if that pays.
func (o *output) block(raw []byte, k *Block, compressed bool) error {
	stored := raw
	if o.sampler.worth(raw, compressed, o.minSaving) {
		o.buffer = encoder().EncodeAll(raw, o.buffer[:0])
		saves := float64(len(o.buffer)) <= float64(len(raw))*(1-o.minSaving)
		o.sampler.learn(saves)
		if saves {
			stored = o.buffer
			k.Encoding, k.Stored, k.CRC = Zstd, int32(len(stored)), crc32.Checksum(stored, castagnoli)
		}
	}
	k.Position = o.size
	return o.writeSummed(stored, k.CRC)
}

func (o *output) write(p []byte) error { return o.writeSummed(p, crc32.Checksum(p, castagnoli)) }

// writeSummed writes p, whose CRC-32C is known.
func (o *output) writeSummed(p []byte, crc uint32) error {
	if _, err := o.w.Write(p); err != nil {
		return fmt.Errorf("write segment at %d: %w", o.size, err)
	}
	o.crc = concat(o.crc, crc, int64(len(p)))
	o.size += int64(len(p))
	return nil
}
