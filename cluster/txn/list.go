package txn

import (
	"cmp"
	"regexp"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// describe answers Describe.
func (m *Machine) describe(id string) kmsg.DescribeTransactionsResponseTransactionState {
	s := kmsg.NewDescribeTransactionsResponseTransactionState()
	s.TransactionalID = id
	t := m.txns[id]
	switch {
	case id == "":
		s.ErrorCode = kerr.InvalidRequest.Code
		return s
	case t == nil:
		s.ErrorCode = kerr.TransactionalIDNotFound.Code
		return s
	}
	s.State, s.TimeoutMillis, s.StartTimestamp = t.state.String(), t.timeoutMs, t.startMs
	s.ProducerID, s.ProducerEpoch = int64(t.producerID), int16(t.epoch)
	for p := range t.topics() {
		st := kmsg.NewDescribeTransactionsResponseTransactionStateTopic()
		st.Topic, st.Partitions = p.topic, p.partitions
		s.Topics = append(s.Topics, st)
	}
	return s
}

// list answers List. A state that does not exist lets nothing through.
func (m *Machine) list(ev List, nowMs int64) any {
	var pattern *regexp.Regexp
	if ev.Pattern != nil && *ev.Pattern != "" {
		var err error
		if pattern, err = regexp.Compile(`\A(?:` + *ev.Pattern + `)\z`); err != nil {
			return kerr.InvalidRegularExpression.Code
		}
	}
	states := []kmsg.ListTransactionsResponseTransactionState{}
	for _, t := range m.txns {
		switch {
		case len(ev.ProducerIDs) > 0 && !slices.Contains(ev.ProducerIDs, int64(t.producerID)):
		case len(ev.States) > 0 && !slices.Contains(ev.States, t.state.String()):
		case ev.DurationMs >= 0 && nowMs-t.startMs <= ev.DurationMs:
		case pattern != nil && !pattern.MatchString(t.id):
		default:
			s := kmsg.NewListTransactionsResponseTransactionState()
			s.TransactionalID, s.ProducerID, s.TransactionState = t.id, int64(t.producerID), t.state.String()
			states = append(states, s)
		}
	}
	slices.SortFunc(states, func(a, b kmsg.ListTransactionsResponseTransactionState) int {
		return cmp.Compare(a.TransactionalID, b.TransactionalID)
	})
	return states
}
