package group

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
)

// model is what a coordinator has promised: a dumb second machine, that is told of answers and knows what they allow. It
// does not predict answers; it says which ones must not be.
type model struct {
	offsets map[spot]promise
	pending map[int64]map[spot]promise // by producer
	groups  map[string]*generation
}

// spot is a partition in a group.
type spot struct {
	group string
	partition
}

type promise struct {
	offset int64
	topic  [16]byte
	at     time.Time
	pos    int // in the log
}

// generation of a classic group, from the answers of JoinGroup and SyncGroup.
type generation struct {
	n        int32
	leader   string
	protocol string
	members  map[string]time.Time // when each was heard of last; or later: the model errs on its side
	listed   bool                 // the leader has got the members
	assigned map[string]string    // nil until the leader has synced
}

func newModel() *model {
	return &model{offsets: map[spot]promise{}, pending: map[int64]map[spot]promise{}, groups: map[string]*generation{}}
}

// promises are the offsets, as they are now.
func (m *model) promises() *model {
	c := newModel()
	c.offsets = maps.Clone(m.offsets)
	for id, p := range m.pending {
		c.pending[id] = maps.Clone(p)
	}
	return c
}

func (m *model) remove(s spot) {
	delete(m.offsets, s)
	for _, p := range m.pending {
		delete(p, s)
	}
}

// dropForeign forgets what is of topics that are gone.
func (m *model) dropForeign(topics Topics) {
	drop := func(offsets map[spot]promise) {
		for s, p := range offsets {
			if id, _, ok := topics.ByName(s.topic); !ok || id != p.topic {
				delete(offsets, s)
			}
		}
	}
	drop(m.offsets)
	for _, p := range m.pending {
		drop(p)
	}
}

func (m *model) removeGroup(id string) {
	for s := range m.offsets {
		if s.group == id {
			delete(m.offsets, s)
		}
	}
	for _, p := range m.pending {
		for s := range p {
			if s.group == id {
				delete(p, s)
			}
		}
	}
}

func (m *model) pend(id int64, s spot, p promise) {
	if m.pending[id] == nil {
		m.pending[id] = map[spot]promise{}
	}
	m.pending[id][s] = p
}

func (m *model) end(id int64, commit bool) {
	for s, p := range m.pending[id] {
		if old, ok := m.offsets[s]; commit && (!ok || old.pos < p.pos) {
			m.offsets[s] = p
		}
	}
	delete(m.pending, id)
}

func (m *model) unstable(s spot) bool {
	for _, p := range m.pending {
		if _, ok := p[s]; ok {
			return true
		}
	}
	return false
}

// restart forgets the generations but those that the log has, whose members are well.
func (m *model) restart(log []coordinator.Entry, now time.Time) {
	m.groups = map[string]*generation{}
	for _, e := range log {
		if e.Marker || binary.BigEndian.Uint16(e.Key) != groupKey {
			continue
		}
		var key kmsg.GroupMetadataKey
		var v kmsg.GroupMetadataValue
		if key.ReadFrom(e.Key) != nil || e.Value != nil && v.ReadFrom(e.Value) != nil {
			panic("a group's record cannot be read")
		}
		delete(m.groups, key.Group)
		if len(v.Members) == 0 {
			continue
		}
		g := &generation{n: v.Generation, leader: *v.Leader, protocol: *v.Protocol, listed: true, members: map[string]time.Time{}, assigned: map[string]string{}}
		for _, mem := range v.Members {
			g.members[mem.MemberID], g.assigned[mem.MemberID] = now, string(mem.Assignment)
		}
		m.groups[key.Group] = g
	}
}

// joined takes the answer of a JoinGroup without an error. replaces says that it came from an instance without member id.
func (m *model) joined(group string, n int32, leader, member, protocol string, listed []string, replaces string, now time.Time) error {
	g := m.groups[group]
	switch {
	case g == nil || n > g.n:
		g = &generation{n: n, leader: leader, protocol: protocol, members: map[string]time.Time{}}
		m.groups[group] = g
	case n < g.n:
		return fmt.Errorf("generation %d of %s after %d", n, group, g.n)
	case g.assigned != nil && replaces != "" && replaces != member: // another process of the instance, in its place
		if _, ok := g.members[replaces]; !ok {
			return fmt.Errorf("%s takes the place of %s, which is not of generation %d of %s", member, replaces, n, group)
		}
		delete(g.members, replaces)
		g.assigned[member] = g.assigned[replaces]
		delete(g.assigned, replaces)
		if g.leader == replaces {
			g.leader = member
		}
		g.members[member] = now
		return nil
	case leader != g.leader:
		return fmt.Errorf("%s and %s lead generation %d of %s", leader, g.leader, n, group)
	}
	if protocol != g.protocol {
		return fmt.Errorf("%s and %s are the protocol of generation %d of %s", protocol, g.protocol, n, group)
	}
	if _, known := g.members[member]; !known && (g.listed || g.assigned != nil) {
		return fmt.Errorf("%s is in generation %d of %s after its members were told", member, n, group)
	}
	g.members[member] = now
	if len(listed) > 0 && !g.listed {
		g.listed = true
		for id := range g.members {
			if !slices.Contains(listed, id) {
				return fmt.Errorf("the leader of generation %d of %s does not know of %s", n, group, id)
			}
		}
		for _, id := range listed {
			if _, known := g.members[id]; !known {
				g.members[id] = now
			}
		}
	}
	return nil
}

func (m *model) heard(group, member string, now time.Time) {
	if g := m.groups[group]; g != nil {
		if _, ok := g.members[member]; ok {
			g.members[member] = now
		}
	}
}

// may says whether a member of a generation may be told that all is well.
func (m *model) may(group string, n int32, member string, session time.Duration, now time.Time) error {
	g := m.groups[group]
	if g == nil && n == 0 {
		return nil // it joins, and knows the number of a group that has no generation yet
	}
	if g == nil || n != g.n {
		return fmt.Errorf("generation %d of %s is not the one there is: %+v", n, group, g)
	}
	seen, ok := g.members[member]
	if !ok {
		return fmt.Errorf("%s is not of generation %d of %s", member, n, group)
	}
	if now.Sub(seen) > session {
		return fmt.Errorf("%s was not heard of for %v", member, now.Sub(seen))
	}
	g.members[member] = now
	return nil
}

// synced takes the answer of a SyncGroup without an error.
func (m *model) synced(group string, n int32, member, assignment string, session time.Duration, now time.Time) error {
	g := m.groups[group]
	if g == nil || g.assigned == nil {
		return fmt.Errorf("%s of %s has an assignment before the leader gave it", member, group)
	}
	m.heard(group, member, now) // a parked one is there
	if err := m.may(group, n, member, session, now); err != nil {
		return err
	}
	if g.assigned[member] != assignment {
		return fmt.Errorf("%s of %s is told %q, the leader said %q", member, group, assignment, g.assigned[member])
	}
	return nil
}
