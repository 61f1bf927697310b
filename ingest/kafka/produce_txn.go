package kafka

import (
	"context"
	"errors"
	"fmt"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/everlog/everlog/cluster/txn"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/ingest/producer"
	"github.com/everlog/everlog/tier/record"
)

// codeError is a coordinator's answer as an error.
type codeError int16

func (e codeError) Error() string { return kerr.ErrorForCode(int16(e)).Error() }

// appendTransactional appends a batch of a transaction. If the batch begins the transaction on its partition, the
// transaction's coordinator is asked (KIP-890 part 1), or told that the partition is in it now (v12 and later, part 2).
// That holds up this connection, not others; the transaction's further batches do not wait.
func (s *Server) appendTransactional(ctx context.Context, c *call, req *produceRequest, p *partition.Partition, batch record.Batch, o partition.AppendOptions) (partition.Appended, error) {
	if req.txnID == nil {
		return partition.Appended{}, fmt.Errorf("%w: transactional batch in a request without a transactional id", partition.ErrInvalidRecord)
	}
	add := c.version >= 12
	o.V2, o.Verify = add, add || s.broker.Config().Bool("transaction.partition.verification.enable")
	done, err := p.Append(batch, o)
	if !errors.Is(err, partition.ErrUnverified) {
		return done, err
	}
	id := batch.ProducerID()
	o.Guard = p.Verification(id)
	defer p.EndVerification(id, o.Guard)
	t := transaction{id: *req.txnID, producerID: id, epoch: batch.ProducerEpoch()}
	code := s.verify(ctx, t, txn.TopicPartition{Topic: p.Topic(), Partition: p.Identity().Partition}, add)
	if code != 0 {
		return partition.Appended{}, produceError(code, c.version)
	}
	return p.Append(batch, o)
}

// produceError is how a failed verification is told to a producer: what passes is NOT_ENOUGH_REPLICAS, which all retry.
func produceError(code, version int16) error {
	switch code {
	case kerr.ProducerFenced.Code, kerr.InvalidProducerEpoch.Code:
		return producer.ErrInvalidEpoch
	case kerr.CoordinatorLoadInProgress.Code, kerr.CoordinatorNotAvailable.Code, kerr.NotCoordinator.Code, kerr.ConcurrentTransactions.Code, kerr.RequestTimedOut.Code:
		return fmt.Errorf("%w: the transaction's coordinator: %w", partition.ErrNotEnoughReplicas, codeError(code))
	case kerr.InvalidTxnState.Code, kerr.TransactionAbortable.Code:
		if version < 11 {
			return fmt.Errorf("%w: the partition is not in it", producer.ErrInvalidTxnState)
		}
		return codeError(kerr.TransactionAbortable.Code)
	}
	return codeError(code)
}
