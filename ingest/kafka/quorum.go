package kafka

import (
	"context"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/metadata"
)

// DescribeQuorum (key 55, v0-2; KIP-595, KIP-836, KIP-853). There is no quorum: the metadata log is in the bucket, and the broker
// that holds the lease writes it. Tools are told of the log as that broker's, with every broker as one that can take over: it
// needs no copy of its own, so none is behind.

const metadataTopic = "__cluster_metadata"

func (s *Server) describeQuorum(_ context.Context, _ *call, req *kmsg.DescribeQuorumRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.DescribeQuorumResponse)
	image := s.broker.Image()
	for _, t := range req.Topics {
		rt := kmsg.NewDescribeQuorumResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewDescribeQuorumResponseTopicPartition()
			rp.Partition = p.Partition
			if t.Topic == metadataTopic && p.Partition == 0 {
				s.describeMetadataLog(&rp, image)
			} else {
				rp.ErrorCode, rp.LeaderID = codeUnknownTopicOrPartition, -1
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	s.brokers(image, func(b *metadata.Broker) {
		node := kmsg.NewDescribeQuorumResponseNode()
		node.NodeID = b.ID
		l := kmsg.NewDescribeQuorumResponseNodeListener()
		l.Name, l.Host, l.Port = "PLAINTEXT", b.Host, uint16(b.Port)
		node.Listeners = append(node.Listeners, l)
		resp.Nodes = append(resp.Nodes, node)
	})
	return resp, nil
}

func (s *Server) describeMetadataLog(rp *kmsg.DescribeQuorumResponseTopicPartition, image *metadata.Image) {
	rp.LeaderID, rp.LeaderEpoch, rp.HighWatermark = s.broker.ID(), int32(image.Controller.Epoch), int64(image.Version)
	now := time.Now().UnixMilli()
	s.brokers(image, func(b *metadata.Broker) {
		voter := kmsg.NewDescribeQuorumResponseTopicPartitionReplicaState()
		voter.ReplicaID, voter.LogEndOffset, voter.LastFetchTimestamp, voter.LastCaughtUpTimestamp = b.ID, int64(image.Version), now, now
		rp.CurrentVoters = append(rp.CurrentVoters, voter)
	})
}
