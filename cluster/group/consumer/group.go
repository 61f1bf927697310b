package consumer

import (
	"slices"
	"time"

	"github.com/everlog/everlog/cluster/group/assign"
)

// Group is one consumer group. It is not safe for concurrent use.
type Group struct {
	id string
	o  Options

	// In the log. Changed by apply.go alone.
	epoch                int32
	hash                 int64 // of the subscribed topics that the epoch is for
	targetEpoch          int32
	targetTime           int64 // when the target was computed, ms; 0 is never
	members              map[string]*member
	target               map[string]assign.Partitions
	resolved             map[string]resolution // of the regular expressions
	hasPartitionMetadata bool                  // a record of type 4 is in the log
	dead                 bool                  // the group's tombstone was applied

	// Derived from the above, with it.
	instances        map[string]string            // instance id → member id
	owners           map[TopicID]map[int32]string // partition → who has it, assigned or still to be revoked
	names            map[string]int               // topic → members that subscribe by name
	regexes          map[string]int               // regular expression → members
	assignors        map[string]int               // asked for → members
	classicCount     int                          // members that speak the classic protocol
	classicProtocols map[string]int               // protocol → classic members that support it

	// Not in the log.
	due      time.Time // not after the first deadline; zero if there is none
	retarget time.Time // when the target may be computed; zero if it need not be
	reregex  time.Time // when regular expressions are to be resolved again
}

// resolution is what a regular expression stands for.
type resolution struct {
	topics map[string]struct{}
	at     int64 // ms
}

// firstEpoch is the group epoch of a group that has had no member.
const firstEpoch = 1

// New returns an empty group that is not in the log yet.
func New(id string, o Options) *Group {
	return &Group{
		id: id, o: o.withDefaults(), epoch: firstEpoch,
		members: map[string]*member{}, target: map[string]assign.Partitions{}, resolved: map[string]resolution{},
		instances: map[string]string{}, owners: map[TopicID]map[int32]string{},
		names: map[string]int{}, regexes: map[string]int{}, assignors: map[string]int{}, classicProtocols: map[string]int{},
	}
}

// Configure changes the options; what is under way keeps its deadlines.
func (g *Group) Configure(o Options) { g.o = o.withDefaults() }

// ID is the group's id.
func (g *Group) ID() string { return g.id }

// Empty says whether the group has no members.
func (g *Group) Empty() bool { return len(g.members) == 0 }

// Len is the number of members.
func (g *Group) Len() int { return len(g.members) }

// State is Kafka's name of the group's state: Empty, Assigning, Reconciling, Stable, or Dead once it is removed.
func (g *Group) State() string {
	switch {
	case g.dead:
		return "Dead"
	case len(g.members) == 0:
		return "Empty"
	case g.epoch > g.targetEpoch:
		return "Assigning"
	}
	for _, m := range g.members {
		if !m.reconciled(g.targetEpoch) {
			return "Reconciling"
		}
	}
	return "Stable"
}

// Subscribed says whether a member subscribes to the topic, by name or by a regular expression.
func (g *Group) Subscribed(topic string) bool {
	if g.names[topic] > 0 {
		return true
	}
	for regex := range g.regexes {
		if _, ok := g.resolved[regex].topics[topic]; ok {
			return true
		}
	}
	return false
}

// subscribes says whether the member subscribes to the topic.
func (g *Group) subscribes(m *member, topic string) bool {
	if _, ok := slices.BinarySearch(m.topics, topic); ok {
		return true
	}
	if m.regex == "" {
		return false
	}
	_, ok := g.resolved[m.regex].topics[topic]
	return ok
}

// subscription is what the group subscribes to, in order.
func (g *Group) subscription() []string {
	all := make(map[string]struct{}, len(g.names))
	for n := range g.names {
		all[n] = struct{}{}
	}
	for regex := range g.regexes {
		for n := range g.resolved[regex].topics {
			all[n] = struct{}{}
		}
	}
	return sortedKeys(all)
}

// memberIDs in order: what is done for all is done in the same order in every run.
func (g *Group) memberIDs() []string { return sortedKeys(g.members) }

func (g *Group) owner(t TopicID, partition int32) string { return g.owners[t][partition] }

// staticMember is the member of the instance, nil if there is none.
func (g *Group) staticMember(instance string) *member { return g.members[g.instances[instance]] }

// wake makes due at most t; zero is never.
func (g *Group) wake(t time.Time) {
	if !t.IsZero() && (g.due.IsZero() || t.Before(g.due)) {
		g.due = t
	}
}
