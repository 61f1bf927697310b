package txn

import (
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

// ok is the error code of success.
const ok = int16(0)

// identity is a producer's id and epoch.
type identity struct {
	id    record.ProducerID
	epoch record.ProducerEpoch
}

var nobody = identity{record.NoProducer, noEpoch}

// initProducerID handles InitProducerId v0-5 of a transactional id.
func (m *Machine) initProducerID(ev InitProducerID, nowMs int64, e *coordinator.Effects) any {
	who, code, need := m.initialize(ev, nowMs, e)
	if need {
		return NeedID{}
	}
	if ev.Req.Version < 4 {
		code = oldFenced(code)
	}
	resp := ev.Req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = code, int64(who.id), int16(who.epoch)
	return resp
}

func (m *Machine) initialize(ev InitProducerID, nowMs int64, e *coordinator.Effects) (who identity, code int16, need bool) {
	req := ev.Req
	is := nobody // who the producer says it is (KIP-360)
	if req.Version >= 3 {
		is = identity{record.ProducerID(req.ProducerID), record.ProducerEpoch(req.ProducerEpoch)}
	}
	switch {
	case (is.id == record.NoProducer) != (is.epoch == noEpoch), req.TransactionalID == nil, *req.TransactionalID == "":
		return nobody, kerr.InvalidRequest.Code, false
	case req.TransactionTimeoutMillis <= 0, int64(req.TransactionTimeoutMillis) > m.o.MaxTimeout.Milliseconds():
		return nobody, kerr.InvalidTransactionTimeout.Code, false
	}
	t := m.txns[*req.TransactionalID]
	switch {
	case t == nil && ev.Fresh == record.NoProducer:
		return nobody, ok, true
	case t == nil:
		t = &transaction{id: *req.TransactionalID, producerID: ev.Fresh, nextID: record.NoProducer, version: version1, place: noPlace}
		m.txns[t.id] = t
		t.initialize(ev.Fresh, 0, noEpoch, req.TransactionTimeoutMillis, nowMs)
	case t.preparing():
		return nobody, kerr.ConcurrentTransactions.Code, false
	case is != nobody && is.id != t.producerID && !(is.id == t.previousID && exhausted(is.epoch)):
		return nobody, kerr.ProducerFenced.Code, false
	case t.state == ongoing:
		// The producer asks again until the abort is complete, and then gets another epoch than the one that fences.
		m.fence(t, nowMs, e)
		return nobody, kerr.ConcurrentTransactions.Code, false
	default:
		if code, need = t.reinitialize(is, ev.Fresh, req.TransactionTimeoutMillis, nowMs); code != ok || need {
			return nobody, code, need
		}
	}
	m.save(t, e)
	return identity{t.producerID, t.epoch}, ok, false
}

// reinitialize gives the next epoch, of a new producer id if those of this one are used up, or the one already given to a
// producer that lost the answer.
func (t *transaction) reinitialize(is identity, fresh record.ProducerID, timeoutMs int32, nowMs int64) (code int16, need bool) {
	id, epoch, last := t.producerID, t.epoch+1, noEpoch
	switch {
	case is == nobody:
	case is.epoch == t.epoch:
		last = t.epoch
	case is.epoch == t.lastEpoch:
		epoch, last = t.epoch, t.lastEpoch
	default:
		return kerr.ProducerFenced.Code, false
	}
	if epoch > lastEpoch || epoch < 0 {
		if fresh == record.NoProducer {
			return ok, true
		}
		id, epoch = fresh, 0
	}
	t.initialize(id, epoch, last, timeoutMs, nowMs)
	return ok, false
}
