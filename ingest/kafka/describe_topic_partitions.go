package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/metadata"
)

// DescribeTopicPartitions (key 75, v0; KIP-966).

// maxDescribedPartitions bounds one answer (Kafka's max.request.partition.size.limit); the rest comes by cursor.
const maxDescribedPartitions = 2000

func (s *Server) describeTopicPartitions(_ context.Context, _ *call, req *kmsg.DescribeTopicPartitionsRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.DescribeTopicPartitionsResponse)
	image := s.broker.Image()
	names, listed := requestedNames(req), len(req.Topics) > 0
	if !listed {
		for t := range image.Topics() {
			names = append(names, t.Name)
		}
	}
	if c := req.Cursor; c != nil && listed && !slices.Contains(names, c.Topic) {
		for _, name := range names {
			rt := undescribed(name)
			rt.ErrorCode = codeInvalidRequest
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, nil
	}
	slices.Sort(names)
	left := min(max(int(req.ResponsePartitionLimit), 1), maxDescribedPartitions)
	for _, name := range slices.Compact(names) {
		first := int32(0)
		if c := req.Cursor; c != nil {
			if name < c.Topic {
				continue
			}
			if name == c.Topic {
				first = max(c.Partition, 0)
			}
		}
		if left == 0 {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: first}
			break
		}
		t := image.Topic(name)
		if t == nil {
			resp.Topics = append(resp.Topics, undescribed(name))
			continue
		}
		rt, next := describePartitions(t, first, left)
		resp.Topics = append(resp.Topics, rt)
		left -= len(rt.Partitions)
		if next < int32(len(t.Partitions)) {
			resp.NextCursor = &kmsg.DescribeTopicPartitionsResponseNextCursor{Topic: name, Partition: next}
			break
		}
	}
	return resp, nil
}

func requestedNames(req *kmsg.DescribeTopicPartitionsRequest) []string {
	names := make([]string, 0, len(req.Topics))
	for _, t := range req.Topics {
		names = append(names, t.Topic)
	}
	return names
}

func undescribed(name string) kmsg.DescribeTopicPartitionsResponseTopic {
	rt := kmsg.NewDescribeTopicPartitionsResponseTopic()
	rt.Topic, rt.ErrorCode, rt.AuthorizedOperations = &name, codeUnknownTopicOrPartition, operationsUnset
	if controller.ValidateTopicName(name) != nil {
		rt.ErrorCode = codeInvalidTopic
	}
	return rt
}

// describePartitions lists at most limit partitions from first on, and which is next.
func describePartitions(t *metadata.Topic, first int32, limit int) (kmsg.DescribeTopicPartitionsResponseTopic, int32) {
	rt := kmsg.NewDescribeTopicPartitionsResponseTopic()
	rt.Topic, rt.TopicID, rt.IsInternal, rt.AuthorizedOperations = &t.Name, t.ID, t.Internal, topicOperations
	i := first
	for ; int(i) < len(t.Partitions) && len(rt.Partitions) < limit; i++ {
		p := &t.Partitions[i]
		rp := kmsg.NewDescribeTopicPartitionsResponseTopicPartition()
		rp.Partition, rp.LeaderID, rp.LeaderEpoch, rp.Replicas, rp.ISR = i, p.Leader, int32(p.LeaderEpoch), p.Replicas, p.ISR
		// Java's admin client takes these as never null.
		rp.EligibleLeaderReplicas, rp.LastKnownELR, rp.OfflineReplicas = []int32{}, []int32{}, []int32{}
		if p.Leader < 0 {
			rp.ErrorCode = kerr.LeaderNotAvailable.Code
		}
		rt.Partitions = append(rt.Partitions, rp)
	}
	return rt, i
}
