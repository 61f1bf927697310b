package consumer

import (
	"maps"

	"github.com/everlog/everlog/cluster/group/assign"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// held are the partitions that a member says it has; nil if it did not say.
type held []kmsg.ConsumerGroupHeartbeatRequestTopic

// anyOf says whether some of the partitions are held, or may be.
func (h held) anyOf(o owned) bool {
	if h == nil {
		return true
	}
	for i := range h {
		of := o[h[i].TopicID]
		for _, p := range h[i].Partitions {
			if _, ok := of[p]; ok {
				return true
			}
		}
	}
	return false
}

// within says whether all that is held is in o; not if it is not known.
func (h held) within(o owned) bool {
	if h == nil {
		return false
	}
	for i := range h {
		for _, p := range h[i].Partitions {
			if !o.has(h[i].TopicID, p) {
				return false
			}
		}
	}
	return true
}

// reconcile brings a member nearer to its target, as far as what it holds allows, and returns what it is then. This is
// Kafka's CurrentAssignmentBuilder; where a partition could get a second owner, it is here.
func (g *Group) reconcile(m *member, holds held, topics Topics) *member {
	switch m.state {
	case stable:
		if m.epoch != g.targetEpoch {
			return g.next(m, m.epoch, holds, topics)
		}
		return g.dropUnsubscribed(m, holds, topics)
	case unrevoked:
		if holds.anyOf(m.revoking) {
			return g.dropUnsubscribed(m, holds, topics)
		}
		return g.next(m, m.epoch, holds, topics)
	case unreleased:
		return g.next(m, m.epoch, holds, topics)
	default: // Holding nothing, which was checked before, it begins anew.
		return g.next(m, g.targetEpoch, holds, topics)
	}
}

// next computes the member's next step towards the target.
func (g *Group) next(m *member, epoch int32, holds held, topics Topics) *member {
	target := g.subscribedTarget(m, topics)
	assigned, revoking := split(m.assigned, target)
	n := *m
	n.previousEpoch = m.epoch
	if len(revoking) > 0 && holds.anyOf(revoking) {
		n.state, n.epoch, n.assigned, n.revoking = unrevoked, epoch, assigned, revoking
		return &n
	}
	n.state, n.epoch, n.revoking = stable, g.targetEpoch, nil
	for t, parts := range target {
		for _, p := range parts {
			if assigned.has(t, p) {
				continue
			}
			// What it was to give up, and has, is nobody else's.
			if o := g.owner(t, p); o != "" && !(o == m.id && m.revoking.has(t, p)) {
				n.state = unreleased
				continue
			}
			if assigned[t] == nil {
				assigned[t] = map[int32]int32{}
			}
			assigned[t][p] = g.targetEpoch
		}
	}
	n.assigned = assigned
	return &n
}

// subscribedTarget is the member's target without topics that it does not subscribe to any more.
func (g *Group) subscribedTarget(m *member, topics Topics) assign.Partitions {
	target := make(assign.Partitions, len(g.target[m.id]))
	for t, parts := range g.target[m.id] {
		if g.subscribesID(m, t, topics) {
			target[t] = parts
		}
	}
	return target
}

func (g *Group) subscribesID(m *member, t TopicID, topics Topics) bool {
	name, _, ok := topics.ByID(t)
	return ok && g.subscribes(m, name)
}

// split divides what is assigned into what is in the target and what is not. Both are new.
func split(assigned owned, target assign.Partitions) (in, out owned) {
	in, out = make(owned, len(target)), owned{}
	for t, parts := range assigned {
		for _, p := range target[t] {
			if epoch, ok := parts[p]; ok {
				if in[t] == nil {
					in[t] = make(map[int32]int32, len(parts))
				}
				in[t][p] = epoch
			}
		}
		if len(in[t]) == len(parts) {
			continue
		}
		out[t] = maps.Clone(parts)
		maps.DeleteFunc(out[t], func(p, _ int32) bool { return in.has(t, p) })
	}
	return in, out
}

// dropUnsubscribed takes from a member the topics that it does not subscribe to any more, or that are deleted, before a
// new target says so.
func (g *Group) dropUnsubscribed(m *member, holds held, topics Topics) *member {
	var gone []TopicID
	for t := range m.assigned {
		if !g.subscribesID(m, t, topics) {
			gone = append(gone, t)
		}
	}
	if len(gone) == 0 {
		return m
	}
	n := *m
	n.previousEpoch = m.epoch
	n.assigned, n.revoking = maps.Clone(m.assigned), maps.Clone(m.revoking)
	if n.revoking == nil {
		n.revoking = owned{}
	}
	for _, t := range gone {
		delete(n.assigned, t)
		both := maps.Clone(n.revoking[t])
		if both == nil {
			both = map[int32]int32{}
		}
		maps.Copy(both, m.assigned[t])
		n.revoking[t] = both
	}
	if holds.anyOf(n.revoking) {
		n.state = unrevoked
		return &n
	}
	n.revoking = m.revoking // It has given them up already.
	return &n
}
