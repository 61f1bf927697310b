// Package coldread holds tier/fetch and cache against real stores: equal bytes whatever the cache, one GET for all readers,
// memory within its budgets, and the speed of cold reads beside that of plain GETs. Only tests are in it.
package coldread

import (
	"bytes"
	"context"
	"math/rand"
	"testing"

	"go.uber.org/goleak"

	"github.com/everlog/everlog/cache"
	"github.com/everlog/everlog/tier/fetch"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// history is a partition's remote log in a store.
type history struct {
	id    segment.Identity
	store object.Store
	log   *manifest.Log
	next  record.Offset
	bytes int64 // of all batches
}

// recipe says what a history is made of. Every second segment is encoded if mixed; else nothing shrinks.
type recipe struct {
	partition                          int32
	segments, segmentBytes, batchBytes int
	mixed                              bool
}

// write makes a history.
func write(t testing.TB, store object.Store, r recipe) *history {
	t.Helper()
	h := &history{store: store, id: segment.Identity{Cluster: [16]byte{7}, Topic: record.TopicID{8}, Partition: r.partition}}
	var err error
	if h.log, err = manifest.Open(t.Context(), store, h.id, manifest.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := h.log.Claim(t.Context(), 1); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewSource(1))
	for i := range r.segments {
		h.add(t, rng, r, r.mixed && i%2 == 1)
	}
	return h
}

func (h *history) add(t testing.TB, rng *rand.Rand, r recipe, encoded bool) {
	t.Helper()
	builder := segment.NewBuilder(h.id, h.next, 1)
	data := append(make([]byte, 0, r.segmentBytes+r.batchBytes+1<<20), builder.Header()...)
	value := make([]byte, r.batchBytes-200)
	for len(data) < r.segmentBytes {
		rng.Read(value)
		if encoded {
			copy(value, bytes.Repeat(value[:37], len(value)/37))
		}
		b := record.NewBuilder(record.Attrs{})
		b.Append(int64(h.next), nil, value)
		batch, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		batch.Stamp(h.next, 1)
		if err := builder.Add(batch); err != nil {
			t.Fatal(err)
		}
		data = append(data, batch...)
		h.next = batch.NextOffset()
		h.bytes += int64(len(batch))
	}
	trailer, f := builder.Finish(nil, nil)
	data = append(data, trailer...)
	var out bytes.Buffer
	footer, size, crc, err := segment.Recode(&out, bytes.NewReader(data), f, segment.RecodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	name := segment.ObjectName(h.id, f.Base, f.End, 1, segment.NewUUID())
	if _, err := h.store.Put(t.Context(), name, object.Bytes(out.Bytes()), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := h.log.Append(t.Context(), manifest.FromFooter(footer, name, size, crc, 1)); err != nil {
		t.Fatal(err)
	}
}

// reader reads the history through c.
func (h *history) reader(t testing.TB, store object.Store, c *cache.Cache) *fetch.Reader {
	t.Helper()
	footers := fetch.NewFooters(0)
	t.Cleanup(func() {
		if err := footers.Close(); err != nil {
			t.Error(err)
		}
	})
	return fetch.NewReader(fetch.Source{Store: store, Manifest: h.log.Manifest, Reload: h.log.Reload, Blocks: c, Footers: footers})
}

func open(t testing.TB, store object.Store, o cache.Options) *cache.Cache {
	t.Helper()
	c := cache.New(store, o)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// follow reads [from, to) in reads of at most max bytes, and gives each block to see. It returns the bytes of it.
func follow(ctx context.Context, r *fetch.Reader, from, to record.Offset, max int, see func([]byte)) (int64, error) {
	n := int64(0)
	for offset := from; offset < to; {
		res, err := r.Read(ctx, offset, fetch.Options{MaxBytes: max, AtLeastOne: true})
		if err != nil {
			return n, err
		}
		for _, b := range res.Blocks {
			n += int64(len(b))
			see(b)
		}
		offset = res.Next
		res.Release()
	}
	return n, nil
}
