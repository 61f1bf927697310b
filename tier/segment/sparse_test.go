package segment

import (
	"bytes"
	"encoding/binary"
	"math/rand"
	"testing"

	"github.com/everlog/everlog/tier/record"
)

// emptied is the header of a batch as compaction leaves it.
func emptied(b record.Batch) record.Batch {
	p := bytes.Clone(b[:record.HeaderSize])
	binary.BigEndian.PutUint32(p[8:], record.HeaderSize-12)
	binary.BigEndian.PutUint32(p[57:], 0)
	e := record.Batch(p)
	e.SetMaxTimestamp(b.MaxTimestamp())
	return e
}

// TestSparseSegments: batches removed anywhere, some emptied, in the extreme all of them; cut where an offset is missing or
// not; through Encode, ReadFooter, Verify and Recode.
func TestSparseSegments(t *testing.T) {
	for seed := range int64(40) {
		rng := rand.New(rand.NewSource(seed))
		all := script(rng, 1000, 1+rng.Intn(60))
		end := all[len(all)-1].NextOffset()
		w := NewBuilder(testID, 1000, 5)
		p := w.Header()
		var left []record.Batch
		for _, b := range all {
			switch rng.Intn(4) * int(seed%4) {
			case 0:
				continue
			case 2:
				b = emptied(b)
			}
			w.Skip(b.BaseOffset())
			if err := w.Add(b); err != nil {
				t.Fatal(err)
			}
			left, p = append(left, b), append(p, b...)
		}
		w.Skip(end)
		trailer, f := w.Finish(nil, nil)
		if len(left) == 0 {
			f.Epochs = []record.EpochStart{{Epoch: 5, Start: 1000}}
			trailer = f.Encode()
		}
		p = append(p, trailer...)
		got, err := ReadFooter(bytes.NewReader(p), int64(len(p)))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		if err := Verify(bytes.NewReader(p), got); err != nil || got.End != end || !got.Sparse && len(left) < len(all) {
			t.Fatalf("seed %d: [%d, %d), sparse %v: %v", seed, got.Base, got.End, got.Sparse, err)
		}
		latest := int64(-1)
		for _, b := range left {
			if b.Count() > 0 {
				latest = max(latest, b.MaxTimestamp())
			}
		}
		if got.MaxTimestamp != latest {
			t.Fatalf("seed %d: latest at %d ms, the records say %d", seed, got.MaxTimestamp, latest)
		}
		from, to := all[rng.Intn(len(all))].BaseOffset(), end
		if rng.Intn(2) == 0 {
			to = from + 1
			for _, b := range all {
				if b.BaseOffset() == from {
					to = b.NextOffset()
				}
			}
		}
		var want []byte
		for _, b := range left {
			if b.BaseOffset() >= from && b.BaseOffset() < to {
				want = append(want, b...)
			}
		}
		var object bytes.Buffer
		_, size, _, err := Recode(&object, bytes.NewReader(p), got, RecodeOptions{From: from, To: to})
		if err != nil {
			t.Fatalf("seed %d: cut to [%d, %d): %v", seed, from, to, err)
		}
		r, err := ReadFooter(bytes.NewReader(object.Bytes()), size)
		if err == nil {
			err = Verify(bytes.NewReader(object.Bytes()), r)
		}
		if err != nil || r.Base != from || r.End != to || !bytes.Equal(decode(t, object.Bytes(), r), want) {
			t.Fatalf("seed %d: cut to [%d, %d), got [%d, %d): %v", seed, from, to, r.Base, r.End, err)
		}
	}
}
