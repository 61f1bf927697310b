package client

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// abortDoc is the plan, and then the result, of an abort: the open transactions of one partition.
type abortDoc struct {
	V         int       `json:"v"`
	Topic     string    `json:"topic"`
	Partition int32     `json:"partition"`
	Executed  bool      `json:"executed"`
	Open      []openTxn `json:"open_transactions"`
}

// openTxn is a transaction that holds the last stable offset of a partition back. LastWrite is when its producer wrote last.
type openTxn struct {
	StartOffset      int64   `json:"start_offset"`
	ProducerID       int64   `json:"producer_id"`
	Epoch            int16   `json:"producer_epoch"`
	CoordinatorEpoch int32   `json:"coordinator_epoch"`
	LastWrite        string  `json:"last_write"`
	Seconds          float64 `json:"seconds_since_last_write"`
	Status           string  `json:"status"`
}

// Items are the lines of jsonl.
func (d *abortDoc) Items() []any {
	items := make([]any, len(d.Open))
	for i := range d.Open {
		items[i] = d.Open[i]
	}
	return items
}

// abortFlags choose among the open transactions of a partition; -1 is not given.
type abortFlags struct {
	start, producer int64
	execute         bool
}

func txnAbort(k kafka) *cobra.Command {
	f := abortFlags{start: -1, producer: -1}
	cmd := &cobra.Command{
		Use: "abort TOPIC PARTITION", Short: "Abort a transaction that hangs in a partition", Args: report.Args(2, 2, "TOPIC and PARTITION"), ValidArgsFunction: k.completeTopic,
		Long: "Show the transactions that are open in a partition, and with --execute end one by an abort marker, in this partition alone.\n" +
			"It is for transactions that their coordinator does not know any more and so never ends: consumers with read_committed wait\n" +
			"for them for ever. A transaction that its coordinator knows is aborted after its timeout; see everlog txn list.",
		RunE: func(cmd *cobra.Command, args []string) error {
			partition, err := strconv.ParseInt(args[1], 10, 32)
			if err != nil || partition < 0 {
				return report.Usagef("%q is not a partition number", args[1])
			}
			if f.execute && f.start < 0 && f.producer < 0 {
				return report.Usagef("--execute wants the transaction").WithHint("--start-offset or --producer-id, as shown without --execute")
			}
			return k.with(cmd.Context(), func(s *session) error { return s.abort(args[0], int32(partition), f) })
		},
	}
	cmd.Flags().Int64Var(&f.start, "start-offset", -1, "the transaction that begins there")
	cmd.Flags().Int64Var(&f.producer, "producer-id", -1, "the transaction of this producer")
	cmd.Flags().BoolVar(&f.execute, "execute", false, "write the abort marker")
	return cmd
}

// chosen are the transactions that the flags mean.
func (f abortFlags) chosen(t openTxn) bool {
	return (f.start < 0 || t.StartOffset == f.start) && (f.producer < 0 || t.ProducerID == f.producer)
}

func (s *session) abort(topic string, partition int32, f abortFlags) error {
	doc := &abortDoc{V: 1, Topic: topic, Partition: partition, Executed: f.execute, Open: []openTxn{}}
	open, err := s.openTxns(topic, partition)
	if err != nil {
		return err
	}
	for _, t := range open {
		if f.chosen(t) {
			doc.Open = append(doc.Open, t)
		}
	}
	place := fmt.Sprintf("%s partition %d", topicNamed(topic), partition)
	switch {
	case len(doc.Open) == 0 && (f.start >= 0 || f.producer >= 0):
		return report.Errorf(report.NotFound, "%s has no such open transaction", place).WithHint("everlog txn abort %s %d shows what is open", topic, partition)
	case f.execute && len(doc.Open) > 1: // of one producer there is only one
		return report.Errorf(report.Failed, "%s has %d transactions that begin there", place, len(doc.Open)).WithHint("--producer-id names one")
	case f.execute:
		if err := s.writeAbort(topic, partition, &doc.Open[0]); err != nil {
			return err
		}
	}
	err = s.shell.Printer().Print(doc, func(t *report.Table) {
		t.Row("START-OFFSET", "PRODUCER-ID", "EPOCH", "COORDINATOR-EPOCH", "LAST-WRITE", "AGO", "STATUS")
		for _, o := range doc.Open {
			t.Row(o.StartOffset, o.ProducerID, o.Epoch, o.CoordinatorEpoch, o.LastWrite, ageText(o.Seconds), o.Status)
		}
	})
	switch {
	case len(doc.Open) == 0 && err == nil && !s.shell.Printer().Structured():
		s.shell.Notef("no transaction is open in %s", place)
	case !f.execute:
		s.dryRunNote(err, "with --start-offset or --producer-id aborts one")
	}
	return err
}

// openTxns are the open transactions of a partition, by their start.
func (s *session) openTxns(topic string, partition int32) ([]openTxn, error) {
	if _, err := s.topics(topic); err != nil {
		return nil, err
	}
	set := kadm.TopicsSet{}
	set.Add(topic, partition)
	described, err := s.admin.DescribeProducers(s.ctx, set)
	place := fmt.Sprintf("%s partition %d", topicNamed(topic), partition)
	if err != nil {
		return nil, s.flags.Explain(err, place, "")
	}
	p, ok := described[topic].Partitions[partition]
	if !ok {
		return nil, report.Errorf(report.NotFound, "%s does not exist", place)
	}
	if err := s.flags.Explain(p.Err, place, p.ErrMessage); err != nil {
		return nil, err
	}
	var open []openTxn
	for _, a := range p.ActiveProducers {
		if a.CurrentTxnStartOffset < 0 {
			continue
		}
		t := openTxn{StartOffset: a.CurrentTxnStartOffset, ProducerID: a.ProducerID, Epoch: a.ProducerEpoch, CoordinatorEpoch: a.CoordinatorEpoch,
			LastWrite: grammar.FormatTime(a.LastTimestamp), Seconds: -1, Status: "open"}
		if a.LastTimestamp >= 0 {
			t.Seconds = secondsSince(a.LastTimestamp, s.shell.Now())
		}
		open = append(open, t)
	}
	slices.SortFunc(open, func(a, b openTxn) int { return cmp.Compare(a.StartOffset, b.StartOffset) })
	return open, nil
}

// writeAbort ends a transaction in one partition, as its coordinator would.
func (s *session) writeAbort(topic string, partition int32, t *openTxn) error {
	set := kadm.TopicsSet{}
	set.Add(topic, partition)
	// A producer that never saw a marker has no coordinator epoch: the lowest fences nobody out.
	marker := kadm.TxnMarkers{ProducerID: t.ProducerID, ProducerEpoch: t.Epoch, CoordinatorEpoch: max(t.CoordinatorEpoch, 0), Topics: set}
	written, err := s.admin.WriteTxnMarkers(s.ctx, marker)
	place := fmt.Sprintf("producer %d in %s partition %d", t.ProducerID, topicNamed(topic), partition)
	if err != nil {
		return s.flags.Explain(err, place, "")
	}
	one, ok := written[t.ProducerID].Topics[topic].Partitions[partition]
	if !ok {
		return report.Errorf(report.Failed, "%s: the broker told nothing of the marker", place)
	}
	if err := s.flags.Explain(one.Err, place, ""); err != nil {
		return err
	}
	t.Status = "aborted"
	return nil
}
