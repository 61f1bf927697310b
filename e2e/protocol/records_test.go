package protocol

import (
	"encoding/binary"
	"hash/crc32"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/tier/record"
)

// Positions of fields in a record batch, for the rules that spoil one.
const (
	atBaseOffset   = 0
	atLength       = 8
	atMagic        = 16
	atCRC          = 17
	atAttributes   = 21
	atLastDelta    = 23
	atMaxTimestamp = 35
	atCount        = 57
	atRecords      = 61
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// batch is an uncompressed batch of the values, stamped now.
func batch(t testing.TB, values ...string) record.Batch {
	t.Helper()
	return batchAt(t, record.Attrs{}, time.Now().UnixMilli(), values...)
}

// sequenced is a batch of an idempotent producer.
func sequenced(t testing.TB, id int64, epoch int16, sequence int32, values ...string) record.Batch {
	t.Helper()
	attrs := record.Attrs{Idempotent: true, ProducerID: record.ProducerID(id), ProducerEpoch: record.ProducerEpoch(epoch), BaseSequence: sequence}
	return batchAt(t, attrs, time.Now().UnixMilli(), values...)
}

// batchAt is a batch whose records have the timestamp, the next one, and so on.
func batchAt(t testing.TB, attrs record.Attrs, timestamp int64, values ...string) record.Batch {
	t.Helper()
	builder := record.NewBuilder(attrs)
	for i, v := range values {
		builder.Append(timestamp+int64(i), []byte("key"), []byte(v))
	}
	made, err := builder.Build()
	if err != nil {
		t.Fatal(err)
	}
	return made
}

// edit changes bytes of the batch and signs it again.
func edit(b record.Batch, change func(b []byte)) record.Batch {
	change(b)
	binary.BigEndian.PutUint32(b[atCRC:], crc32.Checksum(b[atAttributes:], castagnoli))
	return b
}

func produceRequest(tp topic, partition int32, acks int16, records []byte) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = acks, 10_000
	addProduce(req, tp, partition, records)
	return req
}

func addProduce(req *kmsg.ProduceRequest, tp topic, partition int32, records []byte) {
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, records
	one := kmsg.NewProduceRequestTopic()
	one.Topic, one.TopicID, one.Partitions = tp.name, tp.id, []kmsg.ProduceRequestTopicPartition{p}
	req.Topics = append(req.Topics, one)
}

// produce sends one batch with acks=all in version 12 and returns the answer of its partition.
func produce(c *Conn, tp topic, partition int32, records []byte) kmsg.ProduceResponseTopicPartition {
	c.t.Helper()
	return produceIn(c, 12, tp, partition, records)
}

func produceIn(c *Conn, version int16, tp topic, partition int32, records []byte) kmsg.ProduceResponseTopicPartition {
	c.t.Helper()
	resp := Ask[*kmsg.ProduceResponse](c, version, produceRequest(tp, partition, -1, records))
	return resp.Topics[0].Partitions[0]
}

// mustProduce is produce that succeeds; it returns the base offset.
func mustProduce(c *Conn, tp topic, partition int32, records []byte) int64 {
	c.t.Helper()
	got := produce(c, tp, partition, records)
	if got.ErrorCode != 0 {
		c.t.Fatalf("produce to %s/%d: %s", tp.name, partition, codeName(got.ErrorCode))
	}
	return got.BaseOffset
}

// fill produces batches of one record with the values, one after the other.
func fill(t testing.TB, c *Conn, tp topic, partition int32, values ...string) {
	t.Helper()
	for _, v := range values {
		mustProduce(c, tp, partition, batch(t, v))
	}
}

// wanted is one partition of a fetch.
type wanted struct {
	topic     topic
	partition int32
	offset    int64
	max       int32 // 0 is 1 MiB
	epoch     int32 // current leader epoch + 1; 0 is no check
}

// fetchRequest asks for the partitions without waiting, in no session.
func fetchRequest(parts ...wanted) *kmsg.FetchRequest {
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.MaxWaitMillis, req.MinBytes, req.MaxBytes = -1, 0, 1, 50<<20
	req.SessionID, req.SessionEpoch = 0, -1
	for _, w := range parts {
		p := kmsg.NewFetchRequestTopicPartition()
		p.Partition, p.FetchOffset, p.PartitionMaxBytes, p.CurrentLeaderEpoch = w.partition, w.offset, w.max, w.epoch-1
		if w.max == 0 {
			p.PartitionMaxBytes = 1 << 20
		}
		if n := len(req.Topics); n > 0 && req.Topics[n-1].Topic == w.topic.name {
			req.Topics[n-1].Partitions = append(req.Topics[n-1].Partitions, p)
			continue
		}
		one := kmsg.NewFetchRequestTopic()
		one.Topic, one.TopicID, one.Partitions = w.topic.name, w.topic.id, []kmsg.FetchRequestTopicPartition{p}
		req.Topics = append(req.Topics, one)
	}
	return req
}

// fetch reads one partition in version 12.
func fetch(c *Conn, tp topic, partition int32, offset int64) kmsg.FetchResponseTopicPartition {
	c.t.Helper()
	resp := Ask[*kmsg.FetchResponse](c, 12, fetchRequest(wanted{topic: tp, partition: partition, offset: offset}))
	if resp.ErrorCode != 0 {
		c.t.Fatalf("fetch: %s", codeName(resp.ErrorCode))
	}
	return resp.Topics[0].Partitions[0]
}

// stored is one record as it was fetched.
type stored struct {
	offset, timestamp int64
	value             string
}

// decode returns the batches of a fetched partition, whole ones only, and their records. Each must have a good CRC.
func decode(t testing.TB, p []byte) (batches []record.Batch, records []stored) {
	t.Helper()
	for len(p) > 0 {
		b, rest, err := record.Next(p)
		if err != nil {
			break // a truncated last batch is allowed
		}
		if err := b.Verify(); err != nil {
			t.Fatalf("batch at %d: %v", b.BaseOffset(), err)
		}
		batches = append(batches, b)
		if err := b.Each(func(r *record.Record) error {
			at := stored{int64(b.BaseOffset()) + int64(r.OffsetDelta), b.BaseTimestamp() + r.TimestampDelta, string(r.Value)}
			if b.LogAppendTime() {
				at.timestamp = b.MaxTimestamp()
			}
			records = append(records, at)
			return nil
		}); err != nil {
			t.Fatalf("records of the batch at %d: %v", b.BaseOffset(), err)
		}
		p = rest
	}
	return batches, records
}

func listRequest(tp topic, partition int32, timestamp int64) *kmsg.ListOffsetsRequest {
	req := kmsg.NewPtrListOffsetsRequest()
	req.ReplicaID, req.TimeoutMillis = -1, 10_000
	p := kmsg.NewListOffsetsRequestTopicPartition()
	p.Partition, p.Timestamp, p.CurrentLeaderEpoch = partition, timestamp, -1
	one := kmsg.NewListOffsetsRequestTopic()
	one.Topic, one.Partitions = tp.name, []kmsg.ListOffsetsRequestTopicPartition{p}
	req.Topics = append(req.Topics, one)
	return req
}

func listOffset(c *Conn, version int16, tp topic, partition int32, timestamp int64) kmsg.ListOffsetsResponseTopicPartition {
	c.t.Helper()
	return Ask[*kmsg.ListOffsetsResponse](c, version, listRequest(tp, partition, timestamp)).Topics[0].Partitions[0]
}
