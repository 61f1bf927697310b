package clients

import (
	"context"
	"errors"
	"fmt"
	"iter"

	"github.com/IBM/sarama"
	"github.com/segmentio/kafka-go"

	"github.com/everlog/everlog/e2e/corpus"
)

// OtherWriters produce too, if not the whole data set: sarama with its idempotent producer, and kafka-go, which has none.
var OtherWriters = []Writer{{"sarama", corpus.Rich, writeSarama}, {"kafka-go", corpus.Rich, writeKafkaGo}}

func writeSarama(_ context.Context, to Destination, records iter.Seq[corpus.Record]) error {
	codecs := map[string]sarama.CompressionCodec{
		"none": sarama.CompressionNone, "gzip": sarama.CompressionGZIP, "snappy": sarama.CompressionSnappy, "lz4": sarama.CompressionLZ4, "zstd": sarama.CompressionZSTD,
	}
	config := sarama.NewConfig()
	config.Producer.Compression = codecs[to.Codec]
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.Return.Successes = true
	producer, err := sarama.NewAsyncProducer([]string{to.Addr}, config)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		var first error
		for successes, failures := producer.Successes(), producer.Errors(); successes != nil || failures != nil; {
			select {
			case _, ok := <-successes:
				if !ok {
					successes = nil
				}
			case failure, ok := <-failures:
				if !ok {
					failures = nil
				} else if first == nil {
					first = failure.Err
				}
			}
		}
		failed <- first
	}()
	for r := range records {
		message := &sarama.ProducerMessage{Topic: to.Topic, Partition: to.Partition, Timestamp: unixMilli(r.Timestamp)}
		if r.Key != nil {
			message.Key = sarama.ByteEncoder(r.Key)
		}
		if r.Value != nil {
			message.Value = sarama.ByteEncoder(r.Value)
		}
		for _, h := range r.Headers {
			message.Headers = append(message.Headers, sarama.RecordHeader{Key: []byte(h.Key), Value: h.Value})
		}
		producer.Input() <- message
	}
	producer.AsyncClose()
	if err := <-failed; err != nil {
		return fmt.Errorf("sarama to %s-%d: %w", to.Topic, to.Partition, err)
	}
	return nil
}

func writeKafkaGo(ctx context.Context, to Destination, records iter.Seq[corpus.Record]) error {
	codecs := map[string]kafka.Compression{"gzip": kafka.Gzip, "snappy": kafka.Snappy, "lz4": kafka.Lz4, "zstd": kafka.Zstd}
	writer := &kafka.Writer{
		Addr: kafka.TCP(to.Addr), Topic: to.Topic, RequiredAcks: kafka.RequireAll, Compression: codecs[to.Codec], BatchSize: 500,
		Balancer: kafka.BalancerFunc(func(kafka.Message, ...int) int { return int(to.Partition) }),
	}
	var batch []kafka.Message
	flush := func() error {
		err := writer.WriteMessages(ctx, batch...)
		batch = batch[:0]
		return err
	}
	var failed error
	for r := range records {
		message := kafka.Message{Key: r.Key, Value: r.Value, Time: unixMilli(r.Timestamp)}
		for _, h := range r.Headers {
			message.Headers = append(message.Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
		if batch = append(batch, message); len(batch) == writer.BatchSize {
			if failed = flush(); failed != nil {
				break
			}
		}
	}
	if failed == nil && len(batch) > 0 {
		failed = flush()
	}
	if err := errors.Join(failed, writer.Close()); err != nil {
		return fmt.Errorf("kafka-go to %s-%d: %w", to.Topic, to.Partition, err)
	}
	return nil
}
