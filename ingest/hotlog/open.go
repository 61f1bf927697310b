package hotlog

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// Open recovers the log in dir, or prepares an empty one; no file is made before the first append. All that it finds is
// synced before any of it counts as durable, for it may be only in the page cache of a process that was killed. An error
// is one of reading or of the state; damage is reported in the Recovery, and the log is then readable up to it and
// refuses appends with ErrDamaged until Reset.
func Open(fs vfs.FS, dir string, id segment.Identity, st State, fl *Flusher, o Options) (*Log, *Recovery, error) {
	l := &Log{fs: fs, dir: dir, id: id, state: st, flusher: fl, files: o.Files}
	if l.files == nil {
		l.files = NewFiles(0, 0)
	}
	l.options.Store(o.withDefaults())
	saved, err := st.Load()
	if err != nil {
		return nil, nil, fmt.Errorf("open log %s: %w", dir, err)
	}
	r := &recovery{l: l, saved: saved, out: &Recovery{}}
	if err := r.run(); err != nil {
		r.release()
		return nil, nil, fmt.Errorf("open log %s: %w", dir, err)
	}
	return l, r.out, nil
}

// parseName reads the base offset from the name of a segment file.
func parseName(name string) (record.Offset, bool) {
	digits, ok := strings.CutSuffix(name, suffix)
	if !ok || len(digits) != 20 {
		return 0, false
	}
	base, err := strconv.ParseInt(digits, 10, 64)
	return record.Offset(base), err == nil && base >= 0
}

// release closes what a failed recovery had opened.
func (r *recovery) release() {
	for _, s := range append(r.segs, r.active) {
		if s != nil && s.file != nil {
			s.file.unpin()
			s.file = nil
		}
	}
}

// install puts what was recovered into the log.
func (r *recovery) install() {
	l := r.l
	end := int64(r.next)
	l.segs, l.active = r.segs, r.active
	l.epochs = r.epochs
	l.start.Store(int64(min(r.saved.Start, r.next)))
	l.end.Store(end)
	l.synced.Store(end)
	l.durable.Store(end)
	size := int64(0)
	for _, s := range r.segs {
		size += s.size
	}
	if b := r.active.builder; b != nil {
		size += b.Position()
		l.tableDone = r.tableDone
	}
	l.size.Store(size)
	if r.out.Damaged != nil {
		l.damaged = r.out.Damaged
	}
}

// checkpoint stores what recovery has proved, if the log is whole.
func (r *recovery) checkpoint() error {
	if r.out.Damaged != nil {
		return nil
	}
	if r.saved.Cut != localstate.NoCut || !slices.Equal(r.epochs, r.saved.Epochs) {
		noCut := localstate.NoCut
		if err := r.l.state.Save(localstate.Update{Cut: &noCut, Epochs: append([]record.EpochStart{}, r.epochs...)}); err != nil {
			return err
		}
	}
	if !r.nothingNew() {
		r.l.state.Checkpoint(localstate.Checkpoint{Base: r.active.base, Durable: r.next})
	}
	return nil
}
