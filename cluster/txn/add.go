package txn

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

// offsetsTopic is where groups keep their offsets.
const offsetsTopic = "__consumer_offsets"

// addPartitions handles AddPartitionsToTxn v0-3: all partitions or none.
func (m *Machine) addPartitions(req *kmsg.AddPartitionsToTxnRequest, nowMs int64, e *coordinator.Effects) *kmsg.AddPartitionsToTxnResponse {
	var partitions []TopicPartition
	for _, t := range req.Topics {
		for _, p := range t.Partitions {
			partitions = append(partitions, TopicPartition{t.Topic, p})
		}
	}
	who := identity{record.ProducerID(req.ProducerID), record.ProducerEpoch(req.ProducerEpoch)}
	code := m.add(req.TransactionalID, who, partitions, version1, nowMs, e)
	if req.Version < 2 {
		code = oldFenced(code)
	}
	resp := req.ResponseKind().(*kmsg.AddPartitionsToTxnResponse)
	for _, t := range req.Topics {
		rt := kmsg.NewAddPartitionsToTxnResponseTopic()
		rt.Topic = t.Topic
		for _, p := range t.Partitions {
			rp := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
			rp.Partition, rp.ErrorCode = p, code
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp
}

// addOffsets handles AddOffsetsToTxn v0-4.
func (m *Machine) addOffsets(ev AddOffsets, nowMs int64, e *coordinator.Effects) *kmsg.AddOffsetsToTxnResponse {
	who := identity{record.ProducerID(ev.Req.ProducerID), record.ProducerEpoch(ev.Req.ProducerEpoch)}
	code := m.add(ev.Req.TransactionalID, who, []TopicPartition{{offsetsTopic, ev.Partition}}, version1, nowMs, e)
	if ev.Req.Version < 2 {
		code = oldFenced(code)
	}
	resp := ev.Req.ResponseKind().(*kmsg.AddOffsetsToTxnResponse)
	resp.ErrorCode = code
	return resp
}

// oldFenced is a code for those who do not know PRODUCER_FENCED (KIP-588).
func oldFenced(code int16) int16 {
	if code == kerr.ProducerFenced.Code {
		return kerr.InvalidProducerEpoch.Code
	}
	return code
}

// add makes partitions a part of the producer's transaction.
func (m *Machine) add(id string, who identity, partitions []TopicPartition, version int16, nowMs int64, e *coordinator.Effects) int16 {
	if id == "" {
		return kerr.InvalidRequest.Code
	}
	t := m.txns[id]
	switch {
	case t == nil:
		return kerr.InvalidProducerIDMapping.Code
	case t.preparing():
		return kerr.ConcurrentTransactions.Code // before all else: the producer may have its next id already
	case t.producerID != who.id:
		return kerr.InvalidProducerIDMapping.Code
	case t.epoch != who.epoch, t.epoch == fencingEpoch:
		return kerr.ProducerFenced.Code
	case t.state == ongoing && !slices.ContainsFunc(partitions, func(p TopicPartition) bool { return !t.has(p) }):
		return ok
	}
	t.add(partitions, version, nowMs)
	m.save(t, e)
	return ok
}

// verify handles Verify.
func (m *Machine) verify(ev Verify, nowMs int64, e *coordinator.Effects) []int16 {
	codes := make([]int16, len(ev.Partitions))
	who := identity{ev.ProducerID, ev.ProducerEpoch}
	var code int16
	if ev.Add {
		code = m.add(ev.TransactionalID, who, ev.Partitions, version2, nowMs, e)
	} else {
		code = m.check(ev.TransactionalID, who)
	}
	t := m.txns[ev.TransactionalID]
	for i, p := range ev.Partitions {
		codes[i] = oldFenced(code)
		if code == ok && !t.has(p) {
			codes[i] = kerr.TransactionAbortable.Code
		}
	}
	return codes
}

// check says whether a producer may write to the partitions of its transaction.
func (m *Machine) check(id string, who identity) int16 {
	if id == "" {
		return kerr.InvalidRequest.Code
	}
	t := m.txns[id]
	switch {
	case t == nil || t.producerID != who.id:
		return kerr.InvalidProducerIDMapping.Code
	case t.epoch != who.epoch, t.epoch == fencingEpoch:
		return kerr.ProducerFenced.Code
	case t.preparing():
		return kerr.ConcurrentTransactions.Code
	}
	return ok
}
