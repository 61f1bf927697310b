package producer

import (
	"fmt"
	"math"

	"github.com/everlog/everlog/tier/record"
)

// Check decides whether b, which a client or a transaction coordinator sent, may be appended now. It changes nothing. An
// error is one of the package's sentinels, with the numbers that disagree, or record.ErrCorrupt for a control batch that
// is no marker. A batch without a producer id is always to be appended.
func (s *State) Check(b record.Batch, nowMs int64) (Verdict, error) {
	return s.check(b, nowMs, false)
}

// CheckV2 is Check under the rules of transaction version 2 (KIP-890 part 2): a producer without state must start at
// sequence 0, and a marker must carry a newer epoch than the transaction's, unless it repeats one already written.
func (s *State) CheckV2(b record.Batch, nowMs int64) (Verdict, error) {
	return s.check(b, nowMs, true)
}

func (s *State) check(b record.Batch, nowMs int64, v2 bool) (Verdict, error) {
	id, epoch := b.ProducerID(), b.ProducerEpoch()
	if id < 0 {
		if b.IsTransactional() || b.IsControl() {
			return Verdict{}, fmt.Errorf("%w: transactional without a producer id", ErrInvalidBatch)
		}
		return Verdict{}, nil
	}
	if epoch < 0 {
		return Verdict{}, fmt.Errorf("%w: producer %d with epoch %d", ErrInvalidBatch, id, epoch)
	}
	e := s.producers[id]
	if e != nil && s.expired(e, nowMs) {
		e = nil // as good as gone, whether Expire came by or not
	}
	if b.IsControl() {
		return Verdict{}, checkMarker(e, b, v2)
	}
	if b.BaseSequence() < 0 && b.IsTransactional() {
		return Verdict{}, s.CheckOffsets(id, epoch, nowMs)
	}
	if b.BaseSequence() < 0 || b.LastOffsetDelta() < 0 {
		return Verdict{}, fmt.Errorf("%w: producer %d with sequence %d", ErrInvalidBatch, id, b.BaseSequence())
	}
	if e == nil {
		if v2 && b.IsTransactional() && b.BaseSequence() != 0 {
			return Verdict{}, fmt.Errorf("%w: producer %d starts at %d", ErrOutOfOrderSequence, id, b.BaseSequence())
		}
		return Verdict{}, nil // its state may have been lost to retention: any start is right
	}
	return e.checkData(b)
}

// CheckOffsets is Check for what a group coordinator writes for a producer's transaction, which has no sequence numbers.
func (s *State) CheckOffsets(id record.ProducerID, epoch record.ProducerEpoch, nowMs int64) error {
	if e := s.producers[id]; e != nil && !s.expired(e, nowMs) && epoch < e.epoch {
		return fmt.Errorf("%w: producer %d has epoch %d, current is %d", ErrInvalidEpoch, id, epoch, e.epoch)
	}
	return nil
}

// checkData looks for a duplicate before anything else: a resent batch is answered even if its transaction is over.
func (e *entry) checkData(b record.Batch) (Verdict, error) {
	id, epoch, first := b.ProducerID(), b.ProducerEpoch(), b.BaseSequence()
	if epoch == e.epoch {
		last := b.LastSequence()
		for _, w := range e.window[:e.count] {
			if w.firstSeq == first && w.lastSeq == last {
				return Verdict{Duplicate: true, BaseOffset: w.base, NextOffset: w.next, AppendTimeMs: w.appendTimeMs}, nil
			}
		}
	}
	switch last := e.lastSequence(); {
	case epoch < e.epoch:
		return Verdict{}, fmt.Errorf("%w: producer %d has epoch %d, current is %d", ErrInvalidEpoch, id, epoch, e.epoch)
	case epoch > e.epoch && first != 0:
		return Verdict{}, fmt.Errorf("%w: producer %d starts epoch %d at %d", ErrOutOfOrderSequence, id, epoch, first)
	case epoch == e.epoch && !follows(last, first):
		return Verdict{}, fmt.Errorf("%w: producer %d sent %d after %d", ErrOutOfOrderSequence, id, first, last)
	case e.txnFirst != noOffset && !b.IsTransactional():
		return Verdict{}, fmt.Errorf("%w: producer %d, since offset %d", ErrInvalidTxnState, id, e.txnFirst)
	}
	return Verdict{}, nil
}

// follows reports whether a batch may start at next after last; sequences wrap from 2^31-1 to 0.
func follows(last, next int32) bool {
	return next == last+1 && last != math.MaxInt32 || next == 0 && last == math.MaxInt32
}

func checkMarker(e *entry, b record.Batch, v2 bool) error {
	m, ok, err := parseMarker(b)
	if err != nil || !ok || e == nil {
		return err
	}
	id, epoch := b.ProducerID(), b.ProducerEpoch()
	// Under version 2 an equal epoch closes nothing but is accepted without an open transaction: the coordinator repeats
	// a marker whose answer it lost (KAFKA-19999).
	if epoch < e.epoch || v2 && epoch == e.epoch && e.txnFirst != noOffset {
		return fmt.Errorf("%w: marker of producer %d has epoch %d, current is %d", ErrInvalidEpoch, id, epoch, e.epoch)
	}
	if m.coordinatorEpoch < e.coordinatorEpoch {
		return fmt.Errorf("%w: marker of producer %d has coordinator epoch %d, current is %d",
			ErrCoordinatorFenced, id, m.coordinatorEpoch, e.coordinatorEpoch)
	}
	return nil
}
