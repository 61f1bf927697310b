package kafka

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
	"golang.org/x/sync/errgroup"

	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/record"
)

// ListOffsets (key 2, v1-11; KIP-79, KIP-98, KIP-320, KIP-734, KIP-405, KIP-1005, KIP-1075, KIP-1023).

// Timestamps with a meaning of their own, and the version each came with.
const (
	latest                = -1
	earliest              = -2
	maxTimestamp          = -3 // v7
	earliestLocal         = -4 // v8
	latestTiered          = -5 // v9
	earliestPendingUpload = -6 // v11
)

var specialSince = map[int64]int16{latest: 1, earliest: 1, maxTimestamp: 7, earliestLocal: 8, latestTiered: 9, earliestPendingUpload: 11}

// Bounds of looking into the object store for timestamps.
const (
	listOffsetsTimeout  = 30 * time.Second // remote.list.offsets.request.timeout.ms
	listOffsetsParallel = 16
)

// listOffsets looks when the requests before it are answered: what they wrote is there.
func (s *Server) listOffsets(_ context.Context, c *call, req *kmsg.ListOffsetsRequest) (kmsg.Response, error) {
	s.laterAll(c, func(ctx context.Context) (kmsg.Response, error) { return s.findOffsets(ctx, req), ctx.Err() })
	return nil, nil
}

func (s *Server) findOffsets(ctx context.Context, req *kmsg.ListOffsetsRequest) kmsg.Response {
	timeout := listOffsetsTimeout
	if req.Version >= 10 && req.TimeoutMillis > 0 {
		timeout = min(timeout, time.Duration(req.TimeoutMillis)*time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	resp := req.ResponseKind().(*kmsg.ListOffsetsResponse)
	resp.Topics = make([]kmsg.ListOffsetsResponseTopic, len(req.Topics))
	type at struct {
		topic     string
		partition int32
	}
	seen := map[at]int{}
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			seen[at{t.Topic, p.Partition}]++
		}
	}
	var g errgroup.Group
	g.SetLimit(listOffsetsParallel)
	for i := range req.Topics {
		t := &req.Topics[i]
		out := &resp.Topics[i]
		*out = kmsg.NewListOffsetsResponseTopic()
		out.Topic, out.Partitions = t.Topic, make([]kmsg.ListOffsetsResponseTopicPartition, len(t.Partitions))
		for j := range t.Partitions {
			p, po := &t.Partitions[j], &out.Partitions[j]
			*po = kmsg.NewListOffsetsResponseTopicPartition()
			po.Partition, po.Timestamp, po.Offset, po.LeaderEpoch = p.Partition, -1, -1, -1
			if seen[at{t.Topic, p.Partition}] > 1 {
				po.ErrorCode = codeInvalidRequest
				continue
			}
			g.Go(func() error {
				found, err := s.listOffset(ctx, req, t.Topic, p)
				po.ErrorCode = codeOf(err)
				if err == nil {
					po.Offset, po.Timestamp, po.LeaderEpoch = int64(found.Offset), found.Timestamp, int32(found.Epoch)
				}
				return nil
			})
		}
	}
	_ = g.Wait() // each partition carries its own error
	return resp
}

func (s *Server) listOffset(ctx context.Context, req *kmsg.ListOffsetsRequest, topic string, rp *kmsg.ListOffsetsRequestTopicPartition) (partition.Found, error) {
	p, err := s.partition(topic, rp.Partition)
	if err != nil {
		return partition.Found{}, err
	}
	known := record.NoEpoch
	if req.Version >= 4 {
		known = record.LeaderEpoch(rp.CurrentLeaderEpoch)
	}
	if err := p.CheckEpoch(known); err != nil {
		return partition.Found{}, err
	}
	committed := req.IsolationLevel == 1
	if since, special := specialSince[rp.Timestamp]; rp.Timestamp < 0 && (!special || req.Version < since) {
		return partition.Found{}, fmt.Errorf("%w: timestamp %d in ListOffsets v%d", errVersion, rp.Timestamp, req.Version)
	}
	switch rp.Timestamp {
	case latest:
		return p.Latest(committed), nil
	case earliest:
		return p.Earliest(), nil
	case maxTimestamp:
		return p.MaxTimestamp(ctx)
	case earliestLocal:
		return p.EarliestLocal(), nil
	case latestTiered:
		return p.LatestTiered(), nil
	case earliestPendingUpload:
		return p.EarliestPendingUpload(), nil
	}
	return p.FindTime(ctx, rp.Timestamp, committed)
}

// partition is a local partition by topic name.
func (s *Server) partition(topic string, index int32) (*partition.Partition, error) {
	t := s.broker.Image().Topic(topic)
	if t == nil {
		return nil, errUnknownTopic
	}
	return s.broker.Partition(t, index)
}

// OffsetForLeaderEpoch (key 23, v2-4; KIP-101, KIP-320).
func (s *Server) offsetForLeaderEpoch(_ context.Context, _ *call, req *kmsg.OffsetForLeaderEpochRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.OffsetForLeaderEpochResponse)
	for _, t := range req.Topics {
		out := kmsg.NewOffsetForLeaderEpochResponseTopic()
		out.Topic = t.Topic
		for _, rp := range t.Partitions {
			po := kmsg.NewOffsetForLeaderEpochResponseTopicPartition()
			po.Partition, po.LeaderEpoch, po.EndOffset = rp.Partition, -1, -1
			p, err := s.partition(t.Topic, rp.Partition)
			if err == nil {
				err = p.CheckEpoch(record.LeaderEpoch(rp.CurrentLeaderEpoch))
			}
			if err == nil {
				epoch, end := p.EndOffsetFor(record.LeaderEpoch(rp.LeaderEpoch))
				po.LeaderEpoch, po.EndOffset = int32(epoch), int64(end)
			}
			po.ErrorCode = codeOf(err)
			out.Partitions = append(out.Partitions, po)
		}
		resp.Topics = append(resp.Topics, out)
	}
	return resp, nil
}
