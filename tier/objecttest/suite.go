// Package objecttest owns the conformance suite that every object store of everlog passes, and Faulty, a store that fails
// in the ways that real ones do. Tests of stores, and of all that writes to one, are its callers; the program never is.
package objecttest

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/object"
)

// LargeSize is the size in bytes of the suite's largest body, chosen so that drivers must send it in several parts, the
// last of them short.
const LargeSize = 64<<20 + 12345

// timeout bounds every single case of the suite.
const timeout = 2 * time.Minute

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Run runs the conformance suite. open returns an empty store, or an empty part of one (see object.Prefix); it is called
// for every case, and cleans up by t.Cleanup.
func Run(t *testing.T, open func(t *testing.T) object.Store) {
	cases := []struct {
		name string
		run  func(*suite)
	}{
		{"PutGet", testPutGet}, {"Names", testNames}, {"BadNames", testBadNames}, {"Absent", testAbsent},
		{"ReadAt", testReadAt}, {"Overwrite", testOverwrite}, {"Attributes", testAttributes}, {"Checksum", testChecksum},
		{"IfAbsent", testIfAbsent}, {"IfMatch", testIfMatch}, {"ShortBody", testShortBody}, {"Cancelled", testCancelled},
		{"Delete", testDelete}, {"List", testList}, {"ListPages", testListPages},
		{"RaceCreate", testRaceCreate}, {"Counter", testCounter}, {"WholeObjects", testWholeObjects},
		{"Large", testLarge}, {"Probe", testProbe},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), timeout)
			defer cancel()
			c.run(&suite{T: t, ctx: ctx, s: open(t)})
		})
	}
}

// suite is one case at work.
type suite struct {
	*testing.T
	ctx context.Context
	s   object.Store
}

func (s *suite) put(name string, body []byte, c object.Condition) object.Version {
	s.Helper()
	v, err := s.s.Put(s.ctx, name, object.Bytes(body), object.PutOptions{Condition: c})
	if err != nil {
		s.Fatalf("put %s: %v", name, err)
	}
	if v == "" {
		s.Fatalf("put %s answered no version", name)
	}
	return v
}

// refused expects the Put to answer want, and the object to hold body afterwards (nil = to be absent).
func (s *suite) refused(name string, c object.Condition, want error, body []byte) {
	s.Helper()
	v, err := s.s.Put(s.ctx, name, object.Bytes([]byte("refused")), object.PutOptions{Condition: c})
	if !errors.Is(err, want) {
		s.Fatalf("put %s answered %q, %v; want %v", name, v, err, want)
	}
	if body == nil {
		s.absent(name)
		return
	}
	s.holds(name, body)
}

func (s *suite) holds(name string, want []byte) object.Version {
	s.Helper()
	got, v, err := s.s.Get(s.ctx, name)
	if err != nil {
		s.Fatalf("get %s: %v", name, err)
	}
	if !bytes.Equal(got, want) {
		s.Fatalf("get %s: %d bytes that are not the %d written", name, len(got), len(want))
	}
	return v
}

func (s *suite) absent(name string) {
	s.Helper()
	if p, _, err := s.s.Get(s.ctx, name); !errors.Is(err, object.ErrNotFound) {
		s.Fatalf("get %s: %d bytes, %v; want ErrNotFound", name, len(p), err)
	}
}

// noise is a Body of size bytes that differ everywhere and by seed, made on the fly. Equal seeds give equal bytes.
type noise struct {
	seed uint64
	size int64
}

func (n noise) Size() int64 { return n.size }

func (n noise) ReadAt(p []byte, position int64) (int, error) {
	if position >= n.size {
		return 0, io.EOF
	}
	whole := len(p)
	p = p[:min(int64(len(p)), n.size-position)]
	for i := 0; i < len(p); {
		at := position + int64(i)
		word := n.word(uint64(at) / 8)
		i += copy(p[i:], word[at%8:])
	}
	if len(p) < whole {
		return len(p), io.EOF
	}
	return len(p), nil
}

// word mixes seed and index as splitmix64 does.
func (n noise) word(index uint64) (w [8]byte) {
	z := n.seed + (index+1)*0x9e3779b97f4a7c15
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	binary.LittleEndian.PutUint64(w[:], z^z>>31)
	return w
}

func (n noise) bytes() []byte {
	p := make([]byte, n.size)
	n.ReadAt(p, 0)
	return p
}

func testPutGet(s *suite) {
	for i, size := range []int64{0, 1, 511, 4096, 65537, 1<<20 + 3, 5 << 20} {
		name, body := fmt.Sprintf("size/%d", size), noise{uint64(i), size}
		v := s.put(name, body.bytes(), object.Condition{})
		if got := s.holds(name, body.bytes()); got != v {
			s.Errorf("%s: put answered version %q, get %q", name, v, got)
		}
	}
	v, err := s.s.Put(s.ctx, "from/reader", noise{7, 3 << 20}, object.PutOptions{})
	if err != nil {
		s.Fatal(err)
	}
	if got := s.holds("from/reader", noise{7, 3 << 20}.bytes()); got != v {
		s.Errorf("put answered version %q, get %q", v, got)
	}
	p, _, err := s.s.Get(s.ctx, "size/511")
	if err != nil {
		s.Fatal(err)
	}
	clear(p) // the bytes are the caller's
	s.holds("size/511", noise{2, 511}.bytes())
}

func testNames(s *suite) {
	names := []string{"a b", "plus+plus", "per%20cent", "query?x=1&y=2", "hash#tag", "ümläut/日本", "a=b;c,d", "tilde~", "(x)[y]{z}",
		"'quote'\"double\"", "x:y@z!$*", "dots.in..it", strings.Repeat("n", object.MaxSegment)}
	for _, name := range names {
		s.put(name, []byte("body of "+name), object.Condition{})
	}
	for _, name := range names {
		s.holds(name, []byte("body of "+name))
		if list, err := s.s.List(s.ctx, name, "", 2); err != nil || len(list) != 1 || list[0].Name != name {
			s.Errorf("list %q: %v, %v", name, list, err)
		}
	}
	if err := s.s.Delete(s.ctx, names...); err != nil {
		s.Fatal(err)
	}
	for _, name := range names {
		s.absent(name)
	}
}

func testBadNames(s *suite) {
	for _, name := range []string{"", "/a", "a/", "a//b", ".", "..", "a/../b", ".hidden", "a/.b", "a\\b", "a\x00b", "a\nb", "\xff",
		strings.Repeat("n", object.MaxSegment+1), strings.Repeat("long/", object.MaxName/5) + "names"} {
		if _, err := s.s.Put(s.ctx, name, object.Bytes(nil), object.PutOptions{}); !errors.Is(err, object.ErrName) {
			s.Errorf("put %.40q answered %v, want ErrName", name, err)
		}
	}
	if list, err := s.s.List(s.ctx, "", "", 0); err != nil || len(list) != 0 {
		s.Errorf("list: %v, %v; want nothing", list, err)
	}
}

func testAbsent(s *suite) {
	s.put("dir/there", []byte("x"), object.Condition{})
	for _, name := range []string{"absent", "dir", "dir/absent", "no/dir/absent"} {
		s.absent(name)
		if _, err := s.s.Head(s.ctx, name); !errors.Is(err, object.ErrNotFound) {
			s.Errorf("head %s answered %v, want ErrNotFound", name, err)
		}
		if n, err := s.s.ReadAt(s.ctx, name, make([]byte, 1), 0); n != 0 || !errors.Is(err, object.ErrNotFound) {
			s.Errorf("read %s answered %d, %v; want ErrNotFound", name, n, err)
		}
	}
}

func testReadAt(s *suite) {
	body := noise{1, 100_000}.bytes()
	s.put("o", body, object.Condition{})
	s.put("empty", nil, object.Condition{})
	for _, c := range []struct {
		name           string
		position, size int64
		n              int
		err            error
	}{
		{"o", 0, 100_000, 100_000, nil}, {"o", 0, 1, 1, nil}, {"o", 99_999, 1, 1, nil}, {"o", 12_345, 67_890, 67_890, nil},
		{"o", 0, 100_001, 100_000, io.EOF}, {"o", 99_999, 2, 1, io.EOF}, {"o", 50_000, 1 << 20, 50_000, io.EOF},
		{"o", 100_000, 1, 0, object.ErrRange}, {"o", 1 << 40, 10, 0, object.ErrRange}, {"o", -1, 10, 0, object.ErrRange},
		{"empty", 0, 1, 0, object.ErrRange}, {"o", 5, 0, 0, nil}, {"absent", 0, 0, 0, nil},
	} {
		p := make([]byte, c.size)
		n, err := s.s.ReadAt(s.ctx, c.name, p, c.position)
		if n != c.n || !errors.Is(err, c.err) {
			s.Errorf("read %s [%d, +%d): %d, %v; want %d, %v", c.name, c.position, c.size, n, err, c.n, c.err)
		} else if n > 0 && !bytes.Equal(p[:n], body[c.position:c.position+int64(n)]) {
			s.Errorf("read %s [%d, +%d): other bytes", c.name, c.position, c.size)
		}
	}
}

// Equal sizes, written within one tick of any clock: a store that keeps files or answers must still notice.
func testOverwrite(s *suite) {
	versions := map[object.Version]bool{}
	for i := range 20 {
		body := noise{uint64(i), 1000}.bytes()
		v := s.put("o", body, object.Condition{})
		if versions[v] {
			s.Fatalf("version %q came twice", v)
		}
		versions[v] = true
		p := make([]byte, 1000)
		if _, err := s.s.ReadAt(s.ctx, "o", p, 0); err != nil || !bytes.Equal(p, body) {
			s.Fatalf("read after write %d: %v, equal %v", i, err, bytes.Equal(p, body))
		}
		s.holds("o", body)
	}
	s.put("o", []byte("short"), object.Condition{})
	s.holds("o", []byte("short"))
	s.put("o", nil, object.Condition{})
	s.holds("o", []byte{})
}

func testAttributes(s *suite) {
	before := time.Now().Add(-time.Hour)
	v := s.put("a/o", []byte("12345"), object.Condition{})
	head, err := s.s.Head(s.ctx, "a/o")
	if err != nil || head.Name != "a/o" || head.Size != 5 || head.Version != v || head.Modified.Before(before) {
		s.Errorf("head: %+v, %v; want 5 bytes of version %q", head, err, v)
	}
	list, err := s.s.List(s.ctx, "a/", "", 0)
	if err != nil || len(list) != 1 {
		s.Fatalf("list: %v, %v", list, err)
	}
	if l := list[0]; l.Name != "a/o" || l.Size != 5 || l.Modified.Before(before) || l.Version != "" && l.Version != v {
		s.Errorf("listed as %+v, want 5 bytes of version %q or none", l, v)
	}
	if s.s.String() == "" {
		s.Error("the store has no name")
	}
}

func testProbe(s *suite) {
	if err := object.Probe(s.ctx, s.s); err != nil {
		s.Error(err)
	}
	if list, err := s.s.List(s.ctx, "", "", 0); err != nil || len(list) != 0 {
		s.Errorf("the probe left %v, %v", list, err)
	}
}
