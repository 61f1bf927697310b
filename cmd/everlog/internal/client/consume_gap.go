package client

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/tier/record"
)

// idleAfter is how long a poll waits for records before the end of the spans is looked at in another way.
const idleAfter = time.Second

// gapBytes is how much of a partition one look at it fetches.
const gapBytes = 1 << 20

// skipEmpty moves spans over offsets that hold nothing to read: batches that compaction emptied, control batches. A client
// that waits for the record before the end of its span would wait for ever where that record is gone. The fetch library
// does not tell of such batches, so the brokers are asked directly. A span without an end needs none of this.
func (c *consumer) skipEmpty(ctx context.Context) error {
	var finished []int32
	for p, s := range c.spans {
		if s.done() || s.next >= s.end || s.to > s.end {
			continue
		}
		if err := c.skip(ctx, p, s); err != nil {
			return c.flags.Explain(err, fmt.Sprintf("%s partition %d", topicNamed(c.topic), p), "")
		}
		if s.done() {
			finished = append(finished, p)
		}
	}
	if len(finished) > 0 {
		c.client.RemoveConsumePartitions(map[string][]int32{c.topic: finished})
	}
	return nil
}

// skip moves one span over empty batches until it meets a record or its end.
func (c *consumer) skip(ctx context.Context, partition int32, s *span) error {
	for !s.done() {
		data, err := c.fetch(ctx, partition, s)
		if err != nil {
			return err
		}
		if !s.pass(data) {
			return nil
		}
	}
	return nil
}

// pass moves the span over the batches of data that hold nothing to read, up to the first that does. It tells whether that
// got it on, so that asking for more makes sense. The last batch may be cut off.
func (s *span) pass(data []byte) bool {
	before := s.next
	for len(data) > 0 && !s.done() {
		batch, rest, err := record.Next(data)
		if err != nil {
			break
		}
		if batch.Count() > 0 && !batch.IsControl() && int64(batch.LastOffset()) >= s.next {
			return false
		}
		s.next = max(s.next, int64(batch.NextOffset()))
		data = rest
	}
	return s.next > before
}

// fetch reads raw batches from next on, from the partition's leader.
func (c *consumer) fetch(ctx context.Context, partition int32, s *span) ([]byte, error) {
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.MinBytes, req.MaxBytes, req.SessionEpoch = -1, 0, gapBytes, -1
	topic := kmsg.NewFetchRequestTopic()
	topic.Topic, topic.TopicID = c.topic, s.topicID
	part := kmsg.NewFetchRequestTopicPartition()
	part.Partition, part.FetchOffset, part.PartitionMaxBytes, part.CurrentLeaderEpoch = partition, s.next, gapBytes, -1
	topic.Partitions = append(topic.Partitions, part)
	req.Topics = append(req.Topics, topic)
	answer, err := c.client.Broker(int(s.leader)).RetriableRequest(ctx, req)
	if err != nil {
		return nil, err
	}
	res := answer.(*kmsg.FetchResponse)
	if err := kerr.ErrorForCode(res.ErrorCode); err != nil {
		return nil, err
	}
	if len(res.Topics) == 0 || len(res.Topics[0].Partitions) == 0 {
		return nil, nil
	}
	p := &res.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(p.ErrorCode); err != nil && !kerr.IsRetriable(err) {
		return nil, err
	}
	return p.RecordBatches, nil
}
