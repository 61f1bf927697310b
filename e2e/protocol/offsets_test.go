package protocol

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/e2e/harness"
	"github.com/everlog/everlog/tier/record"
)

// Special timestamps of ListOffsets.
const (
	latest        = -1
	earliest      = -2
	maxTimestamp  = -3
	earliestLocal = -4
	latestTiered  = -5
	pendingUpload = -6
)

// wantOffset compares an answer of ListOffsets.
func wantOffset(t *testing.T, what string, got kmsg.ListOffsetsResponseTopicPartition, offset, timestamp int64) {
	t.Helper()
	wantCode(t, what, got.ErrorCode, nil)
	want(t, what+": offset", got.Offset, offset)
	want(t, what+": timestamp", got.Timestamp, timestamp)
}

var listOffsetsRules = []rule{
	{"§3.6", "-1 LATEST: the high watermark, timestamp -1, the current leader epoch; -2 EARLIEST: the log start, timestamp -1", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		for version := int16(1); version <= 11; version++ {
			wantOffset(t, "latest of an empty log", listOffset(c, version, tp, 0, latest), 0, -1)
			wantOffset(t, "earliest of an empty log", listOffset(c, version, tp, 0, earliest), 0, -1)
		}
		fill(t, c, tp, 0, "a", "b", "c", "d")
		wantNoErrors(t, "delete records", Ask[*kmsg.DeleteRecordsResponse](c, 2, deleteRecordsRequest(tp, 0, 1)))
		epoch := Ask[*kmsg.MetadataResponse](c, 9, metadataRequest(tp.name)).Topics[0].Partitions[0].LeaderEpoch
		for version := int16(1); version <= 11; version++ {
			end, start := listOffset(c, version, tp, 0, latest), listOffset(c, version, tp, 0, earliest)
			wantOffset(t, "latest", end, 4, -1)
			wantOffset(t, "earliest", start, 1, -1)
			if version >= 4 {
				want(t, "epoch of the end", end.LeaderEpoch, epoch)
				want(t, "epoch of the start", start.LeaderEpoch, epoch)
			}
			req := listRequest(tp, 0, latest)
			req.IsolationLevel = 1
			wantOffset(t, "latest for read_committed", Ask[*kmsg.ListOffsetsResponse](c, version, req).Topics[0].Partitions[0], 4, -1)
		}
	}},
	{"§3.6", "a time: the first record with that timestamp or a later one; none: offset -1, timestamp -1, no error", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "retention.ms=-1")
		c := b.dial(t)
		for _, codec := range allCodecs { // out of order inside a batch, and between batches
			mustProduce(c, tp, 0, mixed(t, codec, 1000, 3000, 2000))
			mustProduce(c, tp, 0, mixed(t, codec, 500, 4000))
		}
		for version := int16(1); version <= 11; version++ {
			for _, at := range []struct{ from, offset, timestamp int64 }{
				{0, 0, 1000}, {1000, 0, 1000}, {1001, 1, 3000}, {3000, 1, 3000}, {3001, 4, 4000}, {4000, 4, 4000}, {4001, -1, -1}, {time.Now().UnixMilli(), -1, -1},
			} {
				got := listOffset(c, version, tp, 0, at.from)
				wantOffset(t, fmt.Sprintf("v%d: at %d", version, at.from), got, at.offset, at.timestamp)
				if version >= 4 {
					want(t, "epoch is known", got.LeaderEpoch >= 0, at.offset >= 0)
				}
			}
		}
	}},
	{"§3.6", "a time below the log start is answered from the log start", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "retention.ms=-1")
		c := b.dial(t)
		mustProduce(c, tp, 0, mixed(t, record.None, 1000, 2000, 3000))
		mustProduce(c, tp, 0, mixed(t, record.Gzip, 4000))
		wantNoErrors(t, "delete records", Ask[*kmsg.DeleteRecordsResponse](c, 2, deleteRecordsRequest(tp, 0, 2)))
		wantOffset(t, "at 0", listOffset(c, 7, tp, 0, 0), 2, 3000)
		wantOffset(t, "at 3001", listOffset(c, 7, tp, 0, 3001), 3, 4000)
	}},
	{"§3.6", "by time with LogAppendTime: the time of the append", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "message.timestamp.type=LogAppendTime")
		c := b.dial(t)
		got := produce(c, tp, 0, batchAt(t, record.Attrs{}, 1000, "a", "b"))
		wantOffset(t, "at the producer's time", listOffset(c, 7, tp, 0, 1000), 0, got.LogAppendTime)
		wantOffset(t, "at the append", listOffset(c, 7, tp, 0, got.LogAppendTime), 0, got.LogAppendTime)
		wantOffset(t, "after the append", listOffset(c, 7, tp, 0, got.LogAppendTime+1), -1, -1)
		wantOffset(t, "largest", listOffset(c, 7, tp, 0, maxTimestamp), 0, got.LogAppendTime)
	}},
	{"§3.6", "-3 MAX_TIMESTAMP (v7): offset and timestamp of the record with the largest timestamp; -1/-1 if empty", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "retention.ms=-1")
		c := b.dial(t)
		for version := int16(7); version <= 11; version++ {
			wantOffset(t, "empty", listOffset(c, version, tp, 0, maxTimestamp), -1, -1)
		}
		mustProduce(c, tp, 0, mixed(t, record.None, 1000, 5000, 5000, 2000))
		mustProduce(c, tp, 0, mixed(t, record.LZ4, 4000, 5000, 3000))
		for version := int16(7); version <= 11; version++ {
			wantOffset(t, "largest", listOffset(c, version, tp, 0, maxTimestamp), 1, 5000)
		}
		mustProduce(c, tp, 0, mixed(t, record.Zstd, 100, 9000, 200))
		wantOffset(t, "inside of a compressed batch", listOffset(c, 7, tp, 0, maxTimestamp), 8, 9000)
	}},
	{"§3.6", "-4 EARLIEST_LOCAL (v8): the local log start; without tiering the log start", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a", "b")
		for version := int16(8); version <= 11; version++ {
			wantOffset(t, "all is local", listOffset(c, version, tp, 0, earliestLocal), 0, -1)
		}
	}},
	{"§3.6", "-5 LATEST_TIERED (v9): -1 if none or not tiered", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a", "b")
		for version := int16(9); version <= 11; version++ {
			got := listOffset(c, version, tp, 0, latestTiered)
			wantOffset(t, "nothing is shipped", got, -1, -1)
			want(t, "epoch", got.LeaderEpoch, -1)
		}
	}},
	{"§3.6", "-6 EARLIEST_PENDING_UPLOAD (v11): the earliest if nothing is uploaded; -1/-1 when not tiered", func(t *testing.T, b *broker) {
		c := b.dial(t)
		tp := b.topic(t, 1)
		fill(t, c, tp, 0, "a", "b")
		offset := differs(b, -1, int64(0), "everlog tiers every topic by default")
		wantOffset(t, "nothing is shipped", listOffset(c, 11, tp, 0, pendingUpload), offset, -1)
		off := b.topic(t, 1, "remote.storage.enable=false")
		fill(t, c, off, 0, "a", "b")
		wantOffset(t, "not tiered", listOffset(c, 11, off, 0, pendingUpload), -1, -1)
	}},
	{"§3.6", "-5 and -6 of what is shipped: the last offset in the store, inclusive, and the one after it", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "segment.bytes=1048576")
		c := b.dial(t)
		for range 5 {
			mustProduce(c, tp, 0, batch(t, string(make([]byte, 500_000))))
		}
		if b.kafka { // not tiered here
			wantOffset(t, "latest tiered", listOffset(c, 11, tp, 0, latestTiered), -1, -1)
			wantOffset(t, "pending upload", listOffset(c, 11, tp, 0, pendingUpload), -1, -1)
			return
		}
		harness.Until(t, answerLimit, "the sealed segments are shipped", func() error {
			if got := listOffset(c, 11, tp, 0, latestTiered); got.Offset < 3 || got.LeaderEpoch < 0 {
				return fmt.Errorf("latest tiered is %d, of epoch %d; want 3: a segment takes two of the records", got.Offset, got.LeaderEpoch)
			}
			return nil
		})
		wantOffset(t, "latest tiered", listOffset(c, 11, tp, 0, latestTiered), 3, -1)
		wantOffset(t, "pending upload", listOffset(c, 11, tp, 0, pendingUpload), 4, -1)
		wantOffset(t, "earliest local: a copy stays here", listOffset(c, 11, tp, 0, earliestLocal), 0, -1)
		wantOffset(t, "earliest", listOffset(c, 11, tp, 0, earliest), 0, -1)
	}},
	{"§3.6", "a negative value unknown at that version: UNSUPPORTED_VERSION", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a")
		first := map[int64]int16{maxTimestamp: 7, earliestLocal: 8, latestTiered: 9, pendingUpload: 11, -7: 99, -100: 99}
		for timestamp, since := range first {
			for version := int16(1); version <= 11; version++ {
				got := listOffset(c, version, tp, 0, timestamp)
				if version < since {
					wantCode(t, fmt.Sprintf("v%d of %d", version, timestamp), got.ErrorCode, kerr.UnsupportedVersion)
					want(t, "offset", got.Offset, -1)
					continue
				}
				wantCode(t, fmt.Sprintf("v%d of %d", version, timestamp), got.ErrorCode, nil)
			}
		}
	}},
	{"§3.6", "a partition twice in one request: INVALID_REQUEST", func(t *testing.T, b *broker) {
		tp := b.topic(t, 2)
		req := listRequest(tp, 0, latest)
		twice := req.Topics[0].Partitions[0]
		other := twice
		other.Partition = 1
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, twice, other)
		for _, version := range []int16{1, 5, 7, 11} {
			for _, one := range Ask[*kmsg.ListOffsetsResponse](b.dial(t), version, req).Topics {
				for _, p := range one.Partitions {
					var code *kerr.Error
					if p.Partition == 0 {
						code = kerr.InvalidRequest
					}
					wantCode(t, fmt.Sprintf("v%d: partition %d", version, p.Partition), p.ErrorCode, code)
				}
			}
		}
	}},
	{"§3.6", "unknown topic or partition: UNKNOWN_TOPIC_OR_PARTITION; a wrong current leader epoch: UNKNOWN_LEADER_EPOCH (v4+)", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		for version := int16(1); version <= 11; version++ {
			wantCode(t, "topic", listOffset(c, version, topic{name: "nothing-here"}, 0, latest).ErrorCode, kerr.UnknownTopicOrPartition)
			wantCode(t, "partition", listOffset(c, version, tp, 5, latest).ErrorCode, kerr.UnknownTopicOrPartition)
			if version >= 4 {
				req := listRequest(tp, 0, latest)
				req.Topics[0].Partitions[0].CurrentLeaderEpoch = 1 << 20
				wantCode(t, "epoch", Ask[*kmsg.ListOffsetsResponse](c, version, req).Topics[0].Partitions[0].ErrorCode, kerr.UnknownLeaderEpoch)
			}
		}
	}},
	{"§3.6", "the debugging replica id -2 is answered as a consumer is", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a")
		req := listRequest(tp, 0, latest)
		req.ReplicaID = -2
		wantOffset(t, "latest", Ask[*kmsg.ListOffsetsResponse](c, 7, req).Topics[0].Partitions[0], 1, -1)
	}},
}

func epochRequest(tp topic, partition, epoch int32) *kmsg.OffsetForLeaderEpochRequest {
	req := kmsg.NewPtrOffsetForLeaderEpochRequest()
	req.ReplicaID = -1
	p := kmsg.NewOffsetForLeaderEpochRequestTopicPartition()
	p.Partition, p.LeaderEpoch, p.CurrentLeaderEpoch = partition, epoch, -1
	one := kmsg.NewOffsetForLeaderEpochRequestTopic()
	one.Topic, one.Partitions = tp.name, append(one.Partitions, p)
	req.Topics = append(req.Topics, one)
	return req
}

func epochEnd(c *Conn, version int16, tp topic, partition, epoch int32) kmsg.OffsetForLeaderEpochResponseTopicPartition {
	c.t.Helper()
	return Ask[*kmsg.OffsetForLeaderEpochResponse](c, version, epochRequest(tp, partition, epoch)).Topics[0].Partitions[0]
}

var epochRules = []rule{
	{"§3.7", "the latest epoch: (epoch, log end); above it, or -1: (-1, -1)", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a", "b", "c")
		epoch := listOffset(c, 7, tp, 0, latest).LeaderEpoch
		for version := int16(2); version <= 4; version++ {
			for asked, wanted := range map[int32][2]int64{epoch: {int64(epoch), 3}, epoch + 1: {-1, -1}, 1 << 30: {-1, -1}, -1: {-1, -1}} {
				got := epochEnd(c, version, tp, 0, asked)
				wantCode(t, "epoch", got.ErrorCode, nil)
				if [2]int64{int64(got.LeaderEpoch), got.EndOffset} != wanted {
					t.Errorf("v%d: epoch %d ends (%d, %d), want %v", version, asked, got.LeaderEpoch, got.EndOffset, wanted)
				}
			}
		}
	}},
	{"§3.7", "unknown topic or partition: UNKNOWN_TOPIC_OR_PARTITION; a wrong current leader epoch: UNKNOWN_LEADER_EPOCH", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		for version := int16(2); version <= 4; version++ {
			wantCode(t, "topic", epochEnd(c, version, topic{name: "nothing-here"}, 0, 0).ErrorCode, kerr.UnknownTopicOrPartition)
			wantCode(t, "partition", epochEnd(c, version, tp, 7, 0).ErrorCode, kerr.UnknownTopicOrPartition)
			req := epochRequest(tp, 0, 0)
			req.Topics[0].Partitions[0].CurrentLeaderEpoch = 1 << 20
			got := Ask[*kmsg.OffsetForLeaderEpochResponse](c, version, req).Topics[0].Partitions[0]
			wantCode(t, "current epoch", got.ErrorCode, kerr.UnknownLeaderEpoch)
			want(t, "end", got.EndOffset, -1)
		}
	}},
	{"§3.7", "batches are stamped with the leader's epoch, and Metadata, ListOffsets and Fetch agree on it", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a")
		got, _ := decode(t, fetch(c, tp, 0, 0).RecordBatches)
		epoch := int32(got[0].LeaderEpoch())
		want(t, "Metadata", Ask[*kmsg.MetadataResponse](c, 9, metadataRequest(tp.name)).Topics[0].Partitions[0].LeaderEpoch, epoch)
		want(t, "ListOffsets", listOffset(c, 7, tp, 0, latest).LeaderEpoch, epoch)
		want(t, "ListOffsets", listOffset(c, 7, tp, 0, earliest).LeaderEpoch, epoch)
	}},
}
