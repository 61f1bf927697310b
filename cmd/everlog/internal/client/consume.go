package client

import (
	"bufio"
	"context"
	"errors"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/cmd/everlog/internal/connect"
	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/render"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// consumeFlags are what consume was asked for.
type consumeFlags struct {
	offsets, format, group, rack string
	partitions                   []int32
	count                        int64
	exit, committed              bool
}

func consumeCommand(shell *report.Shell) *cobra.Command {
	var c consumeFlags
	cmd := &cobra.Command{
		Use: "consume TOPIC", Short: "Read records to standard output", Args: report.Args(1, 1, "TOPIC"),
		Long:    "Read records to standard output, one value a line unless -f or --output says otherwise.\n\n" + grammar.OffsetsHelp + "\n" + grammar.FormatHelp,
		Example: "  everlog consume demo -o start -e\n  everlog consume orders -o @-48h:-24h --output jsonl\n  everlog consume orders -o -10 -f '%p %o %d %k %v\\n'",
	}
	k := kafka{shell, connect.Add(cmd, shell)}
	cmd.ValidArgsFunction = k.completeTopic
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		return k.consume(cmd.Context(), args[0], c)
	}
	cmd.Flags().StringVarP(&c.offsets, "offset", "o", "start", "OFFSETS to read, see above; with -g only where a group without offsets begins")
	cmd.Flags().Int32SliceVarP(&c.partitions, "partition", "p", nil, "only these partitions")
	cmd.Flags().Int64VarP(&c.count, "num", "n", 0, "stop after so many records")
	cmd.Flags().StringVarP(&c.format, "format", "f", "", `FORMAT of a record, see above (default '%v\n')`)
	cmd.Flags().BoolVarP(&c.exit, "exit", "e", false, "stop at the end the log has when the command begins")
	cmd.Flags().StringVarP(&c.group, "group", "g", "", "read as a member of this consumer group and commit offsets")
	cmd.Flags().BoolVar(&c.committed, "read-committed", false, "leave out records of transactions that are open or aborted")
	cmd.Flags().StringVar(&c.rack, "rack", "", "read from replicas in this rack (availability zone) where there are some")
	return cmd
}

// consumer is one consume at work.
type consumer struct {
	kafka
	client *kgo.Client
	topic  string
	ask    consumeFlags
	spans  spans // nil with a group
	out    *bufio.Writer
	write  render.Writer
	wrote  int64
}

func (k kafka) consume(ctx context.Context, topic string, c consumeFlags) error {
	offsets, err := grammar.ParseOffsets(c.offsets, k.shell.Now())
	if err != nil {
		return report.Usagef("--offset: %w", err)
	}
	if c.exit && offsets.To.Kind == grammar.Unbounded {
		offsets.To = grammar.Bound{Kind: grammar.AtEnd}
	}
	if c.group != "" && (len(c.partitions) > 0 || offsets.To.Kind != grammar.Unbounded && !c.exit) {
		return report.Usagef("--group takes its partitions and its end from the group").WithHint("leave out -p and the end of -o, or leave out -g")
	}
	out := bufio.NewWriterSize(k.shell.Out, 1<<16)
	write, err := render.NewWriter(out, k.shell, c.format)
	if err != nil {
		return err
	}
	w := &consumer{kafka: k, topic: topic, ask: c, out: out, write: write}
	if c.group != "" {
		return w.runGroup(ctx, offsets)
	}
	return w.runPartitions(ctx, offsets)
}

// options are those of both ways to consume.
func (c *consumer) options() []kgo.Opt {
	options := []kgo.Opt{kgo.KeepControlRecords()}
	if c.ask.committed {
		options = append(options, kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	}
	if c.ask.rack != "" {
		options = append(options, kgo.Rack(c.ask.rack))
	}
	return options
}

// runPartitions reads spans of partitions, each to its end.
func (c *consumer) runPartitions(ctx context.Context, offsets grammar.Range) error {
	client, err := c.flags.Client(ctx, c.options()...)
	if err != nil {
		return err
	}
	defer client.Close()
	c.client = client
	c.spans, err = resolve(ctx, c.flags, kadm.NewClient(client), question{topic: c.topic, partitions: c.ask.partitions, offsets: offsets, committed: c.ask.committed})
	if err != nil {
		return err
	}
	start := map[int32]kgo.Offset{}
	for p, s := range c.spans {
		if !s.done() {
			start[p] = kgo.NewOffset().At(s.from)
		}
	}
	client.AddConsumePartitions(map[string]map[int32]kgo.Offset{c.topic: start})
	for c.spans.open() > 0 && !c.enough() {
		fetches, err := c.poll(ctx)
		if err != nil {
			return errors.Join(c.out.Flush(), err)
		}
		if fetches.NumRecords() == 0 {
			err = c.skipEmpty(ctx)
		} else {
			err = c.take(fetches)
		}
		if err != nil {
			return err
		}
	}
	return c.out.Flush()
}

func (c *consumer) enough() bool { return c.ask.count > 0 && c.wrote >= c.ask.count }

// poll waits for records. Without any for a while it returns none, so that the caller can look whether there are any left.
func (c *consumer) poll(ctx context.Context) (kgo.Fetches, error) {
	limit := 10_000
	if c.ask.count > 0 {
		limit = int(min(int64(limit), c.ask.count-c.wrote))
	}
	waiting, cancel := context.WithTimeout(ctx, idleAfter)
	defer cancel()
	fetches := c.client.PollRecords(waiting, limit)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for _, e := range fetches.Errors() {
		if errors.Is(e.Err, context.DeadlineExceeded) && e.Topic == "" {
			continue
		}
		return nil, c.flags.Explain(e.Err, topicNamed(c.topic), "")
	}
	return fetches, nil
}

// take writes the records that lie in the spans and moves the spans on.
func (c *consumer) take(fetches kgo.Fetches) error {
	var finished []int32
	var failure error
	fetches.EachPartition(func(t kgo.FetchTopicPartition) {
		s := c.spans[t.Partition]
		for _, r := range t.Records {
			if failure != nil || s == nil || s.done() || c.enough() {
				return
			}
			if r.Offset < s.to && r.Offset >= s.from && !r.Attrs.IsControl() {
				failure = c.emit(r)
			}
			s.next = r.Offset + 1
			if s.done() {
				finished = append(finished, t.Partition)
			}
		}
	})
	if len(finished) > 0 {
		c.client.RemoveConsumePartitions(map[string][]int32{c.topic: finished})
	}
	return errors.Join(failure, c.out.Flush())
}

func (c *consumer) emit(r *kgo.Record) error {
	c.wrote++
	headers := make([]grammar.Header, len(r.Headers))
	for i, h := range r.Headers {
		headers[i] = grammar.Header{Key: h.Key, Value: h.Value}
	}
	return c.write.Write(&grammar.Record{Topic: r.Topic, Partition: r.Partition, Offset: r.Offset, Timestamp: r.Timestamp.UnixMilli(), Key: r.Key, Value: r.Value, Headers: headers})
}

// runGroup reads as a member of a consumer group and commits what it has written out.
func (c *consumer) runGroup(ctx context.Context, offsets grammar.Range) error {
	g := &membership{topic: c.topic}
	reset, err := groupStart(offsets.From)
	if err != nil {
		return err
	}
	options := append(c.options(), kgo.ConsumerGroup(c.ask.group), kgo.ConsumeTopics(c.topic), kgo.ConsumeResetOffset(reset), kgo.AutoCommitMarks(),
		kgo.OnPartitionsAssigned(g.assigned), kgo.OnPartitionsRevoked(g.revoked), kgo.OnPartitionsLost(g.revoked))
	client, err := c.flags.Client(ctx, options...)
	if err != nil {
		return err
	}
	defer client.Close()
	c.client = client
	if c.ask.exit {
		if err := c.groupEnds(ctx, g, offsets); err != nil {
			return err
		}
	}
	for !c.enough() && !g.finished() {
		fetches, err := c.poll(ctx)
		if err != nil {
			return errors.Join(err, c.leave(client))
		}
		records := fetches.Records()
		for _, r := range records {
			if !r.Attrs.IsControl() {
				if err := c.emit(r); err != nil {
					return err
				}
			}
			g.read(r)
		}
		if err := c.out.Flush(); err != nil {
			return err
		}
		client.MarkCommitRecords(records...)
	}
	return c.leave(client)
}

// leave commits what was written; the group learns of the departure when the client closes.
func (c *consumer) leave(client *kgo.Client) error {
	limited, cancel := context.WithTimeout(context.Background(), c.flags.Timeout)
	defer cancel()
	return c.flags.Explain(client.CommitMarkedOffsets(limited), `group "`+c.ask.group+`"`, "")
}

// groupEnds notes where the log ends, and where the group stands, for --exit.
func (c *consumer) groupEnds(ctx context.Context, g *membership, offsets grammar.Range) error {
	admin := kadm.NewClient(c.client)
	found, err := resolve(ctx, c.flags, admin, question{topic: c.topic, offsets: offsets, committed: c.ask.committed})
	if err != nil {
		return err
	}
	committed, err := c.committed(ctx, admin)
	if err != nil {
		return c.flags.Explain(err, `group "`+c.ask.group+`"`, "")
	}
	for p, s := range found {
		if o, ok := committed.Lookup(c.topic, p); ok && o.Err == nil && o.At >= 0 {
			s.next = o.At
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.spans = found
	return nil
}

// committed asks where the group stands. The first group of a cluster makes its coordinator come to life: that may take a
// while, and is waited for.
func (c *consumer) committed(ctx context.Context, admin *kadm.Client) (kadm.OffsetResponses, error) {
	limited, cancel := context.WithTimeout(ctx, c.flags.Timeout)
	defer cancel()
	again := time.NewTicker(200 * time.Millisecond)
	defer again.Stop()
	for {
		offsets, err := admin.FetchOffsetsForTopics(limited, c.ask.group, c.topic)
		switch {
		case err == nil || isKafka(err, "GROUP_ID_NOT_FOUND"):
			return offsets, nil
		case !kerr.IsRetriable(err):
			return nil, err
		}
		select {
		case <-again.C:
		case <-limited.Done():
			return nil, err
		}
	}
}

func groupStart(b grammar.Bound) (kgo.Offset, error) {
	switch b.Kind {
	case grammar.AtStart:
		return kgo.NewOffset().AtStart(), nil
	case grammar.AtEnd:
		return kgo.NewOffset().AtEnd(), nil
	case grammar.AtOffset:
		return kgo.NewOffset().At(b.Value), nil
	case grammar.AfterStart:
		return kgo.NewOffset().AtStart().Relative(b.Value), nil
	case grammar.BeforeEnd:
		return kgo.NewOffset().AtEnd().Relative(-b.Value), nil
	case grammar.AtTime:
		return kgo.NewOffset().AfterMilli(b.Value), nil
	}
	return kgo.Offset{}, report.Usagef("--offset %s cannot start a group", b)
}
