package group

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/cluster/group/consumer"
	"github.com/everlog/everlog/tier/record"
)

// Machine is the group coordinator of one partition of __consumer_offsets. It implements coordinator.Machine: it is pure,
// and one caller at a time.
type Machine struct {
	o      Options
	topics Topics

	// own are the options of single consumer groups; nil if all have the same.
	own func(group string) consumer.Options

	groups map[string]*group
	names  names // of the topics that offsets are of
	timers timers
	check  timer // for offsets to expire

	// transactions under way that commit offsets, and the groups they do it for.
	transactions map[record.ProducerID]map[*group]struct{}
	// written counts the offset records of the log: of two commits of one partition, the later in the log holds.
	written uint64
	// swept says that all offsets were compared with Topics since loading.
	swept bool
	// nameless says that offsets may be among them whose record names no topic id.
	nameless bool

	// Of the step under way.
	now     time.Time
	batch   []coordinator.Record // not in effects yet
	effects coordinator.Effects
}

// group is what a group id stands for: offsets, and the membership of one of the two protocols.
type group struct {
	id       string
	classic  *classic        // nil if consumer is not
	consumer *consumer.Group // nil if classic is not
	wake     timer           // of consumer
	emptied  int64           // when consumer lost its last member, milliseconds; 0 while it has some

	offsets offsets
	// pending are the offsets of transactions under way, by producer; unstable counts for each partition how many there are.
	pending  map[record.ProducerID]map[partition]committed
	unstable map[partition]int
}

// New returns a machine without groups, for a log to be replayed into. topics is replaced by TopicsChanged.
func New(o Options, topics Topics) *Machine {
	if o.NewID == nil {
		panic("group: Options.NewID is needed")
	}
	m := &Machine{
		o: o.withDefaults(), topics: topics,
		groups: map[string]*group{}, names: names{}, transactions: map[record.ProducerID]map[*group]struct{}{},
	}
	m.check.due = (*retention)(m)
	return m
}

// Step implements coordinator.Machine. Events and answers: see the event types.
func (m *Machine) Step(to coordinator.Token, event any, now time.Time) coordinator.Effects {
	m.now = now
	switch e := event.(type) {
	case Request:
		m.request(to, e)
	case FetchOffsets:
		m.reply(to, m.fetchOffsets(e))
	case Describe:
		m.reply(to, m.describe(e))
	case DescribeConsumer:
		m.reply(to, m.describeConsumer(e))
	case List:
		m.reply(to, m.list(e))
	case Delete:
		m.reply(to, m.delete(e.Group))
	case EndTxn:
		m.endTxn(e.ProducerID, e.Commit)
		m.reply(to, nil)
	case Configured:
		m.configure(e.Of)
		m.reply(to, nil)
	case TopicsChanged:
		m.topicsChanged(e.Topics)
		m.reply(to, nil)
	default:
		panic(fmt.Sprintf("group: unknown event %T", event))
	}
	return m.take()
}

// call is a request to be answered, in a later step perhaps.
type call struct {
	to      coordinator.Token
	version int16
}

func (m *Machine) request(to coordinator.Token, r Request) {
	c := call{to, r.Version}
	switch body := r.Body.(type) {
	case *kmsg.JoinGroupRequest:
		m.joinGroup(c, r.Client, body)
	case *kmsg.SyncGroupRequest:
		m.syncGroup(c, body)
	case *kmsg.HeartbeatRequest:
		m.answer(c, &kmsg.HeartbeatResponse{ErrorCode: m.heartbeat(body)})
	case *kmsg.LeaveGroupRequest:
		m.answer(c, m.leaveGroup(c, body))
	case *kmsg.OffsetCommitRequest:
		m.answer(c, m.commitOffsets(c, body))
	case *kmsg.TxnOffsetCommitRequest:
		m.answer(c, m.commitTxnOffsets(c, body))
	case *kmsg.OffsetDeleteRequest:
		m.answer(c, m.deleteOffsets(body))
	case *kmsg.ConsumerGroupHeartbeatRequest:
		m.answer(c, m.consumerHeartbeat(r.Client, body))
	default:
		panic(fmt.Sprintf("group: unknown request %T", body))
	}
}

// Deadline implements coordinator.Machine.
func (m *Machine) Deadline() time.Time {
	if len(m.timers) == 0 {
		return time.Time{}
	}
	return m.timers[0].at
}

// Tick implements coordinator.Machine.
func (m *Machine) Tick(now time.Time) coordinator.Effects {
	m.now = now
	for t := m.timers.next(now); t != nil; t = m.timers.next(now) {
		t.due.expire(m)
	}
	return m.take()
}

// answer replies with a response of the call's version.
func (m *Machine) answer(c call, resp kmsg.Response) {
	resp.SetVersion(c.version)
	m.reply(c.to, resp)
}

func (m *Machine) reply(to coordinator.Token, value any) {
	m.effects.Replies = append(m.effects.Replies, coordinator.Reply{To: to, Value: value})
}

// write adds records to the batch of this step.
func (m *Machine) write(records ...coordinator.Record) {
	m.batch = append(m.batch, records...)
}

// maxRecords of one batch, of the steps that go through all groups.
const maxRecords = 1000

// cut ends the batch of this step if it is long, and begins another.
func (m *Machine) cut() {
	if len(m.batch) >= maxRecords {
		m.effects.Append = append(m.effects.Append, coordinator.Batch{Records: m.batch})
		m.batch = nil
	}
}

// take ends a step.
func (m *Machine) take() coordinator.Effects {
	if len(m.batch) > 0 {
		m.effects.Append = append(m.effects.Append, coordinator.Batch{Records: m.batch})
	}
	e := m.effects
	m.batch, m.effects = nil, coordinator.Effects{}
	return e
}

// group returns the group of an id, nil if there is none.
func (m *Machine) group(id string) *group { return m.groups[id] }

// create makes the group of an id that has none: a classic one without members.
func (m *Machine) create(id string) *group {
	g := &group{id: id}
	g.classic = m.newClassic(g)
	m.groups[id] = g
	return g
}

// remove forgets a group, which has no members and of which all offsets are removed.
func (m *Machine) remove(g *group) {
	m.dropMembership(g)
	m.dropOffsets(g)
	delete(m.groups, g.id)
}

// dropMembership stops what runs for the members of the group, which is about to get another membership or none.
func (m *Machine) dropMembership(g *group) {
	if g.classic != nil {
		m.stopClassic(g.classic)
	}
	m.timers.stop(&g.wake)
	g.classic, g.consumer = nil, nil
}

// sorted are the groups in order of their ids: what is done for all is done in the same order in every run.
func (m *Machine) sorted() []*group {
	all := make([]*group, 0, len(m.groups))
	for _, id := range slices.Sorted(maps.Keys(m.groups)) {
		all = append(all, m.groups[id])
	}
	return all
}
