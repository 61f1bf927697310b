package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/controller"
)

// ElectLeaders (key 43, v0-2; KIP-183, KIP-460), AlterPartitionReassignments (45, v0-1; KIP-455, KIP-860) and
// ListPartitionReassignments (46, v0).

func (s *Server) electLeaders(ctx context.Context, _ *call, req *kmsg.ElectLeadersRequest) (kmsg.Response, error) {
	ctx, cancel := adminContext(ctx, req.TimeoutMillis)
	defer cancel()
	resp := req.ResponseKind().(*kmsg.ElectLeadersResponse)
	asked := req.Topics
	if asked == nil {
		asked = s.everyPartition()
	}
	var refs []controller.PartitionRef
	for _, t := range asked {
		for _, p := range t.Partitions {
			refs = append(refs, controller.PartitionRef{Topic: t.Topic, Index: p})
		}
	}
	errs := s.elect(ctx, controller.Election(req.ElectionType), refs)
	if req.ElectionType != int8(controller.Preferred) && req.ElectionType != int8(controller.Unclean) {
		resp.ErrorCode = codeInvalidRequest
	}
	for _, t := range asked {
		rt := kmsg.NewElectLeadersResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			err := errs[0]
			errs = errs[1:]
			if req.Topics == nil && errors.Is(err, controller.ErrElectionNotNeeded) {
				continue // of all partitions only those are answered that something happened to
			}
			rp := kmsg.NewElectLeadersResponseTopicPartition()
			rp.Partition, rp.ErrorCode, rp.ErrorMessage = p, codeOf(err), messageOf(err)
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

// elect runs an election and returns once the new leaders are in office here.
func (s *Server) elect(ctx context.Context, kind controller.Election, refs []controller.PartitionRef) []error {
	if kind != controller.Preferred && kind != controller.Unclean {
		errs := make([]error, len(refs))
		for i := range errs {
			errs[i] = fmt.Errorf("%w: unknown election type %d", errInvalidRequest, int8(kind))
		}
		return errs
	}
	errs := s.broker.Controller.ElectLeaders(ctx, kind, refs)
	s.settleEach(ctx, errs)
	return errs
}

// everyPartition is what null topics stand for.
func (s *Server) everyPartition() []kmsg.ElectLeadersRequestTopic {
	all := []kmsg.ElectLeadersRequestTopic{}
	for t := range s.broker.Image().Topics() {
		rt := kmsg.NewElectLeadersRequestTopic()
		rt.Topic = t.Name
		for i := range t.Partitions {
			rt.Partitions = append(rt.Partitions, int32(i))
		}
		all = append(all, rt)
	}
	return all
}

// settleEach waits until what was committed is in effect here; the changes that succeeded fail with the wait.
func (s *Server) settleEach(ctx context.Context, errs []error) {
	var settled error
	waited := false
	for i, err := range errs {
		if err != nil {
			continue
		}
		if !waited {
			settled, waited = s.broker.Settled(ctx), true
		}
		errs[i] = settled
	}
}

func (s *Server) alterPartitionReassignments(ctx context.Context, _ *call, req *kmsg.AlterPartitionAssignmentsRequest) (kmsg.Response, error) {
	ctx, cancel := adminContext(ctx, req.TimeoutMillis)
	defer cancel()
	var changes []controller.Reassignment
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			changes = append(changes, controller.Reassignment{PartitionRef: controller.PartitionRef{Topic: t.Topic, Index: p.Partition}, Replicas: p.Replicas})
		}
	}
	errs := s.broker.Controller.Reassign(ctx, changes, req.Version >= 1 && !req.AllowReplicationFactorChange)
	s.settleEach(ctx, errs)
	resp := req.ResponseKind().(*kmsg.AlterPartitionAssignmentsResponse)
	resp.AllowReplicationFactorChange = req.Version < 1 || req.AllowReplicationFactorChange
	for _, t := range req.Topics {
		rt := kmsg.NewAlterPartitionAssignmentsResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewAlterPartitionAssignmentsResponseTopicPartition()
			rp.Partition, rp.ErrorCode, rp.ErrorMessage = p.Partition, codeOf(errs[0]), messageOf(errs[0])
			errs = errs[1:]
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

// listPartitionReassignments answers that none is under way: controller.Reassign moves no replica between brokers.
func (s *Server) listPartitionReassignments(_ context.Context, _ *call, req *kmsg.ListPartitionReassignmentsRequest) (kmsg.Response, error) {
	return req.ResponseKind(), nil
}
