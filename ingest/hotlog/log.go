package hotlog

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// Log is one partition's local log. Start, Durable, End, Size and all reads are safe for concurrent use with everything.
// Append, Roll, Truncate, Reset, SetEpoch and SetTransactions are the appender's: they exclude each other, and the caller
// decides in which order they come.
type Log struct {
	fs      vfs.FS
	dir     string
	id      segment.Identity
	state   State
	flusher *Flusher
	files   *Files
	options atomic.Pointer[Options]

	start, durable, end atomic.Int64 // offsets; written under mu
	synced              atomic.Int64 // as durable, but always by an fsync; written under syncing
	size                atomic.Int64

	notify   atomic.Pointer[func(record.Offset)]
	onSealed atomic.Pointer[func()]
	queued   atomic.Bool // in the flusher's next group
	late     atomic.Bool // in the flusher's list of later ones
	failed   atomic.Pointer[error]

	// Locks in the order they are taken. structure: trims, truncations, replacing segments, closing. writer: appends and rolls; never held
	// during an fsync but by truncation. syncing: one flush of this log at a time. mu: the fields below it, no I/O.
	structure sync.Mutex
	writer    sync.Mutex
	syncing   sync.Mutex
	mu        sync.Mutex

	segs      []*seg // rolled and sealed ones, by offset
	active    *seg
	epochs    []record.EpochStart // shared with callers: replaced, never changed
	aborted   []record.AbortedTxn
	damaged   error // refuses appends
	closed    bool
	newDir    bool // the directory's own entry is not synced
	tableDone int64

	work  []*seg // of flush; guarded by syncing
	fence bool   // bytes past the end of the active segment are to be truncated away; guarded by writer
}

// seg is one segment of a log.
type seg struct {
	base    record.Offset
	dropped atomic.Bool // trimmed, cut away, or rewritten: its name may lead to another file, or to none

	// Active and rolled segments, guarded by the log's mu (file is set once).
	file      *file // nil until the first append, and again once sealed
	builder   *segment.Builder
	marks     marks
	newFile   bool // the directory entry is not synced
	allocated int64
	created   time.Time

	// Rolled and sealed segments; do not change.
	end              record.Offset
	dataEnd, size    int64 // size includes the trailer
	minTime, maxTime int64
	maxTimeOffset    record.Offset
	records          int64

	// held is the file while the name may still lead to another one; guarded by the Files' mu.
	held *file

	// Rolled but not sealed: the trailer is still to be written. footer also stays for a segment whose stored footer is bad.
	trailer []byte
	footer  *segment.Footer
	sealed  bool // guarded by mu
	rebuilt bool
}

// setFooter fills in what a footer says.
func (s *seg) setFooter(f *segment.Footer, size int64) {
	s.end, s.size = f.End, size
	s.dataEnd = segment.HeaderSize + f.DataSize
	s.minTime, s.maxTime, s.maxTimeOffset = f.MinTimestamp, f.MaxTimestamp, f.MaxTimestampOffset
	s.records = f.Records
}

// suffix ends the name of a segment file; before it stand the 20 digits of the base offset.
const suffix = ".seg"

func (l *Log) name(base record.Offset) string {
	return filepath.Join(l.dir, fmt.Sprintf("%020d%s", base, suffix))
}

// SetOptions changes the options; Files stays.
func (l *Log) SetOptions(o Options) { l.options.Store(o.withDefaults()) }

// Start is the local log start: the first offset that is here.
func (l *Log) Start() record.Offset { return record.Offset(l.start.Load()) }

// Durable is the offset below which everything is on disk (with Options.FlushOS: in the operating system).
func (l *Log) Durable() record.Offset { return record.Offset(l.durable.Load()) }

// End is the offset of the next record.
func (l *Log) End() record.Offset { return record.Offset(l.end.Load()) }

// Size is the number of bytes in the log's files.
func (l *Log) Size() int64 { return l.size.Load() }

// Notify sets the function that is told of a new durable end: by the flusher right after an fsync, and with
// Options.FlushOS by Append. It is called from one goroutine at a time, in order (around a change of FlushOS it may see a
// value twice). It may read the log, but must not block, for other logs wait for their fsync behind it, and must not call
// Truncate, Reset, Close or Delete, which wait for it.
func (l *Log) Notify(fn func(durable record.Offset)) { l.notify.Store(&fn) }

// NotifySealed sets the function that is called when a segment has been sealed and synced, under the rules of Notify.
func (l *Log) NotifySealed(fn func()) { l.onSealed.Store(&fn) }

func (l *Log) tell(durable record.Offset) {
	if fn := l.notify.Load(); fn != nil {
		(*fn)(durable)
	}
}

// fail makes the log refuse everything that would promise more, and tells the flusher's owner.
func (l *Log) fail(err error) {
	if l.failed.CompareAndSwap(nil, &err) {
		l.flusher.fail(fmt.Errorf("log %s: %w", l.dir, err))
	}
}

// usable returns why no append may be made; nil if it may.
func (l *Log) usable() error {
	if err := l.failed.Load(); err != nil {
		return fmt.Errorf("%w: %w", ErrFenced, *err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	return l.damaged
}

// ActiveInfo describes the active segment: its base offset, when the first record was appended (zero if none was), and its
// bytes so far.
func (l *Log) ActiveInfo() (base record.Offset, created time.Time, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if s := l.active; s.builder != nil {
		return s.base, s.created, s.builder.Position()
	}
	return l.active.base, time.Time{}, 0
}

// SetTransactions sets the aborted transactions that overlap the active segment, for its footer. The slice must not be
// changed afterwards.
func (l *Log) SetTransactions(aborted []record.AbortedTxn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.aborted = aborted
}

// Close syncs what is not, stores a checkpoint with which the next Open reads no records, and closes the files. Slices
// still held stay readable.
func (l *Log) Close() error {
	l.structure.Lock()
	defer l.structure.Unlock()
	l.writer.Lock()
	defer l.writer.Unlock()
	if err := l.isClosed(); err != nil {
		return err
	}
	l.flush()
	err := l.shut(true)
	if failed := l.failed.Load(); failed != nil {
		return errors.Join(fmt.Errorf("%w: %w", ErrFenced, *failed), err)
	}
	return err
}

func (l *Log) isClosed() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	return nil
}

// shut marks the log closed, and lets go of its files.
func (l *Log) shut(save bool) error {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.mu.Lock()
	l.closed = true
	u := localstate.Update{Epochs: l.epochs}
	c := l.checkpointLocked(true)
	u.Checkpoint = &c
	save = save && l.failed.Load() == nil && l.damaged == nil
	segs := append(l.segs[:len(l.segs):len(l.segs)], l.active)
	l.mu.Unlock()
	for _, s := range segs {
		if s.file != nil {
			s.file.unpin()
		}
		l.files.drop(s)
	}
	if !save {
		return nil
	}
	return l.state.Save(u)
}

// checkpointLocked describes what is synced; with the table of the active segment if asked, for which all closed blocks
// must be synced. The caller holds syncing and mu.
func (l *Log) checkpointLocked(table bool) localstate.Checkpoint {
	c := localstate.Checkpoint{Base: l.active.base, Durable: record.Offset(l.synced.Load())}
	for _, s := range l.segs {
		if !s.sealed {
			c.Base = s.base
			break
		}
	}
	if table && l.active.builder != nil {
		if f := l.active.builder.Checkpoint(); f.End <= c.Durable {
			c.Table = f.Encode()
		}
	}
	return c
}

// Delete closes the log and removes its files and its state.
func (l *Log) Delete() error {
	l.structure.Lock()
	defer l.structure.Unlock()
	l.writer.Lock()
	defer l.writer.Unlock()
	if err := l.isClosed(); err == nil {
		if err := l.shut(false); err != nil {
			return err
		}
	}
	// The mark first: a crash halfway must not leave files that a later Open would take for a log.
	if err := l.state.Save(localstate.Update{Cut: new(record.Offset)}); err != nil {
		return err
	}
	if err := l.fs.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("delete log: %w", err)
	}
	if err := l.fs.SyncDir(filepath.Dir(l.dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete log: %w", err)
	}
	l.size.Store(0)
	return l.state.Delete()
}
