package vfs

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sort"

	"golang.org/x/sys/unix"
)

// OS returns the file system of the operating system.
func OS() FS { return osFS{} }

type osFS struct{}

// File and directory modes: a broker's data is nobody else's business.
const (
	fileMode = 0o640
	dirMode  = 0o750
)

func (osFS) Create(name string) (File, error) {
	return openFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func (osFS) Open(name string) (File, error) { return openFile(name, os.O_RDWR) }

func openFile(name string, flags int) (File, error) {
	f, err := os.OpenFile(name, flags, fileMode)
	if err != nil {
		return nil, mapError(err)
	}
	return &osFile{f: f, fd: int(f.Fd())}, nil
}

func (osFS) Remove(name string) error     { return mapError(os.Remove(name)) }
func (osFS) Rename(old, new string) error { return mapError(os.Rename(old, new)) }
func (osFS) RemoveAll(name string) error  { return mapError(os.RemoveAll(name)) }
func (osFS) MkdirAll(name string) error   { return mapError(os.MkdirAll(name, dirMode)) }

func (osFS) List(dir string) ([]string, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.Readdirnames(-1)
	sort.Strings(names)
	return names, err
}

func (osFS) Stat(name string) (Info, error) {
	i, err := os.Stat(name)
	if err != nil {
		return Info{}, err
	}
	return Info{Size: i.Size(), IsDir: i.IsDir(), Modified: i.ModTime()}, nil
}

func (osFS) SyncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	return mapError(d.Sync())
}

// Lock uses flock, which the kernel drops with the process, so that a killed broker leaves nothing to clean up.
func (osFS) Lock(name string) (io.Closer, error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, fileMode)
	if err != nil {
		return nil, mapError(err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		f.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", name, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: %w", name, err)
	}
	return f, nil
}

func (osFS) Usage(dir string) (total, free int64, err error) {
	var s unix.Statfs_t
	if err := unix.Statfs(dir, &s); err != nil {
		return 0, 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	unit := int64(s.Bsize)
	return int64(s.Blocks) * unit, int64(s.Bavail) * unit, nil
}

// mapError marks "disk full" and "quota full" with ErrNoSpace; it keeps the rest, whose fs.ErrExist and fs.ErrNotExist
// errors.Is finds already.
func mapError(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return err
}

// osFile keeps the descriptor beside the os.File, because Fd takes a lock and may change the file's mode.
type osFile struct {
	f  *os.File
	fd int
}

func (f *osFile) ReadAt(p []byte, position int64) (int, error) { return f.f.ReadAt(p, position) }

func (f *osFile) WriteAt(p []byte, position int64) (int, error) {
	n, err := f.f.WriteAt(p, position)
	return n, mapError(err)
}

func (f *osFile) Close() error           { return f.f.Close() }
func (f *osFile) Name() string           { return f.f.Name() }
func (f *osFile) Truncate(n int64) error { return mapError(f.f.Truncate(n)) }

func (f *osFile) Size() (int64, error) {
	i, err := f.f.Stat()
	if err != nil {
		return 0, err
	}
	return i.Size(), nil
}

// Fd returns the descriptor, for callers that hand the file to the kernel (sendfile). Valid until Close.
func (f *osFile) Fd() uintptr { return uintptr(f.fd) }

// retry repeats a system call that a signal interrupted.
func (f *osFile) retry(what string, call func() error) error {
	for {
		err := call()
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("%s %s: %w", what, f.Name(), mapError(err))
		}
	}
}
