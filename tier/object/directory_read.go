package object

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/everlog/everlog/tier/vfs"
)

// Get implements Store.
func (d *Directory) Get(ctx context.Context, name string) ([]byte, Version, error) {
	p, a, err := d.stat(ctx, "get", name, true)
	return p, a.Version, err
}

// Head implements Store.
func (d *Directory) Head(ctx context.Context, name string) (Attributes, error) {
	_, a, err := d.stat(ctx, "head", name, false)
	return a, err
}

func (d *Directory) stat(ctx context.Context, op, name string, whole bool) ([]byte, Attributes, error) {
	if err := ctx.Err(); err != nil {
		return nil, Attributes{}, failed(op, name, ErrUnavailable, err)
	}
	if CheckName(name) != nil {
		return nil, Attributes{}, failed(op, name, ErrUnavailable, ErrNotFound)
	}
	p, a, err := d.describe(name, whole)
	if err != nil {
		return nil, Attributes{}, failed(op, name, ErrUnavailable, err)
	}
	return p, a, nil
}

// ReadAt implements Store: one stat, which notices that the object was replaced or removed, and one pread.
func (d *Directory) ReadAt(ctx context.Context, name string, p []byte, position int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	if err := ctx.Err(); err != nil {
		return 0, failed("read", name, ErrUnavailable, err)
	}
	if CheckName(name) != nil {
		return 0, failed("read", name, ErrUnavailable, ErrNotFound)
	}
	info, err := d.fs.Stat(d.path(name))
	if err == nil && info.IsDir {
		err = ErrNotFound
	}
	if err != nil {
		return 0, failed("read", name, ErrUnavailable, err)
	}
	f, err := d.files.acquire(name, info)
	if err != nil {
		return 0, failed("read", name, ErrUnavailable, err)
	}
	defer d.files.release(f)
	if position < 0 || position >= info.Size {
		return 0, fmt.Errorf("read %s at %d of %d: %w", name, position, info.Size, ErrRange)
	}
	n, err := f.ReadAt(p, position)
	switch {
	case n == len(p):
		return n, nil
	case n == 0 && errors.Is(err, io.EOF): // replaced by a shorter one since the stat
		return 0, fmt.Errorf("read %s at %d: %w", name, position, ErrRange)
	case errors.Is(err, io.EOF):
		return n, io.EOF
	}
	return n, failed("read", name, ErrUnavailable, err)
}

// List implements Store. It reads the directories that can hold matching names, and stats matching names only.
func (d *Directory) List(ctx context.Context, prefix, after string, limit int) ([]Attributes, error) {
	l := lister{d: d, ctx: ctx, prefix: prefix, after: after, limit: limitOf(limit)}
	if err := l.walk(""); err != nil {
		return nil, failed("list", prefix, ErrUnavailable, err)
	}
	return l.found, nil
}

type lister struct {
	d             *Directory
	ctx           context.Context
	prefix, after string
	limit         int
	found         []Attributes
}

// walk visits the directory dir ("" or ending with a slash) in byte order of whole names. There "a-b" comes before "a/b",
// although "a" comes before "a-b" in the directory: a subdirectory is kept back until the next name is past it.
func (l *lister) walk(dir string) error {
	if err := l.ctx.Err(); err != nil {
		return err
	}
	bases, err := l.d.fs.List(l.d.path(dir))
	if isAbsent(err) {
		return nil // removed meanwhile
	}
	if err != nil {
		return err
	}
	var pending []string // subdirectories met but not yet visited, sorted, each with its slash
	for _, base := range bases {
		name := dir + base
		for len(pending) > 0 && pending[0] < name && len(l.found) < l.limit {
			if err := l.walk(pending[0]); err != nil {
				return err
			}
			pending = pending[1:]
		}
		if len(l.found) == l.limit {
			return nil
		}
		isDir, err := l.visit(name, base)
		if err != nil {
			return err
		}
		if isDir {
			at, _ := slices.BinarySearch(pending, name+"/")
			pending = slices.Insert(pending, at, name+"/")
		}
	}
	for ; len(pending) > 0 && len(l.found) < l.limit; pending = pending[1:] {
		if err := l.walk(pending[0]); err != nil {
			return err
		}
	}
	return nil
}

// visit adds the object name if it matches, or reports that it is a directory that may hold matches.
func (l *lister) visit(name, base string) (isDir bool, err error) {
	below := name + "/"
	mayBe := strings.HasPrefix(name, l.prefix) && name > l.after
	// The names below are less than name+"0", since '0' follows '/'.
	mayHold := (strings.HasPrefix(below, l.prefix) || strings.HasPrefix(l.prefix, below)) && l.after < name+"0"
	if base[0] == '.' || !mayBe && !mayHold {
		return false, nil
	}
	info, err := l.d.fs.Stat(l.d.path(name))
	if isAbsent(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if mayBe && !info.IsDir {
		l.found = append(l.found, Attributes{Name: name, Size: info.Size, Modified: info.Modified})
	}
	return info.IsDir && mayHold, nil
}

const (
	// maxOpen is the number of files kept open for reads.
	maxOpen = 128
	// settled is the age from which an object's time of modification tells it from a later one: younger ones may have been
	// written within one tick of the file system's clock.
	settled = 2 * time.Second
)

// openFiles keeps the files read last open. A file whose object was replaced is told by its size and time.
type openFiles struct {
	open func(name string) (vfs.File, error)

	mu     sync.Mutex
	byName map[string]*openFile
	// recent orders byName, last used first.
	recent list.List
}

type openFile struct {
	vfs.File
	name string
	info vfs.Info
	// refs counts the readers, and the cache itself. place is nil once the cache has let go. Both are guarded by mu.
	refs  int
	place *list.Element
}

// acquire returns the file of the object that info was read from, before this call, or of a later one. The caller
// releases it.
func (c *openFiles) acquire(name string, info vfs.Info) (*openFile, error) {
	c.mu.Lock()
	if f := c.byName[name]; f != nil {
		if f.info == info {
			f.refs++
			c.recent.MoveToFront(f.place)
			c.mu.Unlock()
			return f, nil
		}
		c.dropLocked(f)
	}
	c.mu.Unlock()

	file, err := c.open(name)
	if err != nil {
		return nil, err
	}
	f := &openFile{File: file, name: name, info: info, refs: 1}
	if info.Modified.IsZero() || time.Since(info.Modified) < settled {
		return f, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if old := c.byName[name]; old != nil {
		c.dropLocked(old)
	}
	if c.byName == nil {
		c.byName = map[string]*openFile{}
	}
	f.refs++
	f.place = c.recent.PushFront(f)
	c.byName[name] = f
	if c.recent.Len() > maxOpen {
		c.dropLocked(c.recent.Back().Value.(*openFile))
	}
	return f, nil
}

func (c *openFiles) release(f *openFile) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.releaseLocked(f)
}

func (c *openFiles) releaseLocked(f *openFile) {
	if f.refs--; f.refs == 0 {
		f.Close()
	}
}

// dropLocked takes a file out of the cache; it is closed when its last reader is done.
func (c *openFiles) dropLocked(f *openFile) {
	delete(c.byName, f.name)
	c.recent.Remove(f.place)
	f.place = nil
	c.releaseLocked(f)
}

func (c *openFiles) drop(name string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if f := c.byName[name]; f != nil {
		c.dropLocked(f)
	}
}

func (c *openFiles) closeAll() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.byName {
		c.dropLocked(f)
	}
}
