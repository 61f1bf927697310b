package protocol

import (
	"bytes"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/tier/record"
)

var produceRules = []rule{
	{"§3.2", "acks other than -1, 0, 1: INVALID_REQUIRED_ACKS", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		for _, acks := range []int16{2, -2, 100} {
			got := Ask[*kmsg.ProduceResponse](c, 9, produceRequest(tp, 0, acks, batch(t, "a"))).Topics[0].Partitions[0]
			wantCode(t, "acks", got.ErrorCode, kerr.InvalidRequiredAcks)
			want(t, "base offset", got.BaseOffset, -1)
		}
		want(t, "records appended", listOffset(c, 7, tp, 0, -1).Offset, 0)
	}},
	{"§3.2", "acks=1 and acks=-1 answer with the base offset, log start offset (v5+) and append time -1 (v2+) for CreateTime", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		next := int64(0)
		for _, acks := range []int16{1, -1} {
			for version := int16(3); version <= 13; version++ {
				got := Ask[*kmsg.ProduceResponse](c, version, produceRequest(tp, 0, acks, batch(t, "a", "b"))).Topics[0].Partitions[0]
				wantCode(t, "produce", got.ErrorCode, nil)
				want(t, "base offset", got.BaseOffset, next)
				want(t, "append time", got.LogAppendTime, -1)
				if version >= 5 {
					want(t, "log start", got.LogStartOffset, 0)
				}
				if got.ErrorMessage != nil || len(got.ErrorRecords) != 0 {
					t.Errorf("v%d: errors in a good answer: %+v", version, got)
				}
				next += 2
			}
		}
	}},
	{"§3.2", "unknown topic or partition: UNKNOWN_TOPIC_OR_PARTITION; v13 with an unknown topic id: UNKNOWN_TOPIC_ID", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		wantCode(t, "unknown topic", produce(c, topic{name: freshName()}, 0, batch(t, "a")).ErrorCode, kerr.UnknownTopicOrPartition)
		wantCode(t, "illegal topic", produce(c, topic{name: "a/b"}, 0, batch(t, "a")).ErrorCode, kerr.UnknownTopicOrPartition)
		wantCode(t, "unknown partition", produce(c, tp, 1, batch(t, "a")).ErrorCode, kerr.UnknownTopicOrPartition)
		wantCode(t, "negative partition", produce(c, tp, -1, batch(t, "a")).ErrorCode, kerr.UnknownTopicOrPartition)
		wantCode(t, "unknown id", produceIn(c, 13, topic{id: [16]byte{1, 2, 3}}, 0, batch(t, "a")).ErrorCode, kerr.UnknownTopicID)
		wantCode(t, "zero id", produceIn(c, 13, topic{}, 0, batch(t, "a")).ErrorCode, kerr.UnknownTopicID)
		wantCode(t, "unknown partition of an id", produceIn(c, 13, tp, 1, batch(t, "a")).ErrorCode, kerr.UnknownTopicOrPartition)
	}},
	{"§3.2", "writes to internal topics: INVALID_TOPIC_EXCEPTION unless the client id is __admin_client", func(t *testing.T, b *broker) {
		c := b.dial(t)
		req := kmsg.NewPtrCreateTopicsRequest()
		req.Topics = append(req.Topics, newTopic("__consumer_offsets", 1, 1))
		if code := Ask[*kmsg.CreateTopicsResponse](c, 5, req).Topics[0].ErrorCode; code != 0 && code != kerr.TopicAlreadyExists.Code {
			t.Fatalf("create __consumer_offsets: %s", codeName(code))
		}
		internal := topic{name: "__consumer_offsets", partitions: 1}
		b.awaitLeaders(t, internal)
		wantCode(t, "produce", produce(c, internal, 0, batch(t, "a")).ErrorCode, kerr.InvalidTopicException)
		one := Ask[*kmsg.MetadataResponse](c, 9, metadataRequest(internal.name)).Topics[0]
		want(t, "internal", one.IsInternal, true)
	}},
	{"§3.2", "min.insync.replicas counts at most the replicas that there are", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "min.insync.replicas=2")
		wantCode(t, "acks=-1 with one replica", produce(b.dial(t), tp, 0, batch(t, "a")).ErrorCode, nil)
	}},
	{"§3.2", "a request of no topics has an answer of none", func(t *testing.T, b *broker) {
		req := kmsg.NewPtrProduceRequest()
		req.Acks = -1
		if got := Ask[*kmsg.ProduceResponse](b.dial(t), 9, req); len(got.Topics) != 0 {
			t.Errorf("topics %+v", got.Topics)
		}
	}},
	{"§3.2", "rewritten are base offset, leader epoch and nothing else: the bytes come back as they were sent", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "before")
		sent := batch(t, "a", "b", "c")
		mustProduce(c, tp, 0, sent)
		batches, _ := decode(t, fetch(c, tp, 0, 1).RecordBatches)
		if len(batches) != 1 {
			t.Fatalf("%d batches, want 1", len(batches))
		}
		got := batches[0]
		want(t, "base offset", got.BaseOffset(), 1)
		epoch := listOffset(c, 7, tp, 0, -1).LeaderEpoch
		want(t, "leader epoch", int32(got.LeaderEpoch()), epoch)
		if !bytes.Equal(got[atMagic:], sent[atMagic:]) {
			t.Errorf("stored\n%x\nsent\n%x", got[atMagic:], sent[atMagic:])
		}
	}},
	{"§3.2", "null and empty keys, values and headers are kept apart", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		builder := record.NewBuilder(record.Attrs{Codec: record.Zstd})
		builder.Append(5, nil, nil)
		builder.Append(6, []byte{}, []byte{}, record.Header{Key: "", Value: nil}, record.Header{Key: "h", Value: []byte{}}, record.Header{Key: "h", Value: []byte("v")})
		sent, err := builder.Build()
		if err != nil {
			t.Fatal(err)
		}
		mustProduce(c, tp, 0, sent)
		got, _ := decode(t, fetch(c, tp, 0, 0).RecordBatches)
		if len(got) != 1 || !bytes.Equal(got[0][atCRC:], sent[atCRC:]) {
			t.Error("the batch is not the one that was sent")
		}
	}},
}

// refused is a batch that must not be appended, and the answer it gets.
type refused struct {
	what    string
	records []byte
	err     *kerr.Error
}

// refuses sends the batches and wants their errors, and nothing appended.
func refuses(t *testing.T, b *broker, tp topic, version int16, batches []refused) {
	t.Helper()
	c := b.dial(t)
	before := listOffset(c, 7, tp, 0, -1).Offset
	for _, r := range batches {
		got := produceIn(c, version, tp, 0, r.records)
		wantCode(t, r.what, got.ErrorCode, r.err)
		want(t, r.what+": base offset", got.BaseOffset, -1)
	}
	want(t, "log end", listOffset(c, 7, tp, 0, -1).Offset, before)
}
