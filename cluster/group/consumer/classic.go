package consumer

import (
	"slices"
	"time"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Classic members of a consumer group. A consumer that speaks JoinGroup is a member like any other; its generation is its
// member epoch. It is told of a new target by REBALANCE_IN_PROGRESS, says with its next JoinGroup what it holds, which is
// nothing if it is an eager one, and asks for the assignment with SyncGroup. No answer is parked, and nobody is leader:
// the target is computed here.

// protocolType of consumers; only they can be members of a consumer group.
const protocolType = "consumer"

// joinKnownMember is the version of JoinGroup from which a new member is given its id first (KIP-394).
const joinKnownMember = 4

// JoinClassic handles a JoinGroup (v0-9) of this group, whose session timeout the caller has checked. Nothing changes
// if it is refused. The caller looks at Downgradable afterwards.
//
// Errors: INCONSISTENT_GROUP_PROTOCOL, GROUP_MAX_SIZE_REACHED, MEMBER_ID_REQUIRED with the id, UNKNOWN_MEMBER_ID,
// FENCED_INSTANCE_ID.
func (g *Group) JoinClassic(req *kmsg.JoinGroupRequest, client Client, topics Topics, now time.Time) (*kmsg.JoinGroupResponse, []coordinator.Record) {
	c := &changes{g: g}
	resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
	resp.Members = []kmsg.JoinGroupResponseMember{}
	id := req.MemberID
	if id == "" {
		id = g.o.NewID()
	}
	old, sub, f := g.admitClassic(id, req)
	if f != nil {
		resp.Generation, resp.MemberID, resp.ErrorCode = -1, req.MemberID, f.code()
		if f.err == kerr.MemberIDRequired {
			resp.MemberID = id
		}
		return resp, nil
	}
	if old != nil && old.id != id {
		old = g.replace(c, old, id)
	}
	g.subscribe(c, old, updatedClassic(old, id, req, sub, client), topics, now)
	g.maybeRetarget(c, topics, now)
	m := g.settle(c, heldByName(sub.OwnedPartitions, topics), id, topics, now)
	g.expect(m, g.sessionOf(m), now)
	m.timers.rebalance, m.timers.join = time.Time{}, time.Time{}
	m.timers.sync = now.Add(time.Duration(m.rebalanceTimeout) * time.Millisecond)
	g.wake(m.timers.sync)

	kind := protocolType
	resp.ProtocolType, resp.Protocol = &kind, &m.classic.protocols[0].name
	resp.Generation, resp.MemberID = m.epoch, id
	return resp, c.records
}

// admitClassic says whether a JoinGroup is taken. It returns the member so far, as admit does, and the subscription.
func (g *Group) admitClassic(id string, req *kmsg.JoinGroupRequest) (old *member, sub kmsg.ConsumerMemberMetadata, f *fault) {
	isNew := req.MemberID == ""
	old = g.members[id]
	switch {
	case g.o.Migration == MigrationDisabled:
		return nil, sub, refuse(kerr.InconsistentGroupProtocol, "Cannot join the consumer group %s with the classic protocol because the group migration is disabled.", g.id)
	case len(id) > maxKeyString:
		return nil, sub, refuse(kerr.UnknownMemberID, "No member has an id of %d bytes.", len(id))
	case len(g.members) >= g.maxSize() && old == nil:
		return nil, sub, refuse(kerr.GroupMaxSizeReached, "The consumer group has reached its maximum capacity of %d members.", g.o.MaxSize)
	case !g.supports(req.ProtocolType, req.Protocols) || sub.ReadFrom(req.Protocols[0].Metadata) != nil:
		return nil, sub, refuse(kerr.InconsistentGroupProtocol, "Member %s's protocols are not supported.", id)
	case isNew && req.InstanceID == nil && req.Version >= joinKnownMember:
		return nil, sub, refuse(kerr.MemberIDRequired, "Member %s joins with its id.", id)
	case req.InstanceID == nil:
		return old, sub, nil
	}
	of := g.staticMember(*req.InstanceID)
	switch {
	case of == nil && !isNew:
		return nil, sub, refuse(kerr.UnknownMemberID, "Instance id %s is unknown.", *req.InstanceID)
	case of != nil && of.id != id && !isNew:
		return nil, sub, refuse(kerr.FencedInstanceID, "Static member %s with instance id %s was fenced by member %s.", id, *req.InstanceID, of.id)
	case of != nil:
		old = of
	}
	return old, sub, nil
}

// supports says whether one of the protocols is supported by all classic members.
func (g *Group) supports(kind string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	return kind == protocolType && slices.ContainsFunc(protocols, func(p kmsg.JoinGroupRequestProtocol) bool {
		return g.classicProtocols[p.Name] == g.classicCount
	})
}

func updatedClassic(old *member, id string, req *kmsg.JoinGroupRequest, sub kmsg.ConsumerMemberMetadata, client Client) *member {
	m := newMember(id)
	if old != nil {
		*m = *old
	}
	m.client, m.regex, m.topics = client, "", normalTopics(sub.Topics)
	setIfGiven(&m.instance, req.InstanceID)
	if deref(sub.Rack) != "" {
		setIfGiven(&m.rack, sub.Rack)
	}
	m.rebalanceTimeout = req.RebalanceTimeoutMillis
	if req.Version < 1 || m.rebalanceTimeout == -1 {
		m.rebalanceTimeout = req.SessionTimeoutMillis
	}
	m.classic = &classicMetadata{req.SessionTimeoutMillis, make([]classicProtocol, len(req.Protocols))}
	for i, p := range req.Protocols {
		m.classic.protocols[i] = classicProtocol{p.Name, slices.Clone(p.Metadata)}
	}
	return m
}

// heldByName is what a classic member says it holds; unknown topics are left out. It always says.
func heldByName(owned []kmsg.ConsumerMemberMetadataOwnedPartition, topics Topics) held {
	h := held{}
	for _, o := range owned {
		if id, _, ok := topics.ByName(o.Topic); ok {
			h = append(h, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: id, Partitions: o.Partitions})
		}
	}
	return h
}

// SyncClassic handles a SyncGroup of a classic member: its assignment, in the version of its subscription.
//
// Errors: UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, ILLEGAL_GENERATION, INCONSISTENT_GROUP_PROTOCOL, REBALANCE_IN_PROGRESS.
func (g *Group) SyncClassic(req *kmsg.SyncGroupRequest, topics Topics, now time.Time) *kmsg.SyncGroupResponse {
	resp := req.ResponseKind().(*kmsg.SyncGroupResponse)
	m, f := g.findClassic(req.MemberID, req.InstanceID, req.Generation)
	switch {
	case f != nil:
		resp.ErrorCode = f.code()
	case req.ProtocolType != nil && *req.ProtocolType != protocolType,
		req.Protocol != nil && *req.Protocol != m.classic.protocols[0].name:
		resp.ErrorCode = kerr.InconsistentGroupProtocol.Code
	case m.epoch < g.targetEpoch && m.state != unrevoked:
		// One that has to revoke first has joined already: it joins again when it has.
		g.expectJoin(m, now)
		resp.ErrorCode = kerr.RebalanceInProgress.Code
	}
	if resp.ErrorCode != 0 {
		return resp
	}
	m.timers.sync = time.Time{}
	g.expect(m, g.sessionOf(m), now)
	resp.ProtocolType, resp.Protocol = req.ProtocolType, req.Protocol
	resp.MemberAssignment = m.classicAssignment(topics)
	return resp
}

// HeartbeatClassic handles a Heartbeat of a classic member and returns the error code. REBALANCE_IN_PROGRESS says that
// it shall join again: there is a new target, it has to revoke, or what it waited for is free.
//
// Errors: UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID, ILLEGAL_GENERATION, REBALANCE_IN_PROGRESS.
func (g *Group) HeartbeatClassic(req *kmsg.HeartbeatRequest, now time.Time) int16 {
	m, f := g.findClassic(req.MemberID, req.InstanceID, req.Generation)
	if f != nil {
		return f.code()
	}
	g.expect(m, g.sessionOf(m), now)
	if m.epoch < g.targetEpoch || m.state == unrevoked || m.state == unreleased && !g.waits(m) {
		g.expectJoin(m, now)
		return kerr.RebalanceInProgress.Code
	}
	return 0
}

// waits says whether something of the member's target is still another's.
func (g *Group) waits(m *member) bool {
	for t, parts := range g.target[m.id] {
		for _, p := range parts {
			if !m.assigned.has(t, p) && g.owner(t, p) != "" {
				return true
			}
		}
	}
	return false
}

// LeaveClassic handles the members of a LeaveGroup; one with an instance and no id is removed by an administrator. The
// caller looks at Downgradable afterwards.
//
// Errors of each: UNKNOWN_MEMBER_ID, FENCED_INSTANCE_ID.
func (g *Group) LeaveClassic(members []kmsg.LeaveGroupRequestMember, topics Topics, now time.Time) ([]kmsg.LeaveGroupResponseMember, []coordinator.Record) {
	c := &changes{g: g}
	resp := make([]kmsg.LeaveGroupResponseMember, len(members))
	var leaving []*member
	for i, l := range members {
		id := l.MemberID
		if id == "" && l.InstanceID != nil {
			id = g.instances[*l.InstanceID]
		}
		m, f := g.find(id, l.InstanceID)
		resp[i] = kmsg.LeaveGroupResponseMember{MemberID: l.MemberID, InstanceID: l.InstanceID, ErrorCode: f.code()}
		if f == nil && !slices.Contains(leaving, m) {
			leaving = append(leaving, m)
		}
	}
	g.remove(c, topics, now, leaving...)
	return resp, c.records
}

// findClassic returns a classic member that is in the generation.
func (g *Group) findClassic(id string, instance *string, generation int32) (*member, *fault) {
	m, f := g.find(id, instance)
	switch {
	case f != nil:
		return nil, f
	case !m.usesClassic():
		return nil, refuse(kerr.UnknownMemberID, "Member %s does not use the classic protocol.", id)
	case m.epoch != generation:
		return nil, refuse(kerr.IllegalGeneration, "The request generation id %d is not equal to the member epoch %d of member %s.", generation, m.epoch, id)
	}
	return m, nil
}

// expectJoin gives the member its rebalance timeout to join again, from the first time that it is told to.
func (g *Group) expectJoin(m *member, now time.Time) {
	if m.timers.join.IsZero() {
		m.timers.join = now.Add(time.Duration(m.rebalanceTimeout) * time.Millisecond)
		g.wake(m.timers.join)
	}
}

// classicAssignment is what the member has, as the consumer protocol has it.
func (m *member) classicAssignment(topics Topics) []byte {
	var sub kmsg.ConsumerMemberMetadata
	a := kmsg.NewConsumerMemberAssignment()
	if sub.ReadFrom(m.classic.protocols[0].metadata) == nil {
		a.Version = min(max(sub.Version, 0), 3)
	}
	for _, t := range m.assigned.topics() {
		if name, _, ok := topics.ByID(t); ok {
			a.Topics = append(a.Topics, kmsg.ConsumerMemberAssignmentTopic{Topic: name, Partitions: m.assigned.partitions(t)})
		}
	}
	return a.AppendTo(nil)
}
