package producer

import (
	"slices"

	"github.com/everlog/everlog/tier/record"
)

// LastBatch is what compaction must leave of a producer, so that its state can be rebuilt (KAFKA-8335).
type LastBatch struct {
	// Next is the offset after its last numbered batch, -1 if only markers and batches of coordinators are known of its epoch.
	Next  record.Offset
	Epoch record.ProducerEpoch
}

// LastBatches returns the last batch of every producer.
func (s *State) LastBatches() map[record.ProducerID]LastBatch {
	all := make(map[record.ProducerID]LastBatch, len(s.producers))
	for id, e := range s.producers {
		l := LastBatch{Next: noOffset, Epoch: e.epoch}
		if e.count > 0 {
			l.Next = e.window[e.count-1].next
		}
		all[id] = l
	}
	return all
}

// RemoveAborted forgets the aborted transactions of which gone says so: compaction has removed their records, and is going
// to remove their markers.
func (s *State) RemoveAborted(gone func(record.AbortedTxn) bool) {
	s.aborted = slices.DeleteFunc(s.aborted, gone)
}
