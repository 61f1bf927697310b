package consumer

import "slices"

// encodeMetadata is ConsumerGroupMemberMetadataValue.
func (m *member) encodeMetadata() []byte {
	var w writer
	w.int16(0)
	w.nullableString(m.instance)
	w.nullableString(m.rack)
	w.string(m.client.ID)
	w.string(m.client.Host)
	w.strings(m.topics)
	w.string(m.regex)
	w.int32(m.rebalanceTimeout)
	w.nullableString(m.assignor)
	if m.classic == nil {
		w.noTags()
		return w.b
	}
	w.tag0(func(w *writer) {
		w.int8(1) // the structure is nullable: it is there
		w.int32(m.classic.sessionTimeout)
		w.arrayLen(len(m.classic.protocols))
		for _, p := range m.classic.protocols {
			w.string(p.name)
			w.bytes(p.metadata)
			w.noTags()
		}
		w.noTags()
	})
	return w.b
}

func (m *member) decodeMetadata(r *reader) {
	m.instance, m.rack = r.nullableString(), r.nullableString()
	m.client = Client{ID: r.string(), Host: r.string()}
	m.topics = normalTopics(r.strings())
	m.regex = r.string()
	m.rebalanceTimeout = r.int32()
	m.assignor = r.nullableString()
	m.classic = nil
	r.tags(func(r *reader) {
		if r.int8() < 0 {
			return
		}
		c := &classicMetadata{sessionTimeout: r.int32()}
		for range r.arrayLen(3) {
			c.protocols = append(c.protocols, classicProtocol{r.string(), r.bytes()})
			r.tags(nil)
		}
		r.tags(nil)
		m.classic = c
	})
}

// encodeAssignment is ConsumerGroupCurrentMemberAssignmentValue.
func (m *member) encodeAssignment() []byte {
	var w writer
	w.int16(0)
	w.int32(m.epoch)
	w.int32(m.previousEpoch)
	w.int8(int8(m.state))
	m.assigned.encode(&w)
	m.revoking.encode(&w)
	w.noTags()
	return w.b
}

func (m *member) decodeAssignment(r *reader) {
	m.epoch, m.previousEpoch = r.int32(), r.int32()
	m.state = memberState(r.int8())
	if m.state != stable && m.state != unrevoked && m.state != unreleased {
		m.state = unknown
	}
	m.assigned = decodeOwned(r, m.epoch)
	m.revoking = decodeOwned(r, m.epoch)
	r.tags(nil)
}

func (o owned) encode(w *writer) {
	w.arrayLen(len(o))
	for _, t := range o.topics() {
		parts := o.partitions(t)
		w.id(t)
		w.int32s(parts)
		w.tag0(func(w *writer) {
			w.arrayLen(len(parts))
			for _, p := range parts {
				w.int32(o[t][p])
			}
		})
	}
}

// decodeOwned reads partitions. Brokers before 4.3 wrote no assignment epochs (KIP-1251): then it is the member's.
func decodeOwned(r *reader, memberEpoch int32) owned {
	n := r.arrayLen(18)
	o := make(owned, n)
	for range n {
		t, parts := r.id(), r.int32s()
		var epochs []int32
		r.tags(func(r *reader) { epochs = r.int32s() })
		if len(parts) == 0 {
			continue
		}
		o[t] = make(map[int32]int32, len(parts))
		for i, p := range parts {
			o[t][p] = max(memberEpoch, 0)
			if len(epochs) == len(parts) {
				o[t][p] = epochs[i]
			}
		}
	}
	return o
}

func sortedPartitions(s []int32) []int32 {
	slices.Sort(s)
	return slices.Compact(s)
}
