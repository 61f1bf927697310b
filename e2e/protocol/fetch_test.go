package protocol

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var fetchRules = []rule{
	{"§3.4", "whole batches, starting with the one that contains the fetch offset", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		mustProduce(c, tp, 0, batch(t, "0", "1", "2"))
		mustProduce(c, tp, 0, batch(t, "3", "4"))
		mustProduce(c, tp, 0, batch(t, "5"))
		for offset, base := range []int64{0, 0, 0, 3, 3, 5} {
			for version := int16(4); version <= 18; version++ {
				got := Ask[*kmsg.FetchResponse](c, version, fetchRequest(wanted{topic: tp, offset: int64(offset)})).Topics[0].Partitions[0]
				batches, records := decode(t, got.RecordBatches)
				if len(batches) == 0 || int64(batches[0].BaseOffset()) != base || records[len(records)-1].value != "5" {
					t.Errorf("v%d from %d: %d batches, records %v", version, offset, len(batches), records)
				}
				want(t, "high watermark", got.HighWatermark, 6)
				want(t, "last stable offset", got.LastStableOffset, 6)
				if version >= 5 {
					want(t, "log start", got.LogStartOffset, 0)
				}
				if version >= 11 {
					want(t, "preferred replica", got.PreferredReadReplica, -1)
				}
			}
		}
	}},
	{"§3.4", "offset > log end or < log start: OFFSET_OUT_OF_RANGE; at the log end: empty, no error", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "0", "1", "2", "3")
		wantNoErrors(t, "delete records", Ask[*kmsg.DeleteRecordsResponse](c, 2, deleteRecordsRequest(tp, 0, 2)))
		for offset, err := range map[int64]*kerr.Error{-1: kerr.OffsetOutOfRange, 0: kerr.OffsetOutOfRange, 1: kerr.OffsetOutOfRange, 2: nil, 3: nil, 4: nil, 5: kerr.OffsetOutOfRange, 1 << 60: kerr.OffsetOutOfRange} {
			got := fetch(c, tp, 0, offset)
			wantCode(t, fmt.Sprintf("offset %d", offset), got.ErrorCode, err)
			if err != nil {
				want(t, "bytes with an error", len(got.RecordBatches), 0)
				want(t, "high watermark with an error", got.HighWatermark, -1)
				continue
			}
			want(t, "log start", got.LogStartOffset, 2)
			if offset == 4 {
				want(t, "bytes at the end", len(got.RecordBatches), 0)
				want(t, "high watermark at the end", got.HighWatermark, 4)
			}
		}
	}},
	{"§3.4", "unknown topic or partition: UNKNOWN_TOPIC_OR_PARTITION; unknown topic id: UNKNOWN_TOPIC_ID, for the partition alone", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a")
		for version := int16(4); version <= 18; version++ {
			unknown, code := topic{name: "zzz-" + freshName(), id: [16]byte{7, 7}}, kerr.UnknownTopicOrPartition
			if version >= 13 {
				code = kerr.UnknownTopicID
			}
			resp := Ask[*kmsg.FetchResponse](c, version, fetchRequest(wanted{topic: unknown}, wanted{topic: tp}, wanted{topic: tp, partition: 9}))
			for _, one := range resp.Topics {
				for _, p := range one.Partitions {
					switch {
					case one.Topic == unknown.name && version < 13 || one.TopicID == unknown.id && version >= 13:
						wantCode(t, fmt.Sprintf("v%d unknown topic", version), p.ErrorCode, code)
					case p.Partition == 9:
						wantCode(t, fmt.Sprintf("v%d unknown partition", version), p.ErrorCode, kerr.UnknownTopicOrPartition)
					default:
						wantCode(t, fmt.Sprintf("v%d known partition", version), p.ErrorCode, nil)
						if len(p.RecordBatches) == 0 {
							t.Errorf("v%d: no records beside the errors of others", version)
						}
					}
				}
			}
		}
	}},
	{"§3.4", "current leader epoch lower than ours: FENCED_LEADER_EPOCH; higher: UNKNOWN_LEADER_EPOCH; -1: no check", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a")
		epoch := listOffset(c, 7, tp, 0, -1).LeaderEpoch
		for version := int16(9); version <= 18; version++ {
			for e, code := range map[int32]*kerr.Error{epoch: nil, -1: nil, epoch + 1: kerr.UnknownLeaderEpoch, 1 << 30: kerr.UnknownLeaderEpoch, epoch - 1: kerr.FencedLeaderEpoch} {
				if e == epoch-1 && e < 0 {
					continue // there is no epoch below the first one
				}
				got := Ask[*kmsg.FetchResponse](c, version, fetchRequest(wanted{topic: tp, epoch: e + 1})).Topics[0].Partitions[0]
				wantCode(t, fmt.Sprintf("v%d, epoch %d of %d", version, e, epoch), got.ErrorCode, code)
			}
		}
	}},
	{"§3.4", "v12 LastFetchedEpoch: an epoch above the log's, or one that ended before the fetch offset, gives DivergingEpoch and no data", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a", "b")
		epoch := listOffset(c, 7, tp, 0, -1).LeaderEpoch
		req := fetchRequest(wanted{topic: tp, offset: 1})
		req.Topics[0].Partitions[0].LastFetchedEpoch = epoch
		good := Ask[*kmsg.FetchResponse](c, 12, req).Topics[0].Partitions[0]
		wantCode(t, "the epoch of the records", good.ErrorCode, nil)
		if len(good.RecordBatches) == 0 {
			t.Error("no records with the right epoch")
		}
		req.Topics[0].Partitions[0].LastFetchedEpoch = epoch + 5
		wantCode(t, "an epoch that is not known", Ask[*kmsg.FetchResponse](c, 12, req).Topics[0].Partitions[0].ErrorCode, kerr.OffsetOutOfRange)
	}},
	{"§3.4", "read_uncommitted has null aborted transactions; read_committed has a list, empty without any", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a")
		for version := int16(4); version <= 18; version++ {
			req := fetchRequest(wanted{topic: tp})
			if got := Ask[*kmsg.FetchResponse](c, version, req).Topics[0].Partitions[0]; got.AbortedTransactions != nil {
				t.Errorf("v%d: aborted transactions of read_uncommitted: %+v, want null", version, got.AbortedTransactions)
			}
			req.IsolationLevel = 1
			got := Ask[*kmsg.FetchResponse](c, version, req).Topics[0].Partitions[0]
			if got.AbortedTransactions == nil || len(got.AbortedTransactions) != 0 {
				t.Errorf("v%d: aborted transactions of read_committed: %+v, want an empty list", version, got.AbortedTransactions)
			}
			if len(got.RecordBatches) == 0 {
				t.Errorf("v%d: no records for read_committed", version)
			}
		}
	}},
	{"§3.4", "a fetch of no partitions, and an empty log, are answered without error", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		for version := int16(4); version <= 18; version++ {
			req := fetchRequest()
			req.MaxWaitMillis = 10_000
			resp := Ask[*kmsg.FetchResponse](c, version, req)
			wantNoErrors(t, "no partitions", resp)
			want(t, "topics", len(resp.Topics), 0)
			got := Ask[*kmsg.FetchResponse](c, version, fetchRequest(wanted{topic: tp})).Topics[0].Partitions[0]
			wantCode(t, "empty log", got.ErrorCode, nil)
			want(t, "high watermark", got.HighWatermark, 0)
			want(t, "bytes", len(got.RecordBatches), 0)
		}
	}},
	{"§3.4", "a fetch of a broker that is no replica of the partition: NOT_LEADER_OR_FOLLOWER", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a")
		for version := int16(4); version <= 18; version++ {
			req := fetchRequest(wanted{topic: tp})
			if version < 15 {
				req.ReplicaID = 99
			} else {
				req.ReplicaState.ID, req.ReplicaState.Epoch = 99, 1
			}
			got := Ask[*kmsg.FetchResponse](c, version, req).Topics[0].Partitions[0]
			wantCode(t, fmt.Sprintf("v%d", version), got.ErrorCode, kerr.NotLeaderForPartition)
			want(t, "bytes", len(got.RecordBatches), 0)
		}
	}},
}

// kilobyte is a value that makes a batch of about a kilobyte.
func kilobyte(mark string) string { return mark + strings.Repeat("x", 1000) }

var fetchSizeRules = []rule{
	{"§3.4", "PartitionMaxBytes: whole batches up to it, the first batch whatever it is (KIP-74)", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, kilobyte("0"), kilobyte("1"), kilobyte("2"), kilobyte("3"))
		for max, batches := range map[int32]int{1: 1, 500: 1, 2500: 2, 1 << 20: 4} {
			got := Ask[*kmsg.FetchResponse](c, 12, fetchRequest(wanted{topic: tp, max: max})).Topics[0].Partitions[0]
			decoded, _ := decode(t, got.RecordBatches)
			want(t, fmt.Sprintf("batches in %d bytes", max), len(decoded), batches)
		}
	}},
	{"§3.4", "the first partition with data may exceed MaxBytes by one batch; the first batch of another that does not fit gives empty records, no error", func(t *testing.T, b *broker) {
		tp := b.topic(t, 3)
		c := b.dial(t)
		for p := int32(1); p < 3; p++ {
			fill(t, c, tp, p, kilobyte("a"), kilobyte("b"))
		}
		for version := int16(4); version <= 18; version++ {
			req := fetchRequest(wanted{topic: tp, partition: 0}, wanted{topic: tp, partition: 1}, wanted{topic: tp, partition: 2})
			req.MaxBytes = 1
			sizes := map[int32]int{}
			for _, p := range Ask[*kmsg.FetchResponse](c, version, req).Topics[0].Partitions {
				wantCode(t, "partition", p.ErrorCode, nil)
				decoded, _ := decode(t, p.RecordBatches)
				sizes[p.Partition] = len(decoded)
			}
			if sizes[0] != 0 || sizes[1] != 1 || sizes[2] != 0 {
				t.Errorf("v%d: batches of partitions %v, want one, of partition 1, the first that has data", version, sizes)
			}
		}
	}},
	{"§3.4", "partitions are read in request order", func(t *testing.T, b *broker) {
		tp := b.topic(t, 2)
		c := b.dial(t)
		fill(t, c, tp, 0, kilobyte("a"))
		fill(t, c, tp, 1, kilobyte("a"))
		for _, order := range [][]int32{{0, 1}, {1, 0}} {
			req := fetchRequest(wanted{topic: tp, partition: order[0]}, wanted{topic: tp, partition: order[1]})
			req.MaxBytes = 1200
			for _, p := range Ask[*kmsg.FetchResponse](c, 12, req).Topics[0].Partitions {
				want(t, fmt.Sprintf("partition %d of %v has records", p.Partition, order), len(p.RecordBatches) > 0, p.Partition == order[0])
			}
		}
	}},
	{"§3.4", "MaxBytes of the request bounds the records of all partitions", func(t *testing.T, b *broker) {
		tp := b.topic(t, 4)
		c := b.dial(t)
		var parts []wanted
		for p := range int32(4) {
			fill(t, c, tp, p, kilobyte("a"), kilobyte("b"), kilobyte("c"))
			parts = append(parts, wanted{topic: tp, partition: p})
		}
		req := fetchRequest(parts...)
		req.MaxBytes = 5000
		total, batches := 0, 0
		for _, p := range Ask[*kmsg.FetchResponse](c, 12, req).Topics[0].Partitions {
			decoded, _ := decode(t, p.RecordBatches)
			total, batches = total+len(p.RecordBatches), batches+len(decoded)
		}
		if total > 5000 || batches != 4 {
			t.Errorf("%d bytes in %d whole batches, want at most 5000 bytes in 4", total, batches)
		}
	}},
}

// took is how long fn takes.
func took(fn func()) time.Duration {
	start := time.Now()
	fn()
	return time.Since(start)
}

var fetchWaitRules = []rule{
	{"§3.4", "a fetch waits for MinBytes, up to MaxWaitMs, and is woken by records", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		reader, writer := b.dial(t), b.dial(t)
		req := fetchRequest(wanted{topic: tp})
		req.MaxWaitMillis, req.MinBytes = 15_000, 1500
		req.SetVersion(12)
		reader.Send(req)
		fill(t, writer, tp, 0, kilobyte("a"), kilobyte("b"))
		_, records := decode(t, reader.Receive(req).(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches)
		want(t, "records: one does not make MinBytes", len(records), 2)
	}},
	{"§3.4", "with less than MinBytes the answer comes after MaxWaitMs, with what there is", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a")
		req := fetchRequest(wanted{topic: tp})
		req.MaxWaitMillis, req.MinBytes = 300, 100_000
		var records []stored
		waited := took(func() {
			_, records = decode(t, Ask[*kmsg.FetchResponse](c, 12, req).Topics[0].Partitions[0].RecordBatches)
		})
		want(t, "records", len(records), 1)
		if waited < 250*time.Millisecond {
			t.Errorf("answered after %v, want MaxWaitMs to pass", waited)
		}
	}},
	{"§3.4", "answer at once if MaxWaitMs <= 0, MinBytes is reached or 0, or any partition has an error", func(t *testing.T, b *broker) {
		tp := b.topic(t, 2)
		c := b.dial(t)
		fill(t, c, tp, 0, "a")
		at := func(wait, bytes int32, parts ...wanted) *kmsg.FetchRequest {
			req := fetchRequest(parts...)
			req.MaxWaitMillis, req.MinBytes = wait, bytes
			return req
		}
		first, empty := wanted{topic: tp}, wanted{topic: tp, partition: 1}
		for what, req := range map[string]*kmsg.FetchRequest{
			"no wait": at(0, 100_000, first), "negative wait": at(-5, 100_000, first), "enough": at(60_000, 1, empty, first), "MinBytes 0": at(60_000, 0, empty),
			"out of range": at(60_000, 100_000, first, wanted{topic: tp, partition: 1, offset: 5}),
		} {
			if waited := took(func() { Ask[*kmsg.FetchResponse](c, 12, req) }); waited > answerLimit/2 {
				t.Errorf("%s: answered after %v", what, waited)
			}
		}
	}},
	{"§3.4", "a fetch that waits on many partitions is woken by any", func(t *testing.T, b *broker) {
		tp := b.topic(t, 8)
		reader, writer := b.dial(t), b.dial(t)
		var parts []wanted
		for p := range int32(8) {
			parts = append(parts, wanted{topic: tp, partition: p})
		}
		for p := range int32(8) {
			req := fetchRequest(parts...)
			req.MaxWaitMillis = 15_000
			req.SetVersion(12)
			reader.Send(req)
			fill(t, writer, tp, p, "a")
			for _, got := range reader.Receive(req).(*kmsg.FetchResponse).Topics[0].Partitions {
				want(t, fmt.Sprintf("partition %d has records", got.Partition), len(got.RecordBatches) > 0, got.Partition == p)
			}
			parts[p].offset = 1
		}
	}},
	{"§3.4", "deleting a topic, or records, wakes up the fetches that wait for it", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		reader, admin := b.dial(t), b.dial(t)
		req := fetchRequest(wanted{topic: tp})
		req.MaxWaitMillis = 15_000
		req.SetVersion(12)
		reader.Send(req)
		wantNoErrors(t, "delete", Ask[*kmsg.DeleteTopicsResponse](admin, 5, deleteRequest(tp.name)))
		got := reader.Receive(req).(*kmsg.FetchResponse).Topics[0].Partitions[0]
		switch got.ErrorCode {
		case kerr.UnknownTopicOrPartition.Code, kerr.NotLeaderForPartition.Code, kerr.UnknownTopicID.Code:
		default:
			t.Errorf("fetch of a deleted topic: %s", codeName(got.ErrorCode))
		}
	}},
	{"§2.4", "a client that leaves while its fetch waits harms nobody", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		for range 20 {
			c := b.dial(t)
			req := fetchRequest(wanted{topic: tp})
			req.MaxWaitMillis = 15_000
			req.SetVersion(12)
			c.Send(req)
			c.conn.Close()
		}
		c := b.dial(t)
		fill(t, c, tp, 0, "a")
		want(t, "log end", listOffset(c, 7, tp, 0, -1).Offset, 1)
	}},
}
