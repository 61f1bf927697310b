package group

import (
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// rebalance begins to gather the members for the next generation, or, if that is under way, sees whether all have come.
func (m *Machine) rebalance(k *classic) {
	if k.state == preparing {
		if !k.initial && k.allJoined() {
			m.completeJoin(k)
		}
		return
	}
	m.prepare(k)
}

// joinedPerhaps completes the joining if what was waited for is gone.
func (m *Machine) joinedPerhaps(k *classic) {
	if k.state == preparing && !k.initial && k.allJoined() {
		m.completeJoin(k)
	}
}

// prepare begins to gather the members for the next generation. A group that was empty waits for more of them: at first they
// come one by one, and each would be a rebalance of its own.
func (m *Machine) prepare(k *classic) {
	if k.state == completing {
		for _, mem := range k.members {
			mem.assignment = nil
		}
		m.answerSyncs(k, func(*member) *kmsg.SyncGroupResponse {
			return &kmsg.SyncGroupResponse{ErrorCode: kerr.RebalanceInProgress.Code}
		})
	}
	m.forgetSyncs(k)
	k.initial = k.state == empty
	m.enter(k, preparing)
	if k.initial {
		k.grown, k.delay = false, m.o.InitialRebalanceDelay
		k.remaining = max(k.rebalanceTimeout()-k.delay, 0)
		m.timers.set(&k.join, m.now.Add(k.delay))
		return
	}
	if k.allJoined() {
		m.completeJoin(k)
		return
	}
	m.timers.set(&k.join, m.now.Add(k.rebalanceTimeout()))
}

// forgetSyncs ends the waiting for members that have not synced.
func (m *Machine) forgetSyncs(k *classic) {
	if k.owing > 0 {
		for _, mem := range k.members {
			k.settle(mem)
		}
	}
	m.timers.stop(&k.sync)
}

// joinTimeout ends the joining of a group.
type joinTimeout classic

func (t *joinTimeout) expire(m *Machine) {
	k := (*classic)(t)
	if k.initial && k.grown && k.remaining > 0 {
		k.grown = false
		waited := k.delay
		k.delay = min(m.o.InitialRebalanceDelay, k.remaining)
		k.remaining = max(k.remaining-waited, 0)
		m.timers.set(&k.join, m.now.Add(k.delay))
		return
	}
	m.completeJoin(k)
}

// minRejoinWait bounds how often a group is looked at of which nobody has joined again.
const minRejoinWait = time.Second

// completeJoin makes the next generation of those that have joined, and of the static members, which keep their place until
// their session ends. If none of these has joined, it waits on.
func (m *Machine) completeJoin(k *classic) {
	m.timers.stop(&k.join)
	for _, mem := range slices.Clone(k.members) {
		if mem.join.to == 0 && mem.instance == nil {
			m.removeMember(mem)
		}
	}
	if len(k.members) > 0 && !k.electLeader() {
		m.timers.set(&k.join, m.now.Add(max(k.rebalanceTimeout(), minRejoinWait)))
		return
	}
	k.generation++
	k.initial = false
	m.forgetSyncs(k)
	if len(k.members) == 0 {
		k.protocol = ""
		k.subscribed = k.subscriptions()
		m.enter(k, empty)
		m.write(groupRecord(k))
		return
	}
	k.protocol = k.choose()
	k.subscribed = k.subscriptions()
	m.enter(k, completing)
	for _, mem := range k.members {
		m.answerJoin(mem, k.generationFor(mem))
		m.keepAlive(mem)
		mem.fresh = false
		mem.owes = true
	}
	k.owing = len(k.members)
	m.timers.set(&k.sync, m.now.Add(k.rebalanceTimeout()))
}

// electLeader keeps the leader if it has joined, else takes the first member that has; false if none has.
func (k *classic) electLeader() bool {
	if mem := k.byID[k.leader]; mem != nil && mem.join.to != 0 {
		return true
	}
	for _, mem := range k.members {
		if mem.join.to != 0 {
			k.leader = mem.id
			return true
		}
	}
	return false
}

// syncTimeout removes the members that have not synced in the generation: they would never know what they own.
type syncTimeout classic

func (t *syncTimeout) expire(m *Machine) {
	k := (*classic)(t)
	if k.owing == 0 || k.state != completing && k.state != stable {
		return
	}
	for _, mem := range slices.Clone(k.members) {
		if mem.owes {
			m.removeMember(mem)
		}
	}
	m.prepare(k)
}

// expire ends the session of a member that was not heard of. One whose call is parked is there, but not a new one: it may
// have left its connection.
func (mem *member) expire(m *Machine) {
	if !mem.fresh && (mem.join.to != 0 || mem.sync.to != 0) {
		return
	}
	k := mem.group
	m.removeMember(mem)
	switch {
	case k.state == stable || k.state == completing:
		m.prepare(k)
	case k.state == preparing && k.allJoined():
		m.completeJoin(k)
	}
}

// answerSyncs answers all parked SyncGroups.
func (m *Machine) answerSyncs(k *classic, resp func(*member) *kmsg.SyncGroupResponse) {
	for _, mem := range k.members {
		// A session that ended meanwhile was left alone, and is watched again from now on.
		if m.answerSync(mem, resp(mem)) {
			m.keepAlive(mem)
		}
	}
}
