package history

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// Tail is a consumer that reads a topic from its beginning while it grows, through every restart, and remembers what it saw at each offset.
type Tail struct {
	client *kgo.Client
	stop   context.CancelFunc
	done   chan struct{}

	mu     sync.Mutex
	polled map[int32][]int64
	wrong  []string
}

// StartTail starts consuming partitions [0, partitions) of the topic.
func StartTail(addr, topic string, partitions int32) (*Tail, error) {
	from := map[int32]kgo.Offset{}
	for number := range partitions {
		from[number] = kgo.NewOffset().At(0)
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.ConsumeResetOffset(kgo.NoResetOffset()))
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	t := &Tail{client: client, stop: stop, done: make(chan struct{}), polled: map[int32][]int64{}}
	go t.run(ctx)
	return t, nil
}

func (t *Tail) run(ctx context.Context) {
	defer close(t.done)
	for {
		fetches := t.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		t.mu.Lock()
		fetches.EachError(func(topic string, partition int32, err error) {
			t.wrong = append(t.wrong, fmt.Sprintf("%s-%d: the consumer was told: %v", topic, partition, err))
		})
		fetches.EachRecord(t.seeLocked)
		t.mu.Unlock()
	}
}

func (t *Tail) seeLocked(r *kgo.Record) {
	seen := t.polled[r.Partition]
	if r.Offset != int64(len(seen)) {
		t.wrong = append(t.wrong, fmt.Sprintf("%s-%d: the consumer was at %d and got offset %d", r.Topic, r.Partition, len(seen), r.Offset))
		return
	}
	t.polled[r.Partition] = append(seen, int64(binary.BigEndian.Uint64(r.Value)))
}

// Into copies what was seen so far into the partitions of the topic; what the consumer was told that it should not have been becomes an anomaly.
func (t *Tail) Into(known []Partition) Anomalies {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range known {
		seen := t.polled[known[i].Number]
		known[i].Polled = seen[:len(seen):len(seen)]
	}
	return Anomalies{Dirty: append([]string{}, t.wrong...)}
}

// Seen is how many records were seen so far.
func (t *Tail) Seen() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := 0
	for _, seen := range t.polled {
		n += len(seen)
	}
	return int64(n)
}

// Stop ends the consumer.
func (t *Tail) Stop() {
	t.stop()
	<-t.done
	t.client.Close()
}
