package kafka

import (
	"context"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/metadata"
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

func (s *Server) createTopics(ctx context.Context, c *call, req *kmsg.CreateTopicsRequest) (kmsg.Response, error) {
	ctx, cancel := adminContext(ctx, req.TimeoutMillis)
	defer cancel()
	topics, mutations := make([]controller.NewTopic, len(req.Topics)), make([]mutation, len(req.Topics))
	for i := range req.Topics {
		topics[i] = newTopic(&req.Topics[i])
		mutations[i].blank.Name, mutations[i].partitions = topics[i].Name, s.partitionsOf(&topics[i])
	}
	create := func(some []int) []controller.TopicResult {
		return s.broker.Controller.CreateTopics(ctx, pick(topics, some), req.ValidateOnly)
	}
	check := func(some []int) []controller.TopicResult {
		return s.broker.Controller.CreateTopics(ctx, pick(topics, some), true)
	}
	results := s.rationed(c, mutations, req.Version >= 6, create, check)
	settled := s.settle(ctx, results, req.ValidateOnly)
	resp := req.ResponseKind().(*kmsg.CreateTopicsResponse)
	resp.ThrottleMillis = millis(c.throttle)
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

// partitionsOf is how many partitions a topic is to have.
func (s *Server) partitionsOf(t *controller.NewTopic) int {
	switch {
	case t.Assignments != nil:
		return len(t.Assignments)
	case t.Partitions == -1:
		return int(s.broker.Config().NumPartitions)
	}
	return max(int(t.Partitions), 0)
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

func (s *Server) deleteTopics(ctx context.Context, c *call, req *kmsg.DeleteTopicsRequest) (kmsg.Response, error) {
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
	mutations := make([]mutation, len(refs))
	for i, ref := range refs {
		mutations[i].blank = controller.TopicResult{Name: ref.Name, ID: ref.ID}
		if t := s.topicOf(ref); t != nil {
			mutations[i].partitions = len(t.Partitions)
		}
	}
	remove := func(some []int) []controller.TopicResult {
		return s.broker.Controller.DeleteTopics(ctx, pick(refs, some))
	}
	results := s.rationed(c, mutations, req.Version >= 5, remove, nil)
	settled := s.settle(ctx, results, false)
	resp := req.ResponseKind().(*kmsg.DeleteTopicsResponse)
	resp.ThrottleMillis = millis(c.throttle)
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

// topicOf is the topic that a reference names, or nil.
func (s *Server) topicOf(ref controller.TopicRef) *metadata.Topic {
	if ref.Name != "" {
		return s.broker.Image().Topic(ref.Name)
	}
	return s.broker.Image().TopicByID(ref.ID)
}

func (s *Server) createPartitions(ctx context.Context, c *call, req *kmsg.CreatePartitionsRequest) (kmsg.Response, error) {
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
	mutations := make([]mutation, len(growths))
	for i, g := range growths {
		mutations[i].blank.Name = g.Name
		if t := s.broker.Image().Topic(g.Name); t != nil {
			mutations[i].partitions = max(int(g.Count)-len(t.Partitions), 0)
		}
	}
	grow := func(some []int) []controller.TopicResult {
		return s.broker.Controller.CreatePartitions(ctx, pick(growths, some), req.ValidateOnly)
	}
	check := func(some []int) []controller.TopicResult {
		return s.broker.Controller.CreatePartitions(ctx, pick(growths, some), true)
	}
	results := s.rationed(c, mutations, req.Version >= 3, grow, check)
	settled := s.settle(ctx, results, req.ValidateOnly)
	resp := req.ResponseKind().(*kmsg.CreatePartitionsResponse)
	resp.ThrottleMillis = millis(c.throttle)
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
