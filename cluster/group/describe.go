package group

import (
	"fmt"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
)

// Types of groups, by Kafka's names.
const (
	typeClassic  = "classic"
	typeConsumer = "consumer"
)

// describe answers for one group of a DescribeGroups (key 15, v0-6; KIP-345, KIP-1043). From v6 on a group that is not there
// is an error; before it is one that is dead.
func (m *Machine) describe(e Describe) kmsg.DescribeGroupsResponseGroup {
	g := m.group(e.Group)
	if g != nil && g.consumer != nil {
		return g.consumer.DescribeClassic(e.Version)
	}
	d := kmsg.NewDescribeGroupsResponseGroup()
	d.Group, d.State, d.Members = e.Group, dead, []kmsg.DescribeGroupsResponseGroupMember{}
	if g == nil {
		if e.Version >= 6 {
			why := fmt.Sprintf("Group %s not found.", e.Group)
			d.ErrorCode, d.ErrorMessage = kerr.GroupIDNotFound.Code, &why
		}
		return d
	}
	k := g.classic
	d.State, d.ProtocolType = k.state.String(), k.protocolType
	if k.state == stable {
		d.Protocol = k.protocol
	}
	for _, mem := range k.members {
		dm := kmsg.NewDescribeGroupsResponseGroupMember()
		dm.MemberID, dm.InstanceID, dm.ClientID, dm.ClientHost = mem.id, mem.instance, mem.client.ID, mem.client.Host
		dm.MemberAssignment = mem.assignment
		if k.state == stable {
			dm.ProtocolMetadata = mem.metadata(k.protocol)
		}
		d.Members = append(d.Members, dm)
	}
	slices.SortFunc(d.Members, func(a, b kmsg.DescribeGroupsResponseGroupMember) int { return strings.Compare(a.MemberID, b.MemberID) })
	return d
}

// describeConsumer answers for one group of a ConsumerGroupDescribe (key 69, v0-1; KIP-848).
func (m *Machine) describeConsumer(e DescribeConsumer) kmsg.ConsumerGroupDescribeResponseGroup {
	g := m.group(e.Group)
	if g != nil && g.consumer != nil {
		return g.consumer.Describe(m.topics)
	}
	d := kmsg.NewConsumerGroupDescribeResponseGroup()
	d.Group = e.Group
	why := fmt.Sprintf("Group %s not found.", e.Group)
	if g != nil {
		why = fmt.Sprintf("Group %s is not a consumer group.", e.Group)
	}
	d.ErrorCode, d.ErrorMessage = kerr.GroupIDNotFound.Code, &why
	if e.Group == "" {
		d.ErrorCode, d.ErrorMessage = kerr.InvalidGroupID.Code, nil
	}
	return d
}

// list answers ListGroups (key 16, v0-5; KIP-518, KIP-848) with the groups here.
func (m *Machine) list(e List) []kmsg.ListGroupsResponseGroup {
	is := func(want []string, s string) bool {
		return len(want) == 0 || slices.ContainsFunc(want, func(w string) bool { return strings.EqualFold(strings.TrimSpace(w), s) })
	}
	all := []kmsg.ListGroupsResponseGroup{}
	for _, g := range m.groups {
		l := kmsg.NewListGroupsResponseGroup()
		l.Group = g.id
		if g.consumer != nil {
			l.ProtocolType, l.GroupState, l.GroupType = consumerProtocol, g.consumer.State(), typeConsumer
		} else {
			l.ProtocolType, l.GroupState, l.GroupType = g.classic.protocolType, g.classic.state.String(), typeClassic
		}
		if is(e.States, l.GroupState) && is(e.Types, l.GroupType) {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b kmsg.ListGroupsResponseGroup) int { return strings.Compare(a.Group, b.Group) })
	return all
}

// delete handles one group of a DeleteGroups (key 42, v0-2; KIP-229). It returns an error code.
func (m *Machine) delete(id string) int16 {
	g := m.group(id)
	switch {
	case g == nil:
		return kerr.GroupIDNotFound.Code
	case g.consumer != nil && !g.consumer.Empty(), g.classic != nil && g.classic.state != empty:
		return kerr.NonEmptyGroup.Code
	}
	for _, p := range g.allPartitions() {
		m.write(offsetTombstone(id, p))
		m.written++
	}
	m.writeGone(g)
	m.remove(g)
	return 0
}

// writeGone writes that the group is no more.
func (m *Machine) writeGone(g *group) {
	if g.consumer != nil {
		m.write(g.consumer.Tombstones()...)
		return
	}
	m.write([]coordinator.Record{groupTombstone(g.id)}...)
}
