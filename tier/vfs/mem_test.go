package vfs

import (
	"bytes"
	"io/fs"
	"math/rand"
	"strings"
	"testing"
)

// crashed returns what is left when nothing unsynced survives.
func crashed(m *Mem) *Mem { return m.CrashClone(rand.New(rand.NewSource(1)), 0) }

func absent(t *testing.T, m *Mem, name string) {
	t.Helper()
	_, err := m.Stat(name)
	want(t, err, fs.ErrNotExist)
}

func TestCrashForgetsWhatWasNotSynced(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("/d"))
	must(t, m.SyncDir("/"))
	write(t, m, "/d/nameless", "synced, but its name is not", true)
	absent(t, crashed(m), "/d/nameless")

	must(t, m.SyncDir("/d"))
	write(t, m, "/d/nameless", "SYNCED", false)
	if got := read(t, crashed(m), "/d/nameless"); got != "synced, but its name is not" {
		t.Errorf("after a crash: %q", got)
	}
	if got := read(t, m, "/d/nameless"); !strings.HasPrefix(got, "SYNCED") {
		t.Errorf("the original changed: %q", got)
	}

	must(t, m.MkdirAll("/new/dir"))
	write(t, m, "/new/dir/f", "f", true)
	must(t, m.SyncDir("/new/dir"))
	must(t, m.SyncDir("/new"))
	absent(t, crashed(m), "/new")
	must(t, m.SyncDir("/"))
	if got := read(t, crashed(m), "/new/dir/f"); got != "f" {
		t.Errorf("f holds %q", got)
	}

	must(t, m.Remove("/d/nameless"))
	if got := read(t, crashed(m), "/d/nameless"); got == "" {
		t.Error("an unsynced removal lost the bytes")
	}
	must(t, m.SyncDir("/d"))
	absent(t, crashed(m), "/d/nameless")
}

func TestCrashKeepsEverythingWithProbabilityOne(t *testing.T) {
	m := NewMem()
	must(t, m.MkdirAll("/a/b"))
	write(t, m, "/a/b/f", "content", false)
	clone := m.CrashClone(rand.New(rand.NewSource(1)), 1)
	if got := read(t, clone, "/a/b/f"); !strings.HasPrefix("content", got) {
		t.Errorf("f holds %q", got)
	}
}

// A rename is one change: whatever the crash keeps, exactly one of the two names leads to the file.
func TestCrashKeepsRenameWhole(t *testing.T) {
	for seed := int64(0); seed < 50; seed++ {
		m := NewMem()
		write(t, m, "/old", "new content", true)
		write(t, m, "/target", "old content", true)
		must(t, m.SyncDir("/"))
		must(t, m.Rename("/old", "/target"))
		c := m.CrashClone(rand.New(rand.NewSource(seed)), 0.5)
		_, err := c.Stat("/old")
		renamed := err != nil
		if got := read(t, c, "/target"); renamed != (got == "new content") {
			t.Errorf("seed %d: renamed %v, target %q", seed, renamed, got)
		}
	}
}

// Pages survive one by one: over many seeds there is a torn write among the outcomes, and never a byte that was written by
// nobody.
func TestCrashTearsByPage(t *testing.T) {
	old, young := bytes.Repeat([]byte{'a'}, 4*pageSize), bytes.Repeat([]byte{'b'}, 4*pageSize)
	torn := 0
	for seed := int64(0); seed < 50; seed++ {
		m := NewMem()
		write(t, m, "/f", string(old), true)
		must(t, m.SyncDir("/"))
		write(t, m, "/f", string(young), false)
		got := read(t, m.CrashClone(rand.New(rand.NewSource(seed)), 0.5), "/f")
		for page := 0; page < 4; page++ {
			p := got[page*pageSize : (page+1)*pageSize]
			if p != string(old[:pageSize]) && p != string(young[:pageSize]) {
				t.Fatalf("seed %d: page %d is neither", seed, page)
			}
		}
		if strings.Contains(got, "ab") || strings.Contains(got, "ba") {
			torn++
		}
	}
	if torn == 0 {
		t.Error("no outcome is torn")
	}
}

func TestCrashIsReproducible(t *testing.T) {
	m := NewMem()
	for _, name := range []string{"/a", "/b", "/c", "/d"} {
		write(t, m, name, strings.Repeat(name, 5000), true)
		write(t, m, name, strings.Repeat("x", 9000), false)
	}
	list := func() string {
		c := m.CrashClone(rand.New(rand.NewSource(7)), 0.5)
		names, _ := c.List("/")
		out := ""
		for _, n := range names {
			out += n + read(t, c, n)
		}
		return out
	}
	if first, second := list(), list(); first != second {
		t.Error("one seed, two outcomes")
	}
}

func TestCapacity(t *testing.T) {
	m := NewMem()
	m.SetCapacity(10)
	f, err := m.Create("/f")
	must(t, err)
	defer f.Close()
	n, err := f.WriteAt([]byte("123456789012"), 0)
	want(t, err, ErrNoSpace)
	if n != 10 {
		t.Errorf("%d bytes written", n)
	}
	want(t, f.Preallocate(0, 11), ErrNoSpace)
	must(t, f.Truncate(4))
	_, err = f.WriteAt([]byte("abcdef"), 4)
	must(t, err)
	must(t, m.Remove("/f"))
	if _, free, _ := m.Usage("/"); free != 10 {
		t.Errorf("free %d after the removal", free)
	}
}

func TestFault(t *testing.T) {
	var seen []Op
	var fail error
	fsys := Fault(NewMem(), func(op Op) error {
		seen = append(seen, op)
		return fail
	})
	f, err := fsys.Create("/f")
	must(t, err)
	_, err = f.WriteAt([]byte("abc"), 0)
	must(t, err)

	fail = ErrInjected
	_, err = f.WriteAt([]byte("xyz"), 0)
	want(t, err, ErrInjected)
	want(t, f.Sync(), ErrInjected)
	_, err = fsys.Create("/g")
	want(t, err, ErrInjected)
	fail = &Partial{Size: 2, Err: ErrNoSpace}
	n, err := f.WriteAt([]byte("XYZ"), 0)
	want(t, err, ErrNoSpace)
	if n != 2 {
		t.Errorf("%d bytes written", n)
	}
	fail = nil
	if got := read(t, fsys, "/f"); got != "XYc" {
		t.Errorf("f holds %q", got)
	}
	if op := seen[4]; op.Kind != OpCreate || op.Name != "/g" || op.N != 4 {
		t.Errorf("fifth operation: %+v", op)
	}
	must(t, f.Close())
}
