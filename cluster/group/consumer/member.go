package consumer

import (
	"maps"
	"slices"
	"time"

	"github.com/everlog/everlog/cluster/group/assign"
)

// memberState is where a member is on its way to the target (Kafka's MemberState; the numbers are in records).
type memberState int8

const (
	// stable: it has its target of its epoch, or all of it that there is.
	stable memberState = 0
	// unrevoked: it was told to give up partitions, and has not said that it did.
	unrevoked memberState = 1
	// unreleased: it lacks partitions of its target that others still have.
	unreleased memberState = 2
	// unknown: written by a newer broker.
	unknown memberState = 127
)

// Epochs of members with a meaning of their own.
const (
	epochJoin        = 0
	epochLeave       = -1
	epochLeaveStatic = -2 // left for a while: the instance comes back, its partitions are kept for it
)

// owned are partitions with the member epoch at which each was assigned (KIP-1251). It is never changed in place.
type owned map[TopicID]map[int32]int32

func (o owned) has(t TopicID, partition int32) bool {
	_, ok := o[t][partition]
	return ok
}

func (o owned) equal(p owned) bool {
	return maps.EqualFunc(o, p, func(a, b map[int32]int32) bool { return maps.Equal(a, b) })
}

// samePartitions compares without epochs.
func (o owned) samePartitions(p owned) bool {
	return maps.EqualFunc(o, p, func(a, b map[int32]int32) bool {
		return maps.EqualFunc(a, b, func(int32, int32) bool { return true })
	})
}

// topics in order: records and answers are the same in every run.
func (o owned) topics() []TopicID {
	return slices.SortedFunc(maps.Keys(o), compareIDs)
}

// partitions of a topic in order.
func (o owned) partitions(t TopicID) []int32 {
	return slices.Sorted(maps.Keys(o[t]))
}

func compareIDs(a, b TopicID) int { return slices.Compare(a[:], b[:]) }

// sortedTopics of a target.
func sortedTopics(p assign.Partitions) []TopicID {
	return slices.SortedFunc(maps.Keys(p), compareIDs)
}

// member is one member. A change makes a new one.
type member struct {
	id string

	// Of the ConsumerGroupMemberMetadata record.
	instance         *string
	rack             *string
	client           Client
	topics           []string // subscribed by name; in order, without duplicates
	regex            string   // "" is none
	rebalanceTimeout int32    // milliseconds; -1 if never said
	assignor         *string
	classic          *classicMetadata // nil if it speaks the consumer protocol

	// Of the ConsumerGroupCurrentMemberAssignment record.
	epoch, previousEpoch int32
	state                memberState
	assigned             owned
	revoking             owned // told to give up

	// Not in the log.
	timers timers
}

// classicMetadata is what is kept of a JoinGroup.
type classicMetadata struct {
	sessionTimeout int32 // milliseconds
	protocols      []classicProtocol
}

type classicProtocol struct {
	name     string
	metadata []byte
}

// timers of a member; zero is none.
type timers struct {
	session   time.Time // it must have been heard of
	rebalance time.Time // it must have given up what it was told to
	join      time.Time // classic: it must have joined again
	sync      time.Time // classic: it must have asked for its assignment
}

func newMember(id string) *member { return &member{id: id, rebalanceTimeout: -1} }

func (m *member) usesClassic() bool { return m.classic != nil }

func (m *member) reconciled(targetEpoch int32) bool {
	return m.state == stable && m.epoch == targetEpoch
}

// sameMetadata compares what the metadata record has.
func (m *member) sameMetadata(o *member) bool {
	return equalPtr(m.instance, o.instance) && equalPtr(m.rack, o.rack) && m.client == o.client &&
		slices.Equal(m.topics, o.topics) && m.regex == o.regex && m.rebalanceTimeout == o.rebalanceTimeout &&
		equalPtr(m.assignor, o.assignor) && m.classic.equal(o.classic)
}

// sameAssignment compares what the assignment record has.
func (m *member) sameAssignment(o *member) bool {
	return m.epoch == o.epoch && m.previousEpoch == o.previousEpoch && m.state == o.state &&
		m.assigned.equal(o.assigned) && m.revoking.equal(o.revoking)
}

func (c *classicMetadata) equal(o *classicMetadata) bool {
	if c == nil || o == nil {
		return c == o
	}
	return c.sessionTimeout == o.sessionTimeout && slices.EqualFunc(c.protocols, o.protocols, func(a, b classicProtocol) bool {
		return a.name == b.name && string(a.metadata) == string(b.metadata)
	})
}

func equalPtr(a, b *string) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func deref(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// normalTopics sorts names and drops duplicates.
func normalTopics(names []string) []string {
	s := slices.Clone(names)
	slices.Sort(s)
	return slices.Compact(s)
}

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
