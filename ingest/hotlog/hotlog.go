// Package hotlog owns one partition's local log: the active segment and the sealed ones on the broker's disk, the groups in
// which they are synced, and what is made of them after a crash. It knows offsets and durability, not roles, high
// watermarks or transactions: ingest/partition, its only caller, stamps the batches, decides what may be read, and says
// when to roll, trim and truncate. DESIGN.md holds the invariants and what happens at each crash point.
package hotlog

import (
	"errors"
	"fmt"
	"time"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/vfs"
)

var (
	// ErrNoSpace means that the disk is full. Nothing was appended; the log is usable again as soon as there is room.
	ErrNoSpace = fmt.Errorf("append: %w", vfs.ErrNoSpace)
	// ErrFenced means that the log takes no appends because a failed one could not be undone yet, or because the disk
	// failed it: after an error of a write or an fsync nothing more is promised.
	ErrFenced = errors.New("log is fenced after a failed write")
	// ErrDamaged means that bytes which had been synced are not there any more, or not what was written.
	ErrDamaged = errors.New("log is damaged")
	// ErrClosed means that the log has been closed or deleted.
	ErrClosed = errors.New("log is closed")
	// ErrOrder means that a batch does not continue the log: not the next offset, or an older leader epoch.
	ErrOrder = errors.New("batch does not continue the log")
)

// ErrOutOfRange says that an offset is not in the local log, which holds [Start, End).
type ErrOutOfRange struct{ Offset, Start, End record.Offset }

// Error implements error.
func (e *ErrOutOfRange) Error() string {
	return fmt.Sprintf("offset %d is not in the local log [%d, %d)", e.Offset, e.Start, e.End)
}

// State is the durable small state of one log; *localstate.Log is it.
type State interface {
	Load() (localstate.Saved, error)
	// Save is atomic, and durable when it returns.
	Save(localstate.Update) error
	// Checkpoint may be lost in a crash, but only together with all later ones. It does no I/O.
	Checkpoint(localstate.Checkpoint)
	Delete() error
}

// Options of a Log. The zero value is valid. SetOptions changes them at run time.
type Options struct {
	// SegmentBytes is the size at which NeedsRoll asks for a new segment (Kafka: segment.bytes). Default 128 MiB.
	SegmentBytes int64
	// PreallocateBytes is how far ahead at most disk blocks are reserved for the active segment, never beyond
	// SegmentBytes. A log reserves no more than it has already written to the segment, so that idle logs hold little.
	// Default 8 MiB; negative: never.
	PreallocateBytes int64
	// FlushOS says that a record counts as durable once the operating system has it (flush=os). Files are then synced
	// when a segment is sealed, and in the background.
	FlushOS bool
	// Files is the cache of open sealed files and their footers, shared by the logs of a broker. nil: one for this log.
	// SetOptions ignores it.
	Files *Files
}

const (
	defaultSegmentBytes     = 128 << 20
	defaultPreallocateBytes = 8 << 20
	// preallocateFirst is the first reservation of a segment.
	preallocateFirst = 64 << 10
	// tableEvery is how many bytes are appended at most before a checkpoint takes the block table along, so that
	// recovery reads no more than about that much of the active segment.
	tableEvery = 16 << 20
)

func (o Options) withDefaults() *Options {
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = defaultSegmentBytes
	}
	if o.PreallocateBytes == 0 {
		o.PreallocateBytes = defaultPreallocateBytes
	}
	return &o
}

// Recovery is what Open found.
type Recovery struct {
	// CutBytes were removed from the end of the log: the tail of writes that no fsync had covered.
	CutBytes int64
	// Damaged, if not nil, is the first damage below the durable point. The log ends before it and refuses appends.
	Damaged *Damage
	// Producers is the producer snapshot at FirstReplay, nil if there is none; records from there on are not in it.
	Producers   []byte
	FirstReplay record.Offset
	// Removed are the names of files that a crash had left over.
	Removed []string
}

// Damage says where synced bytes are missing or wrong.
type Damage struct {
	// Segment is the base offset of the segment, Position in bytes from its start.
	Segment  record.Offset
	Position int64
	// Offset is the first offset that cannot be read, Durable the offset below which all had been synced.
	Offset, Durable record.Offset
	Reason          error
}

// Error implements error; it wraps ErrDamaged.
func (d *Damage) Error() string {
	return fmt.Sprintf("%v: segment %d at position %d: offset %d was on disk (all below %d had been), now: %v",
		ErrDamaged, d.Segment, d.Position, d.Offset, d.Durable, d.Reason)
}

// Unwrap makes errors.Is(d, ErrDamaged) true.
func (d *Damage) Unwrap() error { return ErrDamaged }

// FlusherOptions of a Flusher. The zero value is valid.
type FlusherOptions struct {
	// Parallel is how many files are synced at the same time. Default 16.
	Parallel int
	// Background is how long records of a log with Options.FlushOS stay unsynced at most, and how long a seal that found
	// the disk full waits to be tried again. Default 5 s.
	Background time.Duration
	// OnError is called when a write or an fsync failed and it was not for lack of space: nothing this broker says
	// about its disk can be relied on any more, it must stop. Called at most once a log. May be nil.
	OnError func(error)
	// Observe is called with the time each fsync took. May be nil. Called concurrently.
	Observe func(took time.Duration)
}
