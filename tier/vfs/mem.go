package vfs

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"sort"
	"strings"
	"sync"
	"time"
)

// Mem is a file system in memory that remembers what has been synced, so that CrashClone can forget the rest. It is harsher
// than ext4: a synced file is lost with its name until its directory is synced too, and so is a directory until its parent
// is. Safe for concurrent use.
type Mem struct {
	mu       sync.Mutex
	root     *node
	pending  []*entryOp // changes of directory entries not yet synced, in order
	locks    map[string]bool
	open     int
	used     int64 // bytes of all files that have a name
	capacity int64 // 0 = without limit
}

// NewMem returns an empty file system without a limit of size.
func NewMem() *Mem {
	return &Mem{root: newDir(), locks: map[string]bool{}}
}

// node is a file or a directory.
type node struct {
	dir      bool
	modified time.Time

	entries map[string]*node // directory: as seen now
	durable map[string]*node // directory: as of the last sync

	unlinked bool // has no name any more

	data   []byte         // file: as seen now
	synced []byte         // file: as of the last Sync
	dirty  map[int64]bool // file: numbers of the pages changed since
}

// entryOp is one atomic change of directory entries. A nil target removes the name.
type entryOp struct{ changes []entryChange }

type entryChange struct {
	dir    *node
	name   string
	target *node
}

func newDir() *node {
	return &node{dir: true, entries: map[string]*node{}, durable: map[string]*node{}, modified: time.Now()}
}

// SetCapacity makes writes that would bring the sum of all file sizes above bytes fail with ErrNoSpace, after writing what
// fits. 0 takes the limit away.
func (m *Mem) SetCapacity(bytes int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.capacity = bytes
}

// OpenFiles is the number of open File values, for tests that look for leaks.
func (m *Mem) OpenFiles() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.open
}

// split returns the elements of a name; none for the root.
func split(name string) []string {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if name == "" {
		return nil
	}
	return strings.Split(name, "/")
}

func pathError(op, name string, err error) error { return &fs.PathError{Op: op, Path: name, Err: err} }

func (m *Mem) findLocked(op, name string) (*node, error) {
	n := m.root
	for _, s := range split(name) {
		if n = n.entries[s]; n == nil {
			return nil, pathError(op, name, fs.ErrNotExist)
		}
	}
	return n, nil
}

// parentLocked returns the directory of name, and name's base.
func (m *Mem) parentLocked(op, name string) (*node, string, error) {
	parts := split(name)
	if len(parts) == 0 {
		return nil, "", pathError(op, name, fs.ErrInvalid)
	}
	dir, err := m.findLocked(op, strings.Join(parts[:len(parts)-1], "/"))
	if err != nil {
		return nil, "", pathError(op, name, fs.ErrNotExist)
	}
	if !dir.dir {
		return nil, "", pathError(op, name, fs.ErrInvalid)
	}
	return dir, parts[len(parts)-1], nil
}

// changeLocked applies an atomic change of entries, and remembers it until a sync.
func (m *Mem) changeLocked(changes ...entryChange) {
	for _, c := range changes {
		if c.target == nil {
			delete(c.dir.entries, c.name)
		} else {
			c.dir.entries[c.name] = c.target
		}
		c.dir.modified = time.Now()
	}
	m.pending = append(m.pending, &entryOp{changes})
}

// Create implements FS.
func (m *Mem) Create(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parentLocked("create", name)
	if err != nil {
		return nil, err
	}
	if dir.entries[base] != nil {
		return nil, pathError("create", name, fs.ErrExist)
	}
	n := &node{dirty: map[int64]bool{}, modified: time.Now()}
	m.changeLocked(entryChange{dir, base, n})
	m.open++
	return &memFile{m: m, n: n, name: name}, nil
}

// Open implements FS.
func (m *Mem) Open(name string) (File, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findLocked("open", name)
	if err != nil {
		return nil, err
	}
	if n.dir {
		return nil, pathError("open", name, fs.ErrInvalid)
	}
	m.open++
	return &memFile{m: m, n: n, name: name}, nil
}

// Remove implements FS.
func (m *Mem) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parentLocked("remove", name)
	if err != nil {
		return err
	}
	n := dir.entries[base]
	switch {
	case n == nil:
		return pathError("remove", name, fs.ErrNotExist)
	case len(n.entries) > 0:
		return pathError("remove", name, fs.ErrInvalid)
	}
	m.unlinkLocked(n)
	m.changeLocked(entryChange{dir, base, nil})
	return nil
}

// Rename implements FS.
func (m *Mem) Rename(old, new string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	from, fromBase, err := m.parentLocked("rename", old)
	if err != nil {
		return err
	}
	to, toBase, err := m.parentLocked("rename", new)
	if err != nil {
		return err
	}
	n := from.entries[fromBase]
	if n == nil {
		return pathError("rename", old, fs.ErrNotExist)
	}
	if was := to.entries[toBase]; was == n {
		return nil
	} else if was != nil {
		if was.dir {
			return pathError("rename", new, fs.ErrExist)
		}
		m.unlinkLocked(was)
	}
	m.changeLocked(entryChange{from, fromBase, nil}, entryChange{to, toBase, n})
	return nil
}

// RemoveAll implements FS. Each name below is a change of its own: a crash may leave a part.
func (m *Mem) RemoveAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, base, err := m.parentLocked("remove", name)
	if err != nil || dir.entries[base] == nil {
		return nil
	}
	m.removeTreeLocked(dir, base)
	return nil
}

func (m *Mem) removeTreeLocked(dir *node, base string) {
	n := dir.entries[base]
	for _, name := range sortedNames(n.entries) {
		m.removeTreeLocked(n, name)
	}
	m.unlinkLocked(n)
	m.changeLocked(entryChange{dir, base, nil})
}

// MkdirAll implements FS.
func (m *Mem) MkdirAll(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.root
	for _, s := range split(name) {
		next := n.entries[s]
		if next == nil {
			next = newDir()
			m.changeLocked(entryChange{n, s, next})
		}
		if !next.dir {
			return pathError("mkdir", name, fs.ErrExist)
		}
		n = next
	}
	return nil
}

// List implements FS.
func (m *Mem) List(dir string) ([]string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findLocked("list", dir)
	if err != nil {
		return nil, err
	}
	return sortedNames(n.entries), nil
}

func sortedNames(entries map[string]*node) []string {
	names := make([]string, 0, len(entries))
	for name := range entries {
		names = append(names, name)
	}
	sort.Strings(names)
	return names
}

// Stat implements FS.
func (m *Mem) Stat(name string) (Info, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	n, err := m.findLocked("stat", name)
	if err != nil {
		return Info{}, err
	}
	return Info{Size: int64(len(n.data)), IsDir: n.dir, Modified: n.modified}, nil
}

// SyncDir implements FS. A rename between directories becomes durable whole with the first of the two that is synced.
func (m *Mem) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	dir, err := m.findLocked("sync", name)
	if err != nil {
		return err
	}
	kept := m.pending[:0]
	for _, op := range m.pending {
		if !op.touches(dir) {
			kept = append(kept, op)
			continue
		}
		for _, c := range op.changes {
			apply(c.dir.durable, c.name, c.target)
		}
	}
	clear(m.pending[len(kept):])
	m.pending = kept
	return nil
}

func (op *entryOp) touches(dir *node) bool {
	for _, c := range op.changes {
		if c.dir == dir {
			return true
		}
	}
	return false
}

// unlinkLocked takes the file's bytes out of the account; it lives on only in open files.
func (m *Mem) unlinkLocked(n *node) {
	m.used -= int64(len(n.data))
	n.unlinked = true
}

func apply(entries map[string]*node, name string, target *node) {
	if target == nil {
		delete(entries, name)
	} else {
		entries[name] = target
	}
}

// Lock implements FS.
func (m *Mem) Lock(name string) (io.Closer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	key := strings.Join(split(name), "/")
	if m.locks[key] {
		return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
	}
	dir, base, err := m.parentLocked("lock", name)
	if err != nil {
		return nil, err
	}
	if dir.entries[base] == nil {
		m.changeLocked(entryChange{dir, base, &node{dirty: map[int64]bool{}, modified: time.Now()}})
	}
	m.locks[key] = true
	return &memLock{m: m, key: key}, nil
}

type memLock struct {
	m    *Mem
	key  string
	once sync.Once
}

func (l *memLock) Close() error {
	l.once.Do(func() {
		l.m.mu.Lock()
		defer l.m.mu.Unlock()
		delete(l.m.locks, l.key)
	})
	return nil
}

// memUnlimited is the total size that a Mem without capacity reports.
const memUnlimited = 1 << 40

// Usage implements FS.
func (m *Mem) Usage(string) (total, free int64, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	total = m.capacity
	if total == 0 {
		total = memUnlimited
	}
	return total, max(total-m.used, 0), nil
}
