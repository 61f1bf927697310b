package group

import "time"

// retention looks for offsets that nobody uses any more, and for groups without members and offsets (KIP-211).
type retention Machine

func (r *retention) expire(m *Machine) {
	for _, g := range m.sorted() {
		for _, p := range m.expired(g) {
			m.write(offsetTombstone(g.id, p))
			m.forgetOffset(g, p)
		}
		if g.isUnused() {
			m.writeGone(g)
			m.remove(g)
		}
		m.cut()
	}
	m.timers.set(&m.check, m.now.Add(m.o.RetentionCheckInterval))
}

// isUnused says whether nothing is kept in the group, and nobody is about to use it.
func (g *group) isUnused() bool {
	if !g.offsets.empty() || len(g.pending) > 0 {
		return false
	}
	if g.consumer != nil {
		return g.consumer.Empty()
	}
	return g.classic.state == empty && len(g.classic.pending) == 0
}

// expired are the partitions whose offsets have outlived the retention: counted from the commit, and, in a group that had
// members, not before the last one went. (Kafka counts from that alone, and so may remove at once what a tool has just
// committed.) While there are members, only what they do not subscribe to expires, and only if that can be told; and
// nothing that a transaction under way may commit.
func (m *Machine) expired(g *group) []partition {
	since, may := g.unusedSince()
	if !may {
		return nil
	}
	now := m.now.UnixMilli()
	retention := int64(m.o.OffsetsRetention / time.Millisecond)
	var all []partition
	for _, t := range g.offsets {
		if g.subscribed(t.topic) {
			continue
		}
		for c := range t.all() {
			over := now-max(c.at, since) >= retention
			if c.expires != never {
				over = now >= c.expires
			}
			p := partition{t.topic, c.partition}
			if over && g.unstable[p] == 0 {
				all = append(all, p)
			}
		}
	}
	return all
}

const unknownTime = -1

// unusedSince says whether offsets of the group may expire at all, and since when the group is empty; unknownTime if each
// offset counts from its commit.
func (g *group) unusedSince() (int64, bool) {
	if g.consumer != nil {
		return g.emptied, true // 0 while there are members: what they do not subscribe to counts from the commit
	}
	k := g.classic
	switch {
	case k.protocolType == "": // a simple group
		return unknownTime, true
	case k.state == empty:
		return k.since, true
	default:
		return unknownTime, k.state == stable && k.isConsumer() && k.subscribed != nil
	}
}

// topicsChanged takes in what topics there are. Offsets go with their topic, also if another has its name now.
func (m *Machine) topicsChanged(topics Topics) {
	old := m.topics
	m.topics = topics
	gone := map[string]bool{}
	look := func(name string) {
		was, _, _ := old.ByName(name)
		id, _, ok := topics.ByName(name)
		if !m.swept || !ok || id != was {
			gone[name] = true
		}
	}
	for name := range m.names {
		look(name)
	}
	for _, groups := range m.transactions {
		for g := range groups {
			for p := range g.unstable {
				look(p.topic)
			}
		}
	}
	m.swept = true
	nameless := false
	for _, g := range m.sorted() {
		if m.nameless && !g.offsets.identify(old) {
			nameless = true
		}
		if len(gone) > 0 {
			m.removeForeign(g, gone)
		}
		if g.consumer != nil {
			m.write(g.consumer.TopicsChanged(topics, m.now)...)
			m.afterConsumer(g)
		}
		m.cut()
	}
	m.nameless = nameless
}

// removeForeign removes the group's offsets of topics among these that are not there, or have another id.
func (m *Machine) removeForeign(g *group, among map[string]bool) {
	for _, p := range g.allPartitions() {
		if !among[p.topic] {
			continue
		}
		if id, _, ok := m.topics.ByName(p.topic); ok && g.has(p, id) {
			continue
		}
		m.write(offsetTombstone(g.id, p))
		m.forgetOffset(g, p)
	}
}

// has says whether an offset of the partition, committed or of a transaction under way, is of the topic with the id.
func (g *group) has(p partition, id [16]byte) bool {
	if c := g.offsets.get(p); c != nil && c.is(id) {
		return true
	}
	if g.unstable[p] > 0 {
		for _, offsets := range g.pending {
			if c, ok := offsets[p]; ok && c.is(id) {
				return true
			}
		}
	}
	return false
}
