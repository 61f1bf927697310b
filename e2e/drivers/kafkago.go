package drivers

import (
	"context"
	"strconv"
	"time"

	"github.com/segmentio/kafka-go"
)

// kafkaGoProduce has no idempotence: what fails is sent again, and may be there twice.
func kafkaGoProduce(ctx context.Context, o options, out *output) error {
	partitions := o.int("partitions", 1)
	writer := &kafka.Writer{
		Addr: kafka.TCP(o["broker"]), Topic: o["topic"], RequiredAcks: kafka.RequireAll, BatchTimeout: time.Millisecond,
		Balancer: kafka.BalancerFunc(func(m kafka.Message, _ ...int) int { return m.WriterData.(int) % partitions }),
	}
	const batchSize = 20
	var batch []kafka.Message
	flush := func() {
		for len(batch) > 0 {
			if err := writer.WriteMessages(context.Background(), batch...); err != nil {
				out.say("note", "write:", err)
				time.Sleep(100 * time.Millisecond)
				continue
			}
			batch = batch[:0]
		}
	}
	n, err := pace(ctx, o, func(i int) error {
		if batch = append(batch, kafka.Message{Value: []byte(o["prefix"] + strconv.Itoa(i)), WriterData: i}); len(batch) == batchSize {
			flush()
		}
		return nil
	})
	flush()
	if err == nil {
		err = writer.Close()
	}
	out.say("done", n)
	return err
}

func kafkaGoMember(ctx context.Context, o options, out *output) error {
	config := kafka.ReaderConfig{
		Brokers: []string{o["broker"]}, GroupID: o["group"], GroupTopics: []string{o["topic"]}, StartOffset: kafka.FirstOffset,
		HeartbeatInterval: 500 * time.Millisecond, SessionTimeout: o.millis("session", 10_000), RebalanceTimeout: 10 * time.Second,
		JoinGroupBackoff: 200 * time.Millisecond, MaxWait: 200 * time.Millisecond, ReadBackoffMin: 20 * time.Millisecond, CommitInterval: 50 * time.Millisecond,
	}
	if o.committed() {
		config.IsolationLevel = kafka.ReadCommitted
	}
	reader := kafka.NewReader(config)
	for ctx.Err() == nil {
		m, err := reader.FetchMessage(ctx)
		if err != nil {
			if ctx.Err() == nil {
				out.say("note", "fetch:", err)
				waitABit(ctx)
			}
			continue
		}
		out.say("record", m.Partition, m.Offset, string(m.Value))
		if err := reader.CommitMessages(context.Background(), m); err != nil {
			out.say("note", "commit:", err)
		}
	}
	return reader.Close()
}
