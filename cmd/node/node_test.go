package node

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"go.uber.org/goleak"

	"github.com/everlog/everlog/tier/object"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("github.com/cockroachdb/pebble/v2.(*tableCacheShard).releaseLoop"))
}

// bench is a place where one broker is started and stopped.
type bench struct {
	t     *testing.T
	dir   string
	store object.Store
	sets  map[string]string
	node  *Node
}

func newBench(t *testing.T, sets map[string]string) *bench {
	dir := t.TempDir()
	return &bench{t: t, dir: filepath.Join(dir, "data"), store: object.NewMemory(), sets: sets}
}

func (b *bench) start() *Node {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	n, err := Start(ctx, Options{NodeID: 1, DataDir: b.dir, Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0", ObjectStore: b.store, Settings: b.sets, Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))})
	if err != nil {
		b.t.Fatal(err)
	}
	b.node = n
	b.t.Cleanup(b.stop)
	return n
}

func (b *bench) stop() {
	if b.node == nil {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	if err := b.node.Stop(ctx); err != nil {
		b.t.Errorf("stop: %v", err)
	}
	b.node = nil
}

func (b *bench) client(opts ...kgo.Opt) *kgo.Client {
	b.t.Helper()
	cl, err := kgo.NewClient(append([]kgo.Opt{kgo.SeedBrokers(b.node.Addr().String()), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.MetadataMinAge(50 * time.Millisecond), kgo.ProducerBatchCompression(kgo.NoCompression())}, opts...)...)
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(cl.Close)
	return cl
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func (b *bench) create(name string, partitions int32, configs map[string]string) {
	b.t.Helper()
	cl := b.client()
	defer cl.Close()
	set := map[string]*string{}
	for k, v := range configs {
		set[k] = &v
	}
	if _, err := kadm.NewClient(cl).CreateTopic(deadline(b.t), partitions, 1, set, name); err != nil {
		b.t.Fatal(err)
	}
}

// produce writes count records into each partition and waits for them; value i of partition p is value(p, from+i).
func (b *bench) produce(topic string, partitions int32, from, count int) {
	b.t.Helper()
	cl := b.client()
	defer cl.Close()
	var failed atomic.Bool
	for p := range partitions {
		for i := from; i < from+count; i++ {
			r := &kgo.Record{Topic: topic, Partition: p, Key: fmt.Appendf(nil, "k%d", i), Value: value(p, i)}
			cl.Produce(deadline(b.t), r, func(r *kgo.Record, err error) {
				if err != nil && failed.CompareAndSwap(false, true) {
					b.t.Errorf("produce %d: %v", i, err)
				} else if err == nil && r.Offset != int64(i) {
					b.t.Errorf("record %d of partition %d is at offset %d", i, p, r.Offset)
				}
			})
		}
	}
	if err := cl.Flush(deadline(b.t)); err != nil {
		b.t.Fatal(err)
	}
}

func value(p int32, i int) []byte {
	return bytes.Repeat(fmt.Appendf(nil, "partition %d record %d;", p, i), 20)
}

// check reads every partition from offset from to end and compares.
func (b *bench) check(topic string, partitions int32, from, end int) {
	b.t.Helper()
	offsets := map[string]map[int32]kgo.Offset{topic: {}}
	next := make([]int, partitions)
	for p := range partitions {
		offsets[topic][p] = kgo.NewOffset().At(int64(from))
		next[p] = from
	}
	cl := b.client(kgo.ConsumePartitions(offsets))
	defer cl.Close()
	ctx := deadline(b.t)
	for left := int(partitions) * (end - from); left > 0; {
		fs := cl.PollFetches(ctx)
		if ctx.Err() != nil {
			b.t.Fatalf("%d records are missing; next are %v of %d", left, next, end)
		}
		fs.EachError(func(t string, p int32, err error) { b.t.Fatalf("%s-%d: %v", t, p, err) })
		fs.EachRecord(func(r *kgo.Record) {
			if int(r.Offset) != next[r.Partition] || !bytes.Equal(r.Value, value(r.Partition, int(r.Offset))) {
				b.t.Fatalf("partition %d: offset %d with %.40q, want offset %d", r.Partition, r.Offset, r.Value, next[r.Partition])
			}
			next[r.Partition]++
			left--
		})
	}
}

// eventually waits until ok is true.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	limit := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(limit) {
			t.Fatalf("timed out: %s", what)
		}
		time.Sleep(10 * time.Millisecond) // between looks
	}
}

// shipped waits until everything is in the object store.
func (b *bench) shipped() {
	b.t.Helper()
	eventually(b.t, "not everything was shipped", func() bool {
		for _, p := range b.node.broker.Partitions() {
			if p.End() > 0 && (p.Tier() == nil || p.Tier().RemoteEnd() < p.End()) {
				return false
			}
		}
		return true
	})
}

func TestEverythingComesBackFromTheBucket(t *testing.T) {
	b := newBench(t, map[string]string{"tier.seal.ms": "1000"})
	b.start()
	b.create("t", 3, map[string]string{"segment.bytes": "1048576"})
	b.produce("t", 3, 0, 4000)
	b.check("t", 3, 0, 4000)
	b.shipped()
	b.stop()
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	b.start()
	b.check("t", 3, 0, 4000)
	b.produce("t", 3, 4000, 500) // goes on at the right offset
	b.check("t", 3, 3900, 4500)  // across the border between history and local log
	b.shipped()
	b.stop()
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	b.start() // and again, over what two leaders shipped
	b.check("t", 3, 0, 4500)
}

func TestLocalCopiesGoAndHistoryStays(t *testing.T) {
	b := newBench(t, map[string]string{"tier.seal.ms": "1000"})
	b.start()
	b.create("t", 1, map[string]string{"segment.bytes": "1048576", "local.retention.bytes": "1", "retention.ms": "-1"})
	b.produce("t", 1, 0, 8000)
	b.shipped()
	p := b.node.broker.Partitions()[0]
	eventually(t, "local segments were not dropped", func() bool { return p.LocalStart() > 4000 })
	if v := p.View(); v.LogStart != 0 {
		t.Fatalf("log start moved to %d", v.LogStart)
	}
	b.check("t", 1, 0, 8000)
	b.stop()
	b.start()
	b.check("t", 1, 0, 8000)
}

func TestRetentionRemovesFromBothTiers(t *testing.T) {
	b := newBench(t, map[string]string{"tier.seal.ms": "1000", "log.retention.check.interval.ms": "200"})
	b.start()
	b.create("t", 1, map[string]string{"segment.bytes": "1048576", "retention.bytes": "1048576"})
	b.produce("t", 1, 0, 12000)
	p := b.node.broker.Partitions()[0]
	eventually(t, "retention.bytes removed nothing", func() bool { return p.View().LogStart > 4000 })
	start := int(p.View().LogStart)
	b.check("t", 1, start, 12000)
	eventually(t, "the manifest was not told", func() bool {
		m := p.Tier().Manifest()
		return m != nil && int(m.LogStart()) >= start
	})
	b.shipped()
	b.stop()
	if err := os.RemoveAll(b.dir); err != nil {
		t.Fatal(err)
	}
	b.start()
	eventually(t, "the partition was not restored", func() bool { return len(b.node.broker.Partitions()) == 1 })
	if got := int(b.node.broker.Partitions()[0].View().LogStart); got < start {
		t.Fatalf("log start went back from %d to %d", start, got)
	}
}

// gate is a store that can be away: the names with its prefix while away is set, and those with the prefixes that were closed.
type gate struct {
	object.Store
	prefix string
	away   atomic.Bool
	closed atomic.Pointer[[]string]
}

// close shuts the names with the prefixes, and opens all others.
func (g *gate) close(prefixes ...string) { g.closed.Store(&prefixes) }

func (g *gate) shut(name string) bool {
	begins := func(prefix string) bool { return strings.HasPrefix(name, prefix) }
	closed := g.closed.Load()
	return g.away.Load() && begins(g.prefix) || closed != nil && slices.ContainsFunc(*closed, begins)
}

var errAway = fmt.Errorf("%w: connection refused", object.ErrUnavailable)

func (g *gate) Put(ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
	if g.shut(name) {
		return "", errAway
	}
	return g.Store.Put(ctx, name, body, o)
}

func (g *gate) Get(ctx context.Context, name string) ([]byte, object.Version, error) {
	if g.shut(name) {
		return nil, "", errAway
	}
	return g.Store.Get(ctx, name)
}

func (g *gate) ReadAt(ctx context.Context, name string, p []byte, position int64) (int, error) {
	if g.shut(name) {
		return 0, errAway
	}
	return g.Store.ReadAt(ctx, name, p, position)
}

func (g *gate) Head(ctx context.Context, name string) (object.Attributes, error) {
	if g.shut(name) {
		return object.Attributes{}, errAway
	}
	return g.Store.Head(ctx, name)
}

func (g *gate) List(ctx context.Context, prefix, after string, limit int) ([]object.Attributes, error) {
	if g.shut(prefix) {
		return nil, errAway
	}
	return g.Store.List(ctx, prefix, after, limit)
}

func TestServesWhileTheStoreIsAway(t *testing.T) {
	b := newBench(t, nil)
	g := &gate{Store: b.store}
	b.store = g
	b.start()
	b.create("t", 2, nil)
	b.produce("t", 2, 0, 100)
	g.away.Store(true)
	b.produce("t", 2, 100, 100)
	b.check("t", 2, 0, 200)
	b.stop()

	b.start() // from what is on disk, in epochs of its own
	epoch := b.node.broker.Partitions()[0].LeaderEpoch()
	b.produce("t", 2, 200, 100)
	b.check("t", 2, 0, 300)
	cl := b.client()
	ctx, cancel := context.WithTimeout(context.Background(), 8*time.Second)
	defer cancel()
	if _, err := kadm.NewClient(cl).CreateTopic(ctx, 1, 1, nil, "new"); err == nil {
		t.Fatal("a topic was created without the store")
	}
	g.away.Store(false)
	eventually(t, "the broker did not register when the store came back", func() bool {
		for _, p := range b.node.broker.Image().Topic("t").Partitions {
			if p.LeaderEpoch < epoch {
				return false
			}
		}
		return true
	})
	b.create("later", 1, nil)
	b.produce("t", 2, 300, 10)
	b.check("t", 2, 0, 310)
	b.stop()
	b.start()
	for _, p := range b.node.broker.Partitions() {
		if now := p.LeaderEpoch(); p.Topic() == "t" && now <= epoch {
			t.Fatalf("leader epoch went from %d to %d over a restart", epoch, now)
		}
	}
	b.check("t", 2, 0, 310)
}

func TestATopicDeletedAndMadeAgainIsEmpty(t *testing.T) {
	b := newBench(t, map[string]string{"tier.seal.ms": "1000"})
	b.start()
	for range 3 {
		b.create("t", 2, nil)
		b.produce("t", 2, 0, 50) // takes writes at once, from offset 0
		b.check("t", 2, 0, 50)
		cl := b.client()
		if _, err := kadm.NewClient(cl).DeleteTopics(deadline(t), "t"); err != nil {
			t.Fatal(err)
		}
		cl.Close()
	}
	eventually(t, "local logs are left", func() bool {
		dirs, err := os.ReadDir(filepath.Join(b.dir, "log"))
		return err == nil && len(dirs) == 0
	})
}

func TestIdempotenceSurvivesARestart(t *testing.T) {
	b := newBench(t, nil)
	b.start()
	b.create("t", 1, nil)
	b.produce("t", 1, 0, 20)
	before := b.node.broker.Partitions()[0].Producers()
	b.stop()
	b.start()
	after := b.node.broker.Partitions()[0].Producers()
	if len(before) != 1 || len(after) != 1 || before[0].ID != after[0].ID || before[0].LastSequence != after[0].LastSequence {
		t.Fatalf("producers before %+v, after %+v", before, after)
	}
}

func TestOneDataDirectoryOneBroker(t *testing.T) {
	b := newBench(t, nil)
	b.start()
	_, err := Start(deadline(t), Options{NodeID: 1, DataDir: b.dir, Listen: "127.0.0.1:0", ObjectStore: b.store})
	if err == nil {
		t.Fatal("a second broker started on the same directory")
	}
}

func TestAStoreWithoutConditionsIsRefused(t *testing.T) {
	_, err := Start(deadline(t), Options{NodeID: 1, DataDir: t.TempDir(), Listen: "127.0.0.1:0", ObjectStore: careless{object.NewMemory()}})
	if !errors.Is(err, object.ErrUnsupported) {
		t.Fatalf("got %v", err)
	}
}

// careless ignores preconditions.
type careless struct{ object.Store }

func (c careless) Put(ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
	o.Condition = object.Condition{}
	return c.Store.Put(ctx, name, body, o)
}
