package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// DescribeLogDirs (key 35, v1-5; KIP-113, KIP-827, KIP-1066).

func (s *Server) describeLogDirs(_ context.Context, _ *call, req *kmsg.DescribeLogDirsRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.DescribeLogDirsResponse)
	dir := kmsg.NewDescribeLogDirsResponseDir()
	dir.Dir = s.broker.LogDir()
	total, free, err := s.broker.DiskUsage()
	if dir.ErrorCode = codeOf(err); err == nil {
		dir.TotalBytes, dir.UsableBytes = total, free
	}
	wanted := map[string]map[int32]bool{}
	for _, t := range req.Topics {
		wanted[t.Topic] = map[int32]bool{}
		for _, p := range t.Partitions {
			wanted[t.Topic][p] = true
		}
	}
	for t := range s.broker.Image().Topics() {
		if req.Topics != nil && wanted[t.Name] == nil {
			continue
		}
		dt := kmsg.NewDescribeLogDirsResponseDirTopic()
		dt.Topic = t.Name
		for i := range t.Partitions {
			p, err := s.broker.Partition(t, int32(i))
			if err != nil || req.Topics != nil && !wanted[t.Name][int32(i)] {
				continue
			}
			dp := kmsg.NewDescribeLogDirsResponseDirTopicPartition()
			dp.Partition, dp.Size = int32(i), p.Size()
			dt.Partitions = append(dt.Partitions, dp)
		}
		if len(dt.Partitions) > 0 {
			dir.Topics = append(dir.Topics, dt)
		}
	}
	resp.Dirs = []kmsg.DescribeLogDirsResponseDir{dir}
	return resp, nil
}
