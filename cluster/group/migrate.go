package group

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/cluster/group/consumer"
)

// Groups of KIP-848: what comes for them goes to cluster/group/consumer. A group changes its protocol while it has members
// (group.consumer.migration.policy): a consumer heartbeat that joins a classic group of consumers makes it a consumer group,
// and when the last member of the new protocol is gone it becomes classic again. In between it has members of both.
// Without members it is either, at once.

// consumerHeartbeat handles ConsumerGroupHeartbeat (key 68, v0-1; KIP-848, KIP-1082).
func (m *Machine) consumerHeartbeat(client Client, req *kmsg.ConsumerGroupHeartbeatRequest) *kmsg.ConsumerGroupHeartbeatResponse {
	g := m.group(req.Group)
	switch {
	case g != nil && g.consumer != nil:
		resp, records := g.consumer.Heartbeat(req, client, m.topics, m.now)
		m.write(records...)
		m.afterConsumer(g)
		return resp
	case req.MemberEpoch != 0:
		return m.strayHeartbeat(g, client, req)
	case g == nil || len(g.classic.members) == 0:
		return m.firstHeartbeat(g, client, req)
	case !g.classic.isConsumer():
		return notFound("Cannot upgrade classic group " + g.id + " to consumer group because the group does not use the consumer embedded protocol.")
	default:
		return m.upgrade(g, client, req)
	}
}

func notFound(why string) *kmsg.ConsumerGroupHeartbeatResponse {
	return &kmsg.ConsumerGroupHeartbeatResponse{ErrorCode: kerr.GroupIDNotFound.Code, ErrorMessage: &why}
}

// strayHeartbeat answers a member of no consumer group: what is wrong with the request itself comes first.
func (m *Machine) strayHeartbeat(g *group, client Client, req *kmsg.ConsumerGroupHeartbeatRequest) *kmsg.ConsumerGroupHeartbeatResponse {
	resp, _ := consumer.New(req.Group, m.consumerOptions(req.Group)).Heartbeat(req, client, m.topics, m.now)
	switch {
	case resp.ErrorCode != kerr.UnknownMemberID.Code:
		return resp
	case g == nil:
		return notFound("Consumer group " + req.Group + " not found.")
	default:
		return notFound("Group " + req.Group + " is not a consumer group.")
	}
}

// firstHeartbeat makes a consumer group where there is none, or one without members: of that only the offsets go on.
func (m *Machine) firstHeartbeat(g *group, client Client, req *kmsg.ConsumerGroupHeartbeatRequest) *kmsg.ConsumerGroupHeartbeatResponse {
	joined := consumer.New(req.Group, m.consumerOptions(req.Group))
	resp, records := joined.Heartbeat(req, client, m.topics, m.now)
	if resp.ErrorCode != 0 {
		return resp
	}
	if g == nil {
		g = m.create(joined.ID())
	} else {
		m.write(groupTombstone(g.id))
	}
	m.becomeConsumer(g, joined, records)
	return resp
}

// upgrade makes a consumer group of a classic one, for a member that speaks the new protocol. The others stay as they are,
// and learn from their next call that they are to join again.
func (m *Machine) upgrade(g *group, client Client, req *kmsg.ConsumerGroupHeartbeatRequest) *kmsg.ConsumerGroupHeartbeatResponse {
	k := g.classic
	upgraded, records, err := consumer.FromClassic(g.id, m.consumerOptions(g.id), k.forConsumer(), m.topics, m.now)
	if err != nil {
		return notFound("Cannot upgrade classic group " + g.id + " to consumer group: " + err.Error())
	}
	resp, more := upgraded.Heartbeat(req, client, m.topics, m.now)
	if resp.ErrorCode != 0 {
		return resp
	}
	for _, mem := range k.members {
		m.answerJoin(mem, &kmsg.JoinGroupResponse{Generation: -1, MemberID: mem.id, ErrorCode: kerr.RebalanceInProgress.Code})
		m.answerSync(mem, &kmsg.SyncGroupResponse{ErrorCode: kerr.RebalanceInProgress.Code})
	}
	m.write(groupTombstone(g.id))
	m.becomeConsumer(g, upgraded, append(records, more...))
	return resp
}

func (m *Machine) becomeConsumer(g *group, c *consumer.Group, records []coordinator.Record) {
	m.dropMembership(g)
	g.consumer = c
	m.write(records...)
	m.afterConsumer(g)
}

// forConsumer is the group as both protocols have it.
func (k *classic) forConsumer() consumer.ClassicGroup {
	from := consumer.ClassicGroup{Generation: k.generation, Protocol: k.protocol, Members: make([]consumer.ClassicMember, len(k.members))}
	for i, mem := range k.members {
		from.Members[i] = consumer.ClassicMember{
			ID: mem.id, InstanceID: mem.instance, Client: mem.client,
			SessionTimeout: mem.session, RebalanceTimeout: mem.rebalance, Assignment: mem.assignment,
		}
		for _, p := range mem.protocols {
			from.Members[i].Protocols = append(from.Members[i].Protocols, kmsg.JoinGroupRequestProtocol{Name: p.name, Metadata: p.metadata})
		}
	}
	return from
}

// downgrade makes a classic group of a consumer group whose members are all classic.
func (m *Machine) downgrade(g *group) {
	from := g.consumer.ToClassic(m.topics)
	m.writeGone(g)
	m.dropMembership(g)
	k := m.newClassic(g)
	g.classic = k
	for _, cm := range from.Members {
		mem := &member{
			id: cm.ID, instance: cm.InstanceID, client: cm.Client,
			session: cm.SessionTimeout, rebalance: cm.RebalanceTimeout, assignment: cm.Assignment,
		}
		for _, p := range cm.Protocols {
			mem.protocols = append(mem.protocols, protocol{p.Name, p.Metadata})
		}
		k.add(mem, consumerProtocol)
		m.keepAlive(mem)
	}
	k.state, k.generation, k.protocol = stable, from.Generation, k.choose()
	k.subscribed = k.subscriptions()
	m.write(groupRecord(k))
	if from.Rebalance {
		m.prepare(k)
	}
}

// replaceEmptyConsumer makes a KIP-848 group without members a classic one.
func (m *Machine) replaceEmptyConsumer(g *group) {
	m.writeGone(g)
	m.dropMembership(g)
	g.classic = m.newClassic(g)
}

// afterConsumer follows every call that may have changed a KIP-848 group.
func (m *Machine) afterConsumer(g *group) {
	switch {
	case !g.consumer.Empty():
		g.emptied = 0
	case g.emptied == 0:
		g.emptied = m.now.UnixMilli()
	}
	if g.consumer.Downgradable() {
		m.downgrade(g)
		return
	}
	at := g.consumer.Deadline()
	switch {
	case at.IsZero():
		m.timers.stop(&g.wake)
		return
	case !at.After(m.now): // it may be too early: not twice in one tick
		at = m.now.Add(time.Millisecond)
	}
	g.wake.due = (*wakeConsumer)(g)
	m.timers.set(&g.wake, at)
}

// wakeConsumer is the deadline of a KIP-848 group.
type wakeConsumer group

func (w *wakeConsumer) expire(m *Machine) {
	g := (*group)(w)
	m.write(g.consumer.Tick(m.topics, m.now)...)
	m.afterConsumer(g)
}

// joinConsumer handles the JoinGroup of a classic member of a consumer group.
func (m *Machine) joinConsumer(c call, g *group, client Client, req *kmsg.JoinGroupRequest) {
	resp, records := g.consumer.JoinClassic(req, client, m.topics, m.now)
	if resp.ErrorCode != 0 && resp.ErrorCode != kerr.MemberIDRequired.Code {
		resp.MemberID = "" // as Kafka answers here, unlike where the group is classic
	}
	m.answer(c, resp)
	m.write(records...)
	m.afterConsumer(g)
}

func (m *Machine) syncConsumer(c call, g *group, req *kmsg.SyncGroupRequest) {
	m.answer(c, g.consumer.SyncClassic(req, m.topics, m.now))
	m.afterConsumer(g)
}

func (m *Machine) heartbeatConsumer(g *group, req *kmsg.HeartbeatRequest) int16 {
	code := g.consumer.HeartbeatClassic(req, m.now)
	m.afterConsumer(g)
	return code
}

func (m *Machine) leaveConsumer(g *group, members []kmsg.LeaveGroupRequestMember) []kmsg.LeaveGroupResponseMember {
	resp, records := g.consumer.LeaveClassic(members, m.topics, m.now)
	m.write(records...)
	m.afterConsumer(g)
	return resp
}

// mayCommitConsumer checks a commit: all of it is refused if the member's epoch is too old for one of its partitions.
func (m *Machine) mayCommitConsumer(g *group, c call, req *kmsg.OffsetCommitRequest) int16 {
	if code := g.consumer.CheckCommit(req.MemberID, req.InstanceID, req.Generation, c.version, false); code != 0 {
		return code
	}
	for _, t := range req.Topics {
		_, id := m.topicOf(t.Topic, t.TopicID)
		for _, p := range t.Partitions {
			if code := g.consumer.CheckCommitPartition(req.MemberID, req.InstanceID, req.Generation, false, id, p.Partition); code != 0 {
				return code
			}
		}
	}
	return 0
}

// mayCommitTxnConsumer is mayCommitConsumer for a transaction; producers know of generations only.
func (m *Machine) mayCommitTxnConsumer(g *group, id string, epoch int32, req *kmsg.TxnOffsetCommitRequest) int16 {
	code := g.consumer.CheckCommit(id, req.InstanceID, epoch, req.Version, true)
	for _, t := range req.Topics {
		_, topic := m.topicOf(t.Topic, t.TopicID)
		for _, p := range t.Partitions {
			if code == 0 {
				code = g.consumer.CheckCommitPartition(id, req.InstanceID, epoch, true, topic, p.Partition)
			}
		}
	}
	if code == kerr.StaleMemberEpoch.Code {
		return kerr.IllegalGeneration.Code
	}
	return code
}

func (m *Machine) loadedConsumer(g *group) {
	m.write(g.consumer.Loaded(m.topics, m.now)...)
	m.afterConsumer(g)
}

func (m *Machine) replayConsumer(e coordinator.Entry) error {
	id, err := consumer.GroupID(e.Key)
	if err != nil {
		return err
	}
	g := m.group(id)
	if g == nil || g.consumer == nil {
		if e.Value == nil {
			return nil
		}
		if g == nil {
			g = m.create(id)
		}
		m.dropMembership(g)
		g.consumer = consumer.New(id, m.consumerOptions(id))
	}
	if err := g.consumer.Replay(e.Key, e.Value); err != nil {
		return err
	}
	if g.emptied = 0; g.consumer.Empty() {
		g.emptied = e.Timestamp
	}
	if g.consumer.State() == dead {
		m.replayGone(g)
	}
	return nil
}
