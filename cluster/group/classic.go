package group

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
)

// state is where a classic group is in its life.
type state uint8

const (
	empty      state = iota // no members; offsets perhaps
	preparing               // members are joining
	completing              // the next generation is made, the leader's assignment is awaited
	stable                  // everybody has, or can have, an assignment
)

// String is Kafka's name of the state.
func (s state) String() string {
	return [...]string{"Empty", "PreparingRebalance", "CompletingRebalance", "Stable"}[s]
}

// dead is the state of a group that is not there.
const dead = "Dead"

// consumerProtocol is the protocol type of consumers; theirs are the members' metadata that can be read.
const consumerProtocol = "consumer"

// classic is the membership of a classic group. A simple group, that only has offsets, is one without protocol type.
type classic struct {
	group *group

	state        state
	initial      bool  // preparing: out of empty, so that more members are waited for
	since        int64 // when it came into the state, milliseconds; -1 is not known
	generation   int32
	protocolType string // "" is none
	protocol     string // chosen for the generation; "" is none
	leader       string // a member's id; "" if there is none

	members   []*member // a member knows its place
	byID      map[string]*member
	instances map[string]*member
	pending   map[string]*pendingMember // that were given an id and have not come back with it
	supports  map[string]int            // protocol → members that support it

	joining int // members whose JoinGroup is parked
	owing   int // members that have not synced in this generation

	// subscribed topics of the generation, of all members; nil if they cannot be told.
	subscribed map[string]struct{}

	// join ends the joining: of the initial delay, extended by what remains of it, or of the rebalance timeout.
	join      timer
	remaining time.Duration
	delay     time.Duration
	grown     bool // a member came during the initial delay

	// sync ends the waiting for members that do not sync.
	sync timer
}

// protocol is one that a member supports. The metadata is not for us to read, unless it is the consumer's.
type protocol struct {
	name     string
	metadata []byte
}

// member of a classic group.
type member struct {
	group     *classic
	pos       int // in group.members
	id        string
	instance  *string // static if not nil (KIP-345)
	client    Client
	rebalance time.Duration // timeout
	session   time.Duration // timeout
	protocols []protocol    // best first

	assignment []byte
	fresh      bool // it has not been in a generation yet: only the new member timeout counts
	owes       bool // a SyncGroup in this generation

	join, sync call // parked; to is 0 if there is none
	alive      timer
}

// pendingMember is an id that was given to a client, which is to join with it (KIP-394).
type pendingMember struct {
	group *classic
	id    string
	alive timer
}

func (m *Machine) newClassic(g *group) *classic {
	k := &classic{group: g, since: unknownTime}
	if !m.now.IsZero() { // not while loading
		k.since = m.now.UnixMilli()
	}
	k.join.due, k.sync.due = (*joinTimeout)(k), (*syncTimeout)(k)
	return k
}

// stopClassic stops all timers of a membership that ends.
func (m *Machine) stopClassic(k *classic) {
	m.timers.stop(&k.join)
	m.timers.stop(&k.sync)
	for _, p := range k.pending {
		m.timers.stop(&p.alive)
	}
	for _, member := range k.members {
		m.timers.stop(&member.alive)
	}
}

func (m *Machine) enter(k *classic, s state) {
	k.state, k.since = s, m.now.UnixMilli()
}

// isConsumer says whether the members are consumers, whose metadata says what they subscribe to.
func (k *classic) isConsumer() bool { return k.protocolType == consumerProtocol }

// add makes a member one of the group. The first one brings the protocol type.
func (k *classic) add(mem *member, protocolType string) {
	if len(k.members) == 0 {
		k.protocolType = protocolType
	}
	if k.byID == nil {
		k.byID, k.supports = map[string]*member{}, map[string]int{}
	}
	mem.group, mem.pos = k, len(k.members)
	mem.alive.due = mem
	k.members = append(k.members, mem)
	k.byID[mem.id] = mem
	if mem.instance != nil {
		if k.instances == nil {
			k.instances = map[string]*member{}
		}
		k.instances[*mem.instance] = mem
	}
	k.count(mem, 1)
	if k.leader == "" {
		k.leader = mem.id
	}
	if mem.join.to != 0 {
		k.joining++
	}
}

// count adds a member's protocols to those supported, n times.
func (k *classic) count(mem *member, n int) {
	for _, p := range mem.protocols {
		if k.supports[p.name] += n; k.supports[p.name] == 0 {
			delete(k.supports, p.name)
		}
	}
}

// removeMember takes a member out; a call of it that is parked is told that it is none any more.
func (m *Machine) removeMember(mem *member) {
	k := mem.group
	m.answerJoin(mem, &kmsg.JoinGroupResponse{Generation: -1, ErrorCode: kerr.UnknownMemberID.Code})
	m.answerSync(mem, &kmsg.SyncGroupResponse{ErrorCode: kerr.UnknownMemberID.Code})
	m.timers.stop(&mem.alive)
	k.settle(mem)
	k.count(mem, -1)
	last := len(k.members) - 1
	k.members[mem.pos] = k.members[last]
	k.members[mem.pos].pos = mem.pos
	k.members[last] = nil
	k.members = k.members[:last]
	delete(k.byID, mem.id)
	if mem.instance != nil {
		delete(k.instances, *mem.instance)
	}
	if k.leader == mem.id {
		k.leader = ""
		if last > 0 {
			k.leader = k.members[0].id
		}
	}
}

// removePending forgets an id that was given to a client.
func (m *Machine) removePending(k *classic, id string) {
	if p := k.pending[id]; p != nil {
		m.timers.stop(&p.alive)
		delete(k.pending, id)
	}
}

// settle notes that the member need not sync any more.
func (k *classic) settle(mem *member) {
	if mem.owes {
		mem.owes = false
		k.owing--
	}
}

// allJoined says whether everybody that is expected has come.
func (k *classic) allJoined() bool { return k.joining == len(k.members) && len(k.pending) == 0 }

// rebalanceTimeout is the longest of the members'.
func (k *classic) rebalanceTimeout() time.Duration {
	longest := time.Duration(0)
	for _, mem := range k.members {
		longest = max(longest, mem.rebalance)
	}
	return longest
}

// accepts says whether a member with these protocols could work with the others: the type is the group's, and they all
// support one of its protocols.
func (k *classic) accepts(protocolType string, protocols []kmsg.JoinGroupRequestProtocol) bool {
	if k.state == empty {
		return protocolType != "" && len(protocols) > 0
	}
	if protocolType != k.protocolType || protocolType == "" {
		return false
	}
	return slices.ContainsFunc(protocols, func(p kmsg.JoinGroupRequestProtocol) bool {
		return k.supports[p.Name] == len(k.members)
	})
}

// choose returns the protocol that all members support and most vote for, each for the first it names of them. Of two with
// as many votes it is the one that the first member prefers.
func (k *classic) choose() string {
	votes := map[string]int{}
	for _, mem := range k.members {
		for _, p := range mem.protocols {
			if k.supports[p.name] == len(k.members) {
				votes[p.name]++
				break
			}
		}
	}
	best := ""
	for _, p := range k.members[0].protocols {
		if votes[p.name] > votes[best] {
			best = p.name
		}
	}
	return best
}

// validate checks that a request is of a member: its id, and its instance's if it names one.
func (k *classic) validate(id string, instance *string) (*member, int16) {
	if instance != nil {
		mem := k.instances[*instance]
		if mem == nil {
			return nil, kerr.UnknownMemberID.Code
		}
		if mem.id != id {
			return nil, kerr.FencedInstanceID.Code
		}
	}
	mem := k.byID[id]
	if mem == nil {
		return nil, kerr.UnknownMemberID.Code
	}
	return mem, 0
}

// metadata of the member for a protocol; nil if it does not support it.
func (mem *member) metadata(name string) []byte {
	for _, p := range mem.protocols {
		if p.name == name {
			return p.metadata
		}
	}
	return nil
}

// same says whether a request's protocols are the member's, in the same order.
func (mem *member) same(protocols []kmsg.JoinGroupRequestProtocol) bool {
	return slices.EqualFunc(mem.protocols, uniqueProtocols(protocols), func(a protocol, b kmsg.JoinGroupRequestProtocol) bool {
		return a.name == b.Name && bytes.Equal(a.metadata, b.Metadata)
	})
}

// uniqueProtocols drops protocols that were named before.
func uniqueProtocols(protocols []kmsg.JoinGroupRequestProtocol) []kmsg.JoinGroupRequestProtocol {
	seen := make(map[string]struct{}, len(protocols))
	for _, p := range protocols {
		seen[p.Name] = struct{}{}
	}
	if len(seen) == len(protocols) {
		return protocols
	}
	unique := make([]kmsg.JoinGroupRequestProtocol, 0, len(seen))
	for _, p := range protocols {
		if _, first := seen[p.Name]; first {
			delete(seen, p.Name)
			unique = append(unique, p)
		}
	}
	return unique
}

// copyProtocols of a request, whose bytes are its reader's.
func copyProtocols(protocols []kmsg.JoinGroupRequestProtocol) []protocol {
	unique := uniqueProtocols(protocols)
	kept := make([]protocol, len(unique))
	for i, p := range unique {
		kept[i] = protocol{strings.Clone(p.Name), bytes.Clone(p.Metadata)}
	}
	return kept
}

// keepAlive gives the member its session timeout from now on.
func (m *Machine) keepAlive(mem *member) {
	m.timers.set(&mem.alive, m.now.Add(mem.session))
}

// answerJoin answers the member's parked JoinGroup, if there is one.
func (m *Machine) answerJoin(mem *member, resp *kmsg.JoinGroupResponse) {
	if mem.join.to == 0 {
		return
	}
	m.answer(mem.join, resp)
	mem.join = call{}
	mem.group.joining--
}

// answerSync answers the member's parked SyncGroup, if there is one.
func (m *Machine) answerSync(mem *member, resp *kmsg.SyncGroupResponse) bool {
	if mem.sync.to == 0 {
		return false
	}
	m.answer(mem.sync, resp)
	mem.sync = call{}
	return true
}

// parkJoin makes c the member's JoinGroup, which is answered when the group is through. An earlier one, of a connection that
// is gone most likely, is sent back: it may try again.
func (m *Machine) parkJoin(mem *member, c call) {
	m.answerJoin(mem, &kmsg.JoinGroupResponse{Generation: -1, MemberID: mem.id, ErrorCode: kerr.RebalanceInProgress.Code})
	mem.join = c
	mem.group.joining++
}

var _ coordinator.Machine = (*Machine)(nil)
