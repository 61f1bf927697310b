package protocol

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/e2e/harness"
)

// create sends the topics in one request and returns the answers by name.
func create(c *Conn, version int16, validateOnly bool, topics ...kmsg.CreateTopicsRequestTopic) map[string]kmsg.CreateTopicsResponseTopic {
	c.t.Helper()
	req := kmsg.NewPtrCreateTopicsRequest()
	req.Topics, req.ValidateOnly, req.TimeoutMillis = topics, validateOnly, 15_000
	all := map[string]kmsg.CreateTopicsResponseTopic{}
	for _, one := range Ask[*kmsg.CreateTopicsResponse](c, version, req).Topics {
		if _, twice := all[one.Topic]; twice {
			c.t.Errorf("%s is in the answer twice", one.Topic)
		}
		all[one.Topic] = one
	}
	return all
}

// assigned is a topic with replicas chosen by hand, for each partition its brokers.
func assigned(name string, partitions, factor int32, replicas map[int32][]int32) kmsg.CreateTopicsRequestTopic {
	one := newTopic(name, partitions, int16(factor))
	for p, brokers := range replicas {
		a := kmsg.NewCreateTopicsRequestTopicReplicaAssignment()
		a.Partition, a.Replicas = p, brokers
		one.ReplicaAssignment = append(one.ReplicaAssignment, a)
	}
	return one
}

// createFails wants each topic to be refused, in every version that is asked.
func createFails(t *testing.T, b *broker, code *kerr.Error, topics ...kmsg.CreateTopicsRequestTopic) {
	t.Helper()
	c := b.dial(t)
	for _, version := range []int16{2, 4, 5, 7} {
		for _, one := range topics {
			if version < 4 && code != kerr.InvalidTopicException && len(one.ReplicaAssignment) > 0 {
				continue // manual assignment with -1 is v4's
			}
			got := create(c, version, false, one)[one.Topic]
			wantCode(t, fmt.Sprintf("v%d: %q, %d partitions, factor %d", version, one.Topic, one.NumPartitions, one.ReplicationFactor), got.ErrorCode, code)
			if version >= 5 && got.Configs != nil && len(got.Configs) != 0 {
				t.Errorf("configs of a topic that was refused: %+v", got.Configs)
			}
			if got.ErrorMessage == nil || *got.ErrorMessage == "" {
				t.Errorf("v%d: %q has no message", version, one.Topic)
			}
		}
	}
}

var createTopicsRules = []rule{
	{"§3.11", "CreateTopics: partitions and factor -1 are the broker's defaults (v4+); the response has them, the configs (v5+) and the id (v7)", func(t *testing.T, b *broker) {
		c := b.dial(t)
		for version := int16(2); version <= 7; version++ {
			name := freshName()
			partitions, factor := int32(-1), int16(-1)
			if version < 4 {
				partitions, factor = 1, 1
			}
			got := create(c, version, false, newTopic(name, partitions, factor, "retention.ms=12345"))[name]
			wantCode(t, "create", got.ErrorCode, nil)
			if version < 5 {
				continue
			}
			want(t, "partitions", got.NumPartitions, 1)
			want(t, "factor", got.ReplicationFactor, 1)
			found := false
			for _, config := range got.Configs {
				found = found || config.Name == "retention.ms" && config.Value != nil && *config.Value == "12345" && config.Source == 1
				if config.Source < 1 {
					t.Errorf("%s has source %d: Java's Admin does not take it", config.Name, config.Source)
				}
			}
			if !found || len(got.Configs) < 25 {
				t.Errorf("v%d: %d configs, want all with retention.ms=12345 of the topic", version, len(got.Configs))
			}
			want(t, "id is set", got.TopicID != [16]byte{}, version >= 7)
		}
	}},
	{"§3.11", "CreateTopics answers when the partitions take writes", func(t *testing.T, b *broker) {
		c := b.dial(t)
		name := freshName()
		wantCode(t, "create", create(c, 7, false, newTopic(name, 20, 1))[name].ErrorCode, nil)
		for p := range int32(20) {
			code := produce(c, topic{name: name}, p, batch(t, "a")).ErrorCode
			retry := code == kerr.NotLeaderForPartition.Code || code == kerr.UnknownTopicOrPartition.Code
			if allowed := differs(b, retry, false, "Kafka's metadata runs ahead of its leaders, its clients retry"); code != 0 && !allowed {
				t.Errorf("the first produce to partition %d: %s", p, codeName(code))
			}
		}
	}},
	{"§3.11", "CreateTopics: factor 0 or below -1, or above the alive brokers: INVALID_REPLICATION_FACTOR", func(t *testing.T, b *broker) {
		createFails(t, b, kerr.InvalidReplicationFactor, newTopic(freshName(), 1, 0), newTopic(freshName(), 1, -2), newTopic(freshName(), 1, 2), newTopic(freshName(), 1, 3))
	}},
	{"§3.11", "CreateTopics: partitions 0 or below -1: INVALID_PARTITIONS", func(t *testing.T, b *broker) {
		createFails(t, b, kerr.InvalidPartitions, newTopic(freshName(), 0, 1), newTopic(freshName(), -2, 1))
	}},
	{"§3.11", "CreateTopics: name above 249 characters, not of [a-zA-Z0-9._-], '.' or '..': INVALID_TOPIC_EXCEPTION", func(t *testing.T, b *broker) {
		var bad []kmsg.CreateTopicsRequestTopic
		for _, name := range []string{"", ".", "..", "a b", "a/b", "ä", "a:b", strings.Repeat("x", 250)} {
			bad = append(bad, newTopic(name, 1, 1))
		}
		createFails(t, b, kerr.InvalidTopicException, bad...)
		c := b.dial(t)
		longest := strings.Repeat("y", 249)
		wantCode(t, "249 characters", create(c, 7, false, newTopic(longest, 1, 1))[longest].ErrorCode, nil)
		b.awaitLeaders(t, topic{name: longest, partitions: 1})
		mustProduce(c, topic{name: longest}, 0, batch(t, "a"))
	}},
	{"§3.11", "CreateTopics: a name that collides with another after '.' became '_': INVALID_TOPIC_EXCEPTION", func(t *testing.T, b *broker) {
		c := b.dial(t)
		base := freshName()
		wantCode(t, "the first", create(c, 7, false, newTopic(base+".a_b", 1, 1))[base+".a_b"].ErrorCode, nil)
		createFails(t, b, kerr.InvalidTopicException, newTopic(base+"_a.b", 1, 1), newTopic(base+"_a_b", 1, 1), newTopic(base+".a.b", 1, 1))
	}},
	{"§3.11", "CreateTopics: existing: TOPIC_ALREADY_EXISTS, with ValidateOnly too", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		createFails(t, b, kerr.TopicAlreadyExists, newTopic(tp.name, 1, 1))
		wantCode(t, "validate only", create(b.dial(t), 7, true, newTopic(tp.name, 1, 1))[tp.name].ErrorCode, kerr.TopicAlreadyExists)
	}},
	{"§3.11", "CreateTopics: a topic twice in a request: INVALID_REQUEST, and it is not created; others are", func(t *testing.T, b *broker) {
		c := b.dial(t)
		twice, good := freshName(), freshName()
		got := create(c, 7, false, newTopic(twice, 1, 1), newTopic(good, 1, 1), newTopic(twice, 1, 1))
		wantCode(t, "twice", got[twice].ErrorCode, kerr.InvalidRequest)
		wantCode(t, "once", got[good].ErrorCode, nil)
		wantCode(t, "not created", Ask[*kmsg.MetadataResponse](c, 9, metadataRequest(twice)).Topics[0].ErrorCode, kerr.UnknownTopicOrPartition)
	}},
	{"§3.11", "CreateTopics: manual assignment requires both -1, else INVALID_REQUEST; a bad one is INVALID_REPLICA_ASSIGNMENT", func(t *testing.T, b *broker) {
		one := map[int32][]int32{0: {1}}
		createFails(t, b, kerr.InvalidRequest, assigned(freshName(), 1, -1, one), assigned(freshName(), -1, 1, one), assigned(freshName(), 1, 1, one))
		createFails(t, b, kerr.InvalidReplicaAssignment,
			assigned(freshName(), -1, -1, map[int32][]int32{0: {}}), assigned(freshName(), -1, -1, map[int32][]int32{0: {1, 1}}),
			assigned(freshName(), -1, -1, map[int32][]int32{0: {7}}), assigned(freshName(), -1, -1, map[int32][]int32{1: {1}}),
			assigned(freshName(), -1, -1, map[int32][]int32{0: {1}, 2: {1}}))
		name := freshName()
		got := create(b.dial(t), 7, false, assigned(name, -1, -1, map[int32][]int32{0: {1}, 1: {1}}))[name]
		wantCode(t, "good assignment", got.ErrorCode, nil)
		want(t, "partitions", got.NumPartitions, 2)
	}},
	{"§3.11", "CreateTopics: a bad config: INVALID_CONFIG", func(t *testing.T, b *broker) {
		var bad []kmsg.CreateTopicsRequestTopic
		for _, config := range []string{
			"no.such.config=1", "retention.ms=soon", "retention.ms=-2", "cleanup.policy=shred", "segment.bytes=1048575", "segment.bytes=2147483648", "compression.type=rar",
			"message.timestamp.type=Never", "min.insync.replicas=0", "max.message.bytes=-1", "preallocate=maybe", "min.cleanable.dirty.ratio=1.5", "message.downconversion.enable=true",
			"compression.gzip.level=0", "compression.lz4.level=18", "compression.zstd.level=23", "flush.messages=0", "segment.ms=0", "local.retention.ms=-3",
		} {
			bad = append(bad, newTopic(freshName(), 1, 1, config))
		}
		createFails(t, b, kerr.InvalidConfig, bad...)
		null := newTopic(freshName(), 1, 1)
		null.Configs = []kmsg.CreateTopicsRequestTopicConfig{{Name: "retention.ms"}}
		createFails(t, b, kerr.InvalidConfig, null)
	}},
	{"§3.11", "CreateTopics: more than 10000 partitions in a request: POLICY_VIOLATION", func(t *testing.T, b *broker) {
		createFails(t, b, kerr.PolicyViolation, newTopic(freshName(), 10_001, 1))
	}},
	{"§3.11", "CreateTopics: ValidateOnly does everything but create", func(t *testing.T, b *broker) {
		c := b.dial(t)
		for version := int16(2); version <= 7; version++ {
			name := freshName()
			got := create(c, version, true, newTopic(name, 3, 1, "retention.ms=77"))[name]
			wantCode(t, "validate", got.ErrorCode, nil)
			if version >= 5 {
				want(t, "partitions", got.NumPartitions, 3)
			}
			wantCode(t, "bad config", create(c, version, true, newTopic(name, 3, 1, "retention.ms=x"))[name].ErrorCode, kerr.InvalidConfig)
			wantCode(t, "not created", Ask[*kmsg.MetadataResponse](c, 9, metadataRequest(name)).Topics[0].ErrorCode, kerr.UnknownTopicOrPartition)
		}
	}},
}

// deleteRequest deletes by name, in any version.
func deleteRequest(names ...string) *kmsg.DeleteTopicsRequest {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TopicNames, req.TimeoutMillis = names, 15_000
	for _, name := range names {
		one := kmsg.NewDeleteTopicsRequestTopic()
		one.Topic = &name
		req.Topics = append(req.Topics, one)
	}
	return req
}

func deleteByID(ids ...[16]byte) *kmsg.DeleteTopicsRequest {
	req := kmsg.NewPtrDeleteTopicsRequest()
	req.TimeoutMillis = 15_000
	for _, id := range ids {
		one := kmsg.NewDeleteTopicsRequestTopic()
		one.TopicID = id
		req.Topics = append(req.Topics, one)
	}
	return req
}

// awaitGone returns when the broker does not know the topic any more.
func (b *broker) awaitGone(t *testing.T, name string) {
	t.Helper()
	c := b.dial(t)
	harness.Until(t, answerLimit, name+" is gone", func() error {
		switch code := Ask[*kmsg.MetadataResponse](c, 9, metadataRequest(name)).Topics[0].ErrorCode; {
		case code != kerr.UnknownTopicOrPartition.Code:
			return errors.New("in the metadata: " + codeName(code))
		default:
			code = produce(c, topic{name: name}, 0, batch(t, "a")).ErrorCode
			if code != kerr.UnknownTopicOrPartition.Code {
				return errors.New("produce: " + codeName(code))
			}
			return nil
		}
	})
}

var deleteTopicsRules = []rule{
	{"§3.11", "DeleteTopics by name, and by id (v6): the answer names both, then the topic is unknown", func(t *testing.T, b *broker) {
		c := b.dial(t)
		for version := int16(1); version <= 6; version++ {
			tp := b.topic(t, 2)
			fill(t, c, tp, 1, "a")
			got := Ask[*kmsg.DeleteTopicsResponse](c, version, deleteRequest(tp.name)).Topics[0]
			wantCode(t, "delete", got.ErrorCode, nil)
			if got.Topic == nil || *got.Topic != tp.name || version >= 6 && got.TopicID != tp.id {
				t.Errorf("v%d: the answer is for %+v, want %+v", version, got, tp)
			}
			b.awaitGone(t, tp.name)
			wantCode(t, "fetch", fetch(c, tp, 0, 0).ErrorCode, kerr.UnknownTopicOrPartition)
			wantCode(t, "list offsets", listOffset(c, 7, tp, 0, latest).ErrorCode, kerr.UnknownTopicOrPartition)
		}
		tp := b.topic(t, 1)
		got := Ask[*kmsg.DeleteTopicsResponse](c, 6, deleteByID(tp.id)).Topics[0]
		wantCode(t, "by id", got.ErrorCode, nil)
		if got.Topic == nil || *got.Topic != tp.name || got.TopicID != tp.id {
			t.Errorf("the answer is for %+v, want %+v", got, tp)
		}
		b.awaitGone(t, tp.name)
	}},
	{"§3.11", "DeleteTopics: unknown name: UNKNOWN_TOPIC_OR_PARTITION; unknown id: UNKNOWN_TOPIC_ID; one of several does not disturb the others", func(t *testing.T, b *broker) {
		c := b.dial(t)
		for version := int16(1); version <= 6; version++ {
			tp, unknown := b.topic(t, 1), freshName()
			for _, one := range Ask[*kmsg.DeleteTopicsResponse](c, version, deleteRequest(unknown, tp.name)).Topics {
				var code *kerr.Error
				if *one.Topic == unknown {
					code = kerr.UnknownTopicOrPartition
				}
				wantCode(t, fmt.Sprintf("v%d: %s", version, *one.Topic), one.ErrorCode, code)
			}
			b.awaitGone(t, tp.name)
		}
		wantCode(t, "unknown id", Ask[*kmsg.DeleteTopicsResponse](c, 6, deleteByID([16]byte{4, 5, 6})).Topics[0].ErrorCode, kerr.UnknownTopicID)
	}},
	{"§3.11", "DeleteTopics: a topic twice, or with name and id, or with neither: INVALID_REQUEST", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		both := deleteRequest(tp.name)
		both.Topics[0].TopicID = tp.id
		for what, req := range map[string]*kmsg.DeleteTopicsRequest{"twice by name": deleteRequest(tp.name, tp.name), "twice by id": deleteByID(tp.id, tp.id), "both": both, "neither": deleteByID([16]byte{})} {
			for _, one := range Ask[*kmsg.DeleteTopicsResponse](c, 6, req).Topics {
				wantCode(t, what, one.ErrorCode, kerr.InvalidRequest)
			}
		}
		mustProduce(c, tp, 0, batch(t, "still there"))
	}},
	{"§3.11", "a topic that is made again under its name is empty", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		id := producerID(c)
		mustProduce(c, tp, 0, sequenced(t, id, 0, 0, "a", "b"))
		wantNoErrors(t, "delete", Ask[*kmsg.DeleteTopicsResponse](c, 6, deleteRequest(tp.name)))
		b.awaitGone(t, tp.name)
		wantCode(t, "create", create(c, 7, false, newTopic(tp.name, 1, 1))[tp.name].ErrorCode, nil)
		b.awaitLeaders(t, tp)
		wantOffset(t, "latest", listOffset(c, 7, tp, 0, latest), 0, -1)
		want(t, "base offset: the producer's state is gone too", mustProduce(c, tp, 0, sequenced(t, id, 0, 0, "a", "b")), 0)
		wantCode(t, "the old id", produceIn(c, 13, tp, 0, batch(t, "a")).ErrorCode, kerr.UnknownTopicID)
	}},
}

func createPartitionsRequest(name string, count int32, assignment ...[]int32) *kmsg.CreatePartitionsRequest {
	req := kmsg.NewPtrCreatePartitionsRequest()
	one := kmsg.NewCreatePartitionsRequestTopic()
	one.Topic, one.Count = name, count
	for _, replicas := range assignment {
		a := kmsg.NewCreatePartitionsRequestTopicAssignment()
		a.Replicas = replicas
		one.Assignment = append(one.Assignment, a)
	}
	req.Topics, req.TimeoutMillis = append(req.Topics, one), 15_000
	return req
}

var partitionsRules = []rule{
	{"§3.11", "CreatePartitions: the new partitions take writes, the old ones keep their records", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a")
		for version := range int16(4) {
			count := int32(version) + 2
			wantNoErrors(t, "create partitions", Ask[*kmsg.CreatePartitionsResponse](c, version, createPartitionsRequest(tp.name, count)))
			if b.kafka {
				b.awaitLeaders(t, topic{name: tp.name, partitions: count})
			}
			want(t, "base offset", mustProduce(c, tp, count-1, batch(t, "b")), 0)
		}
		want(t, "log end of the old one", listOffset(c, 7, tp, 0, latest).Offset, 1)
	}},
	{"§3.11", "CreatePartitions: count not above the current: INVALID_PARTITIONS; unknown topic: UNKNOWN_TOPIC_OR_PARTITION; twice: INVALID_REQUEST", func(t *testing.T, b *broker) {
		tp := b.topic(t, 2)
		c := b.dial(t)
		for version := range int16(4) {
			for _, count := range []int32{2, 1, 0, -1} {
				got := Ask[*kmsg.CreatePartitionsResponse](c, version, createPartitionsRequest(tp.name, count)).Topics[0]
				wantCode(t, fmt.Sprintf("count %d", count), got.ErrorCode, kerr.InvalidPartitions)
			}
			got := Ask[*kmsg.CreatePartitionsResponse](c, version, createPartitionsRequest(freshName(), 3)).Topics[0]
			wantCode(t, "unknown", got.ErrorCode, kerr.UnknownTopicOrPartition)
			twice := createPartitionsRequest(tp.name, 3)
			twice.Topics = append(twice.Topics, twice.Topics[0])
			for _, one := range Ask[*kmsg.CreatePartitionsResponse](c, version, twice).Topics {
				wantCode(t, "twice", one.ErrorCode, kerr.InvalidRequest)
			}
		}
	}},
	{"§3.11", "CreatePartitions: as many assignments as partitions are added, of brokers that are there: else INVALID_REPLICA_ASSIGNMENT", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		for what, req := range map[string]*kmsg.CreatePartitionsRequest{
			"too few": createPartitionsRequest(tp.name, 3, []int32{1}), "too many": createPartitionsRequest(tp.name, 2, []int32{1}, []int32{1}),
			"unknown broker": createPartitionsRequest(tp.name, 2, []int32{9}), "twice the same": createPartitionsRequest(tp.name, 2, []int32{1, 1}), "none": createPartitionsRequest(tp.name, 2, []int32{}),
		} {
			wantCode(t, what, Ask[*kmsg.CreatePartitionsResponse](c, 3, req).Topics[0].ErrorCode, kerr.InvalidReplicaAssignment)
		}
		wantNoErrors(t, "good", Ask[*kmsg.CreatePartitionsResponse](c, 3, createPartitionsRequest(tp.name, 2, []int32{1})))
	}},
	{"§3.11", "CreatePartitions: ValidateOnly changes nothing", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		req := createPartitionsRequest(tp.name, 5)
		req.ValidateOnly = true
		for version := range int16(4) {
			wantNoErrors(t, "validate", Ask[*kmsg.CreatePartitionsResponse](c, version, req))
		}
		one := Ask[*kmsg.MetadataResponse](c, 9, metadataRequest(tp.name)).Topics[0]
		want(t, "partitions", slices.MaxFunc(one.Partitions, func(a, b kmsg.MetadataResponseTopicPartition) int { return int(a.Partition - b.Partition) }).Partition, 0)
	}},
}
