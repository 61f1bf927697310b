package group

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
)

// rule is a rule of Kafka's classic groups, and a test of it.
type rule struct {
	name string
	o    Options
	test func(b *bench)
}

func check(t *testing.T, rules []rule) {
	for _, r := range rules {
		t.Run(strings.ReplaceAll(r.name, " ", "_"), func(t *testing.T) { r.test(newBench(t, r.o)) })
	}
}

func TestJoinGroup(t *testing.T) {
	check(t, []rule{
		{"an empty group id is INVALID_GROUP_ID", Options{}, func(b *bench) {
			b.code(kerr.InvalidGroupID, b.joined(b.join(9, "")).ErrorCode)
		}},
		{"a session timeout out of bounds is INVALID_SESSION_TIMEOUT", Options{}, func(b *bench) {
			for _, session := range []time.Duration{5999 * time.Millisecond, 1_800_001 * time.Millisecond} {
				b.code(kerr.InvalidSessionTimeout, b.joined(b.join(9, "g", withTimeouts(session, time.Minute))).ErrorCode)
			}
			b.code(kerr.MemberIDRequired, b.joined(b.join(9, "g", withTimeouts(6*time.Second, time.Minute))).ErrorCode)
			b.code(kerr.MemberIDRequired, b.joined(b.join(9, "g", withTimeouts(30*time.Minute, time.Minute))).ErrorCode)
		}},
		{"v0 has its session timeout for rebalance timeout", Options{}, func(b *bench) {
			b.join(0, "g", withTimeouts(7*time.Second, 0))
			if got := b.m.group("g").classic.rebalanceTimeout(); got != 7*time.Second {
				b.t.Fatal(got)
			}
		}},
		{"v4 gives a new member an id by MEMBER_ID_REQUIRED, below it joins", Options{}, func(b *bench) {
			resp := b.joined(b.join(4, "g"))
			b.code(kerr.MemberIDRequired, resp.ErrorCode)
			if resp.MemberID != "client-id1" || resp.Generation != -1 {
				b.t.Fatal(resp)
			}
			if call := b.join(3, "g"); !b.parked(call) {
				b.t.Fatal(b.answers[call])
			}
		}},
		{"a static member is not asked to come again", Options{}, func(b *bench) {
			if call := b.join(9, "g", withInstance("i")); !b.parked(call) {
				b.t.Fatal(b.answers[call])
			}
		}},
		{"an id that nobody comes with is forgotten after the session timeout", Options{}, func(b *bench) {
			id := b.joined(b.join(9, "g")).MemberID
			b.pass(9 * time.Second)
			first := b.join(9, "g", withMember(id))
			if !b.parked(first) {
				b.t.Fatal(b.answers[first])
			}
			late := b.joined(b.join(9, "g")).MemberID
			b.pass(10 * time.Second)
			b.code(kerr.UnknownMemberID, b.joined(b.join(9, "g", withMember(late))).ErrorCode)
		}},
		{"an unknown member id is UNKNOWN_MEMBER_ID", Options{}, func(b *bench) {
			b.code(kerr.UnknownMemberID, b.joined(b.join(9, "none", withMember("x"))).ErrorCode)
			b.stableGroup("g", 1)
			b.code(kerr.UnknownMemberID, b.joined(b.join(9, "g", withMember("x"))).ErrorCode)
		}},
		{"no protocol, or no type, is INCONSISTENT_GROUP_PROTOCOL", Options{}, func(b *bench) {
			b.code(kerr.InconsistentGroupProtocol, b.joined(b.join(9, "g", withProtocols())).ErrorCode)
			b.code(kerr.InconsistentGroupProtocol, b.joined(b.join(9, "g", withType(""))).ErrorCode)
			if b.m.group("g") != nil || len(b.log) > 0 {
				b.t.Fatal("a group was made")
			}
		}},
		{"another protocol type than the group's is INCONSISTENT_GROUP_PROTOCOL", Options{}, func(b *bench) {
			b.stableGroup("g", 1)
			b.code(kerr.InconsistentGroupProtocol, b.joined(b.join(9, "g", withType("connect"))).ErrorCode)
		}},
		{"without a protocol that all support it is INCONSISTENT_GROUP_PROTOCOL", Options{}, func(b *bench) {
			b.join(3, "g", withProtocols("x", "y"))
			b.join(3, "g", withProtocols("y", "z"))
			b.code(kerr.InconsistentGroupProtocol, b.joined(b.join(3, "g", withProtocols("x", "z"))).ErrorCode)
			if call := b.join(3, "g", withProtocols("z", "y")); !b.parked(call) {
				b.t.Fatal(b.answers[call])
			}
		}},
		{"the protocol is the one most vote for of those that all support", Options{}, func(b *bench) {
			calls := []coordinator.Token{
				b.join(3, "g", withProtocols("only-mine", "y", "z")),
				b.join(3, "g", withProtocols("z", "y")),
				b.join(3, "g", withProtocols("z", "y")),
			}
			b.pass(time.Minute)
			for _, call := range calls {
				if got := *b.joined(call).Protocol; got != "z" {
					b.t.Fatal(got)
				}
			}
		}},
		{"any protocol type will do", Options{}, func(b *bench) {
			call := b.join(3, "g", withType("connect"), withMetadata([]byte{0xff}))
			b.passUntil(call)
			resp := b.joined(call)
			if *resp.ProtocolType != "connect" || len(resp.Members) != 1 || resp.Members[0].ProtocolMetadata[0] != 0xff {
				b.t.Fatal(resp)
			}
			b.code(nil, b.synced(b.sync("g", resp.MemberID, 1, assignTo(resp.MemberID, "x"))).ErrorCode)
			if l := b.do(List{}).([]kmsg.ListGroupsResponseGroup); l[0].ProtocolType != "connect" || l[0].GroupState != "Stable" {
				b.t.Fatal(l)
			}
		}},
		{"only the leader gets the members", Options{}, func(b *bench) {
			leader, first := b.enter("g", withMetadata(subscription("a", "b")))
			follower, second := b.enter("g")
			b.pass(time.Minute)
			a, c := b.joined(first), b.joined(second)
			if a.LeaderID != leader || c.LeaderID != leader || len(a.Members) != 2 || len(c.Members) != 0 || c.MemberID != follower ||
				string(a.Members[0].ProtocolMetadata) != string(subscription("a", "b")) {
				b.t.Fatal(a, c)
			}
		}},
		{"a group over group.max.size is GROUP_MAX_SIZE_REACHED", Options{MaxSize: 2}, func(b *bench) {
			first := b.join(3, "g")
			b.join(3, "g")
			b.code(kerr.GroupMaxSizeReached, b.joined(b.join(3, "g")).ErrorCode)
			b.passUntil(first)
			b.code(nil, b.joined(first).ErrorCode)
			b.code(kerr.GroupMaxSizeReached, b.joined(b.join(9, "g")).ErrorCode)
		}},
		{"a loaded group over group.max.size rebalances", Options{}, func(b *bench) {
			members, _ := b.stableGroup("g", 3)
			b.o.MaxSize = 2
			r := b.replayed()
			r.inState("g", "PreparingRebalance")
			first, second := r.join(9, "g", withMember(members[2])), r.join(9, "g", withMember(members[1]))
			r.code(kerr.GroupMaxSizeReached, r.joined(r.join(9, "g", withMember(members[0]))).ErrorCode)
			r.pass(time.Minute)
			r.code(nil, r.joined(first).ErrorCode)
			r.code(nil, r.joined(second).ErrorCode)
		}},
		{"a JoinGroup that comes again replaces the one that waits", Options{}, func(b *bench) {
			id, first := b.enter("g")
			second := b.join(9, "g", withMember(id))
			b.code(kerr.RebalanceInProgress, b.joined(first).ErrorCode)
			b.pass(time.Minute)
			b.code(nil, b.joined(second).ErrorCode)
		}},
		{"a new member whose call waits too long is dropped after 5 min", Options{}, func(b *bench) {
			b.stableGroup("g", 1, withTimeouts(10*time.Minute, time.Hour))
			_, call := b.enter("g")
			b.pass(5*time.Minute - 1)
			if !b.parked(call) {
				b.t.Fatal(b.answers[call])
			}
			b.pass(1)
			b.code(kerr.UnknownMemberID, b.joined(call).ErrorCode)
		}},
	})
}

func TestInitialRebalanceDelay(t *testing.T) {
	check(t, []rule{
		{"an empty group waits for the initial delay", Options{}, func(b *bench) {
			_, call := b.enter("g")
			b.pass(3*time.Second - 1)
			b.inState("g", "PreparingRebalance")
			b.pass(1)
			b.code(nil, b.joined(call).ErrorCode)
			b.inState("g", "CompletingRebalance")
		}},
		{"each new member extends it by as much", Options{}, func(b *bench) {
			_, call := b.enter("g")
			b.pass(2 * time.Second)
			b.enter("g")
			b.pass(3 * time.Second) // to second 5: extended at 3
			b.enter("g")
			b.pass(3 * time.Second) // to second 8: extended at 6
			if !b.parked(call) {
				b.t.Fatal(b.answers[call])
			}
			b.pass(time.Second)
			b.code(nil, b.joined(call).ErrorCode)
		}},
		{"up to the rebalance timeout", Options{}, func(b *bench) {
			_, call := b.enter("g", withTimeouts(10*time.Second, 8*time.Second))
			for range 9 {
				b.pass(999 * time.Millisecond)
				b.join(3, "g", withTimeouts(10*time.Second, 8*time.Second))
			}
			if b.parked(call) {
				b.t.Fatal("still waiting after the rebalance timeout")
			}
		}},
		{"a negative one is none", Options{InitialRebalanceDelay: -1}, func(b *bench) {
			_, call := b.enter("g")
			b.pass(0)
			b.code(nil, b.joined(call).ErrorCode)
		}},
	})
}

func TestRebalance(t *testing.T) {
	check(t, []rule{
		{"a follower that joins again unchanged gets the generation back", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 2)
			resp := b.joined(b.join(9, "g", withMember(members[1])))
			if resp.Generation != generation || resp.LeaderID != members[0] || len(resp.Members) != 0 || *resp.Protocol != "range" {
				b.t.Fatal(resp)
			}
			b.inState("g", "Stable")
		}},
		{"the leader that joins again rebalances", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 2)
			leader := b.join(9, "g", withMember(members[0]))
			b.inState("g", "PreparingRebalance")
			b.code(kerr.RebalanceInProgress, b.heartbeat("g", members[1], generation))
			follower := b.join(9, "g", withMember(members[1]))
			if got := b.joined(leader); got.Generation != generation+1 || len(got.Members) != 2 {
				b.t.Fatal(got)
			}
			b.code(nil, b.joined(follower).ErrorCode)
		}},
		{"changed metadata rebalances", Options{}, func(b *bench) {
			members, _ := b.stableGroup("g", 2)
			b.join(9, "g", withMember(members[1]), withMetadata(subscription("b")))
			b.inState("g", "PreparingRebalance")
		}},
		{"a new member rebalances", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 1)
			_, call := b.enter("g")
			b.inState("g", "PreparingRebalance")
			b.join(9, "g", withMember(members[0]))
			if got := b.joined(call).Generation; got != generation+1 {
				b.t.Fatal(got)
			}
		}},
		{"it completes when all have joined, not before", Options{}, func(b *bench) {
			members, _ := b.stableGroup("g", 3)
			call := b.join(9, "g", withMember(members[0]))
			b.join(9, "g", withMember(members[1]))
			if !b.parked(call) {
				b.t.Fatal(b.answers[call])
			}
			b.join(9, "g", withMember(members[2]))
			b.code(nil, b.joined(call).ErrorCode)
		}},
		{"it waits for those that were given an id", Options{}, func(b *bench) {
			members, _ := b.stableGroup("g", 1)
			call := b.join(9, "g", withMember(members[0]))
			b.inState("g", "CompletingRebalance")
			b.code(nil, b.joined(call).ErrorCode)
			pending := b.joined(b.join(9, "g")).MemberID
			call = b.join(9, "g", withMember(members[0]), withMetadata(subscription("b")))
			if !b.parked(call) {
				b.t.Fatal(b.answers[call])
			}
			b.leave("g", kmsg.LeaveGroupRequestMember{MemberID: pending})
			b.code(nil, b.joined(call).ErrorCode)
		}},
		{"at the longest rebalance timeout it drops dynamic members that have not joined", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 2, withTimeouts(5*time.Minute, 20*time.Second))
			call := b.join(9, "g", withMember(members[0]), withTimeouts(5*time.Minute, 30*time.Second))
			b.pass(30*time.Second - 1)
			if !b.parked(call) {
				b.t.Fatal(b.answers[call])
			}
			b.pass(1)
			if got := b.joined(call); got.Generation != generation+1 || len(got.Members) != 1 {
				b.t.Fatal(got)
			}
			b.code(kerr.UnknownMemberID, b.heartbeat("g", members[1], generation))
		}},
		{"static members that have not joined stay until their session ends", Options{}, func(b *bench) {
			static := b.join(9, "g", withInstance("i"), withTimeouts(3*time.Minute, time.Minute))
			dynamic, call := b.enter("g", withTimeouts(5*time.Minute, time.Minute))
			b.pass(10 * time.Second)
			id := b.joined(static).MemberID
			b.synced(b.sync("g", id, 1))
			b.code(nil, b.joined(call).ErrorCode)
			b.synced(b.sync("g", dynamic, 1))
			call = b.join(9, "g", withMember(dynamic), withMetadata(subscription("b")))
			b.pass(time.Minute)
			got := b.joined(call)
			if got.LeaderID != dynamic || len(got.Members) != 2 {
				b.t.Fatal(got)
			}
			b.sync("g", dynamic, 2)
			b.pass(time.Minute) // it has not synced
			b.inState("g", "PreparingRebalance")
		}},
		{"the leader that has not joined loses the lead", Options{}, func(b *bench) {
			members, _ := b.stableGroup("g", 2)
			call := b.join(9, "g", withMember(members[1]), withMetadata(subscription("b")))
			b.pass(time.Minute)
			if got := b.joined(call); got.LeaderID != members[1] || len(got.Members) != 1 {
				b.t.Fatal(got)
			}
		}},
		{"a member in CompletingRebalance that joins unchanged gets the generation again", Options{}, func(b *bench) {
			id, call := b.enter("g")
			b.pass(10 * time.Second)
			first := b.joined(call)
			again := b.joined(b.join(9, "g", withMember(id)))
			if again.Generation != first.Generation || len(again.Members) != 1 {
				b.t.Fatal(again)
			}
			b.inState("g", "CompletingRebalance")
		}},
		{"a rebalance in CompletingRebalance sends parked syncs back", Options{}, func(b *bench) {
			_, _ = b.enter("g")
			second, _ := b.enter("g")
			b.pass(10 * time.Second)
			call := b.sync("g", second, 1)
			b.join(3, "g")
			b.code(kerr.RebalanceInProgress, b.synced(call).ErrorCode)
		}},
		{"a group of which nobody joins again ends empty", Options{}, func(b *bench) {
			b.stableGroup("g", 2)
			b.pass(11 * time.Second)
			b.inState("g", "Empty")
			b.replayed().inState("g", "Empty")
		}},
	})
}
