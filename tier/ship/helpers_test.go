package ship

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

var testID = segment.Identity{Cluster: [16]byte{1}, Topic: record.TopicID{2}, Partition: 3}

// batches makes a log of stamped batches from offset 0 on: every third compresses well, the others not at all.
func batches(seed int64, n int) []record.Batch {
	rng := rand.New(rand.NewSource(seed))
	var out []record.Batch
	next, epoch := record.Offset(0), record.LeaderEpoch(1)
	for i := range n {
		b := record.NewBuilder(record.Attrs{})
		for range 1 + rng.Intn(5) {
			value := make([]byte, 1+rng.Intn(2000))
			if i%3 != 0 {
				rng.Read(value)
			}
			b.Append(1000+int64(i), nil, value)
		}
		batch, err := b.Build()
		if err != nil {
			panic(err)
		}
		if rng.Intn(10) == 0 {
			epoch++
		}
		batch.Stamp(next, epoch)
		next = batch.NextOffset()
		out = append(out, batch)
	}
	return out
}

// local is a sealed local segment in a file of fs.
type local struct {
	name   string
	footer *segment.Footer
	data   []byte
}

// seal writes the batches as local segments of per batches each.
func seal(t *testing.T, fs vfs.FS, dir string, log []record.Batch, per int) []local {
	t.Helper()
	if err := fs.MkdirAll(dir); err != nil {
		t.Fatal(err)
	}
	var out []local
	for len(log) > 0 {
		n := min(per, len(log))
		b := segment.NewBuilder(testID, log[0].BaseOffset(), log[0].LeaderEpoch())
		data := b.Header()
		for _, batch := range log[:n] {
			if err := b.Add(batch); err != nil {
				t.Fatal(err)
			}
			data = append(data, batch...)
		}
		trailer, footer := b.Finish(nil, []byte(fmt.Sprintf("producers at %d", b.Next())))
		data = append(data, trailer...)
		l := local{name: fmt.Sprintf("%s/%020d.seg", dir, footer.Base), footer: footer, data: data}
		f, err := fs.Create(l.name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt(data, 0); err != nil {
			t.Fatal(err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
		out, log = append(out, l), log[n:]
	}
	return out
}

// partition is a Source over sealed segments.
type partition struct {
	fs              vfs.FS
	mu              sync.Mutex
	segments        []local
	logStart, limit record.Offset
	pinned          int
}

func (p *partition) set(change func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change()
}

func (p *partition) end() record.Offset { return p.segments[len(p.segments)-1].footer.End }

func (p *partition) View(from record.Offset) View {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pinned++
	v := View{LogStart: p.logStart, Limit: p.limit, Release: func() { p.set(func() { p.pinned-- }) }}
	for _, l := range p.segments {
		if l.footer.End > from {
			v.Sealed = append(v.Sealed, Sealed{Base: l.footer.Base, End: l.footer.End,
				Footer: func() (*segment.Footer, error) { return l.footer, nil },
				Open:   func() (io.ReaderAt, error) { return p.fs.Open(l.name) }})
		}
	}
	return v
}

func (p *partition) Aborted(from, to record.Offset) []record.AbortedTxn { return nil }

func (p *partition) Pending(from record.Offset) Pending {
	p.mu.Lock()
	defer p.mu.Unlock()
	pending := Pending{OldestMs: -1}
	for _, l := range p.segments {
		if l.footer.End > from {
			pending.Bytes += l.footer.DataSize
			if pending.OldestMs < 0 {
				pending.OldestMs = l.footer.MinTimestamp
			}
		}
	}
	return pending
}

// audited is a memory store that notes whether an object's bytes ever change, and what is deleted.
type audited struct {
	*object.Memory
	mu     sync.Mutex
	bodies map[string][]byte
	broken []string
}

func newAudited() *audited { return &audited{Memory: object.NewMemory(), bodies: map[string][]byte{}} }

func (a *audited) Put(ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
	p := make([]byte, body.Size())
	if n, err := body.ReadAt(p, 0); n < len(p) {
		return "", fmt.Errorf("read body: %w", err)
	}
	v, err := a.Memory.Put(ctx, name, object.Bytes(p), o)
	a.mu.Lock()
	defer a.mu.Unlock()
	if old, ok := a.bodies[name]; err == nil && ok && strings.Contains(name, "/seg/") && !bytes.Equal(old, p) {
		a.broken = append(a.broken, name)
	}
	if err == nil {
		a.bodies[name] = p
	}
	return v, err
}

func (a *audited) names() map[string][]byte {
	a.mu.Lock()
	defer a.mu.Unlock()
	return maps.Clone(a.bodies)
}

// checkRemote holds the remote log against the batches that were written: contiguous, below the limit, each object there
// with its size and checksum, and all records byte for byte. It returns the end.
func checkRemote(t *testing.T, store *audited, log []record.Batch, limit record.Offset) record.Offset {
	t.Helper()
	l, err := manifest.Open(t.Context(), store.Memory, testID, manifest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	m := l.Manifest()
	if m.End() > limit {
		t.Fatalf("the remote log ends at %d, above the limit %d", m.End(), limit)
	}
	var want, got []byte
	for _, b := range log {
		if b.BaseOffset() >= m.Start() && b.BaseOffset() < m.End() {
			want = append(want, b...)
		}
	}
	next := m.Start()
	for s, err := range m.All(t.Context(), store.Memory) {
		if err != nil {
			t.Fatal(err)
		}
		p, _, err := store.Memory.Get(t.Context(), s.Object)
		if err != nil || int64(len(p)) != s.Size || crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli)) != s.CRC || s.Base != next {
			t.Fatalf("segment [%d, %d) where %d is next: %d bytes, entry says %d, %v", s.Base, s.End, next, len(p), s.Size, err)
		}
		f, err := segment.ReadFooter(bytes.NewReader(p), s.Size)
		if err != nil || f.Identity != testID || f.Base != s.Base || f.End != s.End {
			t.Fatalf("object of [%d, %d): %+v, %v", s.Base, s.End, f, err)
		}
		for _, b := range f.Blocks {
			raw, err := segment.DecodeBlock(nil, p[b.Position:b.Position+int64(b.Stored)], b)
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, raw...)
		}
		next = s.End
	}
	if !bytes.Equal(got, want) || next != m.End() {
		t.Fatalf("remote records [%d, %d) are not those written: %d bytes, want %d", m.Start(), m.End(), len(got), len(want))
	}
	if len(store.broken) > 0 {
		t.Fatalf("objects written twice: %v", store.broken)
	}
	return m.End()
}

// shipper makes a Shipper of epoch over its own Log, as a broker that became leader does.
func shipper(t *testing.T, store object.Store, p *partition, epoch record.LeaderEpoch) *Shipper {
	t.Helper()
	l, err := manifest.Open(t.Context(), store, testID, manifest.Options{RetryDelay: time.Nanosecond, Attempts: 2})
	if err != nil {
		t.Fatal(err)
	}
	return New(config(l, store, p, epoch))
}

func config(l *manifest.Log, store object.Store, p *partition, epoch record.LeaderEpoch) Config {
	limiter := NewLimiter(2, PaceOptions{})
	limiter.Adapt(Load{})
	return Config{ID: testID, Epoch: epoch, Log: l, Source: p, Store: store, Limiter: limiter, FS: p.fs, Scratch: "scratch"}
}

// newPartition seals the log into segments of per batches, all of them below the limit.
func newPartition(t *testing.T, log []record.Batch, per int) *partition {
	t.Helper()
	fs := vfs.NewMem()
	if err := CleanScratch(fs, "scratch"); err != nil {
		t.Fatal(err)
	}
	p := &partition{fs: fs, segments: seal(t, fs, "log", log, per)}
	p.limit = p.end()
	return p
}

// scratchFiles is how many temporary files there are.
func scratchFiles(t *testing.T, fs vfs.FS) int {
	t.Helper()
	names, err := fs.List("scratch")
	if err != nil {
		t.Fatal(err)
	}
	return len(names)
}
