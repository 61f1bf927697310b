package kafka

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/ingest/producer"
)

func TestEveryErrorHasItsCodeWhenWrapped(t *testing.T) {
	for _, c := range codes {
		if got := codeOf(fmt.Errorf("append to t-0: %w", c.err)); got != c.kafka.Code {
			t.Errorf("%v: code %d, want %d (%s)", c.err, got, c.kafka.Code, c.kafka.Message)
		}
	}
	if codeOf(nil) != 0 || codeOf(errors.New("never seen")) != kerr.UnknownServerError.Code {
		t.Error("nil and unknown errors")
	}
}

// Java's consumer throws on any other code of a partition in a fetch response (reference: protocol.md §3.4).
func TestFetchErrorsAreOnesThatJavaKnows(t *testing.T) {
	allowed := map[int16]bool{0: true, 6: true, 9: true, 56: true, 74: true, 78: true, 3: true, 100: true, 103: true, 1: true, 29: true, 75: true, -1: true, 2: true}
	for _, err := range []error{errUnknownTopic, errUnknownTopicID, partition.ErrNotLeader, partition.ErrFencedEpoch, partition.ErrUnknownEpoch, partition.ErrOffsetOutOfRange,
		partition.ErrStorage, partition.ErrTierUnavailable, partition.ErrClosed, errors.New("anything")} {
		if !allowed[codeOf(err)] {
			t.Errorf("%v becomes %d in a fetch", err, codeOf(err))
		}
	}
}

// A producer that sees one of these gives its batch up; a full disk or a store that is away must not look like it.
func TestTransientProduceErrorsAreRetriable(t *testing.T) {
	for _, err := range []error{partition.ErrNoSpace, partition.ErrNotLeader, partition.ErrNotEnoughReplicas, context.DeadlineExceeded, partition.ErrClosed} {
		if !kerr.IsRetriable(kerr.ErrorForCode(codeOf(err))) {
			t.Errorf("%v becomes %d, which clients do not retry", err, codeOf(err))
		}
	}
	if kerr.IsRetriable(kerr.ErrorForCode(codeOf(producer.ErrInvalidEpoch))) {
		t.Error("a fenced producer must not retry")
	}
}
