package kafka

import (
	"context"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/cluster/group"
	"github.com/everlog/everlog/tier/record"
)

// Committed offsets: OffsetCommit (key 8, v2-10), OffsetFetch (9, v1-10; KIP-709, KIP-848), OffsetDelete (47, v0; KIP-496).
// Topics that do not exist are answered here; the group's coordinator sees what is left.

// identify reports whether a topic, named by its name or in newer versions by its id, has a partition, and fills in the other
// of the two.
func (s *Server) identify(name *string, id *[16]byte, byID bool, partition int32) int16 {
	t := s.broker.Image().Topic(*name)
	if byID {
		if t = s.broker.Image().TopicByID(record.TopicID(*id)); t == nil {
			return codeUnknownTopicID
		}
	}
	if t == nil || partition < 0 || int(partition) >= len(t.Partitions) {
		return codeUnknownTopicOrPartition
	}
	*name, *id = t.Name, t.ID
	return 0
}

func (s *Server) offsetCommit(_ context.Context, c *call, req *kmsg.OffsetCommitRequest) (kmsg.Response, error) {
	type refused struct {
		topic, partition int
		code             int16
	}
	byID := c.version >= 10
	all := make([]kmsg.OffsetCommitRequestTopic, len(req.Topics)) // as asked for; req keeps what can be committed
	copy(all, req.Topics)
	var bad []refused
	req.Topics = nil
	for i := range all {
		t := all[i]
		t.Partitions = nil
		for j := range all[i].Partitions {
			if code := s.identify(&t.Topic, &t.TopicID, byID, all[i].Partitions[j].Partition); code != 0 {
				bad = append(bad, refused{i, j, code})
				continue
			}
			t.Partitions = append(t.Partitions, all[i].Partitions[j])
		}
		if len(t.Partitions) > 0 {
			req.Topics = append(req.Topics, t)
		}
	}
	answer := func(v any, code int16) kmsg.Response {
		good, _ := v.(*kmsg.OffsetCommitResponse)
		resp := req.ResponseKind().(*kmsg.OffsetCommitResponse)
		next := 0 // of bad, which has the order of all
		var codes []int16
		if good != nil {
			codes = committedCodes(good)
		}
		for i := range all {
			rt := kmsg.NewOffsetCommitResponseTopic()
			rt.Topic, rt.TopicID = all[i].Topic, all[i].TopicID
			for j, p := range all[i].Partitions {
				rp := kmsg.NewOffsetCommitResponseTopicPartition()
				rp.Partition = p.Partition
				switch {
				case next < len(bad) && bad[next].topic == i && bad[next].partition == j:
					rp.ErrorCode = bad[next].code
					next++
				case len(codes) > 0:
					rp.ErrorCode, codes = codes[0], codes[1:]
				default:
					rp.ErrorCode = code
				}
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp
	}
	if len(req.Topics) == 0 {
		return answer(nil, 0), nil
	}
	shard, err := s.coordinators.Group(req.Group)
	s.later(c, shard, err, groupRequest(c, req), answer)
	return nil, nil
}

// committedCodes are the coordinator's codes in the order of the request.
func committedCodes(resp *kmsg.OffsetCommitResponse) (codes []int16) {
	for i := range resp.Topics {
		for _, p := range resp.Topics[i].Partitions {
			codes = append(codes, p.ErrorCode)
		}
	}
	return codes
}

func (s *Server) offsetFetch(_ context.Context, c *call, req *kmsg.OffsetFetchRequest) (kmsg.Response, error) {
	groups := req.Groups
	if c.version < 8 {
		groups = []kmsg.OffsetFetchRequestGroup{oneGroup(req)}
	}
	answers := make([]func(context.Context) (kmsg.OffsetFetchResponseGroup, error), len(groups))
	for i := range groups {
		answers[i] = s.fetchOffsets(c, &groups[i], req.RequireStable)
	}
	resp := req.ResponseKind().(*kmsg.OffsetFetchResponse)
	s.laterAll(c, func(ctx context.Context) (kmsg.Response, error) {
		for _, answer := range answers {
			g, err := answer(ctx)
			if err != nil {
				return nil, err
			}
			resp.Groups = append(resp.Groups, g)
		}
		if c.version < 8 {
			flatten(resp, c.version, groups[0].Topics)
		}
		return resp, nil
	})
	return nil, nil
}

// oneGroup is a request of before v8, which asks for one group, as one of later. Null topics are all topics.
func oneGroup(req *kmsg.OffsetFetchRequest) kmsg.OffsetFetchRequestGroup {
	g := kmsg.NewOffsetFetchRequestGroup()
	g.Group, g.MemberEpoch = req.Group, -1
	if req.Topics != nil {
		g.Topics = []kmsg.OffsetFetchRequestGroupTopic{}
	}
	for _, t := range req.Topics {
		gt := kmsg.NewOffsetFetchRequestGroupTopic()
		gt.Topic, gt.Partitions = t.Topic, t.Partitions
		g.Topics = append(g.Topics, gt)
	}
	return g
}

// flatten gives the answer of one group the form of before v8. Before v2 there is no code for the whole: each partition has it.
func flatten(resp *kmsg.OffsetFetchResponse, version int16, asked []kmsg.OffsetFetchRequestGroupTopic) {
	g := resp.Groups[0]
	resp.Groups, resp.ErrorCode = nil, g.ErrorCode
	if g.ErrorCode != 0 && len(g.Topics) == 0 && version < 2 {
		g.Topics = failedTopics(asked, g.ErrorCode)
	}
	for _, t := range g.Topics {
		rt := kmsg.NewOffsetFetchResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetFetchResponseTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata, rp.ErrorCode = p.Partition, p.Offset, p.LeaderEpoch, p.Metadata, p.ErrorCode
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
}

// failedTopics answers every partition asked for with a code.
func failedTopics(asked []kmsg.OffsetFetchRequestGroupTopic, code int16) []kmsg.OffsetFetchResponseGroupTopic {
	topics := []kmsg.OffsetFetchResponseGroupTopic{}
	empty := ""
	for _, t := range asked {
		rt := kmsg.NewOffsetFetchResponseGroupTopic()
		rt.Topic, rt.TopicID = t.Topic, t.TopicID
		for _, p := range t.Partitions {
			rp := kmsg.NewOffsetFetchResponseGroupTopicPartition()
			rp.Partition, rp.Offset, rp.LeaderEpoch, rp.Metadata, rp.ErrorCode = p, -1, -1, &empty, code
			rt.Partitions = append(rt.Partitions, rp)
		}
		topics = append(topics, rt)
	}
	return topics
}

// fetchOffsets asks a group's coordinator and returns what waits for the answer.
func (s *Server) fetchOffsets(c *call, g *kmsg.OffsetFetchRequestGroup, stable bool) func(context.Context) (kmsg.OffsetFetchResponseGroup, error) {
	var unknown []kmsg.OffsetFetchRequestGroupTopic
	if c.version >= 10 && g.Topics != nil {
		known := []kmsg.OffsetFetchRequestGroupTopic{}
		for _, t := range g.Topics {
			if s.identify(&t.Topic, &t.TopicID, true, 0) == codeUnknownTopicID {
				unknown = append(unknown, t)
			} else {
				known = append(known, t)
			}
		}
		g.Topics = known
	}
	shard, err := s.coordinators.Group(g.Group)
	var started *coordinator.Call
	if err == nil {
		started = shard.Start(group.FetchOffsets{Group: *g, RequireStable: stable, Version: c.version})
	}
	return func(ctx context.Context) (kmsg.OffsetFetchResponseGroup, error) {
		var v any
		if err == nil {
			v, err = started.Wait(ctx)
		}
		if ctx.Err() != nil {
			return kmsg.OffsetFetchResponseGroup{}, ctx.Err()
		}
		resp, ok := v.(kmsg.OffsetFetchResponseGroup)
		if !ok {
			resp = kmsg.NewOffsetFetchResponseGroup()
			resp.ErrorCode = codeOf(err)
		}
		resp.Group = g.Group
		if resp.ErrorCode == 0 {
			resp.Topics = append(resp.Topics, failedTopics(unknown, codeUnknownTopicID)...)
		}
		return resp, nil
	}
}

func (s *Server) offsetDelete(_ context.Context, c *call, req *kmsg.OffsetDeleteRequest) (kmsg.Response, error) {
	type at struct {
		topic     string
		partition int32
	}
	asked := req.Topics
	unknown := map[at]bool{}
	req.Topics = nil
	for _, t := range asked {
		known := t
		known.Partitions = nil
		for _, p := range t.Partitions {
			if s.identify(&known.Topic, new([16]byte), false, p.Partition) != 0 {
				unknown[at{t.Topic, p.Partition}] = true
				continue
			}
			known.Partitions = append(known.Partitions, p)
		}
		if len(known.Partitions) > 0 {
			req.Topics = append(req.Topics, known)
		}
	}
	shard, err := s.coordinators.Group(req.Group)
	s.later(c, shard, err, groupRequest(c, req), func(v any, code int16) kmsg.Response {
		resp, ok := v.(*kmsg.OffsetDeleteResponse)
		if !ok {
			resp = req.ResponseKind().(*kmsg.OffsetDeleteResponse)
			resp.ErrorCode = code
		}
		if resp.ErrorCode != 0 {
			return resp
		}
		for _, t := range asked {
			rt := kmsg.NewOffsetDeleteResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				if unknown[at{t.Topic, p.Partition}] {
					rp := kmsg.NewOffsetDeleteResponseTopicPartition()
					rp.Partition, rp.ErrorCode = p.Partition, codeUnknownTopicOrPartition
					rt.Partitions = append(rt.Partitions, rp)
				}
			}
			if len(rt.Partitions) > 0 {
				resp.Topics = append(resp.Topics, rt)
			}
		}
		return resp
	})
	return nil, nil
}
