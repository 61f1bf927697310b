package txn

import (
	"fmt"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

const id = "orders-1"

var begin = time.UnixMilli(1_700_000_000_000)

// harness runs one machine over a log in memory.
type harness struct {
	t       *testing.T
	m       *Machine
	o       Options
	now     time.Time
	fresh   record.ProducerID // the next that was never used
	log     []coordinator.Record
	markers []WriteMarkers // asked for in this load
}

func newHarness(t *testing.T, o Options) *harness {
	h := &harness{t: t, o: o, now: begin, fresh: 1000}
	h.reload()
	return h
}

// started has a transactional id in a state: producer 7 in epoch, partition data-0 where a transaction is open.
func started(t *testing.T, state kmsg.TransactionState, version int16, epoch int16) *harness {
	h := newHarness(t, Options{Epoch: 3})
	v := kmsg.NewTxnMetadataValue()
	v.Version, v.ProducerID, v.PreviousProducerID, v.ProducerEpoch = 1, 7, 7, epoch
	v.State, v.ClientTransactionVersion, v.TimeoutMillis = state, version, 60_000
	v.StartTimestamp, v.LastUpdateTimestamp = begin.UnixMilli(), begin.UnixMilli()
	if state == ongoing || state == prepareCommit || state == prepareAbort {
		v.Topics = []kmsg.TxnMetadataValueTopic{{Topic: "data", Partitions: []int32{0}}}
	}
	h.log = append(h.log, coordinator.Record{Key: encodeKey(id), Value: v.AppendTo(nil)})
	h.reload()
	return h
}

// reload replays the log into a new machine.
func (h *harness) reload() {
	h.t.Helper()
	h.m = New(h.o)
	for i, r := range h.log {
		if err := h.m.Replay(record.Offset(i), coordinator.Entry{Key: r.Key, Value: r.Value}); err != nil {
			h.t.Fatal(err)
		}
	}
	h.markers = nil
	h.apply(h.m.Loaded(h.now))
}

func (h *harness) apply(e coordinator.Effects) {
	for _, b := range e.Append {
		if len(b.Records) == 0 || b.Transactional {
			h.t.Fatalf("batch %+v", b)
		}
		h.log = append(h.log, b.Records...)
	}
	for _, r := range e.Requests {
		h.markers = append(h.markers, r.(WriteMarkers))
	}
}

// do gives the machine an event and returns its answer.
func (h *harness) do(event any) any {
	h.t.Helper()
	e := h.m.Step(9, event, h.now)
	h.apply(e)
	if len(e.Replies) != 1 || e.Replies[0].To != 9 {
		h.t.Fatalf("%T: replies %+v", event, e.Replies)
	}
	return e.Replies[0].Value
}

func (h *harness) tick(d time.Duration) {
	h.now = h.now.Add(d)
	h.apply(h.m.Tick(h.now))
}

// written reports all markers asked for as written.
func (h *harness) written() {
	h.t.Helper()
	all := h.markers
	h.markers = nil
	for _, w := range all {
		if v := h.do(MarkersWritten{w}); v != nil {
			h.t.Fatalf("MarkersWritten answered by %v", v)
		}
	}
}

// id calls fn with no id, and with one that was never used if it needs one.
func (h *harness) id(event func(record.ProducerID) any) any {
	h.t.Helper()
	before := len(h.log)
	v := h.do(event(record.NoProducer))
	if _, need := v.(NeedID); !need {
		return v
	}
	if len(h.log) != before {
		h.t.Fatal("NeedID with records")
	}
	h.fresh++
	return h.do(event(h.fresh - 1))
}

func (h *harness) init(version int16, is identity) *kmsg.InitProducerIDResponse {
	h.t.Helper()
	req := kmsg.NewInitProducerIDRequest()
	req.Version, req.TransactionalID, req.TransactionTimeoutMillis = version, kmsg.StringPtr(id), 60_000
	req.ProducerID, req.ProducerEpoch = int64(is.id), int16(is.epoch)
	return h.id(func(fresh record.ProducerID) any { return InitProducerID{Req: &req, Fresh: fresh} }).(*kmsg.InitProducerIDResponse)
}

func (h *harness) end(version int16, is identity, commit bool) *kmsg.EndTxnResponse {
	h.t.Helper()
	req := kmsg.NewEndTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = version, id, int64(is.id), int16(is.epoch), commit
	return h.id(func(fresh record.ProducerID) any { return EndTxn{Req: &req, Fresh: fresh} }).(*kmsg.EndTxnResponse)
}

// add adds partition data-p and returns the error code.
func (h *harness) add(version int16, is identity, p int32) int16 {
	h.t.Helper()
	req := kmsg.NewAddPartitionsToTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = version, id, int64(is.id), int16(is.epoch)
	req.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "data", Partitions: []int32{p}}}
	resp := h.do(Request{&req}).(*kmsg.AddPartitionsToTxnResponse)
	if resp.Version != version || len(resp.Topics) != 1 || resp.Topics[0].Topic != "data" || len(resp.Topics[0].Partitions) != 1 ||
		resp.Topics[0].Partitions[0].Partition != p {
		h.t.Fatalf("AddPartitionsToTxn answered by %+v", resp)
	}
	return resp.Topics[0].Partitions[0].ErrorCode
}

func (h *harness) addOffsets(version int16, is identity, p int32) int16 {
	h.t.Helper()
	req := kmsg.NewAddOffsetsToTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = version, id, int64(is.id), int16(is.epoch), "g"
	return h.do(AddOffsets{&req, p}).(*kmsg.AddOffsetsToTxnResponse).ErrorCode
}

// verify asks for data-p, or adds it.
func (h *harness) verify(is identity, p int32, add bool) int16 {
	h.t.Helper()
	codes := h.do(Verify{id, is.id, is.epoch, []TopicPartition{{"data", p}}, add}).([]int16)
	if len(codes) != 1 {
		h.t.Fatalf("Verify answered by %v", codes)
	}
	return codes[0]
}

func (h *harness) describe() kmsg.DescribeTransactionsResponseTransactionState {
	return h.do(Describe{id}).(kmsg.DescribeTransactionsResponseTransactionState)
}

// is says what the transactional id is now: producer id/epoch and state.
func (h *harness) is() string {
	d := h.describe()
	if d.ErrorCode != 0 {
		return name(d.ErrorCode)
	}
	return fmt.Sprintf("%d/%d %s", d.ProducerID, d.ProducerEpoch, d.State)
}

func name(code int16) string {
	switch e := kerr.ErrorForCode(code).(type) {
	case nil:
		return "ok"
	case *kerr.Error:
		return e.Message
	default:
		return e.Error()
	}
}
