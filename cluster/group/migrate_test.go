package group

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/group/consumer"
)

// beat is a heartbeat of a KIP-848 member that subscribes to a and owns what it says.
func (b *bench) beat(group, member string, epoch int32, owned ...int32) *kmsg.ConsumerGroupHeartbeatResponse {
	b.t.Helper()
	req := &kmsg.ConsumerGroupHeartbeatRequest{
		Group: group, MemberID: member, MemberEpoch: epoch, RebalanceTimeoutMillis: 60_000, SubscribedTopicNames: []string{"a"},
		Topics: []kmsg.ConsumerGroupHeartbeatRequestTopic{},
	}
	if len(owned) > 0 {
		req.Topics = append(req.Topics, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: idA, Partitions: owned})
	}
	return b.do(b.request(1, req)).(*kmsg.ConsumerGroupHeartbeatResponse)
}

// groupType is the type and state of a group, as listed.
func (b *bench) groupType(group string) string {
	b.t.Helper()
	for _, l := range b.do(List{}).([]kmsg.ListGroupsResponseGroup) {
		if l.Group == group {
			return l.GroupType + " " + l.GroupState
		}
	}
	return ""
}

func (b *bench) isType(group, want string) {
	b.t.Helper()
	if got := b.groupType(group); got != want {
		b.t.Fatalf("group %s is %q, want %q", group, got, want)
	}
}

// assignment of partitions of topic a, in the consumer protocol.
func assignment(partitions ...int32) []byte {
	a := kmsg.NewConsumerMemberAssignment()
	a.Topics = []kmsg.ConsumerMemberAssignmentTopic{{Topic: "a", Partitions: partitions}}
	return a.AppendTo(nil)
}

// classicConsumer makes a stable classic group of one consumer that has the 8 partitions of a.
func (b *bench) classicConsumer(group string) (string, int32) {
	b.t.Helper()
	id, call := b.enter(group)
	b.passUntil(call)
	generation := b.joined(call).Generation
	s := b.synced(b.sync(group, id, generation, kmsg.SyncGroupRequestGroupAssignment{
		MemberID: id, MemberAssignment: assignment(0, 1, 2, 3, 4, 5, 6, 7),
	}))
	b.code(nil, s.ErrorCode)
	return id, generation
}

func TestMigration(t *testing.T) {
	check(t, []rule{
		{"a consumer heartbeat makes a consumer group", Options{}, func(b *bench) {
			if got := b.beat("g", "m", 0); got.ErrorCode != 0 || got.MemberEpoch < 1 || len(got.Assignment.Topics[0].Partitions) != 8 {
				b.t.Fatal(got)
			}
			for _, x := range []*bench{b, b.replayed()} {
				x.isType("g", "consumer Stable")
				d := x.do(DescribeConsumer{"g"}).(kmsg.ConsumerGroupDescribeResponseGroup)
				if d.ErrorCode != 0 || len(d.Members) != 1 || d.Epoch != d.Members[0].MemberEpoch {
					b.t.Fatal(d)
				}
				x.inState("g", "Dead") // as a classic group
				x.code(kerr.NonEmptyGroup, x.do(Delete{Group: "g"}).(int16))
			}
		}},
		{"one with an epoch to an unknown group is GROUP_ID_NOT_FOUND, and so is one to a classic group", Options{}, func(b *bench) {
			b.code(kerr.GroupIDNotFound, b.beat("none", "m", 1).ErrorCode)
			b.code(kerr.GroupIDNotFound, b.beat("none", "m", -1).ErrorCode)
			b.code(kerr.InvalidRequest, b.beat("none", "", 1).ErrorCode)
			b.classicConsumer("g")
			b.code(kerr.GroupIDNotFound, b.beat("g", "m", 1).ErrorCode)
			b.inState("g", "Stable")
		}},
		{"one that is refused makes no group", Options{}, func(b *bench) {
			b.code(kerr.InvalidRequest, b.beat("g", "", 0).ErrorCode)
			b.isType("g", "")
			b.commit(9, "g", "", -1, "a", 3)
			b.code(kerr.InvalidRequest, b.beat("g", "", 0).ErrorCode)
			b.isType("g", "classic Empty")
		}},
		{"a silent member goes, and the group can be deleted", Options{}, func(b *bench) {
			b.commit(9, "g", "m", b.beat("g", "m", 0).MemberEpoch, "a", 3)
			b.pass(45 * time.Second)
			for _, x := range []*bench{b.replayed(), b} {
				x.isType("g", "consumer Empty")
				x.hasOffset("g", "a", 3)
				x.code(nil, x.do(Delete{Group: "g"}).(int16))
				x.isType("g", "")
				x.replayed().isType("g", "")
				x.hasOffset("g", "a", -1)
			}
		}},
		{"an empty classic group becomes a consumer group, and back, with its offsets", Options{}, func(b *bench) {
			b.commit(9, "g", "", -1, "a", 3)
			b.beat("g", "m", 0)
			b.isType("g", "consumer Stable")
			b.hasOffset("g", "a", 3)
			b.beat("g", "m", -1)
			b.isType("g", "consumer Empty")
			b.replayed().isType("g", "consumer Empty")
			b.code(kerr.UnknownMemberID, b.joined(b.join(9, "g", withMember("x"))).ErrorCode)
			b.isType("g", "consumer Empty")
			_, call := b.enter("g")
			b.replayed().isType("g", "classic Empty")
			b.passUntil(call)
			for _, x := range []*bench{b, b.replayed()} {
				x.hasOffset("g", "a", 3)
			}
		}},
		{"a classic group with members becomes a consumer group when one of the new protocol joins", Options{}, func(b *bench) {
			id, generation := b.classicConsumer("g")
			b.commit(9, "g", id, generation, "a", 3)
			got := b.beat("g", "m", 0)
			b.code(nil, got.ErrorCode)
			for _, x := range []*bench{b.replayed(), b} {
				x.hasOffset("g", "a", 3)
				d := x.do(DescribeConsumer{"g"}).(kmsg.ConsumerGroupDescribeResponseGroup)
				if len(d.Members) != 2 {
					b.t.Fatal(d)
				}
				x.pass(2 * time.Second) // the next target
				x.code(kerr.RebalanceInProgress, x.heartbeat("g", id, generation))
				// It still has all partitions, so it joins with them, gives up half, and joins again.
				owned := subscription("a")
				sub := &kmsg.ConsumerMemberMetadata{Version: 1, Topics: []string{"a"}, OwnedPartitions: []kmsg.ConsumerMemberMetadataOwnedPartition{
					{Topic: "a", Partitions: []int32{0, 1, 2, 3, 4, 5, 6, 7}}}}
				j := x.joined(x.join(9, "g", withMember(id), withMetadata(sub.AppendTo(nil))))
				x.code(nil, j.ErrorCode)
				s := x.synced(x.sync("g", id, j.Generation))
				x.code(nil, s.ErrorCode)
				j = x.joined(x.join(9, "g", withMember(id), withMetadata(owned)))
				if j.Generation <= generation || j.LeaderID != "" || *j.Protocol != "range" {
					b.t.Fatal(j)
				}
				var a kmsg.ConsumerMemberAssignment
				s = x.synced(x.sync("g", id, j.Generation))
				if err := a.ReadFrom(s.MemberAssignment); err != nil || len(a.Topics) != 1 || len(a.Topics[0].Partitions) != 4 {
					b.t.Fatal(err, a)
				}
				x.code(nil, x.heartbeat("g", id, j.Generation))
				x.code(nil, x.commit(8, "g", id, j.Generation, "a", 4))
				x.hasOffset("g", "a", 4)
			}
		}},
		{"what was parked in the classic group is REBALANCE_IN_PROGRESS", Options{}, func(b *bench) {
			_, first := b.enter("g")
			second, _ := b.enter("g")
			b.passUntil(first)
			parked := b.sync("g", second, 1)
			b.code(nil, b.beat("g", "m", 0).ErrorCode)
			b.code(kerr.RebalanceInProgress, b.synced(parked).ErrorCode)
		}},
		{"and becomes classic again when the last of the new protocol leaves", Options{}, func(b *bench) {
			id, generation := b.classicConsumer("g")
			b.beat("g", "m", 0)
			b.pass(2 * time.Second)
			b.code(kerr.RebalanceInProgress, b.heartbeat("g", id, generation))
			j := b.joined(b.join(9, "g", withMember(id)))
			b.code(nil, b.synced(b.sync("g", id, j.Generation)).ErrorCode)
			b.code(nil, b.beat("g", "m", -1).ErrorCode)
			b.isType("g", "classic PreparingRebalance")
			for _, x := range []*bench{b.replayed(), b} {
				if x != b {
					x.isType("g", "classic Stable")
				}
				call := x.join(9, "g", withMember(id))
				got := x.joined(call)
				if got.Generation <= j.Generation || got.LeaderID != id || len(got.Members) != 1 {
					b.t.Fatal(got)
				}
			}
		}},
		{"a group that was upgraded is gone when it is deleted", Options{}, func(b *bench) {
			id, _ := b.classicConsumer("g")
			b.beat("g", "m", 0)
			b.leave("g", kmsg.LeaveGroupRequestMember{MemberID: id})
			b.beat("g", "m", -1)
			b.isType("g", "consumer Empty")
			b.code(nil, b.do(Delete{"g"}).(int16))
			b.replayed().isType("g", "")
			b.cleaned().isType("g", "")
		}},
		{"and so is one that was downgraded", Options{}, func(b *bench) {
			id, _ := b.classicConsumer("g")
			b.beat("g", "m", 0)
			b.beat("g", "m", -1)
			b.leave("g", kmsg.LeaveGroupRequestMember{MemberID: id})
			b.isType("g", "classic Empty")
			b.code(nil, b.do(Delete{"g"}).(int16))
			b.replayed().isType("g", "")
			b.cleaned().isType("g", "")
		}},
		{"also when its session ends", Options{}, func(b *bench) {
			id, generation := b.classicConsumer("g")
			b.beat("g", "m", 0)
			for range 10 {
				b.pass(5 * time.Second)
				if code := b.heartbeat("g", id, generation); code == kerr.RebalanceInProgress.Code {
					j := b.joined(b.join(9, "g", withMember(id)))
					generation = j.Generation
					b.sync("g", id, generation)
				}
			}
			if got := b.groupType("g"); got[:7] != "classic" {
				b.t.Fatal(got)
			}
		}},
		{"a group of another type is not upgraded", Options{}, func(b *bench) {
			b.stableGroup("g", 1, withType("connect"))
			b.code(kerr.GroupIDNotFound, b.beat("g", "m", 0).ErrorCode)
			b.inState("g", "Stable")
		}},
		{"the policy may forbid it", Options{Consumer: consumer.Options{Migration: consumer.DowngradeOnly}}, func(b *bench) {
			b.classicConsumer("g")
			b.code(kerr.GroupIDNotFound, b.beat("g", "m", 0).ErrorCode)
			b.inState("g", "Stable")
		}},
		{"a classic member may join a consumer group, and leave it", Options{}, func(b *bench) {
			b.beat("g", "m", 0)
			id, call := b.enter("g")
			b.code(nil, b.joined(call).ErrorCode)
			d := b.do(DescribeConsumer{"g"}).(kmsg.ConsumerGroupDescribeResponseGroup)
			if len(d.Members) != 2 {
				b.t.Fatal(d)
			}
			b.code(kerr.InconsistentGroupProtocol, b.joined(b.join(3, "g", withType("connect"))).ErrorCode)
			b.code(nil, b.leave("g", kmsg.LeaveGroupRequestMember{MemberID: id}).Members[0].ErrorCode)
			b.code(kerr.UnknownMemberID, b.heartbeat("g", id, 1))
			b.code(kerr.UnknownMemberID, b.synced(b.sync("g", "x", 1)).ErrorCode)
		}},
		{"commits are checked by member epoch", Options{}, func(b *bench) {
			epoch := b.beat("g", "m", 0).MemberEpoch
			b.code(nil, b.commit(9, "g", "m", epoch, "a", 3))
			b.code(kerr.UnsupportedVersion, b.commit(8, "g", "m", epoch, "a", 4))
			b.code(kerr.StaleMemberEpoch, b.commit(9, "g", "m", epoch+1, "a", 4))
			b.code(kerr.UnknownMemberID, b.commit(9, "g", "x", epoch, "a", 4))
			b.hasOffset("g", "a", 3)
			b.beat("g", "n", 0)
			b.pass(2 * time.Second)
			got := b.beat("g", "m", epoch, 0, 1, 2, 3, 4, 5, 6, 7) // told to give up some
			kept := got.Assignment.Topics[0].Partitions
			got = b.beat("g", "m", epoch, kept...)
			if got.MemberEpoch == epoch || len(kept) != 4 {
				b.t.Fatal(got)
			}
			for partition, want := range map[int32]*kerr.Error{kept[0]: nil, 99: kerr.StaleMemberEpoch} {
				resp := b.do(b.request(9, &kmsg.OffsetCommitRequest{Group: "g", MemberID: "m", Generation: epoch, Topics: []kmsg.OffsetCommitRequestTopic{
					{Topic: "a", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: partition}}}}})).(*kmsg.OffsetCommitResponse)
				b.code(want, resp.Topics[0].Partitions[0].ErrorCode)
				txn := b.do(b.request(5, &kmsg.TxnOffsetCommitRequest{Group: "g", MemberID: "m", Generation: epoch, ProducerID: 5, Topics: []kmsg.TxnOffsetCommitRequestTopic{
					{Topic: "a", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Partition: partition}}}}})).(*kmsg.TxnOffsetCommitResponse)
				if want != nil {
					want = kerr.IllegalGeneration
				}
				b.code(want, txn.Topics[0].Partitions[0].ErrorCode)
			}
		}},
		{"fetches are checked by member epoch", Options{}, func(b *bench) {
			epoch := b.beat("g", "m", 0).MemberEpoch
			for _, c := range []struct {
				member *string
				epoch  int32
				err    *kerr.Error
			}{{nil, -1, nil}, {ptr("m"), epoch, nil}, {ptr("m"), epoch - 1, kerr.StaleMemberEpoch}, {ptr("x"), epoch, kerr.UnknownMemberID}} {
				got := b.do(FetchOffsets{Version: 9, Group: kmsg.OffsetFetchRequestGroup{Group: "g", MemberID: c.member, MemberEpoch: c.epoch}})
				b.code(c.err, got.(kmsg.OffsetFetchResponseGroup).ErrorCode)
			}
		}},
		{"offsets of what members subscribe to are kept", Options{OffsetsRetention: time.Second, RetentionCheckInterval: 10 * time.Second}, func(b *bench) {
			epoch := b.beat("g", "m", 0).MemberEpoch
			b.commit(9, "g", "m", epoch, "a", 3)
			b.commit(9, "g", "m", epoch, "b", 4)
			del := b.do(b.request(0, &kmsg.OffsetDeleteRequest{Group: "g", Topics: []kmsg.OffsetDeleteRequestTopic{{Topic: "a", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{}}}}})).(*kmsg.OffsetDeleteResponse)
			b.code(kerr.GroupSubscribedToTopic, del.Topics[0].Partitions[0].ErrorCode)
			b.pass(11 * time.Second)
			b.hasOffset("g", "a", 3)
			b.hasOffset("g", "b", -1)
		}},
		{"a group may have settings of its own", Options{}, func(b *bench) {
			b.beat("g", "m", 0)
			b.do(Configured{func(id string) consumer.Options {
				if id == "g" {
					return consumer.Options{SessionTimeout: 60 * time.Second, HeartbeatInterval: 7 * time.Second}
				}
				return consumer.Options{}
			}})
			epoch := b.beat("other", "m", 0).MemberEpoch
			for group, want := range map[string]int32{"g": 7000, "other": 5000} {
				if got := b.beat(group, "m", epoch, 0, 1, 2, 3, 4, 5, 6, 7).HeartbeatIntervalMillis; got != want {
					b.t.Fatal(group, got)
				}
			}
			b.pass(50 * time.Second)
			b.isType("other", "consumer Empty")
			b.isType("g", "consumer Stable")
		}},
		{"a topic that grows is assigned anew", Options{}, func(b *bench) {
			epoch := b.beat("g", "m", 0).MemberEpoch
			b.pass(5 * time.Second)
			b.do(TopicsChanged{topicMap{"a": {idA, 10}}})
			got := b.beat("g", "m", epoch, 0, 1, 2, 3, 4, 5, 6, 7)
			if got.MemberEpoch != epoch+1 || len(got.Assignment.Topics[0].Partitions) != 10 {
				b.t.Fatal(got)
			}
		}},
	})
}
