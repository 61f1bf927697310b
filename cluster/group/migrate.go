package group

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/cluster/group/consumer"
)

// wakeConsumer is the deadline of a KIP-848 group.
type wakeConsumer group

func (w *wakeConsumer) expire(m *Machine) {
	g := (*group)(w)
	m.write(g.consumer.Tick(m.topics, m.now)...)
	m.afterConsumer(g)
}

// afterConsumer follows every call that may have changed a KIP-848 group.
func (m *Machine) afterConsumer(g *group) {
	if at := g.consumer.Deadline(); !at.IsZero() {
		g.wake.due = (*wakeConsumer)(g)
		m.timers.set(&g.wake, at)
	} else {
		m.timers.stop(&g.wake)
	}
}

func (m *Machine) newConsumer(id string) *consumer.Group { return consumer.New(id, m.o.Consumer) }

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
		g.consumer = m.newConsumer(id)
	}
	if err := g.consumer.Replay(e.Key, e.Value); err != nil {
		return err
	}
	if g.consumer.State() == dead {
		m.replayGone(g)
	}
	return nil
}

func (m *Machine) loadedConsumer(g *group) {
	m.write(g.consumer.Loaded(m.topics, m.now)...)
	m.afterConsumer(g)
}

// consumerHeartbeat handles ConsumerGroupHeartbeat (key 68, v0-1; KIP-848, KIP-1082).
func (m *Machine) consumerHeartbeat(client Client, req *kmsg.ConsumerGroupHeartbeatRequest) *kmsg.ConsumerGroupHeartbeatResponse {
	g := m.group(req.Group)
	if g != nil && g.consumer != nil {
		resp, records := g.consumer.Heartbeat(req, client, m.topics, m.now)
		m.write(records...)
		m.afterConsumer(g)
		return resp
	}
	if req.MemberEpoch != 0 || g != nil && g.classic.state != empty {
		return &kmsg.ConsumerGroupHeartbeatResponse{ErrorCode: kerr.GroupIDNotFound.Code}
	}
	// Of a group without members nothing but the offsets goes on.
	joined := m.newConsumer(req.Group)
	resp, records := joined.Heartbeat(req, client, m.topics, m.now)
	if len(records) == 0 {
		return resp
	}
	if g == nil {
		g = m.create(req.Group)
	} else {
		m.write(groupTombstone(g.id))
	}
	m.dropMembership(g)
	g.consumer = joined
	m.write(records...)
	m.afterConsumer(g)
	return resp
}

// replaceEmptyConsumer makes a KIP-848 group without members a classic one.
func (m *Machine) replaceEmptyConsumer(g *group) {
	m.writeGone(g)
	m.dropMembership(g)
	g.classic = m.newClassic(g)
}

func (m *Machine) joinConsumer(c call, g *group, client Client, req *kmsg.JoinGroupRequest) {
	m.refuseJoin(c, req.MemberID, kerr.InconsistentGroupProtocol)
}

func (m *Machine) syncConsumer(c call, g *group, req *kmsg.SyncGroupRequest) {
	m.answer(c, &kmsg.SyncGroupResponse{ErrorCode: kerr.UnknownMemberID.Code})
}

func (m *Machine) heartbeatConsumer(g *group, req *kmsg.HeartbeatRequest) int16 {
	return kerr.UnknownMemberID.Code
}

func (m *Machine) leaveConsumer(g *group, members []kmsg.LeaveGroupRequestMember) []kmsg.LeaveGroupResponseMember {
	return leaving(members, func(kmsg.LeaveGroupRequestMember) int16 { return kerr.UnknownMemberID.Code })
}

func (m *Machine) mayCommitConsumer(g *group, c call, req *kmsg.OffsetCommitRequest) int16 {
	return g.consumer.CheckCommit(req.MemberID, req.InstanceID, req.Generation, c.version, false)
}

func (m *Machine) mayCommitTxnConsumer(g *group, id string, instance *string, epoch int32, version int16) int16 {
	code := g.consumer.CheckCommit(id, instance, epoch, version, true)
	if code == kerr.StaleMemberEpoch.Code {
		return kerr.IllegalGeneration.Code
	}
	return code
}
