package consumer

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestASecondMemberWaitsForTheFirstToRevoke(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 4))
	w.want(join("m1", "a"), "epoch 2 has 1:[0 1 2 3]")
	w.want(beat("m1", 2), "epoch 2")
	w.want(join("m2", "a"), "epoch 3 has")
	w.want(beat("m1", 2), "epoch 2 has 1:[0 1]")
	w.want(beat("m2", 3), "epoch 3")
	w.want(beat("m1", 2), "epoch 2") // It did not say that it has revoked.
	w.want(holding(beat("m1", 2), map[int][]int32{1: {0, 1, 2}}), "epoch 2")
	w.want(beat("m2", 3), "epoch 3")
	w.want(holding(beat("m1", 2), map[int][]int32{1: {0, 1}}), "epoch 3")
	w.want(beat("m2", 3), "epoch 3 has 1:[2 3]")
	if s := w.g.State(); s != "Stable" {
		t.Errorf("the group is %s", s)
	}
	w.want(beat("m1", -1), "epoch -1")
	w.want(beat("m2", 3), "epoch 4 has 1:[0 1 2 3]")
}

func TestSilentMembersAreRemoved(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 2))
	w.want(join("m1", "a"), "epoch 2 has 1:[0 1]")
	w.want(join("m2", "a"), "epoch 3 has")
	w.pass(40 * time.Second)
	w.want(beat("m2", 3), "epoch 3")
	w.pass(6 * time.Second)
	w.want(beat("m1", 2), "error 25")
	w.want(beat("m2", 3), "epoch 4 has 1:[0 1]")
}

// what changes a request.
type what func(*kmsg.ConsumerGroupHeartbeatRequest)

func with(r *kmsg.ConsumerGroupHeartbeatRequest, changes ...what) *kmsg.ConsumerGroupHeartbeatRequest {
	for _, c := range changes {
		c(r)
	}
	return r
}

func instance(id string) what {
	return func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.InstanceID = &id }
}
func regex(s string) what {
	return func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicRegex = &s }
}
func assignor(s string) what {
	return func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.ServerAssignor = &s }
}
func subscribing(names ...string) what {
	return func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.SubscribedTopicNames = append([]string{}, names...) }
}
func version(v int16) what {
	return func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.Version = v }
}

func TestRefusedRequests(t *testing.T) {
	const invalid, unknownMember, fencedInstance, fenced, unreleasedInstance, unsupportedAssignor, invalidRegex, full = 42, 25, 82, 110, 111, 112, 128, 81
	type req = *kmsg.ConsumerGroupHeartbeatRequest
	for _, c := range []struct {
		why  string
		req  req
		want int16
	}{
		{"v1: the client makes the id", join("", "a"), invalid},
		{"a heartbeat without id", with(beat("", 3), version(0)), invalid},
		{"an id that no record can have", join(strings.Repeat("x", 1<<15), "a"), invalid},
		{"a regular expression that no record can have", with(join("x", "a"), regex(strings.Repeat("x", 1<<15))), invalid},
		{"no group", with(join("x", "a"), func(r req) { r.Group = "" }), invalid},
		{"an empty instance", with(join("x", "a"), instance("")), invalid},
		{"an empty rack", with(join("x", "a"), func(r req) { r.RackID = ptr("") }), invalid},
		{"joining without rebalance timeout", with(join("x", "a"), func(r req) { r.RebalanceTimeoutMillis = -1 }), invalid},
		{"joining without owned partitions", with(join("x", "a"), func(r req) { r.Topics = nil }), invalid},
		{"joining with owned partitions", holding(join("x", "a"), map[int][]int32{1: {0}}), invalid},
		{"joining without subscription", with(join("x"), func(r req) { r.SubscribedTopicNames = nil }), invalid},
		{"leaving for a while without instance", beat("m1", -2), invalid},
		{"an epoch that is none", beat("m1", -3), invalid},
		{"an unknown assignor", with(join("x", "a"), assignor("sticky")), unsupportedAssignor},
		{"no regular expression", with(join("x", "a"), regex("a(")), invalidRegex},
		{"no regular expression by itself", with(join("x", "a"), regex("a)(b")), invalidRegex},
		{"no RE2", with(join("x", "a"), regex("a(?!b)")), invalidRegex},
		{"an unknown member", beat("x", 2), unknownMember},
		{"an unknown member leaves", beat("x", -1), unknownMember},
		{"an unknown instance", with(beat("m1", 2), instance("i9")), unknownMember},
		{"an unknown instance leaves", with(beat("m1", -2), instance("i9")), unknownMember},
		{"another's instance", with(beat("m1", 2), instance("i1")), fencedInstance},
		{"another's instance leaves", with(beat("m1", -1), instance("i1")), fencedInstance},
		{"an instance that is alive", with(join("x", "a"), instance("i1")), unreleasedInstance},
		{"an epoch to come", beat("m1", 5), fenced},
		{"an epoch long gone", holding(beat("m1", 2), map[int][]int32{1: {0}}), fenced},
		{"the epoch before, not saying what it has", beat("m1", 3), fenced},
		{"the epoch before, with a partition of another", holding(beat("m1", 3), map[int][]int32{1: {0, 2}}), fenced},
		{"one too many", join("x", "a"), full},
	} {
		w := newWorld(t, Options{AssignmentInterval: -1, MaxSize: 3}, topics("a", 4))
		w.want(join("m1", "a"), "epoch 2 has 1:[0 1 2 3]")
		w.want(with(join("s1", "a"), instance("i1")), "epoch 3 has")
		w.want(holding(beat("m1", 2), map[int][]int32{}), "epoch 3 has 1:[0 1]")
		w.want(with(beat("m1", 3), subscribing("a", "b")), "epoch 4")
		if c.want == full {
			w.g.Configure(Options{MaxSize: 2})
		}
		before := w.g.dump()
		if got := w.send(c.req); got.ErrorCode != c.want || got.ErrorMessage == nil {
			t.Errorf("%s: error %d, want %d", c.why, got.ErrorCode, c.want)
		}
		if w.g.dump() != before {
			t.Errorf("%s: the group has changed", c.why)
		}
	}
}

// The epoch before is good if the answer with the new one was lost: what the member has is a part of what it should.
func TestLostAnswer(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 4))
	w.want(join("m1", "a"), "epoch 2 has 1:[0 1 2 3]")
	w.want(join("m2", "a"), "epoch 3 has")
	w.want(holding(beat("m1", 2), map[int][]int32{1: {0, 1}}), "epoch 3 has 1:[0 1]") // lost
	w.want(with(holding(join("m1", "a"), map[int][]int32{1: {0, 1}}), func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch = 2 }),
		"epoch 3 has 1:[0 1]")
	w.want(beat("m2", 3), "epoch 3 has 1:[2 3]") // lost
	w.want(beat("m2", 3), "epoch 3")
	w.want(with(holding(join("m2", "a"), map[int][]int32{}), func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.MemberEpoch = 3 }),
		"epoch 3 has 1:[2 3]")
	w.want(join("m2", "a"), "epoch 3 has 1:[2 3]") // It may also begin anew.
}

func TestVersion0MakesMemberIDs(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 1))
	resp := w.send(with(join("", "a"), version(0)))
	if text(resp) != "epoch 2 has 1:[0]" || *resp.MemberID != "made-1" || resp.HeartbeatIntervalMillis != 5000 {
		t.Errorf("%s, id %s, interval %d", text(resp), *resp.MemberID, resp.HeartbeatIntervalMillis)
	}
	w.want(with(beat("made-1", 2), version(0)), "epoch 2")
}

func TestNullChangesNothing(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 1))
	w.send(with(join("m1", "a"), assignor("range"), regex("b.*"), instance("i"), func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.RackID = ptr("r") }))
	m, n := *w.g.members["m1"], len(w.log)
	w.want(with(beat("m1", 2), instance("i")), "epoch 2")
	if !w.g.members["m1"].sameMetadata(&m) || len(w.log) != n {
		t.Errorf("it became %+v, with %d records", w.g.members["m1"], len(w.log)-n)
	}
}

func TestStaticMembers(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 4))
	w.want(with(join("s1", "a"), instance("i1")), "epoch 2 has 1:[0 1 2 3]")
	w.want(with(join("s2", "a"), instance("i2")), "epoch 3 has")
	w.want(with(holding(beat("s1", 2), map[int][]int32{1: {0, 1}}), instance("i1")), "epoch 3 has 1:[0 1]")
	w.want(with(beat("s2", 3), instance("i2")), "epoch 3 has 1:[2 3]")

	w.want(with(beat("s1", -2), instance("i1")), "epoch -2")
	w.want(with(beat("s2", 3), instance("i2")), "epoch 3")               // Nothing is moved.
	w.want(with(beat("s1", 3), instance("i1")), "error 110")             // It has left.
	w.want(with(join("s3", "a"), instance("i1")), "epoch 3 has 1:[0 1]") // The instance is back, as before.
	w.want(with(beat("s1", 3), instance("i1")), "error 82")
	if w.g.epoch != 3 || w.g.Len() != 2 {
		t.Errorf("group epoch %d, %d members", w.g.epoch, w.g.Len())
	}
	w.want(with(join("s3", "a"), instance("i1")), "epoch 3 has 1:[0 1]") // The same one joins again: not another.

	w.want(with(beat("s3", -2), instance("i1")), "epoch -2")
	for range 8 {
		w.pass(5 * time.Second)
		w.want(with(beat("s2", 3), instance("i2")), "epoch 3")
	}
	w.pass(6 * time.Second)
	w.want(with(beat("s2", 3), instance("i2")), "epoch 4 has 1:[0 1 2 3]") // It stayed away for longer than its session.
}

func TestRevocationHasARebalanceTimeout(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 2))
	w.want(join("m1", "a"), "epoch 2 has 1:[0 1]")
	w.want(join("m2", "a"), "epoch 3 has")
	w.want(beat("m1", 2), "epoch 2 has 1:[0]")
	for range 5 {
		w.pass(10 * time.Second)
		w.want(holding(beat("m1", 2), map[int][]int32{1: {0, 1}}), "epoch 2")
		w.want(beat("m2", 3), "epoch 3")
	}
	w.pass(11 * time.Second)
	w.want(beat("m1", 2), "error 25")
	w.want(beat("m2", 3), "epoch 4 has 1:[0 1]")
}

// A timeout that comes before any other is kept too.
func TestShortRebalanceTimeout(t *testing.T) {
	for _, reload := range []bool{false, true} {
		w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 2))
		w.want(with(join("m1", "a"), func(r *kmsg.ConsumerGroupHeartbeatRequest) { r.RebalanceTimeoutMillis = 3000 }), "epoch 2 has 1:[0 1]")
		w.want(join("m2", "a"), "epoch 3 has")
		w.want(beat("m1", 2), "epoch 2 has 1:[0]")
		if reload { // It begins anew.
			w.pass(time.Second)
			w.reload()
		}
		w.pass(2900 * time.Millisecond)
		w.want(beat("m1", 2), "epoch 2")
		w.pass(200 * time.Millisecond)
		w.want(beat("m1", 2), "error 25")
	}
}

func TestAssignmentInterval(t *testing.T) {
	w := newWorld(t, Options{}, topics("a", 4))
	w.want(join("m1", "a"), "epoch 2 has 1:[0 1 2 3]") // The first is computed at once.
	w.want(join("m2", "a"), "epoch 2 has")             // It belongs to the group, and has nothing yet.
	w.want(join("m3", "a"), "epoch 2 has")
	if w.g.epoch != 4 || w.g.targetEpoch != 2 || w.g.State() != "Assigning" {
		t.Errorf("epochs %d, %d, state %s", w.g.epoch, w.g.targetEpoch, w.g.State())
	}
	w.pass(999 * time.Millisecond)
	w.want(beat("m1", 2), "epoch 2")
	w.pass(time.Millisecond)
	if w.g.targetEpoch != 4 || w.g.State() != "Reconciling" {
		t.Errorf("after a second the target is of epoch %d, the state %s", w.g.targetEpoch, w.g.State())
	}
	w.want(beat("m1", 2), "epoch 2 has 1:[0 1]")
	w.reload()
	w.want(join("m4", "a"), "epoch 4 has") // The log has when it was.

	w.now = w.now.Add(-time.Hour)
	w.want(beat("m1", 2), "epoch 2")
	if w.g.targetEpoch != w.g.epoch {
		t.Error("a clock that was set back keeps the target from being computed")
	}
}

func TestAssignorOfTheMost(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 1))
	for i, c := range []struct {
		assignor what
		want     string
	}{
		{func(*kmsg.ConsumerGroupHeartbeatRequest) {}, "uniform"},
		{assignor("range"), "range"},
		{assignor("uniform"), "range"},
		{assignor("uniform"), "uniform"},
	} {
		w.send(with(join(string(rune('a'+i)), "a"), c.assignor))
		if got := w.g.Describe(w.topics).AssignorName; got != c.want {
			t.Errorf("with %d members it is %s, want %s", i+1, got, c.want)
		}
	}
}

func TestTopicsChange(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 1))
	w.want(join("m1", "a", "b"), "epoch 2 has 1:[0]")
	w.change(topics("a", 2))
	w.want(beat("m1", 2), "epoch 3 has 1:[0 1]")
	n := len(w.log)
	if w.change(topics("a", 2, "c", 1)); len(w.log) != n {
		t.Error("a topic that nobody subscribes to is a change")
	}
	w.change(topics("a", 2, "b", 1))
	w.want(beat("m1", 3), "epoch 4 has 1:[0 1] 2:[0]")
	c := topics("x", 0, "b", 1)
	c.remove("x")
	w.change(c)
	w.want(beat("m1", 4), "epoch 4 has 2:[0]") // It is to give up what was deleted.
	w.want(holding(beat("m1", 4), map[int][]int32{2: {0}}), "epoch 5")
	w.g = replayed(t, w.o, w.log)
	w.topics = topics("x", 0, "b", 3)
	w.keep(w.g.Loaded(w.topics, w.now)) // It grew while the group was not loaded.
	w.want(beat("m1", 5), "epoch 6 has 2:[0 1 2]")
}

func TestRegularExpressions(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a1", 1, "ba1", 1, "a12", 1))
	w.want(with(join("m1"), regex("a1?")), "epoch 2 has 1:[0]") // It must match the whole name.
	if !w.g.Subscribed("a1") || w.g.Subscribed("a12") {
		t.Error("Subscribed is wrong")
	}
	w.want(with(beat("m1", 2), regex("a.*")), "epoch 3 has 1:[0] 3:[0]")
	if len(w.g.resolved) != 1 {
		t.Errorf("%d expressions are kept", len(w.g.resolved))
	}
	w.want(with(beat("m1", 3), subscribing("ba1")), "epoch 4 has 1:[0] 2:[0] 3:[0]") // Both at once.

	w.change(topics("a1", 1, "ba1", 1, "a12", 1, "a3", 1)) // Not sooner than 10 s after the last time.
	w.want(beat("m1", 4), "epoch 4")
	w.pass(10 * time.Second)
	w.want(beat("m1", 4), "epoch 5 has 1:[0] 2:[0] 3:[0] 4:[0]")

	w.want(with(beat("m1", 5), regex("")), "epoch 5 has 2:[0]")
	if len(w.g.resolved) != 0 || w.g.Subscribed("a1") {
		t.Errorf("%v are kept", w.g.resolved)
	}
}

func TestOneRegularExpressionForTwo(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 2))
	w.want(with(join("m1"), regex("a")), "epoch 2 has 1:[0 1]")
	w.want(with(join("m2"), regex("a")), "epoch 3 has")
	w.want(beat("m1", -1), "epoch -1")
	if len(w.g.resolved) != 1 {
		t.Error("the expression is forgotten though one still subscribes to it")
	}
	w.want(beat("m2", 3), "epoch 4 has 1:[0 1]")
	w.want(beat("m2", -1), "epoch -1")
	if len(w.g.resolved) != 0 || !w.g.Empty() || w.g.State() != "Empty" {
		t.Error("something is left")
	}
	w.want(join("m3", "a"), "epoch 6 has 1:[0 1]") // Epochs go on.
}

func TestSubscriptionChangeIsObeyedAtOnce(t *testing.T) {
	w := newWorld(t, Options{}, topics("a", 1, "b", 1))
	w.want(join("m1", "a", "b"), "epoch 2 has 1:[0] 2:[0]")
	w.want(with(beat("m1", 2), subscribing("b")), "epoch 2 has 2:[0]") // The next target has to wait, this does not.
	w.want(holding(beat("m1", 2), map[int][]int32{2: {0}}), "epoch 2")
	w.pass(time.Second)
	w.want(beat("m1", 2), "epoch 3")
}

func TestTombstonesRemoveAll(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 2))
	w.send(with(join("m1", "a"), regex("a.*")))
	w.send(join("m2", "a"))
	left := map[string]bool{}
	for _, r := range append(w.log, w.g.Tombstones()...) {
		if left[string(r.Key)] = true; r.Value == nil {
			delete(left, string(r.Key))
		}
	}
	if len(left) != 0 {
		t.Errorf("left are %q", sortedKeys(left))
	}
	if g := replayed(t, w.o, append(w.log, w.g.Tombstones()...)); g.State() != "Dead" || !g.Empty() {
		t.Errorf("the group is %s", g.State())
	}
}

// Kafka before 4.1 kept the topics of a group in a record, which goes with the next group epoch.
func TestPartitionMetadataIsRemoved(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 2))
	key := recordKey{typePartitionMetadata, "g", ""}.encode()
	if err := w.g.Replay(key, []byte{0, 0, 1, 0}); err != nil {
		t.Fatal(err)
	}
	w.send(join("m1", "a"))
	w.send(join("m2", "a"))
	n := 0
	for _, r := range w.log {
		if string(r.Key) == string(key) && r.Value == nil {
			n++
		}
	}
	if n != 1 {
		t.Errorf("it was removed %d times", n)
	}
}

func TestAMemberOfANewerBrokerBeginsAnew(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 2))
	w.want(join("m1", "a"), "epoch 2 has 1:[0 1]")
	m := *w.g.members["m1"]
	m.state = 9
	if err := w.g.Replay(recordKey{typeCurrent, "g", "m1"}.encode(), m.encodeAssignment()); err != nil {
		t.Fatal(err)
	}
	w.want(beat("m1", 2), "error 110")
	w.want(holding(beat("m1", 2), map[int][]int32{1: {0, 1}}), "error 110")
	w.want(join("m1", "a"), "epoch 2 has 1:[0 1]")
}
