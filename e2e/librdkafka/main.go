// Command librdkafka-driver is the driver of librdkafka, through confluent-kafka-go; the protocol is that of package drivers.
package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/confluentinc/confluent-kafka-go/v2/kafka"
)

func main() {
	verbs := map[string]func(context.Context, options) error{"produce": produce, "member": runMember, "transactor": transactor}
	run, ok := verbs[os.Args[1]]
	if !ok {
		fmt.Fprintf(os.Stderr, "librdkafka has no %q\n", os.Args[1])
		os.Exit(2)
	}
	o := options{}
	for _, arg := range os.Args[2:] {
		key, value, _ := strings.Cut(arg, "=")
		o[key] = value
	}
	ctx, cancel := context.WithCancel(context.Background())
	if o["hold"] != "" {
		show("ready")
		flush()
		_, _ = os.Stdin.Read(make([]byte, 64))
	}
	if os.Args[1] != "transactor" {
		go func() {
			_, _ = io.Copy(io.Discard, os.Stdin)
			cancel()
		}()
	}
	if err := run(ctx, o); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

type options map[string]string

func (o options) get(name, otherwise string) string {
	if value, ok := o[name]; ok {
		return value
	}
	return otherwise
}

func (o options) int(name string, otherwise int) int {
	n, err := strconv.Atoi(o.get(name, strconv.Itoa(otherwise)))
	if err != nil {
		panic(err)
	}
	return n
}

var (
	mu  sync.Mutex
	out = bufio.NewWriter(os.Stdout)
)

func show(kind string, args ...any) {
	mu.Lock()
	defer mu.Unlock()
	fmt.Fprint(out, time.Now().UnixMicro(), " ", kind)
	for _, arg := range args {
		fmt.Fprint(out, " ", arg)
	}
	fmt.Fprintln(out)
}

func flush() {
	mu.Lock()
	defer mu.Unlock()
	_ = out.Flush()
}

func produce(ctx context.Context, o options) error {
	producer, err := kafka.NewProducer(&kafka.ConfigMap{
		"bootstrap.servers": o["broker"], "enable.idempotence": true, "message.timeout.ms": 0, "linger.ms": 5, "go.delivery.reports": true,
	})
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() {
		for e := range producer.Events() {
			if m, ok := e.(*kafka.Message); ok && m.TopicPartition.Error != nil {
				select {
				case failed <- m.TopicPartition.Error:
				default:
				}
			}
		}
	}()
	topic, partitions := o["topic"], o.int("partitions", 1)
	n := 0
	ticks := time.NewTicker(5 * time.Millisecond)
	defer ticks.Stop()
	for began := time.Now(); ctx.Err() == nil; {
		select {
		case <-ctx.Done():
		case now := <-ticks.C:
			for due := int(now.Sub(began).Seconds() * float64(o.int("rate", 500))); n < due; n++ {
				m := &kafka.Message{
					TopicPartition: kafka.TopicPartition{Topic: &topic, Partition: int32(n % partitions)}, Value: []byte(o["prefix"] + strconv.Itoa(n)),
				}
				if err := producer.Produce(m, nil); err != nil {
					return err
				}
			}
		}
	}
	for producer.Flush(1000) > 0 {
	}
	select {
	case err := <-failed:
		return err
	default:
	}
	show("done", n)
	flush()
	return nil
}

// member commits what it has reported: after a batch, and before it gives anything up.
type member struct {
	consumer *kafka.Consumer
	reached  map[int32]kafka.Offset // not committed yet
	topic    string
}

func runMember(ctx context.Context, o options) error {
	config := kafka.ConfigMap{
		"bootstrap.servers": o["broker"], "group.id": o["group"], "auto.offset.reset": "earliest", "enable.auto.commit": false,
		"isolation.level": "read_" + o.get("isolation", "uncommitted"), "fetch.wait.max.ms": 100, "group.protocol": o.get("protocol", "classic"),
	}
	if config["group.protocol"] == "classic" {
		config["session.timeout.ms"], config["heartbeat.interval.ms"] = o.int("session", 10_000), 500
	}
	if instance := o["instance"]; instance != "" {
		config["group.instance.id"] = instance
	}
	consumer, err := kafka.NewConsumer(&config)
	if err != nil {
		return err
	}
	m := &member{consumer, map[int32]kafka.Offset{}, o["topic"]}
	if err := consumer.SubscribeTopics([]string{m.topic}, m.rebalance); err != nil {
		return err
	}
	const batch = 200
	for pending := 0; ctx.Err() == nil; {
		switch e := consumer.Poll(50).(type) {
		case *kafka.Message:
			show("record", e.TopicPartition.Partition, int64(e.TopicPartition.Offset), string(e.Value))
			m.reached[e.TopicPartition.Partition] = e.TopicPartition.Offset + 1
			pending++
		case kafka.Error:
			show("note", e)
		}
		if pending >= batch || pending > 0 && due() {
			m.commit()
			pending = 0
		}
	}
	m.commit()
	return consumer.Close()
}

var lastCommit time.Time

// due reports, ten times a second, that it is time to commit.
func due() bool {
	if time.Since(lastCommit) < 100*time.Millisecond {
		return false
	}
	lastCommit = time.Now()
	return true
}

func (m *member) commit() {
	flush()
	if len(m.reached) == 0 {
		return
	}
	var offsets []kafka.TopicPartition
	for p, offset := range m.reached {
		offsets = append(offsets, kafka.TopicPartition{Topic: &m.topic, Partition: p, Offset: offset})
	}
	clear(m.reached)
	if _, err := m.consumer.CommitOffsets(offsets); err != nil {
		show("note", "commit:", err)
		flush()
	}
}

func (m *member) rebalance(c *kafka.Consumer, e kafka.Event) error {
	switch e := e.(type) {
	case kafka.AssignedPartitions:
		report("assigned", e.Partitions)
	case kafka.RevokedPartitions:
		if c.AssignmentLost() {
			clear(m.reached)
			report("lost", e.Partitions)
			return nil
		}
		m.commit()
		report("revoked", e.Partitions)
	}
	return nil
}

func report(kind string, of []kafka.TopicPartition) {
	var numbers []string
	for _, p := range of {
		numbers = append(numbers, strconv.Itoa(int(p.Partition)))
	}
	if len(numbers) > 0 {
		show(kind, strings.Join(slices.Sorted(slices.Values(numbers)), ","))
	}
	flush()
}

func transactor(ctx context.Context, o options) error {
	producer, err := kafka.NewProducer(&kafka.ConfigMap{
		"bootstrap.servers": o["broker"], "transactional.id": o["id"], "transaction.timeout.ms": o.int("timeout", 60_000),
	})
	if err != nil {
		return err
	}
	if err := producer.InitTransactions(ctx); err != nil {
		return err
	}
	answer(nil)
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		answer(obey(ctx, producer, o["topic"], strings.Fields(lines.Text())))
	}
	return lines.Err()
}

func answer(err error) {
	if err != nil {
		show("failed", strings.Join(strings.Fields(err.Error()), " "))
	} else {
		show("ok")
	}
	flush()
}

func obey(ctx context.Context, producer *kafka.Producer, topic string, words []string) error {
	switch words[0] {
	case "begin":
		return producer.BeginTransaction()
	case "commit":
		return producer.CommitTransaction(ctx)
	case "abort":
		return producer.AbortTransaction(ctx)
	case "send":
		acked := make(chan kafka.Event, 1)
		p, _ := strconv.Atoi(words[1])
		m := &kafka.Message{TopicPartition: kafka.TopicPartition{Topic: &topic, Partition: int32(p)}, Value: []byte(words[2])}
		if err := producer.Produce(m, acked); err != nil {
			return err
		}
		return (<-acked).(*kafka.Message).TopicPartition.Error
	case "offsets":
		group, err := kafka.NewTestConsumerGroupMetadata(words[1])
		if err != nil {
			return err
		}
		p, _ := strconv.Atoi(words[2])
		offset, _ := strconv.Atoi(words[3])
		return producer.SendOffsetsToTransaction(ctx, []kafka.TopicPartition{{Topic: &topic, Partition: int32(p), Offset: kafka.Offset(offset)}}, group)
	}
	return fmt.Errorf("no command: %v", words)
}
