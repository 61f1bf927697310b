// Package txn is the state machine of one partition of __transaction_state: which producer id and epoch each transactional
// id has, what its transaction is doing and to which partitions it writes, and when transactions time out. A
// coordinator.Shard runs it over its log. Writing the markers, allocating producer ids, and whether topics exist are its
// caller's (ingest); what a partition makes of a marker is ingest/producer's.
//
// It is pure: no clock, no I/O, no lock, no randomness. Its rules are those of Apache Kafka 4.3.1's TransactionCoordinator
// and TransactionMetadata with transaction.version 2 finalised (KIP-98, KIP-360, KIP-588, KIP-890), and its records are
// Kafka's. Which version of transactions a producer speaks follows from what it sends: EndTxn v5 and above, and partitions
// added by producing to them (Verify.Add), are version 2.
//
// It differs from Kafka where that costs a client nothing, and in the last point because Kafka is wrong:
//   - There is no pending state. A step sees what the steps before it did, committed or not, because answers wait for the log.
//   - A transaction without partitions is prepared and completed in one step: there is no marker to wait for.
//   - A transaction that is fenced or times out in epoch 32766 ends in epoch 32767, which no producer is ever given, and the
//     new producer id is allocated when somebody asks for it; Kafka allocates one at once. So Tick needs no id.
//   - InitProducerId repeated after a bump to epoch 32766 is answered with that epoch; Kafka fails with UNKNOWN_SERVER_ERROR.
//   - EndTxn of version 2 in the epoch before the current one repeats a request only if the last transaction was of version 2.
//     In Kafka a fenced producer that sends it after one of version 1 gets that producer's identity, or hears that its own
//     transaction, which was aborted, is committed.
package txn

import (
	"fmt"
	"slices"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

// Defaults of Options.
const (
	DefaultMaxTimeout = 15 * time.Minute
	DefaultExpiration = 7 * 24 * time.Hour
)

// Options of a Machine. The zero value is valid.
type Options struct {
	// Epoch is the leader epoch of the partition; markers carry it as the coordinator epoch.
	Epoch record.LeaderEpoch
	// MaxTimeout bounds the timeout that a producer may ask for (transaction.max.timeout.ms). Default 15 minutes.
	MaxTimeout time.Duration
	// Expiration is how long an idle transactional id is remembered (transactional.id.expiration.ms). Default 7 days.
	Expiration time.Duration
}

// TopicPartition is a partition that a transaction writes to.
type TopicPartition struct {
	Topic     string
	Partition int32
}

// Events, and what each is answered with. A response has its request's version and the error code that this version knows.
type (
	// Request is AddPartitionsToTxn v0-3, answered by *kmsg.AddPartitionsToTxnResponse. All its partitions exist.
	Request struct{ Body kmsg.Request }

	// InitProducerID is answered by *kmsg.InitProducerIDResponse, or by NeedID: then nothing happened, and the event is to
	// be sent again with an id. Fresh is an id never used in the cluster, or record.NoProducer; it counts as used afterwards.
	InitProducerID struct {
		Req   *kmsg.InitProducerIDRequest
		Fresh record.ProducerID
	}

	// EndTxn is answered by *kmsg.EndTxnResponse, or by NeedID: see InitProducerID.
	EndTxn struct {
		Req   *kmsg.EndTxnRequest
		Fresh record.ProducerID
	}

	// AddOffsets is answered by *kmsg.AddOffsetsToTxnResponse. Partition is the group's, of __consumer_offsets.
	AddOffsets struct {
		Req       *kmsg.AddOffsetsToTxnRequest
		Partition int32
	}

	// Verify is answered by []int16, an error code for each of Partitions. Without Add it asks whether they are in the
	// producer's transaction (KIP-890 part 1): TRANSACTION_ABORTABLE if not, which clients that do not know that code must
	// get as INVALID_TXN_STATE. With Add they become a part of it (part 2), and it begins if none is open. A fenced
	// producer gets INVALID_PRODUCER_EPOCH, as everywhere on the produce path.
	Verify struct {
		TransactionalID string
		ProducerID      record.ProducerID
		ProducerEpoch   record.ProducerEpoch
		Partitions      []TopicPartition
		Add             bool
	}

	// Describe is answered by kmsg.DescribeTransactionsResponseTransactionState.
	Describe struct{ TransactionalID string }

	// List is answered by []kmsg.ListTransactionsResponseTransactionState, ordered by transactional id, or by an error
	// code as int16 if Pattern is no regular expression. The empty filter lets everything through.
	List struct {
		States      []string
		ProducerIDs []int64
		// DurationMs, if not negative, lets through what began longer ago.
		DurationMs int64
		// Pattern is an RE2 expression that the whole transactional id must match; nil or empty for any.
		Pattern *string
	}

	// MarkersWritten says that all of Markers, as it was asked for, are committed, or that their partitions are gone, and is
	// answered by nil. The transaction is completed by it. It may come late and twice, and to a later load: then it does nothing.
	MarkersWritten struct{ Markers WriteMarkers }
)

// NeedID answers an event that needs a producer id never used in the cluster.
type NeedID struct{}

// WriteMarkers is an effect: a marker is to be appended to each of Partitions, however long it takes, and MarkersWritten to
// be sent then. It is asked for once a load, and again by the next load if it was not completed in this one.
//
// Whoever writes for one load must have stopped before the next one's are written: a marker of version 1 that comes when the
// producer's next transaction has begun ends that one. Between brokers the coordinator epoch sees to it.
type WriteMarkers struct {
	TransactionalID string
	ProducerID      record.ProducerID
	// ProducerEpoch is the producer's under version 1, one above it under version 2 and after a timeout or fencing.
	ProducerEpoch record.ProducerEpoch
	Commit        bool
	// V2 says that the epoch is above the transaction's: a partition may refuse a marker whose epoch is not.
	V2               bool
	CoordinatorEpoch int32
	Partitions       []TopicPartition
	// PreparedMs tells this transaction from all others of the transactional id: under version 1 those of one producer
	// share their epoch, and a late MarkersWritten of one must not complete the next.
	PreparedMs int64

	load *load // that asked
}

// load tells a machine from those that replayed the same log before and after it.
type load struct{ _ byte }

// Machine is the state machine of one partition of __transaction_state. It implements coordinator.Machine.
//
// Its memory grows with the transactional ids used within Options.Expiration, some 300 bytes each.
type Machine struct {
	o    Options
	txns map[string]*transaction
	due  deadlines // of all that have a deadline; empty while loading
	load *load
}

var _ coordinator.Machine = (*Machine)(nil)

// New returns the machine of an empty log.
func New(o Options) *Machine {
	if o.MaxTimeout <= 0 {
		o.MaxTimeout = DefaultMaxTimeout
	}
	if o.Expiration <= 0 {
		o.Expiration = DefaultExpiration
	}
	return &Machine{o: o, txns: map[string]*transaction{}, load: &load{}}
}

// Step handles one event.
func (m *Machine) Step(to coordinator.Token, event any, now time.Time) coordinator.Effects {
	var e coordinator.Effects
	var answer any
	switch ev := event.(type) {
	case Request:
		answer = m.addPartitions(ev.Body.(*kmsg.AddPartitionsToTxnRequest), now.UnixMilli(), &e)
	case InitProducerID:
		answer = m.initProducerID(ev, now.UnixMilli(), &e)
	case EndTxn:
		answer = m.endTxn(ev, now.UnixMilli(), &e)
	case AddOffsets:
		answer = m.addOffsets(ev, now.UnixMilli(), &e)
	case Verify:
		answer = m.verify(ev, now.UnixMilli(), &e)
	case Describe:
		answer = m.describe(ev.TransactionalID)
	case List:
		answer = m.list(ev, now.UnixMilli())
	case MarkersWritten:
		m.markersWritten(ev.Markers, now.UnixMilli(), &e)
	default:
		panic(fmt.Sprintf("txn: unknown event %T", event))
	}
	e.Replies = append(e.Replies, coordinator.Reply{To: to, Value: answer})
	return e
}

// Loaded asks again for the markers of the transactions that were being completed.
func (m *Machine) Loaded(now time.Time) coordinator.Effects {
	var e coordinator.Effects
	var prepared []*transaction
	for _, t := range m.txns {
		t.place = noPlace
		m.arm(t)
		if t.preparing() {
			prepared = append(prepared, t)
		}
	}
	slices.SortFunc(prepared, func(a, b *transaction) int { return a.compare(b) })
	for _, t := range prepared {
		m.finish(t, now.UnixMilli(), &e)
	}
	return e
}

// Tick aborts the transactions that timed out and forgets the transactional ids that expired.
func (m *Machine) Tick(now time.Time) coordinator.Effects {
	var e coordinator.Effects
	nowMs := now.UnixMilli()
	for len(m.due) > 0 && m.due[0].deadlineMs <= nowMs {
		t := m.due[0]
		if t.state == ongoing {
			m.fence(t, nowMs, &e)
			continue
		}
		m.disarm(t)
		delete(m.txns, t.id)
		write(coordinator.Record{Key: encodeKey(t.id)}, &e)
	}
	return e
}

// Deadline is when the next transaction times out or the next transactional id expires.
func (m *Machine) Deadline() time.Time {
	if len(m.due) == 0 {
		return time.Time{}
	}
	return time.UnixMilli(m.due[0].deadlineMs)
}

// save appends the transaction's record and sets its deadline.
func (m *Machine) save(t *transaction, e *coordinator.Effects) {
	m.arm(t)
	write(coordinator.Record{Key: encodeKey(t.id), Value: t.encode()}, e)
}

// Bounds of a batch: after a long pause thousands of transactions may be due at once, some with thousands of partitions.
const (
	maxRecords = 1000
	maxJoined  = 4 << 10 // bytes of a value that shares a batch with those before it
)

// write appends a record to the batch of the step.
func write(r coordinator.Record, e *coordinator.Effects) {
	if n := len(e.Append); n > 0 && len(e.Append[n-1].Records) < maxRecords && len(r.Value) <= maxJoined {
		e.Append[n-1].Records = append(e.Append[n-1].Records, r)
		return
	}
	e.Append = append(e.Append, coordinator.Batch{Records: []coordinator.Record{r}})
}
