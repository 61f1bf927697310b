package client

import (
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/everlog/everlog/cmd/everlog/internal/connect"
	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

func txnCommand(shell *report.Shell) *cobra.Command {
	cmd := &cobra.Command{
		Use: "txn", Aliases: []string{"txns", "transaction", "transactions"}, Short: "List and describe transactions, and abort one that hangs",
		Example: "  everlog txn list --older-than 15m\n  everlog txn abort orders 3\n  everlog txn abort orders 3 --start-offset 1200 --execute",
	}
	k := kafka{shell, connect.Add(cmd, shell)}
	cmd.AddCommand(txnList(k), txnDescribe(k), txnAbort(k))
	return cmd
}

func txnNamed(id string) string { return `transactional id "` + id + `"` }

// txnDoc is one transactional id. Started is empty, and Seconds -1, if no transaction is open.
type txnDoc struct {
	ID          string       `json:"transactional_id"`
	State       string       `json:"state"`
	ProducerID  int64        `json:"producer_id"`
	Epoch       int16        `json:"producer_epoch"`
	Coordinator int32        `json:"coordinator"`
	TimeoutMs   int32        `json:"timeout_ms"`
	Started     string       `json:"started,omitempty"`
	Seconds     float64      `json:"open_seconds"`
	Partitions  []txnPartDoc `json:"partitions"`
}

type txnPartDoc struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
}

type txnsDoc struct {
	V    int      `json:"v"`
	Txns []txnDoc `json:"transactions"`
}

// Items are the lines of jsonl.
func (d *txnsDoc) Items() []any {
	items := make([]any, len(d.Txns))
	for i := range d.Txns {
		items[i] = d.Txns[i]
	}
	return items
}

func txnList(k kafka) *cobra.Command {
	var (
		states []string
		older  string
	)
	cmd := &cobra.Command{
		Use: "list", Aliases: []string{"ls"}, Short: "List transactional ids and their transactions", Args: report.Args(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			least := time.Duration(0)
			if older != "" {
				var err error
				if least, err = grammar.ParseDuration(older); err != nil {
					return report.Usagef("--older-than: %w", err)
				}
			}
			return k.with(cmd.Context(), func(s *session) error {
				listed, err := s.admin.ListTransactions(s.ctx, nil, states)
				if err != nil {
					return s.flags.Explain(err, "list transactions", "")
				}
				doc := &txnsDoc{V: 1, Txns: []txnDoc{}}
				if ids := listed.TransactionalIDs(); len(ids) > 0 {
					all, err := s.describeTxns(ids)
					if err != nil {
						return err
					}
					for _, t := range all {
						if t.Seconds >= least.Seconds() || least == 0 {
							doc.Txns = append(doc.Txns, t)
						}
					}
				}
				return k.shell.Printer().Print(doc, func(t *report.Table) {
					t.Row("TRANSACTIONAL-ID", "STATE", "PRODUCER-ID", "EPOCH", "OPEN-FOR", "PARTITIONS", "COORDINATOR")
					for _, x := range doc.Txns {
						t.Row(x.ID, x.State, x.ProducerID, x.Epoch, ageText(x.Seconds), len(x.Partitions), x.Coordinator)
					}
				})
			})
		},
	}
	cmd.Flags().StringSliceVar(&states, "state", nil, "only those in these states: Empty, Ongoing, PrepareCommit, PrepareAbort, CompleteCommit, CompleteAbort")
	cmd.Flags().StringVar(&older, "older-than", "", "only transactions that have been open for so long: 15m")
	return cmd
}

func txnDescribe(k kafka) *cobra.Command {
	return &cobra.Command{
		Use: "describe ID...", Short: "Show transactional ids, with the partitions of open transactions", Args: report.Args(1, -1, "ID..."),
		RunE: func(cmd *cobra.Command, ids []string) error {
			return k.with(cmd.Context(), func(s *session) error {
				all, err := s.describeTxns(ids)
				if err != nil {
					return err
				}
				return k.shell.Printer().Print(&txnsDoc{V: 1, Txns: all}, func(t *report.Table) {
					for i, x := range all {
						if i > 0 {
							t.Line("")
						}
						printTxn(t, x)
					}
				})
			})
		},
	}
}

func printTxn(t *report.Table, x txnDoc) {
	t.Line("%s  %s  producer %d epoch %d  timeout %s", txnNamed(x.ID), x.State, x.ProducerID, x.Epoch, grammar.FormatDuration(time.Duration(x.TimeoutMs)*time.Millisecond))
	if x.Started == "" {
		return
	}
	t.Line("open for %s, since %s, with %s", ageText(x.Seconds), x.Started, report.Count(int64(len(x.Partitions)), "partition"))
	t.Row("TOPIC", "PARTITION")
	for _, p := range x.Partitions {
		t.Row(p.Topic, p.Partition)
	}
}

// describeTxns asks the coordinators, in the order of ids.
func (s *session) describeTxns(ids []string) ([]txnDoc, error) {
	found, err := s.admin.DescribeTransactions(s.ctx, ids...)
	if err != nil {
		return nil, s.flags.Explain(err, "describe transactions", "")
	}
	docs := make([]txnDoc, 0, len(ids))
	for _, id := range ids {
		d, ok := found[id]
		if err := s.flags.Explain(d.Err, txnNamed(id), ""); err != nil {
			if isKafka(d.Err, "TRANSACTIONAL_ID_NOT_FOUND") {
				err = (&report.Error{Code: report.NotFound, What: txnNamed(id) + " does not exist", Kafka: "TRANSACTIONAL_ID_NOT_FOUND", Cause: d.Err}).WithHint("everlog txn list shows what there is")
			}
			return nil, err
		}
		if !ok {
			return nil, report.Errorf(report.Failed, "%s: the brokers told nothing of it", txnNamed(id))
		}
		docs = append(docs, describedTxn(d, s.shell.Now()))
	}
	return docs, nil
}

func describedTxn(d kadm.DescribedTransaction, now time.Time) txnDoc {
	doc := txnDoc{ID: d.TxnID, State: d.State, ProducerID: d.ProducerID, Epoch: d.ProducerEpoch, Coordinator: d.Coordinator, TimeoutMs: d.TimeoutMillis, Seconds: -1, Partitions: []txnPartDoc{}}
	if d.StartTimestamp > 0 {
		doc.Started, doc.Seconds = grammar.FormatTime(d.StartTimestamp), secondsSince(d.StartTimestamp, now)
	}
	for _, t := range d.Topics.Sorted() {
		for _, p := range t.Partitions {
			doc.Partitions = append(doc.Partitions, txnPartDoc{t.Topic, p})
		}
	}
	return doc
}

// secondsSince is a time in Unix milliseconds as seconds ago, not below 0.
func secondsSince(ms int64, now time.Time) float64 {
	return float64(max(now.UnixMilli()-ms, 0)) / 1000
}
