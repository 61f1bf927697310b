package clients

import (
	"context"
	"fmt"
	"iter"
	"sync/atomic"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/e2e/corpus"
)

func readFranz(ctx context.Context, r Range, fn func(corpus.Record)) error {
	if r.From >= r.To {
		return nil
	}
	client, err := kgo.NewClient(
		kgo.SeedBrokers(r.Addr),
		kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{r.Topic: {r.Partition: kgo.NewOffset().At(r.From)}}),
		kgo.ConsumeResetOffset(kgo.NoResetOffset()), // an offset that is gone is a failure, not a reason to go on elsewhere
	)
	if err != nil {
		return err
	}
	defer client.Close()
	for {
		fetches := client.PollFetches(ctx)
		if errs := fetches.Errors(); len(errs) > 0 {
			return errs[0].Err
		}
		for records := fetches.RecordIter(); !records.Done(); {
			record := records.Next()
			if record.Offset >= r.To {
				return nil
			}
			fn(FromFranz(record))
			if record.Offset == r.To-1 {
				return nil
			}
		}
	}
}

// FromFranz converts a record of franz-go.
func FromFranz(record *kgo.Record) corpus.Record {
	out := corpus.Record{Offset: record.Offset, Timestamp: record.Timestamp.UnixMilli(), Key: record.Key, Value: record.Value}
	for _, h := range record.Headers {
		out.Headers = append(out.Headers, corpus.Header{Key: h.Key, Value: h.Value})
	}
	return out
}

// ToFranz converts a record for franz-go; a zero timestamp means now.
func ToFranz(topic string, partition int32, r corpus.Record) *kgo.Record {
	out := &kgo.Record{Topic: topic, Partition: partition, Key: r.Key, Value: r.Value}
	if r.Timestamp != 0 {
		out.Timestamp = unixMilli(r.Timestamp)
	}
	for _, h := range r.Headers {
		out.Headers = append(out.Headers, kgo.RecordHeader{Key: h.Key, Value: h.Value})
	}
	return out
}

// FranzOptions are those of an idempotent producer that never gives up (franz-go's default) and that chooses partitions by hand.
func FranzOptions(addr, codec string) ([]kgo.Opt, error) {
	codecs := map[string]kgo.CompressionCodec{
		"none": kgo.NoCompression(), "gzip": kgo.GzipCompression(), "snappy": kgo.SnappyCompression(), "lz4": kgo.Lz4Compression(), "zstd": kgo.ZstdCompression(),
	}
	chosen, ok := codecs[codec]
	if !ok {
		return nil, fmt.Errorf("codec %q is not one of %v", codec, Codecs)
	}
	return []kgo.Opt{
		kgo.SeedBrokers(addr), kgo.RecordPartitioner(kgo.ManualPartitioner()), kgo.ProducerBatchCompression(chosen),
	}, nil
}

// WriteFranz sends the records of one partition through franz-go.
func WriteFranz(ctx context.Context, to Destination, records iter.Seq[corpus.Record]) error {
	options, err := FranzOptions(to.Addr, to.Codec)
	if err != nil {
		return err
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return err
	}
	defer client.Close()
	var first atomic.Pointer[error]
	for r := range records {
		if first.Load() != nil {
			break
		}
		client.Produce(ctx, ToFranz(to.Topic, to.Partition, r), func(_ *kgo.Record, err error) {
			if err != nil {
				first.CompareAndSwap(nil, &err)
			}
		})
	}
	if err := client.Flush(ctx); err != nil {
		return err
	}
	if failed := first.Load(); failed != nil {
		return fmt.Errorf("franz-go to %s-%d: %w", to.Topic, to.Partition, *failed)
	}
	return nil
}
