package bucket

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/everlog/everlog/cmd/everlog/internal/connect"
	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/tier/fetch"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// replayFlags are what replay was asked for.
type replayFlags struct {
	from, to, format, target string
	partitions               []int32
	positions                []string
	dryRun, aborted          bool
	parallel                 int
}

func replayCommand(b bucket) *cobra.Command {
	var r replayFlags
	cmd := &cobra.Command{
		Use: "replay BUCKET-URL TOPIC", Short: "Read a topic's history from the bucket alone, without a broker", Args: report.Args(2, 2, "BUCKET-URL and TOPIC"),
		Long: "Read a topic's history from the bucket alone, without a broker: to standard output, or into another topic with --to-topic.\n" +
			"What the brokers have not shipped yet is not in the bucket. Records of aborted transactions are left out.\n\n" +
			"--from and --to take start, end, an offset, or a time (2026-01-02, 2026-01-02T15:04:05Z, -48h); --to is not included.\n" +
			"--output is jsonl (default), text with -f, raw (values only), or summary (counts only).\n\n" + grammar.FormatHelp,
		Example: "  everlog replay s3://logs/prod orders --from 2026-01-01 --to 2026-02-01 --dry-run\n" +
			"  everlog replay file:///var/lib/everlog/store orders -f '%k\\t%v\\n' > orders.tsv\n" +
			"  everlog replay s3://logs/prod orders --from -24h --to-topic orders-again -b broker:9092",
	}
	k := connect.Add(cmd, b.shell)
	cmd.RunE = func(cmd *cobra.Command, args []string) error { return b.replay(cmd.Context(), k, args[0], args[1], r) }
	cmd.Flags().StringVar(&r.from, "from", "start", "first record: offset or time")
	cmd.Flags().StringVar(&r.to, "to", "end", "record to stop before: offset or time")
	cmd.Flags().Int32SliceVar(&r.partitions, "partition", nil, "only these partitions")
	cmd.Flags().StringSliceVar(&r.positions, "position", nil, "where single partitions begin, PARTITION=OFFSET; an interrupted replay prints it")
	cmd.Flags().StringVarP(&r.format, "format", "f", "", "FORMAT of a record, see above")
	cmd.Flags().StringVar(&r.target, "to-topic", "", "write into this topic of the cluster that -b names")
	cmd.Flags().BoolVar(&r.dryRun, "dry-run", false, "say what would be read: bytes, objects, requests")
	cmd.Flags().BoolVar(&r.aborted, "with-aborted", false, "also records of aborted transactions")
	cmd.Flags().IntVar(&r.parallel, "parallel", 4, "partitions read at the same time")
	return cmd
}

// part is the work on one partition: [from, to), of which everything below done has been written.
type part struct {
	*partition
	from, to record.Offset
	plan     planPart
	tally    tally
}

// tally is what was read of a partition.
type tally struct {
	Records int64 `json:"records"`
	Bytes   int64 `json:"bytes"`
	First   int64 `json:"first_timestamp"`
	Last    int64 `json:"last_timestamp"`
	next    record.Offset
}

func (b bucket) replay(ctx context.Context, k *connect.Flags, url, topic string, r replayFlags) error {
	from, err := grammar.ParseBound(r.from, b.shell.Now())
	if err != nil {
		return report.Usagef("--from: %w", err)
	}
	to, err := grammar.ParseBound(r.to, b.shell.Now())
	if err != nil {
		return report.Usagef("--to: %w", err)
	}
	positions, err := parsePositions(r.positions)
	if err != nil {
		return err
	}
	if r.parallel < 1 {
		return report.Usagef("--parallel %d is less than 1", r.parallel)
	}
	c, err := b.openCluster(ctx, url)
	if err != nil {
		return err
	}
	defer c.store.Close()
	t, err := c.topic(topic)
	if err != nil {
		return err
	}
	loaded, err := c.partitions(ctx, t, r.partitions)
	if err != nil {
		return err
	}
	var parts []*part
	for _, p := range loaded {
		work, err := c.bound(ctx, p, from, to, positions)
		if err != nil {
			return explain(err, p.String())
		}
		parts = append(parts, work)
	}
	if r.dryRun {
		return c.printPlan(t, parts)
	}
	return c.run(ctx, k, url, t, parts, r)
}

// parsePositions reads PARTITION=OFFSET.
func parsePositions(list []string) (map[int32]record.Offset, error) {
	positions := map[int32]record.Offset{}
	for _, text := range list {
		left, right, ok := strings.Cut(text, "=")
		p, err1 := strconv.ParseInt(left, 10, 32)
		o, err2 := strconv.ParseInt(right, 10, 64)
		if !ok || err1 != nil || err2 != nil || p < 0 || o < 0 {
			return nil, report.Usagef("--position %q is not PARTITION=OFFSET", text)
		}
		positions[int32(p)] = record.Offset(o)
	}
	return positions, nil
}

// bound resolves the bounds against what the bucket holds of a partition, and plans the reads.
func (c *cluster) bound(ctx context.Context, p *partition, from, to grammar.Bound, positions map[int32]record.Offset) (*part, error) {
	m := p.manifest
	first, last, err := grammar.Range{From: from, To: to}.Resolve(grammar.Log{
		Start: int64(m.LogStart()), End: int64(m.End()),
		AtTime: func(ms int64) (int64, error) { o, err := p.firstAt(ctx, c.store, ms); return int64(o), err },
	})
	if err != nil {
		return nil, err
	}
	work := &part{partition: p, from: record.Offset(first), to: min(record.Offset(last), m.End())}
	if o, ok := positions[p.number]; ok {
		work.from = min(max(o, work.from), work.to)
	}
	work.tally.next = work.from
	work.tally.First, work.tally.Last = -1, -1
	return work, c.plan(ctx, work)
}

// run reads all parts into a sink, and on an interrupt says how to go on.
func (c *cluster) run(ctx context.Context, k *connect.Flags, url string, t Topic, parts []*part, r replayFlags) error {
	out, err := c.newSink(ctx, k, r, parts)
	if err != nil {
		return err
	}
	progress := report.NewProgress(c.shell.Err, c.shell.Progress)
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(r.parallel)
	for _, work := range parts {
		if work.from >= work.to {
			continue
		}
		task := progress.Start(work.String(), work.plan.Bytes)
		group.Go(func() error {
			defer task.Finish()
			// The sink is given the command's context: the group's ends when the last partition has been read, which is
			// before the last record has arrived.
			scan := fetch.ScanOptions{From: work.from, To: work.to, Read: task.Add}
			_, err := fetch.Scan(limited, c.store, work.manifest, scan, func(b record.Batch, f *segment.Footer) error { return work.take(ctx, b, f, out, r.aborted) })
			if err != nil {
				return explain(err, work.String())
			}
			work.tally.next = work.to
			return nil
		})
	}
	err = group.Wait()
	progress.Close()
	if closeErr := out.close(err); err == nil {
		err = closeErr
	}
	if err != nil {
		c.resume(k, url, t, parts, out, r)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		return err
	}
	return c.summary(t, parts, r)
}

// take writes the records of one batch that lie in the part.
func (w *part) take(ctx context.Context, b record.Batch, f *segment.Footer, out sink, withAborted bool) error {
	if b.IsControl() || !withAborted && aborted(b, f) {
		w.tally.next = min(b.NextOffset(), w.to)
		return ctx.Err()
	}
	err := b.Each(func(r *record.Record) error {
		offset := b.BaseOffset() + record.Offset(r.OffsetDelta)
		if offset < w.from || offset >= w.to {
			return nil
		}
		at := timestamp(b, r)
		if err := out.write(ctx, w.number, offset, at, r); err != nil {
			return err
		}
		w.tally.next = offset + 1
		w.tally.count(r, at)
		return nil
	})
	if err == nil {
		w.tally.next = max(w.tally.next, min(b.NextOffset(), w.to))
		err = ctx.Err()
	}
	return err
}

func (t *tally) count(r *record.Record, at int64) {
	t.Records++
	t.Bytes += int64(len(r.Key) + len(r.Value))
	if t.First < 0 || at < t.First {
		t.First = at
	}
	t.Last = max(t.Last, at)
}

// resume prints the command that goes on where this one stopped.
func (c *cluster) resume(k *connect.Flags, url string, t Topic, parts []*part, out sink, r replayFlags) {
	var positions []string
	var open []int32
	for _, w := range parts {
		if next := out.settled(w.number, w.tally.next); next < w.to {
			positions = append(positions, fmt.Sprintf("%d=%d", w.number, next))
			open = append(open, w.number)
		}
	}
	if len(open) == 0 {
		return
	}
	slices.Sort(open)
	command := []string{"everlog replay", quote(hideSecrets(url)), quote(t.Name), "--partition", joined(open), "--position", strings.Join(positions, ",")}
	if r.to != "end" {
		command = append(command, "--to", quote(r.to))
	}
	for _, flag := range []struct {
		name, value string
		given       bool
	}{
		{"--to-topic", r.target, r.target != ""}, {"-b", strings.Join(k.Seeds(), ","), r.target != ""},
		{"-f", r.format, r.format != ""}, {"--output", c.shell.Output, c.shell.Output != ""},
	} {
		if flag.given {
			command = append(command, flag.name, quote(flag.value))
		}
	}
	if r.aborted {
		command = append(command, "--with-aborted")
	}
	c.shell.Notef("stopped; go on with: %s", strings.Join(command, " "))
}

func joined(numbers []int32) string {
	text := make([]string, len(numbers))
	for i, n := range numbers {
		text[i] = strconv.Itoa(int(n))
	}
	return strings.Join(text, ",")
}

// quote makes an argument safe to paste into a shell.
func quote(s string) string {
	if s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./:@=,+") == "" {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
