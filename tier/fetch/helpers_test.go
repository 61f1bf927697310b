package fetch

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testID = segment.Identity{Cluster: [16]byte{1}, Topic: record.TopicID{2}, Partition: 3}

// history is a partition's remote log, and what is in it.
type history struct {
	store   object.Store
	log     *manifest.Log
	batches []record.Batch
	aborted []record.AbortedTxn
	next    record.Offset
	rng     *rand.Rand
	clock   int64
}

func newHistory(t testing.TB, store object.Store, seed int64) *history {
	t.Helper()
	h := &history{store: store, rng: rand.New(rand.NewSource(seed)), clock: 1_700_000_000_000}
	var err error
	if h.log, err = manifest.Open(t.Context(), store, testID, manifest.Options{RootSegments: 4, PageSegments: 3}); err != nil {
		t.Fatal(err)
	}
	if err := h.log.Claim(t.Context(), 5); err != nil {
		t.Fatal(err)
	}
	return h
}

// batch makes the next batch of the history, of about size bytes.
func (h *history) batch(t testing.TB, size int) record.Batch {
	t.Helper()
	codec := record.None
	if h.rng.Intn(3) == 0 {
		codec = record.LZ4
	}
	b := record.NewBuilder(record.Attrs{Codec: codec})
	for range 1 + h.rng.Intn(4) {
		value := make([]byte, size/3)
		if h.rng.Intn(2) == 0 {
			h.rng.Read(value)
		} else {
			copy(value, bytes.Repeat([]byte("again and again "), len(value)/16+1))
		}
		h.clock += int64(h.rng.Intn(20)) - 5
		b.Append(h.clock, []byte("key"), value)
	}
	out, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	out.Stamp(h.next, 5)
	h.next = out.NextOffset()
	return out
}

// shape says what a segment is made of.
type shape struct {
	batches, size int
	// gaps leaves batches out, at the end too, as compaction does. zstd encodes the blocks that shrink.
	gaps, zstd bool
	aborted    []record.AbortedTxn
}

// add puts one segment into the store and the manifest.
func (h *history) add(t testing.TB, s shape) manifest.Segment {
	t.Helper()
	entry, batches := h.write(t, s)
	if err := h.log.Append(t.Context(), entry); err != nil {
		t.Fatal(err)
	}
	h.batches = append(h.batches, batches...)
	h.aborted = append(h.aborted, s.aborted...)
	return entry
}

// write puts one segment into the store.
func (h *history) write(t testing.TB, s shape) (manifest.Segment, []record.Batch) {
	t.Helper()
	builder := segment.NewBuilder(testID, h.next, 5)
	var batches []record.Batch
	for i := range s.batches {
		b := h.batch(t, s.size)
		if s.gaps && (h.rng.Intn(3) == 0 || i == s.batches-1) {
			builder.Skip(h.next)
			continue
		}
		if err := builder.Add(b); err != nil {
			t.Fatal(err)
		}
		batches = append(batches, b)
	}
	return h.put(t, builder, batches, s), batches
}

func (h *history) put(t testing.TB, builder *segment.Builder, batches []record.Batch, s shape) manifest.Segment {
	t.Helper()
	data := builder.Header()
	for _, b := range batches {
		data = append(data, b...)
	}
	trailer, f := builder.Finish(s.aborted, nil)
	data = append(data, trailer...)
	saving := 1.0
	if s.zstd {
		saving = 0.1
	}
	var out bytes.Buffer
	footer, size, crc, err := segment.Recode(&out, bytes.NewReader(data), f, segment.RecodeOptions{MinSaving: saving})
	if err != nil {
		t.Fatal(err)
	}
	name := segment.ObjectName(testID, f.Base, f.End, 5, segment.NewUUID())
	if _, err := h.store.Put(t.Context(), name, object.Bytes(out.Bytes()), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	return manifest.FromFooter(footer, name, size, crc, 5)
}

// from returns what a read from offset on up to the end has to give.
func (h *history) from(offset record.Offset) []record.Batch {
	for i, b := range h.batches {
		if b.NextOffset() > offset {
			return h.batches[i:]
		}
	}
	return nil
}

// plain is a BlockCache that loads each block on its own and keeps only the names of what it has: simple enough to be right.
type plain struct {
	store object.Store
	size  int

	mu    sync.Mutex
	have  map[string]bool
	trace []string
	full  bool // refuse read-ahead
	lent  int
}

func newPlain(store object.Store, size int) *plain {
	return &plain{store: store, size: size, have: map[string]bool{}}
}

func (p *plain) GetSize() int           { return p.size }
func (p *plain) GetTime() time.Duration { return 10 * time.Millisecond }

func blockName(l Layout, i int) string {
	position, _, _ := l.Block(i)
	return fmt.Sprintf("%s@%d", l.Object(), position)
}

func (p *plain) Missing(l Layout, from, to int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for i := from; i < to; i++ {
		if !p.have[blockName(l, i)] {
			n++
		}
	}
	return n
}

func (p *plain) Ahead(_ uint64, l Layout, from, to int) int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.full {
		return 0
	}
	id, err := segment.ParseObjectName(l.Object())
	if err != nil {
		panic(err)
	}
	p.trace = append(p.trace, fmt.Sprintf("%d: [%d, %d)", id.Base, from, to))
	for i := from; i < to; i++ {
		p.have[blockName(l, i)] = true
	}
	return to - from
}

func (p *plain) Get(ctx context.Context, l Layout, s Span) ([][]byte, func(), error) {
	var blocks [][]byte
	for i := s.From; i < s.To; i++ {
		position, stored, raw := l.Block(i)
		in := make([]byte, stored)
		var out []byte
		_, err := p.store.ReadAt(context.WithoutCancel(ctx), l.Object(), in, position)
		if err == nil {
			out, err = l.Decode(i, make([]byte, 0, raw), in)
		}
		if err != nil && len(blocks) == 0 {
			return nil, nil, err
		}
		if err != nil {
			break
		}
		blocks = append(blocks, out)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range blocks {
		p.have[blockName(l, s.From+i)] = true
	}
	p.lent++
	return blocks, sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.lent--
		for _, b := range blocks {
			clear(b) // who reads on will notice
		}
	}), nil
}

// reader reads the history through a cache of that GET size.
func (h *history) reader(t testing.TB, size int) (*Reader, *plain) {
	t.Helper()
	blocks := newPlain(h.store, size)
	footers := NewFooters(0)
	t.Cleanup(func() {
		if err := footers.Close(); err != nil {
			t.Error(err)
		}
		if blocks.lent != 0 {
			t.Errorf("%d results were not given back", blocks.lent)
		}
	})
	return NewReader(Source{Store: h.store, Manifest: h.log.Manifest, Reload: h.log.Reload, Blocks: blocks, Footers: footers}), blocks
}

// check holds a result against the history.
func (h *history) check(t testing.TB, offset record.Offset, o Options, res Result) {
	t.Helper()
	if err := h.differs(offset, o, res); err != nil {
		t.Fatalf("read from %d with %+v: %v", offset, o, err)
	}
}

func (h *history) differs(offset record.Offset, o Options, res Result) error {
	want := h.from(offset)
	size, next := 0, offset
	for _, block := range res.Blocks {
		for len(block) > 0 {
			b, rest, err := record.Next(block)
			if err != nil {
				return err
			}
			if len(want) == 0 || !bytes.Equal(b, want[0]) {
				return fmt.Errorf("a batch of [%d, %d) is not the next one", b.BaseOffset(), b.NextOffset())
			}
			size += b.Size()
			block, want, next = rest, want[1:], b.NextOffset()
		}
	}
	switch {
	case size > o.MaxBytes && !(o.AtLeastOne && next == h.from(offset)[0].NextOffset()):
		return fmt.Errorf("%d bytes", size)
	case o.AtLeastOne && size == 0 && len(want) > 0:
		return errors.New("nothing came")
	case res.Next < next || size == 0 && len(want) == 0 && res.Next != h.next || len(want) > 0 && res.Next > want[0].BaseOffset() && size > 0:
		return fmt.Errorf("next is %d after batches to %d", res.Next, next)
	}
	return nil
}
