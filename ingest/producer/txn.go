package producer

import (
	"cmp"
	"slices"

	"github.com/everlog/everlog/tier/record"
)

// txn is a transaction that holds back the last stable offset: open, or completed by a marker that the high watermark
// has not passed. A marker above the high watermark can still be lost with its leader, and the transaction then end the
// other way, so no read_committed consumer may have seen its records.
type txn struct {
	id     record.ProducerID
	first  record.Offset // of its first record; unique, and the key of the order
	marker record.Offset // noOffset while it is open
}

func (t txn) open() bool { return t.marker == noOffset }

// begin adds an open transaction. Offsets grow, so it belongs at the end.
func (s *State) begin(id record.ProducerID, first record.Offset) {
	s.unstable = append(s.unstable, txn{id: id, first: first, marker: noOffset})
	s.open++
}

func (s *State) complete(id record.ProducerID, first, marker record.Offset, commit bool) {
	i, ok := slices.BinarySearchFunc(s.unstable, first, func(t txn, o record.Offset) int { return cmp.Compare(t.first, o) })
	if !ok {
		panic("producer: an open transaction is missing from the unstable ones")
	}
	s.unstable[i].marker = marker
	s.open--
	if s.firstMarker == noOffset {
		s.firstMarker = marker
	}
	if commit {
		return
	}
	stable := marker + 1
	for _, t := range s.unstable {
		if t.open() {
			stable = t.first
			break
		}
	}
	s.aborted = append(s.aborted, record.AbortedTxn{ProducerID: id, First: first, Last: marker, LastStable: stable})
}

// FirstUnstable returns the first offset of the earliest transaction that is open or whose marker was, at the last
// SetHighWatermark, not below the high watermark; false if there is none.
func (s *State) FirstUnstable() (record.Offset, bool) {
	if len(s.unstable) == 0 {
		return 0, false
	}
	return s.unstable[0].first, true
}

// LastStable returns the last stable offset under the high watermark hw (exclusive): min(hw, FirstUnstable).
func (s *State) LastStable(hw record.Offset) record.Offset {
	if o, ok := s.FirstUnstable(); ok && o < hw {
		return o
	}
	return hw
}

// SetHighWatermark forgets the completed transactions whose marker is below hw. Call it before LastStable(hw). It costs
// nothing while no marker waits for the high watermark.
func (s *State) SetHighWatermark(hw record.Offset) {
	if s.firstMarker == noOffset || s.firstMarker >= hw {
		return
	}
	s.dropCompleted(hw)
}

func (s *State) dropCompleted(below record.Offset) {
	s.firstMarker = noOffset
	s.unstable = slices.DeleteFunc(s.unstable, func(t txn) bool {
		if t.open() {
			return false
		}
		if t.marker < below {
			return true
		}
		if s.firstMarker == noOffset || t.marker < s.firstMarker {
			s.firstMarker = t.marker
		}
		return false
	})
}

// InTxn reports whether the producer has a transaction open here in that epoch.
func (s *State) InTxn(id record.ProducerID, epoch record.ProducerEpoch) bool {
	e := s.producers[id]
	return e != nil && e.txnFirst != noOffset && e.epoch == epoch
}

// OpenTxns returns how many transactions are open.
func (s *State) OpenTxns() int { return s.open }

// SetLogStart forgets the aborted transactions that lie wholly below the log start offset, and completed ones likewise.
// Producers are kept: deleting old records must not make a producer's next batch look out of order.
func (s *State) SetLogStart(o record.Offset) {
	s.dropCompleted(o)
	s.ForgetAborted(o)
}

// Aborted returns the aborted transactions held (see ForgetAborted) that overlap [from, to), ordered by first offset, as
// a read_committed consumer must get them. The slice is the caller's; it is nil if there are none.
func (s *State) Aborted(from, to record.Offset) []record.AbortedTxn {
	var list []record.AbortedTxn
	for _, t := range s.aborted {
		if t.First < to && t.Last >= from {
			list = append(list, t)
		}
	}
	slices.SortFunc(list, func(a, b record.AbortedTxn) int { return cmp.Compare(a.First, b.First) })
	return list
}

// ForgetAborted drops the aborted transactions whose marker is below base. At a roll the sealed segment's footer gets
// Aborted(its base, its end), which holds every marker in it, and the state then forgets them with the new segment's base.
func (s *State) ForgetAborted(base record.Offset) {
	s.aborted = slices.DeleteFunc(s.aborted, func(t record.AbortedTxn) bool { return t.Last < base })
}
