package manifest

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
	"testing"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
)

// resign makes the checksum of a root or page right, so that the fuzzer gets past it.
func resign(p []byte) []byte {
	p = bytes.Clone(p)
	if n := len(p) - crcSize; n >= 0 {
		binary.BigEndian.PutUint32(p[n:], crc32.Checksum(p[:n], castagnoli))
	}
	return p
}

// What decodes must satisfy the invariants, and encode to what decodes to the same.
func FuzzDecodeRoot(f *testing.F) {
	m, _, _ := goldenRoot()
	f.Add(m.encode())
	m.pages, m.segments, m.epochs, m.start, m.logStart = nil, nil, nil, m.end, m.end
	f.Add(m.encode())
	f.Fuzz(func(t *testing.T, p []byte) {
		m, err := decodeRoot(resign(p), testID, nil)
		if err != nil {
			return
		}
		next := m.start
		if len(m.pages) > 0 {
			next = m.pages[len(m.pages)-1].End
		}
		for _, s := range m.segments {
			if s.Base != next || s.End <= s.Base || s.Object == "" || s.Size <= 0 {
				t.Fatalf("entry %+v where %d is next", s, next)
			}
			next = s.End
		}
		if next != m.end || m.logStart < m.start || m.logStart > m.end {
			t.Fatalf("entries end at %d, the manifest is [%d, %d) with log start %d", next, m.start, m.end, m.logStart)
		}
		again, err := decodeRoot(m.encode(), testID, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.encode(), m.encode()) {
			t.Fatal("encoding is not stable")
		}
		m.Dump(&bytes.Buffer{})
	})
}

func FuzzDecodePage(f *testing.F) {
	_, page, segs := goldenRoot()
	f.Add(page, int64(segs[0].Base), int64(segs[2].End), int32(3))
	f.Fuzz(func(t *testing.T, p []byte, first, end int64, count int32) {
		p = resign(p)
		r := PageRef{First: record.Offset(first), End: record.Offset(end), Count: count, Size: int32(len(p)), CRC: crc32.Checksum(p, castagnoli)}
		segs, err := decodePage(p, testID, r)
		if err != nil || len(segs) == 0 {
			return
		}
		again, ref := encodePage(testID, segs)
		if ref.First != r.First || ref.End != r.End {
			t.Fatalf("[%d, %d) became [%d, %d)", r.First, r.End, ref.First, ref.End)
		}
		if back, err := decodePage(again, testID, ref); err != nil || !equal(back, segs) {
			t.Fatalf("encoding is not stable: %v", err)
		}
	})
}

func TestDamageAndStrangersAreRefused(t *testing.T) {
	m, page, _ := goldenRoot()
	root := m.encode()
	for i := range root {
		bad := slices.Clone(root)
		bad[i] ^= 1 << (i % 8)
		if _, err := decodeRoot(bad, testID, nil); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("root, byte %d flipped: %v", i, err)
		}
	}
	for i := range page {
		bad := slices.Clone(page)
		bad[i] ^= 1 << (i % 8)
		if _, err := decodePage(bad, testID, m.pages[0]); !errors.Is(err, ErrCorrupt) {
			t.Fatalf("page, byte %d flipped: %v", i, err)
		}
	}
	other := testID
	other.Topic[3]++
	if _, err := decodeRoot(root, other, nil); !errors.Is(err, ErrCorrupt) {
		t.Errorf("another topic's root: %v", err)
	}
	newer := slices.Clone(root)
	newer[9]++
	if _, err := decodeRoot(newer, testID, nil); !errors.Is(err, ErrVersion) {
		t.Errorf("newer root: %v", err)
	}
}

// A bucket that was set back to an older copy is noticed, not followed.
func TestRootThatGoesBackIsRefused(t *testing.T) {
	store := &recorder{Store: object.NewMemory(), puts: map[string]int{}}
	l := claimed(t, store, 1, quick)
	if err := l.Append(bg, seg(0, 10, 1, 1, 1, 1)); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Put(bg, RootName(testID), bytes.NewReader(store.roots[0]), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := l.Reload(bg); !errors.Is(err, ErrCorrupt) {
		t.Errorf("older root: %v", err)
	}
	if err := store.Delete(bg, RootName(testID)); err != nil {
		t.Fatal(err)
	}
	if err := l.Reload(bg); !errors.Is(err, ErrCorrupt) {
		t.Errorf("root gone: %v", err)
	}
	if l.Manifest().End() != 10 {
		t.Errorf("end %d", l.Manifest().End())
	}
}
