package vfs

import (
	"errors"

	"golang.org/x/sys/unix"
)

// Sync is fdatasync: it writes the size too when it changed, but not the times, which saves a journal commit when only
// preallocated blocks were filled.
func (f *osFile) Sync() error {
	return f.retry("fdatasync", func() error { return unix.Fdatasync(f.fd) })
}

// Preallocate keeps the size, so that the end of the file stays the end of what was written, also after a crash.
func (f *osFile) Preallocate(position, size int64) error {
	err := f.retry("fallocate", func() error {
		return unix.Fallocate(f.fd, unix.FALLOC_FL_KEEP_SIZE, position, size)
	})
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return nil
	}
	return err
}
