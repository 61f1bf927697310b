// Package vfs owns the local file system as an interface: the one of the operating system, one in memory that can crash
// and lose what was not synced, and a decorator that injects faults. It knows nothing of what is in the files. Whoever
// keeps state on a local disk (ingest/hotlog, tier/object's directory store, cache, tier/ship) takes an FS.
//
// The durability rules are those of POSIX as ext4 and xfs keep them, without their favours: bytes and size of a file are on
// disk after its Sync; the existence of a name is on disk after SyncDir of its directory. A file whose content is synced
// but whose name is not may be gone after a crash.
package vfs

import (
	"errors"
	"io"
	"time"
)

// FS is a local file system. Names are slash-separated paths as the operating system takes them. Implementations are
// safe for concurrent use.
type FS interface {
	// Create makes an empty file and opens it for reading and writing. It fails with fs.ErrExist if the name exists.
	Create(name string) (File, error)
	// Open opens a file for reading and writing. It fails with fs.ErrNotExist if it is absent.
	Open(name string) (File, error)
	// Remove unlinks a file or an empty directory; open files of it stay usable. fs.ErrNotExist if it is absent.
	Remove(name string) error
	// Rename gives a file or directory another name, replacing an existing file. Atomic: a crash leaves one or the other.
	Rename(old, new string) error
	// RemoveAll unlinks a file, or a directory with all below it. An absent name is not an error.
	RemoveAll(name string) error
	// MkdirAll makes a directory and its missing parents. It syncs nothing.
	MkdirAll(name string) error
	// List returns the base names in a directory, sorted. fs.ErrNotExist if it is absent.
	List(dir string) ([]string, error)
	// Stat describes a name. fs.ErrNotExist if it is absent.
	Stat(name string) (Info, error)
	// SyncDir makes the entries of a directory durable: names created, renamed and removed in it.
	SyncDir(dir string) error
	// Lock takes an exclusive lock on a file, which it makes if absent; held until Close or the end of the process.
	// ErrLocked if another holds it.
	Lock(name string) (io.Closer, error)
	// Usage returns the size in bytes of the file system that holds dir, and how many bytes of it this process may still
	// use.
	Usage(dir string) (total, free int64, err error)
}

// File is an open file. ReadAt, WriteAt, Sync and Size are safe for concurrent use with each other; a WriteAt past the
// end extends the file.
type File interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Sync returns when the bytes and the size of the file are on disk (fdatasync). After an error nothing is known of
	// what was written since the last success, and syncing again proves nothing.
	Sync() error
	// Truncate sets the size in bytes, and gives up blocks reserved past it.
	Truncate(size int64) error
	// Size is the size in bytes.
	Size() (int64, error)
	// Name is the name the file was opened by.
	Name() string
	// Preallocate reserves disk blocks for [position, position+size) without changing Size. It does nothing where the
	// file system cannot. ErrNoSpace if there is no room.
	Preallocate(position, size int64) error
}

// Info describes a file or directory.
type Info struct {
	// Size is in bytes; without meaning for a directory.
	Size  int64
	IsDir bool
	// Modified is when the content last changed.
	Modified time.Time
}

// ErrNoSpace means that the disk or the quota is full. The operation may have had a partial effect.
var ErrNoSpace = errors.New("no space left on the disk")

// ErrLocked means that another process, or another part of this one, holds the lock.
var ErrLocked = errors.New("locked by another process")

// ErrInjected is what a test's fault says.
var ErrInjected = errors.New("injected fault")
