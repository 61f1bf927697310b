package txn

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

// world is a cluster around one machine: its log, of which what is not committed is lost in a crash, partitions that
// producers write to, and everything under way: answers, markers, what producers send again.
//
// What it is held against is naive: each record that a producer wrote knows its transaction, and a partition knows of each
// what became of it.
type world struct {
	rng   *rand.Rand
	trace func(format string, args ...any)
	now   time.Time
	fresh record.ProducerID

	o         Options
	m         *Machine
	log       []coordinator.Record
	committed int       // records of the log that no crash loses
	out       []release // in log order
	calls     []*call   // by token

	partitions map[TopicPartition]*partition
	markers    []*markerTask
	written    []WriteMarkers      // reports that may still come, also late and twice
	appends    []func()            // of version 2, under way to a partition
	late       []any               // requests that come once more
	holders    map[identity]*actor // who was told that it is this producer
	actors     []*actor
	attempts   []*attempt // all transactions that were begun

	seen   map[string]logged // the last record of each transactional id
	owner  map[record.ProducerID]string
	epochs map[record.ProducerID]int16
	began  map[record.ProducerID]int16 // those that do not begin in epoch 0
	counts map[string]int
}

type release struct {
	next    int
	effects coordinator.Effects
}

type call struct {
	answer any
	done   bool
}

type markerTask struct {
	WriteMarkers
	left []TopicPartition
}

// wrote is one record that a producer wrote, or tried to.
type wrote struct {
	txn     *attempt
	acked   bool
	outcome string // of the partition: "", "commit", "abort"
}

// partition is what ingest/producer knows of producers, as far as transactions go.
type partition struct {
	epoch map[record.ProducerID]record.ProducerEpoch
	open  map[record.ProducerID][]*wrote
}

func (p *partition) append(is identity, w *wrote) bool {
	if e, known := p.epoch[is.id]; known && is.epoch < e {
		return false
	}
	p.epoch[is.id] = is.epoch
	p.open[is.id] = append(p.open[is.id], w)
	return true
}

// end writes a marker; false if the partition refuses it.
func (p *partition) end(m WriteMarkers) bool {
	e, known := p.epoch[m.ProducerID]
	if known && m.ProducerEpoch < e || m.V2 && known && m.ProducerEpoch == e && len(p.open[m.ProducerID]) > 0 {
		return false
	}
	p.epoch[m.ProducerID] = m.ProducerEpoch
	for _, w := range p.open[m.ProducerID] {
		w.outcome = "abort"
		if m.Commit {
			w.outcome = "commit"
		}
	}
	delete(p.open, m.ProducerID)
	return true
}

func (w *world) failf(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

type failure string

func (w *world) partition(p TopicPartition) *partition {
	if w.partitions[p] == nil {
		w.partitions[p] = &partition{map[record.ProducerID]record.ProducerEpoch{}, map[record.ProducerID][]*wrote{}}
	}
	return w.partitions[p]
}

// load replays the log into a new machine.
func (w *world) load() {
	w.m = New(w.o)
	for i, r := range w.log {
		if err := w.m.Replay(record.Offset(i), coordinator.Entry{Key: r.Key, Value: r.Value}); err != nil {
			w.failf("replay: %v", err)
		}
	}
	w.apply(w.m.Loaded(w.now))
}

// crash loses what is not committed, the answers that waited for it, and the markers being written; what was written of
// them stays, and reports of written ones may still come.
func (w *world) crash() {
	w.trace("crash: %d of %d records stay", w.committed, len(w.log))
	w.log = w.log[:w.committed]
	w.out, w.markers = nil, nil
	w.seen, w.epochs = map[string]logged{}, map[record.ProducerID]int16{}
	for _, r := range w.log {
		w.examine(r, false)
	}
	w.load()
}

func (w *world) apply(e coordinator.Effects) {
	for _, b := range e.Append {
		for _, r := range b.Records {
			w.log = append(w.log, r)
			w.examine(r, true)
		}
	}
	e.Append = nil
	w.out = append(w.out, release{len(w.log), e})
}

// commit makes the log up to n lasting and lets out what waited for it.
func (w *world) commit(n int) {
	w.committed = max(w.committed, n)
	for len(w.out) > 0 && w.out[0].next <= w.committed {
		e := w.out[0].effects
		w.out = w.out[1:]
		for _, r := range e.Replies {
			w.calls[r.To].answer, w.calls[r.To].done = r.Value, true
		}
		for _, r := range e.Requests {
			m := r.(WriteMarkers)
			w.trace("markers wanted: %+v", m)
			w.markers = append(w.markers, &markerTask{m, slices.Clone(m.Partitions)})
		}
	}
}

// start gives the machine an event.
func (w *world) start(event any) *call {
	c := &call{}
	w.calls = append(w.calls, c)
	w.apply(w.m.Step(coordinator.Token(len(w.calls)-1), event, w.now))
	return c
}

// marker writes one marker, perhaps twice: its answer may get lost.
func (w *world) marker(i int) {
	t := w.markers[i]
	for n := w.rng.IntN(4) / 3; n >= 0; n-- {
		if !w.partition(t.left[0]).end(t.WriteMarkers) {
			w.failf("%v refuses the marker %+v", t.left[0], t.WriteMarkers)
		}
	}
	if t.left = t.left[1:]; len(t.left) == 0 {
		w.markers = slices.Delete(w.markers, i, i+1)
		w.written = append(w.written, t.WriteMarkers)
	}
}

// report tells the machine that markers are written; a report is at times kept to come again.
func (w *world) report(i int) {
	m := w.written[i]
	if w.rng.IntN(3) > 0 {
		w.written = slices.Delete(w.written, i, i+1)
	}
	w.start(MarkersWritten{m})
}

// logged is what a record says of a transactional id.
type logged struct {
	kmsg.TxnMetadataValue
}

// before are the states that one may follow (Kafka's TransactionState).
var before = map[kmsg.TransactionState][]kmsg.TransactionState{
	empty:          {empty, completeCommit, completeAbort},
	ongoing:        {ongoing, empty, completeCommit, completeAbort},
	prepareCommit:  {ongoing},
	prepareAbort:   {ongoing, empty, completeCommit, completeAbort},
	completeCommit: {prepareCommit},
	completeAbort:  {prepareAbort, completeAbort}, // the latter where an id is rotated late
}

// examine holds each record against the one before of its transactional id, and a new one against the partitions.
func (w *world) examine(r coordinator.Record, isNew bool) {
	var key kmsg.TxnMetadataKey
	if err := key.ReadFrom(r.Key); err != nil {
		w.failf("key: %v", err)
	}
	id := key.TransactionalID
	was, known := w.seen[id]
	if r.Value == nil {
		if !known || was.State != empty && was.State != completeCommit && was.State != completeAbort {
			w.failf("%s forgotten in state %v", id, was.State)
		}
		delete(w.seen, id)
		w.count(isNew, "expired")
		return
	}
	var v logged
	if err := v.ReadFrom(r.Value); err != nil {
		w.failf("value: %v", err)
	}
	w.count(isNew, v.State.String())
	if known && !slices.Contains(before[v.State], was.State) || !known && v.State != empty {
		w.failf("%s: %v after %v", id, v.State, was.State)
	}
	if known && v.LastUpdateTimestamp < was.LastUpdateTimestamp {
		w.failf("%s: changed at %d after %d", id, v.LastUpdateTimestamp, was.LastUpdateTimestamp)
	}
	prepared := v.State == prepareCommit || v.State == prepareAbort
	if v.NextProducerID != -1 && !prepared || len(v.Topics) > 0 && !prepared && v.State != ongoing || v.State == empty && v.Topics != nil {
		w.failf("%s: %+v", id, v)
	}
	w.examineIdentity(id, was, known, v)
	if isNew && (v.State == completeCommit || v.State == completeAbort) {
		w.examineComplete(id, was, v)
	}
	w.seen[id] = v
}

func (w *world) examineIdentity(id string, was logged, known bool, v logged) {
	pid := record.ProducerID(v.ProducerID)
	if owner, taken := w.owner[pid]; taken && owner != id {
		w.failf("producer %d of %s was %s's", pid, id, owner)
	}
	if known && was.ProducerID != v.ProducerID {
		w.counts["rotated"]++
	}
	if known && was.ProducerID != v.ProducerID || !known {
		if _, used := w.epochs[pid]; used {
			w.failf("%s: producer %d is used again", id, pid)
		}
		if v.ProducerEpoch != w.began[pid] {
			w.failf("%s: producer %d begins in epoch %d", id, pid, v.ProducerEpoch)
		}
	}
	if e, ok := w.epochs[pid]; ok && v.ProducerEpoch < e || v.ProducerEpoch < 0 {
		w.failf("%s: epoch of producer %d goes from %d to %d", id, pid, e, v.ProducerEpoch)
	}
	w.owner[pid], w.epochs[pid] = id, v.ProducerEpoch
}

// examineComplete looks whether the partitions have what they are said to have.
func (w *world) examineComplete(id string, was, v logged) {
	if was.State == completeAbort {
		return
	}
	for _, t := range was.Topics {
		for _, p := range t.Partitions {
			part := w.partition(TopicPartition{t.Topic, p})
			pid := record.ProducerID(was.ProducerID)
			if n := len(part.open[pid]); n > 0 {
				w.failf("%s is complete with %d records of producer %d open in %s-%d", id, n, pid, t.Topic, p)
			}
			if part.epoch[pid] < record.ProducerEpoch(was.ProducerEpoch) {
				w.failf("%s is complete without a marker in %s-%d", id, t.Topic, p)
			}
		}
	}
}

func (w *world) count(isNew bool, what string) {
	if isNew {
		w.counts[what]++
	}
}
