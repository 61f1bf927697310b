package group

import (
	"fmt"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
)

// actor is a client of a group.
type actor struct {
	w          *world
	name       string
	group      string
	kind       string // protocol type
	modern     bool   // speaks KIP-848
	instance   *string
	protocols  []string
	id         string
	generation int32
	stable     bool // it has synced
	leads      bool
	members    []string
	rejoin     bool
	call       coordinator.Token // parked
	owned      []int32           // of KIP-848
}

func (w *world) newActor(i int) *actor {
	a := &actor{w: w, name: fmt.Sprint("client", i), kind: "consumer", group: worldGroups[[]int{0, 0, 0, 1, 2, 2, 3, 3}[i]], protocols: []string{"range", "sticky"}}
	switch i {
	case 2, 3:
		a.instance = ptr(fmt.Sprint("instance", i))
	case 4, 5:
		a.kind = "connect"
	case 7:
		a.modern = true
	}
	return a
}

// act does one thing; not always a sensible one.
func (a *actor) act() {
	w := a.w
	if a.modern {
		a.actModern()
		return
	}
	switch n := w.rng.IntN(100); {
	case n < 3: // the process dies, and another begins
		a.forget()
		a.id = ""
	case n < 6:
		a.call = 0 // it sends something else on another connection
	case n < 10:
		w.rng.Shuffle(len(a.protocols), func(i, j int) { a.protocols[i], a.protocols[j] = a.protocols[j], a.protocols[i] })
		a.rejoin = true
	case n < 15:
		a.commitOutside()
	case n < 22:
		a.commit(w.chance(20))
	case n < 27:
		a.commitTxn()
	case n < 30:
		a.leave()
	case n < 34 && a.generation > 0:
		a.generation += w.rng.Int32N(3) - 1 // it is confused
	default:
		a.behave()
	}
}

// behave does what a good client does next.
func (a *actor) behave() {
	if a.modern {
		a.beat()
		return
	}
	switch {
	case a.call != 0:
	case a.id == "" || a.generation < 0 || a.rejoin:
		a.join()
	case !a.stable:
		a.sync()
	default:
		a.heartbeat()
	}
}

func (a *actor) forget() {
	a.generation, a.stable, a.leads, a.rejoin, a.call = -1, false, false, false, 0
}

// lost is told of a crash that the log came back from at pos: no answer comes.
func (a *actor) lost(int) { a.call = 0 }

func (a *actor) send(what string, version int16, body kmsg.Request) {
	a.w.step(fmt.Sprintf("%s of %s (%s): %s v%d, generation %d", a.name, a.group, a.id, what, version, a.generation), func() {
		r := a.w.request(version, body)
		r.Client.ID = a.name
		a.w.start(a, r)
	})
}

func (a *actor) join() {
	version := int16(a.w.rng.IntN(10))
	if a.instance != nil {
		version = max(version, 5)
	}
	req := &kmsg.JoinGroupRequest{
		Group: a.group, MemberID: a.id, InstanceID: a.instance, ProtocolType: a.kind,
		SessionTimeoutMillis: int32(worldSession / time.Millisecond), RebalanceTimeoutMillis: 15_000,
	}
	for _, p := range a.protocols {
		req.Protocols = append(req.Protocols, kmsg.JoinGroupRequestProtocol{Name: p, Metadata: subscription("a")})
	}
	if a.w.chance(10) {
		req.Protocols = req.Protocols[:1]
	}
	a.call = a.w.last + 1
	a.send("join", version, req)
}

func (a *actor) sync() {
	req := &kmsg.SyncGroupRequest{Group: a.group, MemberID: a.id, InstanceID: a.instance, Generation: a.generation}
	if a.leads {
		for _, id := range a.members {
			if a.w.chance(95) {
				a.w.ids++
				what := fmt.Sprintf("%s-%d-%d", id, a.generation, a.w.ids)
				if a.group == "mixed" {
					what = string(assignment(0))
				}
				req.GroupAssignment = append(req.GroupAssignment, assignTo(id, what))
			}
		}
	}
	a.call = a.w.last + 1
	a.send("sync", int16(a.w.rng.IntN(5)), req)
}

func (a *actor) heartbeat() {
	a.send("heartbeat", 4, &kmsg.HeartbeatRequest{Group: a.group, MemberID: a.id, InstanceID: a.instance, Generation: a.generation})
}

func (a *actor) leave() {
	if a.id != "" {
		a.send("leave", 5, &kmsg.LeaveGroupRequest{Group: a.group, Members: []kmsg.LeaveGroupRequestMember{{MemberID: a.id, InstanceID: a.instance}}})
		a.forget()
	}
}

func commitRequest(s spot, offset int64) *kmsg.OffsetCommitRequest {
	return &kmsg.OffsetCommitRequest{Group: s.group, Generation: -1, RetentionTimeMillis: -1, Topics: []kmsg.OffsetCommitRequestTopic{
		{Topic: s.topic, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: s.index, Offset: offset}}}}}
}

func (a *actor) nextSpot() (spot, int64) {
	s := a.w.spot()
	s.group = a.group
	a.w.ids++
	return s, int64(a.w.ids)
}

func (a *actor) commit(late bool) {
	s, offset := a.nextSpot()
	req := commitRequest(s, offset)
	req.MemberID, req.InstanceID, req.Generation = a.id, a.instance, a.generation
	if late {
		req.Generation--
	}
	a.send(fmt.Sprintf("commit %d for %+v", offset, s), 9, req)
}

// commitOutside commits from no member. If the group has one that is well, it must be refused.
func (a *actor) commitOutside() {
	s, offset := a.nextSpot()
	if a.w.chance(50) {
		s.group = "simple"
	}
	a.send(fmt.Sprintf("outside commit %d for %+v", offset, s), 9, commitRequest(s, offset))
}

func (a *actor) commitTxn() {
	s, offset := a.nextSpot()
	a.send(fmt.Sprintf("transactional commit %d for %+v", offset, s), 5, &kmsg.TxnOffsetCommitRequest{
		Group: s.group, ProducerID: a.w.rng.Int64N(3), Generation: -1, Topics: []kmsg.TxnOffsetCommitRequestTopic{
			{Topic: s.topic, Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{Partition: s.index, Offset: offset}}}}})
}

func (a *actor) actModern() {
	switch n := a.w.rng.IntN(100); {
	case n < 4:
		a.beatWith(-1)
		a.id = ""
	case n < 6:
		a.id = "" // it dies
	case n < 15:
		a.commit(a.w.chance(20))
	default:
		a.beat()
	}
}

func (a *actor) beat() {
	if a.id == "" {
		a.w.ids++
		a.id, a.generation, a.owned = fmt.Sprint("modern", a.w.ids), 0, nil
	}
	a.beatWith(a.generation)
}

func (a *actor) beatWith(epoch int32) {
	if a.id == "" {
		return
	}
	req := &kmsg.ConsumerGroupHeartbeatRequest{
		Group: a.group, MemberID: a.id, MemberEpoch: epoch, RebalanceTimeoutMillis: 15_000, SubscribedTopicNames: []string{"a"},
		Topics: []kmsg.ConsumerGroupHeartbeatRequestTopic{},
	}
	if len(a.owned) > 0 && epoch > 0 {
		req.Topics = append(req.Topics, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: idA, Partitions: a.owned})
	}
	a.w.counts["consumer heartbeats"]++
	before := a.w.groupType(a.group)
	a.send(fmt.Sprintf("heartbeat in epoch %d", epoch), 1, req)
	after := a.w.groupType(a.group)
	if strings.HasPrefix(before, "classic") && before != "classic Empty" && strings.HasPrefix(after, "consumer") {
		a.w.counts["upgraded"]++
	}
	if strings.HasPrefix(before, "consumer") && strings.HasPrefix(after, "classic") {
		a.w.counts["downgraded"]++
	}
}

// answer takes an answer as a client does.
func (a *actor) answer(v any, body any) {
	switch r := v.(type) {
	case *kmsg.JoinGroupResponse:
		a.call = 0
		a.joined(r)
	case *kmsg.SyncGroupResponse:
		a.call = 0
		a.refused(r.ErrorCode)
		a.stable = r.ErrorCode == 0
	case *kmsg.HeartbeatResponse:
		a.refused(r.ErrorCode)
	case *kmsg.ConsumerGroupHeartbeatResponse:
		if r.ErrorCode != 0 {
			a.id = ""
		} else if r.MemberEpoch > 0 {
			a.generation = r.MemberEpoch
			if r.Assignment != nil {
				a.owned = nil
				for _, t := range r.Assignment.Topics {
					a.owned = append(a.owned, t.Partitions...)
				}
			}
		}
	}
}

func (a *actor) joined(r *kmsg.JoinGroupResponse) {
	switch r.ErrorCode {
	case 0:
		a.id, a.generation, a.leads, a.stable, a.rejoin, a.members = r.MemberID, r.Generation, r.LeaderID == r.MemberID, false, false, nil
		for _, m := range r.Members {
			a.members = append(a.members, m.MemberID)
		}
	case kerr.MemberIDRequired.Code:
		a.id = r.MemberID
	default:
		a.refused(r.ErrorCode)
	}
}

func (a *actor) refused(code int16) {
	switch code {
	case kerr.UnknownMemberID.Code, kerr.FencedInstanceID.Code:
		a.forget()
		a.id = ""
	case kerr.IllegalGeneration.Code, kerr.RebalanceInProgress.Code:
		a.rejoin = true
	}
	switch code {
	case kerr.RebalanceInProgress.Code:
		a.w.counts["rebalance in progress"]++
	case kerr.FencedInstanceID.Code:
		a.w.counts["fenced"]++
	}
}
