package hotlog

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// Append writes whole batches, stamped and verified, the first at End and each where the one before ends, and hands the log
// to the flusher. The bytes go to the file in one write straight from p, which is the caller's again on return. The call
// may create a file, but never waits for the disk to sync. On an error nothing was appended: ErrNoSpace (try again when
// there is room), ErrFenced, ErrDamaged, ErrClosed, ErrOrder.
func (l *Log) Append(p []byte) error {
	o := l.options.Load()
	end, err := l.append(p, o)
	switch {
	case err != nil || len(p) == 0:
		return err
	case o.FlushOS:
		l.flusher.markLate(l)
		l.tell(end)
	default:
		l.flusher.mark(l)
	}
	return nil
}

func (l *Log) append(p []byte, o *Options) (record.Offset, error) {
	l.writer.Lock()
	defer l.writer.Unlock()
	if err := l.usable(); err != nil {
		return 0, err
	}
	first, err := l.check(p)
	if first == nil {
		return 0, err
	}
	if err := l.lift(); err != nil {
		return 0, err
	}
	s := l.active
	if s.file == nil {
		if err := l.create(s, first.LeaderEpoch()); err != nil {
			return 0, err
		}
	}
	position := s.builder.Position()
	s.preallocate(position, int64(len(p)), o)
	if n, err := s.file.WriteAt(p, position); err != nil {
		return 0, l.undo(s, fmt.Sprintf("append (%d of %d bytes)", n, len(p)), err)
	}
	return l.publish(s, p, o.FlushOS), nil
}

// check returns the first batch of p if all of p continues the log; nil and no error if p is empty.
func (l *Log) check(p []byte) (first record.Batch, err error) {
	next, epoch := l.End(), record.NoEpoch
	if n := len(l.epochs); n > 0 { // changed only under writer
		epoch = l.epochs[n-1].Epoch
	}
	for rest := p; len(rest) > 0; {
		var b record.Batch
		if b, rest, err = record.Next(rest); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrOrder, err)
		}
		switch {
		case b.BaseOffset() != next || b.NextOffset() <= next:
			return nil, fmt.Errorf("%w: offsets [%d, %d) where %d is next", ErrOrder, b.BaseOffset(), b.NextOffset(), next)
		case b.LeaderEpoch() < 0 || b.LeaderEpoch() < epoch:
			return nil, fmt.Errorf("%w: leader epoch %d after %d", ErrOrder, b.LeaderEpoch(), epoch)
		}
		if first == nil {
			first = b
		}
		next, epoch = b.NextOffset(), b.LeaderEpoch()
	}
	return first, nil
}

// create makes the file of the active segment. Its name is synced with its first records.
func (l *Log) create(s *seg, epoch record.LeaderEpoch) error {
	builder := segment.NewBuilder(l.id, s.base, epoch)
	opened, err := l.fs.Create(l.name(s.base))
	if errors.Is(err, fs.ErrNotExist) {
		if err = l.fs.MkdirAll(l.dir); err == nil {
			l.mu.Lock()
			l.newDir = true
			l.mu.Unlock()
			opened, err = l.fs.Create(l.name(s.base))
		}
	}
	if err != nil {
		return l.refuse("create segment", err)
	}
	if _, err := opened.WriteAt(builder.Header(), 0); err != nil {
		// A file without a header is what a crash leaves too: if it cannot be removed, the next Open does.
		_ = opened.Close()
		if rm := l.fs.Remove(l.name(s.base)); rm != nil {
			err = errors.Join(err, rm)
			l.fail(err)
		}
		return l.refuse("write segment header", err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.file, s.builder, s.newFile, s.created = newFile(opened), builder, true, time.Now()
	l.tableDone = segment.HeaderSize
	l.size.Add(segment.HeaderSize)
	return nil
}

// refuse turns the error of a write that has no effect left into the caller's. Any but a full disk fails the log.
func (l *Log) refuse(what string, err error) error {
	if errors.Is(err, vfs.ErrNoSpace) {
		return fmt.Errorf("%s: %w", what, ErrNoSpace)
	}
	l.fail(err)
	return fmt.Errorf("%w: %s: %w", ErrFenced, what, err)
}

// undo takes back a write that failed, or fences the log until that is done.
func (l *Log) undo(s *seg, what string, err error) error {
	if errors.Is(err, vfs.ErrNoSpace) {
		l.fence, s.allocated = true, 0
		_ = l.lift() // tried again before the next append
	}
	return l.refuse(what, err)
}

// lift truncates away what a failed append left; nil if the log may be appended to.
func (l *Log) lift() error {
	if !l.fence {
		return nil
	}
	s := l.active
	if err := s.file.Truncate(s.builder.Position()); err != nil {
		return fmt.Errorf("%w: %w", ErrFenced, err)
	}
	l.fence = false
	return nil
}

// preallocate reserves room for the next bytes, in steps as large as what the segment holds already. It is an
// optimisation: if the disk is too full for the step, the write itself decides.
func (s *seg) preallocate(position, size int64, o *Options) {
	if need := position + size; o.PreallocateBytes <= 0 || need <= s.allocated || need > o.SegmentBytes {
		return
	}
	from := max(position, s.allocated)
	step := min(max(position, preallocateFirst), o.PreallocateBytes)
	to := min(max(from+step, position+size), o.SegmentBytes)
	if s.file.Preallocate(from, to-from) == nil {
		s.allocated = to
	} else {
		s.allocated = o.SegmentBytes // not again in this segment
	}
}

// publish accounts written batches, and makes them visible to readers. It returns the new end.
func (l *Log) publish(s *seg, p []byte, os bool) record.Offset {
	l.mu.Lock()
	defer l.mu.Unlock()
	for rest := p; len(rest) > 0; {
		var b record.Batch
		b, rest, _ = record.Next(rest) // check has seen all of it
		if n := len(l.epochs); n == 0 || b.LeaderEpoch() > l.epochs[n-1].Epoch {
			l.epochs = withEpoch(l.epochs, record.EpochStart{Epoch: b.LeaderEpoch(), Start: b.BaseOffset()})
		}
		if err := s.builder.Add(b); err != nil {
			panic("hotlog: checked batch refused: " + err.Error())
		}
	}
	end := s.builder.Next()
	s.marks.add(segment.BatchPosition{Offset: end, Position: s.builder.Position()})
	l.size.Add(int64(len(p)))
	l.end.Store(int64(end))
	if os {
		l.durable.Store(int64(end))
	}
	return end
}

// NeedsRoll reports whether the active segment should be rolled before an append of next bytes.
func (l *Log) NeedsRoll(next int) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.active.builder
	return b != nil && b.Next() > l.active.base && b.Position()+int64(next) > l.options.Load().SegmentBytes
}

// Roll ends the active segment and starts a new one at End. It does no I/O: the flusher syncs the ended segment, writes its
// footer with the producer snapshot at End, and syncs that, all before anything of the new segment counts as durable. An
// empty active segment stays.
func (l *Log) Roll(producers []byte) error {
	l.writer.Lock()
	defer l.writer.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	if err := l.lift(); err != nil {
		return err
	}
	s := l.active
	if s.builder == nil || s.builder.Next() == s.base {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	s.dataEnd = s.builder.Position()
	s.trailer, s.footer = s.builder.Finish(l.aborted, producers)
	s.setFooter(s.footer, s.dataEnd+int64(len(s.trailer)))
	s.builder, s.marks = nil, marks{}
	l.segs = append(l.segs[:len(l.segs):len(l.segs)], s)
	l.active = &seg{base: s.end}
	l.aborted = nil
	l.size.Add(int64(len(s.trailer)))
	l.flusher.mark(l)
	return nil
}

// Flush asks for a sync of what is not, in the next group.
func (l *Log) Flush() { l.flusher.mark(l) }

// parents are the directories whose entries lead to the log's files, deepest first.
func (l *Log) parents() [2]string {
	p := filepath.Dir(l.dir)
	return [2]string{p, filepath.Dir(p)}
}
