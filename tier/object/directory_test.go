package object_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/vfs"
)

// counterDir makes the test binary a process that increments a counter in the directory: see TestManyProcesses.
const counterDir = "EVERLOG_TEST_COUNTER_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(counterDir); dir != "" {
		if err := countInDirectory(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

const root = "data/store"

func newMem() *vfs.Mem { return vfs.NewMem() }

func openMem(t *testing.T, fs vfs.FS) *object.Directory {
	t.Helper()
	d, err := object.NewDirectory(root, fs)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// tracer records the operations on a file system, one word each.
type tracer struct {
	mu  sync.Mutex
	ops []string
}

func (r *tracer) fs(inner vfs.FS) vfs.FS {
	return vfs.Fault(inner, func(op vfs.Op) error {
		r.mu.Lock()
		defer r.mu.Unlock()
		text := string(op.Kind)
		if op.Kind == vfs.OpSyncDir {
			text += " " + strings.TrimPrefix(path.Clean(op.Name), root)
		}
		r.ops = append(r.ops, text)
		return nil
	})
}

func (r *tracer) take() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	text := strings.Join(r.ops, ", ")
	r.ops = nil
	return text
}

// TestDirectoryTrace holds the price and the durability of every operation: a sync that got lost, or a read too many, is a
// difference here.
func TestDirectoryTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var r tracer
		d := openMem(t, r.fs(newMem()))
		defer d.Close()
		r.take()
		put := func(name string, size int, c object.Condition) object.Version {
			v, err := d.Put(t.Context(), name, object.Bytes(make([]byte, size)), object.PutOptions{Condition: c})
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		read := func() {
			if n, err := d.ReadAt(t.Context(), "a/b/o", make([]byte, 10), 0); n != 10 {
				t.Fatal(n, err)
			}
		}
		var v object.Version
		for _, step := range []struct {
			what string
			do   func()
			want string
		}{
			{"first put in a directory", func() { v = put("a/b/o", 100, object.IfAbsent()) },
				"create, write, sync, close, mkdirall, syncdir , mkdirall, syncdir /a, lock, stat, rename, syncdir /a/b"},
			{"second put there", func() { put("a/b/p", 3<<20, object.Condition{}) },
				"create, write, write, write, sync, close, lock, stat, rename, syncdir /a/b"},
			{"swap", func() { put("a/b/o", 200, object.IfMatch(v)) },
				"create, write, sync, close, lock, stat, stat, open, size, read, close, stat, rename, syncdir /a/b"},
			{"read of a young object", read, "stat, open, read, close"},
			{"time passes", func() { <-time.After(3 * time.Second) }, ""},
			{"first read of an old object", read, "stat, open, read"},
			{"further reads", func() { read(); read() }, "stat, read, stat, read"},
			{"get", func() { d.Get(t.Context(), "a/b/o") }, "stat, open, size, read, close, stat"},
			{"delete", func() { d.Delete(t.Context(), "a/b/o", "a/b/p") },
				"lock, stat, remove, close, lock, stat, remove, syncdir /a/b"},
		} {
			step.do()
			if got := r.take(); got != step.want {
				t.Errorf("%s:\ngot  %s\nwant %s", step.what, got, step.want)
			}
		}
	})
}

// TestDirectoryFiles: files stay open for reads up to a limit, are told from their successors, and are all closed in the end.
func TestDirectoryFiles(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		mem := newMem()
		d, other := openMem(t, mem), openMem(t, mem) // other stands for another process
		name := func(i int) string { return fmt.Sprintf("d/%03d", i) }
		body := func(i int) []byte { return fmt.Appendf(nil, "body %03d", i) }
		for i := range 300 {
			if _, err := d.Put(t.Context(), name(i), object.Bytes(body(i)), object.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		<-time.After(3 * time.Second)
		check := func(i int, want []byte) {
			t.Helper()
			p := make([]byte, 8)
			if n, err := d.ReadAt(t.Context(), name(i), p, 0); err != nil || !bytes.Equal(p[:n], want) {
				t.Fatalf("read %s: %q, %v; want %q", name(i), p[:n], err, want)
			}
		}
		for round := range 2 {
			for i := range 300 {
				check(i, body(i))
			}
			if open := mem.OpenFiles(); open < 100 || open > 128 {
				t.Errorf("round %d left %d files open, want 100 to 128", round, open)
			}
		}
		for i := 290; i < 300; i++ { // the same size, another process
			if _, err := other.Put(t.Context(), name(i), object.Bytes(body(i+100)), object.PutOptions{}); err != nil {
				t.Fatal(err)
			}
			check(i, body(i+100))
		}
		if err := other.Delete(t.Context(), name(280)); err != nil {
			t.Fatal(err)
		}
		if _, err := d.ReadAt(t.Context(), name(280), make([]byte, 1), 0); !errors.Is(err, object.ErrNotFound) {
			t.Errorf("read of an object that another process removed answered %v", err)
		}
		if err := errors.Join(d.Close(), other.Close()); err != nil || mem.OpenFiles() != 0 {
			t.Errorf("closed with %d files open, %v", mem.OpenFiles(), err)
		}
	})
}

// write is one step of the crash test's script: what it puts (nil = deletes).
type write struct {
	name string
	body []byte
}

func script() []write {
	big := bytes.Repeat([]byte("big"), 700_000)
	return []write{
		{"a/manifest", []byte("manifest 1")}, {"a/seg/1", big}, {"a/manifest", []byte("manifest 2, longer")}, {"a/seg/2", []byte("segment 2")},
		{"a/manifest", []byte("3")}, {"a/seg/1", nil}, {"b/deep/er/o", []byte("deep")}, {"a/manifest", nil}, {"a/manifest", []byte("again")},
	}
}

// TestDirectoryCrash cuts the power at every operation of a script, keeping none, all, or a random part of what was not
// synced. What was acknowledged must be there; what was not is there whole, or as it was before.
func TestDirectoryCrash(t *testing.T) {
	for stop := 0; ; stop++ {
		mem := newMem()
		fs := vfs.Fault(mem, func(op vfs.Op) error {
			if op.N >= stop {
				return vfs.ErrInjected
			}
			return nil
		})
		acknowledged, pending := run(t, fs)
		for seed, keep := range []float64{0, 1, 0.5, 0.5} {
			check(t, mem.CrashClone(rand.New(rand.NewSource(int64(seed))), keep), acknowledged, pending, fmt.Sprintf("stop %d keep %v", stop, keep))
		}
		if t.Failed() || pending == nil && len(acknowledged) == len(script()) {
			if stop < 50 {
				t.Errorf("the script took %d operations, too few to be true", stop)
			}
			return
		}
	}
}

// run plays the script until the file system fails. It returns the writes acknowledged and the one cut off.
func run(t *testing.T, fs vfs.FS) (acknowledged []write, pending *write) {
	d, err := object.NewDirectory(root, fs)
	if err != nil {
		return nil, nil
	}
	for _, w := range script() {
		if w.body == nil {
			err = d.Delete(t.Context(), w.name)
		} else {
			_, err = d.Put(t.Context(), w.name, object.Bytes(w.body), object.PutOptions{})
		}
		if err != nil {
			if errors.Is(err, object.ErrPrecondition) || !errors.Is(err, vfs.ErrInjected) {
				t.Errorf("a write that the disk failed answered %v", err)
			}
			return acknowledged, &w
		}
		acknowledged = append(acknowledged, w)
	}
	return acknowledged, nil
}

func check(t *testing.T, fs *vfs.Mem, acknowledged []write, pending *write, when string) {
	t.Helper()
	d := openMem(t, fs)
	defer d.Close()
	want := map[string][]byte{}
	for _, w := range script() {
		want[w.name] = nil
	}
	for _, w := range acknowledged {
		want[w.name] = w.body
	}
	for name, body := range want {
		got, _, err := d.Get(t.Context(), name)
		if err != nil && !errors.Is(err, object.ErrNotFound) {
			t.Fatalf("%s: get %s: %v", when, name, err)
		}
		if bytes.Equal(got, body) || pending != nil && pending.name == name && bytes.Equal(got, pending.body) {
			continue
		}
		t.Fatalf("%s: %s holds %d bytes, neither what was acknowledged nor what was being written", when, name, len(got))
	}
	if temps, err := fs.List(root + "/.tmp"); err != nil || len(temps) != 1 {
		t.Fatalf("%s: temporary files left: %q, %v", when, temps, err)
	}
}

// TestDirectoryFaults fails one operation of a Put at a time: the error shows, the old object or the new one is whole, and
// the next Put works.
func TestDirectoryFaults(t *testing.T) {
	for at := 0; ; at++ {
		armed, n := false, 0
		mem := newMem()
		d := openMem(t, vfs.Fault(mem, func(vfs.Op) error {
			if armed {
				n++
				if n-1 == at {
					return vfs.ErrInjected
				}
			}
			return nil
		}))
		if _, err := d.Put(t.Context(), "o", object.Bytes([]byte("old")), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		armed = true
		_, err := d.Put(t.Context(), "o", object.Bytes(make([]byte, 2<<20)), object.PutOptions{})
		armed = false
		p, _, getErr := d.Get(t.Context(), "o")
		if getErr != nil || string(p) != "old" && len(p) != 2<<20 || err == nil && len(p) != 2<<20 {
			t.Fatalf("operation %d failed: put %v, then %d bytes, %v", at, err, len(p), getErr)
		}
		if errors.Is(err, object.ErrPrecondition) || errors.Is(err, object.ErrNotFound) {
			t.Errorf("operation %d failed: put answered %v", at, err)
		}
		if _, err := d.Put(t.Context(), "o", object.Bytes([]byte("new")), object.PutOptions{}); err != nil {
			t.Fatalf("operation %d failed: the next put: %v", at, err)
		}
		if n <= at {
			return // fewer operations than that
		}
	}
}

func TestDirectoryFull(t *testing.T) {
	mem := newMem()
	d := openMem(t, mem)
	if _, err := d.Put(t.Context(), "o", object.Bytes([]byte("old")), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	mem.SetCapacity(1 << 20)
	if _, err := d.Put(t.Context(), "o", object.Bytes(make([]byte, 2<<20)), object.PutOptions{}); !errors.Is(err, vfs.ErrNoSpace) {
		t.Errorf("put on a full disk answered %v, want ErrNoSpace in it", err)
	}
	if temps, err := mem.List(root + "/.tmp"); err != nil || len(temps) != 1 {
		t.Errorf("temporary files left: %q, %v", temps, err)
	}
	if p, _, err := d.Get(t.Context(), "o"); err != nil || string(p) != "old" {
		t.Errorf("the object holds %q, %v", p, err)
	}
	if _, err := d.Put(t.Context(), "o", object.Bytes([]byte("fits")), object.PutOptions{}); err != nil {
		t.Error(err)
	}
}

// TestDirectorySweep: the temporary files of the dead go, those of the living stay.
func TestDirectorySweep(t *testing.T) {
	mem := newMem()
	living := openMem(t, mem)
	owners, err := mem.List(root + "/.tmp")
	if err != nil || len(owners) != 1 {
		t.Fatal(owners, err)
	}
	for _, name := range []string{owners[0] + "-7", "dead", "dead-1", "dead-2", "gone-3"} {
		f, err := mem.Create(root + "/.tmp/" + name)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	second := openMem(t, mem)
	names, err := mem.List(root + "/.tmp")
	if err != nil || len(names) != 3 || !slices.Contains(names, owners[0]+"-7") {
		t.Errorf("left %q, %v; want the two owners and %s-7", names, err, owners[0])
	}
	if err := errors.Join(living.Close(), second.Close()); err != nil {
		t.Error(err)
	}
	if err := openMem(t, mem).Close(); err != nil {
		t.Error(err)
	}
	if names, err := mem.List(root + "/.tmp"); err != nil || len(names) != 0 {
		t.Errorf("left at the end %q, %v", names, err)
	}
}

// TestDirectoryForgetsRemovedDirs: whoever removes a directory by hand costs one failed Put, not all later ones.
func TestDirectoryForgetsRemovedDirs(t *testing.T) {
	mem := newMem()
	d := openMem(t, mem)
	put := func() error {
		_, err := d.Put(t.Context(), "a/b/o", object.Bytes(nil), object.PutOptions{})
		return err
	}
	if err := put(); err != nil {
		t.Fatal(err)
	}
	if err := mem.RemoveAll(root + "/a"); err != nil {
		t.Fatal(err)
	}
	if err := put(); !errors.Is(err, object.ErrUnknown) {
		t.Errorf("the first put answered %v", err)
	}
	if err := put(); err != nil {
		t.Errorf("the second put answered %v", err)
	}
}

const increments, processes = 40, 3

// TestManyProcesses increments one number by compare-and-swap from several processes at once.
func TestManyProcesses(t *testing.T) {
	dir := t.TempDir()
	d, err := object.NewDirectory(dir, vfs.OS())
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Put(t.Context(), "counter", object.Bytes([]byte("0")), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var children []*exec.Cmd
	for range processes {
		child := exec.CommandContext(t.Context(), self)
		child.Env = append(os.Environ(), counterDir+"="+dir)
		child.Stderr = os.Stderr
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		children = append(children, child)
	}
	for _, child := range children {
		if err := child.Wait(); err != nil {
			t.Error(err)
		}
	}
	if p, _, err := d.Get(t.Context(), "counter"); err != nil || string(p) != fmt.Sprint(increments*processes) {
		t.Errorf("the counter stands at %q, %v; want %d", p, err, increments*processes)
	}
}

func countInDirectory(dir string) error {
	d, err := object.NewDirectory(dir, vfs.OS())
	if err != nil {
		return err
	}
	defer d.Close()
	ctx := context.Background()
	for done := 0; done < increments; {
		p, v, err := d.Get(ctx, "counter")
		if err != nil {
			return err
		}
		var value int
		if _, err := fmt.Sscan(string(p), &value); err != nil {
			return err
		}
		_, err = d.Put(ctx, "counter", object.Bytes(fmt.Append(nil, value+1)), object.PutOptions{Condition: object.IfMatch(v)})
		if err == nil {
			done++
		} else if !errors.Is(err, object.ErrPrecondition) {
			return err
		}
	}
	return nil
}

// The copy loop reads a body that is no slice; its size and the buffer's do not divide each other.
func TestDirectoryStreams(t *testing.T) {
	d := openMem(t, newMem())
	want := make([]byte, 5<<20+777)
	rand.New(rand.NewSource(1)).Read(want)
	v, err := d.Put(t.Context(), "o", io.NewSectionReader(bytes.NewReader(want), 0, int64(len(want))), object.PutOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, read, err := d.Get(t.Context(), "o")
	if err != nil || !bytes.Equal(got, want) || read != v {
		t.Errorf("get: %v, equal %v, version %q of %q", err, bytes.Equal(got, want), read, v)
	}
}

func BenchmarkDirectoryPut(b *testing.B) {
	for _, size := range []int64{4 << 10, 128 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			dir := b.TempDir()
			d, err := object.NewDirectory(dir+"/store", vfs.OS())
			if err != nil {
				b.Fatal(err)
			}
			defer d.Close()
			source, err := vfs.OS().Create(dir + "/source")
			if err != nil {
				b.Fatal(err)
			}
			defer source.Close()
			noise := make([]byte, size)
			rand.New(rand.NewSource(1)).Read(noise)
			if _, err := source.WriteAt(noise, 0); err != nil {
				b.Fatal(err)
			}
			b.SetBytes(size)
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				name := fmt.Sprintf("seg/%d", i%4)
				if _, err := d.Put(b.Context(), name, io.NewSectionReader(source, 0, size), object.PutOptions{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkDirectoryReadAt(b *testing.B) {
	d, err := object.NewDirectory(b.TempDir(), vfs.OS())
	if err != nil {
		b.Fatal(err)
	}
	defer d.Close()
	if _, err := d.Put(b.Context(), "o", object.Bytes(make([]byte, 64<<20)), object.PutOptions{}); err != nil {
		b.Fatal(err)
	}
	if err := os.Chtimes(strings.TrimPrefix(d.String(), "file://")+"/o", time.Time{}, time.Now().Add(-time.Minute)); err != nil {
		b.Fatal(err)
	}
	for _, size := range []int{4 << 10, 1 << 20, 8 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			p := make([]byte, size)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				if _, err := d.ReadAt(b.Context(), "o", p, int64(i*size)%(64<<20)); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
