package vfs

import (
	"errors"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"testing"
)

// eachFS runs the same expectations against the operating system and the memory file system.
func eachFS(t *testing.T, test func(t *testing.T, fsys FS, dir string)) {
	t.Run("os", func(t *testing.T) { test(t, OS(), t.TempDir()) })
	t.Run("mem", func(t *testing.T) {
		m := NewMem()
		if err := m.MkdirAll("/data"); err != nil {
			t.Fatal(err)
		}
		test(t, m, "/data")
		if n := m.OpenFiles(); n != 0 {
			t.Errorf("%d files left open", n)
		}
	})
	t.Run("fault", func(t *testing.T) { test(t, Fault(OS(), func(Op) error { return nil }), t.TempDir()) })
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("error is %v, want %v", err, target)
	}
}

// write makes or opens a file with content at position 0 and closes it.
func write(t *testing.T, fsys FS, name, content string, sync bool) {
	t.Helper()
	f, err := fsys.Create(name)
	if errors.Is(err, fs.ErrExist) {
		f, err = fsys.Open(name)
	}
	must(t, err)
	defer f.Close()
	_, err = f.WriteAt([]byte(content), 0)
	must(t, err)
	if sync {
		must(t, f.Sync())
	}
}

func read(t *testing.T, fsys FS, name string) string {
	t.Helper()
	f, err := fsys.Open(name)
	must(t, err)
	defer f.Close()
	size, err := f.Size()
	must(t, err)
	p := make([]byte, size)
	if n, err := f.ReadAt(p, 0); n != len(p) || err != nil && err != io.EOF {
		t.Fatalf("read %s: %d bytes, %v", name, n, err)
	}
	return string(p)
}

func TestFilesAndNames(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		_, err := fsys.Open(a)
		want(t, err, fs.ErrNotExist)
		_, err = fsys.Stat(a)
		want(t, err, fs.ErrNotExist)
		want(t, fsys.Remove(a), fs.ErrNotExist)
		_, err = fsys.List(a)
		want(t, err, fs.ErrNotExist)
		must(t, fsys.RemoveAll(a))

		write(t, fsys, a, "hello", true)
		_, err = fsys.Create(a)
		want(t, err, fs.ErrExist)
		write(t, fsys, b, "other", false)
		names, err := fsys.List(dir)
		must(t, err)
		if !slices.Equal(names, []string{"a", "b"}) {
			t.Errorf("names %v", names)
		}
		must(t, fsys.Rename(a, b))
		if got := read(t, fsys, b); got != "hello" {
			t.Errorf("b holds %q", got)
		}
		_, err = fsys.Stat(a)
		want(t, err, fs.ErrNotExist)
		must(t, fsys.SyncDir(dir))
		info, err := fsys.Stat(b)
		must(t, err)
		if info.Size != 5 || info.IsDir || info.Modified.IsZero() {
			t.Errorf("info %+v", info)
		}
		deep := filepath.Join(dir, "x", "y")
		must(t, fsys.MkdirAll(deep))
		must(t, fsys.MkdirAll(deep))
		write(t, fsys, filepath.Join(deep, "z"), "z", false)
		must(t, fsys.RemoveAll(filepath.Join(dir, "x")))
		_, err = fsys.Stat(deep)
		want(t, err, fs.ErrNotExist)
		total, free, err := fsys.Usage(dir)
		must(t, err)
		if total <= 0 || free <= 0 || free > total {
			t.Errorf("usage %d of %d", free, total)
		}
	})
}

func TestFileBytes(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "f")
		f, err := fsys.Create(name)
		must(t, err)
		must(t, f.Preallocate(0, 1<<16))
		if size, err := f.Size(); size != 0 || err != nil {
			t.Errorf("size after preallocation is %d, %v", size, err)
		}
		_, err = f.WriteAt([]byte("xyz"), 4)
		must(t, err)
		p := make([]byte, 10)
		n, err := f.ReadAt(p, 0)
		if n != 7 || err != io.EOF || string(p[:n]) != "\x00\x00\x00\x00xyz" {
			t.Errorf("read %q, %v", p[:n], err)
		}
		must(t, f.Truncate(5))
		must(t, f.Truncate(7))
		n, _ = f.ReadAt(p, 0)
		if string(p[:n]) != "\x00\x00\x00\x00x\x00\x00" {
			t.Errorf("after truncation and extension: %q", p[:n])
		}
		must(t, f.Sync())
		must(t, fsys.Remove(name))
		if _, err := f.WriteAt([]byte("still"), 0); err != nil {
			t.Errorf("write to an unlinked file: %v", err)
		}
		must(t, f.Close())
		if _, err := f.ReadAt(p, 0); err == nil {
			t.Error("read of a closed file succeeds")
		}
	})
}

func TestLockExcludes(t *testing.T) {
	eachFS(t, func(t *testing.T, fsys FS, dir string) {
		name := filepath.Join(dir, "LOCK")
		l, err := fsys.Lock(name)
		must(t, err)
		_, err = fsys.Lock(name)
		want(t, err, ErrLocked)
		must(t, l.Close())
		l, err = fsys.Lock(name)
		must(t, err)
		must(t, l.Close())
	})
}
