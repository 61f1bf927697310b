package consumer

import (
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// subscriptionOf is a consumer's metadata; owned are topics and partitions.
func subscriptionOf(names []string, owned ...any) []byte {
	sub := kmsg.NewConsumerMemberMetadata()
	sub.Version, sub.Topics = 1, names
	for i := 0; i < len(owned); i += 2 {
		sub.OwnedPartitions = append(sub.OwnedPartitions, kmsg.ConsumerMemberMetadataOwnedPartition{
			Topic: owned[i].(string), Partitions: owned[i+1].([]int32)})
	}
	return sub.AppendTo(nil)
}

func classicJoin(id string, names []string, owned ...any) *kmsg.JoinGroupRequest {
	r := kmsg.NewPtrJoinGroupRequest()
	r.Version, r.Group, r.MemberID, r.ProtocolType = 9, "g", id, "consumer"
	r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = 10_000, 20_000
	r.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "cooperative-sticky", Metadata: subscriptionOf(names, owned...)}, {Name: "range", Metadata: subscriptionOf(names)}}
	return r
}

func (w *world) sendJoin(r *kmsg.JoinGroupRequest) *kmsg.JoinGroupResponse {
	resp, records := w.g.JoinClassic(r, Client{"classic", "/127.0.0.2"}, w.topics, w.now)
	if resp.ErrorCode != 0 && len(records) > 0 {
		w.t.Fatalf("a refused request left %d records", len(records))
	}
	w.keep(records)
	return resp
}

func (w *world) joinClassic(id string, names ...string) *kmsg.JoinGroupResponse {
	return w.sendJoin(classicJoin(id, names))
}

// wantSync compares the assignment, or the error, of a SyncGroup.
func (w *world) wantSync(id string, generation int32, want string) {
	w.t.Helper()
	r := kmsg.NewPtrSyncGroupRequest()
	r.Version, r.Group, r.MemberID, r.Generation = 5, "g", id, generation
	r.ProtocolType, r.Protocol = ptr("consumer"), ptr("cooperative-sticky")
	resp := w.g.SyncClassic(r, w.topics, w.now)
	got := fmt.Sprintf("error %d", resp.ErrorCode)
	if resp.ErrorCode == 0 {
		got = assignmentText(w.t, resp.MemberAssignment)
	}
	if got != want {
		w.t.Errorf("sync of %s: got %q, want %q", id, got, want)
	}
}

func assignmentText(t *testing.T, b []byte) string {
	var a kmsg.ConsumerMemberAssignment
	if err := a.ReadFrom(b); err != nil {
		t.Fatal(err)
	}
	s := "has"
	for _, t := range a.Topics {
		s += fmt.Sprintf(" %s:%v", t.Topic, t.Partitions)
	}
	return s
}

func (w *world) wantBeat(id string, generation int32, want int16) {
	w.t.Helper()
	r := &kmsg.HeartbeatRequest{Group: "g", MemberID: id, Generation: generation}
	if got := w.g.HeartbeatClassic(r, w.now); got != want {
		w.t.Errorf("heartbeat of %s: got %d, want %d", id, got, want)
	}
}

func TestAClassicMemberIsAMember(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 4))
	w.want(join("m1", "a"), "epoch 2 has 1:[0 1 2 3]")
	resp := w.sendJoin(classicJoin("", []string{"a"}))
	if resp.ErrorCode != 79 || resp.MemberID != "made-1" {
		t.Fatalf("error %d, id %s", resp.ErrorCode, resp.MemberID)
	}
	resp = w.joinClassic("made-1", "a")
	if resp.ErrorCode != 0 || resp.Generation != 3 || *resp.Protocol != "cooperative-sticky" || *resp.ProtocolType != "consumer" ||
		resp.LeaderID == resp.MemberID || len(resp.Members) != 0 {
		t.Fatalf("joined with %+v", resp)
	}
	w.wantSync("made-1", 3, "has")
	w.wantBeat("made-1", 3, 0) // What it shall have is not free.
	w.want(beat("m1", 2), "epoch 2 has 1:[0 1]")
	w.wantBeat("made-1", 3, 0)
	w.want(holding(beat("m1", 2), map[int][]int32{1: {0, 1}}), "epoch 3")
	w.wantBeat("made-1", 3, 27)
	if resp = w.joinClassic("made-1", "a"); resp.Generation != 3 {
		t.Errorf("generation %d", resp.Generation)
	}
	w.wantSync("made-1", 3, "has a:[2 3]")
	w.wantBeat("made-1", 3, 0)
	if d := w.g.Describe(w.topics); d.Members[0].MemberType != 1 && d.Members[1].MemberType != 0 {
		t.Errorf("described as %+v", d.Members)
	}

	// It is told of a new target, and gives up before another gets something.
	w.want(join("m3", "a"), "epoch 4 has")
	w.wantBeat("made-1", 3, 27)
	w.wantSync("made-1", 3, "error 27")
	if resp = w.sendJoin(classicJoin("made-1", []string{"a"}, "a", []int32{2, 3})); resp.Generation != 3 {
		t.Errorf("it has to revoke, and is in generation %d", resp.Generation)
	}
	w.wantSync("made-1", 3, "has a:[2]")
	w.want(beat("m3", 4), "epoch 4")
	w.wantBeat("made-1", 3, 27)
	if resp = w.sendJoin(classicJoin("made-1", []string{"a"}, "a", []int32{2})); resp.Generation != 4 {
		t.Errorf("it has revoked, and is in generation %d", resp.Generation)
	}
	w.want(beat("m3", 4), "epoch 4 has 1:[3]")

	w.wantBeat("made-1", 3, 22)
	w.wantBeat("m1", 3, 25) // not classic
	w.wantBeat("x", 3, 25)
	all, records := w.g.LeaveClassic([]kmsg.LeaveGroupRequestMember{{MemberID: "made-1"}, {MemberID: "x"}}, w.topics, w.now)
	w.keep(records)
	if all[0].ErrorCode != 0 || all[1].ErrorCode != 25 || w.g.Len() != 2 {
		t.Errorf("left with %v, %d members", all, w.g.Len())
	}
}

func TestRefusedJoins(t *testing.T) {
	type req = *kmsg.JoinGroupRequest
	for _, c := range []struct {
		why    string
		change func(req)
		want   int16
	}{
		{"no consumer", func(r req) { r.ProtocolType = "connect" }, 23},
		{"no protocol", func(r req) { r.Protocols = nil }, 23},
		{"a protocol that others do not have", func(r req) { r.Protocols = r.Protocols[:1]; r.Protocols[0].Name = "mine" }, 23},
		{"no subscription", func(r req) { r.Protocols[0].Metadata = []byte{1} }, 23},
		{"an unknown instance", func(r req) { r.InstanceID = ptr("i9") }, 25},
		{"another's instance", func(r req) { r.InstanceID = ptr("i1") }, 82},
		{"an id that no record can have", func(r req) { r.MemberID = strings.Repeat("x", 1<<15); r.InstanceID = nil }, 25},
		{"full", func(r req) { r.MemberID = "too many" }, 81},
		{"no migration", nil, 23},
	} {
		o := Options{AssignmentInterval: -1, MaxSize: 3}
		w := newWorld(t, o, topics("a", 1))
		w.want(with(join("m1", "a"), instance("i1")), "epoch 2 has 1:[0]")
		w.joinClassic("c1", "a")
		w.joinClassic("c2", "a")
		r := classicJoin("c1", []string{"a"})
		if c.change != nil {
			c.change(r)
		} else {
			w.g.Configure(Options{Migration: MigrationDisabled})
		}
		before := w.g.dump()
		if resp := w.sendJoin(r); resp.ErrorCode != c.want || resp.Generation != -1 {
			t.Errorf("%s: error %d, want %d", c.why, resp.ErrorCode, c.want)
		}
		if w.g.dump() != before {
			t.Errorf("%s: the group has changed", c.why)
		}
	}
}

func TestClassicTimeouts(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 1))
	w.want(join("m1", "a"), "epoch 2 has 1:[0]")
	w.joinClassic("c1", "a")
	w.pass(9 * time.Second)
	w.wantBeat("c1", 3, 0)
	w.pass(9 * time.Second)
	w.wantBeat("c1", 3, 0)
	w.pass(3 * time.Second) // It never asked for its assignment.
	w.wantBeat("c1", 3, 25)

	w.joinClassic("c2", "a")
	w.wantSync("c2", w.g.epoch, "has")
	w.pass(11 * time.Second) // Its session is its own.
	w.wantBeat("c2", w.g.epoch-1, 25)

	generation := w.joinClassic("c3", "a").Generation
	w.wantSync("c3", generation, "has")
	w.want(join("m2", "a"), fmt.Sprintf("epoch %d has", generation+1))
	for range 2 {
		w.wantBeat("c3", generation, 27)
		w.pass(9900 * time.Millisecond)
	}
	w.pass(500 * time.Millisecond) // It was told to join again, and did not.
	w.wantBeat("c3", generation, 25)
}

// Timeouts that come before any other are kept too.
func TestShortClassicTimeouts(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 1))
	w.want(join("m1", "a"), "epoch 2 has 1:[0]")
	short := func(id string) *kmsg.JoinGroupRequest {
		r := classicJoin(id, []string{"a"})
		r.RebalanceTimeoutMillis = 2000
		return r
	}
	w.sendJoin(short("c1"))
	w.pass(2100 * time.Millisecond) // It never asked for its assignment.
	w.wantBeat("c1", 3, 25)

	generation := w.sendJoin(short("c2")).Generation
	w.wantSync("c2", generation, "has")
	w.pass(2100 * time.Millisecond)
	w.want(join("m2", "a"), fmt.Sprintf("epoch %d has", generation+1))
	w.wantBeat("c2", generation, 27)
	w.pass(2100 * time.Millisecond) // It did not join again.
	w.wantBeat("c2", generation, 25)

	w.sendJoin(short("c3"))
	resp := w.send(join("c3", "a")) // It speaks the consumer protocol now: it owes no SyncGroup.
	w.pass(2100 * time.Millisecond)
	w.want(beat("c3", resp.MemberEpoch), fmt.Sprintf("epoch %d", resp.MemberEpoch))
}

func classicGroup() ClassicGroup {
	protocols := func(names ...string) []kmsg.JoinGroupRequestProtocol {
		return []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: subscriptionOf(names)}}
	}
	assigned := func(partitions ...int32) []byte {
		a := kmsg.NewConsumerMemberAssignment()
		a.Version = 1
		a.Topics = []kmsg.ConsumerMemberAssignmentTopic{{Topic: "a", Partitions: partitions}}
		return a.AppendTo(nil)
	}
	return ClassicGroup{Generation: 7, Protocol: "range", Members: []ClassicMember{
		{ID: "c1", Client: Client{"x", "/1"}, SessionTimeout: 10 * time.Second, RebalanceTimeout: 20 * time.Second, Protocols: protocols("a"), Assignment: assigned(0, 1)},
		{ID: "c2", InstanceID: ptr("i"), Client: Client{"y", "/2"}, SessionTimeout: 10 * time.Second, RebalanceTimeout: 20 * time.Second, Protocols: protocols("a"), Assignment: assigned(2, 3)},
	}}
}

// A classic group becomes a consumer group when a consumer joins it, and a classic one again when that has left.
func TestThereAndBack(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 4))
	g, records, err := FromClassic("g", w.o, classicGroup(), w.topics, w.now)
	if err != nil {
		t.Fatal(err)
	}
	w.g = g
	w.keep(records)
	if g.State() != "Stable" || !g.Downgradable() {
		t.Errorf("from a classic group it is %s, downgradable %t", g.State(), g.Downgradable())
	}
	if back := g.ToClassic(w.topics); back.Rebalance || !reflect.DeepEqual(back.Members, classicGroup().Members) || back.Generation != 7 {
		t.Errorf("from a classic group and back it is\n%+v, was\n%+v", back, classicGroup())
	}
	w.want(join("m1", "a"), "epoch 8 has")
	if w.g.dump() != replayed(t, w.o, w.log).dump() {
		t.Error("the log has another group")
	}
	if w.g.Downgradable() {
		t.Error("a group with a consumer is downgradable")
	}
	w.wantBeat("c1", 7, 27)
	r := classicJoin("c2", []string{"a"}) // an eager one: it has given up all
	r.InstanceID, r.Protocols = ptr("i"), r.Protocols[1:]
	if resp := w.sendJoin(r); resp.ErrorCode != 0 || resp.Generation != 8 {
		t.Fatalf("joined with %+v", resp)
	}
	w.want(beat("m1", 8), "epoch 8 has 1:[3]")

	w.want(beat("m1", -1), "epoch -1")
	if !w.g.Downgradable() {
		t.Error("a group of classic members is not downgradable")
	}
	back := w.g.ToClassic(w.topics)
	if !back.Rebalance || back.Generation != 9 || len(back.Members) != 2 {
		t.Errorf("it is %+v", back)
	}
	if got := assignmentText(t, back.Members[1].Assignment); got != "has a:[2]" {
		t.Errorf("the second member %s", got)
	}
}

func TestWhatCannotBeUpgraded(t *testing.T) {
	for why, change := range map[string]func(*ClassicGroup, *Options){
		"policy":          func(_ *ClassicGroup, o *Options) { o.Migration = DowngradeOnly },
		"too big":         func(_ *ClassicGroup, o *Options) { o.MaxSize = 1 },
		"no subscription": func(g *ClassicGroup, _ *Options) { g.Members[1].Protocols[0].Metadata = []byte{9} },
		"no protocol":     func(g *ClassicGroup, _ *Options) { g.Members[1].Protocols = nil },
		"no assignment":   func(g *ClassicGroup, _ *Options) { g.Members[1].Assignment = []byte{9} },
		"an assignor of its own": func(g *ClassicGroup, _ *Options) {
			a := kmsg.ConsumerMemberAssignment{UserData: []byte("mine")}
			g.Members[1].Assignment = a.AppendTo(nil)
		},
	} {
		g, o := classicGroup(), Options{}
		change(&g, &o)
		if _, _, err := FromClassic("g", o, g, topics("a", 4), start); !errors.Is(err, ErrNotUpgradable) {
			t.Errorf("%s: %v", why, err)
		}
	}
}

// An assignor may have given a partition to two. One of them has it.
func TestUpgradeOfADoubleAssignment(t *testing.T) {
	c := classicGroup()
	c.Members[1].Assignment = c.Members[0].Assignment
	g, _, err := FromClassic("g", Options{}, c, topics("a", 4), start)
	if err != nil {
		t.Fatal(err)
	}
	if len(g.members["c1"].assigned[topicID(1)]) != 2 || len(g.members["c2"].assigned) != 0 {
		t.Errorf("they have %v and %v", g.members["c1"].assigned, g.members["c2"].assigned)
	}
}

func TestPolicyOfDowngrades(t *testing.T) {
	for policy, want := range map[MigrationPolicy]bool{Bidirectional: true, DowngradeOnly: true, UpgradeOnly: false, MigrationDisabled: false} {
		g, _, err := FromClassic("g", Options{}, classicGroup(), topics("a", 4), start)
		if err != nil {
			t.Fatal(err)
		}
		g.Configure(Options{Migration: policy})
		if g.Downgradable() != want {
			t.Errorf("policy %d: %t", policy, !want)
		}
		g.Configure(Options{Migration: policy, ClassicMaxSize: 1})
		if g.Downgradable() {
			t.Error("it is too big for a classic group")
		}
	}
}

// A static member changes its protocol, either way: its instance keeps the partitions.
func TestAStaticMemberChangesItsProtocol(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 2))
	w.want(with(join("s1", "a"), instance("i1")), "epoch 2 has 1:[0 1]")
	r := classicJoin("", []string{"a"})
	r.InstanceID = ptr("i1")
	resp := w.sendJoin(r)
	if resp.ErrorCode != 0 || resp.Generation != 2 || resp.MemberID != "made-1" {
		t.Fatalf("joined with %+v", resp)
	}
	if !w.g.Downgradable() || w.g.ToClassic(w.topics).Rebalance {
		t.Error("it is not the stable classic group that it could be")
	}
	w.want(with(beat("s1", 2), instance("i1")), "error 82")
	w.want(with(join("s2", "a"), instance("i1")), "epoch 2 has 1:[0 1]")
	w.wantBeat("made-1", 2, 25)
	w.pass(30 * time.Second) // The timers of the classic member are gone.
	w.want(with(beat("s2", 2), instance("i1")), "epoch 2")
}
