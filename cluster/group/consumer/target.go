package consumer

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
	"time"

	"github.com/everlog/everlog/cluster/group/assign"
)

// bump begins a new group epoch.
func (g *Group) bump(c *changes, topics Topics) {
	c.group(g.epoch+1, g.topicsHash(topics))
}

// topicsHash is a hash of the subscribed topics that exist: their ids, names and partition counts; 0 if there are none.
// The log has that of the group epoch. Kafka's is another function; a group that comes from it is bumped once.
func (g *Group) topicsHash(topics Topics) int64 {
	h := fnv.New64a()
	found := false
	for _, name := range g.subscription() {
		id, partitions, ok := topics.ByName(name)
		if !ok {
			continue
		}
		found = true
		b := append([]byte(name), 0)
		b = append(b, id[:]...)
		h.Write(binary.BigEndian.AppendUint32(b, uint32(partitions)))
	}
	if !found {
		return 0
	}
	return int64(h.Sum64())
}

// assignor is the one that most members ask for; the default if none does.
func (g *Group) assignor() string {
	best, votes := "", 0
	for name, n := range g.assignors {
		if assign.ByName(name) != nil && (n > votes || n == votes && name < best) {
			best, votes = name, n
		}
	}
	if votes == 0 {
		return g.o.Assignors[0]
	}
	return best
}

// maybeRetarget computes the target if the group epoch is past it, unless the last time is too short ago: then it is
// done by Tick.
func (g *Group) maybeRetarget(c *changes, topics Topics, now time.Time) {
	g.retarget = time.Time{}
	if g.epoch <= g.targetEpoch || len(g.members) == 0 {
		return
	}
	last := time.UnixMilli(g.targetTime)
	if !last.After(now) && now.Sub(last) < g.o.AssignmentInterval { // a clock that was set back stops nothing
		g.retarget = last.Add(g.o.AssignmentInterval)
		g.wake(g.retarget)
		return
	}
	spec, ids := g.spec(topics)
	for i, p := range assign.ByName(g.assignor())(spec) {
		if old, ok := g.target[ids[i]]; !ok || !old.Equal(p) {
			c.target(ids[i], p)
		}
	}
	c.targetMetadata(g.epoch, now.UnixMilli())
}

// spec is what the assignor works on, and the ids of its members.
func (g *Group) spec(topics Topics) (assign.Spec, []string) {
	var s assign.Spec
	index := map[string]int{}
	for _, name := range g.subscription() {
		if id, partitions, ok := topics.ByName(name); ok {
			index[name] = len(s.Topics)
			s.Topics = append(s.Topics, assign.Topic{ID: id, Partitions: partitions})
		}
	}
	ids := g.memberIDs()
	var last *member
	for _, id := range ids {
		m := g.members[id]
		am := assign.Member{ID: id, Instance: deref(m.instance), Current: g.target[id]}
		if last != nil && last.regex == m.regex && slices.Equal(last.topics, m.topics) {
			am.Topics = s.Members[len(s.Members)-1].Topics
		} else {
			am.Topics = g.indexes(m, index)
		}
		s.Members = append(s.Members, am)
		last = m
	}
	return s, ids
}

// indexes of the topics that the member subscribes to, ascending.
func (g *Group) indexes(m *member, index map[string]int) []int {
	out := make([]int, 0, len(m.topics))
	for _, name := range m.topics {
		if i, ok := index[name]; ok {
			out = append(out, i)
		}
	}
	if m.regex != "" {
		for name := range g.resolved[m.regex].topics {
			if i, ok := index[name]; ok {
				out = append(out, i)
			}
		}
		slices.Sort(out)
		out = slices.Compact(out)
	}
	return out
}
