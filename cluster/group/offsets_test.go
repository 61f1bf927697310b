package group

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/tier/record"
)

// The offsets of a topic against a map, in random order.
func TestTopicOffsets(t *testing.T) {
	for seed := range uint64(50) {
		r := rand.New(rand.NewPCG(seed, 1))
		o, model := &topicOffsets{topic: "t"}, map[int32]int64{}
		for step := range 3000 {
			p := int32(r.IntN(1 + int(seed)*40))
			if r.IntN(3) == 0 {
				o.remove(p)
				delete(model, p)
			} else {
				o.put(committed{partition: p, offset: int64(step)})
				model[p] = int64(step)
			}
			c := o.get(p)
			if at, ok := model[p]; ok != (c != nil) || ok && c.offset != at {
				t.Fatalf("seed %d, step %d: partition %d is %+v, want %d, %v", seed, step, p, c, at, ok)
			}
		}
		var order []int32
		for c := range o.all() {
			order = append(order, c.partition)
		}
		if len(order) != len(model) || !slices.IsSorted(order) {
			t.Fatalf("seed %d: %d partitions for %d, in order %v", seed, len(order), len(model), slices.IsSorted(order))
		}
	}
}

// The longest strings that a request can bring in fit into records.
func TestLongestStringsComeBackFromTheLog(t *testing.T) {
	b := newBench(t, Options{})
	r := b.request(2, &kmsg.JoinGroupRequest{
		Group: strings.Repeat("g", 32_767), SessionTimeoutMillis: 10_000, RebalanceTimeoutMillis: 60_000, ProtocolType: "consumer",
		Protocols: []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: subscription("a")}},
	})
	r.Client.ID = strings.Repeat("c", 32_767)
	c := b.start(r)
	b.passUntil(c)
	j := b.joined(c)
	b.synced(b.sync(strings.Repeat("g", 32_767), j.MemberID, j.Generation))
	m := New(b.o, b.topics)
	for i, e := range b.log {
		if err := m.Replay(record.Offset(i), e); err != nil {
			t.Fatal(err)
		}
	}
	if k := m.group(strings.Repeat("g", 32_767)); k == nil || k.classic.byID[j.MemberID] == nil {
		t.Error("the member did not come back")
	}
}

// An offset of a partition where nothing happens does not expire with the last member of a group in use, but a retention later;
// whether or not the coordinator has loaded since.
func TestOffsetOfAGroupThatWasInUse(t *testing.T) {
	for _, reload := range []bool{false, true} {
		b := newBench(t, Options{OffsetsRetention: 24 * time.Hour})
		r := b.beat("g", "m", 0)
		b.code(nil, b.commit(9, "g", "m", r.MemberEpoch, "a", 42))
		for range 25 * 3600 / 30 {
			b.pass(30 * time.Second)
			b.code(nil, b.beat("g", "m", r.MemberEpoch).ErrorCode)
		}
		b.beat("g", "m", -1)
		b.pass(11 * time.Minute)
		b.hasOffset("g", "a", 42)
		if reload {
			b = b.replayed()
		}
		b.pass(23 * time.Hour)
		b.hasOffset("g", "a", 42)
		b.pass(2 * time.Hour)
		b.hasOffset("g", "a", -1)
	}
}

// Offsets whose record names no topic id, as those of old clients and of Kafka's logs, go with their topic too.
func TestOffsetWithoutTopicIDGoesWithItsTopic(t *testing.T) {
	for _, reload := range []bool{false, true} {
		b := newBench(t, Options{})
		b.do(TopicsChanged{Topics: b.topics})
		b.do(b.request(4, &kmsg.OffsetCommitRequest{
			Group: "g", Generation: -1, RetentionTimeMillis: 1 << 40,
			Topics: []kmsg.OffsetCommitRequestTopic{{Topic: "a", TopicID: idA, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 42}}}},
		}))
		if reload {
			b = b.replayed()
			b.do(TopicsChanged{Topics: b.topics})
		}
		b.hasOffset("g", "a", 42)
		b.do(TopicsChanged{Topics: topicMap{"a": {[16]byte{77}, 8}, "b": {idB, 8}}})
		b.hasOffset("g", "a", -1)
	}
}
