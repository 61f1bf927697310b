package broker

import (
	"context"
	"errors"

	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/metadata"
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

// partitionState is the state of one partition in an image.
func partitionState(img *metadata.Image, k replicaKey) *metadata.Partition {
	t := img.TopicByID(k.topic)
	if t == nil || int(k.partition) >= len(t.Partitions) {
		return nil
	}
	return &t.Partitions[k.partition]
}
