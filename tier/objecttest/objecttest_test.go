package objecttest_test

import (
	"testing"
	"time"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
	"github.com/everlog/everlog/tier/vfs"
)

func TestMemory(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store { return object.NewMemory() })
}

func directory(t *testing.T, dir string, fs vfs.FS) *object.Directory {
	d, err := object.NewDirectory(dir, fs)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := d.Close(); err != nil {
			t.Error(err)
		}
	})
	return d
}

func TestDirectory(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store { return directory(t, t.TempDir(), vfs.OS()) })
}

func TestDirectoryInMemory(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store { return directory(t, "data/store", vfs.NewMem()) })
}

func TestPrefix(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store {
		m := object.NewMemory()
		if _, err := m.Put(t.Context(), "pre", object.Bytes(nil), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if _, err := m.Put(t.Context(), "prefix-more/x", object.Bytes(nil), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		return object.Prefix(m, "/prefix/two/")
	})
}

func TestDecorated(t *testing.T) {
	objecttest.Run(t, func(t *testing.T) object.Store {
		faulty := objecttest.NewFaulty(object.NewMemory(), nil)
		return object.Observe(object.Retry(faulty, object.RetryOptions{}), func(string, int64, time.Duration, error) {})
	})
}
