package consumer

import (
	"fmt"
	"maps"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/cluster/group/assign"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// Describe answers ConsumerGroupDescribe (v0, v1). A member's assignment has what it was told to give up and may have still.
// Partitions of topics that are gone are left out.
func (g *Group) Describe(topics Topics) kmsg.ConsumerGroupDescribeResponseGroup {
	d := kmsg.NewConsumerGroupDescribeResponseGroup()
	d.Group, d.State, d.Epoch, d.AssignmentEpoch, d.AssignorName = g.id, g.State(), g.epoch, g.targetEpoch, g.assignor()
	d.Members = []kmsg.ConsumerGroupDescribeResponseGroupMember{}
	for _, id := range g.memberIDs() {
		m := g.members[id]
		dm := kmsg.NewConsumerGroupDescribeResponseGroupMember()
		dm.MemberID, dm.InstanceID, dm.RackID, dm.MemberEpoch = m.id, m.instance, m.rack, m.epoch
		dm.ClientID, dm.ClientHost = m.client.ID, m.client.Host
		dm.SubscribedTopics = append([]string{}, m.topics...)
		dm.SubscribedTopicRegex = &m.regex // "" is none
		dm.Assignment = describePartitions(m.holds().partitionsByTopic(), topics)
		dm.TargetAssignment = describePartitions(g.target[id], topics)
		if dm.MemberType = 1; m.usesClassic() {
			dm.MemberType = 0
		}
		d.Members = append(d.Members, dm)
	}
	return d
}

// holds is what the member may have: what is assigned and what it is to give up.
func (m *member) holds() owned {
	if len(m.revoking) == 0 {
		return m.assigned
	}
	all := make(owned, len(m.assigned))
	for _, o := range []owned{m.assigned, m.revoking} {
		for t, parts := range o {
			if all[t] == nil {
				all[t] = map[int32]int32{}
			}
			maps.Copy(all[t], parts)
		}
	}
	return all
}

func describePartitions(p assign.Partitions, topics Topics) kmsg.Assignment {
	a := kmsg.NewAssignment()
	a.TopicPartitions = []kmsg.AssignmentTopicPartition{}
	for _, t := range sortedTopics(p) {
		name, _, ok := topics.ByID(t)
		if !ok {
			continue
		}
		tp := kmsg.NewAssignmentTopicPartition()
		tp.TopicID, tp.Topic, tp.Partitions = t, name, p[t]
		a.TopicPartitions = append(a.TopicPartitions, tp)
	}
	return a
}

// DescribeClassic answers DescribeGroups for this group as Kafka does: it is not found among the classic groups, with an
// error from version 6 on.
func (g *Group) DescribeClassic(version int16) kmsg.DescribeGroupsResponseGroup {
	d := kmsg.NewDescribeGroupsResponseGroup()
	d.Group, d.State, d.Members = g.id, "Dead", []kmsg.DescribeGroupsResponseGroupMember{}
	if version >= 6 {
		why := fmt.Sprintf("Group %s is not a classic group.", g.id)
		d.ErrorCode, d.ErrorMessage = kerr.GroupIDNotFound.Code, &why
	}
	return d
}

// Tombstones are the records that remove the group from the log. It is not changed: the caller forgets it.
func (g *Group) Tombstones() []coordinator.Record {
	var out []coordinator.Record
	put := func(kind int16, of string) {
		out = append(out, coordinator.Record{Key: recordKey{kind, g.id, of}.encode()})
	}
	ids := g.memberIDs()
	for _, id := range ids {
		put(typeCurrent, id)
	}
	for _, id := range ids {
		put(typeTarget, id)
	}
	put(typeTargetMetadata, "")
	for _, id := range ids {
		put(typeMember, id)
	}
	for _, regex := range sortedKeys(g.resolved) {
		put(typeRegex, regex)
	}
	if g.hasPartitionMetadata {
		put(typePartitionMetadata, "")
	}
	put(typeGroup, "")
	return out
}
