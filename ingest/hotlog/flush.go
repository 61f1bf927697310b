package hotlog

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// flush syncs what was appended before the call, seals what was rolled, and tells of it. The flusher calls it.
//
// The order is what recovery relies on: the records of a segment are synced before its footer is written, so a valid
// footer proves them durable; and a segment is sealed before anything of a later one counts, so a segment without a
// footer proves that nothing after it was acknowledged.
func (l *Log) flush() {
	l.syncing.Lock()
	defer l.syncing.Unlock()
	l.queued.Store(false) // from here on an append asks for another flush
	target, active, table := l.plan()
	if len(l.work) == 0 {
		return
	}
	for _, s := range l.work {
		if err := l.syncData(s); err != nil {
			l.fail(err)
			return
		}
		if s == active {
			break // if it has been rolled meanwhile, more may have been appended to it: it is for the next flush to seal
		}
		l.advance(s.end)
		if err := l.seal(s); errors.Is(err, vfs.ErrNoSpace) {
			l.flusher.markLate(l)
			return
		} else if err != nil {
			l.fail(err)
			return
		}
	}
	l.advance(target)
	l.mu.Lock()
	c := l.checkpointLocked(false)
	l.mu.Unlock()
	if table != nil {
		c.Table = table.Encode()
	}
	l.state.Checkpoint(c)
}

// plan collects in l.work the segments with something to sync, in order, the active one last. It returns the offset that
// will be durable then, the active segment of now, and the block table to store if it is time for one.
func (l *Log) plan() (target record.Offset, active *seg, table *segment.Footer) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.work = l.work[:0]
	if l.closed || l.failed.Load() != nil || l.damaged != nil {
		return 0, nil, nil
	}
	target = l.End()
	for _, s := range l.segs {
		if !s.sealed {
			l.work = append(l.work, s)
		}
	}
	if s := l.active; s.builder != nil && target > record.Offset(l.synced.Load()) {
		l.work = append(l.work, s)
		if s.builder.Position()-l.tableDone >= tableEvery {
			table = s.builder.Checkpoint()
			l.tableDone = s.builder.Position()
		}
	}
	return target, l.active, table
}

// syncData syncs the records of a segment, and before its first ones its name.
func (l *Log) syncData(s *seg) error {
	began := time.Now()
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync segment %d: %w", s.base, err)
	}
	l.flusher.observe(began)
	if !s.newFile { // changed only here once the file exists
		return nil
	}
	if err := l.syncNames(); err != nil {
		return err
	}
	s.newFile = false
	return nil
}

// syncNames makes the names in the log's directory durable, and if it is new the directory itself.
func (l *Log) syncNames() error {
	if err := l.fs.SyncDir(l.dir); err != nil {
		return fmt.Errorf("sync log directory: %w", err)
	}
	l.mu.Lock()
	newDir := l.newDir
	l.mu.Unlock()
	if !newDir {
		return nil
	}
	for _, dir := range l.parents() {
		if err := l.fs.SyncDir(dir); err != nil && !errors.Is(err, fs.ErrPermission) {
			return fmt.Errorf("sync data directory: %w", err)
		}
	}
	l.mu.Lock()
	l.newDir = false
	l.mu.Unlock()
	return nil
}

// advance makes all below end count as durable, and tells if that is news.
func (l *Log) advance(end record.Offset) {
	if end <= record.Offset(l.synced.Load()) {
		return
	}
	l.synced.Store(int64(end))
	l.mu.Lock()
	news := end > record.Offset(l.durable.Load())
	if news {
		l.durable.Store(int64(end))
	}
	l.mu.Unlock()
	if news {
		l.tell(end)
	}
}

// seal writes the footer of a rolled segment whose records are synced.
func (l *Log) seal(s *seg) error {
	if _, err := s.file.WriteAt(s.trailer, s.dataEnd); err != nil {
		return fmt.Errorf("write footer of segment %d: %w", s.base, err)
	}
	if s.allocated > s.size {
		if err := s.file.Truncate(s.size); err != nil {
			return fmt.Errorf("give back blocks of segment %d: %w", s.base, err)
		}
	}
	began := time.Now()
	if err := s.file.Sync(); err != nil {
		return fmt.Errorf("sync footer of segment %d: %w", s.base, err)
	}
	l.flusher.observe(began)
	l.mu.Lock()
	f, footer := s.file, s.footer
	s.sealed, s.file, s.footer, s.trailer = true, nil, nil, nil
	l.mu.Unlock()
	l.files.put(s, f, footer)
	if fn := l.onSealed.Load(); fn != nil {
		(*fn)()
	}
	return nil
}

var _ State = (*localstate.Log)(nil)
