package protocol

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/e2e/harness"
)

var orderRules = []rule{
	{"§2.4", "responses are in request order, whatever each takes", func(t *testing.T, b *broker) {
		tp := b.topic(t, 2)
		c := b.dial(t)
		var sent []kmsg.Request
		send := func(version int16, req kmsg.Request) {
			req.SetVersion(version)
			c.Send(req)
			sent = append(sent, req)
		}
		for range 10 {
			send(9, produceRequest(tp, 0, -1, batch(t, "a")))
			send(5, kmsg.NewPtrMetadataRequest())
			poll := fetchRequest(wanted{topic: tp, partition: 1})
			poll.MaxWaitMillis = 20
			send(12, poll)
			send(7, listRequest(tp, 0, -1))
			send(7, produceRequest(tp, 0, 1, batch(t, "b")))
			send(0, kmsg.NewPtrApiVersionsRequest())
		}
		for _, req := range sent {
			wantNoErrors(t, kmsg.NameForKey(req.Key()), c.Receive(req))
		}
	}},
	{"§2.4", "requests of a connection take effect in their order: pipelined batches get ascending offsets", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		req := produceRequest(tp, 0, -1, batch(t, "a", "b", "c"))
		req.SetVersion(9)
		for range 100 {
			c.Send(req)
		}
		for i := range 100 {
			got := c.Receive(req).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
			wantCode(t, "produce", got.ErrorCode, nil)
			want(t, "base offset", got.BaseOffset, int64(3*i))
		}
	}},
	{"§2.4", "a request that fails does not disturb those behind it", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		bad, good := produceRequest(tp, 0, -1, []byte("nonsense")), produceRequest(tp, 0, -1, batch(t, "a"))
		bad.SetVersion(9)
		good.SetVersion(9)
		for range 5 {
			c.Send(bad)
			c.Send(good)
		}
		for i := range 5 {
			if got := c.Receive(bad).(*kmsg.ProduceResponse).Topics[0].Partitions[0]; got.ErrorCode == 0 {
				t.Error("nonsense was accepted")
			}
			want(t, "base offset", c.Receive(good).(*kmsg.ProduceResponse).Topics[0].Partitions[0].BaseOffset, int64(i))
		}
	}},
	{"§2.4", "a long-poll Fetch blocks what is behind it on its connection", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		poll := fetchRequest(wanted{topic: tp})
		poll.MaxWaitMillis = 700
		poll.SetVersion(12)
		write := produceRequest(tp, 0, -1, batch(t, "a"))
		write.SetVersion(9)
		c.Send(poll)
		c.Send(write)
		_, records := decode(t, c.Receive(poll).(*kmsg.FetchResponse).Topics[0].Partitions[0].RecordBatches)
		wantNoErrors(t, "produce", c.Receive(write))
		want(t, "records in the answer of the fetch", len(records),
			differs(b, 0, 1, "everlog appends what comes behind a paused fetch, and only its response waits: here it wakes the fetch up"))
	}},
	{"§2.4", "acks=0 Produce: no response bytes at all", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		for version := int16(3); version <= 13; version++ {
			req := produceRequest(tp, 0, 0, batch(t, "a"))
			req.SetVersion(version)
			c.SendSilent(req)
		}
		got := produceIn(c, 9, tp, 0, batch(t, "z")) // its correlation id must be in the next answer
		wantCode(t, "produce", got.ErrorCode, nil)
		want(t, "base offset behind eleven silent records", got.BaseOffset, 11)
	}},
	{"§2.4", "acks=0 Produce: on any partition error the broker closes the connection", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		for _, spoiled := range []*kmsg.ProduceRequest{
			produceRequest(topic{name: "no such topic!"}, 0, 0, batch(t, "a")),
			produceRequest(tp, 5, 0, batch(t, "a")),
			produceRequest(tp, 0, 0, edit(batch(t, "a"), func(b []byte) { b[atMagic] = 1 })),
		} {
			c := b.dial(t)
			spoiled.SetVersion(9)
			c.SendSilent(spoiled)
			c.MustBeClosed()
		}
	}},
	{"§2.4", "what was sent before a request that closes the connection is kept", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		good, bad := produceRequest(tp, 0, 0, batch(t, "kept")), produceRequest(tp, 9, 0, batch(t, "a"))
		good.SetVersion(9)
		bad.SetVersion(9)
		c.SendSilent(good)
		c.SendSilent(bad)
		c.MustBeClosed()
		reader := b.dial(t)
		harness.Until(t, answerLimit, "the record can be read", func() error { // nothing says when a record without an ack is there
			if _, records := decode(t, fetch(reader, tp, 0, 0).RecordBatches); len(records) != 1 || records[0].value != "kept" {
				return fmt.Errorf("the log holds %v, want the first record alone", records)
			}
			return nil
		})
	}},
	{"§3.2", "one request with many partitions has one answer for each, in order of the topics, an error of one being its own", func(t *testing.T, b *broker) {
		one, two := b.topic(t, 3), b.topic(t, 1)
		c := b.dial(t)
		req := produceRequest(one, 0, -1, batch(t, "a"))
		for p := int32(1); p < 3; p++ {
			part := kmsg.NewProduceRequestTopicPartition()
			part.Partition, part.Records = p, batch(t, "b")
			if p == 1 {
				part.Records[len(part.Records)-1] ^= 1
			}
			req.Topics[0].Partitions = append(req.Topics[0].Partitions, part)
		}
		addProduce(req, two, 0, batch(t, "c"))
		addProduce(req, two, 7, batch(t, "d"))
		got := map[string]map[int32]int16{}
		for _, topic := range Ask[*kmsg.ProduceResponse](c, 9, req).Topics {
			for _, p := range topic.Partitions {
				if got[topic.Topic] == nil {
					got[topic.Topic] = map[int32]int16{}
				}
				got[topic.Topic][p.Partition] = p.ErrorCode
			}
		}
		wantCode(t, "good partition", got[one.name][0], nil)
		wantCode(t, "spoiled CRC", got[one.name][1], kerr.CorruptMessage)
		wantCode(t, "good partition", got[one.name][2], nil)
		wantCode(t, "good topic", got[two.name][0], nil)
		wantCode(t, "partition that is not there", got[two.name][7], kerr.UnknownTopicOrPartition)
		if len(got) != 2 || len(got[one.name]) != 3 || len(got[two.name]) != 2 {
			t.Errorf("answers %v, want five partitions", got)
		}
	}},
}
