package hotlog

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// recovery is one Open at work.
type recovery struct {
	l     *Log
	saved localstate.Saved
	out   *Recovery

	found  []found
	proven record.Offset // all below was synced: the checkpoint or a later footer says so

	segs      []*seg
	active    *seg
	next      record.Offset // where the log ends so far
	tableDone int64
	epochs    []record.EpochStart
	dirExists bool
	removed   bool
}

// found is a segment file, before its records are looked at.
type found struct {
	base   record.Offset
	size   int64
	file   *file              // nil once the footer is known and was synced long ago
	epoch  record.LeaderEpoch // of the header
	header error              // why the header is not valid
	footer *segment.Footer    // nil if there is none, or not a valid one
	gone   bool               // unlinked
	// vouched is the position up to which a checkpoint says that its records were synced; 0 for one that was not scanned.
	vouched int64
}

func (r *recovery) run() error {
	defer func() {
		for i := range r.found {
			if f := r.found[i].file; f != nil {
				f.unpin()
			}
		}
	}()
	if err := r.look(); err != nil {
		return err
	}
	r.next, r.epochs = r.saved.Start, r.saved.Epochs
	r.out.FirstReplay = r.saved.Start
	if r.saved.ProducersAt == r.saved.Start {
		r.out.Producers = r.saved.Producers
	}
	rest, err := r.finishCut()
	if err == nil {
		rest, err = r.dropTrimmed(rest)
	}
	if err != nil {
		return err
	}
	r.proven = r.saved.Checkpoint.Durable
	for i := range rest {
		if f := &rest[i]; f.footer != nil {
			r.proven = max(r.proven, f.footer.End)
		}
	}
	if err := r.chain(rest); err != nil {
		return err
	}
	if r.active == nil {
		r.active = &seg{base: r.next}
	}
	if err := r.sync(); err != nil {
		return err
	}
	r.epochs = epochsBelow(r.epochs, r.next)
	r.install()
	return r.checkpoint()
}

// look opens every segment file and reads header and footer. It removes nothing but files that are no segments.
func (r *recovery) look() error {
	l := r.l
	names, err := l.fs.List(l.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list: %w", err)
	}
	r.dirExists = true
	for _, name := range names { // sorted, so by base offset
		base, ok := parseName(name)
		if !ok {
			if err := r.remove(name); err != nil {
				return err
			}
			continue
		}
		f, err := r.inspect(base)
		if err != nil {
			return fmt.Errorf("segment %s: %w", name, err)
		}
		r.found = append(r.found, f)
	}
	return nil
}

func (r *recovery) inspect(base record.Offset) (found, error) {
	f := found{base: base}
	opened, err := r.l.fs.Open(r.l.name(base))
	if err != nil {
		return f, err
	}
	f.file = newFile(opened)
	if f.size, err = f.file.Size(); err == nil {
		err = f.read(r.l.id)
	}
	if err != nil || f.footer != nil && base < r.saved.Checkpoint.Base {
		f.file.unpin()
		f.file = nil
	}
	return f, err
}

// read fills in what header and footer say. Only what is not a matter of the bytes is an error.
func (f *found) read(id segment.Identity) error {
	got, base, epoch, err := segment.ReadHeader(f.file)
	switch {
	case errors.Is(err, segment.ErrCorrupt):
		f.header = err
	case err != nil:
		return err
	case got != id:
		f.header = fmt.Errorf("%w: the segment belongs to topic %s partition %d of cluster %x", segment.ErrCorrupt, got.Topic, got.Partition, got.Cluster)
	case base != f.base:
		f.header = fmt.Errorf("%w: header says base offset %d", segment.ErrCorrupt, base)
	}
	f.epoch = epoch
	footer, err := segment.ReadFooter(f.file, f.size)
	switch {
	case errors.Is(err, segment.ErrCorrupt), errors.Is(err, segment.ErrNoFooter):
		return nil
	case err != nil:
		return err
	}
	if footer.Identity == id && footer.Base == f.base && f.header == nil {
		f.footer = footer
	}
	return nil
}

// remove unlinks a file that is left over.
func (r *recovery) remove(name string) error {
	if err := r.l.fs.RemoveAll(filepath.Join(r.l.dir, name)); err != nil {
		return fmt.Errorf("remove left-over file: %w", err)
	}
	r.removed = true
	r.out.Removed = append(r.out.Removed, name)
	return nil
}

func (r *recovery) removeSegment(f *found) error {
	f.gone = true
	return r.remove(filepath.Base(r.l.name(f.base)))
}

// finishCut does what a truncation or a reset had promised to do when it was interrupted.
func (r *recovery) finishCut() ([]found, error) {
	rest, cut := r.found, r.saved.Cut
	if cut == localstate.NoCut {
		return rest, nil
	}
	for len(rest) > 0 && rest[len(rest)-1].base >= cut {
		if err := r.removeSegment(&rest[len(rest)-1]); err != nil {
			return nil, err
		}
		rest = rest[:len(rest)-1]
	}
	r.epochs = epochsBefore(r.epochs, max(cut, r.saved.Start))
	if len(rest) == 0 {
		return rest, nil
	}
	if last := &rest[len(rest)-1]; last.footer != nil && last.footer.End > cut {
		last.footer = nil // to be read again, up to the cut
		if last.file == nil {
			opened, err := r.l.fs.Open(r.l.name(last.base))
			if err != nil {
				return nil, err
			}
			last.file = newFile(opened)
		}
	}
	return rest, nil
}

// dropTrimmed removes segments that end at or below the start: a trim had moved it, and did not come to unlink them all.
func (r *recovery) dropTrimmed(rest []found) ([]found, error) {
	for len(rest) > 0 && rest[0].base < r.saved.Start {
		f := &rest[0]
		below := f.footer != nil && f.footer.End <= r.saved.Start || len(rest) > 1 && rest[1].base <= r.saved.Start
		if !below && f.footer == nil {
			b, _, _, err := r.scan(f)
			if err != nil {
				return nil, err
			}
			below = b.Next() <= r.saved.Start
		}
		if !below {
			r.next = f.base // the start is inside of it
			break
		}
		if err := r.removeSegment(f); err != nil {
			return nil, err
		}
		rest = rest[1:]
	}
	return rest, nil
}

// chain puts the segments one behind the other, until the log ends, or damage ends it.
func (r *recovery) chain(rest []found) error {
	for i := range rest {
		f := &rest[i]
		if f.base < r.next {
			left, err := r.leftOver(f)
			if err != nil {
				return err
			}
			if left {
				continue
			}
		}
		if f.base != r.next {
			if f.base > r.next && r.next >= r.proven {
				return r.discard(rest[i:]) // written, but never synced nor acknowledged
			}
			r.damage(f.base, 0, fmt.Errorf("the next segment begins at %d", f.base))
			return nil
		}
		if f.footer != nil {
			r.addSealed(f, f.footer)
			r.out.FirstReplay, r.out.Producers = f.footer.End, f.footer.Producers
			f.footer = nil // there may be thousands
			continue
		}
		done, err := r.unsealed(f, rest[i+1:])
		if done || err != nil {
			return err
		}
	}
	if r.next < r.proven {
		r.damage(r.next, 0, errors.New("the records are missing"))
	}
	return nil
}

// leftOver removes a segment that lies wholly inside the sealed ones before it: they were rewritten as one, which has the
// first one's name, and a crash came before the others were unlinked. The names are synced first: if that of the one that
// replaced them were lost after all, they would be all there is.
func (r *recovery) leftOver(f *found) (bool, error) {
	if len(r.segs) == 0 {
		return false, nil
	}
	end := record.Offset(-1)
	if f.footer != nil {
		end = f.footer.End
	} else if f.file != nil {
		b, _, _, err := r.scan(f)
		if err != nil {
			return false, err
		}
		end = b.Next()
	}
	if end > r.next {
		return false, nil
	}
	if err := r.l.fs.SyncDir(r.l.dir); err != nil {
		return false, fmt.Errorf("sync log directory: %w", err)
	}
	return true, r.removeSegment(f)
}

func (r *recovery) addSealed(f *found, footer *segment.Footer) {
	s := &seg{base: f.base, sealed: true}
	s.setFooter(footer, f.size)
	r.segs = append(r.segs, s)
	r.next = footer.End
	r.addEpochs(footer.Epochs)
}

// addEpochs adds what the history does not know yet. A segment's first epoch may have begun before it.
func (r *recovery) addEpochs(epochs []record.EpochStart) {
	for _, e := range epochs {
		if n := len(r.epochs); n == 0 || e.Epoch > r.epochs[n-1].Epoch {
			r.epochs = withEpoch(r.epochs, e)
		}
	}
}

// damage ends the log at r.next.
func (r *recovery) damage(base record.Offset, position int64, reason error) {
	r.out.Damaged = &Damage{Segment: base, Position: position, Offset: r.next, Durable: r.proven, Reason: reason}
}

// discard removes segments that hold nothing anybody was promised.
func (r *recovery) discard(rest []found) error {
	for i := len(rest) - 1; i >= 0; i-- {
		r.out.CutBytes += max(rest[i].size-segment.HeaderSize, 0)
		if err := r.removeSegment(&rest[i]); err != nil {
			return err
		}
	}
	return nil
}

// unsealed reads a segment without a footer, and decides what it is: the active segment, perhaps with a torn tail; a sealed
// one whose footer went bad; or damaged. done is true if the log ends with it.
func (r *recovery) unsealed(f *found, later []found) (done bool, err error) {
	builder, position, reason, err := r.scan(f)
	if err != nil {
		return true, fmt.Errorf("segment %d: %w", f.base, err)
	}
	end := builder.Next()
	switch {
	case r.l.options.Load().FlushOS && end > f.base && position == f.size && len(later) > 0 && later[0].base == end && later[0].header == nil && f.header == nil:
		return false, r.rebuild(f, builder) // rolled and whole, its footer was still to come; with FlushOS what follows was acknowledged
	case end >= r.proven && f.header != nil: // a crash before the header was synced
		if err := r.discard(later); err != nil {
			return true, err
		}
		return true, r.removeSegment(f)
	case end >= r.proven:
		r.next = end
		r.makeActive(f, builder)
		if r.saved.Cut == localstate.NoCut {
			r.out.CutBytes += f.size - position
		}
		if err := r.discard(later); err != nil {
			return true, err
		}
		if position < f.size {
			return true, f.file.Truncate(position)
		}
		return true, nil
	case len(later) > 0 && later[0].base == end && f.header == nil:
		return false, r.rebuild(f, builder)
	}
	if reason == nil {
		reason = fmt.Errorf("the file ends at %d", f.size)
	}
	r.next = end
	r.makeActive(f, builder)
	r.damage(f.base, position, reason)
	return true, nil
}

// scan verifies the batches of a segment without a footer: CRC, offsets, epochs. What the stored block table describes was
// synced, and is not read again.
func (r *recovery) scan(f *found) (b *segment.Builder, position int64, reason, err error) {
	b = segment.NewBuilder(r.l.id, f.base, f.epoch)
	if f.header != nil {
		return b, 0, f.header, nil
	}
	if t, err := segment.ParseFooter(r.saved.Checkpoint.Table); err == nil && r.describes(t, f) {
		b = segment.Resume(t)
	}
	r.tableDone = b.Position()
	cut := r.saved.Cut
	f.vouched = b.Position()
	position, reason, err = walk(f.file, b.Position(), f.size, func(batch record.Batch, at int64) error {
		if batch.NextOffset() <= r.saved.Checkpoint.Durable {
			f.vouched = at + int64(batch.Size())
		}
		if cut != localstate.NoCut && batch.NextOffset() > cut {
			return errStop
		}
		if err := batch.Verify(); err != nil {
			return err
		}
		return b.Add(batch)
	})
	return b, position, reason, err
}

// describes reports whether a stored block table is of this file and within it.
func (r *recovery) describes(t *segment.Footer, f *found) bool {
	return t.Identity == r.l.id && t.Base == f.base && t.End <= r.saved.Checkpoint.Durable && segment.HeaderSize+t.DataSize <= f.size
}

func (r *recovery) makeActive(f *found, b *segment.Builder) {
	s := &seg{base: f.base, file: f.file.pin(), builder: b}
	// A name is synced before the first record behind it counts: without one nothing vouches for it.
	s.newFile = b.Next() == f.base
	if b.Next() > f.base {
		if info, err := r.l.fs.Stat(r.l.name(f.base)); err == nil {
			s.created = info.Modified
		}
	}
	r.active = s
	r.addEpochs(b.Epochs())
}

// rebuild makes the footer of a sealed segment again from its batches. The stored one stays as it is, for what it held of
// producers is lost: the segment is recognised at every Open until it is trimmed.
func (r *recovery) rebuild(f *found, b *segment.Builder) error {
	aborted, err := r.abortedIn(f, b.Next())
	if err != nil {
		return err
	}
	_, footer := b.Finish(aborted, nil)
	r.addSealed(f, footer)
	s := r.segs[len(r.segs)-1]
	s.footer, s.rebuilt = footer, true
	return nil
}

// nothingNew reports whether the checkpoint vouches for all that was found, as after a clean end: a broker with thousands of
// idle logs then starts without an fsync.
func (r *recovery) nothingNew() bool {
	c := r.saved.Checkpoint
	return r.next == c.Durable && r.active.base == c.Base && c.Durable > r.saved.Start &&
		r.out.Damaged == nil && r.out.CutBytes == 0 && !r.removed && r.saved.Cut == localstate.NoCut
}

// sync makes durable all that was found, before it counts: files that no checkpoint vouches for, and names.
func (r *recovery) sync() error {
	if !r.dirExists || r.nothingNew() {
		return nil
	}
	for i := range r.found {
		f := &r.found[i]
		if f.gone || f.base < r.saved.Checkpoint.Base && f.base != r.active.base {
			continue
		}
		if err := r.touch(f); err != nil {
			return fmt.Errorf("write segment %d again: %w", f.base, err)
		}
		if err := f.file.Sync(); err != nil {
			return fmt.Errorf("sync segment %d: %w", f.base, err)
		}
	}
	r.l.newDir = true // for all that is known
	return r.l.syncNames()
}

// touch writes what no checkpoint vouches for once more, as it is: an fsync that failed in an earlier process has left pages
// that look clean, and an fsync now would succeed without writing them.
func (r *recovery) touch(f *found) error {
	from := f.vouched
	size, err := f.file.Size()
	if err != nil {
		return err
	}
	buffer := walkBuffers.Get().(*[]byte)
	defer walkBuffers.Put(buffer)
	for from < size {
		p := (*buffer)[:min(int64(len(*buffer)), size-from)]
		if _, err := f.file.ReadAt(p, from); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if _, err := f.file.WriteAt(p, from); err != nil {
			return err
		}
		from += int64(len(p))
	}
	return nil
}
