package group

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

// TestRandom runs clients of every kind, well and ill behaved, against a machine whose answers get lost and whose log loses
// its end in crashes. EVERLOG_GROUP_STEPS says how many steps in all, EVERLOG_GROUP_SEED where to begin.
//
// Held: a group has one generation at a time, it only grows, all of it agree on leader and protocol, and its leader knows
// all of it; nobody gets an assignment but what the leader said, and nobody who is not of the generation, has left it or
// was silent for a session gets anything or commits; nobody commits from outside while there is a member; committed
// offsets are what was promised, after transactions, deletions, retention, deleted topics and crashes; every call is
// answered, once; a machine that replays the log is the machine that wrote it; once clients behave, groups become stable.
func TestRandom(t *testing.T) {
	steps, seed := number(t, "EVERLOG_GROUP_STEPS", 20_000), uint64(number(t, "EVERLOG_GROUP_SEED", 1))
	total := map[string]int{}
	for done := 0; done < steps; done += episode {
		w, failed := run(t, seed, nil)
		if failed != "" {
			var lines []string
			run(t, seed, func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) })
			t.Fatalf("EVERLOG_GROUP_SEED=%d: %s\n%s", seed, failed, strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
		for what, n := range w.counts {
			total[what] += n
		}
		seed++
	}
	for _, what := range []string{
		"generations", "assignments", "replaced", "commits", "outside commits", "transactions", "aborts", "deleted offsets", "deleted groups", "expired",
		"gone with topics", "crashes", "lost batches", "replayed", "upgraded", "downgraded", "stable", "consumer heartbeats", "rebalance in progress", "fenced",
	} {
		if total[what] < steps/10_000 {
			t.Errorf("%q happened %d times: the test does not reach what it should", what, total[what])
		}
	}
	t.Log(steps, "steps:", total)
}

// episode is how many steps a world lives.
const episode = 2000

func number(t *testing.T, env string, otherwise int) int {
	s := os.Getenv(env)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// failure is what a world panics with when something does not hold.
type failure string

// world is clients, a machine and its log.
type world struct {
	*bench
	rng    *rand.Rand
	trace  func(string, ...any)
	counts map[string]int
	model  *model
	ids    int

	actors    []*actor
	calls     map[coordinator.Token]*sent
	committed int // of the log
	marks     []mark
	out       []delivery
}

// mark is a place in the log that a crash may go back to, and what was promised there.
type mark struct {
	pos   int
	model *model
}

// delivery is an answer, which leaves when the log is committed up to pos.
type delivery struct {
	pos   int
	reply coordinator.Reply
}

// sent is a call under way.
type sent struct {
	by   *actor
	body any
}

const (
	worldSession   = 10 * time.Second
	worldRetention = 30 * time.Minute
)

func run(t *testing.T, seed uint64, trace func(string, ...any)) (w *world, failed string) {
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(failure)
			if !ok {
				panic(r)
			}
			failed = string(f)
		}
	}()
	if trace == nil {
		trace = func(string, ...any) {}
	}
	w = &world{
		rng: rand.New(rand.NewPCG(seed, 0)), trace: trace, counts: map[string]int{}, model: newModel(), calls: map[coordinator.Token]*sent{},
	}
	o := Options{
		NewID: func() string { w.ids++; return fmt.Sprint(w.ids) }, MaxSize: 5,
		OffsetsRetention: worldRetention, RetentionCheckInterval: time.Minute, NewMemberTimeout: time.Minute,
	}
	w.bench = newBench(t, o)
	w.marks = []mark{{0, newModel()}}
	w.step("topics", func() { w.start(nil, TopicsChanged{w.topics}) })
	for i := range 8 {
		w.actors = append(w.actors, w.newActor(i))
	}
	for range episode {
		w.act()
	}
	w.calm()
	return w, ""
}

func (w *world) fail(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

func (w *world) must(err error) {
	if err != nil {
		w.fail("%v", err)
	}
}

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

// step does something, and sees what came of it.
func (w *world) step(what string, fn func()) {
	before := len(w.log)
	fn()
	w.trace("%8.3f %s", w.now.Sub(start).Seconds(), what)
	w.observe(before)
	w.marks = append(w.marks, mark{len(w.log), w.model.promises()})
}

// start gives the machine an event of an actor.
func (w *world) start(by *actor, event any) coordinator.Token {
	w.last++
	body := event
	if r, ok := event.(Request); ok {
		body = r.Body
	}
	w.calls[w.last] = &sent{by, body}
	w.effects(w.m.Step(w.last, event, w.now), w.last)
	return w.last
}

// effects takes the effects of a step on behalf of a call.
func (w *world) effects(e coordinator.Effects, of coordinator.Token) {
	for _, b := range e.Append {
		if len(b.Records) == 0 {
			w.fail("an empty batch")
		}
		for _, r := range b.Records {
			w.log = append(w.log, coordinator.Entry{Key: r.Key, Value: r.Value, Transactional: b.Transactional, ProducerID: b.ProducerID})
		}
	}
	// The leader's assignment is the first of its step: the others of the generation get theirs with it.
	slices.SortStableFunc(e.Replies, func(a, b coordinator.Reply) int {
		if a.To == of {
			return -1
		} else if b.To == of {
			return 1
		}
		return 0
	})
	for _, r := range e.Replies {
		c := w.calls[r.To]
		if c == nil {
			w.fail("call %d is answered twice", r.To)
		}
		w.trace("         answer to %d: %T %+v", r.To, r.Value, r.Value)
		w.hold(c, r.Value)
		delete(w.calls, r.To)
		w.out = append(w.out, delivery{len(w.log), r})
		if c.by != nil {
			c.by.answer(r.Value, c.body)
		}
	}
}

// observe checks what a step wrote: an offset goes only for a reason, and generations of groups that go are over.
func (w *world) observe(from int) {
	for _, e := range w.log[from:] {
		if e.Marker || e.Value != nil {
			continue
		}
		switch e.Key[1] {
		case offsetKey:
			var k kmsg.OffsetCommitKey
			w.must(k.ReadFrom(e.Key))
			s := spot{k.Group, partition{k.Topic, k.Partition}}
			p, ok := w.model.offsets[s]
			if !ok {
				continue // removed with what was asked for
			}
			id, _, exists := w.topics.ByName(k.Topic)
			switch {
			case !exists || id != p.topic:
				w.counts["gone with topics"]++
			case w.now.Sub(p.at) < worldRetention || w.model.unstable(s):
				w.fail("the offset of %+v, committed at %v, is removed", s, p.at.Sub(start))
			default:
				w.counts["expired"]++
			}
			w.model.remove(s)
		case groupKey:
			var k kmsg.GroupMetadataKey
			w.must(k.ReadFrom(e.Key))
			delete(w.model.groups, k.Group)
		}
	}
}

// act is one thing that happens.
func (w *world) act() {
	switch n := w.rng.IntN(100); {
	case n < 70:
		w.actors[w.rng.IntN(len(w.actors))].act()
	case n < 82:
		w.passTime(time.Duration(w.rng.IntN(4000)) * time.Millisecond)
	case n < 83:
		w.passTime(time.Duration(w.rng.IntN(3600)) * time.Second)
	case n < 90:
		w.checkOffsets(w.m)
	case n < 93:
		w.endTransaction(int64(w.rng.IntN(3)), w.chance(70))
	case n < 94:
		w.changeTopics()
	case n < 95:
		w.removeOffset()
	case n < 96:
		w.removeGroup()
	case n < 97:
		w.crash()
	default:
		w.checkReplay()
	}
	if w.chance(60) {
		w.commitLog()
	}
}

// passTime lets time pass with all that is due in it.
func (w *world) passTime(d time.Duration) {
	end := w.now.Add(d)
	for at := w.m.Deadline(); !at.IsZero() && !at.After(end); at = w.m.Deadline() {
		if at.After(w.now) {
			w.now = at
		}
		w.step("tick", func() { w.effects(w.m.Tick(w.now), 0) })
	}
	w.now = end
}

// commitLog makes all of the log committed: its answers leave.
func (w *world) commitLog() {
	w.committed = len(w.log)
	w.marks, w.out = w.marks[len(w.marks)-1:], nil
}

// crash loses the end of the log that is not committed, and every call with it.
func (w *world) crash() {
	to := w.marks[w.rng.IntN(len(w.marks))]
	if to.pos < len(w.log) {
		w.counts["lost batches"]++
	}
	w.counts["crashes"]++
	w.trace("crash: the log goes back from %d to %d", len(w.log), to.pos)
	w.log = w.log[:to.pos:to.pos]
	w.marks = []mark{to}
	w.model = to.model.promises()
	w.calls, w.out = map[coordinator.Token]*sent{}, nil
	for _, a := range w.actors {
		a.lost(to.pos)
	}
	w.model.restart(w.log, w.now)
	w.m = w.replay(w.compacted())
	w.step("loaded", func() { w.effects(w.m.Loaded(w.now), 0) })
	w.step("topics", func() { w.start(nil, TopicsChanged{w.topics}) })
	w.model.dropForeign(w.topics)
	w.checkOffsets(w.m)
}

// compacted is the log after the cleaner has been at it, up to somewhere.
func (w *world) compacted() []coordinator.Entry {
	return compact(w.log, w.rng.IntN(len(w.log)+1), func() bool { return w.chance(50) })
}

func (w *world) replay(log []coordinator.Entry) *Machine {
	m := New(w.o, w.topics)
	for i, e := range log {
		e.Key, e.Value = slices.Clone(e.Key), slices.Clone(e.Value)
		w.must(m.Replay(record.Offset(i), e))
		clear(e.Key)
		clear(e.Value)
	}
	return m
}

var worldGroups = []string{"one", "two", "connect", "mixed", "simple"}

// checkOffsets compares all offsets with those promised.
func (w *world) checkOffsets(m *Machine) {
	for _, group := range worldGroups {
		for _, stable := range []bool{false, true} {
			req := kmsg.OffsetFetchRequestGroup{Group: group, MemberEpoch: -1}
			for topic := range w.topics.(topicMap) {
				req.Topics = append(req.Topics, kmsg.OffsetFetchRequestGroupTopic{Topic: topic, Partitions: []int32{0, 1, 2}})
			}
			got := m.fetchOffsets(FetchOffsets{Version: 9, RequireStable: stable, Group: req})
			if got.ErrorCode != 0 {
				w.fail("offsets of %s: error %d", group, got.ErrorCode)
			}
			for _, t := range got.Topics {
				for _, p := range t.Partitions {
					s := spot{group, partition{t.Topic, p.Partition}}
					want := int64(-1)
					if o, ok := w.model.offsets[s]; ok {
						want = o.offset
					}
					if stable && w.model.unstable(s) {
						if p.ErrorCode == 0 {
							w.fail("%+v is stable, but a transaction is under way", s)
						}
					} else if p.Offset != want || p.ErrorCode != 0 {
						w.fail("%+v is %d (error %d), promised was %d", s, p.Offset, p.ErrorCode, want)
					}
				}
			}
		}
	}
}

// checkReplay compares the machine with one that replays its log, where the log says all.
func (w *world) checkReplay() {
	w.counts["replayed"]++
	r := w.replay(w.compacted())
	w.checkOffsets(r)
	for _, group := range worldGroups {
		here, there := w.m.describe(Describe{Group: group, Version: 6}), r.describe(Describe{Group: group, Version: 6})
		if here.State != "PreparingRebalance" && here.State != "CompletingRebalance" && !reflect.DeepEqual(normal(here), normal(there)) {
			w.fail("%s is\n%+v, replayed\n%+v", group, here, there)
		}
		a, b := w.m.describeConsumer(DescribeConsumer{group}), r.describeConsumer(DescribeConsumer{group})
		a.ErrorMessage, b.ErrorMessage = nil, nil
		if !reflect.DeepEqual(a, b) {
			w.fail("%s is\n%+v, replayed\n%+v", group, a, b)
		}
	}
}

// normal makes nil and empty the same. A simple group without offsets is gone once the log is compacted.
func normal(d kmsg.DescribeGroupsResponseGroup) kmsg.DescribeGroupsResponseGroup {
	if d.State == "Dead" || d.State == "Empty" && d.ProtocolType == "" {
		return kmsg.DescribeGroupsResponseGroup{Group: d.Group}
	}
	for i := range d.Members {
		if m := &d.Members[i]; len(m.MemberAssignment) == 0 {
			m.MemberAssignment = nil
		}
		d.Members[i].ProtocolMetadata = bytes.Clone(d.Members[i].ProtocolMetadata)
	}
	return d
}

func (w *world) endTransaction(id int64, commit bool) {
	w.step(fmt.Sprintf("transaction of %d ends: %v", id, commit), func() {
		w.log = append(w.log, coordinator.Entry{Marker: true, Commit: commit, ProducerID: record.ProducerID(id)})
		w.model.end(id, commit)
		w.start(nil, EndTxn{ProducerID: record.ProducerID(id), Commit: commit})
		w.counts["transactions"]++
		if !commit {
			w.counts["aborts"]++
		}
	})
}

// changeTopics deletes topic b, or creates it.
func (w *world) changeTopics() {
	topics := topicMap{"a": {idA, 3}}
	if _, _, ok := w.topics.ByName("b"); !ok {
		w.ids++
		topics["b"] = testTopic{[16]byte{9, byte(w.ids >> 8), byte(w.ids)}, 3}
	}
	w.topics = topics
	w.step("topics change", func() { w.start(nil, TopicsChanged{topics}) })
	for s, p := range w.model.offsets {
		if id, _, _ := topics.ByName(s.topic); id != p.topic {
			w.fail("the offset of %+v is still there", s)
		}
	}
	w.model.dropForeign(topics)
	w.marks[len(w.marks)-1].model = w.model.promises()
}

func (w *world) removeOffset() {
	s := w.spot()
	w.step(fmt.Sprintf("delete offset %+v", s), func() {
		w.start(nil, w.request(0, &kmsg.OffsetDeleteRequest{Group: s.group, Topics: []kmsg.OffsetDeleteRequestTopic{
			{Topic: s.topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: s.index}}}}}))
	})
}

func (w *world) removeGroup() {
	group := worldGroups[w.rng.IntN(len(worldGroups))]
	w.step("delete group "+group, func() { w.start(nil, Delete{group}) })
}

func (w *world) spot() spot {
	topic := "a"
	if _, _, ok := w.topics.ByName("b"); ok && w.chance(50) {
		topic = "b"
	}
	return spot{worldGroups[w.rng.IntN(len(worldGroups))], partition{topic, w.rng.Int32N(3)}}
}
