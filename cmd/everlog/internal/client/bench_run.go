package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// stamp begins the values that bench produce writes: four letters, then the time of sending in Unix nanoseconds, big-endian.
// bench consume measures end to end by it.
var stamp = []byte("EVLB")

const stampSize = 12

type benchProduceFlags struct {
	benchFlags
	size, rate, codec, acks string
	records                 int64
}

func benchProduce(k kafka) *cobra.Command {
	var b benchProduceFlags
	cmd := &cobra.Command{
		Use: "produce TOPIC", Short: "Write random records as fast as the cluster acknowledges them, or at --rate", Args: report.Args(1, 1, "TOPIC"), ValidArgsFunction: k.completeTopic,
		Long: "Write random records as fast as the cluster acknowledges them, or at --rate. With --rate, latency counts from when a record was due,\nso that a cluster that stalls cannot hide it. The topic is made if it does not exist, and stays.",
		RunE: func(cmd *cobra.Command, args []string) error { return k.benchProduce(cmd.Context(), args[0], b) },
	}
	b.add(cmd)
	cmd.Flags().DurationVar(&b.duration, "duration", 10*time.Second, "how long")
	cmd.Flags().Int64Var(&b.records, "records", 0, "stop after so many records of all clients together")
	cmd.Flags().StringVar(&b.size, "size", "1KiB", "bytes of a value")
	cmd.Flags().StringVar(&b.rate, "rate", "", "bytes per second of all clients together, as 20MB")
	cmd.Flags().StringVarP(&b.codec, "compression", "z", "none", "none, gzip, snappy, lz4 or zstd")
	cmd.Flags().StringVar(&b.acks, "acks", "all", "all, 1 or 0")
	cmd.Flags().Int32VarP(&b.partitions, "partitions", "p", -1, "partitions of the topic if it is made; -1 leaves it to the broker")
	cmd.Flags().Int16VarP(&b.replicas, "replicas", "r", -1, "copies of each partition if it is made; -1 leaves it to the broker")
	return cmd
}

func (k kafka) benchProduce(ctx context.Context, topic string, b benchProduceFlags) error {
	size, err := grammar.ParseSize(b.size)
	if err != nil || size < stampSize || size > grammar.MaxRecordBytes {
		return report.Usagef("--size %q is not a size from %d to %d bytes", b.size, stampSize, grammar.MaxRecordBytes)
	}
	every := time.Duration(0)
	if b.rate != "" {
		rate, err := grammar.ParseSize(b.rate)
		if err != nil || rate < 1 {
			return report.Usagef("--rate %q is not a number of bytes (write 20MB)", b.rate)
		}
		every = time.Duration(float64(time.Second) * float64(size) * float64(b.clients) / float64(rate))
	}
	options, err := producerOptions(b.codec, b.acks)
	if err != nil {
		return err
	}
	if err := b.check(); err != nil {
		return err
	}
	if err := k.ensureTopic(ctx, topic, b.benchFlags); err != nil {
		return err
	}
	options = append(options, kgo.RecordDeliveryTimeout(max(k.flags.Timeout, time.Second)+b.duration), kgo.ProducerBatchMaxBytes(int32(max(1<<20, size+1024))))
	return k.run(ctx, "produce", topic, b.benchFlags, func(ctx context.Context, n int, m *meter) error {
		client, err := k.flags.Client(ctx, options...)
		if err != nil {
			return err
		}
		defer client.Close()
		share := b.records / int64(b.clients)
		if int64(n) < b.records%int64(b.clients) {
			share++
		}
		return load{client: client, topic: topic, size: int(size), every: every, duration: b.duration, records: share, limited: b.records > 0, meter: m, seed: uint64(n)}.run(ctx)
	})
}

// load is one producing client.
type load struct {
	client   *kgo.Client
	topic    string
	size     int
	every    time.Duration // between records; 0: as fast as it goes
	duration time.Duration
	records  int64
	limited  bool // records counts
	meter    *meter
	seed     uint64
}

// run writes until the time or the records are up, then waits for the acknowledgements.
func (l load) run(ctx context.Context) error {
	noise := make([]byte, 4<<20+l.size)
	rng := rand.NewChaCha8([32]byte{byte(l.seed), byte(l.seed >> 8)})
	_, _ = rng.Read(noise)
	began := time.Now()
	for n := int64(0); (!l.limited || n < l.records) && time.Since(began) < l.duration; n++ {
		due := time.Now()
		if l.every > 0 {
			due = began.Add(time.Duration(n) * l.every)
			if err := waitUntil(ctx, due); err != nil {
				return nil
			}
		}
		value := make([]byte, l.size)
		copy(value, noise[(n*4099)%(4<<20):])
		copy(value, stamp)
		binary.BigEndian.PutUint64(value[len(stamp):], uint64(due.UnixNano()))
		l.client.Produce(ctx, &kgo.Record{Topic: l.topic, Value: value}, func(r *kgo.Record, err error) {
			switch {
			case errors.Is(err, context.Canceled):
			case err != nil:
				l.meter.failed(err)
			default:
				l.meter.done(int64(len(r.Value)), time.Since(due))
			}
		})
		if ctx.Err() != nil {
			return nil
		}
	}
	if err := l.client.Flush(ctx); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func waitUntil(ctx context.Context, due time.Time) error {
	wait := time.Until(due)
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func benchConsume(k kafka) *cobra.Command {
	var b benchFlags
	cmd := &cobra.Command{
		Use: "consume TOPIC", Short: "Read new records as they come and measure how old they are", Args: report.Args(1, 1, "TOPIC"), ValidArgsFunction: k.completeTopic,
		Long: "Read new records as they come; every client reads all partitions. Latency is from the sending of a record to its arrival: exact for\nrecords of bench produce on the same machine, to the millisecond of the record's own time for others.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := b.check(); err != nil {
				return err
			}
			found, err := k.bounds(cmd.Context(), args[0], grammar.Range{From: grammar.Bound{Kind: grammar.AtEnd}})
			if err != nil {
				return err
			}
			return k.run(cmd.Context(), "consume", args[0], b, func(ctx context.Context, _ int, m *meter) error {
				limited, cancel := context.WithTimeout(ctx, b.duration)
				defer cancel()
				return k.follow(limited, args[0], found, m)
			})
		},
	}
	b.add(cmd)
	cmd.Flags().DurationVar(&b.duration, "duration", 10*time.Second, "how long")
	return cmd
}

// follow reads from the end until the time is up.
func (k kafka) follow(ctx context.Context, topic string, found spans, m *meter) error {
	return k.reading(ctx, topic, found, func(r *kgo.Record) {
		sent := r.Timestamp
		if len(r.Value) >= stampSize && bytes.HasPrefix(r.Value, stamp) {
			sent = time.Unix(0, int64(binary.BigEndian.Uint64(r.Value[len(stamp):])))
		}
		m.done(int64(len(r.Key)+len(r.Value)), time.Since(sent))
	}, func() bool { return false })
}

func benchCatchup(k kafka) *cobra.Command {
	var b benchFlags
	var offsets string
	cmd := &cobra.Command{
		Use: "catchup TOPIC", Short: "Read history as fast as it comes", Args: report.Args(1, 1, "TOPIC"), ValidArgsFunction: k.completeTopic,
		Long: "Read history as fast as it comes, from the start (or -o) to the end the log has now; every client reads all of it.\nThe latency is how long each client waited for its first record.\n\n" + grammar.OffsetsHelp,
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := grammar.ParseOffsets(offsets, k.shell.Now())
			if err != nil {
				return report.Usagef("--offset: %w", err)
			}
			if r.To.Kind == grammar.Unbounded {
				r.To = grammar.Bound{Kind: grammar.AtEnd}
			}
			if err := b.check(); err != nil {
				return err
			}
			found, err := k.bounds(cmd.Context(), args[0], r)
			if err != nil {
				return err
			}
			if found.open() == 0 {
				return report.Errorf(report.NotFound, "%s holds no records in %s", topicNamed(args[0]), offsets)
			}
			return k.run(cmd.Context(), "catchup", args[0], b, func(ctx context.Context, _ int, m *meter) error {
				return k.catchUp(ctx, args[0], found, m)
			})
		},
	}
	b.add(cmd)
	cmd.Flags().StringVarP(&offsets, "offset", "o", "start", "OFFSETS to read, see above")
	return cmd
}

// catchUp reads every span to its end.
func (k kafka) catchUp(ctx context.Context, topic string, found spans, m *meter) error {
	mine := spans{}
	for p, s := range found {
		one := *s
		mine[p] = &one
	}
	began, first := time.Now(), true
	return k.reading(ctx, topic, mine, func(r *kgo.Record) {
		if first {
			m.firstAfter(time.Since(began))
			first = false
		}
		s := mine[r.Partition]
		s.next = r.Offset + 1
		if r.Offset < s.to && !r.Attrs.IsControl() {
			m.passed(1, int64(len(r.Key)+len(r.Value)))
		}
	}, func() bool { return mine.open() == 0 })
}

// reading gives every record of the spans to each, until finished or the context ends.
func (k kafka) reading(ctx context.Context, topic string, found spans, each func(*kgo.Record), finished func() bool) error {
	start := map[int32]kgo.Offset{}
	for p, s := range found {
		if !s.done() {
			start[p] = kgo.NewOffset().At(s.from)
		}
	}
	client, err := k.flags.Client(ctx, kgo.KeepControlRecords(), kgo.FetchMaxBytes(64<<20), kgo.FetchMaxPartitionBytes(8<<20),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: start}))
	if err != nil {
		return err
	}
	defer client.Close()
	for !finished() {
		fetches := client.PollFetches(ctx)
		if ctx.Err() != nil {
			return nil
		}
		for _, e := range fetches.Errors() {
			return k.flags.Explain(e.Err, fmt.Sprintf("%s partition %d", topicNamed(topic), e.Partition), "")
		}
		fetches.EachRecord(each)
	}
	return nil
}
