package ship

import (
	"bytes"
	"errors"
	"io"
	"math/rand"
	"testing"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// large makes a log of n batches of 100 KiB, so that a segment has several blocks; compressible says which ones are.
func large(t testing.TB, n int, compressible func(i int) bool) []record.Batch {
	rng := rand.New(rand.NewSource(1))
	var out []record.Batch
	for i := range n {
		value := bytes.Repeat([]byte("words that come again, "), 100<<10/23)
		if !compressible(i) {
			rng.Read(value)
		}
		b := record.NewBuilder(record.Attrs{})
		b.Append(5, nil, value)
		batch, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		batch.Stamp(record.Offset(i), 1)
		out = append(out, batch)
	}
	return out
}

func free(int64) error { return nil }

func prepareAll(fs vfs.FS, l local, o segment.RecodeOptions) (*prepared, error) {
	return prepare(bytes.NewReader(l.data), l.footer, o, fs, "scratch", free)
}

// TestPreparedIsWhatRecodeWrites compares every way the pieces can lie with the plain output, and counts what is written.
func TestPreparedIsWhatRecodeWrites(t *testing.T) {
	for _, c := range []struct {
		name         string
		compressible func(int) bool
		from         record.Offset
		minSaving    float64
		scratch      bool
	}{
		{"nothing compresses", func(int) bool { return false }, 0, 0, false},
		{"everything does", func(int) bool { return true }, 0, 0, true},
		{"some of it", func(i int) bool { return i > 10 && i%20 < 9 }, 0, 0, true},
		{"cut, raw", func(int) bool { return false }, 4, 0, false},
		{"cut at a block border", func(int) bool { return false }, 3, 0, false},
		{"cut, compressed", func(int) bool { return true }, 4, 0, true},
		{"the last batch only", func(int) bool { return false }, 39, 0, false},
		{"compression refused", func(int) bool { return true }, 0, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			fs := vfs.NewMem()
			l := seal(t, fs, "log", large(t, 40, c.compressible), 40)[0]
			if err := CleanScratch(fs, "scratch"); err != nil {
				t.Fatal(err)
			}
			o := segment.RecodeOptions{From: c.from, MinSaving: c.minSaving}
			var want bytes.Buffer
			footer, size, crc, err := segment.Recode(&want, bytes.NewReader(l.data), l.footer, o)
			if err != nil {
				t.Fatal(err)
			}
			u, err := prepareAll(fs, l, o)
			if err != nil {
				t.Fatal(err)
			}
			got := make([]byte, size)
			if n, err := u.ReadAt(got, 0); n != len(got) || err != nil {
				t.Fatal(n, err)
			}
			if u.Size() != size || u.crc != crc || u.footer.End != footer.End || !bytes.Equal(got, want.Bytes()) {
				t.Fatalf("%d bytes, want %d; equal: %v", u.Size(), size, bytes.Equal(got, want.Bytes()))
			}
			if n := scratchFiles(t, fs); (n > 0) != c.scratch {
				t.Errorf("%d temporary files", n)
			}
			ranges(t, u, want.Bytes())
			if err := u.Close(); err != nil {
				t.Fatal(err)
			}
			if n, open := scratchFiles(t, fs), fs.OpenFiles(); n > 0 || open > 0 {
				t.Errorf("%d temporary files left, %d open", n, open)
			}
		})
	}
}

// ranges reads random ranges, as parts of an upload are read.
func ranges(t *testing.T, u *prepared, want []byte) {
	rng := rand.New(rand.NewSource(7))
	for range 200 {
		at := rng.Intn(len(want))
		p := make([]byte, 1+rng.Intn(600<<10))
		n, err := u.ReadAt(p, int64(at))
		rest := want[at:]
		if n != min(len(p), len(rest)) || !bytes.Equal(p[:n], rest[:n]) || (err == io.EOF) != (len(p) > len(rest)) || err != nil && err != io.EOF {
			t.Fatalf("read %d at %d of %d: %d, %v", len(p), at, len(want), n, err)
		}
	}
	if n, err := u.ReadAt(make([]byte, 1), int64(len(want))); n != 0 || err != io.EOF {
		t.Fatalf("read at the end: %d, %v", n, err)
	}
}

func TestPrepareRefusesDamage(t *testing.T) {
	fs := vfs.NewMem()
	l := seal(t, fs, "log", large(t, 20, func(i int) bool { return i%2 == 0 }), 20)[0]
	if err := CleanScratch(fs, "scratch"); err != nil {
		t.Fatal(err)
	}
	for _, at := range []int{20, 200, len(l.data) / 2, segment.HeaderSize + int(l.footer.DataSize) - 1} {
		bad := l
		bad.data = bytes.Clone(l.data)
		bad.data[at] ^= 1
		if _, err := prepareAll(fs, bad, segment.RecodeOptions{}); !errors.Is(err, segment.ErrCorrupt) {
			t.Errorf("bit flipped at %d: %v", at, err)
		}
	}
	if n, open := scratchFiles(t, fs), fs.OpenFiles(); n > 0 || open > 0 {
		t.Errorf("%d temporary files left, %d open", n, open)
	}
}
