package consumer

import (
	"fmt"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/cluster/group/assign"
)

// changes are made to a group: each is applied at once, and its record kept.
type changes struct {
	g       *Group
	records []coordinator.Record
}

func (c *changes) put(kind int16, of string, value []byte) {
	c.records = append(c.records, coordinator.Record{Key: recordKey{kind, c.g.id, of}.encode(), Value: value})
}

func (c *changes) group(epoch int32, hash int64) {
	v := groupValue{epoch, hash}
	c.put(typeGroup, "", v.encode())
	c.g.applyGroup(v)
	if c.g.hasPartitionMetadata {
		c.put(typePartitionMetadata, "", nil)
		c.g.hasPartitionMetadata = false
	}
}

// metadata writes the member's metadata; its assignment stays what it is.
func (c *changes) metadata(m *member) {
	c.put(typeMember, m.id, m.encodeMetadata())
	c.g.applyMetadata(m)
}

// assignment writes what the member has; its metadata stays what it is.
func (c *changes) assignment(m *member) {
	c.put(typeCurrent, m.id, m.encodeAssignment())
	c.g.applyAssignment(m)
}

func (c *changes) target(id string, p assign.Partitions) {
	if p == nil {
		p = assign.Partitions{}
	}
	c.put(typeTarget, id, encodeTarget(p))
	c.g.target[id] = p
}

func (c *changes) targetMetadata(epoch int32, timestamp int64) {
	v := targetMetadataValue{epoch, timestamp}
	c.put(typeTargetMetadata, "", v.encode())
	c.g.applyTargetMetadata(v)
}

func (c *changes) regex(regex string, v regexValue) {
	c.put(typeRegex, regex, v.encode())
	c.g.applyRegex(regex, v)
}

func (c *changes) removeRegex(regex string) {
	c.put(typeRegex, regex, nil)
	delete(c.g.resolved, regex)
}

// removeMember removes all of a member. Readers of the log rely on the order: assignment, target, metadata.
func (c *changes) removeMember(id string) {
	c.put(typeCurrent, id, nil)
	c.put(typeTarget, id, nil)
	c.put(typeMember, id, nil)
	delete(c.g.target, id)
	c.g.applyNoMember(id)
}

// Replay applies one record of the log while loading; the key is of this group. A nil value is a tombstone. After
// the group's own tombstone its State is Dead: the caller forgets it.
func (g *Group) Replay(key, value []byte) error {
	k, err := parseKey(key)
	if err != nil {
		return err
	}
	if k.group != g.id {
		return fmt.Errorf("record of group %q replayed into %q", k.group, g.id)
	}
	if value == nil {
		g.replayTombstone(k)
		return nil
	}
	r := &reader{b: value}
	r.version()
	g.replayValue(k, r)
	if r.err != nil {
		return fmt.Errorf("record of type %d of consumer group %q: %w", k.kind, g.id, r.err)
	}
	return nil
}

func (g *Group) replayValue(k recordKey, r *reader) {
	switch k.kind {
	case typeGroup:
		var v groupValue
		if v.decode(r); r.err == nil {
			g.applyGroup(v)
		}
	case typePartitionMetadata:
		g.hasPartitionMetadata = true
	case typeMember:
		m := g.copyOf(k.of)
		if m.decodeMetadata(r); r.err == nil {
			g.applyMetadata(m)
		}
	case typeTargetMetadata:
		var v targetMetadataValue
		if v.decode(r); r.err == nil {
			g.applyTargetMetadata(v)
		}
	case typeTarget:
		if p := decodeTarget(r); r.err == nil {
			g.target[k.of] = p
		}
	case typeCurrent:
		m := g.copyOf(k.of)
		if m.decodeAssignment(r); r.err == nil {
			g.applyAssignment(m)
		}
	case typeRegex:
		var v regexValue
		if v.decode(r); r.err == nil {
			g.applyRegex(k.of, v)
		}
	}
}

func (g *Group) replayTombstone(k recordKey) {
	switch k.kind {
	case typeGroup:
		g.dead = true
	case typePartitionMetadata:
		g.hasPartitionMetadata = false
	case typeMember:
		g.applyNoMember(k.of)
	case typeTargetMetadata:
		g.applyTargetMetadata(targetMetadataValue{})
	case typeTarget:
		delete(g.target, k.of)
	case typeCurrent:
		if g.members[k.of] != nil {
			m := g.copyOf(k.of)
			m.epoch, m.previousEpoch, m.state, m.assigned, m.revoking = epochLeave, epochLeave, stable, nil, nil
			g.applyAssignment(m)
		}
	case typeRegex:
		delete(g.resolved, k.of)
	}
}

// copyOf is a copy of the member to be changed, or a new one.
func (g *Group) copyOf(id string) *member {
	if m := g.members[id]; m != nil {
		c := *m
		return &c
	}
	return newMember(id)
}

func (g *Group) applyGroup(v groupValue) {
	g.epoch, g.hash, g.dead = v.epoch, v.hash, false
}

func (g *Group) applyTargetMetadata(v targetMetadataValue) {
	g.targetEpoch, g.targetTime = v.epoch, v.timestamp
}

func (g *Group) applyRegex(regex string, v regexValue) {
	topics := make(map[string]struct{}, len(v.topics))
	for _, t := range v.topics {
		topics[t] = struct{}{}
	}
	g.resolved[regex] = resolution{topics, v.timestamp}
}

// applyMetadata makes m the member of its id, which differs in its metadata alone.
func (g *Group) applyMetadata(m *member) {
	old := g.members[m.id]
	g.members[m.id] = m
	g.count(old, -1)
	g.count(m, 1)
	if old != nil && old.instance != nil && g.instances[*old.instance] == m.id {
		delete(g.instances, *old.instance)
	}
	if m.instance != nil {
		g.instances[*m.instance] = m.id
	}
}

// applyAssignment makes m the member of its id, which differs in its assignment alone.
func (g *Group) applyAssignment(m *member) {
	old := g.members[m.id]
	g.members[m.id] = m
	g.release(old)
	g.claim(m)
}

func (g *Group) applyNoMember(id string) {
	old := g.members[id]
	if old == nil {
		return
	}
	delete(g.members, id)
	g.count(old, -1)
	if old.instance != nil && g.instances[*old.instance] == id {
		delete(g.instances, *old.instance)
	}
	g.release(old)
}

// count adds d to what is counted of the member.
func (g *Group) count(m *member, d int) {
	if m == nil {
		return
	}
	for _, t := range m.topics {
		add(g.names, t, d)
	}
	if m.regex != "" {
		add(g.regexes, m.regex, d)
	}
	if m.assignor != nil {
		add(g.assignors, *m.assignor, d)
	}
	if m.classic != nil {
		g.classicCount += d
		for _, p := range m.classic.protocols {
			add(g.classicProtocols, p.name, d)
		}
	}
}

func add(counts map[string]int, key string, d int) {
	if counts[key] += d; counts[key] == 0 {
		delete(counts, key)
	}
}

// claim makes the member the owner of what it has. In a log from which compaction took records, another may seem to have
// it still: the later record counts.
func (g *Group) claim(m *member) {
	for _, o := range []owned{m.assigned, m.revoking} {
		for t, parts := range o {
			of := g.owners[t]
			if of == nil {
				of = make(map[int32]string, len(parts))
				g.owners[t] = of
			}
			for p := range parts {
				of[p] = m.id
			}
		}
	}
}

// release frees what the member has, unless another has claimed it.
func (g *Group) release(m *member) {
	if m == nil {
		return
	}
	for _, o := range []owned{m.assigned, m.revoking} {
		for t, parts := range o {
			of := g.owners[t]
			for p := range parts {
				if of[p] == m.id {
					delete(of, p)
				}
			}
			if len(of) == 0 {
				delete(g.owners, t)
			}
		}
	}
}
