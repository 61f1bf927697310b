package broker

import (
	"context"
	"errors"
	"sync"

	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/tier/record"
)

// Settled waits until the newest committed metadata is applied here, so that what a request changed can be used at once.
func (b *Broker) Settled(ctx context.Context) error {
	return b.await(ctx, b.Metadata.Image().Version)
}

// AutoCreate makes topics with the broker's defaults. It returns when they take writes; one that another request made
// meanwhile is no error.
func (b *Broker) AutoCreate(ctx context.Context, names []string) error {
	topics := make([]controller.NewTopic, len(names))
	for i, n := range names {
		topics[i] = controller.NewTopic{Name: n, Partitions: -1, ReplicationFactor: -1}
	}
	var errs []error
	for _, r := range b.Controller.CreateTopics(ctx, topics, false) {
		if r.Err != nil && !errors.Is(r.Err, controller.ErrTopicExists) {
			errs = append(errs, r.Err)
		}
	}
	return errors.Join(append(errs, b.Settled(ctx))...)
}

// producerIDs hands out ids from blocks that the metadata log allots.
type producerIDs struct {
	mu        sync.Mutex
	next, end record.ProducerID
}

// producerIDBlock is how many ids one metadata record allots (KIP-730).
const producerIDBlock = 1000

// NewProducerID returns an id that no producer of the cluster ever had.
func (b *Broker) NewProducerID(ctx context.Context) (record.ProducerID, error) {
	b.ids.mu.Lock()
	defer b.ids.mu.Unlock()
	if b.ids.next == b.ids.end {
		first, err := b.Controller.AllocateProducerIDs(ctx, producerIDBlock)
		if err != nil {
			return record.NoProducer, err
		}
		b.ids.next, b.ids.end = first, first+producerIDBlock
	}
	id := b.ids.next
	b.ids.next++
	return id, nil
}

// partitionState is the state of one partition in an image.
func partitionState(img *metadata.Image, k replicaKey) *metadata.Partition {
	t := img.TopicByID(k.topic)
	if t == nil || int(k.partition) >= len(t.Partitions) {
		return nil
	}
	return &t.Partitions[k.partition]
}
