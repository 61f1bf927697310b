package kafka

import (
	"bytes"
	"errors"
	"net"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/record"
)

// The hand-written codecs must agree with kmsg, which is generated from Kafka's own definitions, in every version.

func sampleBatch(t testing.TB) record.Batch {
	t.Helper()
	b := record.NewBuilder(record.Attrs{})
	b.Append(1000, []byte("k"), []byte("v"), record.Header{Key: "h", Value: []byte("x")})
	b.Append(1001, nil, bytes.Repeat([]byte("w"), 100))
	batch, err := b.Build()
	if err != nil {
		t.Fatal(err)
	}
	return batch
}

func TestDecodeProduceAsKmsgEncodes(t *testing.T) {
	batch := sampleBatch(t)
	for version := int16(3); version <= 13; version++ {
		req := kmsg.NewPtrProduceRequest()
		req.Version, req.Acks, req.TimeoutMillis = version, -1, 1500
		if version%2 == 0 {
			id := "txn"
			req.TransactionID = &id
		}
		ids := []record.TopicID{record.NewTopicID(), record.NewTopicID()}
		for i, name := range []string{"alpha", "beta"} {
			rt := kmsg.NewProduceRequestTopic()
			rt.Topic, rt.TopicID = name, ids[i]
			for p := range int32(3) {
				rp := kmsg.NewProduceRequestTopicPartition()
				rp.Partition, rp.Records = p, batch
				if p == 2 {
					rp.Records = nil
				}
				rt.Partitions = append(rt.Partitions, rp)
			}
			req.Topics = append(req.Topics, rt)
		}
		body := req.AppendTo(nil)
		got, err := decodeProduce(body, version)
		if err != nil {
			t.Fatalf("v%d: %v", version, err)
		}
		if got.acks != -1 || got.txnID != nil != (version%2 == 0) || got.partitions != 6 || len(got.topics) != 2 {
			t.Fatalf("v%d: %+v", version, got)
		}
		for i, rt := range got.topics {
			if version >= 13 && rt.id != ids[i] || version < 13 && rt.name != req.Topics[i].Topic {
				t.Fatalf("v%d: topic %+v", version, rt)
			}
			for p, rp := range rt.partitions {
				if rp.index != int32(p) || p < 2 && !bytes.Equal(rp.records, batch) || p == 2 && rp.records != nil {
					t.Fatalf("v%d: partition %d %+v", version, p, rp)
				}
			}
		}
		for n := range body { // no prefix decodes, and none panics
			if _, err := decodeProduce(body[:n], version); !errors.Is(err, errMalformed) {
				t.Fatalf("v%d cut at %d: %v", version, n, err)
			}
		}
	}
}

func TestEncodeProduceAsKmsgDecodes(t *testing.T) {
	for version := int16(3); version <= 13; version++ {
		id := record.NewTopicID()
		rep := &produceReply{call: &call{version: version, conn: &conn{}},
			topics: []producedTopic{{name: "alpha", id: id, first: 0, count: 2}, {name: "beta", id: id, first: 2, count: 1}},
			results: []produced{{index: 0, base: 77, appendTime: 5, logStart: 3, leader: -1},
				{index: 1, code: 87, message: "bad", base: -1, appendTime: -1, logStart: -1, leader: -1, records: []partition.RecordError{{Index: 4, Message: "no key"}}},
				{index: 9, base: 1, appendTime: -1, logStart: 0, leader: -1}}}
		resp := kmsg.NewPtrProduceResponse()
		resp.Version = version
		rep.size()
		if err := resp.ReadFrom(rep.encoded); err != nil {
			t.Fatalf("v%d: %v", version, err)
		}
		if diff := cmp.Diff(rep.encoded, resp.AppendTo(nil)); diff != "" {
			t.Fatalf("v%d: kmsg writes it otherwise: %s", version, diff)
		}
		p := resp.Topics[0].Partitions
		if p[0].BaseOffset != 77 || p[0].LogAppendTime != 5 || p[1].ErrorCode != 87 || len(resp.Topics) != 2 || resp.Topics[1].Partitions[0].Partition != 9 {
			t.Fatalf("v%d: %+v", version, resp)
		}
		if version >= 8 && (*p[1].ErrorMessage != "bad" || p[1].ErrorRecords[0].RelativeOffset != 4) {
			t.Fatalf("v%d: %+v", version, p[1])
		}
	}
}

func TestEncodeFetchAsKmsgDecodes(t *testing.T) {
	batch := sampleBatch(t)
	for version := int16(4); version <= 18; version++ {
		for _, isolation := range []int8{0, 1} {
			f := fetchToEncode(version, isolation, batch)
			wire := frameOf(t, f)
			resp := kmsg.NewPtrFetchResponse()
			resp.Version = version
			if err := resp.ReadFrom(wire); err != nil {
				t.Fatalf("v%d: %v", version, err)
			}
			if len(wire) != f.size() {
				t.Fatalf("v%d: %d bytes, size said %d", version, len(wire), f.size())
			}
			if diff := cmp.Diff(wire, resp.AppendTo(nil)); diff != "" {
				t.Fatalf("v%d: kmsg writes it otherwise: %s", version, diff)
			}
			checkFetch(t, version, isolation, resp, batch)
		}
	}
}

func fetchToEncode(version int16, isolation int8, batch record.Batch) *fetchRead {
	f := &fetchRead{version: version, req: &kmsg.FetchRequest{Version: version, IsolationLevel: isolation}, sessionID: 12}
	id := record.NewTopicID()
	results := []fetched{
		{part: &fetchPart{topic: "a", id: id, partition: 0}, hw: 10, lso: 9, logStart: 1, leader: -1, data: partition.MemoryData([][]byte{batch, batch}, nil), aborted: []record.AbortedTxn{{ProducerID: 5, First: 3}}},
		{part: &fetchPart{topic: "a", id: id, partition: 1}, hw: 0, lso: 0, logStart: 0, leader: -1},
		{part: &fetchPart{topic: "b", id: record.NewTopicID(), partition: 7}, code: 6, hw: -1, lso: -1, logStart: -1, leader: 3, epoch: 8, diverge: &record.EpochStart{Epoch: 2, Start: 50}},
	}
	if version >= 16 {
		f.nodes = []*metadata.Broker{{ID: 3, Host: "there", Port: 9092, Rack: "r"}}
	}
	f.results = results
	for i := range results {
		f.out = append(f.out, &results[i])
	}
	return f
}

// frameOf is the body that f writes to a connection.
func frameOf(t *testing.T, f *fetchRead) []byte {
	t.Helper()
	client, server := net.Pipe()
	got := make(chan []byte)
	go func() {
		var all []byte
		buf := make([]byte, 1<<16)
		for {
			n, err := client.Read(buf)
			all = append(all, buf[:n]...)
			if err != nil {
				got <- all
				return
			}
		}
	}()
	w := newResponseWriter(server)
	_ = f.size()
	if err := f.write(w); err != nil {
		t.Fatal(err)
	}
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	_ = server.Close()
	return <-got
}

func checkFetch(t *testing.T, version int16, isolation int8, resp *kmsg.FetchResponse, batch record.Batch) {
	t.Helper()
	if len(resp.Topics) != 2 || len(resp.Topics[0].Partitions) != 2 || version >= 7 && resp.SessionID != 12 {
		t.Fatalf("v%d: %+v", version, resp)
	}
	p := resp.Topics[0].Partitions[0]
	if p.HighWatermark != 10 || p.LastStableOffset != 9 || !bytes.Equal(p.RecordBatches, slices.Concat(batch, batch)) {
		t.Fatalf("v%d: %+v", version, p)
	}
	if isolation == 0 && p.AbortedTransactions != nil || isolation == 1 && p.AbortedTransactions[0].FirstOffset != 3 {
		t.Fatalf("v%d: aborted %+v", version, p.AbortedTransactions)
	}
	q := resp.Topics[1].Partitions[0]
	if q.ErrorCode != 6 || version >= 12 && q.DivergingEpoch.EndOffset != 50 || version >= 16 && (q.CurrentLeader.LeaderID != 3 || resp.Brokers[0].Host != "there") {
		t.Fatalf("v%d: %+v", version, q)
	}
}

func FuzzDecodeProduce(f *testing.F) {
	req := kmsg.NewPtrProduceRequest()
	req.Version = 9
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic = "t"
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Records = sampleBatch(f)
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	f.Add(req.AppendTo(nil), int16(9))
	f.Add([]byte{0xff, 0xff}, int16(3))
	f.Fuzz(func(t *testing.T, p []byte, version int16) {
		version = 3 + (version&0x7fff)%11
		got, err := decodeProduce(p, version)
		if err != nil && !errors.Is(err, errMalformed) {
			t.Fatal(err)
		}
		if err == nil && got.partitions > len(p) {
			t.Fatalf("%d partitions in %d bytes", got.partitions, len(p))
		}
	})
}
