package hotlog

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// ErrReplaced means that segments which were to be rewritten are not in the log any more: trimmed, or cut away.
var ErrReplaced = errors.New("segments are not in the log any more")

const (
	// rewriteSuffix ends the name of a segment that is being written to take the place of others. Open removes it.
	rewriteSuffix = ".rewrite"
	// rewriteBuffer is written at a time; rewriteSync is how much is written before it is synced, so that the disk never has
	// much to do at once when producers wait for it.
	rewriteBuffer = 1 << 20
	rewriteSync   = 8 << 20
)

// Filter decides what stays of a batch when its segment is rewritten: the batch itself if all of it does, nil if nothing,
// or another one with the same first and last offset and leader epoch. What it returns is used until the next call.
type Filter func(b record.Batch) (record.Batch, error)

// Rewrite makes one segment of a run of sealed ones, with what a filter leaves of them. Nothing is written as long as nothing
// changes. Use it as Take, perhaps Take again, Commit; or Abort at any time. Not safe for concurrent use, and no two Rewrites
// of one log may be at work.
type Rewrite struct {
	l         *Log
	old       []*seg
	footers   []*segment.Footer
	builder   *segment.Builder
	source    *file // the first segment; as long as out is nil its data up to builder.Position is what stays
	out       *file
	name      string
	buffer    []byte
	written   int64 // of out, buffer excluded
	synced    int64
	unchanged bool
}

// Rewrite begins the replacement of sealed segments.
func (l *Log) Rewrite() *Rewrite { return &Rewrite{l: l, unchanged: true} }

// Size is the size in bytes of the result so far, without its footer.
func (r *Rewrite) Size() int64 {
	if r.builder == nil {
		return 0
	}
	return r.builder.Position()
}

// Empty reports whether no batch has been kept so far.
func (r *Rewrite) Empty() bool { return r.Size() <= segment.HeaderSize }

// Take filters the next segment: the first, or the one that follows those taken. Errors: the filter's; ErrReplaced;
// ErrDamaged if a batch is not what was written; vfs.ErrNoSpace. Only Abort may follow an error.
func (r *Rewrite) Take(s *Sealed, filter Filter) error {
	footer, f, err := r.l.footer(s.s)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: segment %d", ErrReplaced, s.Base)
	}
	if err != nil {
		return err
	}
	defer f.unpin()
	if s.s.rebuilt {
		return fmt.Errorf("%w: the producer snapshot of segment %d is lost", ErrDamaged, s.Base)
	}
	if n := len(r.old); n == 0 {
		r.builder = segment.NewBuilder(r.l.id, s.Base, footer.CreatedEpoch)
		r.source = f.pin()
	} else if r.old[n-1].end != s.Base {
		return fmt.Errorf("%w: segment %d does not follow %d", ErrReplaced, s.Base, r.old[n-1].base)
	} else if err := r.diverge(); err != nil {
		return err
	}
	r.old, r.footers = append(r.old, s.s), append(r.footers, footer)
	return r.filter(f, s.s, footer, filter)
}

func (r *Rewrite) filter(f *file, s *seg, footer *segment.Footer, filter Filter) error {
	next, failed := s.base, error(nil)
	position, reason, err := walk(f, segment.HeaderSize, s.dataEnd, func(b record.Batch, _ int64) error {
		if err := b.Verify(); err != nil {
			return err
		}
		if b.BaseOffset() < next || b.NextOffset() > s.end || b.BaseOffset() > next && !footer.Sparse {
			return fmt.Errorf("%w: offsets [%d, %d) where %d is next", ErrOrder, b.BaseOffset(), b.NextOffset(), next)
		}
		next = b.NextOffset()
		failed = r.batch(b, filter)
		return failed
	})
	switch {
	case err != nil:
		return err
	case failed != nil:
		return failed
	case reason != nil || position != s.dataEnd || next != s.end && !footer.Sparse:
		return fmt.Errorf("%w: segment %d at position %d: %w", ErrDamaged, s.base, position, errors.Join(reason, fmt.Errorf("batches end at %d", next)))
	}
	return nil
}

// batch adds what the filter leaves of one batch.
func (r *Rewrite) batch(b record.Batch, filter Filter) error {
	left, err := filter(b)
	if err != nil {
		return err
	}
	if len(left) == 0 || &left[0] != &b[0] {
		if err := r.diverge(); err != nil {
			return err
		}
	}
	if len(left) == 0 {
		return nil
	}
	r.builder.Skip(left.BaseOffset())
	if err := r.builder.Add(left); err != nil {
		return fmt.Errorf("rewrite batch at %d: %w", b.BaseOffset(), err)
	}
	if r.out == nil {
		return nil
	}
	return r.write(left)
}

// diverge begins to write, with what stayed of the first segment so far.
func (r *Rewrite) diverge() error {
	if r.out != nil {
		return nil
	}
	r.unchanged = false
	r.name = strings.TrimSuffix(r.l.name(r.old[0].base), suffix) + rewriteSuffix
	opened, err := r.l.fs.Create(r.name)
	if errors.Is(err, fs.ErrExist) { // an earlier one that could not be removed
		if err = r.l.fs.Remove(r.name); err == nil {
			opened, err = r.l.fs.Create(r.name)
		}
	}
	if err != nil {
		return r.failed("create", err)
	}
	r.out = newFile(opened)
	if err := r.write(r.builder.Header()); err != nil {
		return err
	}
	p := make([]byte, min(rewriteBuffer, r.builder.Position()))
	for at := int64(segment.HeaderSize); at < r.builder.Position(); {
		p = p[:min(int64(len(p)), r.builder.Position()-at)]
		if n, err := r.source.ReadAt(p, at); n < len(p) {
			return fmt.Errorf("read segment %d: %w", r.old[0].base, err)
		}
		if err := r.write(p); err != nil {
			return err
		}
		at += int64(len(p))
	}
	return nil
}

func (r *Rewrite) write(p []byte) error {
	r.buffer = append(r.buffer, p...)
	if len(r.buffer) < rewriteBuffer {
		return nil
	}
	return r.flush()
}

func (r *Rewrite) flush() error {
	if _, err := r.out.WriteAt(r.buffer, r.written); err != nil {
		return r.failed("write", err)
	}
	r.written += int64(len(r.buffer))
	r.buffer = r.buffer[:0]
	if r.written-r.synced < rewriteSync {
		return nil
	}
	return r.sync()
}

func (r *Rewrite) sync() error {
	if err := r.out.Sync(); err != nil {
		return r.failed("sync", err)
	}
	r.synced = r.written
	return nil
}

// failed fails the log unless the disk is full: after any other error nothing it says can be relied on.
func (r *Rewrite) failed(what string, err error) error {
	if !errors.Is(err, vfs.ErrNoSpace) {
		r.l.fail(err)
	}
	return fmt.Errorf("%s %s: %w", what, r.name, err)
}

// Abort removes what was written. It may be called after Commit, and does nothing then.
func (r *Rewrite) Abort() {
	if r.source != nil {
		r.source.unpin()
		r.source = nil
	}
	if r.out != nil {
		r.out.unpin()
		r.out = nil
		_ = r.l.fs.Remove(r.name) // else the next Open does
	}
}

// Commit puts the result in the place of the segments taken, durably, and reports whether anything changed. aborted are the
// aborted transactions that overlap them, in the order of their markers; all else that footers say is carried over. Readers
// that have an old file open go on reading it. A crash leaves the old segments or the new one. Errors: ErrReplaced, ErrClosed,
// vfs.ErrNoSpace: the old segments are still there then. Any other fails the log.
func (r *Rewrite) Commit(aborted []record.AbortedTxn) (changed bool, err error) {
	defer r.Abort()
	if r.unchanged && len(r.old) == 1 && slices.Equal(r.footers[0].Aborted, aborted) {
		return false, nil
	}
	if err := r.diverge(); err != nil {
		return false, err
	}
	last := r.footers[len(r.footers)-1]
	r.builder.Skip(last.End)
	_, f := r.builder.Finish(aborted, last.Producers)
	f.Epochs = joinEpochs(r.footers)
	r.buffer = append(r.buffer, f.Encode()...)
	if err := r.flush(); err != nil {
		return false, err
	}
	if err := r.sync(); err != nil {
		return false, err
	}
	return true, r.replace(f)
}

// joinEpochs returns the epochs of adjacent segments, also those of which no batch is left.
func joinEpochs(footers []*segment.Footer) []record.EpochStart {
	var out []record.EpochStart
	for _, f := range footers {
		for _, e := range f.Epochs {
			if n := len(out); n == 0 || e.Epoch > out[n-1].Epoch {
				if n > 0 {
					e.Start = max(e.Start, f.Base)
				}
				out = append(out, e)
			}
		}
	}
	return out
}

// replace exchanges the segments: in memory, then by a rename over the first one's name, and when that is on disk the other
// names go. Whoever looks up the new segment reads from the file that is open already.
func (r *Rewrite) replace(f *segment.Footer) error {
	l := r.l
	l.structure.Lock()
	defer l.structure.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	n := &seg{base: f.Base, sealed: true}
	n.setFooter(f, r.written)
	l.files.hold(n, r.out.pin())
	if !l.exchange(r.old, []*seg{n}) {
		l.files.drop(n)
		return fmt.Errorf("%w: [%d, %d)", ErrReplaced, f.Base, f.End)
	}
	for _, s := range r.old {
		l.files.drop(s) // before the name is another file's
	}
	if err := l.fs.Rename(r.name, l.name(f.Base)); errors.Is(err, vfs.ErrNoSpace) {
		r.takeBack(n)
		return fmt.Errorf("rename %s: %w", r.name, err)
	} else if err != nil {
		return r.failed("rename", err)
	}
	r.out.unpin()
	r.out = nil
	if err := l.fs.SyncDir(l.dir); err != nil {
		l.fail(err)
		return fmt.Errorf("sync log directory: %w: %w", ErrFenced, err)
	}
	l.files.put(n, nil, f)
	l.files.hold(n, nil)
	l.size.Add(n.size - r.old[0].size)
	for _, s := range r.old[1:] {
		if err := l.fs.Remove(l.name(s.base)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			continue // the next Open removes it
		}
		l.size.Add(-s.size)
	}
	return nil
}

// takeBack puts the old segments in place again.
func (r *Rewrite) takeBack(n *seg) {
	var again []*seg
	for _, s := range r.old {
		again = append(again, &seg{base: s.base, end: s.end, dataEnd: s.dataEnd, size: s.size, minTime: s.minTime, maxTime: s.maxTime,
			maxTimeOffset: s.maxTimeOffset, records: s.records, footer: s.footer, sealed: true, rebuilt: s.rebuilt})
	}
	if !r.l.exchange([]*seg{n}, again) {
		panic("hotlog: a segment vanished under the structure lock")
	}
	r.l.files.drop(n)
}

// exchange replaces a run of segments in the list; false if they are not there, one after another.
func (l *Log) exchange(old, by []*seg) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := slices.Index(l.segs, old[0])
	if i < 0 || i+len(old) > len(l.segs) || !slices.Equal(l.segs[i:i+len(old)], old) {
		return false
	}
	l.segs = slices.Clip(slices.Concat(l.segs[:i], by, l.segs[i+len(old):]))
	return true
}
