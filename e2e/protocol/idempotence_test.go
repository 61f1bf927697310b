package protocol

import (
	"fmt"
	"math"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// producerID asks for a fresh id.
func producerID(c *Conn) int64 {
	c.t.Helper()
	resp := Ask[*kmsg.InitProducerIDResponse](c, 4, kmsg.NewPtrInitProducerIDRequest())
	wantCode(c.t, "InitProducerId", resp.ErrorCode, nil)
	return resp.ProducerID
}

// step is one batch of an idempotent producer and what is expected of it: an error, or its base offset.
type step struct {
	epoch    int16
	sequence int32
	records  int
	err      *kerr.Error
	offset   int64
}

// play sends the batches of one producer to one fresh partition.
func play(t *testing.T, b *broker, steps ...step) {
	t.Helper()
	tp := b.topic(t, 1)
	c := b.dial(t)
	id := producerID(c)
	for i, s := range steps {
		values := make([]string, s.records)
		got := produce(c, tp, 0, sequenced(t, id, s.epoch, s.sequence, values...))
		what := fmt.Sprintf("step %d: epoch %d, sequence %d", i, s.epoch, s.sequence)
		wantCode(t, what, got.ErrorCode, s.err)
		offset := s.offset
		if s.err != nil {
			offset = -1
		}
		want(t, what+": base offset", got.BaseOffset, offset)
	}
}

var idempotenceRules = []rule{
	{"§3.3", "InitProducerId with null transactional id: always a fresh id, epoch 0, in every version", func(t *testing.T, b *broker) {
		c := b.dial(t)
		seen := map[int64]bool{}
		for range 10 {
			for version := range int16(6) {
				resp := Ask[*kmsg.InitProducerIDResponse](c, version, kmsg.NewPtrInitProducerIDRequest())
				if resp.ErrorCode != 0 || resp.ProducerEpoch != 0 || resp.ProducerID < 0 || seen[resp.ProducerID] {
					t.Errorf("v%d: %s, id %d (given before: %v), epoch %d", version, codeName(resp.ErrorCode), resp.ProducerID, seen[resp.ProducerID], resp.ProducerEpoch)
				}
				seen[resp.ProducerID] = true
			}
		}
	}},
	{"§3.8", "InitProducerId with an empty transactional id, or one of id and epoch set alone: INVALID_REQUEST", func(t *testing.T, b *broker) {
		c := b.dial(t)
		empty := kmsg.NewPtrInitProducerIDRequest()
		empty.TransactionalID = new(string)
		empty.TransactionTimeoutMillis = 1000
		wantCode(t, "empty id", Ask[*kmsg.InitProducerIDResponse](c, 4, empty).ErrorCode, kerr.InvalidRequest)
		half := kmsg.NewPtrInitProducerIDRequest()
		half.ProducerID, half.ProducerEpoch = 5, -1
		wantCode(t, "id without epoch", Ask[*kmsg.InitProducerIDResponse](c, 4, half).ErrorCode, kerr.InvalidRequest)
		half.ProducerID, half.ProducerEpoch = -1, 5
		wantCode(t, "epoch without id", Ask[*kmsg.InitProducerIDResponse](c, 4, half).ErrorCode, kerr.InvalidRequest)
	}},
	{"§3.3", "the last 5 batches: a duplicate is answered with its original offset, and not appended", func(t *testing.T, b *broker) {
		play(t, b,
			step{0, 0, 2, nil, 0}, step{0, 2, 1, nil, 2}, step{0, 3, 3, nil, 3}, step{0, 6, 1, nil, 6}, step{0, 7, 1, nil, 7},
			step{0, 0, 2, nil, 0}, step{0, 7, 1, nil, 7}, step{0, 3, 3, nil, 3}, step{0, 2, 1, nil, 2}, step{0, 6, 1, nil, 6},
			step{0, 8, 1, nil, 8})
	}},
	{"§3.3", "a batch older than the 5 is not recognised: OUT_OF_ORDER_SEQUENCE_NUMBER", func(t *testing.T, b *broker) {
		play(t, b,
			step{0, 0, 1, nil, 0}, step{0, 1, 1, nil, 1}, step{0, 2, 1, nil, 2}, step{0, 3, 1, nil, 3}, step{0, 4, 1, nil, 4}, step{0, 5, 1, nil, 5},
			step{0, 0, 1, kerr.OutOfOrderSequenceNumber, 0}, step{0, 1, 1, nil, 1}, step{0, 6, 1, nil, 6})
	}},
	{"§3.3", "same epoch: first = last+1, else OUT_OF_ORDER_SEQUENCE_NUMBER; a part of a batch is no duplicate", func(t *testing.T, b *broker) {
		play(t, b,
			step{0, 0, 4, nil, 0}, step{0, 5, 1, kerr.OutOfOrderSequenceNumber, 0}, step{0, 0, 3, kerr.OutOfOrderSequenceNumber, 0},
			step{0, 1, 3, kerr.OutOfOrderSequenceNumber, 0}, step{0, 2, 5, kerr.OutOfOrderSequenceNumber, 0}, step{0, 4, 1, nil, 4})
	}},
	{"§3.3", "no state for the producer id: any first sequence is accepted", func(t *testing.T, b *broker) {
		play(t, b, step{3, 1234, 2, nil, 0}, step{3, 1236, 1, nil, 2}, step{3, 1234, 2, nil, 0}, step{3, 0, 1, kerr.OutOfOrderSequenceNumber, 0})
	}},
	{"§3.3", "sequences wrap: 0 follows 2^31-1", func(t *testing.T, b *broker) {
		const top = math.MaxInt32
		play(t, b, step{0, top - 3, 2, nil, 0}, step{0, top - 1, 2, nil, 2}, step{0, 0, 1, nil, 4}, step{0, top - 1, 2, nil, 2}, step{0, 1, 1, nil, 5})
		play(t, b, step{0, top - 1, 1, nil, 0}, step{0, top, 3, nil, 1}, step{0, top, 3, nil, 1}, step{0, 1, 1, kerr.OutOfOrderSequenceNumber, 0}, step{0, 2, 1, nil, 4})
	}},
	{"§3.3", "epoch < stored: INVALID_PRODUCER_EPOCH; epoch > stored: first sequence must be 0, else OUT_OF_ORDER_SEQUENCE_NUMBER", func(t *testing.T, b *broker) {
		play(t, b,
			step{0, 0, 1, nil, 0}, step{1, 1, 1, kerr.OutOfOrderSequenceNumber, 0}, step{1, 0, 1, nil, 1},
			step{0, 1, 1, kerr.InvalidProducerEpoch, 0}, step{0, 0, 1, kerr.InvalidProducerEpoch, 0}, step{1, 1, 1, nil, 2})
	}},
	{"§3.3", "adopting an epoch clears the 5 batches: the same sequences are new ones, then duplicates of the new ones", func(t *testing.T, b *broker) {
		play(t, b, step{0, 0, 2, nil, 0}, step{0, 2, 1, nil, 2}, step{5, 0, 2, nil, 3}, step{5, 2, 1, nil, 5}, step{5, 0, 2, nil, 3}, step{5, 2, 1, nil, 5})
	}},
	{"§3.3", "state is kept by partition: the same sequences are new on another one", func(t *testing.T, b *broker) {
		tp := b.topic(t, 2)
		c := b.dial(t)
		id := producerID(c)
		for partition := range int32(2) {
			for range 2 {
				want(t, "base offset", mustProduce(c, tp, partition, sequenced(t, id, 0, 0, "a", "b")), 0)
			}
			want(t, "log end", listOffset(c, 7, tp, partition, -1).Offset, 2)
		}
	}},
	{"§3.3", "a duplicate has the original append time, and its offset in every version", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "message.timestamp.type=LogAppendTime")
		c := b.dial(t)
		id := producerID(c)
		first := produce(c, tp, 0, sequenced(t, id, 0, 0, "a"))
		for version := int16(3); version <= 13; version++ {
			again := produceIn(c, version, tp, 0, sequenced(t, id, 0, 0, "a"))
			wantCode(t, "duplicate", again.ErrorCode, nil)
			want(t, "base offset", again.BaseOffset, 0)
			want(t, "append time", again.LogAppendTime, first.LogAppendTime)
		}
		want(t, "log end", listOffset(c, 7, tp, 0, -1).Offset, 1)
	}},
	{"§3.3", "duplicates in flight on one connection are answered with one offset", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		req := produceRequest(tp, 0, -1, sequenced(t, producerID(c), 0, 0, "a", "b"))
		req.SetVersion(9)
		for range 20 {
			c.Send(req)
		}
		for range 20 {
			got := c.Receive(req).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
			wantCode(t, "duplicate", got.ErrorCode, nil)
			want(t, "base offset", got.BaseOffset, 0)
		}
		want(t, "log end", listOffset(c, 7, tp, 0, -1).Offset, 2)
	}},
}
