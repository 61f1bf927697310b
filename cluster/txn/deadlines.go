package txn

import (
	"container/heap"
	"math"

	"github.com/everlog/everlog/tier/record"
)

// deadlines is a heap of transactions, the earliest deadline first, those of one millisecond by transactional id.
type deadlines []*transaction

// noPlace is the place of a transaction that is not in the heap.
const noPlace = -1

func (d deadlines) Len() int { return len(d) }

func (d deadlines) Less(i, j int) bool {
	if d[i].deadlineMs != d[j].deadlineMs {
		return d[i].deadlineMs < d[j].deadlineMs
	}
	return d[i].id < d[j].id
}

func (d deadlines) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

func (d *deadlines) Push(x any) {
	t := x.(*transaction)
	t.place = len(*d)
	*d = append(*d, t)
}

func (d *deadlines) Pop() any {
	last := len(*d) - 1
	t := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	t.place = noPlace
	return t
}

// deadline is when something is to be done about the transaction unasked; false if never.
func (m *Machine) deadline(t *transaction) (int64, bool) {
	switch {
	case t.preparing():
		return 0, false // the markers end it
	case t.state == ongoing:
		// A timeout of math.MaxInt32 is none: the transaction is part of a two-phase commit (KIP-939).
		return t.startMs + int64(t.timeoutMs), t.timeoutMs != math.MaxInt32
	default:
		return t.updateMs + m.o.Expiration.Milliseconds(), true
	}
}

// arm puts the transaction into its place in the heap.
func (m *Machine) arm(t *transaction) {
	at, ok := m.deadline(t)
	t.deadlineMs = at
	switch {
	case !ok:
		m.disarm(t)
	case t.place == noPlace:
		heap.Push(&m.due, t)
	default:
		heap.Fix(&m.due, t.place)
	}
}

func (m *Machine) disarm(t *transaction) {
	if t.place != noPlace {
		heap.Remove(&m.due, t.place)
	}
}

// exhausted reports whether no producer may be given an epoch after this one: the last is kept for fencing.
func exhausted(e record.ProducerEpoch) bool { return e >= lastEpoch }

const (
	lastEpoch    = math.MaxInt16 - 1 // the last that a producer is given
	fencingEpoch = math.MaxInt16     // only ever of markers
	noEpoch      = record.ProducerEpoch(-1)
)
