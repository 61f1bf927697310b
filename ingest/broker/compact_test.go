package broker

import (
	"context"
	"encoding/binary"
	"fmt"
	"log/slog"
	"testing"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/ingest/hotlog"
	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// committed is a CommitWaiter that passes the outcome on.
type committed chan error

func (c committed) Committed(_ int, err error) { c <- err }

// compacting is a broker with compacted partitions, as much of it as passes need.
type compacting struct {
	*Broker
	t   *testing.T
	mem *vfs.Mem
	ps  []*partition.Partition
}

func newCompacting(t *testing.T, partitions int, settings map[string]string) *compacting {
	t.Helper()
	conf, err := config.ParseBroker(map[string]string{"log.cleaner.backoff.ms": "1"})
	if err != nil {
		t.Fatal(err)
	}
	state, err := localstate.Open("state", localstate.Options{FS: pebblevfs.NewMem()})
	if err != nil {
		t.Fatal(err)
	}
	c := &compacting{t: t, mem: vfs.NewMem()}
	c.Broker = &Broker{Parts: Parts{FS: c.mem, Dir: "/data", State: state, Config: conf}, log: slog.New(slog.DiscardHandler), replicas: map[replicaKey]*replica{}, flusher: hotlog.NewFlusher(hotlog.FlusherOptions{})}
	c.conf.Store(conf)
	c.tiers.init(c.Broker)
	topic, err := config.Topic(settings, conf)
	if err != nil {
		t.Fatal(err)
	}
	for i := range int32(partitions) {
		id := segment.Identity{Topic: record.TopicID{1}, Partition: i}
		l, rec, err := hotlog.Open(c.mem, c.logDir(id), id, state.Log(id.Topic, i), c.flusher, hotlog.Options{})
		if err != nil {
			t.Fatal(err)
		}
		cleaned, err := c.cleaned(id)
		if err != nil {
			t.Fatal(err)
		}
		p, err := partition.Open(id, l, rec, partition.Options{Topic: "t", Settings: topic, Logger: c.log, ProducerExpiration: time.Hour, SaveLogStart: func(record.Offset) error { return nil },
			Cleaned: cleaned, SaveCleaned: func(o record.Offset) error { return c.saveCleaned(id, o) }})
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Lead(1, 1); err != nil {
			t.Fatal(err)
		}
		r := &replica{key: replicaKey{id.Topic, i}, topic: "t"}
		r.partition.Store(p)
		c.replicas[r.key] = r
		c.ps = append(c.ps, p)
	}
	t.Cleanup(func() {
		if err := c.closeAll(); err != nil {
			t.Error(err)
		}
		if err := state.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// write appends n records of one key each to a partition, and seals them.
func (c *compacting) write(p *partition.Partition, n int, ts int64) {
	c.t.Helper()
	for i := range n + 1 {
		if i == n { // one more, behind the sealed segment
			if err := p.Roll(); err != nil {
				c.t.Fatal(err)
			}
		}
		w := record.NewBuilder(record.Attrs{})
		w.Append(ts, []byte("key"), fmt.Append(nil, "value ", i))
		b, err := w.Build()
		if err != nil {
			c.t.Fatal(err)
		}
		done, err := p.Append(b, partition.AppendOptions{NowMs: ts})
		if err != nil {
			c.t.Fatal(err)
		}
		told := make(committed, 1)
		p.AwaitCommit(done.Next, done.Epoch, told, 0)
		if err := <-told; err != nil {
			c.t.Fatal(err)
		}
	}
}

// TestPassesOfABroker: the passes of all logs run one after another, are counted, and end with the broker.
func TestPassesOfABroker(t *testing.T) {
	c := newCompacting(t, 5, map[string]string{"cleanup.policy": "compact"})
	for _, p := range c.ps {
		c.write(p, 30, 1000)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); c.tiers.compact.run(ctx) }()
	deadline := time.Now().Add(20 * time.Second)
	for c.Compactions().Passes < 5 && time.Now().Before(deadline) {
		sleep(ctx, time.Millisecond)
	}
	cancel()
	<-ended
	done := c.Compactions()
	if done.Passes != 5 || done.Failures != 0 || done.Replaced != 5 || done.RecordsBefore != 150 || done.RecordsAfter != 5 || done.BytesAfter >= done.BytesBefore || done.Running {
		t.Errorf("%+v", done)
	}
	for _, p := range c.ps {
		o, err := c.cleaned(p.Identity())
		if err != nil || o != 30 || p.Cleaned() != 30 {
			t.Errorf("cleaned %d, remembered %d, %v", p.Cleaned(), o, err)
		}
	}
	if err := c.forgetNumbers(c.ps[0].Identity()); err != nil {
		t.Fatal(err)
	}
	if o, err := c.cleaned(c.ps[0].Identity()); err != nil || o != 0 {
		t.Errorf("a deleted log is remembered as compacted to %d, %v", o, err)
	}
	if names, err := c.mem.List(c.logDir(c.ps[1].Identity())); err != nil || len(names) != 2 {
		t.Errorf("files %v, %v", names, err)
	}
}

// TestOrderOfPasses: records that have waited too long first, then the largest dirty part; what failed waits.
func TestOrderOfPasses(t *testing.T) {
	now := time.UnixMilli(10_000_000)
	c := newCompacting(t, 3, map[string]string{"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.1", "max.compaction.lag.ms": "5000000"})
	next := func() int {
		for i, p := range c.ps {
			if c.tiers.compact.next(now) == p {
				return i
			}
		}
		return -1
	}
	if n := next(); n >= 0 {
		t.Fatalf("partition %d is empty", n)
	}
	for i, p := range c.ps {
		c.write(p, 10*(i+1), 9_000_000)
		c.tiers.compact.compact(t.Context(), p)
	}
	c.write(c.ps[0], 3, 9_000_000)  // next to what is left, a third
	c.write(c.ps[1], 40, 9_000_000) // most of it
	c.write(c.ps[2], 2, 2_000_000)  // not much, but old
	for _, want := range []int{2, 1, 0, -1} {
		got := next()
		if got != want {
			t.Fatalf("partition %d is next, want %d", got, want)
		}
		if got >= 0 {
			c.tiers.compact.compact(t.Context(), c.ps[got])
		}
	}
	c.write(c.ps[1], 50, 9_000_000)
	c.mem.SetCapacity(1) // no room for a pass
	began := time.Now()
	c.tiers.compact.compact(t.Context(), c.ps[1])
	if done := c.Compactions(); done.Failures != 1 {
		t.Errorf("on a full disk: %+v", done)
	}
	if p := c.tiers.compact.next(began.Add(compactRetry / 2)); p != nil {
		t.Error("a log whose pass has failed is tried again at once")
	}
	if p := c.tiers.compact.next(began.Add(2 * compactRetry)); p != c.ps[1] {
		t.Error("a log whose pass has failed is not tried again")
	}
	c.mem.SetCapacity(0)
}

// TestPaceOfPasses: large batches take more than one portion.
func TestPaceOfPasses(t *testing.T) {
	c := newCompacting(t, 0, nil)
	if err := c.Tier.Pace(t.Context(), 2*compactBurst+1); err != nil {
		t.Error(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := c.Tier.Pace(ctx, 1); err == nil {
		t.Error("goes on after its end")
	}
	c.Tier.Compacted(100, 40)
	if done := c.Compactions(); done.Exchanged != 1 || done.ExchangedBefore != 100 || done.ExchangedAfter != 40 {
		t.Errorf("%+v", done)
	}
	c.mem.SetCapacity(compactReserve + 7)
	if room, err := c.tiers.compact.room(); err != nil || room != 7 {
		t.Errorf("room for %d bytes, %v", room, err)
	}
	c.mem.SetCapacity(compactReserve / 2)
	if room, err := c.tiers.compact.room(); err != nil || room != 0 {
		t.Errorf("room for %d bytes, %v", room, err)
	}
	_ = c.State.Set(cleanedName(segment.Identity{}), binary.BigEndian.AppendUint32(nil, 1))
	if o, err := c.cleaned(segment.Identity{}); o != 0 || err != nil {
		t.Errorf("cleaned is %d of 4 bytes, %v", o, err)
	}
}
