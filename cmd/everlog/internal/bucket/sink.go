package bucket

import (
	"bufio"
	"bytes"
	"context"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/cmd/everlog/internal/connect"
	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/render"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/tier/record"
)

// sink is where a replay's records go. write is safe for concurrent use by one caller a partition.
type sink interface {
	write(ctx context.Context, partition int32, offset record.Offset, timestamp int64, r *record.Record) error
	// settled is the first offset of the partition that may not have arrived; next is the first that was not written.
	settled(partition int32, next record.Offset) record.Offset
	// close waits until all has arrived; after a failure it waits only a little.
	close(cause error) error
}

// newSink chooses by --to-topic and --output.
func (c *cluster) newSink(ctx context.Context, k *connect.Flags, r replayFlags, parts []*part) (sink, error) {
	topic := parts[0].topic.Name
	switch {
	case r.target != "":
		if r.format != "" {
			return nil, report.Usagef("--format and --to-topic exclude each other")
		}
		return newTopicSink(ctx, k, r.target)
	case c.shell.Output == "summary":
		return discard{}, nil
	}
	shell := *c.shell
	if shell.Output == "" && r.format == "" {
		shell.Output = "jsonl"
	}
	out := bufio.NewWriterSize(c.shell.Out, 1<<16)
	w, err := render.NewWriter(out, &shell, r.format)
	if err != nil {
		return nil, err
	}
	return &textSink{topic: topic, out: out, w: w}, nil
}

// discard counts only; the tallies do that.
type discard struct{}

func (discard) write(context.Context, int32, record.Offset, int64, *record.Record) error { return nil }
func (discard) settled(_ int32, next record.Offset) record.Offset                        { return next }
func (discard) close(error) error                                                        { return nil }

// textSink writes to standard output.
type textSink struct {
	topic string
	mu    sync.Mutex
	out   *bufio.Writer
	w     render.Writer
}

func (s *textSink) write(_ context.Context, partition int32, offset record.Offset, timestamp int64, r *record.Record) error {
	headers, err := r.Headers()
	if err != nil {
		return err
	}
	shown := grammar.Record{Topic: s.topic, Partition: partition, Offset: int64(offset), Timestamp: timestamp, Key: r.Key, Value: r.Value}
	for _, h := range headers {
		shown.Headers = append(shown.Headers, grammar.Header{Key: h.Key, Value: h.Value})
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.w.Write(&shown)
}

func (s *textSink) settled(_ int32, next record.Offset) record.Offset { return next }

func (s *textSink) close(error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Flush()
}

// settleWithin is how long an interrupted replay waits for the acknowledgements that are under way.
const settleWithin = 5 * time.Second

// topicSink produces into a topic. Keys choose the partition there; times and headers are kept.
type topicSink struct {
	flags  *connect.Flags
	client *kgo.Client
	topic  string
	ctx    context.Context // of all records: it ends when they stop arriving
	watch  *connect.Patience

	mu    sync.Mutex
	err   error // the first that a record met
	parts map[int32]*acknowledged
}

// acknowledged follows which offsets of a source partition have arrived: all below the head of pending have.
type acknowledged struct {
	pending []record.Offset
	arrived map[record.Offset]bool
}

func newTopicSink(ctx context.Context, k *connect.Flags, topic string) (*topicSink, error) {
	client, err := k.Client(ctx, append(connect.DeliveryOptions(), kgo.DefaultProduceTopic(topic), kgo.ProducerBatchCompression(kgo.SnappyCompression()))...)
	if err != nil {
		return nil, err
	}
	s := &topicSink{flags: k, client: client, topic: topic, parts: map[int32]*acknowledged{}}
	s.ctx, s.watch = k.Watch(ctx)
	return s, nil
}

func (s *topicSink) write(_ context.Context, partition int32, offset record.Offset, timestamp int64, r *record.Record) error {
	headers, err := r.Headers()
	if err != nil {
		return err
	}
	if err := s.begin(partition, offset); err != nil {
		return err
	}
	out := &kgo.Record{Key: bytes.Clone(r.Key), Value: bytes.Clone(r.Value), Timestamp: time.UnixMilli(timestamp)}
	for _, h := range headers {
		out.Headers = append(out.Headers, kgo.RecordHeader{Key: h.Key, Value: bytes.Clone(h.Value)})
	}
	s.watch.Sent()
	s.client.Produce(s.ctx, out, func(_ *kgo.Record, err error) { s.end(partition, offset, err) })
	return nil
}

// begin notes that an offset is on its way; it gives the error that an earlier one met.
func (s *topicSink) begin(partition int32, offset record.Offset) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	a := s.parts[partition]
	if a == nil {
		a = &acknowledged{arrived: map[record.Offset]bool{}}
		s.parts[partition] = a
	}
	a.pending = append(a.pending, offset)
	return s.err
}

func (s *topicSink) end(partition int32, offset record.Offset, err error) {
	s.watch.Arrived()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		if s.err == nil {
			if cause := context.Cause(s.ctx); cause != nil {
				err = cause
			}
			s.err = s.flags.Explain(err, `topic "`+s.topic+`"`, "")
			s.watch.Stop(err)
		}
		return
	}
	s.parts[partition].arrive(offset)
}

// arrive takes the offset, and all that have arrived at the head, off the list.
func (a *acknowledged) arrive(offset record.Offset) {
	a.arrived[offset] = true
	n := 0
	for n < len(a.pending) && a.arrived[a.pending[n]] {
		delete(a.arrived, a.pending[n])
		n++
	}
	a.pending = a.pending[n:]
}

func (s *topicSink) settled(partition int32, next record.Offset) record.Offset {
	s.mu.Lock()
	defer s.mu.Unlock()
	if a := s.parts[partition]; a != nil && len(a.pending) > 0 {
		return a.pending[0]
	}
	return next
}

func (s *topicSink) close(cause error) error {
	defer s.client.Close()
	defer s.watch.Close()
	ctx, cancel := s.ctx, context.CancelFunc(func() {})
	if cause != nil {
		ctx, cancel = context.WithTimeout(context.WithoutCancel(s.ctx), settleWithin)
	}
	defer cancel()
	err := s.client.Flush(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.err != nil {
		return s.err
	}
	return s.flags.Explain(err, `topic "`+s.topic+`"`, "")
}
