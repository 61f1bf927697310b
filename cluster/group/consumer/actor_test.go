package consumer

import (
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// actor is a client. It takes partitions the moment it is told to, and gives them up as late as it may: what is safe
// with it is safe with any.
type actor struct {
	s        *sim
	id       string
	instance *string
	epoch    int32
	has      map[tp]bool
	target   map[tp]bool // what it was last told
	names    []string
	regex    string

	resend bool // an answer may be missing: say everything
	ack    bool // say what it has
	resub  bool // say what it subscribes to

	classic classicPhase
	eager   bool
}

type classicPhase int

const (
	notClassic classicPhase = iota
	joining
	syncing
	settled
)

func (s *sim) newActor() {
	a := &actor{s: s, id: s.newID(), has: map[tp]bool{}, target: map[tp]bool{}, eager: s.chance(50)}
	if s.chance(30) {
		a.classic, a.id = joining, ""
	}
	if s.chance(30) {
		i := fmt.Sprintf("i%d", s.rng.IntN(3))
		for _, o := range s.actors {
			if o.instance != nil && *o.instance == i {
				return // one that is alive has it
			}
		}
		a.instance = &i
		if s.g.instances[i] != "" {
			s.counts["came back"]++
		}
	}
	a.resubscribe()
	s.actors = append(s.actors, a)
	s.say("%s begins, classic %d, instance %v", a.id, a.classic, deref(a.instance))
}

func (a *actor) resubscribe() {
	a.names, a.regex, a.resub = nil, "", true
	for i := range 5 {
		if a.s.chance(50) {
			a.names = append(a.names, fmt.Sprintf("t%d", i))
		}
	}
	if a.classic == notClassic && a.s.chance(30) {
		a.regex = []string{"t[0-2]", "t.*", "t3|t4"}[a.s.rng.IntN(3)]
	}
	if a.classic == settled {
		a.classic = joining
	}
}

// stop ends the client: it crashes, leaves, or leaves for a while.
func (a *actor) stop() {
	s := a.s
	a.has = map[tp]bool{}
	s.actors = slices.DeleteFunc(s.actors, func(o *actor) bool { return o == a })
	epoch := int32(epochLeave)
	if a.instance != nil && s.chance(70) {
		epoch = epochLeaveStatic
	}
	s.say("%s stops, %d", a.id, epoch)
	switch {
	case s.chance(30): // it crashes, or what it says is lost
	case a.classic == notClassic && a.epoch > 0:
		_, records := s.g.Heartbeat(&kmsg.ConsumerGroupHeartbeatRequest{Version: 1, Group: "g", MemberID: a.id, InstanceID: a.instance, MemberEpoch: epoch, RebalanceTimeoutMillis: -1}, a.client(), s.topics, s.now)
		s.keep(records)
	case a.classic != notClassic && a.id != "" && epoch == epochLeave:
		_, records := s.g.LeaveClassic([]kmsg.LeaveGroupRequestMember{{MemberID: a.id, InstanceID: a.instance}}, s.topics, s.now)
		s.keep(records)
	}
}

func (a *actor) client() Client { return Client{"client", "/10.0.0.1"} }

// revoke gives up what is not in the target.
func (a *actor) revoke() {
	if a.classic == joining && a.eager || a.classic == syncing {
		return
	}
	n := len(a.has)
	maps.DeleteFunc(a.has, func(p tp, _ bool) bool { return !a.target[p] })
	if len(a.has) == n {
		return
	}
	a.s.say("%s revokes, has %v", a.id, a.has)
	a.s.counts["revoked"]++
	if a.ack = true; a.classic == settled {
		a.classic = joining
	}
}

// take does what an assignment says.
func (a *actor) take(target map[tp]bool) {
	a.target = target
	for p := range target {
		if !a.has[p] {
			a.has[p], a.ack = true, true
		}
	}
}

func (a *actor) abandon() {
	a.has, a.target, a.epoch = map[tp]bool{}, map[tp]bool{}, 0
	a.s.counts["fenced"]++
}

func (a *actor) lost() bool { return !a.s.quiet && a.s.chance(8) }

// talk is the next request of the client, and its answer, if they are not lost.
func (a *actor) talk() {
	switch a.classic {
	case notClassic:
		a.heartbeat()
	case joining:
		a.join()
	case syncing:
		a.sync()
	case settled:
		a.heartbeatClassic()
	}
}

func (a *actor) heartbeat() {
	s := a.s
	req := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID, req.MemberEpoch = 1, "g", a.id, a.instance, a.epoch
	full := a.epoch == 0 || a.resend
	if full {
		req.RebalanceTimeoutMillis = 60_000
	}
	if full || a.resub {
		req.SubscribedTopicNames, req.SubscribedTopicRegex = append([]string{}, a.names...), &a.regex
	}
	if full || a.ack || s.chance(20) {
		req.Topics = a.holding()
	}
	if a.epoch == 0 && s.chance(30) {
		req.ServerAssignor = &[]string{"uniform", "range"}[s.rng.IntN(2)]
	}
	if a.resend = true; a.lost() {
		s.say("%s: heartbeat %d is lost", a.id, a.epoch)
		return
	}
	behind := s.g.members[a.id] != nil && a.epoch > 0 && a.epoch < s.g.members[a.id].epoch
	resp, records := s.g.Heartbeat(req, a.client(), s.topics, s.now)
	s.keep(records)
	if m := s.g.members[a.id]; m != nil && m.state == unreleased {
		s.counts["unreleased"]++
	}
	lost := a.lost()
	s.say("%s: heartbeat %d full %t has %v: %s lost %t; group %d target %d", a.id, a.epoch, full, req.Topics, text(resp), lost, s.g.epoch, s.g.targetEpoch)
	switch resp.ErrorCode {
	case 0:
		if behind {
			s.counts["lost answer taken"]++
		}
	case kerr.UnknownMemberID.Code, kerr.FencedMemberEpoch.Code:
		if !lost {
			a.abandon()
		}
		return
	case kerr.UnreleasedInstanceID.Code:
		return // it waits for the one before to be forgotten
	default:
		s.fail("%s got error %d", a.id, resp.ErrorCode)
	}
	if lost {
		return
	}
	a.epoch, a.resend, a.resub, a.ack = resp.MemberEpoch, false, false, false
	if resp.Assignment != nil {
		s.counts["assigned"]++
		target := map[tp]bool{}
		for _, t := range resp.Assignment.Topics {
			for _, p := range t.Partitions {
				target[tp{t.TopicID, p}] = true
			}
		}
		a.take(target)
	}
}

func (a *actor) holding() []kmsg.ConsumerGroupHeartbeatRequestTopic {
	byTopic := map[TopicID][]int32{}
	for p := range a.has {
		byTopic[p.topic] = append(byTopic[p.topic], p.partition)
	}
	out := []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	for t, parts := range byTopic {
		out = append(out, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: t, Partitions: parts})
	}
	return out
}

func (a *actor) subscription() []byte {
	sub := kmsg.NewConsumerMemberMetadata()
	sub.Version, sub.Topics, sub.Generation = 3, a.names, a.epoch
	byTopic := map[string][]int32{}
	for p := range a.has {
		if name, _, ok := a.s.topics.ByID(p.topic); ok {
			byTopic[name] = append(byTopic[name], p.partition)
		}
	}
	for _, name := range sortedKeys(byTopic) {
		sub.OwnedPartitions = append(sub.OwnedPartitions, kmsg.ConsumerMemberMetadataOwnedPartition{Topic: name, Partitions: byTopic[name]})
	}
	return sub.AppendTo(nil)
}

func (a *actor) join() {
	s := a.s
	if a.eager {
		a.has = map[tp]bool{}
	}
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID, req.ProtocolType = 9, "g", a.id, a.instance, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 45_000, 60_000
	req.Protocols = []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: a.subscription()}}
	if a.lost() {
		return
	}
	resp, records := s.g.JoinClassic(req, a.client(), s.topics, s.now)
	s.keep(records)
	lost := a.lost()
	s.say("%s: join as %q: error %d generation %d lost %t", resp.MemberID, a.id, resp.ErrorCode, resp.Generation, lost)
	if lost {
		return
	}
	switch resp.ErrorCode {
	case 0:
		a.id, a.epoch, a.classic = resp.MemberID, resp.Generation, syncing
	case kerr.MemberIDRequired.Code:
		a.id = resp.MemberID
	case kerr.UnknownMemberID.Code, kerr.FencedInstanceID.Code:
		a.abandon()
		a.id = ""
	default:
		s.fail("%s got error %d", a.id, resp.ErrorCode)
	}
}

func (a *actor) sync() {
	s := a.s
	req := kmsg.NewPtrSyncGroupRequest()
	req.Version, req.Group, req.MemberID, req.InstanceID, req.Generation = 5, "g", a.id, a.instance, a.epoch
	if a.lost() {
		return
	}
	resp := s.g.SyncClassic(req, s.topics, s.now)
	lost := a.lost()
	s.say("%s: sync %d: error %d lost %t", a.id, a.epoch, resp.ErrorCode, lost)
	if lost {
		return
	}
	switch resp.ErrorCode {
	case 0:
		var as kmsg.ConsumerMemberAssignment
		if err := as.ReadFrom(resp.MemberAssignment); err != nil {
			s.fail("%v", err)
		}
		target := map[tp]bool{}
		for _, t := range as.Topics {
			id, _, _ := s.topics.ByName(t.Topic)
			for _, p := range t.Partitions {
				target[tp{id, p}] = true
			}
		}
		a.take(target)
		a.classic = settled
		s.counts["classic assigned"]++
	default:
		a.refused(resp.ErrorCode)
	}
}

func (a *actor) heartbeatClassic() {
	if a.lost() {
		return
	}
	code := a.s.g.HeartbeatClassic(&kmsg.HeartbeatRequest{Group: "g", MemberID: a.id, InstanceID: a.instance, Generation: a.epoch}, a.s.now)
	a.s.say("%s: heartbeat %d: error %d", a.id, a.epoch, code)
	if code != 0 && !a.lost() {
		a.refused(code)
	}
}

func (a *actor) refused(code int16) {
	switch code {
	case kerr.RebalanceInProgress.Code:
		a.s.counts["rebalance in progress"]++
		a.classic = joining
	case kerr.IllegalGeneration.Code:
		a.abandon()
		a.classic = joining
	case kerr.UnknownMemberID.Code, kerr.FencedInstanceID.Code:
		a.abandon()
		a.id, a.classic = "", joining
	default:
		a.s.fail("%s got error %d", a.id, code)
	}
}
