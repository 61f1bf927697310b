package segment

import (
	"bytes"
	"errors"
	"hash/crc32"
	"math/rand"
	"slices"
	"testing"

	"github.com/everlog/everlog/tier/record"
	"github.com/google/go-cmp/cmp"
)

func TestSealedSegmentReadsBack(t *testing.T) {
	for seed := range int64(30) {
		rng := rand.New(rand.NewSource(seed))
		base := record.Offset(rng.Int63n(1 << 40))
		batches := script(rng, base, rng.Intn(200))
		end := base
		if n := len(batches); n > 0 {
			end = batches[n-1].NextOffset()
		}
		var aborted []record.AbortedTxn
		if end > base {
			aborted = []record.AbortedTxn{{ProducerID: 7, First: base, Last: base, LastStable: base + 1}, {ProducerID: 8, First: base, Last: end + 9, LastStable: end + 10}}
		}
		raw, want := write(t, base, batches, aborted, []byte("producers"))

		id, gotBase, epoch, err := ReadHeader(bytes.NewReader(raw))
		if err != nil || id != testID || gotBase != base || epoch != 5 {
			t.Fatalf("header: %v %d %d %v", id, gotBase, epoch, err)
		}
		f, err := ReadFooter(bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, f); d != "" {
			t.Fatalf("footer read is not the footer written:\n%s", d)
		}
		checkTable(t, raw, f, batches)
	}
}

// checkTable compares a footer with what the batches say, the slow way.
func checkTable(t *testing.T, raw []byte, f *Footer, batches []record.Batch) {
	t.Helper()
	var data []byte
	for i, k := range f.Blocks {
		stored := raw[k.Position : k.Position+int64(k.Stored)]
		if crc32.Checksum(stored, castagnoli) != k.CRC {
			t.Fatalf("block %d: checksum differs from one computed over its bytes", i)
		}
		if i < len(f.Blocks)-1 && k.Raw < BlockTarget {
			t.Fatalf("block %d of %d is %d bytes", i, len(f.Blocks), k.Raw)
		}
		data = append(data, stored...)
	}
	if !bytes.Equal(data, bytes.Join(asBytes(batches), nil)) {
		t.Fatal("blocks do not hold the batches")
	}
	var records, maxTime int64 = 0, -1
	for _, b := range batches {
		records += int64(b.Count())
		maxTime = max(maxTime, b.MaxTimestamp())
		k := f.Blocks[f.Find(b.BaseOffset())]
		if b.BaseOffset() < k.First || b.NextOffset() > k.End || b.MaxTimestamp() > k.MaxTimestamp {
			t.Fatalf("batch [%d, %d) is not inside block [%d, %d)", b.BaseOffset(), b.NextOffset(), k.First, k.End)
		}
		if e := epochAt(f.Epochs, b.BaseOffset()); e != b.LeaderEpoch() {
			t.Fatalf("epoch of %d is %d, not %d", b.BaseOffset(), e, b.LeaderEpoch())
		}
	}
	if f.Records != records || f.MaxTimestamp != maxTime || f.DataSize != int64(len(data)) {
		t.Fatalf("footer has %d records, max %d, %d bytes; batches %d, %d, %d", f.Records, f.MaxTimestamp, f.DataSize, records, maxTime, len(data))
	}
	if i := slices.IndexFunc(batches, func(b record.Batch) bool { return b.MaxTimestamp() == maxTime }); i >= 0 && f.MaxTimestampOffset != batches[i].BaseOffset() {
		t.Fatalf("largest timestamp at %d, footer says %d", batches[i].BaseOffset(), f.MaxTimestampOffset)
	}
}

func epochAt(epochs []record.EpochStart, o record.Offset) record.LeaderEpoch {
	e := record.NoEpoch
	for _, s := range epochs {
		if s.Start <= o {
			e = s.Epoch
		}
	}
	return e
}

func asBytes(batches []record.Batch) [][]byte {
	out := make([][]byte, len(batches))
	for i, b := range batches {
		out[i] = b
	}
	return out
}

func TestFindAgainstScan(t *testing.T) {
	f := &Footer{Base: 10, End: 60, Sparse: true, Blocks: []Block{
		{First: 12, End: 20, MaxTimestamp: 100}, {First: 20, End: 21, MaxTimestamp: 50}, {First: 40, End: 55, MaxTimestamp: 200},
	}}
	for o := record.Offset(0); o < 70; o++ {
		want := slices.IndexFunc(f.Blocks, func(k Block) bool { return k.End > o })
		if want < 0 {
			want = len(f.Blocks)
		}
		if got := f.Find(o); got != want {
			t.Errorf("Find(%d) = %d, want %d", o, got, want)
		}
	}
	for ts, want := range map[int64]int{0: 0, 100: 0, 101: 2, 200: 2, 201: 3} {
		if got := f.FindTime(ts); got != want {
			t.Errorf("FindTime(%d) = %d, want %d", ts, got, want)
		}
	}
}

func TestAddRefusesWhatDoesNotContinue(t *testing.T) {
	b := NewBuilder(testID, 100, 5)
	if err := b.Add(batchOf(100, 6, 10, 0, []byte("x"))); err != nil {
		t.Fatal(err)
	}
	position := b.Position()
	for name, k := range map[string]record.Batch{
		"gap":         batchOf(111, 6, 1, 0, nil),
		"overlap":     batchOf(109, 6, 5, 0, nil),
		"older epoch": batchOf(110, 5, 1, 0, nil),
		"no epoch":    batchOf(110, record.NoEpoch, 1, 0, nil),
		"backwards":   batchOf(110, 6, 0, 0, nil),
	} {
		if err := b.Add(k); !errors.Is(err, ErrOrder) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if b.Position() != position || b.Next() != 110 {
		t.Errorf("a refused batch moved the builder to %d, offset %d", b.Position(), b.Next())
	}
}

func TestOpenBlock(t *testing.T) {
	b := NewBuilder(testID, 0, 0)
	if _, ok := b.Open(); ok || len(b.OpenBatches()) != 0 {
		t.Fatal("a new segment has an open block")
	}
	var want []BatchPosition
	for i := range record.Offset(4) {
		want = append(want, BatchPosition{i, b.Position()})
		if err := b.Add(batchOf(i, 0, 1, int64(i), make([]byte, 60<<10))); err != nil {
			t.Fatal(err)
		}
		k, ok := b.Open()
		if !ok || k.First != 0 || k.End != i+1 || k.Position != HeaderSize || int64(k.Raw) != b.Position()-HeaderSize {
			t.Fatalf("open block after batch %d: %+v %v", i, k, ok)
		}
		if !slices.Equal(want, b.OpenBatches()) {
			t.Fatalf("open batches: %v, want %v", b.OpenBatches(), want)
		}
	}
	if err := b.Add(batchOf(4, 0, 1, 4, make([]byte, 60<<10))); err != nil {
		t.Fatal(err)
	}
	if _, ok := b.Open(); ok || len(b.Blocks()) != 1 || len(b.OpenBatches()) != 0 {
		t.Fatalf("the block was not closed at %d bytes", b.Position())
	}
}

func TestResumeFromCheckpoint(t *testing.T) {
	rng := rand.New(rand.NewSource(3))
	batches := script(rng, 1000, 150)
	whole, _ := write(t, 1000, batches, nil, []byte("p"))
	for cut := range batches {
		b := NewBuilder(testID, 1000, 5)
		for _, k := range batches[:cut] {
			if err := b.Add(k); err != nil {
				t.Fatal(err)
			}
		}
		f, err := ParseFooter(b.Checkpoint().Encode())
		if err != nil {
			t.Fatal(err)
		}
		r := Resume(f)
		if r.Position() != HeaderSize+f.DataSize || r.Next() != f.End {
			t.Fatalf("resumed at %d, offset %d", r.Position(), r.Next())
		}
		for _, k := range batches {
			if k.BaseOffset() >= r.Next() {
				if err := r.Add(k); err != nil {
					t.Fatal(err)
				}
			}
		}
		trailer, _ := r.Finish(nil, []byte("p"))
		if !bytes.HasSuffix(whole, trailer) {
			t.Fatalf("resumed after %d batches, another footer results", cut)
		}
	}
}

func TestSparseSegment(t *testing.T) {
	b := NewBuilder(testID, 10, 2)
	b.Skip(15)
	for _, k := range []record.Batch{batchOf(15, 2, 5, 1, []byte("a")), batchOf(30, 4, 1, 2, []byte("b"))} {
		b.Skip(k.BaseOffset())
		if err := b.Add(k); err != nil {
			t.Fatal(err)
		}
	}
	b.Skip(50)
	trailer, want := b.Finish(nil, nil)
	f, err := ParseFooter(trailer)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, f); d != "" || f.Base != 10 || f.End != 50 || !f.Sparse {
		t.Fatalf("[%d, %d) sparse %v\n%s", f.Base, f.End, f.Sparse, d)
	}
	want.Sparse = false
	if _, err := ParseFooter(want.Encode()); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a gap in a dense segment: %v", err)
	}
}

func TestReadFooterOfUnsealedAndNewer(t *testing.T) {
	raw, f := write(t, 0, script(rand.New(rand.NewSource(1)), 0, 20), nil, make([]byte, 200<<10))
	open := raw[:HeaderSize+f.DataSize]
	for _, n := range []int64{0, HeaderSize, int64(len(open)), int64(len(raw)) - 1} {
		if _, err := ReadFooter(bytes.NewReader(raw), n); !errors.Is(err, ErrNoFooter) {
			t.Errorf("first %d bytes: %v", n, err)
		}
	}
	if got, err := ReadFooter(bytes.NewReader(raw), int64(len(raw))); err != nil || len(got.Producers) != 200<<10 {
		t.Errorf("a footer larger than the first read: %v", err)
	}
	newer := slices.Clone(raw)
	newer[len(newer)-TailSize+13] = Version + 1
	if _, err := ReadFooter(bytes.NewReader(newer), int64(len(newer))); !errors.Is(err, ErrVersion) {
		t.Errorf("newer footer: %v", err)
	}
	newer[9] = Version + 1
	if _, _, _, err := ReadHeader(bytes.NewReader(newer)); !errors.Is(err, ErrVersion) {
		t.Errorf("newer header: %v", err)
	}
	for i := range len(raw) - HeaderSize - int(f.DataSize) {
		at := len(raw) - 1 - i
		bad := slices.Clone(raw[HeaderSize+f.DataSize:])
		bad[at-HeaderSize-int(f.DataSize)] ^= 0x10
		if _, err := ParseFooter(bad); err == nil {
			t.Fatalf("a flipped bit at %d of %d passed", at, len(raw))
		}
		if i > 300 {
			break
		}
	}
}

// counter counts reads: each is a GET where the source is an object.
type counter struct {
	*bytes.Reader
	reads int
}

func (c *counter) ReadAt(p []byte, position int64) (int, error) {
	c.reads++
	return c.Reader.ReadAt(p, position)
}

func TestFooterCostsOneReadUnlessItIsLarge(t *testing.T) {
	for _, c := range []struct{ producers, reads int }{{100, 1}, {100 << 10, 2}} {
		raw, _ := write(t, 0, script(rand.New(rand.NewSource(1)), 0, 100), nil, make([]byte, c.producers))
		r := &counter{Reader: bytes.NewReader(raw)}
		if _, err := ReadFooter(r, int64(len(raw))); err != nil || r.reads != c.reads {
			t.Errorf("a snapshot of %d bytes: %d reads, want %d; %v", c.producers, r.reads, c.reads, err)
		}
	}
}

// A record whose bytes look like a footer, at the very end of an unsealed segment, is given away by the batch it is in.
func TestForgedFooterIsGivenAwayByItsBatch(t *testing.T) {
	bait := batchOf(0, 5, 1, 0, []byte("bait"))
	data := int32(len(bait) + record.HeaderSize) // up to where the forged footer will be, inside the second batch
	lie := &Footer{
		Identity: testID, End: 2, CreatedEpoch: 5, Records: 2, DataSize: int64(data), Epochs: []record.EpochStart{{Epoch: 5}},
		Blocks: []Block{{End: 2, Position: HeaderSize, Stored: data, Raw: data}},
	}
	forged := append(appendHeader(nil, testID, 0, 5), bait...)
	forged = append(forged, batchOf(1, 5, 1, 0, lie.Encode())...)
	f, err := ReadFooter(bytes.NewReader(forged), int64(len(forged)))
	if err != nil {
		t.Fatal(err)
	}
	f.Blocks[0].CRC = crc32.Checksum(forged[HeaderSize:f.DataEnd()], castagnoli) // CRC-32C is no secret
	err = Verify(bytes.NewReader(forged), f)
	if !errors.Is(err, ErrCorrupt) {
		t.Fatalf("a record passed for a footer: %v", err)
	}
}
