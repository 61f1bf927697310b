package group

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

// topicMap is Topics by name.
type topicMap map[string]testTopic

type testTopic struct {
	id         [16]byte
	partitions int32
}

func (t topicMap) ByName(name string) ([16]byte, int32, bool) {
	topic, ok := t[name]
	return topic.id, topic.partitions, ok
}

func (t topicMap) ByID(id [16]byte) (string, int32, bool) {
	for name, topic := range t {
		if topic.id == id {
			return name, topic.partitions, true
		}
	}
	return "", 0, false
}

func (t topicMap) Names(yield func(string) bool) {
	for name := range t {
		if !yield(name) {
			return
		}
	}
}

// bench runs a machine as a shard does, and keeps its log.
type bench struct {
	t       testing.TB
	o       Options
	topics  Topics
	m       *Machine
	now     time.Time
	last    coordinator.Token
	answers map[coordinator.Token]any
	log     []coordinator.Entry
}

var (
	idA    = [16]byte{1}
	idB    = [16]byte{2}
	idC    = [16]byte{3}
	start  = time.UnixMilli(1_700_000_000_000)
	second = time.Second
)

func newBench(t testing.TB, o Options) *bench {
	n := 0
	if o.NewID == nil {
		o.NewID = func() string { n++; return fmt.Sprintf("id%d", n) }
	}
	b := &bench{
		t: t, o: o, now: start, answers: map[coordinator.Token]any{},
		topics: topicMap{"a": {idA, 8}, "b": {idB, 8}},
	}
	b.m = New(o, b.topics)
	b.take(b.m.Loaded(b.now))
	return b
}

// take does what effects ask for.
func (b *bench) take(e coordinator.Effects) {
	b.t.Helper()
	for _, batch := range e.Append {
		if len(batch.Records) == 0 {
			b.t.Fatal("an empty batch")
		}
		for _, r := range batch.Records {
			b.log = append(b.log, coordinator.Entry{
				Key: r.Key, Value: r.Value, Timestamp: b.now.UnixMilli(),
				Transactional: batch.Transactional, ProducerID: batch.ProducerID, ProducerEpoch: batch.ProducerEpoch,
			})
		}
	}
	for _, r := range e.Replies {
		if _, twice := b.answers[r.To]; twice || r.To == 0 || r.To > b.last {
			b.t.Fatalf("call %d is answered twice, or there is none", r.To)
		}
		b.answers[r.To] = r.Value
	}
}

// start gives the machine an event.
func (b *bench) start(event any) coordinator.Token {
	b.t.Helper()
	b.last++
	b.take(b.m.Step(b.last, event, b.now))
	return b.last
}

// do gives the machine an event that is answered at once.
func (b *bench) do(event any) any {
	b.t.Helper()
	return b.answer(b.start(event))
}

func (b *bench) answer(to coordinator.Token) any {
	b.t.Helper()
	v, ok := b.answers[to]
	if !ok {
		b.t.Fatalf("call %d is not answered", to)
	}
	return v
}

func (b *bench) parked(to coordinator.Token) bool {
	_, ok := b.answers[to]
	return !ok
}

// pass lets time pass, with what is due in it.
func (b *bench) pass(d time.Duration) {
	b.t.Helper()
	end := b.now.Add(d)
	for at := b.m.Deadline(); !at.IsZero() && !at.After(end); at = b.m.Deadline() {
		if at.After(b.now) {
			b.now = at
		}
		b.take(b.m.Tick(b.now))
	}
	b.now = end
}

// passUntil lets time pass until a call is answered.
func (b *bench) passUntil(call coordinator.Token) {
	b.t.Helper()
	for n := 0; b.parked(call); n++ {
		if b.pass(time.Second); n > 3600 {
			b.t.Fatalf("call %d is not answered", call)
		}
	}
}

// endTxn appends a marker and says so.
func (b *bench) endTxn(id int64, commit bool) {
	b.t.Helper()
	b.log = append(b.log, coordinator.Entry{Marker: true, Commit: commit, ProducerID: record.ProducerID(id)})
	b.do(EndTxn{ProducerID: record.ProducerID(id), Commit: commit})
}

// compact is what the cleaner makes of a log whose first entries it has been at: of each key the last record is there,
// tombstones of groups may be gone. Keys of transactions are left alone: without a tombstone, what was pending before it
// is until the transaction ends, as in Kafka.
func compact(log []coordinator.Entry, clean int, drop func() bool) []coordinator.Entry {
	var kept []coordinator.Entry
	seen, transactional := map[string]bool{}, map[string]bool{}
	for _, e := range log[:clean] {
		transactional[string(e.Key)] = transactional[string(e.Key)] || e.Transactional
	}
	for i := clean - 1; i >= 0; i-- {
		e := log[i]
		if !e.Marker && !transactional[string(e.Key)] {
			if seen[string(e.Key)] {
				continue
			}
			seen[string(e.Key)] = true
			if e.Value == nil && e.Key[1] != offsetKey && drop() {
				continue
			}
		}
		kept = append(kept, e)
	}
	slices.Reverse(kept)
	return append(kept, log[clean:]...)
}

// cleaned is a machine restored from the log after the cleaner has been at all of it.
func (b *bench) cleaned() *bench {
	b.t.Helper()
	c := *b
	c.log = compact(b.log, len(b.log), func() bool { return true })
	return c.replayed()
}

// replayed is a machine restored from the log.
func (b *bench) replayed() *bench {
	b.t.Helper()
	r := &bench{t: b.t, o: b.o, topics: b.topics, now: b.now, last: b.last, answers: map[coordinator.Token]any{}, log: b.log}
	r.m = New(b.o, b.topics)
	for i, e := range b.log {
		e.Key, e.Value = slices.Clone(e.Key), slices.Clone(e.Value)
		if err := r.m.Replay(record.Offset(i), e); err != nil {
			b.t.Fatal(err)
		}
		clear(e.Key)
		clear(e.Value)
	}
	r.take(r.m.Loaded(r.now))
	return r
}

func (b *bench) request(version int16, body kmsg.Request) Request {
	body.SetVersion(version)
	return Request{Client: Client{ID: "client", Host: "/127.0.0.1"}, Body: body, Version: version}
}

func ptr[T any](v T) *T { return &v }

// subscription is a consumer's metadata (ConsumerProtocolSubscription v1).
func subscription(topics ...string) []byte {
	return (&kmsg.ConsumerMemberMetadata{Version: 1, Topics: topics}).AppendTo(nil)
}

type joinOption func(*kmsg.JoinGroupRequest)

func withInstance(id string) joinOption {
	return func(r *kmsg.JoinGroupRequest) { r.InstanceID = &id }
}

func withMember(id string) joinOption { return func(r *kmsg.JoinGroupRequest) { r.MemberID = id } }

func withType(s string) joinOption { return func(r *kmsg.JoinGroupRequest) { r.ProtocolType = s } }

func withProtocols(names ...string) joinOption {
	return func(r *kmsg.JoinGroupRequest) {
		r.Protocols = nil
		for _, n := range names {
			r.Protocols = append(r.Protocols, kmsg.JoinGroupRequestProtocol{Name: n, Metadata: subscription("a")})
		}
	}
}

func withMetadata(b []byte) joinOption {
	return func(r *kmsg.JoinGroupRequest) { r.Protocols[0].Metadata = b }
}

func withTimeouts(session, rebalance time.Duration) joinOption {
	return func(r *kmsg.JoinGroupRequest) {
		r.SessionTimeoutMillis, r.RebalanceTimeoutMillis = int32(session/time.Millisecond), int32(rebalance/time.Millisecond)
	}
}

// join starts a JoinGroup of a consumer that subscribes to topic a.
func (b *bench) join(version int16, group string, options ...joinOption) coordinator.Token {
	b.t.Helper()
	req := &kmsg.JoinGroupRequest{
		Group: group, SessionTimeoutMillis: 10_000, RebalanceTimeoutMillis: 60_000, ProtocolType: "consumer",
		Protocols: []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: subscription("a")}},
	}
	for _, o := range options {
		o(req)
	}
	return b.start(b.request(version, req))
}

func (b *bench) joined(to coordinator.Token) *kmsg.JoinGroupResponse {
	b.t.Helper()
	return b.answer(to).(*kmsg.JoinGroupResponse)
}

// enter joins a new member with an id it is given first.
func (b *bench) enter(group string, options ...joinOption) (string, coordinator.Token) {
	b.t.Helper()
	first := b.joined(b.join(9, group, options...))
	b.code(kerr.MemberIDRequired, first.ErrorCode)
	return first.MemberID, b.join(9, group, append(options, withMember(first.MemberID))...)
}

func (b *bench) sync(group, member string, generation int32, assignments ...kmsg.SyncGroupRequestGroupAssignment) coordinator.Token {
	b.t.Helper()
	return b.start(b.request(4, &kmsg.SyncGroupRequest{
		Group: group, MemberID: member, Generation: generation, GroupAssignment: assignments,
	}))
}

func (b *bench) synced(to coordinator.Token) *kmsg.SyncGroupResponse {
	b.t.Helper()
	return b.answer(to).(*kmsg.SyncGroupResponse)
}

func assignTo(member, what string) kmsg.SyncGroupRequestGroupAssignment {
	return kmsg.SyncGroupRequestGroupAssignment{MemberID: member, MemberAssignment: []byte(what)}
}

// stableGroup makes a group with n dynamic members; the first leads.
func (b *bench) stableGroup(group string, n int, options ...joinOption) ([]string, int32) {
	b.t.Helper()
	var members []string
	var calls []coordinator.Token
	for range n {
		id, call := b.enter(group, options...)
		members, calls = append(members, id), append(calls, call)
	}
	b.passUntil(calls[0])
	var assignments []kmsg.SyncGroupRequestGroupAssignment
	for _, id := range members {
		assignments = append(assignments, assignTo(id, "to "+id))
	}
	generation := b.joined(calls[0]).Generation
	b.code(nil, b.synced(b.sync(group, members[0], generation, assignments...)).ErrorCode)
	for _, id := range members[1:] {
		b.code(nil, b.synced(b.sync(group, id, generation)).ErrorCode)
	}
	b.inState(group, "Stable")
	return members, generation
}

func (b *bench) heartbeat(group, member string, generation int32) int16 {
	b.t.Helper()
	return b.do(b.request(4, &kmsg.HeartbeatRequest{Group: group, MemberID: member, Generation: generation})).(*kmsg.HeartbeatResponse).ErrorCode
}

func (b *bench) leave(group string, members ...kmsg.LeaveGroupRequestMember) *kmsg.LeaveGroupResponse {
	b.t.Helper()
	return b.do(b.request(5, &kmsg.LeaveGroupRequest{Group: group, Members: members})).(*kmsg.LeaveGroupResponse)
}

// code fails the test if a code is not err's.
func (b *bench) code(err *kerr.Error, code int16) {
	b.t.Helper()
	want := int16(0)
	if err != nil {
		want = err.Code
	}
	if code != want {
		b.t.Fatalf("error code %d (%v), want %d", code, kerr.ErrorForCode(code), want)
	}
}

func (b *bench) describe(group string) kmsg.DescribeGroupsResponseGroup {
	b.t.Helper()
	return b.do(Describe{Group: group, Version: 5}).(kmsg.DescribeGroupsResponseGroup)
}

func (b *bench) inState(group, state string) {
	b.t.Helper()
	if d := b.describe(group); d.State != state {
		b.t.Fatalf("group %s is %s, want %s", group, d.State, state)
	}
}

// commit commits offset of partition 0 of a topic; with generation -1 and no member from outside of the group.
func (b *bench) commit(version int16, group, member string, generation int32, topic string, offset int64) int16 {
	b.t.Helper()
	resp := b.do(b.request(version, &kmsg.OffsetCommitRequest{
		Group: group, MemberID: member, Generation: generation, RetentionTimeMillis: -1,
		Topics: []kmsg.OffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: offset, LeaderEpoch: 3}}}},
	})).(*kmsg.OffsetCommitResponse)
	return resp.Topics[0].Partitions[0].ErrorCode
}

func (b *bench) commitTxn(group string, producer int64, topic string, offset int64) int16 {
	b.t.Helper()
	resp := b.do(b.request(5, &kmsg.TxnOffsetCommitRequest{
		Group: group, ProducerID: producer, Generation: -1,
		Topics: []kmsg.TxnOffsetCommitRequestTopic{{Topic: topic, Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Offset: offset, LeaderEpoch: -1}}}},
	})).(*kmsg.TxnOffsetCommitResponse)
	return resp.Topics[0].Partitions[0].ErrorCode
}

// fetch is the committed offset of partition 0 of a topic, -1 for none.
func (b *bench) fetch(group, topic string, stable bool) (int64, int16) {
	b.t.Helper()
	resp := b.do(FetchOffsets{Version: 9, RequireStable: stable, Group: kmsg.OffsetFetchRequestGroup{
		Group: group, MemberEpoch: -1, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: topic, Partitions: []int32{0}}},
	}}).(kmsg.OffsetFetchResponseGroup)
	b.code(nil, resp.ErrorCode)
	p := resp.Topics[0].Partitions[0]
	return p.Offset, p.ErrorCode
}

func (b *bench) hasOffset(group, topic string, want int64) {
	b.t.Helper()
	if got, code := b.fetch(group, topic, false); got != want || code != 0 {
		b.t.Fatalf("offset of %s in %s: %d (error %d), want %d", topic, group, got, code, want)
	}
}
