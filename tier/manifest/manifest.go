// Package manifest owns which segments make up the remote log of a partition: one root object, changed by
// compare-and-swap only, and immutable pages of older entries that it refers to. FORMAT.md maps both; change it with the
// code. Opening a partition costs one GET however long its history is.
//
// The commit is where the remote log's promises are kept: a writer must have claimed its leader epoch, and a segment must
// begin where the last one ended and continue its leader epochs. So gaps, overlaps, duplicates and commits of a deposed
// leader cannot be written down. Outcomes that the store left unknown are resolved by a nonce in the body.
//
// tier/ship appends, compaction replaces and removes, tier/fetch and ingest/partition look up. The package neither reads
// nor deletes segment objects, and decides no retention.
package manifest

import (
	"errors"
	"fmt"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

var (
	// ErrFenced means that a newer leader epoch has claimed the manifest, or that the writer has claimed none: its
	// commits are refused, now and later.
	ErrFenced = errors.New("fenced by a newer leader epoch")
	// ErrGap means that a segment does not begin at the manifest's end. Manifest().End() says where to go on.
	ErrGap = errors.New("segment does not continue the remote log")
	// ErrLineage means that a segment's leader epochs do not continue the manifest's: it belongs to another history.
	ErrLineage = errors.New("leader epochs do not continue the remote log")
	// ErrInvalid means that an entry or an edit cannot be, whatever the manifest holds: a bug of the caller.
	ErrInvalid = errors.New("invalid manifest edit")
	// ErrDeleted means that the manifest is a tombstone: the topic was deleted.
	ErrDeleted = errors.New("remote log was deleted")
	// ErrUnknown means that a commit may have happened and may yet happen, until Log.Pending is false. It matches the
	// store's last error too. To try the same again is right: edits are idempotent.
	ErrUnknown = errors.New("outcome of the commit is unknown")
	// ErrFull means that the root refers to MaxPages pages. Merging segments (Replace) makes room.
	ErrFull = errors.New("manifest is full")
	// ErrCorrupt means that a root or page is not what a writer wrote, is another partition's, or went back in time.
	ErrCorrupt = errors.New("corrupt manifest")
	// ErrVersion means that a newer everlog wrote the object.
	ErrVersion = errors.New("unknown manifest format version")
)

// Segment is one entry: a segment of the remote log and where it lies.
type Segment struct {
	// Base and End are the offsets it covers, [Base, End).
	Base, End record.Offset
	// Epoch is the leader epoch of the broker that wrote the object, FirstEpoch and LastEpoch those of its first and last
	// offsets.
	Epoch                 record.LeaderEpoch
	FirstEpoch, LastEpoch record.LeaderEpoch
	// Object is the name of the object, at most 1024 bytes. The segment is its bytes [Position, Position+Size); several
	// segments may share one object.
	Object         string
	Position, Size int64
	// FooterSize is the size of footer and tail, the last bytes of the segment.
	FooterSize int32
	// CRC is the CRC-32C of all Size bytes.
	CRC uint32
	// DataSize is the raw size of the blocks in bytes.
	DataSize, Records int64
	// MinTimestamp, MaxTimestamp and MaxTimestampOffset are those of the footer, -1 if no record has a timestamp.
	MinTimestamp, MaxTimestamp int64
	MaxTimestampOffset         record.Offset
	// Aborted is the number of aborted transactions in the footer: if it is 0, a reader of committed records need not look.
	Aborted int32
	// Epochs is where the leader epochs of the segment begin. Append needs it if FirstEpoch and LastEpoch differ; entries
	// of a Manifest have none, since Manifest.Epochs has them all.
	Epochs []record.EpochStart
}

// FromFooter makes the entry for an object of size bytes and checksum crc that is all one segment, written by the leader
// of epoch.
func FromFooter(f *segment.Footer, object string, size int64, crc uint32, epoch record.LeaderEpoch) Segment {
	s := Segment{
		Base: f.Base, End: f.End, Epoch: epoch, FirstEpoch: record.NoEpoch, LastEpoch: record.NoEpoch,
		Object: object, Size: size, FooterSize: int32(size - f.DataEnd()), CRC: crc, DataSize: f.DataSize, Records: f.Records,
		MinTimestamp: f.MinTimestamp, MaxTimestamp: f.MaxTimestamp, MaxTimestampOffset: f.MaxTimestampOffset,
		Aborted: int32(len(f.Aborted)), Epochs: f.Epochs,
	}
	if n := len(f.Epochs); n > 0 {
		s.FirstEpoch, s.LastEpoch = f.Epochs[0].Epoch, f.Epochs[n-1].Epoch
	}
	return s
}

// PageRef is the root's reference to an immutable page of older entries.
type PageRef struct {
	// First and End are the offsets the page covers.
	First, End record.Offset
	// Epoch and UUID complete the page's name.
	Epoch record.LeaderEpoch
	UUID  [16]byte
	// Size and CRC are those of the page object.
	Size int32
	CRC  uint32
	// Count is the number of entries; the sums and extremes are theirs. Entries that end at or below the manifest's start
	// are counted too until the whole page is dropped.
	Count                      int32
	Bytes, DataBytes           int64
	MinTimestamp, MaxTimestamp int64
}

// Manifest is one version of a partition's remote log. It is immutable and safe for concurrent use.
type Manifest struct {
	id       segment.Identity
	claim    record.LeaderEpoch
	version  uint64
	nonce    nonce
	recent   []nonce // of the commits before, newest first, at most maxRecent
	deleted  bool
	logStart record.Offset
	start    record.Offset
	end      record.Offset
	epochs   []record.EpochStart
	pages    []PageRef
	segments []Segment
	cache    *PageCache
}

// nonce makes every root body unique and tells whose commit it is.
type nonce [16]byte

// newManifest is what an absent root means.
func newManifest(id segment.Identity, cache *PageCache) *Manifest {
	return &Manifest{id: id, claim: record.NoEpoch, cache: cache}
}

// Identity says which partition the manifest belongs to.
func (m *Manifest) Identity() segment.Identity { return m.id }

// ClaimEpoch is the newest leader epoch that claimed the manifest, or NoEpoch.
func (m *Manifest) ClaimEpoch() record.LeaderEpoch { return m.claim }

// Version counts commits; 0 means that nothing was ever written.
func (m *Manifest) Version() uint64 { return m.version }

// LogStart is the earliest readable offset of the partition as far as the remote log knows. It may lie inside the first
// segment.
func (m *Manifest) LogStart() record.Offset { return m.logStart }

// Start is the base offset of the first segment, or End if there is none.
func (m *Manifest) Start() record.Offset { return m.start }

// End is the offset after the last record: where the next segment must begin.
func (m *Manifest) End() record.Offset { return m.end }

// Epochs returns the leader epochs of [Start, End): the first begins at or below Start. Not to be modified.
func (m *Manifest) Epochs() []record.EpochStart { return m.epochs }

// Deleted reports whether the manifest is a tombstone.
func (m *Manifest) Deleted() bool { return m.deleted }

// Root returns the newest entries, in offset order; older ones are in Pages. Not to be modified.
func (m *Manifest) Root() []Segment { return m.segments }

// Pages returns the references to pages of older entries, in offset order. Not to be modified.
func (m *Manifest) Pages() []PageRef { return m.pages }

// Count is the number of segments. Like Bytes and DataBytes it includes those of the first page that were already removed.
func (m *Manifest) Count() int {
	n := len(m.segments)
	for i := range m.pages {
		n += int(m.pages[i].Count)
	}
	return n
}

// Bytes is the stored size of all segments.
func (m *Manifest) Bytes() int64 {
	var n int64
	for i := range m.segments {
		n += m.segments[i].Size
	}
	for i := range m.pages {
		n += m.pages[i].Bytes
	}
	return n
}

// DataBytes is the raw size of all segments' blocks.
func (m *Manifest) DataBytes() int64 {
	var n int64
	for i := range m.segments {
		n += m.segments[i].DataSize
	}
	for i := range m.pages {
		n += m.pages[i].DataBytes
	}
	return n
}

// RootName is the name of a partition's root object. It is written by compare-and-swap only and never deleted.
func RootName(id segment.Identity) string { return segment.Prefix(id) + "manifest" }

// PageName is the name of a page: first offset, end offset, the epoch of the leader that wrote it, and a uuid, so that no
// name is written twice.
func PageName(id segment.Identity, p PageRef) string {
	return fmt.Sprintf("%spage/%020d-%020d-%010d-%x", segment.Prefix(id), p.First, p.End, p.Epoch, p.UUID)
}

// PagePrefix is what the names of all pages of a partition begin with.
func PagePrefix(id segment.Identity) string { return segment.Prefix(id) + "page/" }
