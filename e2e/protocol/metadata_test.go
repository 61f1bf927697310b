package protocol

import (
	"encoding/base64"
	"errors"
	"net"
	"slices"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/e2e/harness"
)

// noOperations stands where authorized operations were not asked for.
const noOperations = -2147483648

// metadataRequest asks for topics by name, and does not create them.
func metadataRequest(names ...string) *kmsg.MetadataRequest {
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{}
	for _, name := range names {
		one := kmsg.NewMetadataRequestTopic()
		one.Topic = &name
		req.Topics = append(req.Topics, one)
	}
	return req
}

func metadataByID(id [16]byte) *kmsg.MetadataRequest {
	one := kmsg.NewMetadataRequestTopic()
	one.TopicID = id
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = append(req.Topics, one)
	return req
}

func names(resp *kmsg.MetadataResponse) []string {
	var all []string
	for _, one := range resp.Topics {
		if one.Topic != nil {
			all = append(all, *one.Topic)
		}
	}
	return all
}

var metadataRules = []rule{
	{"§3.1", "v0: empty topics array = all topics; v1+: null = all, empty = none", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		all := kmsg.NewPtrMetadataRequest()
		for version := int16(0); version <= 13; version++ {
			all.Topics = nil
			if version == 0 {
				all.Topics = []kmsg.MetadataRequestTopic{}
			}
			if got := names(Ask[*kmsg.MetadataResponse](c, version, all)); !slices.Contains(got, tp.name) {
				t.Errorf("v%d: all topics are %q, want %s among them", version, got, tp.name)
			}
			if version == 0 {
				continue
			}
			if got := names(Ask[*kmsg.MetadataResponse](c, version, metadataRequest())); len(got) != 0 {
				t.Errorf("v%d: an empty list gives %q", version, got)
			}
		}
	}},
	{"§3.1", "a topic id, or a null name, is INVALID_REQUEST in v10 and v11; ids work from v12", func(t *testing.T, b *broker) {
		tp := b.topic(t, 2)
		c := b.dial(t)
		for version := int16(10); version <= 13; version++ {
			resp := Ask[*kmsg.MetadataResponse](c, version, metadataByID(tp.id))
			if len(resp.Topics) != 1 {
				t.Fatalf("v%d: %d topics", version, len(resp.Topics))
			}
			got := resp.Topics[0]
			if version < 12 {
				wantCode(t, "v10, v11", got.ErrorCode, kerr.InvalidRequest)
				continue
			}
			wantCode(t, "by id", got.ErrorCode, nil)
			if got.Topic == nil || *got.Topic != tp.name || got.TopicID != tp.id || len(got.Partitions) != 2 {
				t.Errorf("v%d: topic %+v, want %+v", version, got, tp)
			}
		}
	}},
	{"§3.1", "unknown topic: UNKNOWN_TOPIC_OR_PARTITION, or INVALID_TOPIC_EXCEPTION if the name is illegal; unknown id: UNKNOWN_TOPIC_ID", func(t *testing.T, b *broker) {
		c := b.dial(t)
		for version := int16(4); version <= 13; version++ {
			resp := Ask[*kmsg.MetadataResponse](c, version, metadataRequest(freshName(), "what?", "..", ""))
			for i, code := range []*kerr.Error{kerr.UnknownTopicOrPartition, kerr.InvalidTopicException, kerr.InvalidTopicException, kerr.InvalidTopicException} {
				wantCode(t, "unknown topic", resp.Topics[i].ErrorCode, code)
				want(t, "partitions of an unknown topic", len(resp.Topics[i].Partitions), 0)
			}
		}
		got := Ask[*kmsg.MetadataResponse](c, 12, metadataByID([16]byte{9, 9, 9})).Topics[0]
		wantCode(t, "unknown id", got.ErrorCode, kerr.UnknownTopicID)
		want(t, "id", got.TopicID, [16]byte{9, 9, 9})
		if got.Topic != nil {
			t.Errorf("name of an unknown id: %q, want null", *got.Topic)
		}
	}},
	{"§3.1", "auto-creation: on a known broker setting and AllowAutoTopicCreation (v4+, always before)", func(t *testing.T, b *broker) {
		c := b.dial(t)
		for _, version := range []int16{0, 3, 4, 13} {
			name := freshName()
			req := metadataRequest(name)
			req.AllowAutoTopicCreation = true
			first := Ask[*kmsg.MetadataResponse](c, version, req).Topics[0]
			wantCode(t, "first answer", first.ErrorCode, differs(b, kerr.UnknownTopicOrPartition, nil,
				"everlog finishes the creation before it answers: some clients retry only LEADER_NOT_AVAILABLE"))
			req.AllowAutoTopicCreation = false
			harness.Until(t, answerLimit, "the topic is there", func() error {
				return kerr.ErrorForCode(Ask[*kmsg.MetadataResponse](c, 4, req).Topics[0].ErrorCode)
			})
			if b.kafka {
				b.awaitLeaders(t, topic{name: name, partitions: 1})
			}
			wantCode(t, "produce", produce(c, topic{name: name}, 0, batch(t, "a")).ErrorCode, nil)
		}
	}},
	{"§3.1", "auto-creation refuses an illegal name with INVALID_TOPIC_EXCEPTION, and does not happen unasked", func(t *testing.T, b *broker) {
		c := b.dial(t)
		req := metadataRequest("what?", "a/b")
		req.AllowAutoTopicCreation = true
		for _, one := range Ask[*kmsg.MetadataResponse](c, 9, req).Topics {
			wantCode(t, "illegal name", one.ErrorCode, kerr.InvalidTopicException)
		}
		name := freshName()
		wantCode(t, "unasked", Ask[*kmsg.MetadataResponse](c, 9, metadataRequest(name)).Topics[0].ErrorCode, kerr.UnknownTopicOrPartition)
		wantCode(t, "produce", produce(c, topic{name: name}, 0, batch(t, "a")).ErrorCode, kerr.UnknownTopicOrPartition)
		wantCode(t, "still not there", Ask[*kmsg.MetadataResponse](c, 9, metadataRequest(name)).Topics[0].ErrorCode, kerr.UnknownTopicOrPartition)
	}},
	{"§3.1", "authorized operations are -2147483648 when not requested", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		for version := int16(8); version <= 13; version++ {
			req := metadataRequest(tp.name)
			resp := Ask[*kmsg.MetadataResponse](c, version, req)
			want(t, "topic", resp.Topics[0].AuthorizedOperations, noOperations)
			if version <= 10 {
				want(t, "cluster", resp.AuthorizedOperations, noOperations)
			}
			req.IncludeTopicAuthorizedOperations, req.IncludeClusterAuthorizedOperations = true, true
			resp = Ask[*kmsg.MetadataResponse](c, version, req)
			// Without an authorizer everything that the resource knows is allowed: bit n is operation n.
			want(t, "topic", resp.Topics[0].AuthorizedOperations, 0b1101_1111_1000)
			if version <= 10 {
				want(t, "cluster", resp.AuthorizedOperations, 0b1_1111_1010_0000)
			}
		}
	}},
	{"§3.1", "brokers, controller and cluster id: the broker itself, an alive broker, 22 letters of base64", func(t *testing.T, b *broker) {
		host, port, err := net.SplitHostPort(b.addr)
		if err != nil {
			t.Fatal(err)
		}
		number, _ := strconv.Atoi(port)
		c := b.dial(t)
		for version := int16(1); version <= 13; version++ {
			resp := Ask[*kmsg.MetadataResponse](c, version, metadataRequest())
			if len(resp.Brokers) != 1 || resp.Brokers[0].NodeID != 1 || resp.Brokers[0].Host != host || resp.Brokers[0].Port != int32(number) || resp.Brokers[0].Rack != nil {
				t.Errorf("v%d: brokers %+v, want broker 1 at %s", version, resp.Brokers, b.addr)
			}
			want(t, "controller", resp.ControllerID, 1)
			if version >= 2 {
				wantClusterID(t, resp.ClusterID)
			}
		}
	}},
	{"§3.1", "a partition has its leader, replicas, in-sync replicas and leader epoch", func(t *testing.T, b *broker) {
		tp := b.topic(t, 3)
		c := b.dial(t)
		for version := int16(0); version <= 13; version++ {
			one := Ask[*kmsg.MetadataResponse](c, version, metadataRequest(tp.name)).Topics[0]
			want(t, "internal", one.IsInternal, false)
			if version >= 10 {
				want(t, "id", one.TopicID, tp.id)
			}
			slices.SortFunc(one.Partitions, func(a, b kmsg.MetadataResponseTopicPartition) int { return int(a.Partition - b.Partition) })
			for i, p := range one.Partitions {
				if p.Partition != int32(i) || p.Leader != 1 || !slices.Equal(p.Replicas, []int32{1}) || !slices.Equal(p.ISR, []int32{1}) || len(p.OfflineReplicas) != 0 {
					t.Errorf("v%d: partition %+v", version, p)
				}
				if version >= 7 && p.LeaderEpoch < 0 {
					t.Errorf("v%d: leader epoch %d", version, p.LeaderEpoch)
				}
			}
			want(t, "partitions", len(one.Partitions), 3)
		}
	}},
	{"§3.1", "topic ids are random, never reserved, not starting with '-' in base64; a topic that is made again has a new one", func(t *testing.T, b *broker) {
		c := b.dial(t)
		seen := map[[16]byte]bool{{}: true, {15: 1}: true}
		name := freshName()
		for range 5 {
			req := kmsg.NewPtrCreateTopicsRequest()
			req.Topics = append(req.Topics, newTopic(name, 1, 1))
			made := Ask[*kmsg.CreateTopicsResponse](c, 7, req).Topics[0]
			wantCode(t, "create", made.ErrorCode, nil)
			if seen[made.TopicID] || base64.RawURLEncoding.EncodeToString(made.TopicID[:])[0] == '-' {
				t.Errorf("topic id %x is reserved, used before, or begins with '-'", made.TopicID)
			}
			seen[made.TopicID] = true
			wantNoErrors(t, "delete", Ask[*kmsg.DeleteTopicsResponse](c, 5, deleteRequest(name)))
			harness.Until(t, answerLimit, "the topic is gone", func() error {
				if Ask[*kmsg.MetadataResponse](c, 9, metadataRequest(name)).Topics[0].ErrorCode == 0 {
					return errors.New("still there")
				}
				return nil
			})
		}
	}},
}

func wantClusterID(t *testing.T, id *string) {
	t.Helper()
	if id == nil {
		t.Error("the cluster id is null")
	} else if raw, err := base64.RawURLEncoding.DecodeString(*id); err != nil || len(raw) != 16 {
		t.Errorf("cluster id %q, want 16 bytes in base64", *id)
	}
}
