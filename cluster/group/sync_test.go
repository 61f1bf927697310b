package group

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestSyncGroup(t *testing.T) {
	check(t, []rule{
		{"it parks until the leader's assignment comes", Options{}, func(b *bench) {
			leader, _ := b.enter("g")
			follower, _ := b.enter("g")
			b.pass(10 * time.Second)
			call := b.sync("g", follower, 1)
			if !b.parked(call) {
				b.t.Fatal(b.answers[call])
			}
			first := b.synced(b.sync("g", leader, 1, assignTo(leader, "x"), assignTo(follower, "y")))
			second := b.synced(call)
			if string(first.MemberAssignment) != "x" || string(second.MemberAssignment) != "y" || *second.Protocol != "range" || *second.ProtocolType != "consumer" {
				b.t.Fatal(first, second)
			}
		}},
		{"a member that is not in the assignment gets nothing", Options{}, func(b *bench) {
			leader, _ := b.enter("g")
			follower, _ := b.enter("g")
			b.pass(10 * time.Second)
			b.sync("g", leader, 1, assignTo("nobody", "z"))
			if got := b.synced(b.sync("g", follower, 1)); got.ErrorCode != 0 || len(got.MemberAssignment) != 0 {
				b.t.Fatal(got)
			}
		}},
		{"in Stable it is the assignment that is there", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 2)
			if got := b.synced(b.sync("g", members[1], generation)); string(got.MemberAssignment) != "to "+members[1] {
				b.t.Fatal(got)
			}
		}},
		{"the assignment is in the log before anybody has it", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 2)
			r := b.replayed()
			if got := r.synced(r.sync("g", members[1], generation)); string(got.MemberAssignment) != "to "+members[1] {
				b.t.Fatal(got)
			}
		}},
		{"in PreparingRebalance it is REBALANCE_IN_PROGRESS", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 2)
			b.join(9, "g", withMember(members[0]))
			b.code(kerr.RebalanceInProgress, b.synced(b.sync("g", members[1], generation)).ErrorCode)
		}},
		{"another generation is ILLEGAL_GENERATION", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 1)
			b.code(kerr.IllegalGeneration, b.synced(b.sync("g", members[0], generation-1)).ErrorCode)
			b.code(kerr.IllegalGeneration, b.synced(b.sync("g", members[0], generation+1)).ErrorCode)
		}},
		{"unknown groups and members are UNKNOWN_MEMBER_ID", Options{}, func(b *bench) {
			b.code(kerr.UnknownMemberID, b.synced(b.sync("none", "x", 1)).ErrorCode)
			b.code(kerr.InvalidGroupID, b.synced(b.sync("", "x", 1)).ErrorCode)
			_, generation := b.stableGroup("g", 1)
			b.code(kerr.UnknownMemberID, b.synced(b.sync("g", "x", generation)).ErrorCode)
		}},
		{"v5 names type and protocol: others, and none, are INCONSISTENT_GROUP_PROTOCOL", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 1)
			b.code(kerr.InconsistentGroupProtocol, b.synced(b.start(b.request(5, &kmsg.SyncGroupRequest{
				Group: "g", MemberID: members[0], Generation: generation, Protocol: ptr("range"),
			}))).ErrorCode)
			b.code(nil, b.synced(b.sync("g", members[0], generation)).ErrorCode)
			for _, c := range []struct {
				kind, name string
				err        *kerr.Error
			}{{"consumer", "range", nil}, {"connect", "range", kerr.InconsistentGroupProtocol}, {"consumer", "sticky", kerr.InconsistentGroupProtocol}} {
				got := b.synced(b.start(b.request(5, &kmsg.SyncGroupRequest{
					Group: "g", MemberID: members[0], Generation: generation, ProtocolType: &c.kind, Protocol: &c.name,
				})))
				b.code(c.err, got.ErrorCode)
			}
		}},
		{"members that do not sync within the rebalance timeout are removed", Options{}, func(b *bench) {
			leader, _ := b.enter("g", withTimeouts(10*time.Minute, 20*time.Second))
			follower, _ := b.enter("g", withTimeouts(10*time.Minute, 20*time.Second))
			b.pass(3 * time.Second)
			b.pass(3 * time.Second)
			b.inState("g", "CompletingRebalance")
			b.code(nil, b.synced(b.sync("g", leader, 1)).ErrorCode)
			b.pass(20 * time.Second)
			b.code(kerr.RebalanceInProgress, b.heartbeat("g", leader, 1))
			b.code(kerr.UnknownMemberID, b.heartbeat("g", follower, 1))
			b.inState("g", "PreparingRebalance")
		}},
		{"if the leader does not sync the others go on without it", Options{}, func(b *bench) {
			leader, _ := b.enter("g", withTimeouts(10*time.Minute, 20*time.Second))
			follower, _ := b.enter("g", withTimeouts(10*time.Minute, 20*time.Second))
			b.pass(6 * time.Second)
			call := b.sync("g", follower, 1)
			b.pass(20 * time.Second)
			b.code(kerr.RebalanceInProgress, b.synced(call).ErrorCode)
			b.code(kerr.UnknownMemberID, b.heartbeat("g", leader, 1))
			again := b.join(9, "g", withMember(follower))
			if got := b.joined(again); got.LeaderID != follower || got.Generation != 2 {
				b.t.Fatal(got)
			}
		}},
		{"a SyncGroup that comes again replaces the one that waits", Options{}, func(b *bench) {
			leader, _ := b.enter("g")
			follower, _ := b.enter("g")
			b.pass(10 * time.Second)
			first, second := b.sync("g", follower, 1), b.sync("g", follower, 1)
			b.code(kerr.RebalanceInProgress, b.synced(first).ErrorCode)
			b.sync("g", leader, 1)
			b.code(nil, b.synced(second).ErrorCode)
		}},
		{"one that waits keeps the session, and it starts anew with the answer", Options{}, func(b *bench) {
			leader, _ := b.enter("g", withTimeouts(time.Minute, time.Minute))
			follower, _ := b.enter("g")
			b.pass(6 * time.Second)
			call := b.sync("g", follower, 1)
			b.pass(30 * time.Second)
			b.sync("g", leader, 1)
			b.code(nil, b.synced(call).ErrorCode)
			b.pass(9 * time.Second)
			b.inState("g", "Stable")
			b.pass(time.Second)
			b.inState("g", "PreparingRebalance")
		}},
	})
}

func TestHeartbeat(t *testing.T) {
	check(t, []rule{
		{"in PreparingRebalance it is REBALANCE_IN_PROGRESS and keeps the session", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 2)
			call := b.join(9, "g", withMember(members[0]))
			for range 6 {
				b.pass(9 * time.Second)
				b.code(kerr.RebalanceInProgress, b.heartbeat("g", members[1], generation))
			}
			b.join(9, "g", withMember(members[1]))
			if got := b.joined(call); len(got.Members) != 2 {
				b.t.Fatal(got)
			}
		}},
		{"in CompletingRebalance and Stable it is no error", Options{}, func(b *bench) {
			id, _ := b.enter("g")
			b.pass(10 * time.Second)
			b.code(nil, b.heartbeat("g", id, 1))
			b.sync("g", id, 1)
			b.code(nil, b.heartbeat("g", id, 1))
		}},
		{"in Empty, of an unknown group or member it is UNKNOWN_MEMBER_ID", Options{}, func(b *bench) {
			b.code(kerr.UnknownMemberID, b.heartbeat("none", "x", 1))
			b.code(kerr.InvalidGroupID, b.heartbeat("", "x", 1))
			members, generation := b.stableGroup("g", 1)
			b.code(kerr.UnknownMemberID, b.heartbeat("g", "x", generation))
			b.leave("g", kmsg.LeaveGroupRequestMember{MemberID: members[0]})
			b.inState("g", "Empty")
			b.code(kerr.UnknownMemberID, b.heartbeat("g", members[0], generation))
		}},
		{"another generation is ILLEGAL_GENERATION", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 1)
			b.code(kerr.IllegalGeneration, b.heartbeat("g", members[0], generation+1))
		}},
		{"without it the member is removed after the session timeout", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 2)
			b.pass(9 * time.Second)
			b.code(nil, b.heartbeat("g", members[0], generation))
			b.pass(time.Second)
			b.code(kerr.UnknownMemberID, b.heartbeat("g", members[1], generation))
			b.code(kerr.RebalanceInProgress, b.heartbeat("g", members[0], generation))
		}},
		{"restored members have a whole session timeout again", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 1)
			b.pass(9 * time.Second)
			r := b.replayed()
			r.pass(9 * time.Second)
			r.code(nil, r.heartbeat("g", members[0], generation))
		}},
	})
}

func TestLeaveGroup(t *testing.T) {
	type leaving = kmsg.LeaveGroupRequestMember
	check(t, []rule{
		{"the others rebalance", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 2)
			if got := b.leave("g", leaving{MemberID: members[0], Reason: ptr("bye")}); got.ErrorCode != 0 || got.Members[0].ErrorCode != 0 {
				b.t.Fatal(got)
			}
			b.code(kerr.RebalanceInProgress, b.heartbeat("g", members[1], generation))
			if got := b.joined(b.join(9, "g", withMember(members[1]))); got.LeaderID != members[1] {
				b.t.Fatal(got)
			}
		}},
		{"below v3 it is one member, and the error is the response's", Options{}, func(b *bench) {
			members, _ := b.stableGroup("g", 1)
			for _, c := range []struct {
				id  string
				err *kerr.Error
			}{{"x", kerr.UnknownMemberID}, {members[0], nil}} {
				got := b.do(b.request(2, &kmsg.LeaveGroupRequest{Group: "g", MemberID: c.id})).(*kmsg.LeaveGroupResponse)
				b.code(c.err, got.ErrorCode)
				if len(got.Members) > 0 {
					b.t.Fatal(got)
				}
			}
			b.inState("g", "Empty")
		}},
		{"from v3 on it is many, each with its error", Options{}, func(b *bench) {
			members, _ := b.stableGroup("g", 3)
			got := b.leave("g", leaving{MemberID: members[0]}, leaving{MemberID: "x"}, leaving{MemberID: members[1], InstanceID: ptr("i")}, leaving{MemberID: members[2]})
			if got.ErrorCode != 0 || len(got.Members) != 4 {
				b.t.Fatal(got)
			}
			for i, err := range []*kerr.Error{nil, kerr.UnknownMemberID, kerr.UnknownMemberID, nil} {
				b.code(err, got.Members[i].ErrorCode)
			}
		}},
		{"of an unknown group each member is unknown", Options{}, func(b *bench) {
			got := b.leave("none", leaving{MemberID: "x"}, leaving{MemberID: "y"})
			b.code(nil, got.ErrorCode)
			b.code(kerr.UnknownMemberID, got.Members[1].ErrorCode)
			b.code(kerr.InvalidGroupID, b.leave("").ErrorCode)
		}},
		{"an id that was given and not used may leave", Options{}, func(b *bench) {
			id := b.joined(b.join(9, "g")).MemberID
			b.code(nil, b.leave("g", leaving{MemberID: id}).Members[0].ErrorCode)
			b.code(kerr.UnknownMemberID, b.joined(b.join(9, "g", withMember(id))).ErrorCode)
		}},
		{"an empty member id and an instance remove a static member", Options{}, func(b *bench) {
			call := b.join(9, "g", withInstance("i"))
			b.pass(10 * time.Second)
			id := b.joined(call).MemberID
			got := b.leave("g", leaving{InstanceID: ptr("other")}, leaving{MemberID: "x", InstanceID: ptr("i")}, leaving{}, leaving{InstanceID: ptr("i")})
			for i, err := range []*kerr.Error{kerr.UnknownMemberID, kerr.FencedInstanceID, kerr.UnknownMemberID, nil} {
				b.code(err, got.Members[i].ErrorCode)
			}
			b.code(kerr.UnknownMemberID, b.heartbeat("g", id, 1))
		}},
		{"what the member had parked is answered", Options{}, func(b *bench) {
			leader, _ := b.enter("g")
			follower, join := b.enter("g")
			b.code(nil, b.leave("g", leaving{MemberID: follower}).Members[0].ErrorCode)
			b.code(kerr.UnknownMemberID, b.joined(join).ErrorCode)
			other, _ := b.enter("g")
			b.pass(10 * time.Second)
			sync := b.sync("g", other, 1)
			b.code(nil, b.leave("g", leaving{MemberID: other}).Members[0].ErrorCode)
			b.code(kerr.UnknownMemberID, b.synced(sync).ErrorCode)
			b.code(kerr.RebalanceInProgress, b.heartbeat("g", leader, 1))
		}},
		{"the last one leaves an empty group, with the next generation", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 1)
			b.leave("g", leaving{MemberID: members[0]})
			b.inState("g", "Empty")
			r := b.replayed()
			r.inState("g", "Empty")
			_, call := r.enter("g")
			r.pass(10 * time.Second)
			if got := r.joined(call).Generation; got != generation+2 {
				b.t.Fatal(got)
			}
		}},
	})
}
