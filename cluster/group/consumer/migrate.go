package consumer

import (
	"errors"
	"fmt"
	"time"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/cluster/group/assign"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ClassicGroup is a classic group as far as both protocols have it.
type ClassicGroup struct {
	Generation int32
	// Protocol is the one of the generation, "" if there is none yet. ToClassic does not choose one.
	Protocol string
	Members  []ClassicMember // by id
	// Rebalance says, of a group that ToClassic made, that its members are not where their target is: a rebalance begins
	// at once. Otherwise the group is stable.
	Rebalance bool
}

// ClassicMember is a member of a ClassicGroup.
type ClassicMember struct {
	ID                               string
	InstanceID                       *string
	Client                           Client
	SessionTimeout, RebalanceTimeout time.Duration
	// Protocols that it supports, the best first, with the consumer protocol's subscription.
	Protocols []kmsg.JoinGroupRequestProtocol
	// Assignment of the generation, in the consumer protocol; empty if it has none.
	Assignment []byte
}

// ErrNotUpgradable means that a classic group cannot become a consumer group: the heartbeat that wanted it is answered
// with GROUP_ID_NOT_FOUND.
var ErrNotUpgradable = errors.New("classic group cannot become a consumer group")

// FromClassic makes a consumer group of a classic group with members, all of protocol type "consumer", when a consumer
// heartbeat comes that joins it. Every member is stable in the epoch of the generation, with what it was assigned.
// The caller gives the heartbeat to the new group; if that is refused, it keeps the classic group and appends nothing.
// Otherwise it appends the tombstone of the classic group, these records and the heartbeat's, as one batch, and answers what
// was parked with REBALANCE_IN_PROGRESS.
func FromClassic(id string, o Options, from ClassicGroup, topics Topics, now time.Time) (*Group, []coordinator.Record, error) {
	g := New(id, o)
	if !g.o.Migration.Upgrade() {
		return nil, nil, fmt.Errorf("%w: group.consumer.migration.policy does not allow it", ErrNotUpgradable)
	}
	if len(from.Members) > g.maxSize() {
		return nil, nil, fmt.Errorf("%w: it has %d members, a consumer group may have %d", ErrNotUpgradable, len(from.Members), g.maxSize())
	}
	c := &changes{g: g}
	all := make([]*member, len(from.Members))
	for i := range from.Members {
		m, err := memberFromClassic(&from.Members[i], from.Protocol)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: member %s: %w", ErrNotUpgradable, from.Members[i].ID, err)
		}
		all[i] = m
		c.metadata(m)
	}
	c.group(from.Generation, g.topicsHash(topics))
	for i, m := range all {
		assigned, err := g.assignedByClassic(from.Members[i].Assignment, topics, from.Generation)
		if err != nil {
			return nil, nil, fmt.Errorf("%w: member %s: %w", ErrNotUpgradable, m.id, err)
		}
		n := *m
		n.epoch, n.previousEpoch, n.assigned = from.Generation, from.Generation, assigned
		all[i] = &n
		c.target(m.id, assigned.partitionsByTopic())
		g.claim(&n) // so that none is taken twice
	}
	c.targetMetadata(from.Generation, 0)
	for _, m := range all {
		c.assignment(m)
		g.expect(m, g.sessionOf(m), now)
	}
	return g, c.records, nil
}

func memberFromClassic(cm *ClassicMember, protocol string) (*member, error) {
	m := newMember(cm.ID)
	m.instance, m.client, m.rebalanceTimeout = cm.InstanceID, cm.Client, int32(cm.RebalanceTimeout.Milliseconds())
	m.classic = &classicMetadata{sessionTimeout: int32(cm.SessionTimeout.Milliseconds())}
	if len(cm.Protocols) == 0 {
		return nil, errors.New("it supports no protocol")
	}
	chosen := cm.Protocols[0]
	for _, p := range cm.Protocols {
		m.classic.protocols = append(m.classic.protocols, classicProtocol{p.Name, p.Metadata})
		if p.Name == protocol {
			chosen = p
		}
	}
	var sub kmsg.ConsumerMemberMetadata
	if err := sub.ReadFrom(chosen.Metadata); err != nil {
		return nil, fmt.Errorf("its subscription: %w", err)
	}
	m.topics = normalTopics(sub.Topics)
	if deref(sub.Rack) != "" {
		m.rack = sub.Rack
	}
	return m, nil
}

// assignedByClassic reads an assignment of the consumer protocol. Unknown topics, and what another has, are left out.
func (g *Group) assignedByClassic(b []byte, topics Topics, epoch int32) (owned, error) {
	o := owned{}
	if len(b) == 0 {
		return o, nil
	}
	var a kmsg.ConsumerMemberAssignment
	if err := a.ReadFrom(b); err != nil {
		return nil, fmt.Errorf("its assignment: %w", err)
	}
	if len(a.UserData) > 0 {
		return nil, errors.New("its assignor keeps data of its own in assignments, which would be lost")
	}
	for _, t := range a.Topics {
		id, _, ok := topics.ByName(t.Topic)
		if !ok {
			continue
		}
		for _, p := range t.Partitions {
			if g.owner(id, p) != "" {
				continue
			}
			if o[id] == nil {
				o[id] = map[int32]int32{}
			}
			o[id][p] = epoch
		}
	}
	return o, nil
}

// Downgradable says whether the group should become a classic one: it has members, all of them classic, and
// policy and size allow it. The caller looks after every call but Replay; if so, it takes ToClassic, appends
// Tombstones and the classic group's own record behind the records of the call, in the same batch, and forgets this group.
func (g *Group) Downgradable() bool {
	return len(g.members) > 0 && g.classicCount == len(g.members) && g.o.Migration.Downgrade() &&
		(g.o.ClassicMaxSize <= 0 || len(g.members) <= g.o.ClassicMaxSize)
}

// ToClassic makes a classic group of a Downgradable group. Its generation is the group epoch: who is not reconciled
// to it joins again.
func (g *Group) ToClassic(topics Topics) ClassicGroup {
	c := ClassicGroup{Generation: g.epoch, Rebalance: g.State() != "Stable"}
	for _, id := range g.memberIDs() {
		m := g.members[id]
		cm := ClassicMember{
			ID: id, InstanceID: m.instance, Client: m.client,
			SessionTimeout:   g.sessionOf(m),
			RebalanceTimeout: time.Duration(m.rebalanceTimeout) * time.Millisecond,
			Assignment:       m.classicAssignment(topics),
		}
		for _, p := range m.classic.protocols {
			cm.Protocols = append(cm.Protocols, kmsg.JoinGroupRequestProtocol{Name: p.name, Metadata: p.metadata})
		}
		c.Members = append(c.Members, cm)
	}
	return c
}

// partitionsByTopic leaves the epochs out.
func (o owned) partitionsByTopic() assign.Partitions {
	p := make(assign.Partitions, len(o))
	for t := range o {
		p[t] = o.partitions(t)
	}
	return p
}
