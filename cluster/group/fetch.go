package group

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// fetchOffsets answers for one group of an OffsetFetch (key 9, v1-10; KIP-88, KIP-447, KIP-709, KIP-848). A group or partition
// without offset is no error.
func (m *Machine) fetchOffsets(e FetchOffsets) kmsg.OffsetFetchResponseGroup {
	resp := kmsg.NewOffsetFetchResponseGroup()
	resp.Group = e.Group.Group
	resp.Topics = []kmsg.OffsetFetchResponseGroupTopic{}
	g := m.group(e.Group.Group)
	if g != nil && g.consumer != nil {
		if resp.ErrorCode = g.consumer.CheckFetch(e.Group.MemberID, e.Group.MemberEpoch); resp.ErrorCode != 0 {
			return resp
		}
	}
	if g == nil {
		g = &group{}
	}
	if e.Group.Topics == nil {
		resp.Topics = m.fetchAll(g, e)
		return resp
	}
	for _, t := range e.Group.Topics {
		name, _ := m.topicOf(t.Topic, t.TopicID)
		answer := kmsg.OffsetFetchResponseGroupTopic{Topic: t.Topic, TopicID: t.TopicID}
		// An offset that was committed to a topic deleted since is none, though the new one has the same name.
		id := t.TopicID
		if id == noTopic {
			id, _, _ = m.topics.ByName(name)
		}
		all := g.offsets.of(name)
		for _, index := range t.Partitions {
			a := noOffset(index)
			switch c := all.get(index); {
			case name == "":
				a.ErrorCode = kerr.UnknownTopicID.Code
			case e.RequireStable && g.unstable[partition{name, index}] > 0:
				a.ErrorCode = kerr.UnstableOffsetCommit.Code
			case c != nil && c.is(id):
				a = offsetAnswer(c)
			}
			answer.Partitions = append(answer.Partitions, a)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

// fetchAll answers with every offset of the group.
func (m *Machine) fetchAll(g *group, e FetchOffsets) []kmsg.OffsetFetchResponseGroupTopic {
	topics := []kmsg.OffsetFetchResponseGroupTopic{}
	for _, t := range g.offsets {
		id, _, known := m.topics.ByName(t.topic)
		if !known && e.Version >= fetchTopicIDs {
			continue // it cannot be named
		}
		answer := kmsg.OffsetFetchResponseGroupTopic{Topic: t.topic, TopicID: id}
		for c := range t.all() {
			if e.RequireStable && g.unstable[partition{t.topic, c.partition}] > 0 {
				a := noOffset(c.partition)
				a.ErrorCode = kerr.UnstableOffsetCommit.Code
				answer.Partitions = append(answer.Partitions, a)
			} else if c.is(id) {
				answer.Partitions = append(answer.Partitions, offsetAnswer(c))
			}
		}
		if len(answer.Partitions) > 0 {
			topics = append(topics, answer)
		}
	}
	return topics
}

func noOffset(index int32) kmsg.OffsetFetchResponseGroupTopicPartition {
	none := ""
	return kmsg.OffsetFetchResponseGroupTopicPartition{Partition: index, Offset: -1, LeaderEpoch: -1, Metadata: &none}
}

func offsetAnswer(c *committed) kmsg.OffsetFetchResponseGroupTopicPartition {
	metadata := c.metadata
	return kmsg.OffsetFetchResponseGroupTopicPartition{
		Partition: c.partition, Offset: c.offset, LeaderEpoch: c.epoch, Metadata: &metadata,
	}
}
