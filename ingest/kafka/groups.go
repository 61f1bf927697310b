package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/cluster/group"
)

// Membership of groups: JoinGroup (key 11, v0-9), Heartbeat (12, v0-4), LeaveGroup (13, v0-5), SyncGroup (14, v0-5),
// ConsumerGroupHeartbeat (68, v0-1; KIP-848). The rules are cluster/group's.

func (s *Server) joinGroup(_ context.Context, c *call, req *kmsg.JoinGroupRequest) (kmsg.Response, error) {
	shard, err := s.coordinators.Group(req.Group)
	s.later(c, shard, err, groupRequest(c, req), func(v any, code int16) kmsg.Response {
		if resp, ok := v.(*kmsg.JoinGroupResponse); ok {
			return resp
		}
		resp := req.ResponseKind().(*kmsg.JoinGroupResponse)
		resp.ErrorCode, resp.Generation, resp.MemberID = code, -1, req.MemberID
		return resp
	})
	return nil, nil
}

func (s *Server) syncGroup(_ context.Context, c *call, req *kmsg.SyncGroupRequest) (kmsg.Response, error) {
	shard, err := s.coordinators.Group(req.Group)
	s.later(c, shard, err, groupRequest(c, req), func(v any, code int16) kmsg.Response {
		if resp, ok := v.(*kmsg.SyncGroupResponse); ok {
			return resp
		}
		resp := req.ResponseKind().(*kmsg.SyncGroupResponse)
		resp.ErrorCode = code
		return resp
	})
	return nil, nil
}

func (s *Server) heartbeat(_ context.Context, c *call, req *kmsg.HeartbeatRequest) (kmsg.Response, error) {
	shard, err := s.coordinators.Group(req.Group)
	s.later(c, shard, err, groupRequest(c, req), func(v any, code int16) kmsg.Response {
		if resp, ok := v.(*kmsg.HeartbeatResponse); ok {
			return resp
		}
		resp := req.ResponseKind().(*kmsg.HeartbeatResponse)
		resp.ErrorCode = code
		return resp
	})
	return nil, nil
}

func (s *Server) leaveGroup(_ context.Context, c *call, req *kmsg.LeaveGroupRequest) (kmsg.Response, error) {
	shard, err := s.coordinators.Group(req.Group)
	s.later(c, shard, err, groupRequest(c, req), func(v any, code int16) kmsg.Response {
		if resp, ok := v.(*kmsg.LeaveGroupResponse); ok {
			return resp
		}
		resp := req.ResponseKind().(*kmsg.LeaveGroupResponse)
		resp.ErrorCode = code
		return resp
	})
	return nil, nil
}

func (s *Server) consumerGroupHeartbeat(_ context.Context, c *call, req *kmsg.ConsumerGroupHeartbeatRequest) (kmsg.Response, error) {
	shard, err := s.coordinators.Group(req.Group)
	s.later(c, shard, err, groupRequest(c, req), func(v any, code int16) kmsg.Response {
		if resp, ok := v.(*kmsg.ConsumerGroupHeartbeatResponse); ok {
			return resp
		}
		resp := req.ResponseKind().(*kmsg.ConsumerGroupHeartbeatResponse)
		resp.ErrorCode = code
		return resp
	})
	return nil, nil
}

// Looking at groups and deleting them: DescribeGroups (15, v0-6), ListGroups (16, v0-5), DeleteGroups (42, v0-2),
// ConsumerGroupDescribe (69, v0-1).

// each asks the coordinator of every group at once, and passes each answer, or the code instead, on in order.
func (s *Server) eachGroup(c *call, groups []string, event func(string) any, resp kmsg.Response, take func(id string, v any, code int16)) {
	calls, shards, errs := make([]*coordinator.Call, len(groups)), make([]*coordinator.Shard, len(groups)), make([]error, len(groups))
	for i, id := range groups {
		if shards[i], errs[i] = s.coordinators.Group(id); errs[i] == nil {
			calls[i] = shards[i].Start(event(id))
		}
	}
	s.laterAll(c, func(ctx context.Context) (kmsg.Response, error) {
		for i, id := range groups {
			var v any
			if errs[i] == nil {
				v, errs[i] = calls[i].Wait(ctx)
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			take(id, v, codeOf(errs[i]))
		}
		return resp, nil
	})
}

func (s *Server) describeGroups(_ context.Context, c *call, req *kmsg.DescribeGroupsRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.DescribeGroupsResponse)
	s.eachGroup(c, req.Groups, func(id string) any { return group.Describe{Group: id, Version: c.version} }, resp, func(id string, v any, code int16) {
		g, ok := v.(kmsg.DescribeGroupsResponseGroup)
		if !ok {
			g = kmsg.NewDescribeGroupsResponseGroup()
			g.Group, g.ErrorCode = id, code
		}
		g.AuthorizedOperations = operationsUnset
		if req.IncludeAuthorizedOperations {
			g.AuthorizedOperations = groupOperations
		}
		resp.Groups = append(resp.Groups, g)
	})
	return nil, nil
}

func (s *Server) consumerGroupDescribe(_ context.Context, c *call, req *kmsg.ConsumerGroupDescribeRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.ConsumerGroupDescribeResponse)
	s.eachGroup(c, req.Groups, func(id string) any { return group.DescribeConsumer{Group: id} }, resp, func(id string, v any, code int16) {
		g, ok := v.(kmsg.ConsumerGroupDescribeResponseGroup)
		if !ok {
			g = kmsg.NewConsumerGroupDescribeResponseGroup()
			g.Group, g.ErrorCode = id, code
		}
		g.AuthorizedOperations = operationsUnset
		if req.IncludeAuthorizedOperations {
			g.AuthorizedOperations = groupOperations
		}
		resp.Groups = append(resp.Groups, g)
	})
	return nil, nil
}

func (s *Server) deleteGroups(_ context.Context, c *call, req *kmsg.DeleteGroupsRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.DeleteGroupsResponse)
	s.eachGroup(c, slices.Compact(slices.Sorted(slices.Values(req.Groups))), func(id string) any { return group.Delete{Group: id} }, resp, func(id string, v any, code int16) {
		g := kmsg.NewDeleteGroupsResponseGroup()
		g.Group, g.ErrorCode = id, code
		if answer, ok := v.(int16); ok {
			g.ErrorCode = answer
		}
		resp.Groups = append(resp.Groups, g)
	})
	return nil, nil
}

func (s *Server) listGroups(_ context.Context, c *call, req *kmsg.ListGroupsRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.ListGroupsResponse)
	event := group.List{States: req.StatesFilter, Types: req.TypesFilter}
	s.eachShard(c, s.coordinators.Groups(), event, resp, func(v any, code int16) {
		if code != 0 { // Kafka gives what it has and says that it is not all
			resp.ErrorCode = code
		}
		groups, _ := v.([]kmsg.ListGroupsResponseGroup)
		resp.Groups = append(resp.Groups, groups...)
	})
	return nil, nil
}

// eachShard gives one event to every shard.
func (s *Server) eachShard(c *call, shards []*coordinator.Shard, event any, resp kmsg.Response, take func(v any, code int16)) {
	calls := make([]*coordinator.Call, len(shards))
	for i, shard := range shards {
		calls[i] = shard.Start(event)
	}
	s.laterAll(c, func(ctx context.Context) (kmsg.Response, error) {
		for _, started := range calls {
			v, err := started.Wait(ctx)
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			take(v, codeOf(err))
		}
		return resp, nil
	})
}
