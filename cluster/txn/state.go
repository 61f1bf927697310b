package txn

import (
	"cmp"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

// The states of a transactional id. Dead and PrepareEpochFence are never written.
const (
	empty          = kmsg.TransactionStateEmpty
	ongoing        = kmsg.TransactionStateOngoing
	prepareCommit  = kmsg.TransactionStatePrepareCommit
	prepareAbort   = kmsg.TransactionStatePrepareAbort
	completeCommit = kmsg.TransactionStateCompleteCommit
	completeAbort  = kmsg.TransactionStateCompleteAbort
)

// Transaction versions, as the producer that last did something speaks them (KIP-890).
const (
	version1 = 0 // Kafka records version 1 as 0
	version2 = 2
)

// transaction is what is known of one transactional id.
type transaction struct {
	id         string
	producerID record.ProducerID
	// previousID is the producer id before the last change of anything: another one only right after a rotation, when a
	// producer that lost the answer may still ask with it.
	previousID record.ProducerID
	// nextID, while a transaction of the last epoch is being completed, is the producer id from then on.
	nextID record.ProducerID
	epoch  record.ProducerEpoch
	// lastEpoch is the epoch of a producer that may not know yet that it has been given epoch. It is not in the log.
	lastEpoch  record.ProducerEpoch
	state      kmsg.TransactionState
	version    int16
	timeoutMs  int32
	startMs    int64            // of the last transaction, -1 if there was none since InitProducerId
	updateMs   int64            // of the last change; never goes back, and each prepare has a later one than all before
	partitions []TopicPartition // in order; none unless a transaction is open or being completed

	deadlineMs int64
	place      int // in the heap of deadlines
}

func (t *transaction) preparing() bool { return t.state == prepareCommit || t.state == prepareAbort }

func (t *transaction) compare(o *transaction) int { return cmp.Compare(t.id, o.id) }

func (p TopicPartition) compare(o TopicPartition) int {
	return cmp.Or(cmp.Compare(p.Topic, o.Topic), cmp.Compare(p.Partition, o.Partition))
}

func (t *transaction) has(p TopicPartition) bool {
	_, ok := slices.BinarySearchFunc(t.partitions, p, TopicPartition.compare)
	return ok
}

// touch notes a change at nowMs. It comes first in every transition.
func (t *transaction) touch(nowMs int64) {
	t.updateMs = max(t.updateMs, nowMs)
	t.previousID = t.producerID
}

// initialize gives the producer an id and epoch to begin transactions with.
func (t *transaction) initialize(id record.ProducerID, epoch, last record.ProducerEpoch, timeoutMs int32, nowMs int64) {
	t.touch(nowMs)
	t.producerID, t.epoch, t.lastEpoch = id, epoch, last
	t.state, t.timeoutMs, t.startMs = empty, timeoutMs, -1
}

// add makes partitions a part of the transaction, and begins it if none is open.
func (t *transaction) add(partitions []TopicPartition, version int16, nowMs int64) {
	t.touch(nowMs)
	if t.state != ongoing {
		t.state, t.startMs = ongoing, t.updateMs
	}
	t.version = version
	t.partitions = append(t.partitions, partitions...)
	slices.SortFunc(t.partitions, TopicPartition.compare)
	t.partitions = slices.Compact(t.partitions)
}

// prepare decides how the transaction ends. Under version 2 the epoch is bumped: what the producer still sends in the old
// one cannot get into the next transaction. next is the producer id from then on, if the epochs of this one are used up.
func (t *transaction) prepare(commit bool, version int16, next record.ProducerID, nowMs int64) {
	t.touch(max(nowMs, t.updateMs+1))
	if t.state != ongoing {
		t.startMs = t.updateMs // nothing was added: version 2 may abort that
	}
	t.state = prepareAbort
	if commit {
		t.state = prepareCommit
	}
	t.version, t.nextID = version, next
	if version == version2 {
		t.lastEpoch = t.epoch
		t.epoch = min(t.epoch, lastEpoch) + 1
	}
}

// complete ends the transaction whose markers are written.
func (t *transaction) complete(nowMs int64) {
	t.touch(nowMs)
	if t.state == prepareCommit {
		t.state = completeCommit
	} else {
		t.state = completeAbort
	}
	if t.nextID != record.NoProducer {
		t.producerID, t.epoch, t.nextID = t.nextID, 0, record.NoProducer
	}
	t.partitions = nil
}

// finish asks for the markers of a prepared transaction, or completes it if there are none to write.
func (m *Machine) finish(t *transaction, nowMs int64, e *coordinator.Effects) {
	if len(t.partitions) == 0 {
		t.complete(nowMs)
		m.save(t, e)
		return
	}
	e.Requests = append(e.Requests, WriteMarkers{
		TransactionalID:  t.id,
		ProducerID:       t.producerID,
		ProducerEpoch:    t.epoch,
		Commit:           t.state == prepareCommit,
		V2:               t.version >= version2,
		CoordinatorEpoch: int32(m.o.Epoch),
		Partitions:       t.partitions,
		PreparedMs:       t.updateMs,
		load:             m.load,
	})
}

// markersWritten completes the transaction that the markers are of, unless that has happened. A report to an earlier load
// does not count: this one's markers, which say the same, may still be on their way to partitions.
func (m *Machine) markersWritten(w WriteMarkers, nowMs int64, e *coordinator.Effects) {
	t := m.txns[w.TransactionalID]
	if t == nil || !t.preparing() || w.load != m.load || t.updateMs != w.PreparedMs {
		return
	}
	t.complete(nowMs)
	m.save(t, e)
}

// fence aborts the open transaction in an epoch that its producer does not have. It counts as version 2 whatever the
// producer speaks, because the cluster does.
func (m *Machine) fence(t *transaction, nowMs int64, e *coordinator.Effects) {
	t.prepare(false, version2, record.NoProducer, nowMs)
	m.save(t, e)
	m.finish(t, nowMs, e)
}
