package group

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// staticGroup makes a stable group of a static leader i1 and a static follower i2.
func (b *bench) staticGroup(group string) (leader, follower string) {
	b.t.Helper()
	first := b.join(9, group, withInstance("i1"), withTimeouts(30*time.Second, time.Minute))
	second := b.join(9, group, withInstance("i2"), withTimeouts(30*time.Second, time.Minute))
	b.passUntil(first)
	leader, follower = b.joined(first).MemberID, b.joined(second).MemberID
	b.code(nil, b.synced(b.sync(group, leader, 1, assignTo(leader, "first"), assignTo(follower, "second"))).ErrorCode)
	b.code(nil, b.synced(b.sync(group, follower, 1)).ErrorCode)
	b.inState(group, "Stable")
	return leader, follower
}

func TestStaticMembers(t *testing.T) {
	check(t, []rule{
		{"an instance that comes back with no id takes the old one's place without a rebalance", Options{}, func(b *bench) {
			_, follower := b.staticGroup("g")
			got := b.joined(b.join(9, "g", withInstance("i2"), withTimeouts(30*time.Second, time.Minute)))
			if got.ErrorCode != 0 || got.Generation != 1 || got.MemberID == follower || got.SkipAssignment || len(got.Members) > 0 {
				b.t.Fatal(got)
			}
			b.inState("g", "Stable")
			if s := b.synced(b.sync("g", got.MemberID, 1)); string(s.MemberAssignment) != "second" {
				b.t.Fatal(s)
			}
			b.code(kerr.UnknownMemberID, b.heartbeat("g", follower, 1))
			r := b.replayed()
			r.code(nil, r.heartbeat("g", got.MemberID, 1))
			if s := r.synced(r.sync("g", got.MemberID, 1)); string(s.MemberAssignment) != "second" {
				b.t.Fatal(s)
			}
		}},
		{"the old id with the instance is FENCED_INSTANCE_ID everywhere", Options{}, func(b *bench) {
			_, follower := b.staticGroup("g")
			b.join(9, "g", withInstance("i2"))
			instance := ptr("i2")
			b.code(kerr.FencedInstanceID, b.joined(b.join(9, "g", withInstance("i2"), withMember(follower))).ErrorCode)
			b.code(kerr.FencedInstanceID, b.synced(b.start(b.request(4, &kmsg.SyncGroupRequest{
				Group: "g", MemberID: follower, InstanceID: instance, Generation: 1}))).ErrorCode)
			b.code(kerr.FencedInstanceID, b.do(b.request(4, &kmsg.HeartbeatRequest{
				Group: "g", MemberID: follower, InstanceID: instance, Generation: 1})).(*kmsg.HeartbeatResponse).ErrorCode)
			b.code(kerr.FencedInstanceID, b.leave("g", kmsg.LeaveGroupRequestMember{MemberID: follower, InstanceID: instance}).Members[0].ErrorCode)
			commit := b.do(b.request(9, &kmsg.OffsetCommitRequest{
				Group: "g", MemberID: follower, InstanceID: instance, Generation: 1,
				Topics: []kmsg.OffsetCommitRequestTopic{{Topic: "a", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{}}}},
			})).(*kmsg.OffsetCommitResponse)
			b.code(kerr.FencedInstanceID, commit.Topics[0].Partitions[0].ErrorCode)
		}},
		{"v9 tells the leader to skip the assignment, and gives it the members", Options{}, func(b *bench) {
			b.staticGroup("g")
			got := b.joined(b.join(9, "g", withInstance("i1")))
			if !got.SkipAssignment || got.LeaderID != got.MemberID || len(got.Members) != 2 || got.Generation != 1 {
				b.t.Fatal(got)
			}
		}},
		{"below v9 the leader is told of its old id, and so does not assign", Options{}, func(b *bench) {
			leader, _ := b.staticGroup("g")
			got := b.joined(b.join(8, "g", withInstance("i1")))
			if got.SkipAssignment || got.LeaderID != leader || got.MemberID == leader || len(got.Members) > 0 {
				b.t.Fatal(got)
			}
		}},
		{"a change of the chosen protocol rebalances", Options{}, func(b *bench) {
			first := b.join(9, "g", withInstance("i1"), withProtocols("x", "y"))
			second := b.join(9, "g", withInstance("i2"), withProtocols("x", "y"))
			b.passUntil(first)
			b.sync("g", b.joined(first).MemberID, 1)
			b.sync("g", b.joined(second).MemberID, 1)
			call := b.join(9, "g", withInstance("i2"), withProtocols("y"))
			b.inState("g", "PreparingRebalance")
			if !b.parked(call) {
				b.t.Fatal(b.answers[call])
			}
			b.join(9, "g", withInstance("i1"), withMember(b.joined(first).MemberID), withProtocols("x", "y"))
			if got := b.joined(call); *got.Protocol != "y" || got.Generation != 2 {
				b.t.Fatal(got)
			}
		}},
		{"in CompletingRebalance it rebalances again", Options{}, func(b *bench) {
			first := b.join(9, "g", withInstance("i1"))
			second := b.join(9, "g", withInstance("i2"))
			b.passUntil(first)
			follower := b.joined(second).MemberID
			parked := b.sync("g", follower, 1)
			again := b.join(9, "g", withInstance("i2"))
			b.code(kerr.FencedInstanceID, b.synced(parked).ErrorCode)
			b.inState("g", "PreparingRebalance")
			b.join(9, "g", withInstance("i1"), withMember(b.joined(first).MemberID))
			if got := b.joined(again); got.Generation != 2 {
				b.t.Fatal(got)
			}
		}},
		{"in PreparingRebalance the parked call of the old id is fenced", Options{}, func(b *bench) {
			first := b.join(9, "g", withInstance("i1"))
			second := b.join(9, "g", withInstance("i1"))
			b.code(kerr.FencedInstanceID, b.joined(first).ErrorCode)
			b.passUntil(second)
			if got := b.joined(second); len(got.Members) != 1 || *got.Members[0].InstanceID != "i1" {
				b.t.Fatal(got)
			}
		}},
		{"a known id with an unknown instance is UNKNOWN_MEMBER_ID", Options{}, func(b *bench) {
			leader, _ := b.staticGroup("g")
			b.code(kerr.UnknownMemberID, b.joined(b.join(9, "g", withInstance("i3"), withMember(leader))).ErrorCode)
		}},
		{"an instance that is silent is removed when its session ends", Options{}, func(b *bench) {
			leader, follower := b.staticGroup("g")
			for range 3 {
				b.pass(9 * time.Second)
				b.code(nil, b.heartbeat("g", leader, 1))
			}
			b.pass(3 * time.Second)
			b.code(kerr.RebalanceInProgress, b.heartbeat("g", leader, 1))
			b.code(kerr.UnknownMemberID, b.heartbeat("g", follower, 1))
		}},
		{"an instance that comes back is watched by its new session", Options{}, func(b *bench) {
			b.staticGroup("g")
			got := b.joined(b.join(9, "g", withInstance("i2"), withTimeouts(6*time.Second, time.Minute)))
			b.pass(6 * time.Second)
			b.code(kerr.UnknownMemberID, b.heartbeat("g", got.MemberID, 1))
		}},
	})
}
