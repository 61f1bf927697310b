package producer

import (
	"github.com/everlog/everlog/tier/record"
)

// Apply records that b is in the log from offset base on, written at nowMs: the broker's clock, at replay too. A batch's own
// timestamps are the producer's; taken for nowMs they would let a producer of old records expire at once, and its resent
// batch in twice. Batches are applied in the order of their offsets, those without a producer id too. It allocates only for
// a producer or a transaction not seen before.
//
// The error is record.ErrCorrupt, for a control batch that is no marker; after a Check of the same batch there is none.
func (s *State) Apply(b record.Batch, base record.Offset, nowMs int64) error {
	next := base + record.Offset(b.LastOffsetDelta()) + 1
	if id := b.ProducerID(); id >= 0 {
		if b.IsControl() {
			m, ok, err := parseMarker(b)
			if err != nil {
				return err
			}
			if ok {
				s.applyMarker(id, b.ProducerEpoch(), m, next-1, nowMs)
			}
		} else {
			s.applyData(id, b, base, next, nowMs)
		}
	}
	s.end = max(s.end, next)
	return nil
}

func (s *State) applyData(id record.ProducerID, b record.Batch, base, next record.Offset, nowMs int64) {
	e := s.entry(id, b.ProducerEpoch(), nowMs)
	if b.IsTransactional() && e.txnFirst == noOffset {
		e.txnFirst = base
		s.begin(id, base)
	}
	if b.BaseSequence() < 0 {
		return // written by a coordinator, which numbers nothing
	}
	w := batch{firstSeq: b.BaseSequence(), lastSeq: b.LastSequence(), base: base, next: next, appendTimeMs: -1}
	if b.LogAppendTime() {
		w.appendTimeMs = b.MaxTimestamp()
	}
	if e.count == Window {
		copy(e.window[:], e.window[1:])
		e.count--
	}
	e.window[e.count] = w
	e.count++
}

func (s *State) applyMarker(id record.ProducerID, epoch record.ProducerEpoch, m marker, o record.Offset, nowMs int64) {
	e := s.entry(id, epoch, nowMs)
	e.coordinatorEpoch = m.coordinatorEpoch
	if e.txnFirst == noOffset {
		return // a transaction that wrote nothing here
	}
	s.complete(id, e.txnFirst, o, m.commit)
	e.txnFirst = noOffset
}

// entry returns the producer's entry, with epoch adopted: what was known of another epoch's batches is void.
func (s *State) entry(id record.ProducerID, epoch record.ProducerEpoch, nowMs int64) *entry {
	e := s.producers[id]
	if e == nil {
		e = &entry{epoch: epoch, coordinatorEpoch: -1, txnFirst: noOffset}
		s.producers[id] = e
	}
	if e.epoch != epoch {
		e.epoch, e.count = epoch, 0
	}
	e.activeMs = max(e.activeMs, nowMs)
	return e
}
