package client

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/everlog/everlog/cmd/everlog/internal/connect"
	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

func groupCommand(shell *report.Shell) *cobra.Command {
	cmd := &cobra.Command{
		Use: "group", Aliases: []string{"groups"}, Short: "List, describe, rewind and delete consumer groups",
		Example: "  everlog group describe billing\n  everlog group seek billing orders --to @-2h --execute",
	}
	k := kafka{shell, connect.Add(cmd, shell)}
	cmd.AddCommand(groupList(k), groupDescribe(k), groupSeek(k), groupDelete(k))
	return cmd
}

func groupNamed(name string) string { return `group "` + name + `"` }

type groupDoc struct {
	Group       string         `json:"group"`
	State       string         `json:"state"`
	Type        string         `json:"protocol_type,omitempty"`
	Coordinator int32          `json:"coordinator"`
	Members     *int           `json:"members,omitempty"`
	Lag         *int64         `json:"lag,omitempty"`
	Partitions  []groupPartDoc `json:"partitions,omitempty"`
}

// groupPartDoc is where a group stands in one partition; -1 is unknown or none.
type groupPartDoc struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Current   int64  `json:"current_offset"`
	End       int64  `json:"log_end_offset"`
	Lag       int64  `json:"lag"`
	Member    string `json:"member,omitempty"`
	Host      string `json:"host,omitempty"`
	Client    string `json:"client_id,omitempty"`
}

type groupsDoc struct {
	V      int        `json:"v"`
	Groups []groupDoc `json:"groups"`
}

// Items are the lines of jsonl.
func (d *groupsDoc) Items() []any {
	items := make([]any, len(d.Groups))
	for i := range d.Groups {
		items[i] = d.Groups[i]
	}
	return items
}

func groupList(k kafka) *cobra.Command {
	return &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List consumer groups", Args: report.Args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return k.with(cmd.Context(), func(a *session) error {
				groups, err := a.admin.ListGroups(a.ctx)
				if err != nil {
					return k.flags.Explain(err, "list groups", "")
				}
				doc := &groupsDoc{V: 1, Groups: []groupDoc{}}
				for _, g := range groups.Sorted() {
					doc.Groups = append(doc.Groups, groupDoc{Group: g.Group, State: g.State, Type: g.ProtocolType, Coordinator: g.Coordinator})
				}
				return k.shell.Printer().Print(doc, func(t *report.Table) {
					t.Row("GROUP", "STATE", "TYPE", "COORDINATOR")
					for _, g := range doc.Groups {
						t.Row(g.Group, g.State, g.Type, g.Coordinator)
					}
				})
			})
		},
	}
}

func groupDescribe(k kafka) *cobra.Command {
	return &cobra.Command{
		Use: "describe GROUP...", Short: "Show where groups stand, and how far behind", Args: report.Args(1, -1, "GROUP..."), ValidArgsFunction: k.completeGroups,
		RunE: func(cmd *cobra.Command, names []string) error {
			return k.with(cmd.Context(), func(a *session) error {
				lags, err := a.admin.Lag(a.ctx, names...)
				if err != nil {
					return k.flags.Explain(err, "describe groups", "")
				}
				doc := &groupsDoc{V: 1, Groups: []groupDoc{}}
				for _, g := range lags.Sorted() {
					if err := g.Error(); err != nil {
						return k.flags.Explain(err, groupNamed(g.Group), "")
					}
					if g.State == "Dead" && len(g.Members) == 0 && len(g.Lag) == 0 {
						return report.Errorf(report.NotFound, "%s does not exist", groupNamed(g.Group)).WithHint("everlog group list shows what there is")
					}
					doc.Groups = append(doc.Groups, describeGroup(g))
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

func describeGroup(g kadm.DescribedGroupLag) groupDoc {
	members, total := len(g.Members), g.Lag.Total()
	doc := groupDoc{Group: g.Group, State: g.State, Type: g.ProtocolType, Coordinator: g.Coordinator.NodeID, Members: &members, Lag: &total}
	for _, l := range g.Lag.Sorted() {
		p := groupPartDoc{Topic: l.Topic, Partition: l.Partition, Current: l.Commit.At, End: l.End.Offset, Lag: l.Lag}
		if l.Member != nil {
			p.Member, p.Host, p.Client = l.Member.MemberID, l.Member.ClientHost, l.Member.ClientID
		}
		doc.Partitions = append(doc.Partitions, p)
	}
	return doc
}

// printGroup is the table every operator knows from Kafka's own tool.
func printGroup(t *report.Table, g groupDoc) {
	t.Line("group %s  %s  %s  lag %d", g.Group, g.State, report.Count(int64(*g.Members), "member"), *g.Lag)
	t.Row("TOPIC", "PARTITION", "CURRENT-OFFSET", "LOG-END-OFFSET", "LAG", "CONSUMER-ID", "HOST", "CLIENT-ID")
	unknown := func(n int64) any {
		if n < 0 {
			return "-"
		}
		return n
	}
	for _, p := range g.Partitions {
		t.Row(p.Topic, p.Partition, unknown(p.Current), unknown(p.End), unknown(p.Lag), p.Member, p.Host, p.Client)
	}
}

// seekDoc is the plan, and then the result, of a seek.
type seekDoc struct {
	V          int        `json:"v"`
	Group      string     `json:"group"`
	Executed   bool       `json:"executed"`
	Partitions []seekPart `json:"partitions"`
}

type seekPart struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Current   int64  `json:"current_offset"`
	New       int64  `json:"new_offset"`
	End       int64  `json:"log_end_offset"`
}

func groupSeek(k kafka) *cobra.Command {
	var (
		to         string
		partitions []int32
		execute    bool
	)
	cmd := &cobra.Command{
		Use: "seek GROUP TOPIC", Short: "Move a group's offsets in a topic", Args: report.Args(2, 2, "GROUP and TOPIC"), ValidArgsFunction: k.completeGroups,
		Long: "Move a group's offsets in a topic. Without --execute it only shows what would change. The group must have no members.\n" +
			"--to takes start, end, an offset, +5 after the start, -5 before the end, or @ and a time (@2026-01-02, @-2h).",
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := grammar.ParseOffsets(to, k.shell.Now())
			if err != nil {
				return report.Usagef("--to: %w", err)
			}
			if r.To.Kind != grammar.Unbounded {
				return report.Usagef("--to %q is a range; one bound is wanted", to)
			}
			return k.with(cmd.Context(), func(a *session) error {
				found, err := resolve(a.ctx, k.flags, a.admin, question{topic: args[1], partitions: partitions, offsets: r})
				if err != nil {
					return err
				}
				return a.seek(args[0], args[1], found, execute)
			})
		},
	}
	cmd.Flags().StringVar(&to, "to", "", "where the group is to go on")
	cmd.Flags().Int32SliceVarP(&partitions, "partition", "p", nil, "only these partitions")
	cmd.Flags().BoolVar(&execute, "execute", false, "commit the new offsets")
	return cmd
}

// seek shows, and with execute commits, the from of every span as the group's offset.
func (s *session) seek(group, topic string, found spans, execute bool) error {
	current, err := s.admin.FetchOffsetsForTopics(s.ctx, group, topic)
	if err != nil && !isKafka(err, "GROUP_ID_NOT_FOUND") {
		return s.flags.Explain(err, groupNamed(group), "")
	}
	doc := &seekDoc{V: 1, Group: group, Executed: execute}
	var offsets kadm.Offsets
	for _, p := range found.sorted() {
		part := seekPart{Topic: topic, Partition: p, Current: -1, New: found[p].from, End: found[p].end}
		if o, ok := current.Lookup(topic, p); ok {
			part.Current = o.At
		}
		offsets.AddOffset(topic, p, part.New, -1)
		doc.Partitions = append(doc.Partitions, part)
	}
	if execute {
		if err := s.admin.CommitAllOffsets(s.ctx, group, offsets); err != nil {
			explained := s.flags.Explain(err, groupNamed(group), "")
			if e, ok := explained.(*report.Error); ok && (e.Kafka == "UNKNOWN_MEMBER_ID" || e.Kafka == "REBALANCE_IN_PROGRESS" || e.Kafka == "ILLEGAL_GENERATION") {
				return e.WithHint("the group has members: stop its consumers first")
			}
			return explained
		}
	}
	err = s.shell.Printer().Print(doc, func(t *report.Table) {
		t.Row("TOPIC", "PARTITION", "CURRENT-OFFSET", "NEW-OFFSET", "LOG-END-OFFSET")
		for _, p := range doc.Partitions {
			now := any(p.Current)
			if p.Current < 0 {
				now = "-"
			}
			t.Row(p.Topic, p.Partition, now, p.New, p.End)
		}
	})
	if err == nil && !execute && !s.shell.Printer().Structured() {
		s.shell.Notef("nothing was changed; --execute commits the new offsets")
	}
	return err
}

func groupDelete(k kafka) *cobra.Command {
	return &cobra.Command{
		Use: "delete GROUP...", Short: "Delete consumer groups and their offsets", Args: report.Args(1, -1, "GROUP..."), ValidArgsFunction: k.completeGroups,
		RunE: func(cmd *cobra.Command, names []string) error {
			return k.with(cmd.Context(), func(a *session) error {
				if err := k.shell.Confirm(fmt.Sprintf("delete %s with all offsets?", report.Count(int64(len(names)), "group"))); err != nil {
					return err
				}
				responses, err := a.admin.DeleteGroups(a.ctx, names...)
				if err != nil {
					return k.flags.Explain(err, "delete groups", "")
				}
				o := outcomes{noun: "group"}
				for _, r := range responses.Sorted() {
					o.add(r.Group, "deleted", k.flags.Explain(r.Err, groupNamed(r.Group), r.ErrMessage))
				}
				return o.print(k.shell)
			})
		},
	}
}
