package kafka

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/cluster/txn"
)

// Looking at transactions: DescribeProducers (key 61, v0), DescribeTransactions (65, v0), ListTransactions (66, v0-2;
// KIP-664, KIP-994, KIP-1152).

func (s *Server) describeProducers(_ context.Context, _ *call, req *kmsg.DescribeProducersRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.DescribeProducersResponse)
	for _, t := range req.Topics {
		rt := kmsg.NewDescribeProducersResponseTopic()
		rt.Topic = t.Topic
		for _, index := range t.Partitions {
			rp := kmsg.NewDescribeProducersResponseTopicPartition()
			rp.Partition = index
			p, err := s.partition(t.Topic, index)
			if rp.ErrorCode, rp.ErrorMessage = codeOf(err), messageOf(err); err == nil {
				for _, pr := range p.Producers() {
					a := kmsg.NewDescribeProducersResponseTopicPartitionActiveProducer()
					a.ProducerID, a.ProducerEpoch, a.LastSequence, a.LastTimestamp = int64(pr.ID), int32(pr.Epoch), pr.LastSequence, pr.LastTimestampMs
					a.CoordinatorEpoch, a.CurrentTxnStartOffset = pr.CoordinatorEpoch, int64(pr.TxnStart)
					rp.ActiveProducers = append(rp.ActiveProducers, a)
				}
			}
			rt.Partitions = append(rt.Partitions, rp)
		}
		resp.Topics = append(resp.Topics, rt)
	}
	return resp, nil
}

func (s *Server) describeTransactions(_ context.Context, c *call, req *kmsg.DescribeTransactionsRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.DescribeTransactionsResponse)
	calls, errs := make([]*coordinator.Call, len(req.TransactionalIDs)), make([]error, len(req.TransactionalIDs))
	for i, id := range req.TransactionalIDs {
		var shard *coordinator.Shard
		if shard, errs[i] = s.coordinators.Txn(id); errs[i] == nil {
			calls[i] = shard.Start(txn.Describe{TransactionalID: id})
		}
	}
	s.laterAll(c, func(ctx context.Context) (kmsg.Response, error) {
		for i, id := range req.TransactionalIDs {
			var v any
			if errs[i] == nil {
				v, errs[i] = calls[i].Wait(ctx)
			}
			state, ok := v.(kmsg.DescribeTransactionsResponseTransactionState)
			if !ok {
				state = kmsg.NewDescribeTransactionsResponseTransactionState()
				state.TransactionalID, state.ErrorCode = id, codeOf(errs[i])
			}
			resp.TransactionStates = append(resp.TransactionStates, state)
		}
		return resp, ctx.Err()
	})
	return nil, nil
}

// txnStates are the names that ListTransactions may filter by.
var txnStates = []string{"Empty", "Ongoing", "PrepareCommit", "PrepareAbort", "CompleteCommit", "CompleteAbort", "Dead", "PrepareEpochFence"}

func (s *Server) listTransactions(_ context.Context, c *call, req *kmsg.ListTransactionsRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.ListTransactionsResponse)
	for _, state := range req.StateFilters {
		if !slices.Contains(txnStates, state) {
			resp.UnknownStateFilters = append(resp.UnknownStateFilters, state)
		}
	}
	event := txn.List{States: req.StateFilters, ProducerIDs: req.ProducerIDFilters, DurationMs: req.DurationFilterMillis, Pattern: req.TransactionalIDPattern}
	s.eachShard(c, s.coordinators.Txns(), event, resp, func(v any, code int16) {
		if code != 0 {
			resp.ErrorCode = code
		}
		if answer, ok := v.(int16); ok { // the pattern is no regular expression
			resp.ErrorCode = answer
		}
		states, _ := v.([]kmsg.ListTransactionsResponseTransactionState)
		resp.TransactionStates = append(resp.TransactionStates, states...)
	})
	return nil, nil
}
