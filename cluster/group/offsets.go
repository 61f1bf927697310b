package group

import (
	"iter"
	"slices"
	"strings"

	"github.com/everlog/everlog/tier/record"
)

// partition that offsets are of.
type partition struct {
	topic string
	index int32
}

// committed is a committed offset.
type committed struct {
	partition int32
	epoch     int32 // of the leader, that the client saw; -1 is none
	offset    int64
	at        int64 // when it was committed, milliseconds
	expires   int64 // when the client said it does, milliseconds; never if it did not
	written   uint64
	metadata  string
	topic     [16]byte // id; zero is not known
}

// never is the expiry of an offset that the retention of the broker is for.
const never = -1

// is says whether the offset is of the topic with the id, as far as both are known.
func (c *committed) is(id [16]byte) bool { return c.topic == id || c.topic == noTopic || id == noTopic }

var noTopic [16]byte

// offsets of a group: topics by name. Slices, because most groups have few of them, and answers are in order.
type offsets []*topicOffsets

// topicOffsets are the offsets of a topic by partition: full blocks of partitions that lie together, so that a commit of many in
// any order costs no more than the block for each.
type topicOffsets struct {
	topic  string
	blocks [][]committed // none is empty; each holds partitions of one block, in order
}

// blockSize is how many partitions a block holds at most.
const blockSize = 128

func blockOf(index int32) int32 { return index / blockSize }

func (o offsets) empty() bool { return len(o) == 0 }

func (o offsets) find(topic string) (int, bool) {
	return slices.BinarySearchFunc(o, topic, func(t *topicOffsets, name string) int { return strings.Compare(t.topic, name) })
}

// of are the offsets of a topic, or nil.
func (o offsets) of(topic string) *topicOffsets {
	if i, ok := o.find(topic); ok {
		return o[i]
	}
	return nil
}

func (o offsets) get(p partition) *committed { return o.of(p.topic).get(p.index) }

// identify gives offsets that name no topic id that of the topic they were committed to. It says whether all have one now.
func (o offsets) identify(topics Topics) bool {
	all := true
	for _, t := range o {
		id, _, _ := topics.ByName(t.topic)
		for c := range t.all() {
			if c.topic == noTopic {
				c.topic = id
				all = all && id != noTopic
			}
		}
	}
	return all
}

// all yields the offsets in the order of partitions.
func (t *topicOffsets) all() iter.Seq[*committed] {
	return func(yield func(*committed) bool) {
		for _, b := range t.blocks {
			for i := range b {
				if !yield(&b[i]) {
					return
				}
			}
		}
	}
}

// find returns where a partition is, or would be: its block, and its place there. The block may not be there either.
func (t *topicOffsets) find(index int32) (block, place int, ok bool) {
	block, ok = slices.BinarySearchFunc(t.blocks, blockOf(index), func(b []committed, of int32) int { return int(blockOf(b[0].partition)) - int(of) })
	if !ok {
		return block, 0, false
	}
	place, ok = slices.BinarySearchFunc(t.blocks[block], index, func(c committed, p int32) int { return int(c.partition) - int(p) })
	return block, place, ok
}

// get is the offset of a partition, or nil. t may be nil.
func (t *topicOffsets) get(index int32) *committed {
	if t == nil {
		return nil
	}
	if b, i, ok := t.find(index); ok {
		return &t.blocks[b][i]
	}
	return nil
}

func (t *topicOffsets) put(c committed) {
	b, i, ok := t.find(c.partition)
	switch {
	case ok:
		t.blocks[b][i] = c
	case b < len(t.blocks) && blockOf(t.blocks[b][0].partition) == blockOf(c.partition):
		t.blocks[b] = slices.Insert(t.blocks[b], i, c)
	default:
		t.blocks = slices.Insert(t.blocks, b, []committed{c})
	}
}

func (t *topicOffsets) remove(index int32) {
	b, i, ok := t.find(index)
	if !ok {
		return
	}
	if t.blocks[b] = slices.Delete(t.blocks[b], i, i+1); len(t.blocks[b]) == 0 {
		t.blocks = slices.Delete(t.blocks, b, b+1)
	}
}

// names holds each topic's name once, however many groups have offsets of it, with the number of these.
type names map[string]int

// putOffset makes c the committed offset of its partition.
func (m *Machine) putOffset(g *group, topic string, c committed) {
	i, ok := g.offsets.find(topic)
	if !ok {
		topic = strings.Clone(topic)
		m.names[topic]++
		g.offsets = slices.Insert(g.offsets, i, &topicOffsets{topic: topic})
	}
	g.offsets[i].put(c)
	m.nameless = m.nameless || c.topic == noTopic
}

// removeOffset removes the offset of a partition, and those that transactions under way have for it.
func (m *Machine) removeOffset(g *group, p partition) {
	if i, ok := g.offsets.find(p.topic); ok {
		t := g.offsets[i]
		if t.remove(p.index); len(t.blocks) == 0 {
			m.releaseName(t.topic)
			g.offsets = slices.Delete(g.offsets, i, i+1)
		}
	}
	if g.unstable[p] > 0 {
		for id := range g.pending {
			m.removePendingOffset(g, id, p)
		}
	}
}

func (m *Machine) releaseName(topic string) {
	if m.names[topic]--; m.names[topic] == 0 {
		delete(m.names, topic)
	}
}

// dropOffsets forgets all offsets of a group.
func (m *Machine) dropOffsets(g *group) {
	for _, t := range g.offsets {
		m.releaseName(t.topic)
	}
	for id := range g.pending {
		m.leaveTransaction(g, id)
	}
	g.offsets, g.pending, g.unstable = nil, nil, nil
}

// partitionsOf a group: all that have an offset, or one of a transaction under way.
func (g *group) allPartitions() []partition {
	var all []partition
	for _, t := range g.offsets {
		for c := range t.all() {
			all = append(all, partition{t.topic, c.partition})
		}
	}
	for p := range g.unstable {
		if g.offsets.get(p) == nil {
			all = append(all, p)
		}
	}
	slices.SortFunc(all, comparePartitions)
	return all
}

func comparePartitions(a, b partition) int {
	if c := strings.Compare(a.topic, b.topic); c != 0 {
		return c
	}
	return int(a.index) - int(b.index)
}

// putPending makes c the offset that a producer's transaction commits when it ends.
func (m *Machine) putPending(g *group, id record.ProducerID, p partition, c committed) {
	if g.pending == nil {
		g.pending, g.unstable = map[record.ProducerID]map[partition]committed{}, map[partition]int{}
	}
	if g.pending[id] == nil {
		g.pending[id] = map[partition]committed{}
		if m.transactions[id] == nil {
			m.transactions[id] = map[*group]struct{}{}
		}
		m.transactions[id][g] = struct{}{}
	}
	if _, ok := g.pending[id][p]; !ok {
		g.unstable[p]++
	}
	g.pending[id][p] = c
}

func (m *Machine) removePendingOffset(g *group, id record.ProducerID, p partition) {
	if _, ok := g.pending[id][p]; !ok {
		return
	}
	g.settlePartition(p)
	if delete(g.pending[id], p); len(g.pending[id]) == 0 {
		m.leaveTransaction(g, id)
	}
}

func (g *group) settlePartition(p partition) {
	if g.unstable[p]--; g.unstable[p] == 0 {
		delete(g.unstable, p)
	}
}

// leaveTransaction notes that a producer's transaction has no offsets of the group any more.
func (m *Machine) leaveTransaction(g *group, id record.ProducerID) {
	delete(g.pending, id)
	if delete(m.transactions[id], g); len(m.transactions[id]) == 0 {
		delete(m.transactions, id)
	}
}

// endTxn makes a producer's pending offsets the committed ones, or forgets them. One that was committed later than the
// transaction wrote it, outside of it, stays.
func (m *Machine) endTxn(id record.ProducerID, commit bool) {
	for g := range m.transactions[id] {
		for p, c := range g.pending[id] {
			g.settlePartition(p)
			if !commit {
				continue
			}
			if old := g.offsets.get(p); old == nil || old.written < c.written {
				m.putOffset(g, p.topic, c)
			}
		}
		m.leaveTransaction(g, id)
	}
}
