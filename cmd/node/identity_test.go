package node

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/ingest/broker"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
)

// ended is closed when the bench's node has stopped by itself, with the reason.
func (b *bench) ended() <-chan error {
	c, n := make(chan error, 1), b.node
	go func() { c <- n.Wait() }()
	return c
}

// stopsWith waits until the node has stopped for one of these reasons.
func (b *bench) stopsWith(ended <-chan error, want ...error) {
	b.t.Helper()
	select {
	case err := <-ended:
		if !slices.ContainsFunc(want, func(w error) bool { return errors.Is(err, w) }) {
			b.t.Errorf("it ended with %v, want %v", err, want)
		}
		b.node = nil
	case <-time.After(30 * time.Second):
		b.t.Errorf("it goes on, want %v", want)
	}
}

// tell writes records to this broker, whatever the metadata say of leaders.
func (b *bench) tell(topic string, n int) {
	b.t.Helper()
	cl, err := kgo.NewClient(kgo.SeedBrokers(b.node.Addr().String()))
	if err != nil {
		b.t.Fatal(err)
	}
	defer cl.Close()
	for range n {
		req := b.produceRequest(topic, batchOf(b.t, record.Attrs{}, []byte("here alone")), -1, 10_000)
		resp, err := cl.SeedBrokers()[0].Request(deadline(b.t), req)
		if err != nil {
			b.t.Fatal(err)
		}
		if code := resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0].ErrorCode; code != 0 {
			b.t.Fatalf("code %d", code)
		}
	}
}

// goBack leaves a stopped broker with the disk of when a topic had 50 records, though 100 are shipped.
func (b *bench) goBack(topic string) {
	b.t.Helper()
	b.produce(topic, 1, 0, 50)
	b.shipped()
	b.stop()
	back := b.keepDisk()
	b.start()
	b.produce(topic, 1, 50, 50)
	b.shipped()
	b.stop()
	back()
}

func quickTier() map[string]string { return map[string]string{"tier.seal.ms": "1000"} }

// An epoch that a broker gave itself may be given to another disk until it is registered: nothing is shipped in it.
func TestEpochOfItsOwnIsNotShippedBeforeItIsRegistered(t *testing.T) {
	a := newBench(t, quickTier())
	memory := a.store
	g := a.gated("")
	a.start()
	a.create("t", 1, nil)
	a.produce("t", 1, 0, 50)
	a.shipped()
	a.stop()
	g.close("")
	a.start()
	p := a.only()
	a.tell("t", 30) // on this disk alone
	ended := a.ended()

	b := newBench(t, quickTier())
	b.store = memory
	b.start()
	b.produce("t", 1, 50, 10)
	b.shipped()

	g.close("meta/", "lease/", "cluster.json") // data comes back first
	for limit := time.Now().Add(5 * time.Second); time.Now().Before(limit); time.Sleep(20 * time.Millisecond) {
		if got := p.Tier().RemoteEnd(); got > 60 {
			t.Fatalf("records up to %d are shipped by a disk that was replaced", got)
		}
	}
	g.close()
	a.stopsWith(ended, controller.ErrWrongDisk, broker.ErrReplaced) // whichever it hears of first
	b.check("t", 1, 50, 60)
}

// Two processes on copies of one data directory do not lead both.
func TestClonedDisk(t *testing.T) {
	a := newBench(t, quickTier())
	a.start()
	a.create("t", 1, nil)
	a.produce("t", 1, 0, 50)
	a.shipped()
	a.stop()
	b := newBench(t, quickTier())
	b.store = a.store
	if err := os.CopyFS(b.dir, os.DirFS(a.dir)); err != nil {
		t.Fatal(err)
	}
	a.start()
	ended := a.ended()
	b.start()
	a.stopsWith(ended, broker.ErrReplaced)
	b.produce("t", 1, 50, 10)
	b.check("t", 1, 0, 60)
}

// A copy of the disk that is put back and led without the store has used epochs that were used before: two histories must not
// be joined.
func TestRestoredDiskDoesNotJoinHistories(t *testing.T) {
	b := newBench(t, quickTier())
	g := b.gated("")
	b.start()
	b.create("t", 1, nil)
	b.goBack("t")
	g.close("")
	b.start()
	b.tell("t", 60) // at offsets that the bucket has others at
	p, ended := b.only(), b.ended()
	g.close()
	b.stopsWith(ended, controller.ErrWrongDisk)
	if got := p.Tier().RemoteEnd(); got > 100 {
		t.Errorf("records up to %d of another history are in the bucket", got)
	}
}

// The disk knows its cluster, also if the image it keeps cannot be read: another bucket does not decide what is left over.
func TestUnreadableImageAndAnotherBucketLoseNothing(t *testing.T) {
	b := newBench(t, nil)
	b.start()
	b.create("t", 1, nil)
	b.produce("t", 1, 0, 50) // not shipped
	b.stop()
	b.putBack([]byte("{\"everlog\":\"metadata-snapshot\",\"format\":2}\n"))
	right := b.store
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if n, err := Start(ctx, Options{NodeID: 1, DataDir: b.dir, Listen: "127.0.0.1:0", ObjectStore: object.NewMemory()}); err == nil {
		_ = n.Stop(ctx)
		t.Error("it starts on another bucket")
	}
	if logs, err := os.ReadDir(filepath.Join(b.dir, "log")); err != nil || len(logs) != 1 {
		t.Errorf("%d logs are left, %v", len(logs), err)
	}
	b.store = right
	b.start()
	b.check("t", 1, 0, 50)
}

// A disk from before a topic, put back, does not take the topic for a new one.
func TestTopicYoungerThanTheDiskIsRestored(t *testing.T) {
	b := newBench(t, quickTier())
	g := b.gated("")
	b.start()
	b.create("old", 1, nil)
	b.imageBefore("old")
	b.stop()
	back := b.keepDisk()
	b.start()
	b.create("t", 1, nil)
	b.produce("t", 1, 0, 50)
	b.shipped()
	b.stop()
	back()
	g.close("data/")
	b.start()
	eventually(t, "the topic does not come", func() bool { return b.node.broker.Image().Topic("t") != nil })
	for _, p := range b.node.broker.Partitions() {
		if p.Topic() == "t" {
			t.Errorf("it is open before it is restored: [%d, %d)", p.LocalStart(), p.End())
		}
	}
	g.close()
	b.check("t", 1, 0, 50)
}

// Blocks of producer ids on a disk that is put back were given away since.
func TestProducerIDsOfARestoredDisk(t *testing.T) {
	b := newBench(t, nil)
	b.start()
	id := func() record.ProducerID {
		t.Helper()
		id, err := b.node.broker.NewProducerID(deadline(t))
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	id()
	b.stop()
	back := b.keepDisk()
	b.start()
	first := id()
	b.stop()
	back()
	b.start()
	if again := id(); again == first {
		t.Errorf("producer id %d was given twice", again)
	}
}

// One setting that is not understood, a later version's, leaves the others in force.
func TestUnknownBrokerSettingLeavesTheOthers(t *testing.T) {
	b := newBench(t, nil)
	b.start()
	b.create("t", 1, nil)
	change := metadata.BrokerConfigured{Configs: map[string]string{"log.retention.ms": "-1", "setting.of.a.later.version": "1"}}
	if _, err := b.node.meta.Commit(deadline(t), b.node.meta.Image(), change); err != nil {
		t.Fatal(err)
	}
	eventually(t, "retention is not unlimited", func() bool { return b.only().Settings().Retention < 0 })
}

// An old disk that took records before it could be compared keeps them: they were acknowledged by it alone.
func TestOldDiskKeepsWhatItAcknowledged(t *testing.T) {
	b := newBench(t, quickTier())
	g := b.gated("")
	b.start()
	b.create("t", 1, map[string]string{"local.retention.ms": "1", "retention.ms": "-1"})
	b.goBack("t")
	g.close("data/")
	b.start()
	p := b.only()
	b.tell("t", 30)
	eventually(t, "it is not sealed", func() bool { s := p.LocalSegments(); return len(s) >= 2 && s[len(s)-1].Base >= 80 })
	b.tell("t", 30)
	g.close()
	eventually(t, "the two logs are not compared", func() bool {
		return p.Tier().Manifest() != nil && p.Tier().Err() != nil
	})
	if p.Tier().RemoteEnd() >= 0 || p.LocalStart() > 50 {
		t.Errorf("the remote log ends at %d, the local one starts at %d: records from 50 on are here alone", p.Tier().RemoteEnd(), p.LocalStart())
	}
}

// A limit of connections that is set for the cluster holds for those that come.
func TestMaxConnectionsCanBeChanged(t *testing.T) {
	b := newBench(t, nil)
	b.start()
	change := metadata.BrokerConfigured{Configs: map[string]string{"max.connections": "2"}}
	if _, err := b.node.meta.Commit(deadline(t), b.node.meta.Image(), change); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it does not take effect", func() bool { return b.node.broker.Config().MaxConnections == 2 })
	refused := 0
	for range 5 {
		w := b.wire()
		w.send(3, kmsg.NewPtrApiVersionsRequest())
		if err := w.net.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := w.net.Read(make([]byte, 1)); err != nil {
			refused++
		}
	}
	if refused != 3 {
		t.Errorf("%d of 5 connections are refused, want 3", refused)
	}
}
