package vfs

import (
	"errors"
	"io"
	"sync/atomic"
)

// OpKind names an operation of an FS or a File.
type OpKind string

// The operations that Fault asks about.
const (
	OpCreate      OpKind = "create"
	OpOpen        OpKind = "open"
	OpRemove      OpKind = "remove"
	OpRename      OpKind = "rename"
	OpRemoveAll   OpKind = "removeall"
	OpMkdirAll    OpKind = "mkdirall"
	OpList        OpKind = "list"
	OpStat        OpKind = "stat"
	OpSyncDir     OpKind = "syncdir"
	OpLock        OpKind = "lock"
	OpUsage       OpKind = "usage"
	OpRead        OpKind = "read"
	OpWrite       OpKind = "write"
	OpSync        OpKind = "sync"
	OpTruncate    OpKind = "truncate"
	OpSize        OpKind = "size"
	OpPreallocate OpKind = "preallocate"
	OpClose       OpKind = "close"
)

// Op is one operation about to happen.
type Op struct {
	Kind OpKind
	// Name is the file or directory; the old name of a rename.
	Name string
	// Position and Size in bytes are those of a read, a write and a preallocation; Position is the new size of a truncation.
	Position int64
	Size     int
	// N numbers the operations of this Fault from 0.
	N int
}

// Partial, returned by Fault's decide for a write, lets the first Size bytes through before the write fails with Err.
type Partial struct {
	Size int
	Err  error
}

// Error implements error.
func (p *Partial) Error() string { return "partial write: " + p.Err.Error() }

// Unwrap returns Err.
func (p *Partial) Unwrap() error { return p.Err }

// Fault returns fs with decide asked before every operation. If it returns an error the operation has no effect (but see
// Partial) and returns that error. A close always closes. decide may be called concurrently.
func Fault(fs FS, decide func(op Op) error) FS {
	return &faultFS{fs: fs, decide: decide}
}

type faultFS struct {
	fs     FS
	decide func(op Op) error
	n      atomic.Int64
}

func (f *faultFS) ask(op Op) error {
	op.N = int(f.n.Add(1)) - 1
	return f.decide(op)
}

func (f *faultFS) file(file File, err error) (File, error) {
	if err != nil {
		return nil, err
	}
	return &faultFile{File: file, fs: f}, nil
}

func (f *faultFS) Create(name string) (File, error) {
	if err := f.ask(Op{Kind: OpCreate, Name: name}); err != nil {
		return nil, err
	}
	return f.file(f.fs.Create(name))
}

func (f *faultFS) Open(name string) (File, error) {
	if err := f.ask(Op{Kind: OpOpen, Name: name}); err != nil {
		return nil, err
	}
	return f.file(f.fs.Open(name))
}

func (f *faultFS) Remove(name string) error {
	if err := f.ask(Op{Kind: OpRemove, Name: name}); err != nil {
		return err
	}
	return f.fs.Remove(name)
}

func (f *faultFS) Rename(old, new string) error {
	if err := f.ask(Op{Kind: OpRename, Name: old}); err != nil {
		return err
	}
	return f.fs.Rename(old, new)
}

func (f *faultFS) RemoveAll(name string) error {
	if err := f.ask(Op{Kind: OpRemoveAll, Name: name}); err != nil {
		return err
	}
	return f.fs.RemoveAll(name)
}

func (f *faultFS) MkdirAll(name string) error {
	if err := f.ask(Op{Kind: OpMkdirAll, Name: name}); err != nil {
		return err
	}
	return f.fs.MkdirAll(name)
}

func (f *faultFS) List(dir string) ([]string, error) {
	if err := f.ask(Op{Kind: OpList, Name: dir}); err != nil {
		return nil, err
	}
	return f.fs.List(dir)
}

func (f *faultFS) Stat(name string) (Info, error) {
	if err := f.ask(Op{Kind: OpStat, Name: name}); err != nil {
		return Info{}, err
	}
	return f.fs.Stat(name)
}

func (f *faultFS) SyncDir(dir string) error {
	if err := f.ask(Op{Kind: OpSyncDir, Name: dir}); err != nil {
		return err
	}
	return f.fs.SyncDir(dir)
}

func (f *faultFS) Lock(name string) (io.Closer, error) {
	if err := f.ask(Op{Kind: OpLock, Name: name}); err != nil {
		return nil, err
	}
	return f.fs.Lock(name)
}

func (f *faultFS) Usage(dir string) (total, free int64, err error) {
	if err := f.ask(Op{Kind: OpUsage, Name: dir}); err != nil {
		return 0, 0, err
	}
	return f.fs.Usage(dir)
}

type faultFile struct {
	File
	fs *faultFS
}

func (f *faultFile) ReadAt(p []byte, position int64) (int, error) {
	if err := f.fs.ask(Op{Kind: OpRead, Name: f.Name(), Position: position, Size: len(p)}); err != nil {
		return 0, err
	}
	return f.File.ReadAt(p, position)
}

func (f *faultFile) WriteAt(p []byte, position int64) (int, error) {
	err := f.fs.ask(Op{Kind: OpWrite, Name: f.Name(), Position: position, Size: len(p)})
	if err == nil {
		return f.File.WriteAt(p, position)
	}
	if part := (*Partial)(nil); errors.As(err, &part) {
		n, _ := f.File.WriteAt(p[:min(part.Size, len(p))], position)
		return n, part.Err
	}
	return 0, err
}

func (f *faultFile) Sync() error {
	if err := f.fs.ask(Op{Kind: OpSync, Name: f.Name()}); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *faultFile) Truncate(size int64) error {
	if err := f.fs.ask(Op{Kind: OpTruncate, Name: f.Name(), Position: size}); err != nil {
		return err
	}
	return f.File.Truncate(size)
}

func (f *faultFile) Size() (int64, error) {
	if err := f.fs.ask(Op{Kind: OpSize, Name: f.Name()}); err != nil {
		return 0, err
	}
	return f.File.Size()
}

func (f *faultFile) Preallocate(position, size int64) error {
	if err := f.fs.ask(Op{Kind: OpPreallocate, Name: f.Name(), Position: position, Size: int(size)}); err != nil {
		return err
	}
	return f.File.Preallocate(position, size)
}

func (f *faultFile) Close() error {
	err := f.fs.ask(Op{Kind: OpClose, Name: f.Name()})
	if closeErr := f.File.Close(); err == nil {
		err = closeErr
	}
	return err
}
