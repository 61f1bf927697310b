package group

import (
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Versions at which JoinGroup changes what is done.
const (
	joinKnownMember    = 4 // KIP-394: a new member is given an id first
	joinSkipAssignment = 9 // KIP-814: a static leader that comes back is told so
)

// joinGroup handles JoinGroup (key 11, v0-9; KIP-62, KIP-345, KIP-394, KIP-559, KIP-800, KIP-814).
func (m *Machine) joinGroup(c call, client Client, req *kmsg.JoinGroupRequest) {
	session := time.Duration(req.SessionTimeoutMillis) * time.Millisecond
	switch {
	case req.Group == "":
		m.refuseJoin(c, req.MemberID, kerr.InvalidGroupID)
		return
	case session < m.o.MinSessionTimeout || session > m.o.MaxSessionTimeout:
		m.refuseJoin(c, req.MemberID, kerr.InvalidSessionTimeout)
		return
	}
	g := m.group(req.Group)
	if g != nil && g.consumer != nil && !g.consumer.Empty() {
		m.joinConsumer(c, g, client, req)
		return
	}
	if req.MemberID != "" && (g == nil || g.classic == nil) {
		m.refuseJoin(c, req.MemberID, kerr.UnknownMemberID)
		return
	}
	if g == nil || g.classic == nil {
		if !(&classic{}).accepts(req.ProtocolType, req.Protocols) {
			m.refuseJoin(c, "", kerr.InconsistentGroupProtocol)
			return
		}
		if g == nil {
			g = m.create(req.Group)
		} else {
			m.replaceEmptyConsumer(g)
		}
		m.write(groupRecord(g.classic))
	}
	m.joinClassic(c, g.classic, client, req)
}

func (m *Machine) refuseJoin(c call, memberID string, err *kerr.Error) {
	m.answer(c, &kmsg.JoinGroupResponse{Generation: -1, MemberID: memberID, ErrorCode: err.Code})
}

func (m *Machine) joinClassic(c call, k *classic, client Client, req *kmsg.JoinGroupRequest) {
	if !m.hasRoom(k, req.MemberID) {
		if mem := k.byID[req.MemberID]; mem != nil {
			m.removeMember(mem)
		}
		m.removePending(k, req.MemberID)
		m.refuseJoin(c, "", kerr.GroupMaxSizeReached)
		return
	}
	if !k.accepts(req.ProtocolType, req.Protocols) {
		m.refuseJoin(c, req.MemberID, kerr.InconsistentGroupProtocol)
		return
	}
	switch {
	case req.MemberID != "":
		m.joinKnown(c, k, client, req)
	case req.InstanceID != nil:
		id := idPrefix(client, req) + m.o.NewID()
		if old := k.instances[*req.InstanceID]; old != nil {
			m.joinAgainStatic(c, k, old, id, client, req)
		} else {
			m.joinNew(c, k, id, client, req)
		}
	case c.version >= joinKnownMember:
		m.giveID(c, k, idPrefix(client, req)+m.o.NewID(), req)
	default:
		m.joinNew(c, k, idPrefix(client, req)+m.o.NewID(), client, req)
	}
}

// maxIDPrefix bounds it in bytes, so that a member id fits into records and answers, where strings have 32,767 at most.
const maxIDPrefix = 16 << 10

// idPrefix is what a classic member's id begins with, for people to see.
func idPrefix(client Client, req *kmsg.JoinGroupRequest) string {
	prefix := client.ID
	if req.InstanceID != nil {
		prefix = *req.InstanceID
	}
	return strings.ToValidUTF8(prefix[:min(len(prefix), maxIDPrefix)], "") + "-"
}

// hasRoom says whether the group may have the member, one more if it is new (group.max.size). While members join, those
// that have joined count: so the last to come are turned away if the group is too big already.
func (m *Machine) hasRoom(k *classic, id string) bool {
	mem := k.byID[id]
	switch k.state {
	case empty:
		return true
	case preparing:
		return mem != nil && mem.join.to != 0 || k.joining < m.o.MaxSize
	default:
		return mem != nil || len(k.members) < m.o.MaxSize
	}
}

// giveID answers a new member with an id, to join with (KIP-394): so one that gives up while its call is parked, and tries
// again, is one member and not two. The id lasts for the session timeout.
func (m *Machine) giveID(c call, k *classic, id string, req *kmsg.JoinGroupRequest) {
	p := &pendingMember{group: k, id: id}
	p.alive.due = p
	if k.pending == nil {
		k.pending = map[string]*pendingMember{}
	}
	k.pending[id] = p
	m.timers.set(&p.alive, m.now.Add(time.Duration(req.SessionTimeoutMillis)*time.Millisecond))
	m.refuseJoin(c, id, kerr.MemberIDRequired)
}

// expire forgets an id that nobody came with.
func (p *pendingMember) expire(m *Machine) {
	delete(p.group.pending, p.id)
	m.joinedPerhaps(p.group)
}

// newMember is a member as its request has it.
func newMember(id string, client Client, req *kmsg.JoinGroupRequest) *member {
	mem := &member{id: id, client: Client{ID: strings.Clone(client.ID), Host: strings.Clone(client.Host)}}
	if req.InstanceID != nil {
		instance := strings.Clone(*req.InstanceID)
		mem.instance = &instance
	}
	mem.take(req)
	return mem
}

// take takes over what a member's JoinGroup says of it.
func (mem *member) take(req *kmsg.JoinGroupRequest) {
	mem.protocols = copyProtocols(req.Protocols)
	mem.session = time.Duration(req.SessionTimeoutMillis) * time.Millisecond
	mem.rebalance = time.Duration(max(req.RebalanceTimeoutMillis, 0)) * time.Millisecond
	if req.Version < 1 {
		mem.rebalance = mem.session
	}
}

// joinNew adds a member that was not one before, and parks its call.
func (m *Machine) joinNew(c call, k *classic, id string, client Client, req *kmsg.JoinGroupRequest) {
	mem := newMember(id, client, req)
	mem.fresh = true
	m.removePending(k, id)
	if k.state == preparing && k.initial {
		k.grown = true
	}
	k.add(mem, strings.Clone(req.ProtocolType))
	m.parkJoin(mem, c)
	// It cannot send heartbeats yet. If it gives up and comes back, it leaves a dead member behind; so its stay is bounded.
	m.timers.set(&mem.alive, m.now.Add(m.o.NewMemberTimeout))
	m.rebalance(k)
}

// joinKnown handles a JoinGroup that has a member id.
func (m *Machine) joinKnown(c call, k *classic, client Client, req *kmsg.JoinGroupRequest) {
	if k.pending[req.MemberID] != nil && req.InstanceID == nil {
		m.joinNew(c, k, strings.Clone(req.MemberID), client, req)
		return
	}
	mem, code := k.validate(req.MemberID, req.InstanceID)
	if code == 0 && k.state == empty {
		code = kerr.UnknownMemberID.Code
	}
	if code != 0 {
		m.answer(c, &kmsg.JoinGroupResponse{Generation: -1, MemberID: req.MemberID, ErrorCode: code})
		return
	}
	unchanged := mem.same(req.Protocols)
	leads := k.leader == mem.id
	switch {
	case k.state == completing && unchanged, k.state == stable && unchanged && !leads:
		// It may not have got the answer, or only looks: it learns of its generation. A leader of a stable group means it:
		// something changed that its metadata does not tell.
		m.answer(c, k.generationFor(mem))
	default:
		m.change(mem, c, req)
		m.rebalance(k)
	}
}

// change takes over what a member says of itself now, and parks its call.
func (m *Machine) change(mem *member, c call, req *kmsg.JoinGroupRequest) {
	k := mem.group
	k.count(mem, -1)
	mem.take(req)
	k.count(mem, 1)
	m.parkJoin(mem, c)
}

// generationFor is the answer to a member of the current generation.
func (k *classic) generationFor(mem *member) *kmsg.JoinGroupResponse {
	resp := &kmsg.JoinGroupResponse{
		Generation: k.generation, ProtocolType: optional(k.protocolType), Protocol: optional(k.protocol),
		LeaderID: k.leader, MemberID: mem.id,
	}
	if k.leader == mem.id {
		resp.Members = k.metadata()
	}
	return resp
}

// metadata of all members, for the leader.
func (k *classic) metadata() []kmsg.JoinGroupResponseMember {
	all := make([]kmsg.JoinGroupResponseMember, len(k.members))
	for i, mem := range k.members {
		all[i] = kmsg.JoinGroupResponseMember{MemberID: mem.id, InstanceID: mem.instance, ProtocolMetadata: mem.metadata(k.protocol)}
	}
	return all
}

// joinAgainStatic handles a static member that has forgotten its id: it is another process of the same instance, and takes
// the place of the one before (KIP-345).
func (m *Machine) joinAgainStatic(c call, k *classic, old *member, id string, client Client, req *kmsg.JoinGroupRequest) {
	leader := k.leader
	mem := m.replaceStatic(old, newMember(id, client, req))
	m.parkJoin(mem, c)
	m.keepAlive(mem)
	switch k.state {
	case stable:
		if k.choose() != k.protocol {
			m.rebalance(k)
			return
		}
		// Nothing changes for the others, so nobody rebalances: the member goes on with its assignment.
		m.write(groupRecord(k))
		resp := k.generationFor(mem)
		if c.version >= joinSkipAssignment {
			resp.SkipAssignment = k.leader == mem.id
		} else {
			// It must not think that it leads: it would assign.
			resp.LeaderID, resp.Members = leader, nil
		}
		m.answerJoin(mem, resp)
	case completing:
		// The leader may be assigning to the old id already.
		m.prepare(k)
	default:
		m.joinedPerhaps(k)
	}
}

// replaceStatic puts mem in the place of the member of its instance, whose parked calls learn that they are fenced.
func (m *Machine) replaceStatic(old, mem *member) *member {
	k := old.group
	m.answerJoin(old, &kmsg.JoinGroupResponse{Generation: -1, MemberID: old.id, ErrorCode: kerr.FencedInstanceID.Code})
	m.answerSync(old, &kmsg.SyncGroupResponse{ErrorCode: kerr.FencedInstanceID.Code})
	m.timers.stop(&old.alive)
	mem.group, mem.pos, mem.assignment = k, old.pos, old.assignment
	mem.alive.due = mem
	if old.owes {
		mem.owes = true
	}
	k.count(old, -1)
	k.count(mem, 1)
	k.members[mem.pos] = mem
	delete(k.byID, old.id)
	k.byID[mem.id], k.instances[*mem.instance] = mem, mem
	if k.leader == old.id {
		k.leader = mem.id
	}
	return mem
}

// optional is nil for "".
func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
