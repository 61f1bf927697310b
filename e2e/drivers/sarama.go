package drivers

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"github.com/IBM/sarama"
)

func saramaProducer() *sarama.Config {
	config := sarama.NewConfig()
	config.Producer.RequiredAcks = sarama.WaitForAll
	config.Producer.Idempotent = true
	config.Net.MaxOpenRequests = 1
	config.Producer.Partitioner = sarama.NewManualPartitioner
	config.Producer.Return.Successes = true
	config.Producer.Retry.Max = 5000 // it allocates room for each
	config.Producer.Retry.Backoff = 100 * time.Millisecond
	config.Metadata.Retry.Max, config.Metadata.Retry.Backoff = 1000, 100*time.Millisecond // a batch is given up if no broker is found to ask for its leader
	return config
}

func saramaProduce(ctx context.Context, o options, out *output) error {
	config := saramaProducer()
	config.Producer.Return.Successes = false
	producer, err := sarama.NewAsyncProducer([]string{o["broker"]}, config)
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		defer close(failed)
		for failure := range producer.Errors() {
			select {
			case failed <- failure.Err:
			default:
			}
		}
	}()
	partitions := o.int("partitions", 1)
	n, _ := pace(ctx, o, func(i int) error {
		producer.Input() <- &sarama.ProducerMessage{
			Topic: o["topic"], Partition: int32(i % partitions), Value: sarama.StringEncoder(o["prefix"] + strconv.Itoa(i)),
		}
		return nil
	})
	producer.AsyncClose()
	if err := <-failed; err != nil {
		return err
	}
	out.say("done", n)
	return nil
}

type saramaHandler struct {
	o   options
	out *output
}

func (h saramaHandler) Setup(s sarama.ConsumerGroupSession) error {
	h.out.partitions("assigned", s.Claims()[h.o["topic"]])
	return nil
}

func (h saramaHandler) Cleanup(s sarama.ConsumerGroupSession) error {
	s.Commit()
	h.out.partitions("revoked", s.Claims()[h.o["topic"]])
	return nil
}

func (h saramaHandler) ConsumeClaim(s sarama.ConsumerGroupSession, claim sarama.ConsumerGroupClaim) error {
	for {
		select {
		case <-s.Context().Done():
			return nil
		case m, ok := <-claim.Messages():
			if !ok {
				return nil
			}
			h.out.say("record", m.Partition, m.Offset, string(m.Value))
			s.MarkMessage(m, "")
		}
	}
}

func saramaMember(ctx context.Context, o options, out *output) error {
	config := sarama.NewConfig()
	config.Consumer.Offsets.Initial = sarama.OffsetOldest
	config.Consumer.Offsets.AutoCommit.Interval = 100 * time.Millisecond
	config.Consumer.Group.Session.Timeout = o.millis("session", 10_000)
	config.Consumer.Group.Heartbeat.Interval = 500 * time.Millisecond
	config.Consumer.Group.InstanceId = o["instance"]
	config.Consumer.Return.Errors = true
	if o.committed() {
		config.Consumer.IsolationLevel = sarama.ReadCommitted
	}
	group, err := sarama.NewConsumerGroup([]string{o["broker"]}, o["group"], config)
	if err != nil {
		return err
	}
	go func() {
		for err := range group.Errors() {
			out.say("note", err)
		}
	}()
	for ctx.Err() == nil {
		if err := group.Consume(ctx, []string{o["topic"]}, saramaHandler{o, out}); err != nil {
			out.say("note", "consume:", err)
			waitABit(ctx)
		}
	}
	return group.Close()
}

// waitABit is the pause before a client that has given up is made to try again.
func waitABit(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(200 * time.Millisecond):
	}
}

type saramaTxn struct {
	producer sarama.SyncProducer
	o        options
}

func saramaTransactor(ctx context.Context, o options, out *output) error {
	config := saramaProducer()
	config.Producer.Transaction.ID = o["id"]
	config.Producer.Transaction.Timeout = o.millis("timeout", 60_000)
	config.Producer.Retry.Max = 20
	producer, err := sarama.NewSyncProducer([]string{o["broker"]}, config)
	for errors.Is(err, sarama.ErrConcurrentTransactions) { // a transaction of this id is being aborted: sarama leaves that to its user
		waitABit(ctx)
		producer, err = sarama.NewSyncProducer([]string{o["broker"]}, config)
	}
	if err != nil {
		return err
	}
	err = obey(os.Stdin, out, saramaTxn{producer, o})
	if producer.TxnStatus()&(sarama.ProducerTxnFlagFatalError|sarama.ProducerTxnFlagInTransaction) != 0 {
		return err // Close would wait for a transaction that cannot end
	}
	return errors.Join(err, producer.Close())
}

func (s saramaTxn) begin() error { return s.producer.BeginTxn() }

func (s saramaTxn) send(partition int32, value string) error {
	_, _, err := s.producer.SendMessage(&sarama.ProducerMessage{Topic: s.o["topic"], Partition: partition, Value: sarama.StringEncoder(value)})
	return err
}

func (s saramaTxn) offsets(group string, partition int32, offset int64) error {
	return s.producer.AddOffsetsToTxn(map[string][]*sarama.PartitionOffsetMetadata{
		s.o["topic"]: {{Partition: partition, Offset: offset, LeaderEpoch: -1}},
	}, group)
}

func (s saramaTxn) commit() error { return s.producer.CommitTxn() }

func (s saramaTxn) abort() error { return s.producer.AbortTxn() }
