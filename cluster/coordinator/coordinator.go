// Package coordinator runs a coordinator: a pure state machine (cluster/group, cluster/txn) over its log, which is one
// partition of __consumer_offsets or __transaction_state. A Shard is one such partition while this broker leads it. It
// replays the log into a machine, gives it events and the time, appends what it asks for, and lets answers out when what
// they rest on is committed. What the events mean, and where the log lives (ingest/coordinator), are not here.
//
// The scheme is that of Kafka's CoordinatorRuntime (KIP-848), made simpler by one rule: a failed append drops the machine
// and loads a new one from the log. So a machine changes its state before its records are committed and needs no undo,
// and an answer that waits for everything appended before it shows nothing that could still be lost.
package coordinator

import (
	"errors"
	"time"

	"github.com/everlog/everlog/tier/record"
)

var (
	// ErrLoading means that the log is still being replayed. Retriable: COORDINATOR_LOAD_IN_PROGRESS.
	ErrLoading = errors.New("coordinator is loading")
	// ErrNotCoordinator means that the partition is not led here any more, or that its append failed. Retriable.
	ErrNotCoordinator = errors.New("not the coordinator")
	// ErrTooLarge means that an event asked for records that no log takes. Final.
	ErrTooLarge = errors.New("coordinator records are too large")
)

// Token names a call that waits for an answer; 0 is none.
type Token uint64

// Record is one record to append. A nil Value is a tombstone.
type Record struct{ Key, Value []byte }

// Batch is appended as one record batch: all of it or nothing.
type Batch struct {
	Records []Record
	// Transactional makes it a part of a client's transaction: it counts when that commits (TxnOffsetCommit).
	Transactional bool
	ProducerID    record.ProducerID
	ProducerEpoch record.ProducerEpoch
}

// Reply answers a call. What Value is says the event's documentation.
type Reply struct {
	To    Token
	Value any
}

// Effects are what a step asks for. The machine's state has Append in it already. Replies leave, and Requests are carried
// out, when everything appended up to then is committed.
type Effects struct {
	Append   []Batch
	Replies  []Reply
	Requests []any
}

// Add appends the effects of another step.
func (e *Effects) Add(o Effects) {
	e.Append = append(e.Append, o.Append...)
	e.Replies = append(e.Replies, o.Replies...)
	e.Requests = append(e.Requests, o.Requests...)
}

// Machine is a coordinator's state: pure, without clock, I/O, lock or goroutine. The shard calls one method at a time.
type Machine interface {
	// Replay applies one entry of the log while loading, in log order. Records of a newer version than it knows are skipped.
	Replay(offset record.Offset, e Entry) error
	// Loaded ends loading.
	Loaded(now time.Time) Effects
	// Step handles one event. An event is answered by a Reply to its token, now or in a later step.
	Step(to Token, event any, now time.Time) Effects
	// Deadline is when Tick must run next; zero if there is nothing to wait for. It is cheap.
	Deadline() time.Time
	// Tick does what is due at now.
	Tick(now time.Time) Effects
}

// Entry is one record of the log, or a transaction's end.
type Entry struct {
	Key, Value []byte // valid only during the call
	Timestamp  int64  // milliseconds

	// Of its batch: with Transactional it counts when the producer's transaction commits.
	Transactional bool
	ProducerID    record.ProducerID
	ProducerEpoch record.ProducerEpoch

	// Marker says that the entry ends the producer's transaction; Commit how. Key and Value are nil then.
	Marker, Commit bool
}

// Log is the partition that a shard's records go to. ingest/coordinator implements it.
type Log interface {
	// Append writes one batch and returns the offset after it. It does not wait for the disk.
	Append(b record.Batch) (next record.Offset, epoch record.LeaderEpoch, err error)
	// Await calls done once, when everything below next is committed, at once if it is. done must not block, and may be
	// called from inside Append.
	Await(next record.Offset, epoch record.LeaderEpoch, done func(error))
}
