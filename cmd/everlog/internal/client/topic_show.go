package client

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/tier/record"
)

func decimal(n int64) string { return strconv.FormatInt(n, 10) }

// isKafka tells whether err is the Kafka error of that name.
func isKafka(err error, name string) bool {
	var k *kerr.Error
	return errors.As(err, &k) && k.Message == name
}

// topicDoc describes one topic, in list without and in describe with its partitions.
type topicDoc struct {
	Name       string         `json:"name"`
	ID         string         `json:"id"`
	Internal   bool           `json:"internal"`
	Partitions int            `json:"partitions"`
	Replicas   int            `json:"replicas"`
	Configs    []configDoc    `json:"configs,omitempty"`
	Detail     []partitionDoc `json:"partition_detail,omitempty"`
}

type configDoc struct {
	Name   string  `json:"name"`
	Value  *string `json:"value"`
	Source string  `json:"source"`
}

// partitionDoc is one partition. Offsets that the broker did not tell are -1.
type partitionDoc struct {
	Partition   int32   `json:"partition"`
	Leader      int32   `json:"leader"`
	LeaderEpoch int32   `json:"leader_epoch"`
	Replicas    []int32 `json:"replicas"`
	ISR         []int32 `json:"isr"`
	Offline     []int32 `json:"offline,omitempty"`
	Start       int64   `json:"log_start_offset"`
	End         int64   `json:"log_end_offset"`
	LocalStart  *int64  `json:"local_log_start_offset,omitempty"`
	Remote      *int64  `json:"latest_remote_offset,omitempty"`
	LocalBytes  *int64  `json:"local_bytes,omitempty"`
}

type topicsDoc struct {
	V      int        `json:"v"`
	Topics []topicDoc `json:"topics"`
}

// Items are the lines of jsonl.
func (l *topicsDoc) Items() []any {
	items := make([]any, len(l.Topics))
	for i := range l.Topics {
		items[i] = l.Topics[i]
	}
	return items
}

func describeTopic(t kadm.TopicDetail) topicDoc {
	return topicDoc{Name: t.Topic, ID: record.TopicID(t.ID).String(), Internal: t.IsInternal, Partitions: len(t.Partitions), Replicas: t.Partitions.NumReplicas()}
}

func topicList(k kafka) *cobra.Command {
	var internal bool
	cmd := &cobra.Command{
		Use: "list [PATTERN...]", Aliases: []string{"ls"}, Short: "List topics", Args: report.Args(0, -1, "[PATTERN...]"),
		Example: "  everlog topic list\n  everlog topic list 'orders-*' --json",
		RunE: func(cmd *cobra.Command, patterns []string) error {
			return k.with(cmd.Context(), func(a *session) error {
				all, err := a.topics()
				if err != nil {
					return err
				}
				names, err := matching(all.Names(), patterns)
				if err != nil {
					return err
				}
				list := topicsDoc{V: 1, Topics: []topicDoc{}}
				for _, name := range names {
					if t := all[name]; internal || !t.IsInternal {
						list.Topics = append(list.Topics, describeTopic(t))
					}
				}
				return k.shell.Printer().Print(&list, func(t *report.Table) { printTopicList(t, list.Topics) })
			})
		},
	}
	cmd.Flags().BoolVarP(&internal, "internal", "i", false, "also Kafka's internal topics")
	return cmd
}

func printTopicList(t *report.Table, topics []topicDoc) {
	if t.Wide() {
		t.Row("TOPIC", "PARTITIONS", "REPLICAS", "ID", "INTERNAL")
	} else {
		t.Row("TOPIC", "PARTITIONS", "REPLICAS")
	}
	for _, d := range topics {
		if t.Wide() {
			t.Row(d.Name, d.Partitions, d.Replicas, d.ID, d.Internal)
		} else {
			t.Row(d.Name, d.Partitions, d.Replicas)
		}
	}
}

func topicDescribe(k kafka) *cobra.Command {
	var storage, all bool
	cmd := &cobra.Command{
		Use: "describe NAME...", Short: "Describe topics: partitions, offsets, settings", Args: report.Args(1, -1, "NAME..."), ValidArgsFunction: k.completeTopics,
		RunE: func(cmd *cobra.Command, names []string) error {
			return k.with(cmd.Context(), func(a *session) error {
				list, err := a.describe(names, storage, all)
				if err != nil {
					return err
				}
				return k.shell.Printer().Print(list, func(t *report.Table) {
					for i, d := range list.Topics {
						if i > 0 {
							t.Line("")
						}
						printTopic(t, d, storage)
					}
				})
			})
		},
	}
	cmd.Flags().BoolVar(&storage, "storage", false, "also where the records are: local start, end of the remote part, bytes on disk")
	cmd.Flags().BoolVar(&all, "all", false, "also settings that have their default")
	return cmd
}

// describe gathers all that is known of the topics.
func (s *session) describe(names []string, storage, all bool) (*topicsDoc, error) {
	topics, err := s.topics(names...)
	if err != nil {
		return nil, err
	}
	configs, err := s.admin.DescribeTopicConfigs(s.ctx, names...)
	if err != nil {
		return nil, s.flags.Explain(err, "describe topic settings", "")
	}
	starts, err := s.admin.ListStartOffsets(s.ctx, names...)
	if err != nil {
		return nil, s.flags.Explain(err, "list start offsets", "")
	}
	ends, err := s.admin.ListEndOffsets(s.ctx, names...)
	if err != nil {
		return nil, s.flags.Explain(err, "list end offsets", "")
	}
	list := &topicsDoc{V: 1}
	for _, t := range topics.Sorted() {
		d := describeTopic(t)
		d.Configs = settingsOf(configs, t.Topic, all)
		for _, p := range t.Partitions.Sorted() {
			d.Detail = append(d.Detail, partitionDoc{
				Partition: p.Partition, Leader: p.Leader, LeaderEpoch: p.LeaderEpoch, Replicas: p.Replicas, ISR: p.ISR, Offline: p.OfflineReplicas,
				Start: offsetOf(starts, t.Topic, p.Partition), End: offsetOf(ends, t.Topic, p.Partition),
			})
		}
		list.Topics = append(list.Topics, d)
	}
	if storage {
		s.addStorage(list, names)
	}
	return list, nil
}

// addStorage fills in what a broker knows of its tiers; a broker too old to be asked leaves it out.
func (s *session) addStorage(list *topicsDoc, names []string) {
	local, localErr := s.admin.ListLocalLogStartOffsets(s.ctx, names...)
	remote, remoteErr := s.admin.ListLatestRemoteOffsets(s.ctx, names...)
	var set kadm.TopicsSet
	for _, d := range list.Topics {
		for _, p := range d.Detail {
			set.Add(d.Name, p.Partition)
		}
	}
	dirs, dirsErr := s.admin.DescribeAllLogDirs(s.ctx, set)
	sizes := map[string]map[int32]int64{}
	dirs.Each(func(d kadm.DescribedLogDir) {
		d.Topics.Each(func(p kadm.DescribedLogDirPartition) {
			if sizes[p.Topic] == nil {
				sizes[p.Topic] = map[int32]int64{}
			}
			sizes[p.Topic][p.Partition] = max(sizes[p.Topic][p.Partition], p.Size)
		})
	})
	for i := range list.Topics {
		d := &list.Topics[i]
		for j := range d.Detail {
			p := &d.Detail[j]
			if n := offsetOf(local, d.Name, p.Partition); localErr == nil && n >= 0 {
				p.LocalStart = &n
			}
			if n := offsetOf(remote, d.Name, p.Partition); remoteErr == nil && n >= 0 {
				p.Remote = &n
			}
			if n, ok := sizes[d.Name][p.Partition]; dirsErr == nil && ok {
				p.LocalBytes = &n
			}
		}
	}
}

func offsetOf(list kadm.ListedOffsets, topic string, partition int32) int64 {
	o, ok := list.Lookup(topic, partition)
	if !ok || o.Err != nil {
		return -1
	}
	return o.Offset
}

// settingsOf lists the settings of a topic that differ from their default, or all.
func settingsOf(configs kadm.ResourceConfigs, topic string, all bool) []configDoc {
	var docs []configDoc
	for _, r := range configs {
		if r.Name != topic {
			continue
		}
		for _, c := range r.Configs {
			if all || c.Source != kmsg.ConfigSourceDefaultConfig {
				docs = append(docs, configDoc{c.Key, c.Value, strings.ToLower(c.Source.String())})
			}
		}
	}
	slices.SortFunc(docs, func(a, b configDoc) int { return strings.Compare(a.Name, b.Name) })
	return docs
}

func printTopic(t *report.Table, d topicDoc, storage bool) {
	t.Line("topic %s  id %s  %s  %s each", d.Name, d.ID, report.Count(int64(d.Partitions), "partition"), report.Count(int64(d.Replicas), "replica"))
	head := []any{"PARTITION", "LEADER", "EPOCH", "REPLICAS", "ISR", "START", "END"}
	if storage {
		head = append(head, "LOCAL-START", "REMOTE-END", "LOCAL-SIZE")
	}
	t.Row(head...)
	for _, p := range d.Detail {
		row := []any{p.Partition, p.Leader, p.LeaderEpoch, numbers(p.Replicas), numbers(p.ISR), p.Start, p.End}
		if storage {
			row = append(row, orDash(p.LocalStart, 0, decimal), orDash(p.Remote, 1, decimal), orDash(p.LocalBytes, 0, grammar.FormatSize))
		}
		t.Row(row...)
	}
	if len(d.Configs) == 0 {
		return
	}
	t.Line("")
	t.Row("SETTING", "VALUE", "SOURCE")
	for _, c := range d.Configs {
		value := "(hidden)"
		if c.Value != nil {
			value = *c.Value + inWords(c.Name, *c.Value)
		}
		t.Row(c.Name, value, c.Source)
	}
}

// inWords adds what a number of milliseconds or bytes means.
func inWords(name, value string) string {
	n, err := strconv.ParseInt(value, 10, 64)
	if err != nil || n == 0 {
		return ""
	}
	switch {
	case strings.HasSuffix(name, "retention.ms") && n == grammar.Forever:
		return " (forever)"
	case strings.HasSuffix(name, ".ms") && n >= 1000:
		return fmt.Sprintf(" (%s)", grammar.Limits{MS: n, Bytes: -1})
	case strings.HasSuffix(name, ".bytes") && n >= 1024:
		return fmt.Sprintf(" (%s)", grammar.FormatSize(n))
	}
	return ""
}

func orDash(n *int64, add int64, format func(int64) string) string {
	if n == nil {
		return "-"
	}
	return format(*n + add)
}

func numbers(list []int32) string {
	text := make([]string, len(list))
	for i, n := range list {
		text[i] = strconv.Itoa(int(n))
	}
	return strings.Join(text, ",")
}
