package client

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// member is one member of a group, of either protocol.
type member struct {
	id, host, client string
	assigned         kadm.TopicsSet
}

// groupInfo is a group without its offsets.
type groupInfo struct {
	name, state string
	kind        string // classic or consumer
	protocol    string // of classic groups
	coordinator int32
	members     []member
}

// at is one partition.
type at struct {
	topic     string
	partition int32
}

func (a at) compare(b at) int {
	return cmp.Or(strings.Compare(a.topic, b.topic), cmp.Compare(a.partition, b.partition))
}

func groupDescribe(k kafka) *cobra.Command {
	return &cobra.Command{
		Use: "describe GROUP...", Short: "Show where groups stand, and how far behind", Args: report.Args(1, -1, "GROUP..."), ValidArgsFunction: k.completeGroups,
		Long: "Show where groups stand. LAG is in records; LAG-TIME is how old the record at the group's offset is, the next one it is to read.",
		RunE: func(cmd *cobra.Command, names []string) error {
			return k.with(cmd.Context(), func(s *session) error {
				doc := &groupsDoc{V: 1}
				var err error
				if doc.Groups, err = s.standings(names); err != nil {
					return err
				}
				return k.shell.Printer().Print(doc, func(t *report.Table) {
					for i, g := range doc.Groups {
						if i > 0 {
							t.Line("")
						}
						printGroup(t, g)
					}
				})
			})
		},
	}
}

// printGroup is the table every operator knows from Kafka's own tool, and the lag as a time.
func printGroup(t *report.Table, g groupDoc) {
	t.Line("group %s  %s  %s  %s  lag %d, %s", g.Group, g.Kind, g.State, report.Count(int64(*g.Members), "member"), *g.Lag, ageText(*g.LagSeconds))
	t.Row("TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "LAG-TIME", "CONSUMER-ID", "HOST", "CLIENT-ID")
	for _, p := range g.Partitions {
		t.Row(p.Topic, p.Partition, known(p.Current), known(p.End), known(p.Lag), ageText(p.LagSeconds), p.Member, p.Host, p.Client)
	}
}

// known is a number, or a dash where there is none.
func known(n int64) any {
	if n < 0 {
		return "-"
	}
	return n
}

// standings are groups with their members, offsets and lags; one that does not exist is an error.
func (s *session) standings(names []string) ([]groupDoc, error) {
	infos, err := s.describeGroups(names)
	if err != nil {
		return nil, err
	}
	committed, err := s.committedOffsets(names)
	if err != nil {
		return nil, err
	}
	docs := make([]groupDoc, len(infos))
	topics := kadm.TopicsSet{}
	for i, g := range infos {
		docs[i] = g.doc(committed[g.name])
		for _, p := range docs[i].Partitions {
			topics.Add(p.Topic)
		}
	}
	if len(topics) > 0 {
		if err := s.measure(docs, topics.Topics()); err != nil {
			return nil, err
		}
	}
	for i := range docs {
		docs[i].sum()
	}
	return docs, nil
}

// doc puts the partitions of a group together: those with an offset, and those a member has.
func (g groupInfo) doc(committed map[at]int64) groupDoc {
	members := len(g.members)
	d := groupDoc{Group: g.name, State: g.state, Kind: g.kind, Type: g.protocol, Coordinator: g.coordinator, Members: &members}
	parts := map[at]groupPartDoc{}
	for where, offset := range committed {
		parts[where] = groupPartDoc{Topic: where.topic, Partition: where.partition, Current: offset}
	}
	for _, m := range g.members {
		for _, one := range m.assigned.Sorted() {
			for _, p := range one.Partitions {
				where := at{one.Topic, p}
				part, ok := parts[where]
				if !ok {
					part = groupPartDoc{Topic: where.topic, Partition: p, Current: -1}
				}
				part.Member, part.Host, part.Client = m.id, m.host, m.client
				parts[where] = part
			}
		}
	}
	for _, where := range sortedParts(parts) {
		d.Partitions = append(d.Partitions, parts[where])
	}
	return d
}

func sortedParts[V any](parts map[at]V) []at {
	all := make([]at, 0, len(parts))
	for where := range parts {
		all = append(all, where)
	}
	slices.SortFunc(all, at.compare)
	return all
}

// sum is the lag of the whole group: all records, and the age of the oldest. It is unknown only if none of the partitions
// that have a lag tells its age.
func (d *groupDoc) sum() {
	lag, oldest, unknown := int64(0), 0.0, false
	for _, p := range d.Partitions {
		lag += max(p.Lag, 0)
		unknown = unknown || p.Lag > 0 && p.LagSeconds < 0
		oldest = max(oldest, p.LagSeconds)
	}
	if unknown && oldest == 0 {
		oldest = -1
	}
	d.Lag, d.LagSeconds = &lag, &oldest
}

// describeGroups asks for groups of either protocol, in the order of names; one that does not exist is an error.
func (s *session) describeGroups(names []string) ([]groupInfo, error) {
	modern, err := s.admin.DescribeConsumerGroups(s.ctx, names...)
	if err != nil && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || isAuth(err)) {
		return nil, s.flags.Explain(err, "describe groups", "")
	} // else the brokers do not know the consumer protocol: then no group speaks it
	var rest []string
	for _, name := range names {
		if g, ok := modern[name]; !ok || g.Err != nil {
			rest = append(rest, name)
		}
	}
	var classic kadm.DescribedGroups
	if len(rest) > 0 {
		if classic, err = s.admin.DescribeGroups(s.ctx, rest...); err != nil {
			return nil, s.flags.Explain(err, "describe groups", "")
		}
	}
	infos := make([]groupInfo, 0, len(names))
	for _, name := range names {
		if g, ok := modern[name]; ok && g.Err == nil {
			infos = append(infos, modernGroup(g))
			continue
		}
		g, err := s.classicGroup(name, classic[name])
		if err != nil {
			return nil, err
		}
		infos = append(infos, g)
	}
	return infos, nil
}

func isAuth(err error) bool {
	var auth *kadm.AuthError
	return errors.As(err, &auth)
}

func modernGroup(g kadm.DescribedConsumerGroup) groupInfo {
	info := groupInfo{name: g.Group, state: g.State, kind: "consumer", protocol: "consumer", coordinator: g.Coordinator.NodeID}
	for _, m := range g.Members {
		info.members = append(info.members, member{m.MemberID, m.ClientHost, m.ClientID, m.Assignment})
	}
	return info
}

func (s *session) classicGroup(name string, g kadm.DescribedGroup) (groupInfo, error) {
	if errors.Is(g.Err, kerr.GroupIDNotFound) || g.Err == nil && g.State == "Dead" {
		return groupInfo{}, (&report.Error{Code: report.NotFound, What: groupNamed(name) + " does not exist", Kafka: kerr.GroupIDNotFound.Message, Cause: g.Err}).WithHint("everlog group list shows what there is")
	}
	if g.Err != nil {
		return groupInfo{}, s.flags.Explain(g.Err, groupNamed(name), "")
	}
	info := groupInfo{name: name, state: g.State, kind: "classic", protocol: g.ProtocolType, coordinator: g.Coordinator.NodeID}
	for _, m := range g.Members {
		one := member{m.MemberID, m.ClientHost, m.ClientID, kadm.TopicsSet{}}
		if a, ok := m.Assigned.AsConsumer(); ok {
			for _, t := range a.Topics {
				one.assigned.Add(t.Topic, t.Partitions...)
			}
		}
		info.members = append(info.members, one)
	}
	return info, nil
}

// committedOffsets are the offsets of groups; none for a group that does not exist.
func (s *session) committedOffsets(names []string) (map[string]map[at]int64, error) {
	all := map[string]map[at]int64{}
	for name, r := range s.admin.FetchManyOffsets(s.ctx, names...) {
		if r.Err != nil && !isKafka(r.Err, "GROUP_ID_NOT_FOUND") {
			return nil, s.flags.Explain(r.Err, groupNamed(name), "")
		}
		all[name] = map[at]int64{}
		for topic, partitions := range r.Fetched {
			for p, o := range partitions {
				if o.Err != nil {
					return nil, s.flags.Explain(o.Err, groupNamed(name)+", "+topicNamed(topic), "")
				}
				if o.At >= 0 {
					all[name][at{topic, p}] = o.At
				}
			}
		}
	}
	return all, nil
}
