package segment

import (
	"fmt"

	"github.com/everlog/everlog/tier/record"
)

// BatchPosition says where a batch begins: Offset is its base offset, Position counts from the start of the segment.
type BatchPosition struct {
	Offset   record.Offset
	Position int64
}

// Builder keeps the block table of a raw segment while its batches are appended, so that sealing it reads nothing back.
// It holds no record bytes and does no I/O. Not safe for concurrent use.
type Builder struct {
	id      Identity
	base    record.Offset
	created record.LeaderEpoch

	next     record.Offset // base offset the next batch must have
	position int64         // where it goes
	sparse   bool
	blocks   []Block // closed
	open     Block   // being filled; empty if Raw is 0
	batches  []BatchPosition
	epochs   []record.EpochStart
	totals   totals

	// What Checkpoint reports: the state when the last block closed.
	closedTotals totals
	closedEpochs int
}

// totals are the sums and extremes of a segment's batches.
type totals struct {
	records         int64
	size            int64
	minTime         int64
	maxTime         int64
	maxTimeOffset   record.Offset
	maxTimeRecorded bool
}

// noTimestamp is what a batch without timestamps has.
const noTimestamp = -1

// latestIn is the largest timestamp of a batch's records. The header of a batch that compaction has emptied still names the
// one it had.
func latestIn(b record.Batch) int64 {
	if b.Count() == 0 {
		return noTimestamp
	}
	return b.MaxTimestamp()
}

// add counts one batch.
func (t *totals) add(b record.Batch) {
	t.records += int64(b.Count())
	t.size += int64(len(b))
	latest := latestIn(b)
	if latest < 0 {
		return
	}
	first := b.BaseTimestamp()
	if _, horizon := b.DeleteHorizon(); horizon || b.LogAppendTime() || first < 0 || first > latest {
		first = latest
	}
	if !t.maxTimeRecorded || first < t.minTime {
		t.minTime = first
	}
	if !t.maxTimeRecorded || latest > t.maxTime {
		t.maxTime, t.maxTimeOffset = latest, b.BaseOffset()
	}
	t.maxTimeRecorded = true
}

// apply writes the totals into a footer.
func (t *totals) apply(f *Footer) {
	f.Records, f.DataSize = t.records, t.size
	f.MinTimestamp, f.MaxTimestamp, f.MaxTimestampOffset = noTimestamp, noTimestamp, noTimestamp
	if t.maxTimeRecorded {
		f.MinTimestamp, f.MaxTimestamp, f.MaxTimestampOffset = t.minTime, t.maxTime, t.maxTimeOffset
	}
}

// totalsOf is the reverse of apply.
func totalsOf(f *Footer) totals {
	return totals{
		records: f.Records, size: f.DataSize, maxTimeRecorded: f.MaxTimestamp >= 0,
		minTime: f.MinTimestamp, maxTime: f.MaxTimestamp, maxTimeOffset: f.MaxTimestampOffset,
	}
}

// NewBuilder starts a segment whose first record has offset base, created by the leader of epoch (for a follower, the
// epoch it follows).
func NewBuilder(id Identity, base record.Offset, epoch record.LeaderEpoch) *Builder {
	return &Builder{id: id, base: base, created: epoch, next: base, position: HeaderSize}
}

// Resume continues a segment of raw blocks from what Checkpoint, or the footer of a sealed segment, says of it: the next
// batch goes to f.End. It keeps no reference to f.
func Resume(f *Footer) *Builder {
	b := NewBuilder(f.Identity, f.Base, f.CreatedEpoch)
	b.next, b.sparse = f.End, f.Sparse
	b.blocks = append(b.blocks, f.Blocks...)
	b.epochs = append(b.epochs, f.Epochs...)
	b.totals = totalsOf(f)
	b.position += b.totals.size
	b.closedTotals, b.closedEpochs = b.totals, len(b.epochs)
	return b
}

// Header returns the HeaderSize bytes for position 0.
func (b *Builder) Header() []byte {
	return appendHeader(make([]byte, 0, HeaderSize), b.id, b.base, b.created)
}

// Add accounts one batch, stamped and verified (its CRC is relied on, not computed again), that is or will be written at
// Position. It closes the block when the target is reached: Blocks then has one more. ErrOrder if the batch does not
// continue the segment; nothing changed then.
func (b *Builder) Add(batch record.Batch) error {
	first, end, epoch := batch.BaseOffset(), batch.NextOffset(), batch.LeaderEpoch()
	if first != b.next || end <= first {
		return fmt.Errorf("%w: offsets [%d, %d) where %d is next", ErrOrder, first, end, b.next)
	}
	n := len(b.epochs)
	if epoch < 0 || n > 0 && epoch < b.epochs[n-1].Epoch {
		return fmt.Errorf("%w: leader epoch %d at offset %d", ErrOrder, epoch, first)
	}
	if n == 0 {
		b.epochs = append(b.epochs, record.EpochStart{Epoch: epoch, Start: b.base})
	} else if epoch > b.epochs[n-1].Epoch {
		b.epochs = append(b.epochs, record.EpochStart{Epoch: epoch, Start: first})
	}
	if b.open.Raw == 0 {
		b.open = Block{First: first, Position: b.position, MaxTimestamp: noTimestamp}
		b.batches = b.batches[:0]
	}
	b.batches = append(b.batches, BatchPosition{Offset: first, Position: b.position})
	b.open.extend(batch)
	b.totals.add(batch)
	b.next = end
	b.position += int64(len(batch))
	if b.open.Raw >= BlockTarget {
		b.close()
	}
	return nil
}

// extend adds a batch to a raw block.
func (k *Block) extend(batch record.Batch) {
	k.End = batch.NextOffset()
	k.CRC = addBatch(k.CRC, batch)
	k.Raw += int32(len(batch))
	k.Stored = k.Raw
	k.MaxTimestamp = max(k.MaxTimestamp, latestIn(batch))
}

// Skip says that the offsets up to to have no batches, because compaction removed them: the next batch starts there. It
// makes the segment sparse. Skipping backwards does nothing.
func (b *Builder) Skip(to record.Offset) {
	if to > b.next {
		b.next, b.sparse = to, true
	}
}

// close moves the open block to the table.
func (b *Builder) close() {
	b.blocks = append(b.blocks, b.open)
	b.open = Block{}
	b.closedTotals, b.closedEpochs = b.totals, len(b.epochs)
}

// Position is where the next batch goes, from the start of the segment.
func (b *Builder) Position() int64 { return b.position }

// Next is the base offset that the next batch must have.
func (b *Builder) Next() record.Offset { return b.next }

// Blocks returns the closed blocks. The slice must not be modified, and stays valid and unchanged as more are closed.
func (b *Builder) Blocks() []Block { return b.blocks[:len(b.blocks):len(b.blocks)] }

// Open returns the block being filled, as if it ended here; false if the next batch starts a new one.
func (b *Builder) Open() (Block, bool) { return b.open, b.open.Raw != 0 }

// OpenBatches returns where each batch of the block being filled begins, in order; empty if there is none. The memory is
// used again for the next block: a reader that does not hold the Builder's lock needs a copy.
func (b *Builder) OpenBatches() []BatchPosition {
	if b.open.Raw == 0 {
		return nil
	}
	return b.batches
}

// Epochs returns the leader epochs of the batches so far. The slice must not be modified, and stays valid.
func (b *Builder) Epochs() []record.EpochStart { return b.epochs[:len(b.epochs):len(b.epochs)] }

// MaxTimestamp returns the largest timestamp so far, in milliseconds, and the base offset of the first batch that has
// it; both -1 if no record has one.
func (b *Builder) MaxTimestamp() (int64, record.Offset) {
	if !b.totals.maxTimeRecorded {
		return noTimestamp, noTimestamp
	}
	return b.totals.maxTime, b.totals.maxTimeOffset
}

// Checkpoint describes the closed blocks as if the segment ended with them. Resume continues from it; its Encode is a
// compact form to keep. The Footer shares the Builder's block table and must not be modified.
func (b *Builder) Checkpoint() *Footer {
	f := &Footer{
		Identity: b.id, Base: b.base, End: b.base, CreatedEpoch: b.created, Sparse: b.sparse,
		Blocks: b.Blocks(), Epochs: b.epochs[:b.closedEpochs:b.closedEpochs],
	}
	if n := len(b.blocks); n > 0 {
		f.End = b.blocks[n-1].End
	}
	b.closedTotals.apply(f)
	return f
}

// Finish closes the last block and returns the bytes to append at Position, and what they say. The aborted transactions
// are those known now that overlap the segment; producers is the producer snapshot at the segment's end. Both are kept
// by the Footer, not copied. The Builder must not be used afterwards.
func (b *Builder) Finish(aborted []record.AbortedTxn, producers []byte) ([]byte, *Footer) {
	if b.open.Raw != 0 {
		b.close()
	}
	f := b.Checkpoint()
	f.End, f.Aborted, f.Producers = b.next, aborted, producers
	return f.Encode(), f
}
