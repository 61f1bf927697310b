package kafka

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/cluster/txn"
	"github.com/everlog/everlog/ingest/coordinators"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/record"
)

// Transactions: InitProducerId (key 22, v0-5; KIP-98, KIP-360, KIP-890), AddPartitionsToTxn (24, v0-5), AddOffsetsToTxn
// (25, v0-4), EndTxn (26, v0-5), TxnOffsetCommit (28, v0-5). The rules are cluster/txn's.

const (
	// coordinatorTimeout bounds how long a request waits for a coordinator that it needs besides its own.
	coordinatorTimeout = 10 * time.Second
	// concurrentRetry and concurrentLimit: how a broker waits for the transaction before to complete, for producers of
	// version 2, who begin the next one without asking (Kafka's add.partitions.to.txn.retry.backoff.*).
	concurrentRetry = 5 * time.Millisecond
	concurrentLimit = time.Second
)

// initProducerID gives an id for idempotence, or that of a transactional id.
func (s *Server) initProducerID(ctx context.Context, c *call, req *kmsg.InitProducerIDRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.InitProducerIDResponse)
	resp.ProducerID, resp.ProducerEpoch = -1, -1
	switch {
	case req.TransactionalID != nil && *req.TransactionalID == "":
		resp.ErrorCode = codeInvalidRequest
	case req.Version >= 3 && (req.ProducerID == -1) != (req.ProducerEpoch == -1):
		resp.ErrorCode = codeInvalidRequest
	case req.TransactionalID != nil:
		shard, err := s.coordinators.Txn(*req.TransactionalID)
		s.laterAll(c, func(ctx context.Context) (kmsg.Response, error) {
			v, err := s.withID(ctx, shard, err, func(fresh record.ProducerID) any { return txn.InitProducerID{Req: req, Fresh: fresh} })
			if answer, ok := v.(*kmsg.InitProducerIDResponse); ok {
				return answer, nil
			}
			resp.ErrorCode = codeOf(err)
			return resp, ctx.Err()
		})
		return nil, nil
	default:
		id, err := s.newProducerID(ctx)
		if resp.ErrorCode = codeOf(err); err == nil {
			resp.ProducerID, resp.ProducerEpoch = int64(id), 0
		}
	}
	return resp, nil
}

// newProducerID allocates one. What passes is COORDINATOR_LOAD_IN_PROGRESS: clients before Java 4 take others as fatal
// (KAFKA-14417).
func (s *Server) newProducerID(ctx context.Context) (record.ProducerID, error) {
	id, err := s.broker.NewProducerID(ctx)
	if err != nil {
		err = fmt.Errorf("%w: no producer id: %w", coordinators.ErrLoading, err)
	}
	return id, err
}

// withID gives a shard an event; if the event needs a producer id that was never used, it gets one.
func (s *Server) withID(ctx context.Context, shard *coordinator.Shard, err error, event func(record.ProducerID) any) (any, error) {
	if err != nil {
		return nil, err
	}
	v, err := shard.Do(ctx, event(record.NoProducer))
	if _, need := v.(txn.NeedID); err != nil || !need {
		return v, err
	}
	fresh, err := s.newProducerID(ctx)
	if err != nil {
		return nil, err
	}
	return shard.Do(ctx, event(fresh))
}

func (s *Server) endTxn(_ context.Context, c *call, req *kmsg.EndTxnRequest) (kmsg.Response, error) {
	shard, err := s.coordinators.Txn(req.TransactionalID)
	s.laterAll(c, func(ctx context.Context) (kmsg.Response, error) {
		v, err := s.withID(ctx, shard, err, func(fresh record.ProducerID) any { return txn.EndTxn{Req: req, Fresh: fresh} })
		if answer, ok := v.(*kmsg.EndTxnResponse); ok {
			return answer, nil
		}
		resp := req.ResponseKind().(*kmsg.EndTxnResponse)
		resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch = codeOf(err), -1, -1
		return resp, ctx.Err()
	})
	return nil, nil
}

// addPartitionsToTxn: up to v3 a client adds to its one transaction; from v4 a broker verifies or adds for several.
func (s *Server) addPartitionsToTxn(_ context.Context, c *call, req *kmsg.AddPartitionsToTxnRequest) (kmsg.Response, error) {
	if c.version >= 4 {
		s.laterAll(c, func(ctx context.Context) (kmsg.Response, error) { return s.addForBrokers(ctx, req) })
		return nil, nil
	}
	answer := func(code func(topic string, partition int32) int16) kmsg.Response {
		resp := req.ResponseKind().(*kmsg.AddPartitionsToTxnResponse)
		for _, t := range req.Topics {
			rt := kmsg.NewAddPartitionsToTxnResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewAddPartitionsToTxnResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p, code(t.Topic, p)
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp
	}
	if code := s.addable(req.Topics); code != nil {
		return answer(code), nil
	}
	shard, err := s.coordinators.Txn(req.TransactionalID)
	s.later(c, shard, err, txn.Request{Body: req}, func(v any, code int16) kmsg.Response {
		if resp, ok := v.(*kmsg.AddPartitionsToTxnResponse); ok {
			return resp
		}
		return answer(func(string, int32) int16 { return code })
	})
	return nil, nil
}

// addable is nil if all partitions exist; else nothing may be added, and it says why for each.
func (s *Server) addable(topics []kmsg.AddPartitionsToTxnRequestTopic) func(string, int32) int16 {
	unknown := func(topic string, partition int32) bool {
		return s.identify(&topic, new([16]byte), false, partition) != 0
	}
	for _, t := range topics {
		for _, p := range t.Partitions {
			if !unknown(t.Topic, p) {
				continue
			}
			return func(topic string, partition int32) int16 {
				if unknown(topic, partition) {
					return codeUnknownTopicOrPartition
				}
				return kerr.OperationNotAttempted.Code
			}
		}
	}
	return nil
}

func oldTopics(topics []kmsg.AddPartitionsToTxnRequestTransactionTopic) []kmsg.AddPartitionsToTxnRequestTopic {
	out := make([]kmsg.AddPartitionsToTxnRequestTopic, len(topics))
	for i, t := range topics {
		out[i].Topic, out[i].Partitions = t.Topic, t.Partitions
	}
	return out
}

func (s *Server) addForBrokers(ctx context.Context, req *kmsg.AddPartitionsToTxnRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.AddPartitionsToTxnResponse)
	for _, t := range req.Transactions {
		var all []txn.TopicPartition
		for _, topic := range t.Topics {
			for _, p := range topic.Partitions {
				all = append(all, txn.TopicPartition{Topic: topic.Topic, Partition: p})
			}
		}
		producer := transaction{id: t.TransactionalID, producerID: record.ProducerID(t.ProducerID), epoch: record.ProducerEpoch(t.ProducerEpoch)}
		var codes []int16
		if code := s.addable(oldTopics(t.Topics)); code != nil {
			for _, p := range all {
				codes = append(codes, code(p.Topic, p.Partition))
			}
		} else {
			codes = s.verifyOnce(ctx, producer, all, !t.VerifyOnly)
		}
		rt := kmsg.NewAddPartitionsToTxnResponseTransaction()
		rt.TransactionalID = t.TransactionalID
		for _, topic := range t.Topics {
			out := kmsg.NewAddPartitionsToTxnResponseTransactionTopic()
			out.Topic = topic.Topic
			for _, p := range topic.Partitions {
				rp := kmsg.NewAddPartitionsToTxnResponseTransactionTopicPartition()
				rp.Partition, rp.ErrorCode = p, codes[0]
				codes = codes[1:]
				out.Partitions = append(out.Partitions, rp)
			}
			rt.Topics = append(rt.Topics, out)
		}
		resp.Transactions = append(resp.Transactions, rt)
	}
	return resp, ctx.Err()
}

func (s *Server) addOffsetsToTxn(ctx context.Context, c *call, req *kmsg.AddOffsetsToTxnRequest) (kmsg.Response, error) {
	failed := func(code int16) kmsg.Response {
		resp := req.ResponseKind().(*kmsg.AddOffsetsToTxnResponse)
		resp.ErrorCode = code
		return resp
	}
	at, err := s.offsetsPartition(ctx, req.Group)
	if err != nil {
		return failed(codeOf(err)), nil
	}
	shard, err := s.coordinators.Txn(req.TransactionalID)
	s.later(c, shard, err, txn.AddOffsets{Req: req, Partition: at}, func(v any, code int16) kmsg.Response {
		if resp, ok := v.(*kmsg.AddOffsetsToTxnResponse); ok {
			return resp
		}
		return failed(code)
	})
	return nil, nil
}

// offsetsPartition is where a group's offsets are; the topic is made if it is not there.
func (s *Server) offsetsPartition(ctx context.Context, group string) (int32, error) {
	ctx, cancel := context.WithTimeout(ctx, coordinatorTimeout)
	defer cancel()
	if _, err := s.coordinators.Leader(ctx, coordinators.OffsetsTopic, group); err != nil {
		return 0, err
	}
	return coordinators.PartitionFor(group, len(s.broker.Image().Topic(coordinators.OffsetsTopic).Partitions)), nil
}

// txnOffsetCommit commits offsets as a part of a transaction. The coordinator of the transaction must know that the
// group's partition is in it: it is told so by producers of version 2's first commit (v5), and asked otherwise.
func (s *Server) txnOffsetCommit(_ context.Context, c *call, req *kmsg.TxnOffsetCommitRequest) (kmsg.Response, error) {
	asked := make([]kmsg.TxnOffsetCommitRequestTopic, len(req.Topics))
	copy(asked, req.Topics)
	var unknown []int16 // of each partition; 0 is in req
	req.Topics = nil
	for _, t := range asked {
		known := t
		known.Partitions = nil
		for _, p := range t.Partitions {
			code := s.identify(&known.Topic, &known.TopicID, false, p.Partition)
			if unknown = append(unknown, code); code == 0 {
				known.Partitions = append(known.Partitions, p)
			}
		}
		if len(known.Partitions) > 0 {
			req.Topics = append(req.Topics, known)
		}
	}
	s.laterAll(c, func(ctx context.Context) (kmsg.Response, error) {
		v, code := s.commitInTxn(ctx, c, req)
		var codes []int16 // of those in req
		if good, ok := v.(*kmsg.TxnOffsetCommitResponse); ok {
			codes = txnCommittedCodes(good)
		}
		resp := req.ResponseKind().(*kmsg.TxnOffsetCommitResponse)
		for _, t := range asked {
			rt := kmsg.NewTxnOffsetCommitResponseTopic()
			rt.Topic = t.Topic
			for _, p := range t.Partitions {
				rp := kmsg.NewTxnOffsetCommitResponseTopicPartition()
				rp.Partition, rp.ErrorCode = p.Partition, code
				switch u := unknown[0]; {
				case u != 0:
					rp.ErrorCode = u
				case len(codes) > 0:
					rp.ErrorCode, codes = codes[0], codes[1:]
				}
				unknown = unknown[1:]
				rt.Partitions = append(rt.Partitions, rp)
			}
			resp.Topics = append(resp.Topics, rt)
		}
		return resp, ctx.Err()
	})
	return nil, nil
}

// txnCommittedCodes are the coordinator's codes in the order of the request.
func txnCommittedCodes(resp *kmsg.TxnOffsetCommitResponse) (codes []int16) {
	for i := range resp.Topics {
		for _, p := range resp.Topics[i].Partitions {
			codes = append(codes, p.ErrorCode)
		}
	}
	return codes
}

// commitInTxn is the group coordinator's answer, or a code for all.
func (s *Server) commitInTxn(ctx context.Context, c *call, req *kmsg.TxnOffsetCommitRequest) (any, int16) {
	if len(req.Topics) == 0 {
		return nil, 0
	}
	at, err := s.offsetsPartition(ctx, req.Group)
	if err != nil {
		return nil, codeOf(err)
	}
	log, err := s.coordinators.GroupLog(req.Group)
	if err != nil {
		return nil, codeOf(err)
	}
	t := transaction{id: req.TransactionalID, producerID: record.ProducerID(req.ProducerID), epoch: record.ProducerEpoch(req.ProducerEpoch)}
	v2 := c.version >= 5
	var guard partition.Guard
	if v2 || s.broker.Config().Bool("transaction.partition.verification.enable") {
		guard = log.Verification(t.producerID)
		defer log.EndVerification(t.producerID, guard)
		code := s.verify(ctx, t, txn.TopicPartition{Topic: coordinators.OffsetsTopic, Partition: at}, v2)
		if code != 0 {
			return nil, offsetsCode(code, c.version)
		}
	}
	shard, err := s.coordinators.Group(req.Group)
	if err != nil {
		return nil, codeOf(err)
	}
	mayCommit := func() error { return log.MayCommitOffsets(t.producerID, t.epoch, guard, time.Now().UnixMilli()) }
	v, err := shard.DoIf(ctx, mayCommit, groupRequest(c, req))
	if errors.Is(err, partition.ErrUnverified) { // it ended while its coordinator was asked: the next try is told so
		return nil, offsetsCode(kerr.CoordinatorLoadInProgress.Code, c.version)
	}
	return v, codeOf(err)
}

// offsetsCode is how a failed verification is told to a client that commits offsets.
func offsetsCode(code, version int16) int16 {
	switch code {
	case kerr.ProducerFenced.Code:
		return kerr.InvalidProducerEpoch.Code
	case kerr.ConcurrentTransactions.Code, kerr.CoordinatorLoadInProgress.Code:
		code = kerr.CoordinatorLoadInProgress.Code
	case kerr.TransactionAbortable.Code:
		if version < 4 {
			return kerr.InvalidTxnState.Code // KIP-890
		}
	case kerr.NotCoordinator.Code:
		code = kerr.CoordinatorNotAvailable.Code // the client knows the group's coordinator, not the transaction's
	}
	if code == kerr.CoordinatorLoadInProgress.Code && version < 2 {
		return kerr.CoordinatorNotAvailable.Code
	}
	return code
}

// transaction names a producer's transaction.
type transaction struct {
	id         string
	producerID record.ProducerID
	epoch      record.ProducerEpoch
}

// verifyOnce asks the transaction's coordinator whether the partitions are in it, or adds them. One code each.
func (s *Server) verifyOnce(ctx context.Context, t transaction, partitions []txn.TopicPartition, add bool) []int16 {
	var v any
	shard, err := s.coordinators.Txn(t.id)
	if err == nil {
		v, err = shard.Do(ctx, txn.Verify{TransactionalID: t.id, ProducerID: t.producerID, ProducerEpoch: t.epoch, Partitions: partitions, Add: add})
	}
	if codes, ok := v.([]int16); ok && len(codes) == len(partitions) {
		return codes
	}
	codes := make([]int16, len(partitions))
	for i := range codes {
		codes[i] = codeOf(err)
	}
	return codes
}

// verify is verifyOnce for one partition. Adding waits for the transaction before to complete.
func (s *Server) verify(ctx context.Context, t transaction, p txn.TopicPartition, add bool) int16 {
	ctx, cancel := context.WithTimeout(ctx, coordinatorTimeout)
	defer cancel()
	limit := time.Now().Add(concurrentLimit)
	for {
		code := s.verifyOnce(ctx, t, []txn.TopicPartition{p}, add)[0]
		if code != kerr.ConcurrentTransactions.Code || !add || time.Now().After(limit) {
			return code
		}
		select {
		case <-time.After(concurrentRetry):
		case <-ctx.Done():
			return code
		}
	}
}

// WriteTxnMarkers (key 27, v1-2; KIP-98, KIP-1228): from other coordinators, and from tools that abort a hanging transaction.
func (s *Server) writeTxnMarkers(_ context.Context, c *call, req *kmsg.WriteTxnMarkersRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.WriteTxnMarkersResponse)
	type written struct {
		code *int16
		wait func(context.Context) error
	}
	var all []written
	for _, m := range req.Markers {
		rm := kmsg.NewWriteTxnMarkersResponseMarker()
		rm.ProducerID = m.ProducerID
		marker := coordinators.Marker{ProducerID: record.ProducerID(m.ProducerID), ProducerEpoch: record.ProducerEpoch(m.ProducerEpoch), Commit: m.Committed,
			CoordinatorEpoch: m.CoordinatorEpoch, V2: m.TransactionVersion >= 2}
		for _, t := range m.Topics {
			rt := kmsg.NewWriteTxnMarkersResponseMarkerTopic()
			rt.Topic, rt.Partitions = t.Topic, make([]kmsg.WriteTxnMarkersResponseMarkerTopicPartition, len(t.Partitions))
			for i, p := range t.Partitions {
				rt.Partitions[i] = kmsg.NewWriteTxnMarkersResponseMarkerTopicPartition()
				rt.Partitions[i].Partition = p
				wait, err := s.coordinators.WriteMarker(t.Topic, p, marker)
				if err != nil {
					wait = func(context.Context) error { return err }
				}
				all = append(all, written{&rt.Partitions[i].ErrorCode, wait})
			}
			rm.Topics = append(rm.Topics, rt)
		}
		resp.Markers = append(resp.Markers, rm)
	}
	s.laterAll(c, func(ctx context.Context) (kmsg.Response, error) {
		for _, w := range all {
			*w.code = codeOf(w.wait(ctx))
		}
		return resp, ctx.Err()
	})
	return nil, nil
}
