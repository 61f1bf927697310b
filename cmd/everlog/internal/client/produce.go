package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/cmd/everlog/internal/connect"
	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// produceLinger is how long a batch waits for company: short, for a person may be typing.
const produceLinger = 5 * time.Millisecond

// produceFlags are what produce was asked for.
type produceFlags struct {
	key, format, codec, acks string
	headers                  []string
	partition                int32
	tombstone                bool
}

func produceCommand(shell *report.Shell) *cobra.Command {
	var p produceFlags
	cmd := &cobra.Command{
		Use: "produce TOPIC [FILE]", Short: "Write records from standard input or a file", Args: report.Args(1, 2, "TOPIC and perhaps FILE"),
		Long:    "Write records from standard input or a file, one a line unless -f says otherwise.\nA record counts as written when the broker has acknowledged it.\n\n" + grammar.FormatHelp,
		Example: "  echo hello | everlog produce demo\n  everlog produce orders orders.tsv -f '%k\\t%v\\n' -z zstd -H source=import",
	}
	k := kafka{shell, connect.Add(cmd, shell)}
	cmd.ValidArgsFunction = k.completeTopic
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		in := shell.In
		if len(args) == 2 && args[1] != "-" {
			file, err := os.Open(args[1])
			if err != nil {
				return report.Errorf(report.NotFound, "%w", err)
			}
			defer file.Close()
			in = file
		}
		return k.produce(cmd.Context(), args[0], in, p)
	}
	cmd.Flags().StringVarP(&p.key, "record-key", "k", "", "key of every record")
	cmd.Flags().StringVarP(&p.format, "format", "f", `%v\n`, "what the input looks like")
	cmd.Flags().StringArrayVarP(&p.headers, "header", "H", nil, "header NAME=VALUE of every record")
	cmd.Flags().StringVarP(&p.codec, "compression", "z", "snappy", "none, gzip, snappy, lz4 or zstd")
	cmd.Flags().Int32VarP(&p.partition, "partition", "p", -1, "write to this partition; -1 chooses by key")
	cmd.Flags().StringVar(&p.acks, "acks", "all", "who must have a record: all in-sync replicas, 1 (the leader), 0 (nobody)")
	cmd.Flags().BoolVarP(&p.tombstone, "tombstone", "Z", false, "write an empty value as null, which deletes the key from a compacted topic")
	return cmd
}

// codecs are the values of -z.
var codecs = map[string]kgo.CompressionCodec{
	"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
}

// producerOptions turns -z and --acks into options.
func producerOptions(codec, acks string) ([]kgo.Opt, error) {
	c, ok := codecs[codec]
	if !ok {
		return nil, report.Usagef("--compression %q does not exist", codec).WithHint("one of none, gzip, snappy, lz4, zstd")
	}
	options := []kgo.Opt{kgo.ProducerBatchCompression(c)}
	switch acks {
	case "all", "-1":
		return append(options, kgo.RequiredAcks(kgo.AllISRAcks())), nil
	case "1":
		return append(options, kgo.RequiredAcks(kgo.LeaderAck()), kgo.DisableIdempotentWrite()), nil
	case "0":
		return append(options, kgo.RequiredAcks(kgo.NoAck()), kgo.DisableIdempotentWrite()), nil
	}
	return nil, report.Usagef("--acks %q does not exist", acks).WithHint("one of all, 1, 0")
}

func (k kafka) produce(ctx context.Context, topic string, in io.Reader, p produceFlags) error {
	format, err := grammar.ParseFormat(p.format)
	if err != nil {
		return report.Usagef("--format: %w", err)
	}
	scanner, err := grammar.NewScanner(in, format)
	if err != nil {
		return report.Usagef("--%w", err)
	}
	headers := make([]kgo.RecordHeader, 0, len(p.headers))
	for _, h := range p.headers {
		parsed, err := grammar.ParseHeader(h)
		if err != nil {
			return report.Usagef("--%w", err)
		}
		headers = append(headers, kgo.RecordHeader{Key: parsed.Key, Value: parsed.Value})
	}
	options, err := producerOptions(p.codec, p.acks)
	if err != nil {
		return err
	}
	options = append(append(options, connect.DeliveryOptions()...), kgo.ProducerLinger(produceLinger))
	if p.partition >= 0 || scanner.Has('p') {
		options = append(options, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	}
	client, err := k.flags.Client(ctx, options...)
	if err != nil {
		return err
	}
	defer client.Close()
	made := func(r grammar.Record) *kgo.Record { return p.record(topic, r, headers, scanner) }
	return k.pump(ctx, client, topic, scanner, made)
}

// record makes what is sent of what was read.
func (p *produceFlags) record(topic string, r grammar.Record, headers []kgo.RecordHeader, scanner *grammar.Scanner) *kgo.Record {
	out := &kgo.Record{Topic: topic, Key: r.Key, Value: r.Value, Partition: r.Partition, Headers: slices.Clip(headers)}
	if r.Topic != "" {
		out.Topic = r.Topic
	}
	if p.key != "" && !scanner.Has('k') {
		out.Key = []byte(p.key)
	}
	if p.partition >= 0 {
		out.Partition = p.partition
	}
	if p.tombstone && len(out.Value) == 0 {
		out.Value = nil
	}
	if r.Timestamp > 0 {
		out.Timestamp = time.UnixMilli(r.Timestamp)
	}
	for _, h := range r.Headers {
		out.Headers = append(out.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return out
}

// writtenDoc is what a produce did.
type writtenDoc struct {
	V          int           `json:"v"`
	Records    int64         `json:"records"`
	Bytes      int64         `json:"bytes"`
	Seconds    float64       `json:"seconds"`
	Partitions []writtenPart `json:"partitions"`
}

type writtenPart struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Records   int64  `json:"records"`
	First     int64  `json:"first_offset"`
	Last      int64  `json:"last_offset"`
}

// ledger collects acknowledgements. Its add is the callback of every record.
type ledger struct {
	mu    sync.Mutex
	doc   writtenDoc
	parts map[string]map[int32]*writtenPart
	err   error // the first one; later ones follow from it
	watch *connect.Patience
}

func (l *ledger) add(r *kgo.Record, err error) {
	l.watch.Arrived()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		if l.err == nil {
			l.err = err
			l.watch.Stop(err)
		}
		return
	}
	if l.parts[r.Topic] == nil {
		l.parts[r.Topic] = map[int32]*writtenPart{}
	}
	part := l.parts[r.Topic][r.Partition]
	if part == nil {
		part = &writtenPart{Topic: r.Topic, Partition: r.Partition, First: r.Offset}
		l.parts[r.Topic][r.Partition] = part
	}
	part.Records++
	part.First, part.Last = min(part.First, r.Offset), max(part.Last, r.Offset)
	l.doc.Records++
	l.doc.Bytes += int64(len(r.Key) + len(r.Value))
}

// pump sends what the scanner reads until its end, the first error, or an interrupt, and says what was acknowledged.
func (k kafka) pump(ctx context.Context, client *kgo.Client, topic string, scanner *grammar.Scanner, made func(grammar.Record) *kgo.Record) error {
	sending, watch := k.flags.Watch(ctx)
	defer watch.Close()
	l := &ledger{parts: map[string]map[int32]*writtenPart{}, watch: watch}
	began := time.Now()
	records := make(chan *kgo.Record, 1024)
	read := make(chan error, 1)
	go func() { read <- scan(sending, scanner, made, records) }()
	for r := range until(sending, records) {
		watch.Sent()
		client.Produce(sending, r, l.add)
	}
	var readErr error
	if sending.Err() == nil {
		readErr = <-read // a reader blocked in the input is left behind only when the process ends anyway
	}
	flushErr := client.Flush(sending)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.doc.Seconds = time.Since(began).Seconds()
	if err := l.report(k.shell); err != nil {
		return err
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case context.Cause(sending) != nil:
		return k.flags.Explain(context.Cause(sending), topicNamed(topic), "")
	case readErr != nil:
		return report.Errorf(report.Failed, "input: %w", readErr)
	}
	return k.flags.Explain(flushErr, topicNamed(topic), "")
}

// until yields records until the channel is closed or the context ends.
func until(ctx context.Context, records <-chan *kgo.Record) func(yield func(*kgo.Record) bool) {
	return func(yield func(*kgo.Record) bool) {
		for {
			select {
			case r, ok := <-records:
				if !ok || !yield(r) {
					return
				}
			case <-ctx.Done():
				return
			}
		}
	}
}

// scan reads records into the channel and closes it.
func scan(ctx context.Context, scanner *grammar.Scanner, made func(grammar.Record) *kgo.Record, records chan<- *kgo.Record) error {
	defer close(records)
	for {
		r, err := scanner.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case records <- made(r):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// report says what was written: to programs on standard output, to people on standard error.
func (l *ledger) report(shell *report.Shell) error {
	l.doc.V, l.doc.Partitions = 1, []writtenPart{}
	for _, partitions := range l.parts {
		for _, part := range partitions {
			l.doc.Partitions = append(l.doc.Partitions, *part)
		}
	}
	slices.SortFunc(l.doc.Partitions, func(a, b writtenPart) int {
		return cmp.Or(strings.Compare(a.Topic, b.Topic), cmp.Compare(a.Partition, b.Partition))
	})
	if shell.Printer().Structured() {
		return shell.Printer().Print(&l.doc, nil)
	}
	where := ""
	if len(l.doc.Partitions) == 1 {
		p := l.doc.Partitions[0]
		where = fmt.Sprintf(" to %s partition %d, offsets %d to %d", p.Topic, p.Partition, p.First, p.Last)
	} else if n := len(l.doc.Partitions); n > 1 {
		where = fmt.Sprintf(" to %d partitions", n)
	}
	shell.Notef("%s (%s) written%s in %.2f s", report.Count(l.doc.Records, "record"), grammar.FormatSize(l.doc.Bytes), where, l.doc.Seconds)
	return nil
}
