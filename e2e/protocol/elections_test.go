package protocol

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func electRequest(kind int8, name string, partitions ...int32) *kmsg.ElectLeadersRequest {
	req := kmsg.NewPtrElectLeadersRequest()
	req.ElectionType, req.TimeoutMillis = kind, 15_000
	one := kmsg.NewElectLeadersRequestTopic()
	one.Topic, one.Partitions = name, partitions
	req.Topics = append(req.Topics, one)
	return req
}

// reassignRequest moves one partition to the replicas, or cancels a move if they are nil.
func reassignRequest(name string, partition int32, replicas []int32) *kmsg.AlterPartitionAssignmentsRequest {
	req := kmsg.NewPtrAlterPartitionAssignmentsRequest()
	req.TimeoutMillis = 15_000
	p := kmsg.NewAlterPartitionAssignmentsRequestTopicPartition()
	p.Partition, p.Replicas = partition, replicas
	one := kmsg.NewAlterPartitionAssignmentsRequestTopic()
	one.Topic, one.Partitions = name, append(one.Partitions, p)
	req.Topics = append(req.Topics, one)
	return req
}

var electionRules = []rule{
	{"§3.11", "ElectLeaders: type 0 preferred, 1 unclean; a partition that has that leader is ELECTION_NOT_NEEDED (84)", func(t *testing.T, b *broker) {
		tp := b.topic(t, 2)
		c := b.dial(t)
		for version := range int16(3) {
			for kind := range int8(2) {
				if kind == 1 && version == 0 {
					continue // version 0 has no types
				}
				resp := Ask[*kmsg.ElectLeadersResponse](c, version, electRequest(kind, tp.name, 0, 1))
				wantCode(t, "the whole", resp.ErrorCode, nil)
				want(t, "partitions", len(resp.Topics[0].Partitions), 2)
				for _, p := range resp.Topics[0].Partitions {
					wantCode(t, fmt.Sprintf("v%d type %d of partition %d", version, kind, p.Partition), p.ErrorCode, kerr.ElectionNotNeeded)
				}
			}
		}
		for name, partition := range map[string]int32{tp.name: 2, freshName(): 0} {
			got := Ask[*kmsg.ElectLeadersResponse](c, 2, electRequest(0, name, partition)).Topics[0].Partitions[0]
			wantCode(t, "unknown", got.ErrorCode, kerr.UnknownTopicOrPartition)
		}
		wrong := Ask[*kmsg.ElectLeadersResponse](c, 2, electRequest(7, tp.name, 0))
		wantCode(t, "type 7", wrong.ErrorCode, kerr.InvalidRequest)
		wantCode(t, "its partition", wrong.Topics[0].Partitions[0].ErrorCode, kerr.InvalidRequest)
	}},
	{"§3.11", "ElectLeaders: null = all partitions (then omit ELECTION_NOT_NEEDED 84)", func(t *testing.T, b *broker) {
		tp := b.topic(t, 2)
		req := kmsg.NewPtrElectLeadersRequest()
		req.TimeoutMillis = 15_000
		resp := Ask[*kmsg.ElectLeadersResponse](b.dial(t), 2, req)
		wantCode(t, "the whole", resp.ErrorCode, nil)
		found := false
		for _, topic := range resp.Topics {
			found = found || topic.Topic == tp.name
			want(t, "partitions of "+topic.Topic, len(topic.Partitions), 0)
		}
		want(t, "the topic is among all", found, true)
	}},
	{"§3.11", "AlterPartitionReassignments to the replicas there are succeeds; to unknown brokers, none or one twice: INVALID_REPLICA_ASSIGNMENT", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		for version := range int16(2) {
			for _, s := range []struct {
				name      string
				partition int32
				replicas  []int32
				code      *kerr.Error
			}{
				{tp.name, 0, []int32{1}, nil}, {tp.name, 0, []int32{9}, kerr.InvalidReplicaAssignment}, {tp.name, 0, []int32{1, 9}, kerr.InvalidReplicaAssignment},
				{tp.name, 0, []int32{1, 1}, kerr.InvalidReplicaAssignment}, {tp.name, 0, []int32{}, kerr.InvalidReplicaAssignment}, {tp.name, 0, []int32{-1}, kerr.InvalidReplicaAssignment},
				{tp.name, 1, []int32{1}, kerr.UnknownTopicOrPartition}, {freshName(), 0, []int32{1}, kerr.UnknownTopicOrPartition},
			} {
				resp := Ask[*kmsg.AlterPartitionAssignmentsResponse](c, version, reassignRequest(s.name, s.partition, s.replicas))
				wantCode(t, "the whole", resp.ErrorCode, nil)
				wantCode(t, fmt.Sprintf("v%d: %s/%d to %v", version, s.name, s.partition, s.replicas), resp.Topics[0].Partitions[0].ErrorCode, s.code)
			}
		}
		same := reassignRequest(tp.name, 0, []int32{1})
		same.AllowReplicationFactorChange = false
		wantNoErrors(t, "the same number of replicas", Ask[*kmsg.AlterPartitionAssignmentsResponse](c, 1, same))
		meta := Ask[*kmsg.MetadataResponse](c, 9, metadataRequest(tp.name)).Topics[0].Partitions[0]
		want(t, "leader", meta.Leader, 1)
		want(t, "replicas", len(meta.Replicas), 1)
	}},
	{"§3.11", "AlterPartitionReassignments: replicas null = cancel → NO_REASSIGNMENT_IN_PROGRESS (85) if none", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		for version := range int16(2) {
			got := Ask[*kmsg.AlterPartitionAssignmentsResponse](c, version, reassignRequest(tp.name, 0, nil)).Topics[0].Partitions[0]
			wantCode(t, "cancel", got.ErrorCode, kerr.NoReassignmentInProgress)
		}
	}},
	{"§3.11", "ListPartitionReassignments: only what is under way, whatever is asked for", func(t *testing.T, b *broker) {
		c := b.dial(t)
		one := kmsg.NewListPartitionReassignmentsRequestTopic()
		one.Topic, one.Partitions = b.topic(t, 1).name, []int32{0, 5}
		other := kmsg.NewListPartitionReassignmentsRequestTopic()
		other.Topic, other.Partitions = freshName(), []int32{0}
		for _, topics := range [][]kmsg.ListPartitionReassignmentsRequestTopic{nil, {}, {one}, {other}} {
			req := kmsg.NewPtrListPartitionReassignmentsRequest()
			req.Topics, req.TimeoutMillis = topics, 15_000
			resp := Ask[*kmsg.ListPartitionReassignmentsResponse](c, 0, req)
			wantCode(t, "list", resp.ErrorCode, nil)
			want(t, "topics", len(resp.Topics), 0)
		}
	}},
}
