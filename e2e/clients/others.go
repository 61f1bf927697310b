package clients

import (
	"context"
	"errors"
	"time"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"

	"github.com/everlog/everlog/e2e/corpus"
)

func unixMilli(ms int64) time.Time { return time.UnixMilli(ms) }

func readSarama(ctx context.Context, r Range, fn func(corpus.Record)) error {
	if r.From >= r.To {
		return nil
	}
	config := sarama.NewConfig() // as it is shipped, default version included
	config.Consumer.Return.Errors = true
	consumer, err := sarama.NewConsumer([]string{r.Addr}, config)
	if err != nil {
		return err
	}
	defer consumer.Close()
	partition, err := consumer.ConsumePartition(r.Topic, r.Partition, r.From)
	if err != nil {
		return err
	}
	defer partition.AsyncClose()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-partition.Errors():
			return err
		case message := <-partition.Messages():
			if message == nil {
				return errors.New("sarama closed the partition")
			}
			if message.Offset >= r.To {
				return nil
			}
			out := corpus.Record{Offset: message.Offset, Timestamp: message.Timestamp.UnixMilli(), Key: message.Key, Value: message.Value}
			for _, h := range message.Headers {
				out.Headers = append(out.Headers, corpus.Header{Key: string(h.Key), Value: h.Value})
			}
			fn(out)
			if message.Offset == r.To-1 {
				return nil
			}
		}
	}
}

func readKafkaGo(ctx context.Context, r Range, fn func(corpus.Record)) error {
	if r.From >= r.To {
		return nil
	}
	// Close waits for the fetch that waits at the end of the log: ten seconds by default.
	const maxWait = 200 * time.Millisecond
	reader := kafka.NewReader(kafka.ReaderConfig{Brokers: []string{r.Addr}, Topic: r.Topic, Partition: int(r.Partition), MaxBytes: 4 << 20, MaxWait: maxWait})
	defer reader.Close()
	if err := reader.SetOffset(r.From); err != nil {
		return err
	}
	for {
		message, err := reader.ReadMessage(ctx)
		if err != nil {
			return err
		}
		if message.Offset >= r.To {
			return nil
		}
		out := corpus.Record{Offset: message.Offset, Timestamp: message.Time.UnixMilli(), Key: message.Key, Value: message.Value}
		for _, h := range message.Headers {
			out.Headers = append(out.Headers, corpus.Header{Key: h.Key, Value: h.Value})
		}
		fn(out)
		if message.Offset == r.To-1 {
			return nil
		}
	}
}
