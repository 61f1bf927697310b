//go:build !linux

package vfs

// Sync is fsync (F_FULLFSYNC on macOS): there is no fdatasync here, or none to trust.
func (f *osFile) Sync() error {
	return f.retry("fsync", f.f.Sync)
}

// Preallocate does nothing: it is an optimisation, and only Linux has it without changing the size.
func (f *osFile) Preallocate(position, size int64) error { return nil }
