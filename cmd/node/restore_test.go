package node

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/ingest/broker"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
)

// gated puts a gate before the bench's store; only names with prefix go away.
func (b *bench) gated(prefix string) *gate {
	g := &gate{Store: b.store, prefix: prefix}
	b.store = g
	return g
}

// wipe stops the broker and takes its disk away.
func (b *bench) wipe() {
	b.t.Helper()
	b.stop()
	if err := os.RemoveAll(b.dir); err != nil {
		b.t.Fatal(err)
	}
}

// keepDisk copies the data directory of a stopped broker; the function it returns puts the copy back.
func (b *bench) keepDisk() (back func()) {
	b.t.Helper()
	kept := b.dir + ".kept"
	if err := os.CopyFS(kept, os.DirFS(b.dir)); err != nil {
		b.t.Fatal(err)
	}
	return func() {
		b.t.Helper()
		if err := errors.Join(os.RemoveAll(b.dir), os.Rename(kept, b.dir)); err != nil {
			b.t.Fatal(err)
		}
	}
}

// only waits until the one partition is open.
func (b *bench) only() *partition.Partition {
	b.t.Helper()
	eventually(b.t, "the partition did not open", func() bool { return len(b.node.broker.Partitions()) == 1 })
	return b.node.broker.Partitions()[0]
}

func (b *bench) deleteTopic(name string) {
	b.t.Helper()
	cl := b.client()
	defer cl.Close()
	if _, err := kadm.NewClient(cl).DeleteTopic(deadline(b.t), name); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) deleteRecords(topic string, before int64) {
	b.t.Helper()
	cl := b.client()
	defer cl.Close()
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, 0, before, -1)
	rs, err := kadm.NewClient(cl).DeleteRecords(deadline(b.t), offsets)
	if err = errors.Join(err, rs.Error()); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) alter(topic string, changes ...kadm.AlterConfig) error {
	b.t.Helper()
	cl := b.client()
	defer cl.Close()
	rs, err := kadm.NewClient(cl).AlterTopicConfigs(deadline(b.t), changes, topic)
	if err != nil {
		b.t.Fatal(err)
	}
	return rs[0].Err
}

func set(name, value string) kadm.AlterConfig { return kadm.AlterConfig{Name: name, Value: &value} }

// produceOnce sends one record without a second try and returns the answer.
func (b *bench) produceOnce(topic string, p int32) kmsg.ProduceResponseTopicPartition {
	b.t.Helper()
	builder := record.NewBuilder(record.Attrs{})
	builder.Append(time.Now().UnixMilli(), nil, []byte("once"))
	batch, err := builder.Build()
	if err != nil {
		b.t.Fatal(err)
	}
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 10_000
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = topic, b.node.broker.Image().Topic(topic).ID
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Partition, rp.Records = p, batch
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	cl := b.client()
	defer cl.Close()
	resp, err := cl.Broker(1).Request(deadline(b.t), req)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.(*kmsg.ProduceResponse).Topics[0].Partitions[0]
}

// fetchRequest asks for the first partition's records from offset 0 on.
func fetchRequest(topic string, id record.TopicID, wait time.Duration) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.MaxWaitMillis, req.MinBytes, req.MaxBytes, req.SessionEpoch = -1, int32(wait.Milliseconds()), 1, 1<<20, -1
	rt := kmsg.NewFetchRequestTopic()
	rt.Topic, rt.TopicID = topic, id
	rp := kmsg.NewFetchRequestTopicPartition()
	rp.CurrentLeaderEpoch, rp.PartitionMaxBytes = -1, 1<<20
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

// deleted waits until the disk holds nothing of the only topic, and its objects in the store are on their way out: they
// outlive it by the deleter's grace period.
func (b *bench) deleted() {
	b.t.Helper()
	eventually(b.t, "something of the deleted topic is left", func() bool {
		dirs, err := os.ReadDir(filepath.Join(b.dir, "log"))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			b.t.Fatal(err)
		}
		logs, err := b.node.state.Logs()
		if err != nil {
			b.t.Fatal(err)
		}
		waiting, gone, _ := b.node.deleter.Scheduled()
		return len(dirs) == 0 && len(logs) == 0 && waiting >= b.objects() && waiting+int(gone) > 0
	})
}

// objects counts the objects of remote logs, without their manifests.
func (b *bench) objects() (n int) {
	b.t.Helper()
	found, err := b.store.List(context.Background(), "data/", "", 1000)
	if err != nil && !errors.Is(err, object.ErrUnavailable) {
		b.t.Fatal(err)
	}
	for _, a := range found {
		if !strings.HasSuffix(a.Name, "manifest") {
			n++
		}
	}
	return n
}

func TestTopicDeletedWhileItsReplicaLoads(t *testing.T) {
	b := newBench(t, map[string]string{"tier.seal.ms": "1000"})
	g := b.gated("data/") // the metadata answers, the data does not
	b.start()
	b.create("t", 1, nil)
	b.produce("t", 1, 0, 50)
	b.shipped()
	if b.objects() == 0 {
		t.Fatal("no objects to delete")
	}
	b.wipe()
	g.away.Store(true)
	b.start()
	b.deleteTopic("t")
	g.away.Store(false)
	b.deleted()
	if n := len(b.node.broker.Partitions()); n != 0 {
		t.Fatalf("%d replicas of a deleted topic are open", n)
	}
}

// TestFetchOutlastsAnAbsentStore: a fetch that still has time asks again; its client is told nothing.
func TestFetchOutlastsAnAbsentStore(t *testing.T) {
	b := newBench(t, map[string]string{"tier.seal.ms": "1000"})
	g := b.gated("")
	b.start()
	b.create("t", 1, nil)
	b.produce("t", 1, 0, 50)
	b.shipped()
	b.wipe()
	b.start()
	b.only()
	b.stop()
	g.away.Store(true)
	b.start() // without a manifest
	defer time.AfterFunc(time.Second, func() { g.away.Store(false) }).Stop()
	cl := b.client(kgo.ConsumeTopics("t"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.FetchMaxWait(10*time.Second))
	defer cl.Close()
	fs := cl.PollFetches(deadline(t))
	if err := fs.Err(); err != nil || fs.NumRecords() == 0 {
		t.Errorf("%d records, error %v", fs.NumRecords(), err)
	}
}

func TestTopicDeletedWhileTheBrokerWasDown(t *testing.T) {
	b := newBench(t, map[string]string{"tier.seal.ms": "1000"})
	g := b.gated("data/")
	b.start()
	b.create("t", 1, nil)
	b.produce("t", 1, 0, 50)
	b.shipped()
	b.stop()
	back := b.keepDisk()
	b.start() // the deletion is committed, and nothing of its work is done
	g.away.Store(true)
	b.deleteTopic("t")
	b.stop()
	back()
	g.away.Store(false)
	if b.objects() == 0 {
		t.Fatal("no objects to delete")
	}
	b.start()
	b.deleted()
}

func TestDeleteRecordsOfAnIdleTopicReachesTheManifest(t *testing.T) {
	b := newBench(t, map[string]string{"tier.seal.ms": "1000"})
	b.start()
	b.create("t", 1, nil)
	b.produce("t", 1, 0, 50)
	b.shipped()
	b.produce("t", 1, 50, 50)
	b.deleteRecords("t", 100) // beyond what is shipped, and nothing more comes
	p := b.only()
	eventually(t, "the manifest was not told", func() bool {
		m := p.Tier().Manifest()
		return m.LogStart() >= 50 && m.LogStart() == min(100, m.End())
	})
}

func TestLogStartStaysAfterARestoreAndARestartWithoutTheStore(t *testing.T) {
	b := newBench(t, map[string]string{"tier.seal.ms": "1000"})
	g := b.gated("")
	b.start()
	b.create("t", 1, nil)
	b.produce("t", 1, 0, 50)
	b.shipped()
	b.deleteRecords("t", 20)
	p := b.only()
	eventually(t, "the manifest was not told", func() bool { return p.Tier().Manifest().LogStart() == 20 })
	b.wipe()
	b.start()
	if got := b.only().View().LogStart; got != 20 {
		t.Fatalf("log start %d after the restore", got)
	}
	b.stop()
	g.away.Store(true)
	b.start()
	if got := b.only().View().LogStart; got != 20 {
		t.Fatalf("log start %d after a restart without the store", got)
	}
	g.away.Store(false)
}

func TestRemoteStorageTurnedOnLaterShipsEverything(t *testing.T) {
	b := newBench(t, map[string]string{"tier.seal.ms": "1000"})
	b.start()
	b.create("t", 1, map[string]string{"remote.storage.enable": "false"})
	b.produce("t", 1, 0, 50)
	if err := b.alter("t", set("remote.storage.enable", "true")); err != nil {
		t.Fatal(err)
	}
	b.produce("t", 1, 50, 50)
	eventually(t, "nothing is shipped", func() bool {
		ps := b.node.broker.Partitions()
		return len(ps) == 1 && ps[0].Tier() != nil && ps[0].Tier().RemoteEnd() == 100
	})
	b.wipe()
	b.start()
	b.check("t", 1, 0, 100)
}

func TestRemoteStorageCannotBeTurnedOff(t *testing.T) {
	b := newBench(t, map[string]string{"tier.seal.ms": "1000"})
	b.start()
	b.create("t", 1, nil)
	b.produce("t", 1, 0, 50)
	b.shipped()
	for _, changes := range [][]kadm.AlterConfig{
		{set("remote.storage.enable", "false")},
		{set("remote.storage.enable", "false"), set("remote.log.delete.on.disable", "true")},
	} {
		if err := b.alter("t", changes...); !errors.Is(err, kerr.InvalidConfig) {
			t.Errorf("%d changes: %v", len(changes), err)
		}
	}
	b.wipe()
	b.start()
	b.check("t", 1, 0, 50)
}

func TestRetentionGoesOnWhileTheStoreIsAway(t *testing.T) {
	b := newBench(t, map[string]string{"tier.seal.ms": "1000", "log.retention.check.interval.ms": "200"})
	g := b.gated("")
	b.start()
	b.create("t", 1, map[string]string{"segment.bytes": "1048576", "retention.bytes": "1048576"})
	b.produce("t", 1, 0, 10)
	b.shipped()
	g.away.Store(true)
	b.produce("t", 1, 10, 12000)
	p := b.only()
	eventually(t, "retention stopped with the uploads", func() bool { return p.View().LogStart > 4000 && p.LocalStart() > 4000 })
	b.check("t", 1, int(p.View().LogStart), 12010)
	g.away.Store(false)
}

// A fetch of history that cannot be read yet takes its own time before it says so: clients ask again at once.
func TestHistoryBeforeTheManifestIsLoadedIsWaitedFor(t *testing.T) {
	b := newBench(t, map[string]string{"tier.seal.ms": "1000"})
	g := b.gated("data/")
	b.start()
	b.create("t", 1, map[string]string{"segment.bytes": "1048576", "local.retention.bytes": "1"})
	b.produce("t", 1, 0, 4000)
	b.shipped()
	p := b.only()
	eventually(t, "local segments were not dropped", func() bool { return p.LocalStart() > 0 })
	b.stop()
	g.away.Store(true)
	b.start()
	b.only()
	const wait = 500 * time.Millisecond
	cl := b.client()
	id := b.node.broker.Image().Topic("t").ID
	if _, err := cl.Broker(1).Request(deadline(t), kmsg.NewPtrApiVersionsRequest()); err != nil { // the connection is there
		t.Fatal(err)
	}
	eventually(t, "the client is not told that the store is away", func() bool { // not before the store has been given up
		began := time.Now()
		resp, err := cl.Broker(1).Request(deadline(t), fetchRequest("t", id, wait))
		if err != nil {
			t.Fatal(err)
		}
		took, code := time.Since(began), resp.(*kmsg.FetchResponse).Topics[0].Partitions[0].ErrorCode
		if code != 0 && code != kerr.UnknownServerError.Code || took < wait {
			t.Fatalf("error code %d after %v, asked to wait %v", code, took, wait)
		}
		return code != 0
	})
	g.away.Store(false)
	p = b.only()
	eventually(t, "the manifest was not loaded", func() bool { return p.Tier().Manifest() != nil })
	b.check("t", 1, 0, 4000)
}

// A disk that has lost records which are in the object store would write others at their offsets.
func TestADiskThatWentBackInTimeTakesNoAppends(t *testing.T) {
	b := newBench(t, map[string]string{"tier.seal.ms": "1000"})
	b.start()
	b.create("t", 1, map[string]string{"local.retention.ms": "1", "retention.ms": "-1"})
	b.produce("t", 1, 0, 50)
	b.stop()
	back := b.keepDisk()
	b.start()
	b.produce("t", 1, 50, 10)
	b.shipped()
	b.stop()
	back()
	b.start()
	p := b.only()
	eventually(t, "the remote log was not compared", func() bool { return p.Tier().Err() != nil })
	if got := b.produceOnce("t", 0); got.ErrorCode != kerr.KafkaStorageError.Code {
		t.Fatalf("append was answered with error code %d, offset %d", got.ErrorCode, got.BaseOffset)
	}
	log := p.LocalLog()
	if log.RemoteEnd != -1 || p.LocalStart() != 0 || p.End() != 50 {
		t.Fatalf("local log [%d, %d), to be trimmed up to %d", p.LocalStart(), p.End(), log.RemoteEnd)
	}
	b.check("t", 1, 0, 50)
}

func TestConnectionsEndWithClientsThatLeaveALongPoll(t *testing.T) {
	b := newBench(t, nil)
	b.start()
	b.create("t", 1, nil)
	connections := func(n int) func() bool { return func() bool { return b.node.server.Connections() == n } }
	eventually(t, "connections of earlier clients are left", connections(0))
	req := fetchRequest("t", b.node.broker.Image().Topic("t").ID, 1<<31*time.Millisecond-time.Millisecond)
	req.Version = 12
	var clients []net.Conn
	for range 5 {
		nc, err := net.Dial("tcp", b.node.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		if _, err := nc.Write(kmsg.NewRequestFormatter(kmsg.FormatterClientID("leaver")).AppendRequest(nil, req, 1)); err != nil {
			t.Fatal(err)
		}
		clients = append(clients, nc)
	}
	eventually(t, "not all clients are connected", connections(len(clients)))
	for _, nc := range clients {
		if err := nc.Close(); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "connections are held for clients that left", connections(0))
}

func TestCreatePartitionsAnswersWhenTheyTakeWrites(t *testing.T) {
	b := newBench(t, nil)
	g := b.gated("data/") // partitions that are new have no past to look for
	b.start()
	b.create("t", 1, nil)
	b.produce("t", 1, 0, 10)
	g.away.Store(true)
	cl := b.client()
	rs, err := kadm.NewClient(cl).UpdatePartitions(deadline(t), 4, "t")
	if err = errors.Join(err, rs.Error()); err != nil {
		t.Fatal(err)
	}
	for p := range int32(4) {
		if got := b.produceOnce("t", p); got.ErrorCode != 0 {
			t.Errorf("partition %d: error code %d", p, got.ErrorCode)
		}
	}
	g.away.Store(false)
}

// Retention of a topic that ships nothing works on the local log alone.
func TestRetentionWithoutARemoteLog(t *testing.T) {
	b := newBench(t, map[string]string{"log.retention.check.interval.ms": "200"})
	b.start()
	b.create("t", 1, map[string]string{"remote.storage.enable": "false", "retention.ms": "1", "segment.bytes": "1048576"})
	b.produce("t", 1, 0, 4000)
	p := b.only()
	eventually(t, "nothing expires", func() bool { return p.View().LogStart > 0 && p.LocalStart() == p.View().LogStart })
	b.produce("t", 1, 4000, 10)
	b.check("t", 1, int(p.View().LogStart), 4010)
}

// A process that was cut off from the store comes back when another one, on another disk, has taken its place: two would lead in
// one epoch. It stops.
func TestReplacedProcessStops(t *testing.T) {
	store, sets := object.NewMemory(), map[string]string{"tier.seal.ms": "1000"}
	a := &bench{t: t, dir: filepath.Join(t.TempDir(), "a"), store: store, sets: sets}
	b := &bench{t: t, dir: filepath.Join(t.TempDir(), "b"), store: store, sets: sets}
	g := a.gated("")
	a.start()
	a.create("t", 1, nil)
	a.produce("t", 1, 0, 50)
	a.shipped()
	g.away.Store(true)
	b.start()
	defer b.stop()
	p := b.only()
	eventually(t, "the other process does not lead", func() bool { return p.LeaderEpoch() >= 0 && p.End() == 50 })
	ended := a.ended()
	g.away.Store(false)
	a.stopsWith(ended, broker.ErrReplaced)
	b.produce("t", 1, 50, 10)
	b.check("t", 1, 0, 60)
}
