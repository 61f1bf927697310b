package txn

import (
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/tier/record"
)

// actor is a producer with a transactional id, which others may have too. It speaks one version of transactions, and asks
// again, with the same bytes, for what it got no answer to.
type actor struct {
	w  *world
	id string
	v2 bool

	is   identity
	txn  *attempt
	busy *request
	wait int // steps until it gives up waiting for an answer

	added   map[TopicPartition]bool // version 1
	flying  int                     // writes without an answer
	recover bool                    // begin again as who it is (KIP-360)
}

// attempt is one transaction as its producer sees it.
type attempt struct {
	is     identity
	writes []*wrote
	answer string // "commit" or "abort" if the producer was told so
}

// request is what an actor waits for an answer to.
type request struct {
	what  string
	event func(fresh record.ProducerID) any
	call  *call
	then  func(answer any)
}

const patience = 12

// step lets the actor do something.
func (a *actor) step() {
	switch {
	case a.busy != nil && a.busy.call.done && a.w.rng.IntN(8) > 0:
		r := a.busy
		if _, need := r.call.answer.(NeedID); need {
			a.w.fresh++
			a.send(r, a.w.fresh)
			return
		}
		a.busy = nil
		a.w.trace("%s %v: %s answered %+v", a.id, a.is, r.what, r.call.answer)
		r.then(r.call.answer)
	case a.busy != nil:
		// The answer is on its way, or lost; the request that is sent again is served once more.
		if a.wait++; a.wait > patience {
			a.w.trace("%s %v asks again: %s", a.id, a.is, a.busy.what)
			if a.v2 && a.w.rng.IntN(2) == 0 {
				a.w.late = append(a.w.late, a.busy.event(record.NoProducer))
			}
			a.send(a.busy, record.NoProducer)
		}
	case a.recover:
		a.initialize()
	case a.is == nobody:
		if a.w.rng.IntN(50) == 0 { // it fences whoever is at work
			a.initialize()
		}
	default:
		a.transact()
	}
}

func (a *actor) ask(what string, event func(record.ProducerID) any, then func(any)) {
	a.send(&request{what: what, event: event, then: then}, record.NoProducer)
}

func (a *actor) send(r *request, fresh record.ProducerID) {
	a.wait = 0
	a.w.trace("%s %v: %s, fresh %d", a.id, a.is, r.what, fresh)
	r.call = a.w.start(r.event(fresh))
	a.busy = r
}

func (a *actor) initialize() {
	is := nobody
	if a.recover {
		is = a.is
	}
	req := kmsg.NewInitProducerIDRequest()
	req.Version, req.TransactionalID, req.TransactionTimeoutMillis = 5, &a.id, 20_000
	req.ProducerID, req.ProducerEpoch = int64(is.id), int16(is.epoch)
	a.ask("init", func(fresh record.ProducerID) any { return InitProducerID{&req, fresh} }, func(answer any) {
		resp := answer.(*kmsg.InitProducerIDResponse)
		switch name(resp.ErrorCode) {
		case "ok":
			a.granted(identity{record.ProducerID(resp.ProducerID), record.ProducerEpoch(resp.ProducerEpoch)})
		case "CONCURRENT_TRANSACTIONS":
		case "PRODUCER_FENCED":
			a.fenced()
		default:
			a.w.failf("init of %s answered %s", a.id, name(resp.ErrorCode))
		}
	})
}

// granted notes who the actor is. Nobody else may be told to be the same.
func (a *actor) granted(is identity) {
	if other := a.w.holders[is]; other != nil && other != a {
		a.w.failf("two producers are %v of %s", is, a.id)
	}
	if is.epoch > lastEpoch {
		a.w.failf("%s is given epoch %d", a.id, is.epoch)
	}
	a.w.holders[is] = a
	a.is, a.recover, a.txn, a.added = is, false, nil, nil
	a.w.trace("%s is %v", a.id, is)
}

// fenced begins anew as another producer: what it did is not its any more.
func (a *actor) fenced() {
	w, i := a.w, slices.Index(a.w.actors, a)
	w.counts["fenced"]++
	w.actors[i] = &actor{w: w, id: a.id, v2: a.v2, is: nobody}
}

// transact goes on with the transaction, or begins one.
func (a *actor) transact() {
	if a.txn == nil {
		a.txn = &attempt{is: a.is}
		a.w.attempts = append(a.w.attempts, a.txn)
		a.added = map[TopicPartition]bool{}
	}
	switch n := a.w.rng.IntN(20); {
	case n < 11:
		a.write(TopicPartition{"data", int32(a.w.rng.IntN(4))})
	case n < 18 && a.flying == 0 && (len(a.txn.writes) > 0 || a.v2):
		a.end(len(a.txn.writes) > 0 && n < 16)
	case n == 18 && a.w.rng.IntN(4) == 0:
		a.recover = true // after an error that it did not expect
	case n == 19 && a.w.rng.IntN(8) == 0:
		a.w.trace("%s %v is gone", a.id, a.is)
		a.fenced()
	}
}

// write has a partition take a record of the transaction.
func (a *actor) write(p TopicPartition) {
	is, t := a.is, a.txn
	wr := &wrote{txn: t}
	if !a.v2 && !a.added[p] {
		req := kmsg.NewAddPartitionsToTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = 3, a.id, int64(is.id), int16(is.epoch)
		req.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: p.Topic, Partitions: []int32{p.Partition}}}
		a.ask("add", func(record.ProducerID) any { return Request{&req} }, func(answer any) {
			code := answer.(*kmsg.AddPartitionsToTxnResponse).Topics[0].Partitions[0].ErrorCode
			if a.refused(code) {
				return
			}
			a.added[p] = true
		})
		return
	}
	event := Verify{a.id, is.id, is.epoch, []TopicPartition{p}, a.v2}
	a.ask("write", func(record.ProducerID) any { return event }, func(answer any) {
		if a.refused(answer.([]int16)[0]) {
			return
		}
		t.writes = append(t.writes, wr)
		a.flying++
		put := func() {
			a.flying--
			wr.acked = a.w.partition(p).append(is, wr)
		}
		if a.v2 && a.w.rng.IntN(2) == 0 {
			a.w.appends = append(a.w.appends, put) // it may arrive after the transaction's end
			return
		}
		put()
	})
}

// refused goes on after an error of adding a partition.
func (a *actor) refused(code int16) bool {
	switch name(code) {
	case "ok":
		return false
	case "CONCURRENT_TRANSACTIONS":
	case "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH", "INVALID_PRODUCER_ID_MAPPING", "TRANSACTION_ABORTABLE":
		if a.v2 && a.w.rng.IntN(2) == 0 {
			a.flying = 0
			a.end(false) // Java aborts what it can
			return true
		}
		a.fenced()
	default:
		a.w.failf("%s %v: write answered %s", a.id, a.is, name(code))
	}
	return true
}

func (a *actor) end(commit bool) {
	t := a.txn
	what, version := "abort", int16(4)
	if commit {
		what = "commit"
		for _, wr := range t.writes {
			if !wr.acked {
				what, commit = "abort", false // no producer commits what was refused
			}
		}
	}
	if a.v2 {
		version = 5
	}
	req := kmsg.NewEndTxnRequest()
	req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Commit = version, a.id, int64(a.is.id), int16(a.is.epoch), commit
	a.ask(what, func(fresh record.ProducerID) any { return EndTxn{&req, fresh} }, func(answer any) {
		resp := answer.(*kmsg.EndTxnResponse)
		switch name(resp.ErrorCode) {
		case "ok":
			t.answer = what
			a.w.counts["answered "+what]++
			a.txn = nil
			if a.v2 {
				a.granted(identity{record.ProducerID(resp.ProducerID), record.ProducerEpoch(resp.ProducerEpoch)})
			}
		case "CONCURRENT_TRANSACTIONS":
			a.end(commit)
		case "PRODUCER_FENCED", "INVALID_PRODUCER_ID_MAPPING", "INVALID_TXN_STATE":
			a.fenced()
		default:
			a.w.failf("%s %v: %s answered %s", a.id, a.is, what, name(resp.ErrorCode))
		}
	})
}
