package client

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cmd/everlog/internal/connect"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

func groupCommand(shell *report.Shell) *cobra.Command {
	cmd := &cobra.Command{
		Use: "group", Aliases: []string{"groups"}, Short: "List, describe, rewind and delete consumer groups, and tell their lag",
		Example: "  everlog group describe billing\n  everlog group lag --watch\n  everlog group seek billing orders --to @-2h --execute",
	}
	k := kafka{shell, connect.Add(cmd, shell)}
	cmd.AddCommand(groupList(k), groupDescribe(k), groupLag(k), groupSeek(k), groupDelete(k))
	return cmd
}

func groupNamed(name string) string { return `group "` + name + `"` }

// groupDoc is one group. Lag is in records, and LagSeconds how old the oldest record not yet consumed is; -1 is unknown.
type groupDoc struct {
	Group       string         `json:"group"`
	State       string         `json:"state"`
	Kind        string         `json:"type,omitempty"` // classic, consumer, share, streams
	Type        string         `json:"protocol_type,omitempty"`
	Coordinator int32          `json:"coordinator"`
	Members     *int           `json:"members,omitempty"`
	Lag         *int64         `json:"lag,omitempty"`
	LagSeconds  *float64       `json:"lag_seconds,omitempty"`
	Partitions  []groupPartDoc `json:"partitions,omitempty"`
}

// groupPartDoc is where a group stands in one partition; -1 is unknown or none.
type groupPartDoc struct {
	Topic      string  `json:"topic"`
	Partition  int32   `json:"partition"`
	Current    int64   `json:"current_offset"`
	End        int64   `json:"log_end_offset"`
	Lag        int64   `json:"lag"`
	LagSeconds float64 `json:"lag_seconds"`
	Member     string  `json:"member,omitempty"`
	Host       string  `json:"host,omitempty"`
	Client     string  `json:"client_id,omitempty"`

	start int64 // of the log
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
		Use: "list", Aliases: []string{"ls"}, Short: "List groups", Args: report.Args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return k.with(cmd.Context(), func(s *session) error {
				groups, err := s.groups()
				if err != nil {
					return err
				}
				doc := &groupsDoc{V: 1, Groups: groups}
				return k.shell.Printer().Print(doc, func(t *report.Table) {
					t.Row("GROUP", "STATE", "TYPE", "PROTOCOL", "COORDINATOR")
					for _, g := range doc.Groups {
						t.Row(g.Group, g.State, g.Kind, g.Type, g.Coordinator)
					}
				})
			})
		},
	}
}

// groups are all groups of the cluster, by name. The administration library does not tell their types.
func (s *session) groups() ([]groupDoc, error) {
	all := []groupDoc{}
	for _, shard := range s.client.RequestSharded(s.ctx, kmsg.NewPtrListGroupsRequest()) {
		if shard.Err != nil {
			return nil, s.flags.Explain(shard.Err, "list groups", "")
		}
		resp := shard.Resp.(*kmsg.ListGroupsResponse)
		if err := s.explainCode(resp.ErrorCode, "list groups", nil); err != nil {
			return nil, err
		}
		for _, g := range resp.Groups {
			all = append(all, groupDoc{Group: g.Group, State: g.GroupState, Kind: strings.ToLower(g.GroupType), Type: g.ProtocolType, Coordinator: shard.Meta.NodeID})
		}
	}
	slices.SortFunc(all, func(a, b groupDoc) int { return strings.Compare(a.Group, b.Group) })
	return all, nil
}

// groupDeleteDoc is the plan, and then the result, of a deletion.
type groupDeleteDoc struct {
	V        int               `json:"v"`
	Executed bool              `json:"executed"`
	Groups   []groupDeleteItem `json:"groups"`
}

type groupDeleteItem struct {
	Group      string `json:"group"`
	State      string `json:"state"`
	Members    int    `json:"members"`
	Partitions int    `json:"partitions"`
	Status     string `json:"status"`
}

// Items are the lines of jsonl.
func (d *groupDeleteDoc) Items() []any {
	items := make([]any, len(d.Groups))
	for i := range d.Groups {
		items[i] = d.Groups[i]
	}
	return items
}

func groupDelete(k kafka) *cobra.Command {
	var execute bool
	cmd := &cobra.Command{
		Use: "delete GROUP...", Short: "Delete groups and their offsets", Args: report.Args(1, -1, "GROUP..."), ValidArgsFunction: k.completeGroups,
		Long: "Delete groups with all their offsets. Without --execute it only shows what would be deleted. A group must have no members.",
		RunE: func(cmd *cobra.Command, names []string) error {
			return k.with(cmd.Context(), func(s *session) error {
				if execute {
					return s.deleteGroups(names)
				}
				return s.planDeletion(names)
			})
		},
	}
	cmd.Flags().BoolVar(&execute, "execute", false, "delete the groups")
	return cmd
}

func (s *session) deleteGroups(names []string) error {
	responses, err := s.admin.DeleteGroups(s.ctx, names...)
	if err != nil {
		return s.flags.Explain(err, "delete groups", "")
	}
	o := outcomes{noun: "group"}
	for _, r := range responses.Sorted() {
		err := s.flags.Explain(r.Err, groupNamed(r.Group), r.ErrMessage)
		if e, ok := err.(*report.Error); ok && e.Kafka == "NON_EMPTY_GROUP" {
			err = e.WithHint("the group has members: stop its consumers first")
		}
		o.add(r.Group, "deleted", err)
	}
	return o.print(s.shell)
}

// planDeletion shows what deleting the groups would do.
func (s *session) planDeletion(names []string) error {
	found, err := s.describeGroups(names)
	if err != nil {
		return err
	}
	committed, err := s.committedOffsets(names)
	if err != nil {
		return err
	}
	doc := &groupDeleteDoc{V: 1, Groups: []groupDeleteItem{}}
	for _, g := range found {
		item := groupDeleteItem{Group: g.name, State: g.state, Members: len(g.members), Partitions: len(committed[g.name]), Status: "would be deleted"}
		if item.Members > 0 {
			item.Status = "has members"
		}
		doc.Groups = append(doc.Groups, item)
	}
	err = s.shell.Printer().Print(doc, func(t *report.Table) {
		t.Row("GROUP", "STATE", "MEMBERS", "PARTITIONS", "STATUS")
		for _, g := range doc.Groups {
			t.Row(g.Group, g.State, g.Members, g.Partitions, g.Status)
		}
	})
	s.dryRunNote(err, "deletes the groups")
	return err
}

// dryRunNote tells a person that nothing was done.
func (s *session) dryRunNote(err error, does string) {
	if err == nil && !s.shell.Printer().Structured() {
		s.shell.Notef("nothing was changed; --execute %s", does)
	}
}
