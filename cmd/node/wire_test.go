package node

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/tier/record"
)

// wire is a connection without a client library.
type wire struct {
	t    *testing.T
	net  net.Conn
	sent int32
}

func (b *bench) wire() *wire {
	b.t.Helper()
	nc, err := net.Dial("tcp", b.node.Addr().String())
	if err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { _ = nc.Close() })
	return &wire{t: b.t, net: nc}
}

// frame is a request of client x.
func frame(version int16, correlation int32, req kmsg.Request) []byte {
	req.SetVersion(version)
	p := binary.BigEndian.AppendUint16(make([]byte, 4, 64), uint16(req.Key()))
	p = binary.BigEndian.AppendUint16(p, uint16(version))
	p = binary.BigEndian.AppendUint32(p, uint32(correlation))
	p = append(binary.BigEndian.AppendUint16(p, 1), 'x')
	if req.IsFlexible() {
		p = append(p, 0)
	}
	p = req.AppendTo(p)
	binary.BigEndian.PutUint32(p, uint32(len(p)-4))
	return p
}

func (w *wire) send(version int16, req kmsg.Request) {
	w.t.Helper()
	w.sent++
	if _, err := w.net.Write(frame(version, w.sent, req)); err != nil {
		w.t.Fatal(err)
	}
}

// read returns an answer from its correlation id on.
func (w *wire) read() []byte {
	w.t.Helper()
	if err := w.net.SetReadDeadline(time.Now().Add(20 * time.Second)); err != nil {
		w.t.Fatal(err)
	}
	var n [4]byte
	if _, err := io.ReadFull(w.net, n[:]); err != nil {
		w.t.Fatal(err)
	}
	p := make([]byte, binary.BigEndian.Uint32(n[:]))
	if _, err := io.ReadFull(w.net, p); err != nil {
		w.t.Fatal(err)
	}
	return p
}

// produceRequest writes a batch to a topic's first partition.
func (b *bench) produceRequest(topic string, batch []byte, acks int16, timeout int32) *kmsg.ProduceRequest {
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = acks, timeout
	rt := kmsg.NewProduceRequestTopic()
	rt.Topic, rt.TopicID = topic, b.node.broker.Image().Topic(topic).ID
	rp := kmsg.NewProduceRequestTopicPartition()
	rp.Records = batch
	rt.Partitions = append(rt.Partitions, rp)
	req.Topics = append(req.Topics, rt)
	return req
}

func batchOf(t *testing.T, a record.Attrs, values ...[]byte) []byte {
	t.Helper()
	w := record.NewBuilder(a)
	for _, v := range values {
		w.Append(time.Now().UnixMilli(), nil, v)
	}
	b, err := w.Build()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The first batch of a transaction is refused once, while its coordinator is asked, and comes as it was.
func TestTransactionsWithLogAppendTime(t *testing.T) {
	b := newBench(t, quickGroups())
	b.start()
	b.create("t", 1, map[string]string{"message.timestamp.type": "LogAppendTime"})
	for _, newest := range []int16{13, 11} { // version 2 of transactions, and 1
		cl := b.client(kgo.TransactionalID(fmt.Sprint("t", newest)), kgo.MaxVersions(pinned(0, newest)))
		b.transact(cl, "t", "one", true)
		cl.Close()
	}
	b.committed("t", 2)
}

// A topic is described once, however often a request names it.
func TestMetadataOfOneTopicManyTimes(t *testing.T) {
	b := newBench(t, nil)
	b.start()
	b.create("t", 100, nil)
	req, name := kmsg.NewPtrMetadataRequest(), "t"
	for range 5000 {
		req.Topics = append(req.Topics, kmsg.MetadataRequestTopic{Topic: &name})
	}
	for _, version := range []int16{1, 9, 12} {
		w := b.wire()
		w.send(version, req)
		if n := len(w.read()); n > 20_000 {
			t.Errorf("v%d: an answer of %d bytes", version, n)
		}
	}
}

// The timeout of a Produce is for other replicas: what is written must not be answered as if it were not.
func TestProduceWithoutTime(t *testing.T) {
	b := newBench(t, nil)
	b.start()
	b.create("t", 1, nil)
	for i, acks := range []int16{1, -1} {
		p := b.ask(9, b.produceRequest("t", batchOf(t, record.Attrs{}, []byte("v")), acks, 0)).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
		if p.ErrorCode != 0 || p.BaseOffset != int64(i) {
			t.Errorf("acks=%d: %v, offset %d", acks, kerr.ErrorForCode(p.ErrorCode), p.BaseOffset)
		}
	}
}

// A batch that is small and decompresses to more than is allowed is one that its producer can split.
func TestHighlyCompressedBatch(t *testing.T) {
	b := newBench(t, nil)
	b.start()
	b.create("t", 1, nil)
	values := make([][]byte, 70)
	for i := range values {
		values[i] = bytes.Repeat([]byte("a"), 1<<20)
	}
	p := b.ask(9, b.produceRequest("t", batchOf(t, record.Attrs{Codec: record.Zstd}, values...), -1, 10_000)).(*kmsg.ProduceResponse).Topics[0].Partitions[0]
	if p.ErrorCode != kerr.MessageTooLarge.Code {
		t.Errorf("%v, want %v", kerr.ErrorForCode(p.ErrorCode), kerr.MessageTooLarge)
	}
}

// A request sees what the requests before it on its connection did.
func TestListOffsetsBehindProduce(t *testing.T) {
	b := newBench(t, nil)
	b.start()
	b.create("t", 1, nil)
	w := b.wire()
	list := kmsg.NewPtrListOffsetsRequest()
	list.ReplicaID = -1
	lt := kmsg.NewListOffsetsRequestTopic()
	lt.Topic = "t"
	lp := kmsg.NewListOffsetsRequestTopicPartition()
	lp.Timestamp, lp.CurrentLeaderEpoch = -1, -1
	lt.Partitions = append(lt.Partitions, lp)
	list.Topics = append(list.Topics, lt)
	for i := range int64(50) {
		both := append(frame(8, 1, b.produceRequest("t", batchOf(t, record.Attrs{}, []byte("v")), -1, 10_000)), frame(5, 2, list)...)
		if _, err := w.net.Write(both); err != nil {
			t.Fatal(err)
		}
		w.read()
		resp := kmsg.NewPtrListOffsetsResponse()
		resp.SetVersion(5)
		if err := resp.ReadFrom(w.read()[4:]); err != nil {
			t.Fatal(err)
		}
		if got := resp.Topics[0].Partitions[0].Offset; got != i+1 {
			t.Fatalf("the end is %d behind record %d", got, i)
		}
	}
}

// unknownKey is a request that is not served.
type unknownKey struct{ kmsg.HeartbeatRequest }

func (*unknownKey) Key() int16               { return 999 }
func (*unknownKey) IsFlexible() bool         { return false }
func (*unknownKey) AppendTo(p []byte) []byte { return p }

// The connection of a client that has gone ends, also while its fetch waits and nothing is read from it.
func TestConnectionsOfClientsThatHaveGone(t *testing.T) {
	b := newBench(t, map[string]string{"connections.max.idle.ms": "2000"})
	b.start()
	b.create("t", 1, nil)
	id := b.node.broker.Image().Topic("t").ID
	gone := func() bool { return b.node.server.Connections() == 0 }
	eventually(t, "connections are left of before", gone)
	w := b.wire()
	w.send(12, fetchRequest("t", id, time.Hour))
	w.send(0, &unknownKey{})
	eventually(t, "it is not served", func() bool { return b.node.server.Connections() == 1 })
	_ = w.net.Close()
	eventually(t, "a connection stays behind an unknown request", gone)
	w = b.wire()
	for range 140 { // more than may be in flight
		w.send(12, fetchRequest("t", id, time.Hour))
	}
	eventually(t, "it is not served", func() bool { return b.node.server.Connections() == 1 })
	_ = w.net.Close()
	eventually(t, "a connection stays behind a full queue", gone)
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// A client that sends and does not read has its requests wait in the network, not their answers in memory.
func TestAnswersNobodyReads(t *testing.T) {
	b := newBench(t, nil)
	b.start()
	for i := range 20 {
		b.create(fmt.Sprint("t", i), 100, nil)
	}
	produce := kmsg.NewPtrProduceRequest()
	produce.Acks = 1
	unknown := kmsg.NewProduceRequestTopic()
	unknown.Topic = "unknown"
	for range 100_000 {
		unknown.Partitions = append(unknown.Partitions, kmsg.NewProduceRequestTopicPartition())
	}
	produce.Topics = append(produce.Topics, unknown)
	for _, c := range []struct {
		name    string
		version int16
		req     kmsg.Request
		times   int
	}{{"Metadata of all topics", 9, kmsg.NewPtrMetadataRequest(), 5000}, {"Produce of 100,000 partitions", 9, produce, 60}} {
		before := heapInUse()
		w := b.wire()
		if err := w.net.(*net.TCPConn).SetReadBuffer(4096); err != nil {
			t.Fatal(err)
		}
		all := bytes.Repeat(frame(c.version, 1, c.req), c.times)
		if err := w.net.SetWriteDeadline(time.Now().Add(3 * time.Second)); err != nil {
			t.Fatal(err)
		}
		_, _ = w.net.Write(all) // as much as is taken
		if grew := (heapInUse() - before) >> 20; grew > 60 {
			t.Errorf("%s: %d MiB are held", c.name, grew)
		}
		_ = w.net.Close()
		eventually(t, "the connection stays", func() bool { return b.node.server.Connections() == 0 })
	}
}
