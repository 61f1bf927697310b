package group

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

const day = 24 * time.Hour

func TestRetention(t *testing.T) {
	check(t, []rule{
		{"a simple group's offset expires 7 days after its commit, and the group with the last", Options{}, func(b *bench) {
			b.commit(9, "g", "", -1, "a", 5)
			b.pass(3 * day)
			b.commit(9, "g", "", -1, "b", 6)
			b.pass(4*day - time.Minute)
			b.hasOffset("g", "a", 5)
			b.pass(11 * time.Minute)
			b.hasOffset("g", "a", -1)
			b.hasOffset("g", "b", 6)
			b.pass(3*day + 11*time.Minute)
			for _, x := range []*bench{b, b.replayed()} {
				x.hasOffset("g", "b", -1)
				x.inState("g", "Dead")
			}
			if len(b.m.names) != 0 || len(b.m.groups) != 0 {
				b.t.Fatal(b.m.names, b.m.groups)
			}
		}},
		{"a group's offsets expire 7 days after it became empty, however old they are", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 1)
			b.commit(9, "g", members[0], generation, "a", 5)
			for range 10 * 24 * 60 { // ten days
				b.pass(time.Minute / 10)
				b.code(nil, b.heartbeat("g", members[0], generation))
			}
			b.leave("g", kmsg.LeaveGroupRequestMember{MemberID: members[0]})
			b.pass(7*day - time.Minute)
			b.hasOffset("g", "a", 5)
			b.pass(12 * time.Minute)
			b.hasOffset("g", "a", -1)
			b.inState("g", "Dead")
		}},
		{"in a stable group of consumers only what nobody subscribes to expires", Options{OffsetsRetention: time.Minute, RetentionCheckInterval: time.Second}, func(b *bench) {
			members, generation := b.stableGroup("g", 1)
			b.commit(9, "g", members[0], generation, "a", 5)
			b.commit(9, "g", members[0], generation, "b", 6)
			for range 13 {
				b.pass(5 * time.Second)
				b.code(nil, b.heartbeat("g", members[0], generation))
			}
			b.hasOffset("g", "a", 5)
			b.hasOffset("g", "b", -1)
		}},
		{"nothing expires in a group of another type, or that rebalances", Options{OffsetsRetention: time.Second, RetentionCheckInterval: time.Second}, func(b *bench) {
			members, generation := b.stableGroup("c", 1, withType("connect"))
			b.commit(9, "c", members[0], generation, "b", 6)
			consumers, generation := b.stableGroup("g", 2)
			b.code(nil, b.heartbeat("c", members[0], 1))
			b.commit(9, "g", consumers[0], generation, "b", 6)
			b.join(9, "g", withMember(consumers[0]))
			b.pass(9 * time.Second)
			b.hasOffset("c", "b", 6)
			b.hasOffset("g", "b", 6)
		}},
		{"nothing expires that a transaction may commit", Options{OffsetsRetention: time.Minute}, func(b *bench) {
			b.commit(9, "g", "", -1, "a", 5)
			b.commitTxn("g", 1, "a", 9)
			b.pass(day)
			b.hasOffset("g", "a", 5)
			b.endTxn(1, true)
			b.hasOffset("g", "a", 9)
			b.pass(day)
			b.hasOffset("g", "a", -1)
		}},
		{"below v5 a commit says itself how long it is kept", Options{}, func(b *bench) {
			b.do(b.request(4, &kmsg.OffsetCommitRequest{Group: "g", Generation: -1, RetentionTimeMillis: 1000, Topics: []kmsg.OffsetCommitRequestTopic{
				{Topic: "a", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 4}}}}}))
			b.replayed().hasOffset("g", "a", 4)
			b.pass(11 * time.Minute)
			b.hasOffset("g", "a", -1)
		}},
		{"an empty group without offsets goes at the next check", Options{}, func(b *bench) {
			members, _ := b.stableGroup("g", 1)
			b.leave("g", kmsg.LeaveGroupRequestMember{MemberID: members[0]})
			b.pass(11 * time.Minute)
			for _, x := range []*bench{b, b.replayed()} {
				x.inState("g", "Dead")
			}
		}},
		{"a group whose first member was only given an id is not in the way", Options{}, func(b *bench) {
			b.enter("other", withTimeouts(30*time.Minute, 30*time.Minute))
			b.join(9, "g")
			b.pass(21 * time.Minute)
			b.inState("g", "Dead")
		}},
	})
}

func TestTopicsChanged(t *testing.T) {
	check(t, []rule{
		{"offsets of a deleted topic are removed", Options{}, func(b *bench) {
			b.do(TopicsChanged{b.topics})
			b.commit(9, "g", "", -1, "a", 5)
			b.commit(9, "g", "", -1, "b", 6)
			b.topics = topicMap{"b": {idB, 8}}
			b.do(TopicsChanged{b.topics})
			for _, x := range []*bench{b, b.replayed()} {
				x.hasOffset("g", "a", -1)
				x.hasOffset("g", "b", 6)
			}
		}},
		{"also if another has its name now", Options{}, func(b *bench) {
			b.do(TopicsChanged{b.topics})
			b.commit(9, "g", "", -1, "a", 5)
			b.topics = topicMap{"a": {idC, 8}, "b": {idB, 8}}
			b.do(TopicsChanged{b.topics})
			if b.m.group("g").offsets.get(partition{"a", 0}) != nil {
				b.t.Fatal("it is still there")
			}
			b.code(nil, b.commit(9, "g", "", -1, "a", 1))
			b.do(TopicsChanged{b.topics})
			b.hasOffset("g", "a", 1)
		}},
		{"also if it went while nobody coordinated", Options{}, func(b *bench) {
			b.commit(9, "g", "", -1, "a", 5)
			b.topics = topicMap{"b": {idB, 8}}
			r := b.replayed()
			r.do(TopicsChanged{r.topics})
			r.hasOffset("g", "a", -1)
			if n := len(r.log) - len(b.log); n != 1 {
				b.t.Fatalf("%d records", n)
			}
		}},
		{"an offset of a newer topic than those known stays", Options{}, func(b *bench) {
			b.do(TopicsChanged{b.topics})
			b.do(b.request(9, &kmsg.OffsetCommitRequest{Group: "g", Generation: -1, Topics: []kmsg.OffsetCommitRequestTopic{
				{Topic: "a", TopicID: idC, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 4}}}}}))
			b.topics = topicMap{"a": {idC, 8}}
			b.do(TopicsChanged{b.topics})
			b.hasOffset("g", "a", 4)
		}},
		{"what a transaction has pending goes too", Options{}, func(b *bench) {
			b.commitTxn("g", 1, "a", 5)
			b.topics = topicMap{"b": {idB, 8}}
			b.do(TopicsChanged{b.topics})
			b.endTxn(1, true)
			for _, x := range []*bench{b, b.replayed()} {
				x.hasOffset("g", "a", -1)
			}
		}},
		{"nothing is written if nothing is gone", Options{}, func(b *bench) {
			b.do(TopicsChanged{b.topics})
			b.commit(9, "g", "", -1, "a", 5)
			n := len(b.log)
			b.do(TopicsChanged{topicMap{"a": {idA, 9}, "b": {idB, 8}, "c": {idC, 1}}})
			b.do(TopicsChanged{b.topics})
			if len(b.log) != n {
				b.t.Fatal(len(b.log) - n)
			}
		}},
	})
}
