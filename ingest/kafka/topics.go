package kafka

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/tier/record"
)

// CreateTopics (key 19, v2-7), DeleteTopics (key 20, v1-6), CreatePartitions (key 37, v0-3). All answer once the change is
// in effect on this broker: a topic takes writes the moment CreateTopics answers, its name is free the moment
// DeleteTopics does.

// maxAdminTimeout bounds how long an administrative request may hold a connection, whatever it asks for.
const maxAdminTimeout = 60 * time.Second

// adminContext bounds a request by its own timeout.
func adminContext(ctx context.Context, ms int32) (context.Context, context.CancelFunc) {
	d := time.Duration(ms) * time.Millisecond
	if d <= 0 || d > maxAdminTimeout {
		d = maxAdminTimeout
	}
	return context.WithTimeout(ctx, d)
}

func (s *Server) createTopics(ctx context.Context, _ *call, req *kmsg.CreateTopicsRequest) (kmsg.Response, error) {
	ctx, cancel := adminContext(ctx, req.TimeoutMillis)
	defer cancel()
	topics := make([]controller.NewTopic, len(req.Topics))
	for i := range req.Topics {
		topics[i] = newTopic(&req.Topics[i])
	}
	results := s.broker.Controller.CreateTopics(ctx, topics, req.ValidateOnly)
	settled := s.settle(ctx, results, req.ValidateOnly)
	resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
	answered := map[string]bool{} // a topic named twice is refused once
	for i := range results {
		r := &results[i]
		if answered[r.Name] {
			continue
		}
		answered[r.Name] = true
		if r.Err == nil {
			r.Err = settled
		}
		resp.Topics = append(resp.Topics, s.createdTopic(r))
	}
	return resp, nil
}

// settle waits until what was committed is in effect here.
func (s *Server) settle(ctx context.Context, results []controller.TopicResult, validateOnly bool) error {
	if validateOnly || !slices.ContainsFunc(results, func(r controller.TopicResult) bool { return r.Err == nil }) {
		return nil
	}
	return s.broker.Settled(ctx)
}

func newTopic(rt *kmsg.CreateTopicsRequestTopic) controller.NewTopic {
	t := controller.NewTopic{Name: rt.Topic, Partitions: rt.NumPartitions, ReplicationFactor: rt.ReplicationFactor, Configs: map[string]*string{}}
	for _, c := range rt.Configs {
		t.Configs[c.Name] = c.Value
	}
	for _, a := range rt.ReplicaAssignment {
		if t.Assignments == nil {
			t.Assignments = map[int32][]int32{}
		}
		t.Assignments[a.Partition] = a.Replicas
	}
	return t
}

func (s *Server) createdTopic(r *controller.TopicResult) kmsg.CreateTopicsResponseTopic {
	rt := kmsg.NewCreateTopicsResponseTopic()
	rt.Topic, rt.ErrorCode, rt.ErrorMessage = r.Name, codeOf(r.Err), messageOf(r.Err)
	rt.NumPartitions, rt.ReplicationFactor = -1, -1
	rt.Configs = []kmsg.CreateTopicsResponseTopicConfig{} // Java's admin client takes it as never null
	if r.Err != nil {
		return rt
	}
	rt.TopicID, rt.NumPartitions, rt.ReplicationFactor = r.ID, r.Partitions, r.ReplicationFactor
	for _, e := range config.DescribeTopic(r.Configs, s.broker.Config(), nil) {
		c := kmsg.NewCreateTopicsResponseTopicConfig()
		c.Name, c.Value, c.ReadOnly, c.Source, c.IsSensitive = e.Name, e.Value, e.ReadOnly, int8(e.Source), e.Sensitive
		rt.Configs = append(rt.Configs, c)
	}
	return rt
}

func (s *Server) deleteTopics(ctx context.Context, _ *call, req *kmsg.DeleteTopicsRequest) (kmsg.Response, error) {
	ctx, cancel := adminContext(ctx, req.TimeoutMillis)
	defer cancel()
	var refs []controller.TopicRef
	for _, name := range req.TopicNames {
		refs = append(refs, controller.TopicRef{Name: name})
	}
	for _, t := range req.Topics {
		ref := controller.TopicRef{ID: record.TopicID(t.TopicID)}
		if t.Topic != nil {
			ref.Name = *t.Topic
		}
		refs = append(refs, ref)
	}
	results := s.broker.Controller.DeleteTopics(ctx, refs)
	settled := s.settle(ctx, results, false)
	resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	for i := range results {
		r := &results[i]
		if r.Err == nil {
			r.Err = settled
		}
		rt := kmsg.NewDeleteTopicsResponseTopic()
		rt.TopicID, rt.ErrorCode, rt.ErrorMessage = r.ID, codeOf(r.Err), messageOf(r.Err)
		if r.Name != "" || req.Version < 6 {
			rt.Topic = &r.Name
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

func (s *Server) createPartitions(ctx context.Context, _ *call, req *kmsg.CreatePartitionsRequest) (kmsg.Response, error) {
	ctx, cancel := adminContext(ctx, req.TimeoutMillis)
	defer cancel()
	growths := make([]controller.Growth, len(req.Topics))
	for i, t := range req.Topics {
		growths[i] = controller.Growth{Name: t.Topic, Count: t.Count}
		if t.Assignment != nil {
			growths[i].Assignments = [][]int32{}
			for _, a := range t.Assignment {
				growths[i].Assignments = append(growths[i].Assignments, a.Replicas)
			}
		}
	}
	results := s.broker.Controller.CreatePartitions(ctx, growths, req.ValidateOnly)
	settled := s.settle(ctx, results, req.ValidateOnly)
	resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
	for i := range results {
		r := &results[i]
		if r.Err == nil {
			r.Err = settled
		}
		rt := kmsg.NewCreatePartitionsResponseTopic()
		rt.Topic, rt.ErrorCode, rt.ErrorMessage = r.Name, codeOf(r.Err), messageOf(r.Err)
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}
