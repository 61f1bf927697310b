package client

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

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

// seekFlags are what seek was asked for.
type seekFlags struct {
	to, file   string
	partitions []int32
	execute    bool
}

func groupSeek(k kafka) *cobra.Command {
	var f seekFlags
	cmd := &cobra.Command{
		Use: "seek GROUP [TOPIC...]", Short: "Move a group's offsets", Args: report.Args(1, -1, "GROUP and TOPIC..."), ValidArgsFunction: k.completeGroups,
		Long: "Move a group's offsets in topics: those named, or all in which it has some. Without --execute it only shows what would\n" +
			"change. The group must have no members.\n" +
			"--to takes start, end, an offset, +5 after the start, -5 before the end, or @ and a time (@2026-01-02, @-2h).\n" +
			"--to-file takes a file of lines TOPIC PARTITION OFFSET, or what group describe --json printed.",
		Example: "  everlog group seek billing orders --to @-2h\n  everlog group describe billing --json > offsets.json\n  everlog group seek billing --to-file offsets.json --execute",
		RunE: func(cmd *cobra.Command, args []string) error {
			if (f.to == "") == (f.file == "") {
				return report.Usagef("one of --to and --to-file says where the group is to go on")
			}
			if len(f.partitions) > 0 && (f.file != "" || len(args) != 2) {
				return report.Usagef("-p goes with --to and one topic")
			}
			if f.file != "" {
				return k.seekFile(cmd, args[0], args[1:], f)
			}
			r, err := grammar.ParseOffsets(f.to, k.shell.Now())
			if err != nil {
				return report.Usagef("--to: %w", err)
			}
			if r.To.Kind != grammar.Unbounded {
				return report.Usagef("--to %q is a range; one bound is wanted", f.to)
			}
			return k.with(cmd.Context(), func(s *session) error { return s.seekTo(args[0], args[1:], r, f) })
		},
	}
	cmd.Flags().StringVar(&f.to, "to", "", "where the group is to go on")
	cmd.Flags().StringVar(&f.file, "to-file", "", "file that says for each partition where the group is to go on; - is standard input")
	cmd.Flags().Int32SliceVarP(&f.partitions, "partition", "p", nil, "only these partitions")
	cmd.Flags().BoolVar(&f.execute, "execute", false, "commit the new offsets")
	return cmd
}

// seekTo moves the group to one bound in topics, or in all topics in which it has offsets.
func (s *session) seekTo(group string, topics []string, r grammar.Range, f seekFlags) error {
	current, err := s.committedOffsets([]string{group})
	if err != nil {
		return err
	}
	if len(topics) == 0 {
		seen := kadm.TopicsSet{}
		for where := range current[group] {
			seen.Add(where.topic)
		}
		if topics = seen.Topics(); len(topics) == 0 {
			return report.Errorf(report.NotFound, "%s has no offsets", groupNamed(group)).WithHint("name the topics")
		}
	}
	wanted, ends := map[at]int64{}, map[at]int64{}
	for _, topic := range topics {
		found, err := resolve(s.ctx, s.flags, s.admin, question{topic: topic, partitions: f.partitions, offsets: r})
		if err != nil {
			return err
		}
		for p, one := range found {
			wanted[at{topic, p}], ends[at{topic, p}] = one.from, one.end
		}
	}
	return s.seek(group, wanted, ends, current[group], f.execute)
}

// seekFile moves the group to the offsets of a file; topics, if any, choose among them.
func (k kafka) seekFile(cmd *cobra.Command, group string, topics []string, f seekFlags) error {
	wanted, err := readOffsets(k.shell.In, f.file)
	if err != nil {
		return err
	}
	if len(topics) > 0 {
		chosen := map[at]int64{}
		for _, topic := range topics {
			for where, offset := range wanted {
				if where.topic == topic {
					chosen[where] = offset
				}
			}
		}
		wanted = chosen
	}
	if len(wanted) == 0 {
		return report.Errorf(report.NotFound, "%s holds no offsets to take", f.file)
	}
	return k.with(cmd.Context(), func(s *session) error {
		current, err := s.committedOffsets([]string{group})
		if err != nil {
			return err
		}
		ends, err := s.within(wanted)
		if err != nil {
			return err
		}
		return s.seek(group, wanted, ends, current[group], f.execute)
	})
}

// within gives the ends of the logs, and refuses offsets that lie outside of theirs: a group would be thrown to wherever its
// reset policy says.
func (s *session) within(wanted map[at]int64) (map[at]int64, error) {
	topics := kadm.TopicsSet{}
	for where := range wanted {
		topics.Add(where.topic)
	}
	starts, err := s.admin.ListStartOffsets(s.ctx, topics.Topics()...)
	if err == nil {
		err = starts.Error()
	}
	if err != nil {
		return nil, s.flags.Explain(err, "offsets of the topics", "")
	}
	list, err := s.admin.ListEndOffsets(s.ctx, topics.Topics()...)
	if err != nil {
		return nil, s.flags.Explain(err, "offsets of the topics", "")
	}
	ends := map[at]int64{}
	for _, where := range sortedParts(wanted) {
		start, end := offsetOf(starts, where.topic, where.partition), offsetOf(list, where.topic, where.partition)
		if start < 0 || end < 0 {
			return nil, report.Errorf(report.NotFound, "%s has no partition %d", topicNamed(where.topic), where.partition)
		}
		if offset := wanted[where]; offset < start || offset > end {
			return nil, report.Usagef("%s partition %d: offset %d is not within the log, %d to %d", topicNamed(where.topic), where.partition, offset, start, end)
		}
		ends[where] = end
	}
	return ends, nil
}

// seek shows, and with execute commits, the wanted offsets.
func (s *session) seek(group string, wanted, ends, current map[at]int64, execute bool) error {
	doc := &seekDoc{V: 1, Group: group, Executed: execute, Partitions: []seekPart{}}
	var offsets kadm.Offsets
	for _, where := range sortedParts(wanted) {
		part := seekPart{Topic: where.topic, Partition: where.partition, Current: -1, New: wanted[where], End: ends[where]}
		if now, ok := current[where]; ok {
			part.Current = now
		}
		offsets.AddOffset(where.topic, where.partition, part.New, -1)
		doc.Partitions = append(doc.Partitions, part)
	}
	if execute {
		if err := s.commit(group, offsets); err != nil {
			return err
		}
	}
	err := s.shell.Printer().Print(doc, func(t *report.Table) {
		t.Row("TOPIC", "PARTITION", "CURRENT-OFFSET", "NEW-OFFSET", "LOG-END-OFFSET")
		for _, p := range doc.Partitions {
			t.Row(p.Topic, p.Partition, known(p.Current), p.New, p.End)
		}
	})
	if !execute {
		s.dryRunNote(err, "commits the new offsets")
	}
	return err
}

// commit sets the offsets of a group without members.
func (s *session) commit(group string, offsets kadm.Offsets) error {
	err := s.admin.CommitAllOffsets(s.ctx, group, offsets)
	explained := s.flags.Explain(err, groupNamed(group), "")
	if e, ok := explained.(*report.Error); ok {
		switch e.Kafka {
		case "UNKNOWN_MEMBER_ID", "REBALANCE_IN_PROGRESS", "ILLEGAL_GENERATION", "STALE_MEMBER_EPOCH", "FENCED_MEMBER_EPOCH":
			return e.WithHint("the group has members: stop its consumers first")
		}
	}
	return explained
}

// readOffsets reads a file of offsets in one of its two forms; "-" is in.
func readOffsets(in io.Reader, name string) (map[at]int64, error) {
	if name != "-" {
		file, err := os.Open(name)
		if err != nil {
			code := report.Failed
			if errors.Is(err, os.ErrNotExist) {
				code = report.NotFound
			}
			return nil, report.Errorf(code, "--to-file: %w", err)
		}
		defer file.Close()
		in = file
	}
	r := bufio.NewReader(in)
	if first, err := r.Peek(1); err == nil && first[0] == '{' {
		return offsetsOfJSON(r, name)
	}
	offsets := map[at]int64{}
	lines := bufio.NewScanner(r)
	for n := 1; lines.Scan(); n++ {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || strings.HasPrefix(fields[0], "#") {
			continue
		}
		where, offset, err := offsetLine(fields)
		if err != nil {
			return nil, report.Usagef("%s line %d: %w", name, n, err)
		}
		offsets[where] = offset
	}
	return offsets, lines.Err()
}

func offsetLine(fields []string) (at, int64, error) {
	if len(fields) != 3 {
		return at{}, 0, fmt.Errorf("%d words, wanted are TOPIC PARTITION OFFSET", len(fields))
	}
	partition, err := strconv.ParseInt(fields[1], 10, 32)
	if err != nil || partition < 0 {
		return at{}, 0, fmt.Errorf("%q is no partition number", fields[1])
	}
	offset, err := strconv.ParseInt(fields[2], 10, 64)
	if err != nil || offset < 0 {
		return at{}, 0, fmt.Errorf("%q is no offset", fields[2])
	}
	return at{fields[0], int32(partition)}, offset, nil
}

// offsetsOfJSON takes the offsets that group describe --json printed, of one group.
func offsetsOfJSON(r io.Reader, name string) (map[at]int64, error) {
	var doc groupsDoc
	if err := json.NewDecoder(r).Decode(&doc); err != nil {
		return nil, report.Usagef("%s is not what group describe --json prints: %w", name, err)
	}
	if len(doc.Groups) != 1 {
		return nil, report.Usagef("%s holds %s, one is wanted", name, report.Count(int64(len(doc.Groups)), "group"))
	}
	offsets := map[at]int64{}
	for _, p := range doc.Groups[0].Partitions {
		if p.Current >= 0 {
			offsets[at{p.Topic, p.Partition}] = p.Current
		}
	}
	return offsets, nil
}
