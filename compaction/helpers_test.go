package compaction

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"math/rand"
	"strings"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

var testID = segment.Identity{Cluster: [16]byte{1}, Topic: record.TopicID{2}, Partition: 3}

// clock is a clock that a test moves.
type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

// bucket is a store with one partition's remote log in it, and the records that were written to it.
type bucket struct {
	t       *testing.T
	inner   *object.Memory
	store   object.Store // what the code under test sees
	records [][]byte     // of batch i, at offsets[i]
	offsets []record.Offset
	clock   *clock
	fs      *vfs.Mem
}

// newBucket fills a store with segments segments of a few batches each, of leader epochs 1 to 5, some with aborted
// transactions. wrap, if not nil, decorates the store that the code under test sees.
func newBucket(t *testing.T, segments int, wrap func(object.Store) object.Store) *bucket {
	t.Helper()
	b := &bucket{t: t, inner: object.NewMemory(), clock: &clock{time.Unix(1000, 0)}, fs: vfs.NewMem()}
	b.store = b.inner
	if wrap != nil {
		b.store = wrap(b.inner)
	}
	if err := b.fs.MkdirAll("scratch"); err != nil {
		t.Fatal(err)
	}
	l := b.open(b.inner, 5)
	rng := rand.New(rand.NewSource(9))
	next, epoch := record.Offset(0), record.LeaderEpoch(1)
	for i := range segments {
		s := segment.NewBuilder(testID, next, epoch)
		data := s.Header()
		for range 3 {
			value := make([]byte, 400)
			if i%2 == 0 {
				rng.Read(value)
			}
			r := record.NewBuilder(record.Attrs{})
			r.Append(int64(1000*i), nil, value)
			r.Append(int64(1000*i+1), nil, value)
			batch, err := r.Build()
			if err != nil {
				t.Fatal(err)
			}
			batch.Stamp(s.Next(), epoch)
			if err := s.Add(batch); err != nil {
				t.Fatal(err)
			}
			data = append(data, batch...)
			b.records, b.offsets = append(b.records, batch), append(b.offsets, batch.BaseOffset())
		}
		var aborted []record.AbortedTxn
		if first := next + 1 - record.Offset(6*(i%3-1)); i%3 != 0 { // it spans the second and the third of three segments
			aborted = []record.AbortedTxn{{ProducerID: 7, First: first, Last: first + 7, LastStable: first + 8}}
		}
		trailer, footer := s.Finish(aborted, []byte{byte(i)})
		var object bytes.Buffer
		footer, size, crc, err := segment.Recode(&object, bytes.NewReader(append(data, trailer...)), footer, segment.RecodeOptions{})
		if err != nil {
			t.Fatal(err)
		}
		b.put(segment.ObjectName(testID, footer.Base, footer.End, 5, segment.NewUUID()), object.Bytes(), func(name string) error {
			return l.Append(t.Context(), manifest.FromFooter(footer, name, size, crc, 5))
		})
		if next = s.Next(); rng.Intn(3) == 0 && epoch < 5 {
			epoch++
		}
	}
	return b
}

// put stores an object and then calls refer, if not nil, with its name.
func (b *bucket) put(name string, p []byte, refer func(string) error) {
	b.t.Helper()
	_, err := b.inner.Put(b.t.Context(), name, object.Bytes(p), object.PutOptions{})
	if err == nil && refer != nil {
		err = refer(name)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// options make pages soon.
func options() manifest.Options {
	return manifest.Options{RootSegments: 3, PageSegments: 2, RetryDelay: time.Nanosecond, Attempts: 2}
}

// open opens the manifest on store and claims it for epoch.
func (b *bucket) open(store object.Store, epoch record.LeaderEpoch) *manifest.Log {
	b.t.Helper()
	l, err := manifest.Open(b.t.Context(), store, testID, options())
	if err == nil {
		err = l.Claim(b.t.Context(), epoch)
	}
	if err != nil {
		b.t.Fatal(err)
	}
	return l
}

func (b *bucket) deleter() *Deleter { return NewDeleter(b.store, time.Minute, b.clock.now) }

// names lists the segment and page objects that there are.
func (b *bucket) names() map[string]bool {
	b.t.Helper()
	list, err := b.inner.List(b.t.Context(), segment.Prefix(testID), "", 0)
	if err != nil {
		b.t.Fatal(err)
	}
	names := map[string]bool{}
	for _, a := range list {
		if a.Name != manifest.RootName(testID) {
			names[a.Name] = true
		}
	}
	return names
}

// check holds the remote log against the records: every entry's object is there with size and checksum, and [start, end)
// holds the records byte for byte (invariants 25, 27, 29). It returns the manifest and the names it refers to.
func (b *bucket) check() (*manifest.Manifest, map[string]bool) {
	b.t.Helper()
	l, err := manifest.Open(context.Background(), b.inner, testID, options())
	if err != nil {
		b.t.Fatal(err)
	}
	m, referred := l.Manifest(), map[string]bool{}
	for _, p := range m.Pages() {
		referred[manifest.PageName(testID, p)] = true
	}
	var got []byte
	for s, err := range m.All(context.Background(), b.inner) {
		if err != nil {
			b.t.Fatal(err)
		}
		p, _, err := b.inner.Get(context.Background(), s.Object)
		if err != nil || int64(len(p)) != s.Size || crc32.Checksum(p, castagnoli) != s.CRC {
			b.t.Fatalf("object of [%d, %d): %d bytes of %d, %v", s.Base, s.End, len(p), s.Size, err)
		}
		f, err := segment.ReadFooter(bytes.NewReader(p), s.Size)
		if err == nil {
			err = segment.Verify(bytes.NewReader(p), f)
		}
		if err != nil || f.Base != s.Base || f.End != s.End {
			b.t.Fatalf("object of [%d, %d): %v", s.Base, s.End, err)
		}
		for _, k := range f.Blocks {
			raw, err := segment.DecodeBlock(nil, p[k.Position:k.Position+int64(k.Stored)], k)
			if err != nil {
				b.t.Fatal(err)
			}
			got = append(got, raw...)
		}
		referred[s.Object] = true
	}
	var want []byte
	for i, o := range b.offsets {
		if o >= m.Start() && o < m.End() {
			want = append(want, b.records[i]...)
		}
	}
	if !bytes.Equal(got, want) {
		b.t.Fatalf("the records of [%d, %d) are not those written: %d bytes, want %d", m.Start(), m.End(), len(got), len(want))
	}
	return m, referred
}

// clean fails if there are segment or page objects that the manifest does not refer to.
func (b *bucket) clean() {
	b.t.Helper()
	_, referred := b.check()
	for name := range b.names() {
		if !referred[name] && !strings.HasSuffix(name, "/foreign") {
			b.t.Errorf("%s is left", name)
		}
	}
}

var errBroken = errors.New("broken")
