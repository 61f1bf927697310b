package consumer

import (
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// leave handles a heartbeat with MemberEpoch -1, for good, or -2, of an instance that will be back.
func (g *Group) leave(c *changes, req *kmsg.ConsumerGroupHeartbeatRequest, topics Topics, now time.Time) (*kmsg.ConsumerGroupHeartbeatResponse, *fault) {
	m, f := g.find(req.MemberID, req.InstanceID)
	if f != nil {
		return nil, f
	}
	resp := req.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
	resp.MemberID, resp.MemberEpoch = &m.id, req.MemberEpoch
	if req.MemberEpoch == epochLeaveStatic {
		g.leaveStatic(c, m)
	} else {
		g.remove(c, topics, now, m)
	}
	return resp, nil
}

// find returns the member; with an instance it must be the instance's.
func (g *Group) find(id string, instance *string) (*member, *fault) {
	if instance == nil {
		m := g.members[id]
		if m == nil {
			return nil, refuse(kerr.UnknownMemberID, "Member %s is not a member of group %s.", id, g.id)
		}
		return m, nil
	}
	m := g.staticMember(*instance)
	if m == nil {
		return nil, refuse(kerr.UnknownMemberID, "Instance id %s is unknown.", *instance)
	}
	if m.id != id {
		return nil, refuse(kerr.FencedInstanceID, "Static member %s with instance id %s was fenced by member %s.", id, *instance, m.id)
	}
	return m, nil
}

// leaveStatic keeps the member's place until its session ends. What it was to give up is free: it has stopped.
func (g *Group) leaveStatic(c *changes, m *member) {
	n := *m
	n.epoch, n.revoking, n.timers.rebalance = epochLeaveStatic, nil, time.Time{}
	n.assigned = make(owned, len(m.assigned))
	for t, parts := range m.assigned {
		n.assigned[t] = make(map[int32]int32, len(parts))
		for p := range parts {
			n.assigned[t][p] = 0 // of no epoch: its late commits count for nothing
		}
	}
	c.assignment(&n)
}

// remove takes members out of the group, and begins a group epoch. Their partitions are free at once. The new target waits
// for the next heartbeat; classic members learn of it only once it is there.
func (g *Group) remove(c *changes, topics Topics, now time.Time, members ...*member) {
	if len(members) == 0 {
		return
	}
	for _, m := range members {
		c.removeMember(m.id)
	}
	for _, m := range members {
		g.dropRegex(c, m.regex)
	}
	g.bump(c, topics)
	if g.classicCount > 0 {
		g.maybeRetarget(c, topics, now)
	}
}
