package consumer

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fault is a request that is refused.
type fault struct {
	err *kerr.Error
	why string
}

func refuse(err *kerr.Error, format string, args ...any) *fault {
	return &fault{err, fmt.Sprintf(format, args...)}
}

// code of the fault, 0 if there is none.
func (f *fault) code() int16 {
	if f == nil {
		return 0
	}
	return f.err.Code
}

// Heartbeat handles a ConsumerGroupHeartbeat (v0, v1) of this group and returns the answer and the records to append.
// A refused request changes nothing. Only a request with MemberEpoch 0 may come to a new group: for another, the
// caller answers GROUP_ID_NOT_FOUND; if it is refused, there are no records, and the caller forgets the group.
//
// Errors: INVALID_REQUEST, UNSUPPORTED_ASSIGNOR, INVALID_REGULAR_EXPRESSION, GROUP_MAX_SIZE_REACHED, UNKNOWN_MEMBER_ID,
// FENCED_MEMBER_EPOCH, UNRELEASED_INSTANCE_ID, FENCED_INSTANCE_ID.
//
// When the last member of the consumer protocol goes and classic members remain, the group is ready to become a classic
// one: see Downgradable.
func (g *Group) Heartbeat(req *kmsg.ConsumerGroupHeartbeatRequest, client Client, topics Topics, now time.Time) (*kmsg.ConsumerGroupHeartbeatResponse, []coordinator.Record) {
	c := &changes{g: g}
	resp, f := g.heartbeat(c, req, client, topics, now)
	if f != nil {
		resp = req.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
		resp.ErrorCode, resp.ErrorMessage = f.err.Code, &f.why
	}
	return resp, c.records
}

func (g *Group) heartbeat(c *changes, req *kmsg.ConsumerGroupHeartbeatRequest, client Client, topics Topics, now time.Time) (*kmsg.ConsumerGroupHeartbeatResponse, *fault) {
	if f := g.checkRequest(req); f != nil {
		return nil, f
	}
	if req.MemberEpoch < 0 {
		return g.leave(c, req, topics, now)
	}
	id := req.MemberID
	if id == "" {
		id = g.o.NewID()
	}
	old, f := g.admit(id, req)
	if f != nil {
		return nil, f
	}
	if old != nil && old.id != id { // the instance comes back with another id
		old = g.replace(c, old, id)
	}
	m := g.updated(old, id, req, client)
	g.subscribe(c, old, m, topics, now)
	before := g.members[id]
	g.maybeRetarget(c, topics, now)
	after := g.settle(c, held(req.Topics), id, topics, now)
	g.expect(after, g.o.SessionTimeout, now)

	resp := req.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
	resp.MemberID = &after.id
	resp.MemberEpoch = after.epoch
	resp.HeartbeatIntervalMillis = int32(g.o.HeartbeatInterval.Milliseconds())
	// A full request is one of a client that may have missed something.
	full := req.RebalanceTimeoutMillis != -1 && (req.SubscribedTopicNames != nil || req.SubscribedTopicRegex != nil) && req.Topics != nil
	if req.MemberEpoch == epochJoin || full || !after.assigned.samePartitions(before.assigned) {
		resp.Assignment = after.assigned.response()
	}
	return resp, nil
}

func (o owned) response() *kmsg.ConsumerGroupHeartbeatResponseAssignment {
	a := &kmsg.ConsumerGroupHeartbeatResponseAssignment{Topics: []kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{}}
	for _, t := range o.topics() {
		a.Topics = append(a.Topics, kmsg.ConsumerGroupHeartbeatResponseAssignmentTopic{TopicID: t, Partitions: o.partitions(t)})
	}
	return a
}

// checkRequest says what is wrong with the request in itself.
func (g *Group) checkRequest(req *kmsg.ConsumerGroupHeartbeatRequest) *fault {
	invalid := func(why string) *fault { return refuse(kerr.InvalidRequest, "%s", why) }
	switch {
	case req.MemberID == "" && (req.Version >= 1 || req.MemberEpoch > 0 || req.MemberEpoch == epochLeave):
		return invalid("MemberId can't be empty.")
	case req.Group == "":
		return invalid("GroupId can't be empty.")
	case max(len(req.Group), len(req.MemberID), len(deref(req.SubscribedTopicRegex))) > maxKeyString:
		return invalid("GroupId, MemberId and SubscribedTopicRegex can't be longer than 32767 bytes.")
	case req.InstanceID != nil && *req.InstanceID == "":
		return invalid("InstanceId can't be empty.")
	case req.RackID != nil && *req.RackID == "":
		return invalid("RackId can't be empty.")
	case req.MemberEpoch == epochJoin && req.RebalanceTimeoutMillis == -1:
		return invalid("RebalanceTimeoutMs must be provided in first request.")
	case req.MemberEpoch == epochJoin && (req.Topics == nil || len(req.Topics) > 0):
		return invalid("TopicPartitions must be empty when (re-)joining.")
	case req.MemberEpoch == epochJoin && req.SubscribedTopicNames == nil && req.SubscribedTopicRegex == nil:
		return invalid("Either SubscribedTopicNames or SubscribedTopicRegex must be non-null when (re-)joining.")
	case req.MemberEpoch == epochLeaveStatic && req.InstanceID == nil:
		return invalid("InstanceId can't be null.")
	case req.MemberEpoch < epochLeaveStatic:
		return invalid("MemberEpoch is invalid.")
	case req.ServerAssignor != nil && !slices.Contains(g.o.Assignors, *req.ServerAssignor):
		return refuse(kerr.UnsupportedAssignor, "ServerAssignor %s is not supported. Supported assignors: %s.",
			*req.ServerAssignor, strings.Join(g.o.Assignors, ", "))
	}
	return g.checkRegex(deref(req.SubscribedTopicRegex))
}

// admit says whether the member may join or go on. It returns the member so far, nil for a new one, and one with another
// id where an instance comes back with a new id.
func (g *Group) admit(id string, req *kmsg.ConsumerGroupHeartbeatRequest) (*member, *fault) {
	m := g.members[id]
	if len(g.members) >= g.maxSize() && m == nil {
		return nil, refuse(kerr.GroupMaxSizeReached, "The consumer group has reached its maximum capacity of %d members.", g.o.MaxSize)
	}
	joining := req.MemberEpoch == epochJoin
	if req.InstanceID != nil {
		of := g.staticMember(*req.InstanceID)
		switch {
		case of == nil && !joining:
			return nil, refuse(kerr.UnknownMemberID, "Instance id %s is unknown.", *req.InstanceID)
		case of != nil && of.id != id && !joining:
			return nil, refuse(kerr.FencedInstanceID, "Static member %s with instance id %s was fenced by member %s.", id, *req.InstanceID, of.id)
		case of != nil && of.id != id && of.epoch != epochLeaveStatic && !of.usesClassic():
			return nil, refuse(kerr.UnreleasedInstanceID, "Static member %s with instance id %s cannot join the group because the instance id is owned by %s member.",
				id, *req.InstanceID, of.id)
		case of != nil:
			m = of
		}
	}
	if m == nil && !joining {
		return nil, refuse(kerr.UnknownMemberID, "Member %s is not a member of group %s.", id, g.id)
	}
	if m == nil {
		return nil, nil
	}
	return m, checkEpoch(m, req)
}

func (g *Group) maxSize() int {
	if g.o.MaxSize <= 0 {
		return int(^uint(0) >> 1)
	}
	return g.o.MaxSize
}

// checkEpoch fences a member that is not where the group thinks it is.
func checkEpoch(m *member, req *kmsg.ConsumerGroupHeartbeatRequest) *fault {
	const abandon = "The member must abandon all its partitions and rejoin."
	switch {
	case m.state == unknown && (req.Topics == nil || len(req.Topics) > 0):
		return refuse(kerr.FencedMemberEpoch, "The consumer group member is in a unknown state. %s", abandon)
	case req.MemberEpoch == epochJoin:
		return nil
	case req.MemberEpoch > m.epoch:
		return refuse(kerr.FencedMemberEpoch, "The consumer group member has a greater member epoch (%d) than the one known by the group coordinator (%d). %s",
			req.MemberEpoch, m.epoch, abandon)
	case req.MemberEpoch < m.epoch && (req.MemberEpoch != m.previousEpoch || !held(req.Topics).within(m.assigned)):
		// With the previous epoch and nothing but what is assigned, the answer with the new epoch was lost.
		return refuse(kerr.FencedMemberEpoch, "The consumer group member has a smaller member epoch (%d) than the one known by the group coordinator (%d). %s",
			req.MemberEpoch, m.epoch, abandon)
	}
	return nil
}

// replace gives the place of a static member to a new id; it joins from epoch 0 with the partitions of the old one.
func (g *Group) replace(c *changes, old *member, id string) *member {
	target := g.target[old.id]
	m := *old
	m.id, m.epoch, m.previousEpoch, m.timers = id, 0, 0, timers{}
	c.removeMember(old.id)
	c.metadata(&m)
	c.target(id, target)
	c.assignment(&m)
	return g.members[id]
}

// updated is the member with what the request changes; null fields change nothing.
func (g *Group) updated(old *member, id string, req *kmsg.ConsumerGroupHeartbeatRequest, client Client) *member {
	m := newMember(id)
	if old != nil {
		*m = *old
	}
	m.client, m.classic = client, nil
	setIfGiven(&m.instance, req.InstanceID)
	setIfGiven(&m.rack, req.RackID)
	setIfGiven(&m.assignor, req.ServerAssignor)
	if req.RebalanceTimeoutMillis != -1 {
		m.rebalanceTimeout = req.RebalanceTimeoutMillis
	}
	if req.SubscribedTopicNames != nil {
		m.topics = normalTopics(req.SubscribedTopicNames)
	}
	if req.SubscribedTopicRegex != nil {
		m.regex = *req.SubscribedTopicRegex
	}
	return m
}

func setIfGiven(to **string, from *string) {
	if from != nil {
		v := *from
		*to = &v
	}
}

// subscribe writes the metadata of a member that is new or has changed, and begins a group epoch if the subscription has.
// It says whether it has.
func (g *Group) subscribe(c *changes, old, m *member, topics Topics, now time.Time) bool {
	if old != nil && m.sameMetadata(old) {
		return false
	}
	if old != nil && !m.usesClassic() {
		m.timers.join, m.timers.sync = time.Time{}, time.Time{} // it may have been classic
	}
	c.metadata(m)
	was := newMember(m.id)
	if old != nil {
		was = old
	}
	changed := !slices.Equal(was.topics, m.topics) || was.regex != m.regex
	if was.regex != m.regex {
		g.dropRegex(c, was.regex)
		g.resolveMissing(c, topics, now)
	}
	if changed || g.epoch < firstEpoch { // that of a classic group may be
		g.bump(c, topics)
	}
	return changed
}

// settle reconciles the member and writes what came of it.
func (g *Group) settle(c *changes, holds held, id string, topics Topics, now time.Time) *member {
	before := g.members[id]
	after := g.reconcile(before, holds, topics)
	if after == before || after.sameAssignment(before) {
		return before
	}
	if !after.usesClassic() {
		after.timers.rebalance = time.Time{}
		if after.state == unrevoked {
			after.timers.rebalance = now.Add(time.Duration(after.rebalanceTimeout) * time.Millisecond)
			g.wake(after.timers.rebalance)
		}
	}
	c.assignment(after)
	return after
}

// expect starts the member's session anew.
func (g *Group) expect(m *member, session time.Duration, now time.Time) {
	m.timers.session = now.Add(session)
	g.wake(m.timers.session)
}
