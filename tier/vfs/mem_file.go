package vfs

import (
	"io"
	"io/fs"
	"time"
)

// pageSize is the unit in which unsynced bytes survive a crash or do not.
const pageSize = 4096

// memFile is an open file of a Mem; the Mem's mutex guards all of it.
type memFile struct {
	m      *Mem
	n      *node
	name   string
	closed bool
}

func (f *memFile) Name() string { return f.name }

func (f *memFile) checkLocked(op string) error {
	if f.closed {
		return pathError(op, f.name, fs.ErrClosed)
	}
	return nil
}

func (f *memFile) Close() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.checkLocked("close"); err != nil {
		return err
	}
	f.closed = true
	f.m.open--
	return nil
}

func (f *memFile) Size() (int64, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	return int64(len(f.n.data)), f.checkLocked("stat")
}

func (f *memFile) ReadAt(p []byte, position int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.checkLocked("read"); err != nil {
		return 0, err
	}
	if position < 0 {
		return 0, pathError("read", f.name, fs.ErrInvalid)
	}
	if position >= int64(len(f.n.data)) {
		if len(p) == 0 {
			return 0, nil
		}
		return 0, io.EOF
	}
	n := copy(p, f.n.data[position:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, position int64) (int, error) {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.checkLocked("write"); err != nil {
		return 0, err
	}
	if position < 0 {
		return 0, pathError("write", f.name, fs.ErrInvalid)
	}
	full := false
	if grow := position + int64(len(p)) - int64(len(f.n.data)); f.m.capacity > 0 && grow > 0 {
		if over := f.m.used + grow - f.m.capacity; over > 0 {
			full = true
			p = p[:max(int64(len(p))-over, 0)]
		}
	}
	if len(p) > 0 {
		f.resizeLocked(max(position+int64(len(p)), int64(len(f.n.data))))
		copy(f.n.data[position:], p)
		f.touchLocked(position, position+int64(len(p)))
	}
	if full {
		return len(p), pathError("write", f.name, ErrNoSpace)
	}
	return len(p), nil
}

func (f *memFile) Truncate(size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.checkLocked("truncate"); err != nil {
		return err
	}
	if size < 0 {
		return pathError("truncate", f.name, fs.ErrInvalid)
	}
	f.touchLocked(min(size, int64(len(f.n.data))), max(size, int64(len(f.n.data))))
	f.resizeLocked(size)
	return nil
}

// resizeLocked sets the size; new bytes are zero, also where a larger file was cut before.
func (f *memFile) resizeLocked(size int64) {
	n := f.n
	if !n.unlinked {
		f.m.used += size - int64(len(n.data))
	}
	if grow := size - int64(len(n.data)); grow > 0 {
		n.data = append(n.data, make([]byte, grow)...)
	} else {
		n.data = n.data[:size]
	}
	n.modified = time.Now()
}

// touchLocked marks the pages of [from, to) as unsynced.
func (f *memFile) touchLocked(from, to int64) {
	for page := from / pageSize; page*pageSize < to; page++ {
		f.n.dirty[page] = true
	}
}

// Sync copies the dirty pages to the synced image.
func (f *memFile) Sync() error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.checkLocked("sync"); err != nil {
		return err
	}
	n := f.n
	n.synced = resized(n.synced, len(n.data))
	for page := range n.dirty {
		if from := page * pageSize; from < int64(len(n.data)) {
			to := min(from+pageSize, int64(len(n.data)))
			copy(n.synced[from:to], n.data[from:to])
		}
	}
	clear(n.dirty)
	return nil
}

// resized returns p cut or filled with zeros to size.
func resized(p []byte, size int) []byte {
	if size <= len(p) {
		return p[:size]
	}
	return append(p, make([]byte, size-len(p))...)
}

// Preallocate does nothing but ask whether the bytes would fit.
func (f *memFile) Preallocate(position, size int64) error {
	f.m.mu.Lock()
	defer f.m.mu.Unlock()
	if err := f.checkLocked("preallocate"); err != nil {
		return err
	}
	grow := position + size - int64(len(f.n.data))
	if f.m.capacity > 0 && grow > 0 && f.m.used+grow > f.m.capacity {
		return pathError("preallocate", f.name, ErrNoSpace)
	}
	return nil
}
