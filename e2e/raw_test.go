package e2e

import (
	"context"
	"errors"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"
)

// A fetched is the answer to one fetch of one partition, as it was sent.
type fetched struct {
	records []byte
	err     error // of the partition, or of the request
}

// fetchRounds asks for an offset several times without a session, and returns every answer. Nothing retries behind it.
func fetchRounds(t *testing.T, addr, topic string, partition int32, offset int64, rounds int) []fetched {
	t.Helper()
	client := rawClient(t, addr)
	var answers []fetched
	for range rounds {
		request := kmsg.NewPtrFetchRequest()
		request.MaxWaitMillis, request.MinBytes, request.MaxBytes = 500, 1, 1<<20
		request.SessionEpoch = -1
		forTopic := kmsg.NewFetchRequestTopic()
		forTopic.Topic = topic
		forPartition := kmsg.NewFetchRequestTopicPartition()
		forPartition.Partition, forPartition.FetchOffset, forPartition.PartitionMaxBytes, forPartition.CurrentLeaderEpoch = partition, offset, 1<<20, -1
		forTopic.Partitions = append(forTopic.Partitions, forPartition)
		request.Topics = append(request.Topics, forTopic)
		response, err := request.RequestWith(t.Context(), client)
		switch {
		case err != nil:
			answers = append(answers, fetched{err: err})
		case response.ErrorCode != 0:
			answers = append(answers, fetched{err: kerr.ErrorForCode(response.ErrorCode)})
		case len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1:
			t.Fatalf("fetch of %s-%d: the answer speaks of something else", topic, partition)
		default:
			got := response.Topics[0].Partitions[0]
			answers = append(answers, fetched{got.RecordBatches, kerr.ErrorForCode(got.ErrorCode)})
		}
	}
	return answers
}

// rawClient sends requests and retries nothing. Its fetches and produces name topics, not their ids.
func rawClient(t *testing.T, addr string) *kgo.Client {
	t.Helper()
	versions := kversion.Stable()
	versions.SetMaxKeyVersion(int16(kmsg.Produce), 12)
	versions.SetMaxKeyVersion(int16(kmsg.Fetch), 12)
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.RequestRetries(0), kgo.MaxVersions(versions))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// retriable reports whether clients try again after this error, without moving to another offset.
func retriable(err error) bool {
	return kerr.IsRetriable(err) && !errors.Is(err, kerr.OffsetOutOfRange) || errors.Is(err, kerr.UnknownServerError) || errors.Is(err, context.DeadlineExceeded)
}
