package node

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/ingest/coordinators"
	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/vfs"
)

// producerID is an InitProducerId for a transactional id.
func (b *bench) producerID(id string) *kmsg.InitProducerIDResponse {
	req := kmsg.NewPtrInitProducerIDRequest()
	req.TransactionalID, req.TransactionTimeoutMillis, req.ProducerID, req.ProducerEpoch = &id, 60000, -1, -1
	return b.ask(4, req).(*kmsg.InitProducerIDResponse)
}

// newProducerID makes the coordinator's topic, and gets a producer id of it.
func (b *bench) newProducerID(id string) *kmsg.InitProducerIDResponse {
	b.t.Helper()
	cl := b.client(kgo.TransactionalID(id))
	defer cl.Close()
	if _, _, err := cl.ProducerID(deadline(b.t)); err != nil {
		b.t.Fatal(err)
	}
	who := b.producerID(id)
	if who.ErrorCode != 0 {
		b.t.Fatal(kerr.ErrorForCode(who.ErrorCode))
	}
	return who
}

// stableAndEnd are the last stable offset and the end of a topic's first partition.
func (b *bench) stableAndEnd(topic string) (stable, end int64) {
	b.t.Helper()
	cl := b.client()
	defer cl.Close()
	admin := kadm.NewClient(cl)
	stables, err := admin.ListCommittedOffsets(deadline(b.t), topic)
	if err != nil {
		b.t.Fatal(err)
	}
	ends, err := admin.ListEndOffsets(deadline(b.t), topic)
	if err != nil {
		b.t.Fatal(err)
	}
	return stables[topic][0].Offset, ends[topic][0].Offset
}

// partitionOf is an open partition.
func (b *bench) partitionOf(topic string, index int32) *partition.Partition {
	b.t.Helper()
	for _, p := range b.node.broker.Partitions() {
		if p.Topic() == topic && p.Identity().Partition == index {
			return p
		}
	}
	b.t.Fatalf("%s-%d is not open", topic, index)
	return nil
}

// A marker carries the epoch in which its coordinator leads, or a coordinator of before could not be fenced.
func TestMarkersCarryTheEpochOfTheirCoordinator(t *testing.T) {
	b := newBench(t, quickGroups())
	b.start()
	b.create("in", 1, nil)
	for range 2 {
		cl := b.client(kgo.TransactionalID("t"))
		b.transact(cl, "in", "one", true)
		cl.Close()
		want := int32(b.partitionOf(coordinators.TxnTopic, coordinators.PartitionFor("t", 2)).LeaderEpoch())
		p := b.partitionOf("in", 0)
		eventually(t, "the marker has another epoch", func() bool {
			all := p.Producers()
			return want >= 0 && len(all) == 1 && all[0].CoordinatorEpoch == want
		})
		b.stop()
		b.start()
	}
}

// imageBefore waits until the metadata that names a topic is saved on disk, and returns it.
func (b *bench) imageBefore(topic string) (saved []byte) {
	b.t.Helper()
	eventually(b.t, "the metadata is not saved", func() bool {
		image, err := b.node.state.Get(imageName)
		saved = bytes.Clone(image)
		return err == nil && bytes.Contains(saved, []byte(topic))
	})
	return saved
}

// putBack makes an image the saved one, as kill -9 within a second of the next change would leave it.
func (b *bench) putBack(image []byte) {
	b.t.Helper()
	st, err := localstate.Open(b.dir+"/state", localstate.Options{})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := st.Set(imageName, image); err != nil {
		b.t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		b.t.Fatal(err)
	}
}

// A broker that starts without the store may not know a topic that was made last. The markers of transactions there wait.
func TestMarkersWaitForTopicsThatOldMetadataLacks(t *testing.T) {
	b := newBench(t, quickGroups())
	g := b.gated("")
	b.start()
	b.create("early", 1, nil)
	cl := b.client(kgo.TransactionalID("t"), kgo.TransactionTimeout(4*time.Second))
	b.transact(cl, "early", "one", true)
	before := b.imageBefore("early")
	b.create("late", 1, nil)
	b.begin(cl, "late", "open")
	b.stop()
	cl.Close()
	b.putBack(before)
	g.away.Store(true)
	b.start()
	eventually(t, "the transaction is not aborted", func() bool { return strings.HasSuffix(b.producerOf("t"), "Abort") })
	g.away.Store(false)
	eventually(t, "the transaction hangs", func() bool {
		if b.node.broker.Image().Topic("late") == nil {
			return false
		}
		stable, end := b.stableAndEnd("late")
		return end == 2 && stable == end
	})
	b.stop()
}

// slowFS opens no logs while held is locked.
type slowFS struct {
	vfs.FS
	held sync.RWMutex
}

func (f *slowFS) wait(name string) {
	if strings.Contains(name, "/log/") {
		f.held.RLock()
		defer f.held.RUnlock()
	}
}

func (f *slowFS) MkdirAll(name string) error {
	f.wait(name)
	return f.FS.MkdirAll(name)
}

func (f *slowFS) List(name string) ([]string, error) {
	f.wait(name)
	return f.FS.List(name)
}

// Offsets of a topic that old metadata lacks stay, also if their coordinator loads between the arrival of the newest metadata
// and its application.
func TestOffsetsSurviveTheStoresReturn(t *testing.T) {
	b := newBench(t, quickGroups())
	g := b.gated("")
	b.start()
	b.create("early", 1, nil)
	b.commitOffset("g", "early", 1)
	before := b.imageBefore("early")
	b.create("late", 1, nil)
	b.commitOffset("g", "late", 5)
	b.stop()
	b.putBack(before)
	g.away.Store(true)
	fs := &slowFS{FS: vfs.OS()}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	n, err := Start(ctx, Options{
		NodeID: 1, DataDir: b.dir, Listen: "127.0.0.1:0", HTTP: "127.0.0.1:0", ObjectStore: b.store, Settings: b.sets, FS: fs,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError})),
	})
	if err != nil {
		t.Fatal(err)
	}
	b.node = n
	t.Cleanup(b.stop)
	b.committedOffset("g", "early") // loaded
	fs.held.Lock()
	g.away.Store(false)
	eventually(t, "the metadata is still old", func() bool { return !n.meta.Stale() })
	full := b.partitionOf(coordinators.OffsetsTopic, coordinators.PartitionFor("g", 2)).Settings()
	for _, p := range n.broker.Partitions() { // an append that fails: the coordinator loads again
		if p.Topic() == coordinators.OffsetsTopic {
			small := *full
			small.SegmentBytes = 16
			p.SetSettings(&small)
		}
	}
	if code := b.tryCommit("g", "early", 2); code != kerr.NotCoordinator.Code {
		t.Errorf("a commit that cannot be written is answered with %v, want %v", kerr.ErrorForCode(code), kerr.NotCoordinator)
	}
	for _, p := range n.broker.Partitions() {
		if p.Topic() == coordinators.OffsetsTopic {
			p.SetSettings(full)
		}
	}
	eventually(t, "the coordinator does not load", func() bool { return b.tryCommit("g", "early", 3) == 0 })
	fs.held.Unlock()
	eventually(t, "the topic does not come back", func() bool { return n.broker.Image().Topic("late") != nil })
	if got := b.committedOffset("g", "late"); got != 5 {
		t.Fatalf("committed offset %d, want 5", got)
	}
}

// tryCommit is the code that a commit of an offset is answered with.
func (b *bench) tryCommit(group, topic string, o int64) int16 {
	b.t.Helper()
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Group, req.Generation = group, -1
	rt := kmsg.NewOffsetCommitRequestTopic()
	rt.Topic = topic
	rp := kmsg.NewOffsetCommitRequestTopicPartition()
	rp.Offset = o
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return b.ask(8, req).(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode
}

// Producers before Java 4 take REQUEST_TIMED_OUT as the end (KAFKA-14417).
func TestProducerIDsWhileTheStoreIsAway(t *testing.T) {
	b := newBench(t, quickGroups())
	g := b.gated("")
	b.start()
	defer b.stop()
	g.away.Store(true) // before the first block of ids is allocated
	defer g.away.Store(false)
	req := kmsg.NewPtrInitProducerIDRequest()
	req.ProducerID, req.ProducerEpoch = -1, -1
	if code := b.ask(4, req).(*kmsg.InitProducerIDResponse).ErrorCode; code != kerr.CoordinatorLoadInProgress.Code {
		t.Fatalf("%v, want %v", kerr.ErrorForCode(code), kerr.CoordinatorLoadInProgress)
	}
}

// Versions of before KIP-890 do not know TRANSACTION_ABORTABLE.
func TestOffsetsOutsideOfATransaction(t *testing.T) {
	b := newBench(t, quickGroups())
	b.start()
	defer b.stop()
	b.create("in", 1, nil)
	b.commitOffset("g", "in", 1)
	who := b.newProducerID("t")
	for version, want := range []*kerr.Error{kerr.InvalidTxnState, kerr.InvalidTxnState, kerr.InvalidTxnState, kerr.InvalidTxnState, kerr.TransactionAbortable} {
		if code := b.commitInTxn(int16(version), who.ProducerID, who.ProducerEpoch); code != want.Code {
			t.Errorf("v%d: %v, want %v", version, kerr.ErrorForCode(code), want)
		}
	}
}

// commitInTxn is the code that a commit of offset 5 in a transaction of t is answered with.
func (b *bench) commitInTxn(version int16, id int64, epoch int16) int16 {
	b.t.Helper()
	req := kmsg.NewPtrTxnOffsetCommitRequest()
	req.TransactionalID, req.Group, req.ProducerID, req.ProducerEpoch, req.Generation = "t", "g", id, epoch, -1
	rt := kmsg.NewTxnOffsetCommitRequestTopic()
	rt.Topic = "in"
	rp := kmsg.NewTxnOffsetCommitRequestTopicPartition()
	rp.Offset = 5
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return b.ask(version, req).(*kmsg.TxnOffsetCommitResponse).Topics[0].Partitions[0].ErrorCode
}

func TestBrokersAddNoUnknownPartitions(t *testing.T) {
	b := newBench(t, quickGroups())
	b.start()
	defer b.stop()
	b.create("in", 1, nil)
	who := b.newProducerID("t")
	for version := int16(4); version <= 5; version++ {
		req := kmsg.NewPtrAddPartitionsToTxnRequest()
		rt := kmsg.NewAddPartitionsToTxnRequestTransaction()
		rt.TransactionalID, rt.ProducerID, rt.ProducerEpoch = "t", who.ProducerID, who.ProducerEpoch
		topic := kmsg.NewAddPartitionsToTxnRequestTransactionTopic()
		topic.Topic, topic.Partitions = "in", []int32{0, 1, -7}
		rt.Topics = append(rt.Topics, topic)
		req.Transactions = append(req.Transactions, rt)
		for i, want := range []*kerr.Error{kerr.OperationNotAttempted, kerr.UnknownTopicOrPartition, kerr.UnknownTopicOrPartition} {
			code := b.ask(version, req).(*kmsg.AddPartitionsToTxnResponse).Transactions[0].Topics[0].Partitions[i].ErrorCode
			if code != want.Code {
				t.Errorf("v%d, partition %d: %v, want %v", version, topic.Partitions[i], kerr.ErrorForCode(code), want)
			}
		}
	}
	if got := b.producerOf("t"); !strings.HasSuffix(got, "Empty") {
		t.Errorf("the transaction is %s", got)
	}
}

// A reader of committed records that goes to the end must not be sent below the start.
func TestLastStableOffsetIsNotBelowTheLogStart(t *testing.T) {
	b := newBench(t, quickGroups())
	b.start()
	defer b.stop()
	b.create("in", 1, nil)
	cl := b.client(kgo.TransactionalID("t"))
	defer cl.Close()
	b.begin(cl, "in", "open")
	for range 2 {
		if err := cl.ProduceSync(deadline(t), &kgo.Record{Topic: "in", Value: []byte("open")}).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
	b.deleteRecords("in", 2)
	if stable, _ := b.stableAndEnd("in"); stable != 2 {
		t.Errorf("last stable offset %d, the log starts at 2", stable)
	}
}

// A marker of version 2 in the epoch of the open transaction is late: the transaction after its own has begun.
func TestLateMarkerDoesNotEndOffsets(t *testing.T) {
	b := newBench(t, quickGroups())
	b.start()
	defer b.stop()
	b.create("in", 1, nil)
	b.commitOffset("g", "in", 1)
	at := coordinators.PartitionFor("g", 2)
	w := record.NewBuilder(record.Attrs{Transactional: true, Idempotent: true, ProducerID: 9, ProducerEpoch: 3, BaseSequence: -1})
	w.Append(1, []byte{0, 9, 0, 0}, nil)
	batch, err := w.Build()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := b.partitionOf(coordinators.OffsetsTopic, at).Append(batch, partition.AppendOptions{NowMs: time.Now().UnixMilli(), Origin: partition.FromCoordinator}); err != nil {
		t.Fatal(err)
	}
	for _, m := range []struct {
		epoch record.ProducerEpoch
		taken bool
	}{{3, false}, {4, true}} {
		wait, err := b.node.coordinators.WriteMarker(coordinators.OffsetsTopic, at, coordinators.Marker{ProducerID: 9, ProducerEpoch: m.epoch, V2: true})
		if err == nil {
			err = wait(deadline(t))
		}
		if taken := err == nil; taken != m.taken {
			t.Errorf("a marker of epoch %d: %v", m.epoch, err)
		}
	}
}
