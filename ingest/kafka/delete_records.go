package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/tier/record"
)

// DeleteRecords (key 21, v0-2; KIP-107, KIP-204).

// deleteRecords acts when the requests before it are answered: -1 is behind what they wrote.
func (s *Server) deleteRecords(_ context.Context, c *call, req *kmsg.DeleteRecordsRequest) (kmsg.Response, error) {
	s.laterAll(c, func(ctx context.Context) (kmsg.Response, error) { return s.deleteAll(req), ctx.Err() })
	return nil, nil
}

func (s *Server) deleteAll(req *kmsg.DeleteRecordsRequest) kmsg.Response {
	resp := req.ResponseKind().(*kmsg.DeleteRecordsResponse)
	for _, t := range req.Topics {
		out := kmsg.NewDeleteRecordsResponseTopic()
		out.Topic = t.Topic
		for _, rp := range t.Partitions {
			po := kmsg.NewDeleteRecordsResponseTopicPartition()
			po.Partition, po.LowWatermark = rp.Partition, -1
			low, err := s.deleteTo(t.Topic, rp.Partition, record.Offset(rp.Offset))
			if po.ErrorCode = codeOf(err); err == nil {
				po.LowWatermark = int64(low)
			}
			out.Partitions = append(out.Partitions, po)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp
}

func (s *Server) deleteTo(topic string, index int32, to record.Offset) (record.Offset, error) {
	if t := s.broker.Image().Topic(topic); t != nil && t.Internal {
		return -1, errInternalTopic
	}
	p, err := s.partition(topic, index)
	if err != nil {
		return -1, err
	}
	return p.DeleteRecords(to)
}
