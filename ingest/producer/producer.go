// Package producer owns the idempotence and transaction state of one partition: which batches of which producers are
// already in the log, which transactions are open, which were aborted, and what follows for the last stable offset.
//
// It is pure: no clock, no I/O, no lock. State is a value that ingest/partition feeds, under the partition's lock, in two
// steps: Check decides about a batch before it is appended, Apply records it after. A failed append needs no undo, for
// nothing was applied. Followers, recovery and truncation only Apply, to a restored snapshot. What the coordinators know
// of transactions (cluster/txn) and Kafka's error codes (ingest/kafka) are not here.
//
// The rules are those of Kafka's ProducerAppendInfo, ProducerStateEntry and ProducerStateManager (KIP-98, KIP-360,
// KIP-890).
package producer

import (
	"errors"
	"slices"

	"github.com/everlog/everlog/tier/record"
)

const (
	// Window is how many batches of a producer are remembered to recognise a resent one. It is part of the protocol:
	// clients keep at most 5 produce requests in flight.
	Window = 5

	// DefaultExpirationMs is Kafka's default of producer.id.expiration.ms: one day.
	DefaultExpirationMs = 86_400_000

	noOffset = record.Offset(-1)
)

var (
	// ErrOutOfOrderSequence means that a batch is neither the producer's next nor one of its last Window.
	ErrOutOfOrderSequence = errors.New("out of order sequence number")
	// ErrInvalidEpoch means that a newer incarnation of the producer has written: this one is fenced.
	ErrInvalidEpoch = errors.New("producer epoch is fenced")
	// ErrInvalidTxnState means a batch outside a transaction while the producer has one open on the partition.
	ErrInvalidTxnState = errors.New("producer has an open transaction")
	// ErrCoordinatorFenced means a marker of a transaction coordinator that has been superseded.
	ErrCoordinatorFenced = errors.New("transaction coordinator epoch is fenced")
	// ErrInvalidBatch means that the header contradicts itself, such as a producer id without a sequence.
	ErrInvalidBatch = errors.New("invalid producer fields in record batch")
)

// Verdict is what Check found. The zero value means: append the batch.
type Verdict struct {
	// Duplicate means that the batch is in the log already: append nothing, answer with the fields below once the high
	// watermark has passed NextOffset.
	Duplicate bool
	// BaseOffset and NextOffset are the range [BaseOffset, NextOffset) of the original.
	BaseOffset, NextOffset record.Offset
	// AppendTimeMs is the original's log append time, or -1 if the batch carries the producer's own timestamps.
	AppendTimeMs int64
}

// Producer is one producer as DescribeProducers lists it.
type Producer struct {
	ID    record.ProducerID
	Epoch record.ProducerEpoch
	// LastSequence is -1 if only markers are known of this epoch.
	LastSequence int32
	// LastTimestampMs is when the producer last wrote.
	LastTimestampMs int64
	// CoordinatorEpoch is that of the last marker, or -1.
	CoordinatorEpoch int32
	// TxnStart is the first offset of the open transaction, or -1.
	TxnStart record.Offset
}

// entry is what is known of one producer.
type entry struct {
	epoch            record.ProducerEpoch
	coordinatorEpoch int32         // of the last marker, -1 if none
	activeMs         int64         // time of the last Apply; never goes back
	txnFirst         record.Offset // first offset of the open transaction, noOffset if none
	count            int           // batches in window
	window           [Window]batch // oldest first; all of epoch
}

// batch is one appended batch.
type batch struct {
	firstSeq, lastSeq int32
	base, next        record.Offset
	appendTimeMs      int64
}

func (e *entry) lastSequence() int32 {
	if e.count == 0 {
		return -1
	}
	return e.window[e.count-1].lastSeq
}

// State is the producer state of one partition. Not safe for concurrent use.
//
// Its memory grows with the producers seen within the expiration time, some 250 bytes each.
type State struct {
	expirationMs int64
	producers    map[record.ProducerID]*entry
	unstable     []txn // ordered by first offset
	open         int   // how many of unstable are open
	firstMarker  record.Offset
	aborted      []record.AbortedTxn // of the active segment, in the order of their markers
	end          record.Offset       // offsets described are below it
}

// New returns the state of an empty log. expirationMs is producer.id.expiration.ms; 0 means DefaultExpirationMs.
func New(expirationMs int64) *State {
	s := &State{producers: make(map[record.ProducerID]*entry), firstMarker: noOffset}
	s.SetExpiration(expirationMs)
	return s
}

// SetExpiration changes producer.id.expiration.ms; 0 means DefaultExpirationMs.
func (s *State) SetExpiration(ms int64) {
	if ms <= 0 {
		ms = DefaultExpirationMs
	}
	s.expirationMs = ms
}

// End returns the offset after the last batch applied: the state describes no offset at or above it.
func (s *State) End() record.Offset { return s.end }

// Len returns how many producers are remembered.
func (s *State) Len() int { return len(s.producers) }

// Expire forgets the producers that have not written for the expiration time and returns how many. A producer with an
// open transaction is kept however old, since its first offset holds back the last stable offset.
func (s *State) Expire(nowMs int64) int {
	n := len(s.producers)
	for id, e := range s.producers {
		if s.expired(e, nowMs) {
			delete(s.producers, id)
		}
	}
	return n - len(s.producers)
}

// expired is computed as a difference of times that cannot overflow for times since 1970.
func (s *State) expired(e *entry, nowMs int64) bool {
	return e.txnFirst == noOffset && nowMs-e.activeMs >= s.expirationMs
}

// Producers lists the producers ordered by id.
func (s *State) Producers() []Producer {
	list := make([]Producer, 0, len(s.producers))
	for id, e := range s.producers {
		list = append(list, Producer{ID: id, Epoch: e.epoch, LastSequence: e.lastSequence(), LastTimestampMs: e.activeMs,
			CoordinatorEpoch: e.coordinatorEpoch, TxnStart: e.txnFirst})
	}
	slices.SortFunc(list, func(a, b Producer) int {
		if a.ID < b.ID {
			return -1
		}
		return 1
	})
	return list
}
