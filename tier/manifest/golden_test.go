package manifest

import (
	"bytes"
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/everlog/everlog/tier/record"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files of the current version anew")

// goldenRoot is a root with everything in it: a page, a first page partly removed, three ways to name an object, entries
// without timestamps, several epochs, nonces of earlier commits.
func goldenRoot() (*Manifest, []byte, []Segment) {
	old := []Segment{seg(100, 200, 2, 2, 2, 1), seg(200, 250, 2, 2, 3, 2), seg(250, 400, 2, 4, 4, 3)}
	for i := range old {
		old[i].Epochs = nil
	}
	page, ref := encodePage(testID, old)
	ref.Epoch = 5
	ref.UUID = [16]byte{0xab, 1, 2, 3}
	named := seg(400, 410, 4, 4, 5, 4)
	named.Object, named.Position = "data/shared/object", 4096
	same := seg(410, 500, 4, 5, 5, 5)
	same.Object, same.Position, same.Epochs = named.Object, named.Position+named.Size, nil
	timeless := seg(500, 1<<40, 5, 5, 5, 6)
	timeless.MinTimestamp, timeless.MaxTimestamp, timeless.MaxTimestampOffset = -1, -1, -1
	return &Manifest{
		id: testID, claim: 6, version: 17, nonce: nonce{0xee, 0xff}, recent: []nonce{{1}, {2}, {3}},
		logStart: 210, start: 200, end: 1 << 40,
		epochs:   []record.EpochStart{{Epoch: 2, Start: 0}, {Epoch: 4, Start: 251}, {Epoch: 5, Start: 411}},
		pages:    []PageRef{ref},
		segments: []Segment{named, same, timeless},
	}, page, old
}

// Version 1 as it was first written. These files are never written anew; a later version adds its own.
func TestGoldenVersion1(t *testing.T) {
	m, page, entries := goldenRoot()
	if err := m.check(); err != nil {
		t.Fatal(err)
	}
	var dump bytes.Buffer
	m.Dump(&dump)
	for name, p := range map[string][]byte{"v1-root": m.encode(), "v1-page": page, "v1-root.txt": dump.Bytes()} {
		name = filepath.Join("testdata", name)
		if *rewrite {
			if err := os.WriteFile(name, p, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p, want) {
			t.Errorf("%s: version 1 is not written as it was:\n%s", name, cmp.Diff(string(want), string(p)))
		}
	}
	root, err := os.ReadFile(filepath.Join("testdata", "v1-root"))
	if err != nil {
		t.Fatal(err)
	}
	got, err := decodeRoot(root, testID, nil)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(m, got, cmp.AllowUnexported(Manifest{})); d != "" {
		t.Errorf("root:\n%s", d)
	}
	parsed, err := Parse(root)
	if err != nil || parsed.Identity() != testID || parsed.Version() != m.Version() {
		t.Errorf("parsed without an identity: %v", err)
	}
	if page, err = os.ReadFile(filepath.Join("testdata", "v1-page")); err != nil {
		t.Fatal(err)
	}
	segs, err := decodePage(page, testID, got.pages[0])
	if err != nil || !equal(segs, entries) {
		t.Errorf("page: %v\n%s", err, cmp.Diff(entries, segs))
	}
}
