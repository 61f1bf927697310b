package hotlog

import (
	"errors"
	"fmt"
	"io/fs"
	"sort"
	"time"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// Trim drops whole sealed segments that end at or below to, and returns the bytes freed. Start moves first, durably, so
// that a crash leaves files to remove and never a hole. The epoch history is kept. Safe for concurrent use with appends
// and reads; slices held stay readable.
func (l *Log) Trim(to record.Offset) (freed int64, err error) {
	l.structure.Lock()
	defer l.structure.Unlock()
	if err := l.isClosed(); err != nil {
		return 0, err
	}
	l.mu.Lock()
	n := 0
	for n < len(l.segs) && l.segs[n].sealed && l.segs[n].end <= to {
		n++
	}
	// A footer that was made again holds no producer snapshot: recovery must not have to begin behind it.
	for n > 0 && l.segs[n-1].rebuilt && (n == len(l.segs) || !l.segs[n].sealed) {
		n--
	}
	victims, epochs := l.segs[:n:n], l.epochs
	l.mu.Unlock()
	if n == 0 {
		return 0, nil
	}
	last := victims[n-1]
	u := localstate.Update{Start: &last.end, Epochs: epochs}
	// The snapshot that the last footer held is where recovery starts if no sealed segment is left.
	footer, f, err := l.footer(last)
	if err != nil {
		return 0, fmt.Errorf("trim: %w", err)
	}
	f.unpin()
	u.Producers = &localstate.Producers{At: last.end, Snapshot: footer.Producers}
	if err := l.state.Save(u); err != nil {
		l.fail(err)
		return 0, fmt.Errorf("trim: %w: %w", ErrFenced, err)
	}
	l.mu.Lock()
	l.segs = l.segs[n:]
	l.start.Store(int64(last.end))
	l.mu.Unlock()
	for _, s := range victims {
		l.files.drop(s)
		if rm := l.fs.Remove(l.name(s.base)); rm != nil && !errors.Is(rm, fs.ErrNotExist) {
			err = errors.Join(err, rm) // removed at the next Open
			continue
		}
		freed += s.size
	}
	l.size.Add(-freed)
	return freed, err
}

// stop keeps everything but readers away: no append, flush or seal runs until the returned function is called.
func (l *Log) stop() (resume func()) {
	l.structure.Lock()
	l.writer.Lock()
	l.syncing.Lock()
	return func() {
		l.syncing.Unlock()
		l.writer.Unlock()
		l.structure.Unlock()
	}
}

// Truncate cuts the end of the log off, as a follower does that has diverged from its leader, and returns when that is on
// disk. A batch that contains to goes whole. Epochs that begin at or above to are forgotten. The aborted transactions of
// the active segment are the caller's to set again. *ErrOutOfRange if to is below Start: Reset then.
func (l *Log) Truncate(to record.Offset) error {
	defer l.stop()()
	if err := l.usable(); err != nil {
		return err
	}
	if to < l.Start() {
		return &ErrOutOfRange{to, l.Start(), l.End()}
	}
	if to >= l.End() {
		return l.forgetEpochs(to)
	}
	if err := l.lift(); err != nil {
		return err
	}
	if err := l.truncate(to); err != nil {
		l.fail(err)
		return fmt.Errorf("truncate to %d: %w: %w", to, ErrFenced, err)
	}
	return nil
}

// forgetEpochs drops, durably, epochs that begin at or above to, in which nothing was written.
func (l *Log) forgetEpochs(to record.Offset) error {
	was := l.Epochs()
	epochs := epochsBefore(was, to)
	if len(epochs) == len(was) {
		return nil
	}
	return l.storeEpochs(epochs)
}

// epochsBefore returns the entries that begin before end; not nil.
func epochsBefore(epochs []record.EpochStart, end record.Offset) []record.EpochStart {
	n := sort.Search(len(epochs), func(i int) bool { return epochs[i].Start >= end })
	return append([]record.EpochStart{}, epochs[:n]...)
}

// truncate does the work of Truncate, with the log stopped. The intent is durable before the first byte goes: a crash in
// between is finished by the next Open.
func (l *Log) truncate(to record.Offset) error {
	l.mu.Lock()
	s := l.findLocked(to)
	segs := append(l.segs[:len(l.segs):len(l.segs)], l.active)
	l.mu.Unlock()
	i := sort.Search(len(segs), func(i int) bool { return segs[i].base >= s.base })

	f, err := l.reopen(s)
	if err != nil {
		return err
	}
	builder, end, err := l.rebuild(f, s, to)
	if err != nil {
		f.unpin()
		return err
	}
	epochs := epochsBefore(l.Epochs(), end)
	durable := min(record.Offset(l.synced.Load()), end)
	err = l.state.Save(localstate.Update{
		Cut: &end, Epochs: epochs, Checkpoint: &localstate.Checkpoint{Base: min(s.base, durable), Durable: durable, Table: []byte{}},
	})
	if err != nil {
		f.unpin()
		return err
	}
	next := &seg{base: s.base, file: f, builder: builder, created: time.Now(), newFile: s.newFile}
	l.install(segs[:i], next, end, epochs)
	for j := len(segs) - 1; j > i; j-- {
		if err := l.remove(segs[j]); err != nil {
			return err
		}
	}
	if s.file != nil {
		s.file.unpin() // the log's own; next holds another
	}
	l.files.drop(s)
	if err := f.Truncate(builder.Position()); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := l.syncNames(); err != nil {
		return err
	}
	next.newFile = false
	noCut := localstate.NoCut
	if err := l.state.Save(localstate.Update{Cut: &noCut}); err != nil {
		return err
	}
	l.advanceTo(end)
	return nil
}

// reopen returns the file of a segment, pinned.
func (l *Log) reopen(s *seg) (*file, error) {
	l.mu.Lock()
	if s.file != nil {
		defer l.mu.Unlock()
		return s.file.pin(), nil
	}
	l.mu.Unlock()
	return l.files.file(l, s)
}

// rebuild reads a segment again, up to the batch that contains to, and returns the state in which it was then, and the
// offset where that is.
func (l *Log) rebuild(f *file, s *seg, to record.Offset) (*segment.Builder, record.Offset, error) {
	_, _, epoch, err := segment.ReadHeader(f)
	if err != nil {
		return nil, 0, err
	}
	builder := segment.NewBuilder(l.id, s.base, epoch)
	size, err := f.Size()
	if err != nil {
		return nil, 0, err
	}
	_, reason, err := walk(f, segment.HeaderSize, size, func(b record.Batch, _ int64) error {
		if b.NextOffset() > to {
			return errStop
		}
		return builder.Add(b)
	})
	if err == nil && reason != nil && !errors.Is(reason, errStop) && builder.Next() < to {
		err = fmt.Errorf("%w: segment %d: %w", ErrDamaged, s.base, reason)
	}
	return builder, builder.Next(), err
}

// install replaces the end of the log in memory.
func (l *Log) install(segs []*seg, active *seg, end record.Offset, epochs []record.EpochStart) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.segs, l.active, l.epochs, l.aborted = segs[:len(segs):len(segs)], active, epochs, nil
	l.end.Store(int64(end))
	l.durable.Store(min(l.durable.Load(), int64(end)))
	l.synced.Store(min(l.synced.Load(), int64(end)))
	l.tableDone = 0
	size := int64(0)
	for _, s := range segs {
		size += s.size
	}
	if active.builder != nil {
		size += active.builder.Position()
	}
	l.size.Store(size)
}

// advanceTo makes all below end durable after the log was rebuilt and synced.
func (l *Log) advanceTo(end record.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.synced.Store(int64(end))
	l.durable.Store(int64(end))
}

// remove unlinks a segment and lets go of its file.
func (l *Log) remove(s *seg) error {
	if s.file != nil {
		s.file.unpin()
	}
	l.files.drop(s)
	if err := l.fs.Remove(l.name(s.base)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove segment: %w", err)
	}
	return nil
}

// Reset drops everything, epochs and producer snapshot included, and starts again empty at to; durable when it returns. It
// is also the way out of damage: the caller fetches the records again from another replica or from the store.
func (l *Log) Reset(to record.Offset) error {
	defer l.stop()()
	l.mu.Lock()
	closed := l.closed
	segs := append(l.segs[:len(l.segs):len(l.segs)], l.active)
	l.mu.Unlock()
	if closed {
		return ErrClosed
	}
	if err := l.failed.Load(); err != nil {
		return fmt.Errorf("%w: %w", ErrFenced, *err)
	}
	if err := l.reset(segs, to); err != nil {
		l.fail(err)
		return fmt.Errorf("reset to %d: %w: %w", to, ErrFenced, err)
	}
	return nil
}

func (l *Log) reset(segs []*seg, to record.Offset) error {
	err := l.state.Save(localstate.Update{
		Start: &to, Cut: new(record.Offset), Epochs: []record.EpochStart{}, Producers: &localstate.Producers{},
		Checkpoint: &localstate.Checkpoint{Base: to, Durable: to, Table: []byte{}},
	})
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.segs, l.active, l.epochs, l.aborted, l.damaged = nil, &seg{base: to}, nil, nil, nil
	l.start.Store(int64(to))
	l.end.Store(int64(to))
	l.durable.Store(int64(to))
	l.synced.Store(int64(to))
	l.size.Store(0)
	l.mu.Unlock()
	l.fence = false
	for _, s := range segs {
		if s.file != nil {
			s.file.unpin()
		}
		l.files.drop(s)
	}
	if err := removeFiles(l.fs, l.dir, func(record.Offset) bool { return true }); err != nil {
		return err
	}
	noCut := localstate.NoCut
	return l.state.Save(localstate.Update{Cut: &noCut})
}

// removeFiles unlinks the segment files of dir whose base offset is chosen, highest first, durably.
func removeFiles(fsys vfs.FS, dir string, chosen func(base record.Offset) bool) error {
	names, err := fsys.List(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list log directory: %w", err)
	}
	removed := false
	for i := len(names) - 1; i >= 0; i-- {
		base, ok := parseName(names[i])
		if !ok || !chosen(base) {
			continue
		}
		if err := fsys.Remove(dir + "/" + names[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove segment: %w", err)
		}
		removed = true
	}
	if !removed {
		return nil
	}
	return fsys.SyncDir(dir)
}
