package group

import (
	"bytes"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// syncNamesProtocol is the version of SyncGroup from which it has to say what it takes the group's protocol to be (KIP-559).
const syncNamesProtocol = 5

// syncGroup handles SyncGroup (key 14, v0-5; KIP-345, KIP-559).
func (m *Machine) syncGroup(c call, req *kmsg.SyncGroupRequest) {
	g := m.group(req.Group)
	var code int16
	switch {
	case c.version >= syncNamesProtocol && (req.ProtocolType == nil || req.Protocol == nil):
		code = kerr.InconsistentGroupProtocol.Code
	case req.Group == "":
		code = kerr.InvalidGroupID.Code
	case g == nil:
		code = kerr.UnknownMemberID.Code
	case g.consumer != nil:
		m.syncConsumer(c, g, req)
		return
	default:
		code = m.syncClassic(c, g.classic, req)
	}
	if code != 0 {
		m.answer(c, &kmsg.SyncGroupResponse{ErrorCode: code})
	}
}

// syncClassic parks a call until the leader's assignment comes, answers it, or returns why it does not.
func (m *Machine) syncClassic(c call, k *classic, req *kmsg.SyncGroupRequest) int16 {
	if k.state == empty {
		return kerr.UnknownMemberID.Code
	}
	mem, code := k.validate(req.MemberID, req.InstanceID)
	switch {
	case code != 0:
		return code
	case req.Generation != k.generation:
		return kerr.IllegalGeneration.Code
	case differs(req.ProtocolType, k.protocolType), differs(req.Protocol, k.protocol):
		return kerr.InconsistentGroupProtocol.Code
	case k.state == preparing:
		return kerr.RebalanceInProgress.Code
	}
	k.settle(mem)
	if k.owing == 0 {
		m.timers.stop(&k.sync)
	}
	if k.state == stable {
		m.answer(c, k.assignmentFor(mem))
		return 0
	}
	m.answerSync(mem, &kmsg.SyncGroupResponse{ErrorCode: kerr.RebalanceInProgress.Code}) // of a connection that is gone
	mem.sync = c
	if k.leader == mem.id {
		m.assign(k, req.GroupAssignment)
	}
	return 0
}

// differs says whether a request names another protocol than the group's; older ones name none.
func differs(asked *string, has string) bool {
	return asked != nil && has != "" && *asked != has
}

// assign takes the leader's assignment: it is written, then everybody may have theirs. Who is not in it gets nothing.
func (m *Machine) assign(k *classic, assignments []kmsg.SyncGroupRequestGroupAssignment) {
	for _, mem := range k.members {
		mem.assignment = nil
	}
	for _, a := range assignments {
		if mem := k.byID[a.MemberID]; mem != nil {
			mem.assignment = bytes.Clone(a.MemberAssignment)
		}
	}
	record := groupRecord(k)
	if len(record.Value) > maxGroupRecord {
		m.answerSyncs(k, func(*member) *kmsg.SyncGroupResponse {
			return &kmsg.SyncGroupResponse{ErrorCode: kerr.UnknownServerError.Code}
		})
		m.prepare(k)
		return
	}
	m.enter(k, stable)
	m.write(record)
	m.answerSyncs(k, k.assignmentFor)
}

// maxGroupRecord bounds the record of a group in bytes: what does not fit into a batch cannot be written (Kafka's bound is
// the offsets topic's max.message.bytes).
const maxGroupRecord = 48 << 20

func (k *classic) assignmentFor(mem *member) *kmsg.SyncGroupResponse {
	return &kmsg.SyncGroupResponse{
		ProtocolType: optional(k.protocolType), Protocol: optional(k.protocol), MemberAssignment: mem.assignment,
	}
}

// heartbeat handles Heartbeat (key 12, v0-4; KIP-345). It returns an error code.
func (m *Machine) heartbeat(req *kmsg.HeartbeatRequest) int16 {
	g := m.group(req.Group)
	switch {
	case req.Group == "":
		return kerr.InvalidGroupID.Code
	case g == nil:
		return kerr.UnknownMemberID.Code
	case g.consumer != nil:
		return m.heartbeatConsumer(g, req)
	}
	k := g.classic
	mem, code := k.validate(req.MemberID, req.InstanceID)
	switch {
	case code != 0:
		return code
	case req.Generation != k.generation:
		return kerr.IllegalGeneration.Code
	}
	m.keepAlive(mem)
	if k.state == preparing {
		return kerr.RebalanceInProgress.Code
	}
	return 0
}

// leaveGroup handles LeaveGroup (key 13, v0-5; KIP-345, KIP-800).
func (m *Machine) leaveGroup(c call, req *kmsg.LeaveGroupRequest) *kmsg.LeaveGroupResponse {
	resp := &kmsg.LeaveGroupResponse{}
	if req.Group == "" {
		resp.ErrorCode = kerr.InvalidGroupID.Code
		return resp
	}
	members := req.Members
	if c.version < 3 { // one member, and its error is the response's
		members = []kmsg.LeaveGroupRequestMember{{MemberID: req.MemberID}}
	}
	g := m.group(req.Group)
	switch {
	case g == nil:
		resp.Members = leaving(members, func(kmsg.LeaveGroupRequestMember) int16 { return kerr.UnknownMemberID.Code })
	case g.consumer != nil:
		resp.Members = m.leaveConsumer(g, members)
	default:
		resp.Members = m.leaveClassic(g.classic, members)
	}
	if c.version < 3 {
		resp.ErrorCode, resp.Members = resp.Members[0].ErrorCode, nil
	}
	return resp
}

// leaving answers for each member.
func leaving(members []kmsg.LeaveGroupRequestMember, leave func(kmsg.LeaveGroupRequestMember) int16) []kmsg.LeaveGroupResponseMember {
	all := make([]kmsg.LeaveGroupResponseMember, len(members))
	for i, l := range members {
		all[i] = kmsg.LeaveGroupResponseMember{MemberID: l.MemberID, InstanceID: l.InstanceID, ErrorCode: leave(l)}
	}
	return all
}

func (m *Machine) leaveClassic(k *classic, members []kmsg.LeaveGroupRequestMember) []kmsg.LeaveGroupResponseMember {
	left := false
	all := leaving(members, func(l kmsg.LeaveGroupRequestMember) int16 {
		if k.pending[l.MemberID] != nil {
			m.removePending(k, l.MemberID)
			left = true
			return 0
		}
		var mem *member
		code := kerr.UnknownMemberID.Code
		if l.MemberID != "" {
			mem, code = k.validate(l.MemberID, l.InstanceID)
		} else if l.InstanceID != nil && k.instances[*l.InstanceID] != nil {
			// An administrator removes a static member, and knows only the instance.
			mem, code = k.instances[*l.InstanceID], 0
		}
		if code == 0 {
			m.removeMember(mem)
			left = true
		}
		return code
	})
	if left {
		switch k.state {
		case stable, completing:
			m.prepare(k)
		case preparing:
			m.joinedPerhaps(k)
		}
	}
	return all
}
