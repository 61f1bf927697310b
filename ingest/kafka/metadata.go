package kafka

import (
	"context"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/ingest/coordinators"
	"github.com/everlog/everlog/tier/record"
)

// Metadata (key 3, v0-13; KIP-78, KIP-320, KIP-430, KIP-516, KIP-700, KIP-1102).

// Authorized operations: not asked for, and what a broker without an authorizer allows.
const (
	operationsUnset   int32 = math.MinInt32
	topicOperations   int32 = 1<<3 | 1<<4 | 1<<5 | 1<<6 | 1<<7 | 1<<8 | 1<<10 | 1<<11 // read write create delete alter describe describe-configs alter-configs
	groupOperations   int32 = 1<<3 | 1<<6 | 1<<8 | 1<<10 | 1<<11                      // read delete describe describe-configs alter-configs
	clusterOperations int32 = 1<<5 | 1<<7 | 1<<8 | 1<<9 | 1<<10 | 1<<11 | 1<<12       // create alter describe cluster-action describe-configs alter-configs idempotent-write
)

func (s *Server) metadata(ctx context.Context, _ *call, req *kmsg.MetadataRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.MetadataResponse)
	image := s.broker.Image()
	s.brokers(image, func(b *metadata.Broker) {
		rb := kmsg.NewMetadataResponseBroker()
		rb.NodeID, rb.Host, rb.Port, rb.Rack = b.ID, b.Host, b.Port, rackOf(b)
		resp.Brokers = append(resp.Brokers, rb)
	})
	id := image.ClusterIDString()
	resp.ClusterID, resp.ControllerID = &id, s.broker.ID()
	resp.AuthorizedOperations = operationsUnset
	if req.IncludeClusterAuthorizedOperations {
		resp.AuthorizedOperations = clusterOperations
	}
	all := req.Topics == nil || req.Version == 0 && len(req.Topics) == 0
	if all {
		for t := range image.Topics() {
			resp.Topics = append(resp.Topics, s.describeTopic(t, req))
		}
		return resp, nil
	}
	req.Topics = distinct(req.Topics)
	if s.autoCreate(ctx, image, req) {
		image = s.broker.Image()
	}
	for i := range req.Topics {
		resp.Topics = append(resp.Topics, s.requestedTopic(image, req, &req.Topics[i]))
	}
	return resp, nil
}

// distinct are the topics without repetitions: each is answered once, however often it is asked for.
func distinct(topics []kmsg.MetadataRequestTopic) []kmsg.MetadataRequestTopic {
	type key struct {
		named bool
		name  string
		id    [16]byte
	}
	seen := make(map[key]bool, len(topics))
	return slices.DeleteFunc(topics, func(t kmsg.MetadataRequestTopic) bool {
		k := key{id: t.TopicID}
		if t.Topic != nil {
			k.named, k.name = true, *t.Topic
		}
		was := seen[k]
		seen[k] = true
		return was
	})
}

// brokers calls fn for every broker, by id.
func (s *Server) brokers(image *metadata.Image, fn func(*metadata.Broker)) {
	ids := image.BrokerIDs()
	slices.Sort(ids)
	for _, id := range ids {
		fn(image.Broker(id))
	}
}

func rackOf(b *metadata.Broker) *string {
	if b.Rack == "" {
		return nil
	}
	return &b.Rack
}

// autoCreate makes the topics asked for by name that do not exist, if setting and request allow it. It returns once
// they take writes, so that the answer already names their leaders: Kafka answers UNKNOWN_TOPIC_OR_PARTITION first.
func (s *Server) autoCreate(ctx context.Context, image *metadata.Image, req *kmsg.MetadataRequest) bool {
	if !s.broker.Config().AutoCreateTopics || req.Version >= 4 && !req.AllowAutoTopicCreation {
		return false
	}
	var names []string
	made := false
	for _, t := range req.Topics {
		if t.Topic != nil && coordinators.Internal(*t.Topic) && image.Topic(*t.Topic) == nil {
			if _, err := s.coordinators.Leader(ctx, *t.Topic, ""); err != nil { // it has settings of its own
				s.log.Warn("internal topic could not be created on demand", "topic", *t.Topic, "err", err)
			}
			made = true
		} else if t.Topic != nil && *t.Topic != "" && image.Topic(*t.Topic) == nil && controller.ValidateTopicName(*t.Topic) == nil {
			names = append(names, *t.Topic)
		}
	}
	if len(names) == 0 {
		return made
	}
	if err := s.broker.AutoCreate(ctx, names); err != nil {
		s.log.Warn("topics could not be created on demand", "topics", names, "err", err)
	}
	return true
}

func (s *Server) requestedTopic(image *metadata.Image, req *kmsg.MetadataRequest, rt *kmsg.MetadataRequestTopic) kmsg.MetadataResponseTopic {
	id := record.TopicID(rt.TopicID)
	mt := kmsg.NewMetadataResponseTopic()
	mt.Topic, mt.TopicID, mt.AuthorizedOperations = rt.Topic, rt.TopicID, operationsUnset
	switch {
	case req.Version >= 10 && req.Version < 12 && (!id.IsZero() || rt.Topic == nil):
		mt.ErrorCode = codeInvalidRequest
		if rt.Topic == nil {
			empty := ""
			mt.Topic = &empty
		}
		return mt
	case rt.Topic == nil: // by id, v12+
		if t := image.TopicByID(id); t != nil {
			return s.describeTopic(t, req)
		}
		mt.ErrorCode = codeUnknownTopicID
		return mt
	}
	if t := image.Topic(*rt.Topic); t != nil {
		return s.describeTopic(t, req)
	}
	mt.TopicID = [16]byte{}
	mt.ErrorCode = codeUnknownTopicOrPartition
	if controller.ValidateTopicName(*rt.Topic) != nil {
		mt.ErrorCode = codeInvalidTopic
	}
	return mt
}

func (s *Server) describeTopic(t *metadata.Topic, req *kmsg.MetadataRequest) kmsg.MetadataResponseTopic {
	mt := kmsg.NewMetadataResponseTopic()
	mt.Topic, mt.TopicID, mt.IsInternal, mt.AuthorizedOperations = &t.Name, t.ID, t.Internal, operationsUnset
	if req.IncludeTopicAuthorizedOperations {
		mt.AuthorizedOperations = topicOperations
	}
	mt.Partitions = make([]kmsg.MetadataResponseTopicPartition, len(t.Partitions))
	for i := range t.Partitions {
		p, mp := &t.Partitions[i], &mt.Partitions[i]
		*mp = kmsg.NewMetadataResponseTopicPartition()
		mp.Partition, mp.Leader, mp.LeaderEpoch, mp.Replicas, mp.ISR = int32(i), p.Leader, int32(p.LeaderEpoch), p.Replicas, p.ISR
		mp.OfflineReplicas = []int32{}
		if p.Leader < 0 {
			mp.ErrorCode = kerr.LeaderNotAvailable.Code
		}
	}
	return mt
}

// DescribeCluster (key 60, v0-2; KIP-700, KIP-919, KIP-1073).
func (s *Server) describeCluster(_ context.Context, _ *call, req *kmsg.DescribeClusterRequest) (kmsg.Response, error) {
	const brokers, controllers = 1, 2
	resp := req.ResponseKind().(*kmsg.DescribeClusterResponse)
	image := s.broker.Image()
	resp.ClusterID, resp.ControllerID, resp.EndpointType = image.ClusterIDString(), s.broker.ID(), brokers
	resp.ClusterAuthorizedOperations = operationsUnset
	if req.IncludeClusterAuthorizedOperations {
		resp.ClusterAuthorizedOperations = clusterOperations
	}
	if req.Version >= 1 && req.EndpointType != brokers {
		resp.ErrorCode = kerr.UnsupportedEndpointType.Code
		if req.EndpointType == controllers {
			resp.ErrorCode = kerr.MismatchedEndpointType.Code
		}
		return resp, nil
	}
	s.brokers(image, func(b *metadata.Broker) {
		rb := kmsg.NewDescribeClusterResponseBroker()
		rb.NodeID, rb.Host, rb.Port, rb.Rack = b.ID, b.Host, b.Port, rackOf(b)
		resp.Brokers = append(resp.Brokers, rb)
	})
	return resp, nil
}
