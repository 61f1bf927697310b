package segment

import (
	"bytes"
	"errors"
	"hash/crc32"
	"math/rand"
	"slices"
	"strings"
	"testing"

	"github.com/everlog/everlog/tier/record"
)

// decode returns all batches of a segment's bytes, read as a reader of objects does.
func decode(t testing.TB, p []byte, f *Footer) []byte {
	t.Helper()
	var out []byte
	for _, k := range f.Blocks {
		raw, err := DecodeBlock(nil, p[k.Position:k.Position+int64(k.Stored)], k)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, raw...)
	}
	return out
}

func TestRecodeKeepsEveryByte(t *testing.T) {
	for seed := range int64(20) {
		rng := rand.New(rand.NewSource(seed))
		base := record.Offset(rng.Int63n(1000))
		batches := script(rng, base, 1+rng.Intn(100))
		end := batches[len(batches)-1].NextOffset()
		raw, f := write(t, base, batches, []record.AbortedTxn{{ProducerID: 1, First: base, Last: end - 1}}, []byte("snapshot"))

		from, to := rng.Intn(len(batches)), len(batches)
		if rng.Intn(2) == 0 {
			to = from + 1 + rng.Intn(len(batches)-from)
		}
		o := RecodeOptions{From: batches[from].BaseOffset(), To: batches[to-1].NextOffset(), MinSaving: float64(rng.Intn(3)) / 2}
		var w bytes.Buffer
		r, size, crc, err := Recode(&w, bytes.NewReader(raw), f, o)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if size != int64(w.Len()) || crc != crc32.Checksum(w.Bytes(), castagnoli) {
			t.Fatalf("seed %d: %d bytes with CRC %08x reported, %d with %08x written", seed, size, crc, w.Len(), crc32.Checksum(w.Bytes(), castagnoli))
		}
		got, err := ReadFooter(bytes.NewReader(w.Bytes()), size)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		cut := batches[from:to]
		if !bytes.Equal(decode(t, w.Bytes(), got), bytes.Join(asBytes(cut), nil)) {
			t.Fatalf("seed %d: the object does not hold the batches it was made from", seed)
		}
		if err := Verify(bytes.NewReader(w.Bytes()), got); err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		// A segment written with the same batches and never compressed says the same, block borders aside.
		_, want := write(t, o.From, cut, nil, nil)
		if got.Base != o.From || got.End != o.To || got.Records != want.Records || got.DataSize != want.DataSize || got.MinTimestamp != want.MinTimestamp ||
			got.MaxTimestamp != want.MaxTimestamp || got.MaxTimestampOffset != want.MaxTimestampOffset || r.Records != got.Records {
			t.Fatalf("seed %d: %+v\nwant %+v", seed, got, want)
		}
		for _, b := range cut {
			if e := epochAt(got.Epochs, b.BaseOffset()); e != b.LeaderEpoch() {
				t.Fatalf("seed %d: epoch of %d is %d, not %d", seed, b.BaseOffset(), e, b.LeaderEpoch())
			}
		}
		if wantProducers := to == len(batches); (len(got.Producers) > 0) != wantProducers || len(got.Aborted) != 1 {
			t.Fatalf("seed %d: producers %q, aborted %v", seed, got.Producers, got.Aborted)
		}
	}
}

func TestRecodeCarriesWhatOptionsGive(t *testing.T) {
	batches := []record.Batch{batchOf(0, 5, 10, 0, nil), batchOf(10, 5, 10, 0, nil), batchOf(20, 6, 10, 0, nil)}
	raw, f := write(t, 0, batches, []record.AbortedTxn{{ProducerID: 1, First: 0, Last: 5}}, []byte("at 30"))
	for name, c := range map[string]struct {
		o         RecodeOptions
		producers string
		aborted   int
	}{
		"whole":            {RecodeOptions{}, "at 30", 1},
		"cut":              {RecodeOptions{To: 20}, "", 1},
		"cut, snapshot":    {RecodeOptions{To: 20, Producers: []byte("at 20")}, "at 20", 1},
		"tail":             {RecodeOptions{From: 10}, "at 30", 0},
		"aborted replaced": {RecodeOptions{From: 10, Aborted: []record.AbortedTxn{{First: 2, Last: 9}, {First: 4, Last: 12}, {First: 30, Last: 33}}}, "at 30", 1},
		"aborted, none":    {RecodeOptions{Aborted: []record.AbortedTxn{}}, "at 30", 0},
	} {
		r, _, _, err := Recode(&bytes.Buffer{}, bytes.NewReader(raw), f, c.o)
		if err != nil || string(r.Producers) != c.producers || len(r.Aborted) != c.aborted {
			t.Errorf("%s: producers %q, aborted %v, %v", name, r.Producers, r.Aborted, err)
		}
	}
	for _, o := range []RecodeOptions{{From: 5}, {To: 15}, {From: 31}, {To: 31}, {From: 20, To: 20}, {From: 20, To: 10}} {
		if _, _, _, err := Recode(&bytes.Buffer{}, bytes.NewReader(raw), f, o); !errors.Is(err, ErrBorder) {
			t.Errorf("cut [%d, %d): %v", o.From, o.To, err)
		}
	}
}

// Every byte of a segment is under some checksum: whichever is damaged, Recode refuses the segment.
func TestRecodeFindsEveryFlippedByte(t *testing.T) {
	var batches []record.Batch
	for i := range record.Offset(6) {
		batches = append(batches, batchOf(i*3, 5, 3, 1000, []byte("some records")))
	}
	raw, f := write(t, 0, batches, nil, nil)
	for i := range int(HeaderSize + f.DataSize) {
		bad := slices.Clone(raw)
		bad[i] ^= 1 << (i % 8)
		_, _, _, err := Recode(&bytes.Buffer{}, bytes.NewReader(bad), f, RecodeOptions{})
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
	}
}

// The footer of another segment, or one that promises other offsets or epochs, is refused.
func TestRecodeChecksTheFooterAgainstTheData(t *testing.T) {
	batches := []record.Batch{batchOf(0, 5, 10, 0, nil), batchOf(10, 6, 10, 0, nil)}
	raw, f := write(t, 0, batches, nil, nil)
	for name, change := range map[string]func(f *Footer){
		"other topic":     func(f *Footer) { f.Identity.Topic[0]++ },
		"other cluster":   func(f *Footer) { f.Identity.Cluster[0]++ },
		"other partition": func(f *Footer) { f.Identity.Partition++ },
		"other base":      func(f *Footer) { f.Base-- },
		"epoch border":    func(f *Footer) { f.Epochs = []record.EpochStart{{Epoch: 5, Start: 0}, {Epoch: 6, Start: 5}} },
		"epoch missing":   func(f *Footer) { f.Epochs = f.Epochs[:1] },
		"block end":       func(f *Footer) { f.Blocks = slices.Clone(f.Blocks); f.Blocks[0].End = 21 },
		"block checksum":  func(f *Footer) { f.Blocks = slices.Clone(f.Blocks); f.Blocks[0].CRC++ },
	} {
		g := *f
		change(&g)
		if _, _, _, err := Recode(&bytes.Buffer{}, bytes.NewReader(raw), &g, RecodeOptions{}); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: %v", name, err)
		}
		if err := Verify(bytes.NewReader(raw), &g); !errors.Is(err, ErrCorrupt) {
			t.Errorf("%s: Verify: %v", name, err)
		}
	}
}

func TestRecodeCompressesWhatPays(t *testing.T) {
	text := []byte(strings.Repeat(`{"user":"alice","action":"login","host":"web-17.example"}`, 1000))
	random := make([]byte, len(text))
	rand.New(rand.NewSource(1)).Read(random)
	for name, c := range map[string]struct {
		payload []byte
		zstd    bool
	}{"text": {text, true}, "random": {random, false}} {
		var batches []record.Batch
		for i := range record.Offset(100) {
			batches = append(batches, batchOf(i, 5, 1, 0, c.payload))
		}
		raw, f := write(t, 0, batches, nil, nil)
		r, size, _, err := Recode(&bytes.Buffer{}, bytes.NewReader(raw), f, RecodeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for i, k := range r.Blocks {
			if (k.Encoding == Zstd) != c.zstd {
				t.Errorf("%s: block %d is %s", name, i, k.Encoding)
			}
		}
		if c.zstd && size > f.DataSize/10 {
			t.Errorf("%s: %d bytes became %d", name, f.DataSize, size)
		}
	}
}

func TestRecodeSparse(t *testing.T) {
	b := NewBuilder(testID, 10, 2)
	raw := b.Header()
	kept := []record.Batch{batchOf(15, 2, 5, 1, []byte("a")), batchOf(30, 4, 1, 2, []byte("b")), batchOf(40, 4, 2, 2, []byte("c"))}
	for _, k := range kept {
		b.Skip(k.BaseOffset())
		if err := b.Add(k); err != nil {
			t.Fatal(err)
		}
		raw = append(raw, k...)
	}
	b.Skip(50)
	trailer, f := b.Finish(nil, nil)
	raw = append(raw, trailer...)
	for _, c := range []struct {
		from, to record.Offset
		want     []record.Batch
	}{{0, 0, kept}, {20, 30, nil}, {20, 41 + 1, kept[1:]}, {12, 25, kept[:1]}} {
		var w bytes.Buffer
		r, size, _, err := Recode(&w, bytes.NewReader(raw), f, RecodeOptions{From: c.from, To: c.to})
		if err != nil {
			t.Fatalf("[%d, %d): %v", c.from, c.to, err)
		}
		got, err := ReadFooter(bytes.NewReader(w.Bytes()), size)
		if err != nil || !bytes.Equal(decode(t, w.Bytes(), got), bytes.Join(asBytes(c.want), nil)) || len(r.Epochs) == 0 {
			t.Fatalf("[%d, %d): %v, %d blocks", c.from, c.to, err, len(got.Blocks))
		}
	}
}

func TestObjectName(t *testing.T) {
	uuid := NewUUID()
	name := ObjectName(testID, 7, 1<<62, 9, uuid)
	o, err := ParseObjectName(name)
	if want := (ObjectID{testID.Topic, 3, 7, 1 << 62, 9, uuid}); err != nil || o != want {
		t.Fatalf("%s: %+v, %v", name, o, err)
	}
	if !strings.HasPrefix(name, Prefix(testID)+"seg/00000000000000000007-") {
		t.Errorf("name %s", name)
	}
	for _, bad := range []string{
		"", "data", strings.Replace(name, "/seg/", "/page/", 1), strings.Replace(name, "data/", "data/0", 1), name + "/x", strings.TrimSuffix(name, uuid),
		strings.Replace(name, "-0000000009-", "-9-", 1), strings.Replace(name, "-0000000009-", "--000000009-", 1), strings.ToUpper(name),
	} {
		if _, err := ParseObjectName(bad); err == nil {
			t.Errorf("%q parsed", bad)
		}
	}
}
