package protocol

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func deleteRecordsRequest(tp topic, partition int32, before int64) *kmsg.DeleteRecordsRequest {
	req := kmsg.NewPtrDeleteRecordsRequest()
	p := kmsg.NewDeleteRecordsRequestTopicPartition()
	p.Partition, p.Offset = partition, before
	one := kmsg.NewDeleteRecordsRequestTopic()
	one.Topic, one.Partitions = tp.name, append(one.Partitions, p)
	req.Topics, req.TimeoutMillis = append(req.Topics, one), 15_000
	return req
}

func deleteRecords(c *Conn, version int16, tp topic, partition int32, before int64) kmsg.DeleteRecordsResponseTopicPartition {
	c.t.Helper()
	return Ask[*kmsg.DeleteRecordsResponse](c, version, deleteRecordsRequest(tp, partition, before)).Topics[0].Partitions[0]
}

var deleteRecordsRules = []rule{
	{"§3.11", "DeleteRecords: the log start moves to the offset, which need not be a batch's; -1 is the high watermark; it never moves back", func(t *testing.T, b *broker) {
		c := b.dial(t)
		for version := range int16(3) {
			tp := b.topic(t, 1)
			mustProduce(c, tp, 0, batch(t, "0", "1", "2", "3"))
			mustProduce(c, tp, 0, batch(t, "4", "5"))
			for _, s := range []struct{ before, start int64 }{{0, 0}, {2, 2}, {1, 2}, {5, 5}, {-1, 6}, {6, 6}} {
				got := deleteRecords(c, version, tp, 0, s.before)
				wantCode(t, fmt.Sprintf("before %d", s.before), got.ErrorCode, nil)
				want(t, fmt.Sprintf("low watermark after %d", s.before), got.LowWatermark, s.start)
				want(t, "log start", listOffset(c, 7, tp, 0, earliest).Offset, s.start)
				if s.start == 2 { // the batch comes whole: the consumer drops what is below its offset
					batches, _ := decode(t, fetch(c, tp, 0, 2).RecordBatches)
					want(t, "base of the first batch", int64(batches[0].BaseOffset()), 0)
				}
				want(t, "produce answers with it", listOffset(c, 7, tp, 0, latest).Offset, 6)
			}
			got := produce(c, tp, 0, batch(t, "6"))
			want(t, "base offset", got.BaseOffset, 6)
			want(t, "log start of a produce", got.LogStartOffset, 6)
		}
	}},
	{"§3.11", "DeleteRecords: above the high watermark or below 0: OFFSET_OUT_OF_RANGE; unknown: UNKNOWN_TOPIC_OR_PARTITION", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a")
		for _, before := range []int64{2, 1 << 40, -2} {
			got := deleteRecords(c, 2, tp, 0, before)
			wantCode(t, fmt.Sprintf("before %d", before), got.ErrorCode, kerr.OffsetOutOfRange)
			want(t, "low watermark", got.LowWatermark, -1)
		}
		wantCode(t, "partition", deleteRecords(c, 2, tp, 3, 0).ErrorCode, kerr.UnknownTopicOrPartition)
		wantCode(t, "topic", deleteRecords(c, 2, topic{name: freshName()}, 0, 0).ErrorCode, kerr.UnknownTopicOrPartition)
	}},
	{"§3.11", "DeleteRecords of a compact-only topic: POLICY_VIOLATION; of compact,delete it works", func(t *testing.T, b *broker) {
		c := b.dial(t)
		compact, both := b.topic(t, 1, "cleanup.policy=compact"), b.topic(t, 1, "cleanup.policy=compact,delete")
		fill(t, c, compact, 0, "a")
		fill(t, c, both, 0, "a")
		wantCode(t, "compact", deleteRecords(c, 2, compact, 0, 1).ErrorCode, kerr.PolicyViolation)
		wantCode(t, "compact,delete", deleteRecords(c, 2, both, 0, 1).ErrorCode, nil)
	}},
}

func describeClusterRequest() *kmsg.DescribeClusterRequest {
	req := kmsg.NewPtrDescribeClusterRequest()
	req.EndpointType = 1
	return req
}

func describePartitionsRequest(names ...string) *kmsg.DescribeTopicPartitionsRequest {
	req := kmsg.NewPtrDescribeTopicPartitionsRequest()
	req.ResponsePartitionLimit = 2000
	for _, name := range names {
		one := kmsg.NewDescribeTopicPartitionsRequestTopic()
		one.Topic = name
		req.Topics = append(req.Topics, one)
	}
	return req
}

var clusterRules = []rule{
	{"§3.11", "DescribeCluster: cluster id, controller and brokers, as Metadata has them", func(t *testing.T, b *broker) {
		c := b.dial(t)
		meta := Ask[*kmsg.MetadataResponse](c, 9, metadataRequest())
		for version := range int16(3) {
			got := Ask[*kmsg.DescribeClusterResponse](c, version, describeClusterRequest())
			want(t, "cluster id", got.ClusterID, *meta.ClusterID)
			want(t, "controller", got.ControllerID, 1)
			want(t, "operations", got.ClusterAuthorizedOperations, noOperations)
			if len(got.Brokers) != 1 || got.Brokers[0].NodeID != 1 || got.Brokers[0].Host != meta.Brokers[0].Host || got.Brokers[0].Port != meta.Brokers[0].Port || got.Brokers[0].IsFenced {
				t.Errorf("v%d: brokers %+v, want %+v", version, got.Brokers, meta.Brokers)
			}
			if version >= 1 {
				want(t, "endpoint type", got.EndpointType, 1)
			}
			with := describeClusterRequest()
			with.IncludeClusterAuthorizedOperations = true
			want(t, "operations", Ask[*kmsg.DescribeClusterResponse](c, version, with).ClusterAuthorizedOperations, 0b1_1111_1010_0000)
		}
	}},
	{"§3.11", "DescribeCluster: EndpointType 2 on a broker: MISMATCHED_ENDPOINT_TYPE; unknown: UNSUPPORTED_ENDPOINT_TYPE", func(t *testing.T, b *broker) {
		c := b.dial(t)
		for version := int16(1); version <= 2; version++ {
			for kind, code := range map[int8]*kerr.Error{2: kerr.MismatchedEndpointType, 3: kerr.UnsupportedEndpointType, 0: kerr.UnsupportedEndpointType} {
				req := describeClusterRequest()
				req.EndpointType = kind
				wantCode(t, fmt.Sprintf("v%d, type %d", version, kind), Ask[*kmsg.DescribeClusterResponse](c, version, req).ErrorCode, code)
			}
		}
	}},
	{"§3.11", "DescribeLogDirs: null topics = all, with the bytes of each partition; TotalBytes and UsableBytes from v4", func(t *testing.T, b *broker) {
		tp := b.topic(t, 2)
		c := b.dial(t)
		fill(t, c, tp, 1, kilobyte("a"), kilobyte("b"))
		one := kmsg.NewDescribeLogDirsRequestTopic()
		one.Topic, one.Partitions = tp.name, []int32{0, 1}
		for version := int16(1); version <= 5; version++ {
			for _, topics := range [][]kmsg.DescribeLogDirsRequestTopic{nil, {one}} {
				req := kmsg.NewPtrDescribeLogDirsRequest()
				req.Topics = topics
				sizes := map[int32]int64{}
				others := 0
				for _, dir := range Ask[*kmsg.DescribeLogDirsResponse](c, version, req).Dirs {
					wantCode(t, dir.Dir, dir.ErrorCode, nil)
					if version >= 4 && (dir.TotalBytes <= 0 || dir.UsableBytes <= 0 || dir.UsableBytes > dir.TotalBytes) {
						t.Errorf("v%d: %d of %d bytes usable", version, dir.UsableBytes, dir.TotalBytes)
					}
					for _, topic := range dir.Topics {
						if topic.Topic != tp.name {
							others++
							continue
						}
						for _, p := range topic.Partitions {
							sizes[p.Partition] = p.Size
							want(t, "lag", p.OffsetLag, 0)
							want(t, "future", p.IsFuture, false)
						}
					}
				}
				if len(sizes) != 2 || sizes[1] < 2000 {
					t.Errorf("v%d: sizes %v, want two partitions, the second of 2000 bytes at least", version, sizes)
				}
				if topics != nil {
					want(t, "topics not asked for", others, 0)
				}
			}
		}
	}},
	{"§3.11", "DescribeTopicPartitions: topics in order of their names, lists that are never null", func(t *testing.T, b *broker) {
		one, two := b.topic(t, 2), b.topic(t, 1)
		c := b.dial(t)
		names := []string{one.name, two.name, "zzz-" + freshName(), "z/z"}
		slices.Sort(names)
		req := describePartitionsRequest(names...)
		slices.Reverse(req.Topics)
		resp := Ask[*kmsg.DescribeTopicPartitionsResponse](c, 0, req)
		var got []string
		for _, topic := range resp.Topics {
			got = append(got, *topic.Topic)
			switch *topic.Topic {
			case one.name, two.name:
				wantCode(t, "known", topic.ErrorCode, nil)
				for i, p := range topic.Partitions {
					want(t, "partition", p.Partition, int32(i))
					want(t, "leader", p.LeaderID, 1)
					if p.EligibleLeaderReplicas == nil || p.LastKnownELR == nil || !slices.Equal(p.Replicas, []int32{1}) || !slices.Equal(p.ISR, []int32{1}) {
						t.Errorf("partition %+v, want lists that Java's Admin takes", p)
					}
				}
			case "z/z":
				wantCode(t, "illegal", topic.ErrorCode, kerr.InvalidTopicException)
			default:
				wantCode(t, "unknown", topic.ErrorCode, kerr.UnknownTopicOrPartition)
			}
		}
		if !slices.Equal(got, names) {
			t.Errorf("topics %q, want %q", got, names)
		}
		if resp.NextCursor != nil {
			t.Errorf("cursor %+v at the end", resp.NextCursor)
		}
	}},
	{"§3.11", "DescribeTopicPartitions: at most ResponsePartitionLimit partitions, the rest by the cursor", func(t *testing.T, b *broker) {
		one, two := b.topic(t, 3), b.topic(t, 3)
		c := b.dial(t)
		var cursor *kmsg.DescribeTopicPartitionsRequestCursor
		var got []string
		for range 6 {
			req := describePartitionsRequest(one.name, two.name)
			req.ResponsePartitionLimit, req.Cursor = 2, cursor
			resp := Ask[*kmsg.DescribeTopicPartitionsResponse](c, 0, req)
			n := 0
			for _, topic := range resp.Topics {
				for _, p := range topic.Partitions {
					got = append(got, fmt.Sprintf("%s/%d", *topic.Topic, p.Partition))
					n++
				}
			}
			if n > 2 {
				t.Errorf("%d partitions, want at most 2", n)
			}
			if resp.NextCursor == nil {
				break
			}
			cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: resp.NextCursor.Topic, Partition: resp.NextCursor.Partition}
		}
		names := []string{one.name, two.name}
		slices.Sort(names)
		var all []string
		for _, name := range names {
			for p := range 3 {
				all = append(all, fmt.Sprintf("%s/%d", name, p))
			}
		}
		if !slices.Equal(got, all) {
			t.Errorf("partitions %q, want %q", got, all)
		}
	}},
	{"§3.11", "DescribeTopicPartitions of no topics: all topics", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		found := false
		for _, topic := range Ask[*kmsg.DescribeTopicPartitionsResponse](b.dial(t), 0, describePartitionsRequest()).Topics {
			found = found || *topic.Topic == tp.name
		}
		want(t, "the topic is among all", found, true)
	}},
}
