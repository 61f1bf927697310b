package segment

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/everlog/everlog/tier/record"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files of the current version anew")

// goldenBatches is what every golden segment holds: 20 batches of readable records over three leader epochs.
func goldenBatches(t *testing.T) []record.Batch {
	t.Helper()
	var out []record.Batch
	base := record.Offset(1000)
	for i := range 20 {
		b := record.NewBuilder(record.Attrs{})
		for j := range 1 + i%4 {
			value := strings.Repeat(fmt.Sprintf("value %d of batch %d. ", j, i), 1+400*(i%3))
			b.Append(1_750_000_000_000+int64(i*100-j), fmt.Appendf(nil, "key-%d", j), []byte(value), record.Header{Key: "h", Value: nil})
		}
		k, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		k.Stamp(base, record.LeaderEpoch(7+i/7))
		out = append(out, k)
		base = k.NextOffset()
	}
	return out
}

var goldenAborted = []record.AbortedTxn{
	{ProducerID: 4711, First: 990, Last: 1003, LastStable: 1004},
	{ProducerID: 4712, First: 1020, Last: 1020, LastStable: 1021},
}

// Version 1 as it was first written. These files are never written anew; a later version adds its own.
func TestGoldenVersion1(t *testing.T) {
	raw := filepath.Join("testdata", "v1-raw.seg")
	object := filepath.Join("testdata", "v1-object.seg")
	b := NewBuilder(testID, 1000, 7)
	written := b.Header()
	for _, k := range goldenBatches(t) {
		if err := b.Add(k); err != nil {
			t.Fatal(err)
		}
		written = append(written, k...)
	}
	trailer, f := b.Finish(goldenAborted, []byte("a producer snapshot"))
	written = append(written, trailer...)
	if *rewrite {
		var w bytes.Buffer
		if _, _, _, err := Recode(&w, bytes.NewReader(written), f, RecodeOptions{}); err != nil {
			t.Fatal(err)
		}
		for name, p := range map[string][]byte{raw: written, object: w.Bytes()} {
			if err := os.WriteFile(name, p, 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	want, err := os.ReadFile(raw)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(want, written) {
		t.Error("the writer does not write version 1 as it did")
	}
	for _, name := range []string{raw, object} {
		p, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		f, err := ReadFooter(bytes.NewReader(p), int64(len(p)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if err := Verify(bytes.NewReader(p), f); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.Equal(decode(t, p, f), bytes.Join(asBytes(goldenBatches(t)), nil)) {
			t.Errorf("%s does not hold the golden batches", name)
		}
		checkDump(t, f, strings.TrimSuffix(name, ".seg")+".txt")
	}
}

func checkDump(t *testing.T, f *Footer, name string) {
	t.Helper()
	var got bytes.Buffer
	f.Dump(&got)
	if *rewrite {
		if err := os.WriteFile(name, got.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(name)
	if err != nil || got.String() != string(want) {
		t.Errorf("%s: %v; got\n%s", name, err, got.String())
	}
}
