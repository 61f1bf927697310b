package clients

import (
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// The timestamps with a meaning of their own in ListOffsets.
const (
	Latest                = int64(-1)
	Earliest              = int64(-2)
	MaxTimestamp          = int64(-3)
	EarliestLocal         = int64(-4)
	LatestTiered          = int64(-5) // inclusive; -1 if nothing is in the store
	EarliestPendingUpload = int64(-6)
)

// Admin asks and changes things of one cluster. Safe for concurrent use.
type Admin struct {
	client *kgo.Client
	admin  *kadm.Client
}

// NewAdmin returns an Admin of the broker at addr. It connects when it is used.
func NewAdmin(addr string) (*Admin, error) {
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		return nil, err
	}
	return &Admin{client, kadm.NewClient(client)}, nil
}

// Close closes its connections.
func (a *Admin) Close() { a.client.Close() }

// CreateTopic creates a topic with one replica.
func (a *Admin) CreateTopic(ctx context.Context, name string, partitions int32, configs map[string]string) error {
	pointers := map[string]*string{}
	for key, value := range configs {
		pointers[key] = &value
	}
	_, err := a.admin.CreateTopic(ctx, partitions, 1, pointers, name)
	if err != nil {
		return fmt.Errorf("create topic %s: %w", name, err)
	}
	return nil
}

// SetTopic changes settings of a topic.
func (a *Admin) SetTopic(ctx context.Context, name string, configs map[string]string) error {
	var changes []kadm.AlterConfig
	for key, value := range configs {
		changes = append(changes, kadm.AlterConfig{Op: kadm.SetConfig, Name: key, Value: &value})
	}
	responses, err := a.admin.AlterTopicConfigs(ctx, changes, name)
	if err != nil {
		return err
	}
	_, err = responses.On(name, func(r *kadm.AlterConfigsResponse) error { return r.Err })
	return err
}

// DeleteRecords moves the log start of a partition up to an offset.
func (a *Admin) DeleteRecords(ctx context.Context, topic string, partition int32, before int64) error {
	var offsets kadm.Offsets
	offsets.Add(kadm.Offset{Topic: topic, Partition: partition, At: before})
	responses, err := a.admin.DeleteRecords(ctx, offsets)
	if err != nil {
		return err
	}
	return responses.Error()
}

// Answer is what ListOffsets says of one timestamp.
type Answer struct {
	Offset    int64
	Timestamp int64
}

// Offset asks ListOffsets about one timestamp.
func (a *Admin) Offset(ctx context.Context, topic string, partition int32, timestamp int64) (Answer, error) {
	request := kmsg.NewPtrListOffsetsRequest()
	request.ReplicaID = -1
	request.TimeoutMillis = 30_000
	forTopic := kmsg.NewListOffsetsRequestTopic()
	forTopic.Topic = topic
	forPartition := kmsg.NewListOffsetsRequestTopicPartition()
	forPartition.Partition, forPartition.Timestamp, forPartition.CurrentLeaderEpoch = partition, timestamp, -1
	forTopic.Partitions = append(forTopic.Partitions, forPartition)
	request.Topics = append(request.Topics, forTopic)
	answers := a.client.RequestSharded(ctx, request)
	if len(answers) != 1 {
		return Answer{}, fmt.Errorf("ListOffsets %s-%d at %d: %d answers", topic, partition, timestamp, len(answers))
	}
	if err := answers[0].Err; err != nil {
		return Answer{}, fmt.Errorf("ListOffsets %s-%d at %d: %w", topic, partition, timestamp, err)
	}
	response, ok := answers[0].Resp.(*kmsg.ListOffsetsResponse)
	if !ok || len(response.Topics) != 1 || len(response.Topics[0].Partitions) != 1 {
		return Answer{}, fmt.Errorf("ListOffsets %s-%d at %d: answered %T for something else", topic, partition, timestamp, answers[0].Resp)
	}
	got := response.Topics[0].Partitions[0]
	if err := kerr.ErrorForCode(got.ErrorCode); err != nil {
		return Answer{}, fmt.Errorf("ListOffsets %s-%d at %d: %w", topic, partition, timestamp, err)
	}
	return Answer{got.Offset, got.Timestamp}, nil
}
