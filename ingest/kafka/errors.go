package kafka

import (
	"context"
	"errors"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/cluster/quota"
	"github.com/everlog/everlog/ingest/broker"
	"github.com/everlog/everlog/ingest/coordinators"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/ingest/producer"
	"github.com/everlog/everlog/tier/record"
)

// Errors that only this package meets.
var (
	errUnknownTopic   = errors.New("unknown topic or partition")
	errUnknownTopicID = errors.New("unknown topic id")
	errInvalidRequest = errors.New("invalid request")
	errInternalTopic  = errors.New("internal topic")
	errThrottled      = errors.New("the throttling quota has been exceeded")
	errVersion        = errors.New("not supported in this version of the request")
)

// Codes that handlers name directly.
var (
	codeUnknownTopicOrPartition  = kerr.UnknownTopicOrPartition.Code
	codeUnknownTopicID           = kerr.UnknownTopicID.Code
	codeInvalidTopic             = kerr.InvalidTopicException.Code
	codeInvalidRequiredAcks      = kerr.InvalidRequiredAcks.Code
	codeInvalidRequest           = kerr.InvalidRequest.Code
	codeFetchSessionIDNotFound   = kerr.FetchSessionIDNotFound.Code
	codeInvalidFetchSessionEpoch = kerr.InvalidFetchSessionEpoch.Code
	codeFetchSessionTopicID      = kerr.FetchSessionTopicIDError.Code
	codeUnknownServerError       = kerr.UnknownServerError.Code
)

// codes is the one table from domain errors to Kafka's error codes. The first match counts.
//
// Java's consumer accepts only some codes from Fetch (protocol.md §3.4): what reads of records can return is among them.
var codes = []struct {
	err   error
	kafka *kerr.Error
}{
	{errUnknownTopic, kerr.UnknownTopicOrPartition},
	{errUnknownTopicID, kerr.UnknownTopicID},
	{errInvalidRequest, kerr.InvalidRequest},
	{errVersion, kerr.UnsupportedVersion},
	{errThrottled, kerr.ThrottlingQuotaExceeded},
	{errInternalTopic, kerr.InvalidTopicException},

	{coordinators.ErrLoading, kerr.CoordinatorLoadInProgress},
	{coordinators.ErrNotCoordinator, kerr.NotCoordinator},
	{coordinators.ErrNotAvailable, kerr.CoordinatorNotAvailable},

	{broker.ErrUnknownPartition, kerr.UnknownTopicOrPartition},
	{broker.ErrNotReplica, kerr.NotLeaderForPartition},
	{broker.ErrLoading, kerr.NotLeaderForPartition},

	{partition.ErrNotLeader, kerr.NotLeaderForPartition},
	{partition.ErrFencedEpoch, kerr.FencedLeaderEpoch},
	{partition.ErrUnknownEpoch, kerr.UnknownLeaderEpoch},
	{partition.ErrOffsetOutOfRange, kerr.OffsetOutOfRange},
	{partition.ErrNotEnoughReplicas, kerr.NotEnoughReplicas},
	{partition.ErrNoSpace, kerr.KafkaStorageError}, // retriable, and clients keep the batch
	{partition.ErrStorage, kerr.KafkaStorageError},
	{partition.ErrTierUnavailable, kerr.UnknownServerError}, // as Kafka answers a failed remote read: consumers retry
	{partition.ErrTooLarge, kerr.MessageTooLarge},
	{partition.ErrListTooLarge, kerr.RecordListTooLarge},
	{partition.ErrInvalidTimestamp, kerr.InvalidTimestamp},
	{partition.ErrInvalidRecord, kerr.InvalidRecord},
	{partition.ErrUnsupportedCodec, kerr.UnsupportedCompressionType},
	{partition.ErrPolicy, kerr.PolicyViolation},
	{partition.ErrUnverified, kerr.NotEnoughReplicas}, // it ended while its coordinator was asked: the next try is told so
	{partition.ErrClosed, kerr.NotLeaderForPartition},

	{producer.ErrOutOfOrderSequence, kerr.OutOfOrderSequenceNumber},
	{producer.ErrInvalidEpoch, kerr.InvalidProducerEpoch},
	{producer.ErrInvalidTxnState, kerr.InvalidTxnState},
	{producer.ErrCoordinatorFenced, kerr.TransactionCoordinatorFenced},
	{producer.ErrInvalidBatch, kerr.InvalidRecord},

	{controller.ErrTopicExists, kerr.TopicAlreadyExists},
	{controller.ErrInvalidTopicName, kerr.InvalidTopicException},
	{controller.ErrInvalidPartitions, kerr.InvalidPartitions},
	{controller.ErrInvalidReplicationFactor, kerr.InvalidReplicationFactor},
	{controller.ErrInvalidAssignment, kerr.InvalidReplicaAssignment},
	{controller.ErrInvalidConfig, kerr.InvalidConfig},
	{controller.ErrUnknownTopic, kerr.UnknownTopicOrPartition},
	{controller.ErrUnknownTopicID, kerr.UnknownTopicID},
	{controller.ErrPolicy, kerr.PolicyViolation},
	{controller.ErrDeletionDisabled, kerr.TopicDeletionDisabled},
	{controller.ErrNotController, kerr.NotController},
	{controller.ErrElectionNotNeeded, kerr.ElectionNotNeeded},
	{controller.ErrPreferredNotAvailable, kerr.PreferredLeaderNotAvailable},
	{controller.ErrEligibleNotAvailable, kerr.EligibleLeadersNotAvailable},
	{controller.ErrNoReassignment, kerr.NoReassignmentInProgress},

	{quota.ErrInvalid, kerr.InvalidRequest},
	{quota.ErrUnknownType, kerr.UnsupportedVersion},

	{config.ErrRequest, kerr.InvalidRequest},
	{config.ErrReadOnly, kerr.InvalidRequest},
	{config.ErrInvalid, kerr.InvalidConfig},

	{metadata.ErrUnavailable, kerr.RequestTimedOut}, // the store is away: retriable
	{metadata.ErrLost, kerr.NotController},
	{metadata.ErrFenced, kerr.NotController},
	{record.ErrCorrupt, kerr.CorruptMessage},
	{context.DeadlineExceeded, kerr.RequestTimedOut},
}

// codeOf is the Kafka error code of a domain error; 0 for nil, UNKNOWN_SERVER_ERROR for what the table lacks.
func codeOf(err error) int16 {
	if err == nil {
		return 0
	}
	for _, c := range codes {
		if errors.Is(err, c.err) {
			return c.kafka.Code
		}
	}
	var answer codeError // a coordinator's
	if errors.As(err, &answer) {
		return int16(answer)
	}
	return codeUnknownServerError
}

// messageOf is the sentence of err for a response's nullable error message.
func messageOf(err error) *string {
	if err == nil {
		return nil
	}
	s := err.Error()
	return &s
}
