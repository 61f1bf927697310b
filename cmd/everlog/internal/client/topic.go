package client

import (
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/everlog/everlog/cmd/everlog/internal/connect"
	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

func topicCommand(shell *report.Shell) *cobra.Command {
	cmd := &cobra.Command{
		Use: "topic", Aliases: []string{"topics"}, Short: "Create, list, describe, change and delete topics",
		Example: "  everlog topic create orders -p 12 --retention forever\n  everlog topic describe orders --storage",
	}
	k := kafka{shell, connect.Add(cmd, shell)}
	cmd.AddCommand(topicCreate(k), topicList(k), topicDescribe(k), topicAlter(k), topicDelete(k), topicAddPartitions(k), topicTrim(k))
	return cmd
}

// settings are the flags that become topic settings.
type settings struct {
	retention, local string
	configs          []string
}

func (s *settings) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&s.retention, "retention", "", "how long to keep records: forever, 30d, 500GiB of each partition, or 30d,500GiB")
	cmd.Flags().StringVar(&s.local, "local-retention", "", "how long to keep them on the brokers' disks too: auto, 2h, 50GiB, or both")
	cmd.Flags().StringArrayVarP(&s.configs, "config", "c", nil, "topic setting NAME=VALUE, by Kafka's name")
}

// values are the settings by Kafka's names. A nil value, written NAME- where remove is allowed, takes the setting away.
func (s *settings) values(remove bool) (map[string]*string, error) {
	values := map[string]*string{}
	set := func(name string, value string) { values[name] = &value }
	if s.retention != "" {
		l, err := grammar.ParseRetention(s.retention)
		if err != nil {
			return nil, report.Usagef("--retention: %w", err)
		}
		set("retention.ms", decimal(l.MS))
		set("retention.bytes", decimal(l.Bytes))
	}
	if s.local != "" {
		l, err := grammar.ParseLocalRetention(s.local)
		if err != nil {
			return nil, report.Usagef("--local-retention: %w", err)
		}
		set("local.retention.ms", decimal(l.MS))
		set("local.retention.bytes", decimal(l.Bytes))
	}
	for _, c := range s.configs {
		name, value, ok := strings.Cut(c, "=")
		switch {
		case ok && name != "":
			set(name, value)
		case remove && strings.HasSuffix(c, "-") && len(c) > 1:
			values[strings.TrimSuffix(c, "-")] = nil
		case remove:
			return nil, report.Usagef("--config %q is neither NAME=VALUE nor NAME- to remove it", c)
		default:
			return nil, report.Usagef("--config %q is not NAME=VALUE", c)
		}
	}
	return values, nil
}

func topicCreate(k kafka) *cobra.Command {
	var (
		s           settings
		partitions  int32
		replicas    int16
		ifNotExists bool
		dryRun      bool
	)
	cmd := &cobra.Command{
		Use: "create NAME...", Short: "Create topics", Args: report.Args(1, -1, "NAME..."),
		Example: "  everlog topic create orders -p 12 -r 3 --retention forever\n  everlog topic create metrics --retention 30d --local-retention 2h -c compression.type=zstd",
		RunE: func(cmd *cobra.Command, names []string) error {
			values, err := s.values(false)
			if err != nil {
				return err
			}
			return k.with(cmd.Context(), func(a *session) error {
				create := a.admin.CreateTopics
				if dryRun {
					create = a.admin.ValidateCreateTopics
				}
				responses, err := create(a.ctx, partitions, replicas, values, names...)
				if err != nil {
					return k.flags.Explain(err, "create topics", "")
				}
				return createOutcomes(k, responses, ifNotExists, dryRun).print(k.shell)
			})
		},
	}
	cmd.Flags().Int32VarP(&partitions, "partitions", "p", -1, "number of partitions; -1 leaves it to the broker")
	cmd.Flags().Int16VarP(&replicas, "replicas", "r", -1, "copies of each partition; -1 leaves it to the broker")
	cmd.Flags().BoolVar(&ifNotExists, "if-not-exists", false, "take a topic that exists already for done")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "let the broker check it, and create nothing")
	s.add(cmd)
	return cmd
}

func createOutcomes(k kafka, responses kadm.CreateTopicResponses, ifNotExists, dryRun bool) *outcomes {
	var o outcomes
	for _, r := range responses.Sorted() {
		switch {
		case isKafka(r.Err, "TOPIC_ALREADY_EXISTS") && ifNotExists:
			o.add(r.Topic, "exists", nil)
		case r.Err != nil:
			o.add(r.Topic, "", k.flags.Explain(r.Err, topicNamed(r.Topic), r.ErrMessage))
		default:
			o.add(r.Topic, did(dryRun, "created"), nil)
		}
	}
	return &o
}

// did words what was done, or would be.
func did(dryRun bool, done string) string {
	if dryRun {
		return "would be " + done
	}
	return done
}

func topicDelete(k kafka) *cobra.Command {
	var ifExists, dryRun bool
	cmd := &cobra.Command{
		Use: "delete NAME...", Short: "Delete topics with all their records, in every tier", Args: report.Args(1, -1, "NAME..."), ValidArgsFunction: k.completeTopics,
		RunE: func(cmd *cobra.Command, names []string) error {
			return k.with(cmd.Context(), func(a *session) error {
				if dryRun {
					return deletePlan(a, names, ifExists)
				}
				if err := k.shell.Confirm("delete " + strings.Join(names, ", ") + " with all records?"); err != nil {
					return err
				}
				responses, err := a.admin.DeleteTopics(a.ctx, names...)
				if err != nil {
					return k.flags.Explain(err, "delete topics", "")
				}
				var o outcomes
				for _, r := range responses.Sorted() {
					switch {
					case isKafka(r.Err, "UNKNOWN_TOPIC_OR_PARTITION") && ifExists:
						o.add(r.Topic, "absent", nil)
					case isKafka(r.Err, "UNKNOWN_TOPIC_OR_PARTITION"):
						o.add(r.Topic, "", a.unknownTopic(r.Topic, r.Err))
					default:
						o.add(r.Topic, "deleted", k.flags.Explain(r.Err, topicNamed(r.Topic), r.ErrMessage))
					}
				}
				return o.print(k.shell)
			})
		},
	}
	cmd.Flags().BoolVar(&ifExists, "if-exists", false, "take a topic that does not exist for done")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be deleted, and delete nothing")
	return cmd
}

// deletePlan checks that the topics exist; Kafka has no dry run for their deletion.
func deletePlan(a *session, names []string, ifExists bool) error {
	found, err := a.admin.ListTopicsWithInternal(a.ctx, names...)
	if err != nil {
		return a.flags.Explain(err, "list topics", "")
	}
	var o outcomes
	for _, name := range names {
		switch {
		case found.Has(name):
			o.add(name, did(true, "deleted"), nil)
		case ifExists:
			o.add(name, "absent", nil)
		default:
			o.add(name, "", a.unknownTopic(name, found[name].Err))
		}
	}
	return o.print(a.shell)
}

func topicAlter(k kafka) *cobra.Command {
	var (
		s      settings
		dryRun bool
	)
	cmd := &cobra.Command{
		Use: "alter NAME...", Short: "Change settings of topics", Args: report.Args(1, -1, "NAME..."), ValidArgsFunction: k.completeTopics,
		Example: "  everlog topic alter orders --retention 90d\n  everlog topic alter orders -c max.message.bytes=2097152 -c segment.bytes-",
		Long:    "Change settings of topics. -c NAME=VALUE sets one, -c NAME- takes it away so that the broker's default holds.",
		RunE: func(cmd *cobra.Command, names []string) error {
			values, err := s.values(true)
			if err != nil {
				return err
			}
			if len(values) == 0 {
				return report.Usagef("nothing to change").WithHint("--retention, --local-retention or -c NAME=VALUE")
			}
			var changes []kadm.AlterConfig
			for name, value := range values {
				op := kadm.SetConfig
				if value == nil {
					op = kadm.DeleteConfig
				}
				changes = append(changes, kadm.AlterConfig{Op: op, Name: name, Value: value})
			}
			slices.SortFunc(changes, func(a, b kadm.AlterConfig) int { return strings.Compare(a.Name, b.Name) })
			return k.with(cmd.Context(), func(a *session) error {
				alter := a.admin.AlterTopicConfigs
				if dryRun {
					alter = a.admin.ValidateAlterTopicConfigs
				}
				responses, err := alter(a.ctx, changes, names...)
				if err != nil {
					return k.flags.Explain(err, "alter topics", "")
				}
				var o outcomes
				for _, r := range responses {
					if isKafka(r.Err, "UNKNOWN_TOPIC_OR_PARTITION") {
						o.add(r.Name, "", a.unknownTopic(r.Name, r.Err))
						continue
					}
					o.add(r.Name, did(dryRun, "altered"), k.flags.Explain(r.Err, topicNamed(r.Name), r.ErrMessage))
				}
				return o.print(k.shell)
			})
		},
	}
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "let the broker check it, and change nothing")
	s.add(cmd)
	return cmd
}

func topicAddPartitions(k kafka) *cobra.Command {
	var (
		add    int
		dryRun bool
	)
	cmd := &cobra.Command{
		Use: "add-partitions NAME...", Short: "Add partitions to topics", Args: report.Args(1, -1, "NAME..."), ValidArgsFunction: k.completeTopics,
		Long: "Add partitions to topics. Records stay where they are; keys may go to other partitions from then on.",
		RunE: func(cmd *cobra.Command, names []string) error {
			if add < 1 {
				return report.Usagef("--add %d is not a number of partitions to add", add)
			}
			return k.with(cmd.Context(), func(a *session) error {
				create := a.admin.CreatePartitions
				if dryRun {
					create = a.admin.ValidateCreatePartitions
				}
				responses, err := create(a.ctx, add, names...)
				if err != nil {
					return k.flags.Explain(err, "add partitions", "")
				}
				var o outcomes
				for _, r := range responses.Sorted() {
					if isKafka(r.Err, "UNKNOWN_TOPIC_OR_PARTITION") {
						o.add(r.Topic, "", a.unknownTopic(r.Topic, r.Err))
						continue
					}
					o.add(r.Topic, did(dryRun, "extended by "+report.Count(int64(add), "partition")), k.flags.Explain(r.Err, topicNamed(r.Topic), r.ErrMessage))
				}
				return o.print(k.shell)
			})
		},
	}
	cmd.Flags().IntVarP(&add, "add", "a", 0, "how many to add")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "let the broker check it, and add nothing")
	return cmd
}
