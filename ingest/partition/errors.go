package partition

import (
	"errors"
	"fmt"
)

// Errors of this package; ingest/kafka gives each its Kafka error code.
var (
	// ErrNotLeader means that this replica does not lead the partition, or not any more.
	ErrNotLeader = errors.New("not the leader of the partition")
	// ErrFencedEpoch means that the request names an older leader epoch than ours.
	ErrFencedEpoch = errors.New("leader epoch is fenced")
	// ErrUnknownEpoch means that the request names a newer leader epoch than ours.
	ErrUnknownEpoch = errors.New("leader epoch is not known here yet")
	// ErrOffsetOutOfRange means that an offset lies before the log start or past the log end.
	ErrOffsetOutOfRange = errors.New("offset is out of range")
	// ErrNotEnoughReplicas means that fewer replicas are in sync than min.insync.replicas asks for.
	ErrNotEnoughReplicas = errors.New("not enough replicas in sync")
	// ErrStorage means that the partition's local log cannot be used: damaged, or on a disk that failed.
	ErrStorage = errors.New("local log cannot be used")
	// ErrNoSpace means that the disk, or the hot tier's budget, is full; retriable.
	ErrNoSpace = errors.New("no room for more records")
	// ErrTierUnavailable means that history could not be read from the object store now; retriable.
	ErrTierUnavailable = errors.New("remote history cannot be read now")
	// ErrTooLarge means a batch larger than max.message.bytes.
	ErrTooLarge = errors.New("record batch is too large")
	// ErrListTooLarge means a batch larger than segment.bytes.
	ErrListTooLarge = errors.New("record batch is larger than a segment")
	// ErrInvalidRecord means that a batch, or records in it, break the format's rules.
	ErrInvalidRecord = errors.New("invalid record")
	// ErrInvalidTimestamp means timestamps outside what the topic allows.
	ErrInvalidTimestamp = errors.New("invalid timestamp")
	// ErrUnsupportedCodec means a codec that the request's version may not carry.
	ErrUnsupportedCodec = errors.New("compression type is not supported")
	// ErrUnverified means that a transactional batch would begin a transaction that the coordinator has not been asked about.
	ErrUnverified = errors.New("transaction is not verified")
	// ErrPolicy means that the topic's cleanup policy forbids the operation.
	ErrPolicy = errors.New("cleanup policy forbids it")
	// ErrBusy means that a compacted log is being compacted, trimmed, or copied to the object store; to be tried again.
	ErrBusy = errors.New("the log is being compacted")
	// ErrClosed means that the partition is closed: its topic was deleted, or the broker stops.
	ErrClosed = errors.New("partition is closed")
)

// RecordError says what is wrong with the record at Index of a batch.
type RecordError struct {
	Index   int32
	Message string
}

// BatchError refuses a whole batch because of some of its records (KIP-467). Err is the sentinel.
type BatchError struct {
	Err     error
	Records []RecordError
}

func (e *BatchError) Error() string {
	if len(e.Records) == 1 {
		return fmt.Sprintf("%v: record %d: %s", e.Err, e.Records[0].Index, e.Records[0].Message)
	}
	return fmt.Sprintf("%v: %d records, the first is %d: %s", e.Err, len(e.Records), e.Records[0].Index, e.Records[0].Message)
}

func (e *BatchError) Unwrap() error { return e.Err }
