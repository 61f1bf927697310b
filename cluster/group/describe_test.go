package group

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestDescribeListDelete(t *testing.T) {
	check(t, []rule{
		{"an unknown group is Dead, and from v6 on GROUP_ID_NOT_FOUND", Options{}, func(b *bench) {
			for version, err := range map[int16]*kerr.Error{5: nil, 6: kerr.GroupIDNotFound} {
				d := b.do(Describe{Group: "none", Version: version}).(kmsg.DescribeGroupsResponseGroup)
				b.code(err, d.ErrorCode)
				if d.State != "Dead" || d.Group != "none" || (d.ErrorMessage == nil) != (err == nil) {
					b.t.Fatal(d)
				}
			}
		}},
		{"a stable group shows metadata and assignments, another only assignments", Options{}, func(b *bench) {
			members, _ := b.stableGroup("g", 2)
			d := b.describe("g")
			m := d.Members[0]
			if d.State != "Stable" || d.ProtocolType != "consumer" || d.Protocol != "range" || len(d.Members) != 2 || m.MemberID != members[0] ||
				m.ClientID != "client" || m.ClientHost != "/127.0.0.1" || string(m.MemberAssignment) != "to "+members[0] || len(m.ProtocolMetadata) == 0 {
				b.t.Fatal(d)
			}
			b.join(9, "g", withMember(members[0]))
			if d := b.describe("g"); d.State != "PreparingRebalance" || d.Protocol != "" || len(d.Members) != 2 || len(d.Members[0].ProtocolMetadata) != 0 {
				b.t.Fatal(d)
			}
		}},
		{"lists are by state and type, whatever their case", Options{}, func(b *bench) {
			b.stableGroup("s", 1)
			b.commit(9, "e", "", -1, "a", 1)
			b.enter("p")
			for _, c := range []struct {
				list List
				want string
			}{
				{List{}, "eps"}, {List{States: []string{"sTABLE"}}, "s"}, {List{States: []string{"Empty", " preparingrebalance"}}, "ep"},
				{List{Types: []string{"Classic"}}, "eps"}, {List{Types: []string{"consumer"}}, ""}, {List{States: []string{"nonsense"}}, ""},
			} {
				got := ""
				for _, g := range b.do(c.list).([]kmsg.ListGroupsResponseGroup) {
					got += g.Group
				}
				if got != c.want {
					b.t.Errorf("%+v: %q, want %q", c.list, got, c.want)
				}
			}
		}},
		{"only a group without members is deleted, with its offsets", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 1)
			b.commit(9, "g", members[0], generation, "a", 5)
			b.code(kerr.NonEmptyGroup, b.do(Delete{Group: "g"}).(int16))
			b.leave("g", kmsg.LeaveGroupRequestMember{MemberID: members[0]})
			b.code(nil, b.do(Delete{Group: "g"}).(int16))
			for _, x := range []*bench{b, b.replayed()} {
				x.inState("g", "Dead")
				x.hasOffset("g", "a", -1)
			}
			b.code(kerr.GroupIDNotFound, b.do(Delete{Group: "g"}).(int16))
		}},
		{"an id that was given dies with its group", Options{}, func(b *bench) {
			id := b.joined(b.join(9, "g")).MemberID
			b.code(nil, b.do(Delete{Group: "g"}).(int16))
			b.code(kerr.UnknownMemberID, b.joined(b.join(9, "g", withMember(id))).ErrorCode)
			b.pass(30 * second)
		}},
		{"ConsumerGroupDescribe of a classic group is GROUP_ID_NOT_FOUND", Options{}, func(b *bench) {
			b.stableGroup("g", 1)
			for group, err := range map[string]*kerr.Error{"g": kerr.GroupIDNotFound, "none": kerr.GroupIDNotFound, "": kerr.InvalidGroupID} {
				b.code(err, b.do(DescribeConsumer{group}).(kmsg.ConsumerGroupDescribeResponseGroup).ErrorCode)
			}
		}},
	})
}
