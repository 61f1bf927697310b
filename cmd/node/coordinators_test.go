package node

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/everlog/everlog/tier/record"
)

// quickGroups are settings for tests of coordinators: few partitions, and everything soon in the store.
func quickGroups() map[string]string {
	return map[string]string{"offsets.topic.num.partitions": "2", "transaction.state.log.num.partitions": "2", "tier.seal.ms": "1000", "group.initial.rebalance.delay.ms": "0"}
}

// begin begins a transaction with one record.
func (b *bench) begin(cl *kgo.Client, topic, value string) {
	b.t.Helper()
	if err := cl.BeginTransaction(); err != nil {
		b.t.Fatal(err)
	}
	if err := cl.ProduceSync(deadline(b.t), &kgo.Record{Topic: topic, Value: []byte(value)}).FirstErr(); err != nil {
		b.t.Fatal(err)
	}
}

// transact writes one record in a transaction of its own.
func (b *bench) transact(cl *kgo.Client, topic, value string, commit bool) {
	b.t.Helper()
	b.begin(cl, topic, value)
	if err := cl.EndTransaction(deadline(b.t), kgo.TransactionEndTry(commit)); err != nil {
		b.t.Fatal(err)
	}
}

// committed reads a topic's records as read_committed until it has n.
func (b *bench) committed(topic string, n int) []string {
	b.t.Helper()
	cl := b.client(kgo.ConsumeTopics(topic), kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()))
	defer cl.Close()
	var values []string
	for ctx := deadline(b.t); len(values) < n; {
		fs := cl.PollFetches(ctx)
		if err := fs.Err0(); err != nil {
			b.t.Fatalf("read %q: %v", values, err)
		}
		fs.EachRecord(func(r *kgo.Record) { values = append(values, string(r.Value)) })
	}
	return values
}

// commitOffset commits an offset for a group without members.
func (b *bench) commitOffset(group, topic string, o int64) {
	b.t.Helper()
	cl := b.client()
	defer cl.Close()
	offsets := kadm.Offsets{}
	offsets.AddOffset(topic, 0, o, -1)
	if err := kadm.NewClient(cl).CommitAllOffsets(deadline(b.t), group, offsets); err != nil {
		b.t.Fatal(err)
	}
}

func (b *bench) committedOffset(group, topic string) int64 {
	b.t.Helper()
	cl := b.client()
	defer cl.Close()
	found, err := kadm.NewClient(cl).FetchOffsets(deadline(b.t), group)
	if err != nil {
		b.t.Fatal(err)
	}
	o, ok := found.Lookup(topic, 0)
	if !ok {
		return -1
	}
	return o.At
}

// producerOf is a transactional id's producer id and epoch, and the state of its transaction.
func (b *bench) producerOf(id string) string {
	b.t.Helper()
	cl := b.client()
	defer cl.Close()
	found, err := kadm.NewClient(cl).DescribeTransactions(deadline(b.t), id)
	if err != nil {
		b.t.Fatal(err)
	}
	return fmt.Sprint(found[id].ProducerID, " ", found[id].ProducerEpoch, " ", found[id].State)
}

// TestGroupsAndTransactionsComeBackFromTheBucket: what coordinators know is records, and these are in the bucket.
func TestGroupsAndTransactionsComeBackFromTheBucket(t *testing.T) {
	b := newBench(t, quickGroups())
	b.start()
	b.create("in", 1, nil)
	cl := b.client(kgo.TransactionalID("t"), kgo.DefaultProduceTopic("in"))
	b.transact(cl, "in", "one", true)
	b.transact(cl, "in", "lost", false)
	b.transact(cl, "in", "two", true)
	cl.Close()
	b.commitOffset("g", "in", 1)
	b.commitOffset("g", "in", 2)
	b.commitOffset("h", "in", 7)
	before := b.producerOf("t")
	b.shipped()
	b.wipe()
	b.start()
	defer b.stop()
	if got := b.committedOffset("g", "in"); got != 2 {
		t.Errorf("committed offset of g is %d, want 2", got)
	}
	if got := b.committedOffset("h", "in"); got != 7 {
		t.Errorf("committed offset of h is %d, want 7", got)
	}
	if got := b.producerOf("t"); got != before {
		t.Errorf("transactional id is %q, want %q", got, before)
	}
	if got := b.committed("in", 2); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("read %q", got)
	}
	cl = b.client(kgo.TransactionalID("t"))
	defer cl.Close()
	b.transact(cl, "in", "three", true)
	if got := b.committed("in", 3); !slices.Equal(got, []string{"one", "two", "three"}) {
		t.Errorf("read %q", got)
	}
}

// TestOpenTransactionIsAbortedAfterACrash: a transaction that was open when the broker stopped is there again, times out,
// and is aborted; until then it holds back what read_committed sees.
func TestOpenTransactionIsAbortedAfterACrash(t *testing.T) {
	b := newBench(t, quickGroups())
	b.start()
	b.create("in", 1, nil)
	cl := b.client(kgo.TransactionalID("t"), kgo.TransactionTimeout(3*time.Second))
	b.begin(cl, "in", "open")
	b.stop()
	cl.Close()
	b.start()
	defer b.stop()
	plain := b.client()
	defer plain.Close()
	if err := plain.ProduceSync(deadline(t), &kgo.Record{Topic: "in", Value: []byte("after")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if got := b.committed("in", 1); !slices.Equal(got, []string{"after"}) {
		t.Errorf("read %q", got)
	}
}

// TestLateBatchOfAFinishedTransactionIsRefused: it would begin a transaction that nobody ends (KIP-890).
func TestLateBatchOfAFinishedTransactionIsRefused(t *testing.T) {
	b := newBench(t, quickGroups())
	b.start()
	defer b.stop()
	b.create("in", 1, nil)
	cl := b.client(kgo.TransactionalID("t"))
	defer cl.Close()
	b.transact(cl, "in", "one", true)
	id, epoch, err := cl.ProducerID(deadline(t))
	if err != nil {
		t.Fatal(err)
	}
	for version := int16(3); version <= 11; version++ { // what clients of transaction version 1 send
		w := record.NewBuilder(record.Attrs{Transactional: true, Idempotent: true, ProducerID: record.ProducerID(id), ProducerEpoch: record.ProducerEpoch(epoch), BaseSequence: 1})
		w.Append(time.Now().UnixMilli(), nil, []byte("late"))
		batch, err := w.Build()
		if err != nil {
			t.Fatal(err)
		}
		req := kmsg.NewPtrProduceRequest()
		txn := "t"
		req.TransactionID, req.Acks, req.TimeoutMillis = &txn, -1, 5000
		rt := kmsg.NewProduceRequestTopic()
		rt.Topic = "in"
		rp := kmsg.NewProduceRequestTopicPartition()
		rp.Records = batch
		rt.Partitions = append(rt.Partitions, rp)
		req.Topics = append(req.Topics, rt)
		resp := b.ask(version, req).(*kmsg.ProduceResponse)
		if code := resp.Topics[0].Partitions[0].ErrorCode; code == 0 {
			t.Fatalf("v%d: a late batch was taken", version)
		}
	}
	if p := b.node.broker.Partitions(); len(p) == 0 {
		t.Fatal("no partitions")
	}
	b.transact(cl, "in", "two", true)
	if got := b.committed("in", 2); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("read %q", got)
	}
}

// TestOffsetsOfAFencedProducerAreRefused: without verification too, and the group's coordinator goes on at once.
func TestOffsetsOfAFencedProducerAreRefused(t *testing.T) {
	set := quickGroups()
	set["transaction.partition.verification.enable"] = "false"
	b := newBench(t, set)
	b.start()
	defer b.stop()
	b.create("in", 1, nil)
	b.commitOffset("g", "in", 1)
	cl := b.client(kgo.TransactionalID("t"))
	defer cl.Close()
	b.transact(cl, "in", "makes the coordinator", true)
	const id = 4711
	if code := b.commitInTxn(4, id, 1); code != 0 {
		t.Fatalf("offsets are refused with %v", kerr.ErrorForCode(code))
	}
	for range 3 {
		if code := b.commitInTxn(4, id, 0); code != kerr.InvalidProducerEpoch.Code {
			t.Errorf("offsets of an epoch before: %v, want %v", kerr.ErrorForCode(code), kerr.InvalidProducerEpoch)
		}
	}
	if code := b.commitInTxn(4, id, 1); code != 0 {
		t.Errorf("then offsets are refused with %v", kerr.ErrorForCode(code))
	}
}

// ask sends a request in one version.
func (b *bench) ask(version int16, req kmsg.Request) kmsg.Response {
	b.t.Helper()
	cl := b.client(kgo.MaxVersions(pinned(req.Key(), version)))
	defer cl.Close()
	resp, err := cl.Broker(1).Request(deadline(b.t), req)
	if err != nil {
		b.t.Fatalf("%s v%d: %v", kmsg.NameForKey(req.Key()), version, err)
	}
	return resp
}

// pinned are versions with one key at most at version.
func pinned(key, version int16) *kversion.Versions {
	v := kversion.Stable()
	v.SetMaxKeyVersion(key, version)
	return v
}

// TestGroupsHaveSettingsOfTheirOwn: a changed setting of a group is in its next answer, another group's is the broker's.
func TestGroupsHaveSettingsOfTheirOwn(t *testing.T) {
	b := newBench(t, quickGroups())
	b.start()
	defer b.stop()
	b.create("in", 1, nil)
	interval := func(group string) int32 {
		cl := b.client()
		defer cl.Close()
		req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
		req.Group, req.MemberID, req.RebalanceTimeoutMillis, req.SubscribedTopicNames = group, "m", 60_000, []string{"in"}
		req.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
		var resp *kmsg.ConsumerGroupHeartbeatResponse
		eventually(t, "the coordinator loads", func() (loaded bool) {
			var err error
			if resp, err = req.RequestWith(deadline(t), cl); err != nil {
				t.Fatal(err)
			}
			return resp.ErrorCode != kerr.CoordinatorLoadInProgress.Code
		})
		if resp.ErrorCode != 0 {
			t.Fatalf("heartbeat: code %d", resp.ErrorCode)
		}
		return resp.HeartbeatIntervalMillis
	}
	if got := interval("own"); got != 5000 {
		t.Fatalf("heartbeat interval %d before, want the broker's 5000", got)
	}
	cl := b.client()
	defer cl.Close()
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	r := kmsg.NewIncrementalAlterConfigsRequestResource()
	r.ResourceType, r.ResourceName = kmsg.ConfigResourceTypeGroupConfig, "own"
	value := "7000"
	c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	c.Name, c.Value = "consumer.heartbeat.interval.ms", &value
	r.Configs = append(r.Configs, c)
	req.Resources = append(req.Resources, r)
	resp, err := req.RequestWith(deadline(t), cl)
	if err != nil || resp.Resources[0].ErrorCode != 0 {
		t.Fatalf("alter: %v, %+v", err, resp)
	}
	eventually(t, "the group's setting has no effect", func() bool { return interval("own") == 7000 })
	if got := interval("other"); got != 5000 {
		t.Errorf("heartbeat interval of another group %d, want 5000", got)
	}
}
