package manifest

import (
	"hash/crc32"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// Readers look up in whatever version they got hold of, while the owner commits: every offset below that version's end is
// found in it.
func TestReadersWhileTheOwnerCommits(t *testing.T) {
	mem := object.NewMemory()
	o := quick
	o.Pages = NewPageCache(2) // smaller than the number of pages: evicted and read again
	l := claimed(t, mem, 1, o)
	done := make(chan struct{})
	var readers sync.WaitGroup
	for r := range 4 {
		readers.Go(func() {
			for i := r; ; i += 7 {
				select {
				case <-done:
					return
				default:
				}
				m := l.Manifest()
				if m.End() == m.Start() {
					continue
				}
				at := m.Start() + record.Offset(i)%(m.End()-m.Start())
				s, ok, err := m.Find(bg, mem, at)
				if err != nil || !ok || s.Base > at || s.End <= at {
					t.Errorf("Find(%d) in [%d, %d): [%d, %d) %v %v", at, m.Start(), m.End(), s.Base, s.End, ok, err)
					return
				}
			}
		})
	}
	for i := range 200 {
		if err := l.Append(bg, seg(segBase(i), segBase(i+1), 1, 1, 1, i+1)); err != nil {
			t.Error(err)
			break
		}
		if i%10 == 0 {
			if _, err := l.SetLogStart(bg, segBase(i/2)+3); err != nil {
				t.Error(err)
			}
		}
	}
	close(done)
	readers.Wait()
}

func TestPageErrors(t *testing.T) {
	mem := object.NewMemory()
	l := claimed(t, mem, 1, quick)
	for i := range 12 {
		if err := l.Append(bg, seg(segBase(i), segBase(i+1), 1, 1, 1, i+1)); err != nil {
			t.Fatal(err)
		}
	}
	m := open(t, mem, quick).Manifest()
	name := PageName(testID, m.Pages()[0])
	p, _, err := mem.Get(bg, name)
	if err != nil {
		t.Fatal(err)
	}
	p[len(p)/2]++
	if _, err := mem.Put(bg, name, object.Bytes(p), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := m.Find(bg, mem, 0); err == nil {
		t.Error("a damaged page was read")
	}
	if _, _, err := m.FindTime(bg, mem, 0); err == nil {
		t.Error("a damaged page was read")
	}
	if _, ok, err := m.Find(bg, mem, m.End()-1); err != nil || !ok {
		t.Errorf("a damaged page keeps the root from being read: %v", err)
	}
	n := 0
	for _, err := range m.All(bg, mem) {
		if n++; err == nil || n > 1 {
			t.Fatalf("All yields %d entries after a damaged page", n)
		}
	}
}

func TestFromFooter(t *testing.T) {
	b := segment.NewBuilder(testID, 100, 3)
	k := record.NewBuilder(record.Attrs{})
	k.Append(5000, []byte("key"), []byte("value"))
	batch, err := k.Build()
	if err != nil {
		t.Fatal(err)
	}
	batch.Stamp(100, 4)
	if err := b.Add(batch); err != nil {
		t.Fatal(err)
	}
	position := b.Position()
	trailer, f := b.Finish([]record.AbortedTxn{{First: 100, Last: 100}}, nil)
	bytes := append(append(b.Header(), batch...), trailer...)
	got := FromFooter(f, "name", int64(len(bytes)), crc32.Checksum(bytes, castagnoli), 5)
	want := Segment{
		Base: 100, End: 101, Epoch: 5, FirstEpoch: 4, LastEpoch: 4, Object: "name", Size: int64(len(bytes)), FooterSize: int32(len(trailer)),
		CRC: crc32.Checksum(bytes, castagnoli), DataSize: position - segment.HeaderSize, Records: 1, MinTimestamp: 5000, MaxTimestamp: 5000,
		MaxTimestampOffset: 100, Aborted: 1, Epochs: []record.EpochStart{{Epoch: 4, Start: 100}},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Fatal(d)
	}
	if _, err := segment.ParseFooter(bytes[got.Size-int64(got.FooterSize):]); err != nil {
		t.Fatal(err)
	}
}
