package group

import (
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// hold checks an answer against the model, and tells it.
func (w *world) hold(c *sent, v any) {
	switch r := v.(type) {
	case *kmsg.JoinGroupResponse:
		w.holdJoin(c.body.(*kmsg.JoinGroupRequest), r)
	case *kmsg.SyncGroupResponse:
		w.holdSync(c.body.(*kmsg.SyncGroupRequest), r)
	case *kmsg.HeartbeatResponse:
		if req := c.body.(*kmsg.HeartbeatRequest); (r.ErrorCode == 0 || r.ErrorCode == kerr.RebalanceInProgress.Code) && w.isClassic(req.Group) {
			w.may(req.Group, req.Generation, req.MemberID)
		}
	case *kmsg.LeaveGroupResponse:
		req := c.body.(*kmsg.LeaveGroupRequest)
		for _, m := range r.Members {
			if g := w.model.groups[req.Group]; m.ErrorCode == 0 && g != nil {
				delete(g.members, m.MemberID)
			}
		}
	case *kmsg.OffsetCommitResponse:
		w.holdCommit(c.body.(*kmsg.OffsetCommitRequest), r)
	case *kmsg.TxnOffsetCommitResponse:
		req := c.body.(*kmsg.TxnOffsetCommitRequest)
		if t := req.Topics[0]; r.Topics[0].Partitions[0].ErrorCode == 0 {
			w.model.pend(req.ProducerID, spot{req.Group, partition{t.Topic, t.Partitions[0].Partition}}, w.promise(t.Topic, t.Partitions[0].Offset))
		}
	case *kmsg.OffsetDeleteResponse:
		req := c.body.(*kmsg.OffsetDeleteRequest)
		if r.ErrorCode == 0 && r.Topics[0].Partitions[0].ErrorCode == 0 {
			w.counts["deleted offsets"]++
			w.model.remove(spot{req.Group, partition{req.Topics[0].Topic, req.Topics[0].Partitions[0].Partition}})
		}
	case int16:
		if d := c.body.(Delete); r == 0 {
			w.counts["deleted groups"]++
			w.model.removeGroup(d.Group)
		}
	}
}

// may checks that a member may be told that all is well. One whose call is parked is there, however long that is.
func (w *world) may(group string, n int32, member string) {
	for _, c := range w.calls {
		switch req := c.body.(type) {
		case *kmsg.JoinGroupRequest:
			w.model.heard(req.Group, req.MemberID, w.now)
		case *kmsg.SyncGroupRequest:
			w.model.heard(req.Group, req.MemberID, w.now)
		}
	}
	w.must(w.model.may(group, n, member, worldSession, w.now))
}

// isClassic says whether a group is one of those with classic members only.
func (w *world) isClassic(group string) bool { return group != "mixed" }

func (w *world) holdJoin(req *kmsg.JoinGroupRequest, r *kmsg.JoinGroupResponse) {
	w.model.heard(req.Group, req.MemberID, w.now)
	if r.ErrorCode != 0 || !w.isClassic(req.Group) {
		return
	}
	var listed []string
	for _, m := range r.Members {
		listed = append(listed, m.MemberID)
	}
	g := w.model.groups[req.Group]
	if g == nil || r.Generation > g.n {
		w.counts["generations"]++
	}
	replaces := ""
	if req.InstanceID != nil && req.MemberID == "" && g != nil && r.Generation == g.n {
		replaces = w.replacedBy(g, req, r)
		w.counts["replaced"]++
	}
	if r.SkipAssignment {
		w.counts["skipped"]++
	}
	leader := r.LeaderID
	w.must(w.model.joined(req.Group, r.Generation, leader, r.MemberID, *r.Protocol, listed, replaces, w.now))
}

// replacedBy is the member whose place an instance takes: in the worlds here an instance's ids begin with its name.
func (w *world) replacedBy(g *generation, req *kmsg.JoinGroupRequest, r *kmsg.JoinGroupResponse) string {
	for id := range g.members {
		if strings.HasPrefix(id, *req.InstanceID+"-") && id != r.MemberID {
			return id
		}
	}
	return ""
}

func (w *world) holdSync(req *kmsg.SyncGroupRequest, r *kmsg.SyncGroupResponse) {
	w.model.heard(req.Group, req.MemberID, w.now)
	if r.ErrorCode != 0 || !w.isClassic(req.Group) {
		return
	}
	g := w.model.groups[req.Group]
	if g != nil && g.leader == req.MemberID && g.assigned == nil && req.Generation == g.n {
		g.assigned = map[string]string{}
		for _, a := range req.GroupAssignment {
			g.assigned[a.MemberID] = string(a.MemberAssignment)
		}
	}
	w.counts["assignments"]++
	w.must(w.model.synced(req.Group, req.Generation, req.MemberID, string(r.MemberAssignment), worldSession, w.now))
}

func (w *world) promise(topic string, offset int64) promise {
	id, _, _ := w.topics.ByName(topic)
	return promise{offset, id, w.now, len(w.log)}
}

func (w *world) holdCommit(req *kmsg.OffsetCommitRequest, r *kmsg.OffsetCommitResponse) {
	if r.Topics[0].Partitions[0].ErrorCode != 0 {
		return
	}
	t := req.Topics[0]
	w.counts["commits"]++
	switch {
	case req.Generation < 0:
		w.counts["outside commits"]++
		if d := w.m.describe(Describe{Group: req.Group}); len(d.Members) > 0 {
			w.fail("a commit from outside of %s, which has %d members", req.Group, len(d.Members))
		}
	case w.isClassic(req.Group):
		w.may(req.Group, req.Generation, req.MemberID)
	}
	w.model.offsets[spot{req.Group, partition{t.Topic, t.Partitions[0].Partition}}] = w.promise(t.Topic, t.Partitions[0].Offset)
}

// calm lets all clients behave. After a while every group is stable, every call was answered, and the offsets are right.
func (w *world) calm() {
	w.trace("calm")
	for _, a := range w.actors {
		a.rejoin = a.rejoin || a.generation < 0
	}
	for range 120 {
		for _, a := range w.actors {
			for range 3 {
				a.behave()
			}
		}
		w.passTime(time.Second)
	}
	for _, group := range worldGroups[:4] {
		got := w.groupType(group)
		if !strings.HasSuffix(got, " Stable") {
			w.fail("group %s is %s though all clients behave", group, got)
		}
		w.counts["stable"]++
	}
	for _, a := range w.actors {
		if !a.modern && !a.stable {
			w.fail("%s has no assignment though all clients behave", a.name)
		}
	}
	w.checkOffsets(w.m)
	w.checkReplay()
	w.passTime(2 * time.Minute) // now they are silent
	for token, c := range w.calls {
		w.fail("call %d is never answered: %T %+v", token, c.body, fmt.Sprintf("%+v", c.body))
	}
}
