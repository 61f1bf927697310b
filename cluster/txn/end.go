package txn

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

// endTxn handles EndTxn v0-5. From v5 on the producer speaks version 2 of transactions.
func (m *Machine) endTxn(ev EndTxn, nowMs int64, e *coordinator.Effects) any {
	req := ev.Req
	resp := req.ResponseKind().(*kmsg.EndTxnResponse)
	resp.ProducerID, resp.ProducerEpoch = int64(nobody.id), int16(nobody.epoch)
	t := m.txns[req.TransactionalID]
	switch {
	case req.TransactionalID == "":
		resp.ErrorCode = kerr.InvalidRequest.Code
	case t == nil:
		resp.ErrorCode = kerr.InvalidProducerIDMapping.Code
	case req.Version < 5:
		resp.ErrorCode = m.endV1(t, req, nowMs, e)
	default:
		who, code, need := m.endV2(t, ev, nowMs, e)
		if need {
			return NeedID{}
		}
		resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = code, int64(who.id), int16(who.epoch)
	}
	if req.Version < 2 {
		resp.ErrorCode = oldFenced(resp.ErrorCode)
	}
	return resp
}

// endV1 ends a transaction of version 1. A repeated request looks like the first one:
//
//	                abort                      commit
//	Empty           INVALID_TXN_STATE          INVALID_TXN_STATE
//	Ongoing         prepare                    prepare
//	Prepare*        CONCURRENT_TRANSACTIONS    CONCURRENT_TRANSACTIONS
//	CompleteAbort   success                    INVALID_TXN_STATE
//	CompleteCommit  INVALID_TXN_STATE          success
func (m *Machine) endV1(t *transaction, req *kmsg.EndTxnRequest, nowMs int64, e *coordinator.Effects) int16 {
	switch {
	case t.producerID != record.ProducerID(req.ProducerID):
		return kerr.InvalidProducerIDMapping.Code
	case t.epoch != record.ProducerEpoch(req.ProducerEpoch):
		return kerr.ProducerFenced.Code
	case t.preparing():
		return kerr.ConcurrentTransactions.Code
	case t.state == ongoing:
		t.prepare(req.Commit, version1, record.NoProducer, nowMs)
		m.save(t, e)
		m.finish(t, nowMs, e)
		return ok
	case t.state == completeCommit && req.Commit, t.state == completeAbort && !req.Commit:
		return ok
	}
	return kerr.InvalidTxnState.Code
}

// endV2 ends a transaction of version 2, and says who the producer is in the next one. A repeated request is known by its
// epoch, which is that before the producer's, or the last of the producer id before:
//
//	                abort                        commit
//	                repeated        current      repeated        current
//	Empty           PRODUCER_FENCED prepare      PRODUCER_FENCED INVALID_TXN_STATE
//	Ongoing         PRODUCER_FENCED prepare      PRODUCER_FENCED prepare
//	Prepare*        CONCURRENT_TRANSACTIONS in every case
//	CompleteAbort   success         prepare      INVALID_TXN_STATE
//	CompleteCommit  INV._TXN_STATE  prepare      success         INVALID_TXN_STATE
func (m *Machine) endV2(t *transaction, ev EndTxn, nowMs int64, e *coordinator.Effects) (who identity, code int16, need bool) {
	is := identity{record.ProducerID(ev.Req.ProducerID), record.ProducerEpoch(ev.Req.ProducerEpoch)}
	repeatedLast := is.id == t.previousID && is.epoch == lastEpoch && t.epoch == 0
	// After a transaction of version 1, which bumps nothing, the epoch before is that of a producer fenced since.
	repeated := t.version >= version2 && (is.epoch+1 == t.epoch || repeatedLast)
	complete := t.state == completeCommit || t.state == completeAbort
	switch {
	case t.preparing():
		return nobody, kerr.ConcurrentTransactions.Code, false // before all else: the producer may have its next id already
	case is.id != t.producerID && !repeatedLast:
		return nobody, kerr.InvalidProducerIDMapping.Code, false
	case is.epoch != t.epoch && !(complete && repeated):
		return nobody, kerr.ProducerFenced.Code, false
	case complete && repeated:
		if (t.state == completeCommit) != ev.Req.Commit {
			return nobody, kerr.InvalidTxnState.Code, false
		}
		return m.again(t, ev.Fresh, nowMs, e)
	case t.state != ongoing && ev.Req.Commit:
		return nobody, kerr.InvalidTxnState.Code, false
	}
	next := record.NoProducer
	if exhausted(t.epoch) {
		if next = ev.Fresh; next == record.NoProducer {
			return nobody, ok, true
		}
	}
	t.prepare(ev.Req.Commit, version2, next, nowMs)
	who = identity{t.producerID, t.epoch}
	if next != record.NoProducer {
		who = identity{next, 0}
	}
	m.save(t, e)
	m.finish(t, nowMs, e)
	return who, ok, false
}

// again answers a repeated request. The epoch may be that of a timeout, which no producer is given.
func (m *Machine) again(t *transaction, fresh record.ProducerID, nowMs int64, e *coordinator.Effects) (who identity, code int16, need bool) {
	if t.epoch == fencingEpoch {
		if fresh == record.NoProducer {
			return nobody, ok, true
		}
		t.touch(nowMs)
		t.producerID, t.epoch = fresh, 0
		m.save(t, e)
	}
	return identity{t.producerID, t.epoch}, ok, false
}
