package client

import (
	"fmt"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// trimDoc is the plan, and then the result, of a trim.
type trimDoc struct {
	V          int        `json:"v"`
	Topic      string     `json:"topic"`
	DryRun     bool       `json:"dry_run"`
	Partitions []trimPart `json:"partitions"`
}

type trimPart struct {
	Partition int32  `json:"partition"`
	Start     int64  `json:"log_start_offset"`
	Before    int64  `json:"before_offset"`
	Records   int64  `json:"offsets_removed"`
	Status    string `json:"status"`
	Reason    string `json:"error,omitempty"`
}

func topicTrim(k kafka) *cobra.Command {
	var (
		before     string
		partitions []int32
		dryRun     bool
	)
	cmd := &cobra.Command{
		Use: "trim NAME", Short: "Delete the oldest records of a topic, in every tier", Args: report.Args(1, 1, "NAME"), ValidArgsFunction: k.completeTopic,
		Example: "  everlog topic trim orders --before @2026-01-01 --dry-run\n  everlog topic trim orders --before 1200 -p 3 --yes",
		RunE: func(cmd *cobra.Command, args []string) error {
			if before == "" {
				return report.Usagef("--before says what to keep").WithHint("%s", "--before @2026-01-01, an offset, or end")
			}
			r, err := grammar.ParseOffsets(before, k.shell.Now())
			if err != nil {
				return report.Usagef("--before: %w", err)
			}
			if r.To.Kind != grammar.Unbounded {
				return report.Usagef("--before %q is a range; one bound is wanted", before)
			}
			return k.with(cmd.Context(), func(a *session) error {
				found, err := resolve(a.ctx, k.flags, a.admin, question{topic: args[0], partitions: partitions, offsets: r})
				if err != nil {
					return err
				}
				return a.trim(args[0], found, dryRun)
			})
		},
	}
	cmd.Flags().StringVar(&before, "before", "", "the first record to keep: @2026-01-01, @-30d, an offset, or end")
	cmd.Flags().Int32SliceVarP(&partitions, "partition", "p", nil, "only these partitions")
	cmd.Flags().BoolVar(&dryRun, "dry-run", false, "say what would be deleted, and delete nothing")
	return cmd
}

// trim deletes below the from of every span, after a question.
func (s *session) trim(topic string, found spans, dryRun bool) error {
	starts, err := s.admin.ListStartOffsets(s.ctx, topic)
	if err != nil {
		return s.flags.Explain(err, "offsets of "+topicNamed(topic), "")
	}
	doc := trimDoc{V: 1, Topic: topic, DryRun: dryRun}
	var offsets kadm.Offsets
	var total int64
	for _, p := range found.sorted() {
		start := offsetOf(starts, topic, p)
		part := trimPart{Partition: p, Start: start, Before: found[p].from, Records: found[p].from - start, Status: did(dryRun, "trimmed")}
		if part.Records <= 0 {
			part.Records, part.Status = 0, "nothing to trim"
		} else {
			offsets.AddOffset(topic, p, part.Before, -1)
		}
		total += part.Records
		doc.Partitions = append(doc.Partitions, part)
	}
	if !dryRun && len(offsets) > 0 {
		if err := s.shell.Confirm(fmt.Sprintf("delete %s of %s?", report.Count(total, "offset"), topicNamed(topic))); err != nil {
			return err
		}
		if err := s.deleteRecords(&doc, offsets); err != nil {
			return err
		}
	}
	return doc.print(s.shell)
}

func (s *session) deleteRecords(doc *trimDoc, offsets kadm.Offsets) error {
	responses, err := s.admin.DeleteRecords(s.ctx, offsets)
	if err != nil {
		return s.flags.Explain(err, "trim "+topicNamed(doc.Topic), "")
	}
	for i := range doc.Partitions {
		part := &doc.Partitions[i]
		r, ok := responses.Lookup(doc.Topic, part.Partition)
		if !ok {
			continue
		}
		if r.Err != nil {
			part.Status, part.Records = "failed", 0
			part.Reason = s.flags.Explain(r.Err, fmt.Sprintf("partition %d", part.Partition), "").Error()
		}
	}
	return nil
}

func (d *trimDoc) print(shell *report.Shell) error {
	failed := 0
	err := shell.Printer().Print(d, func(t *report.Table) {
		t.Row("PARTITION", "START", "BEFORE", "OFFSETS", "STATUS")
		for _, p := range d.Partitions {
			status := p.Status
			if p.Reason != "" {
				status += ": " + p.Reason
			}
			t.Row(p.Partition, p.Start, p.Before, p.Records, status)
		}
	})
	for _, p := range d.Partitions {
		if p.Reason != "" {
			failed++
		}
	}
	switch {
	case err != nil || failed == 0:
		return err
	case failed == len(d.Partitions):
		return report.Errorf(report.Failed, "no partition of %s was trimmed", topicNamed(d.Topic))
	}
	return report.Errorf(report.Partial, "%d of %d partitions failed", failed, len(d.Partitions))
}
