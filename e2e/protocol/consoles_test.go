package protocol

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

var consoleRules = []rule{
	{"§3.11", "a spent controller_mutation_rate refuses only what would change something: what is wrong is told as such", func(t *testing.T, b *broker) {
		id := freshName()
		b.setQuota(t, id, limit("controller_mutation_rate", 0.5))
		made := newTopic(freshName(), 60, 1)
		wantCode(t, "the first, on credit", create(DialAs(t, b.addr, id), 7, false, made)[made.Topic].ErrorCode, nil)
		for _, s := range []struct {
			what string
			one  kmsg.CreateTopicsRequestTopic
			code *kerr.Error
		}{
			{"exists", made, kerr.TopicAlreadyExists}, {"name", newTopic("..", 1, 1), kerr.InvalidTopicException},
			{"partitions", newTopic(freshName(), 0, 1), kerr.InvalidPartitions}, {"setting", newTopic(freshName(), 1, 1, "no.such=1"), kerr.InvalidConfig},
			{"another", newTopic(freshName(), 1, 1), kerr.ThrottlingQuotaExceeded},
		} {
			wantCode(t, s.what, create(DialAs(t, b.addr, id), 7, false, s.one)[s.one.Topic].ErrorCode, s.code)
		}
		gone := Ask[*kmsg.DeleteTopicsResponse](DialAs(t, b.addr, id), 5, deleteRequest(freshName()))
		wantCode(t, "delete what is not there", gone.Topics[0].ErrorCode, kerr.UnknownTopicOrPartition)
		grown := Ask[*kmsg.CreatePartitionsResponse](DialAs(t, b.addr, id), 3, createPartitionsRequest(made.Topic, 60))
		wantCode(t, "as many partitions as before", grown.Topics[0].ErrorCode, kerr.InvalidPartitions)
	}},
	{"§3.11", "controller_mutation_rate counts what is only validated too", func(t *testing.T, b *broker) {
		id := freshName()
		b.setQuota(t, id, limit("controller_mutation_rate", 0.5))
		one := newTopic(freshName(), 60, 1)
		wantCode(t, "the first, on credit", create(DialAs(t, b.addr, id), 7, true, one)[one.Topic].ErrorCode, nil)
		wantCode(t, "the second", create(DialAs(t, b.addr, id), 7, true, one)[one.Topic].ErrorCode, kerr.ThrottlingQuotaExceeded)
	}},
	{"§3.11", "DescribeLogDirs: a topic without partitions asks for none of them", func(t *testing.T, b *broker) {
		tp := b.topic(t, 2)
		req := kmsg.NewPtrDescribeLogDirsRequest()
		one := kmsg.NewDescribeLogDirsRequestTopic()
		one.Topic = tp.name
		req.Topics = append(req.Topics, one)
		for _, dir := range Ask[*kmsg.DescribeLogDirsResponse](b.dial(t), 4, req).Dirs {
			want(t, "topics", len(dir.Topics), 0)
		}
	}},
	{"§3.11", "Settings of a broker: those of its listeners cannot change while it runs, another broker's are refused", func(t *testing.T, b *broker) {
		c := b.dial(t)
		change := func(broker, key, value string) int16 {
			req := incrementalRequest(broker, operation(key, kmsg.IncrementalAlterConfigOpSet, &value))
			req.Resources[0].ResourceType = kmsg.ConfigResourceTypeBroker
			return Ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, req).Resources[0].ErrorCode
		}
		wantCode(t, "listeners", change("1", "listeners", "garbage"), kerr.InvalidRequest)
		wantCode(t, "advertised.listeners", change("1", "advertised.listeners", "PLAINTEXT://x:1"), kerr.InvalidRequest)
		wantCode(t, "another broker", change("77", "background.threads", "12"), kerr.InvalidRequest)
		got := describedResource(c, kmsg.ConfigResourceTypeBroker, "1", "listeners", "advertised.listeners", "log.dirs")
		for _, name := range []string{"listeners", "log.dirs"} {
			if config := got[name]; config.Value == nil || *config.Value == "" {
				t.Errorf("%s has no value: %s", name, configLine(config))
			}
		}
	}},
	{"§1", "DescribeAcls, CreateAcls, DeleteAcls: SECURITY_DISABLED without an authorizer", func(t *testing.T, b *broker) {
		c := b.dial(t)
		for version := int16(1); version <= 3; version++ {
			describe := kmsg.NewPtrDescribeACLsRequest()
			describe.ResourceType, describe.ResourcePatternType, describe.Operation, describe.PermissionType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny, kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
			wantCode(t, "describe", Ask[*kmsg.DescribeACLsResponse](c, version, describe).ErrorCode, kerr.SecurityDisabled)
			creation := kmsg.NewCreateACLsRequestCreation()
			creation.ResourceType, creation.ResourceName, creation.ResourcePatternType = kmsg.ACLResourceTypeTopic, "t", kmsg.ACLResourcePatternTypeLiteral
			creation.Principal, creation.Host, creation.Operation, creation.PermissionType = "User:u", "*", kmsg.ACLOperationRead, kmsg.ACLPermissionTypeAllow
			create := kmsg.NewPtrCreateACLsRequest()
			create.Creations = append(create.Creations, creation)
			for _, r := range Ask[*kmsg.CreateACLsResponse](c, version, create).Results {
				wantCode(t, "create", r.ErrorCode, kerr.SecurityDisabled)
			}
			filter := kmsg.NewDeleteACLsRequestFilter()
			filter.ResourceType, filter.ResourcePatternType, filter.Operation, filter.PermissionType = kmsg.ACLResourceTypeAny, kmsg.ACLResourcePatternTypeAny, kmsg.ACLOperationAny, kmsg.ACLPermissionTypeAny
			remove := kmsg.NewPtrDeleteACLsRequest()
			remove.Filters = append(remove.Filters, filter)
			for _, r := range Ask[*kmsg.DeleteACLsResponse](c, version, remove).Results {
				wantCode(t, "delete", r.ErrorCode, kerr.SecurityDisabled)
			}
		}
	}},
	{"§1", "DescribeQuorum: consoles tell a cluster of 4.x by it", func(t *testing.T, b *broker) {
		req := kmsg.NewPtrDescribeQuorumRequest()
		rt := kmsg.NewDescribeQuorumRequestTopic()
		rt.Topic = "__cluster_metadata"
		rt.Partitions = append(rt.Partitions, kmsg.NewDescribeQuorumRequestTopicPartition())
		req.Topics = append(req.Topics, rt)
		for version := int16(0); version <= 2; version++ {
			resp := Ask[*kmsg.DescribeQuorumResponse](b.dial(t), version, req)
			wantCode(t, "answer", resp.ErrorCode, nil)
			p := resp.Topics[0].Partitions[0]
			wantCode(t, "partition", p.ErrorCode, nil)
			if p.LeaderID != 1 || p.HighWatermark <= 0 || len(p.CurrentVoters) != 1 || p.CurrentVoters[0].ReplicaID != 1 || p.CurrentVoters[0].LogEndOffset < p.HighWatermark {
				t.Errorf("v%d: %+v", version, p)
			}
			if version == 2 && (len(resp.Nodes) != 1 || resp.Nodes[0].NodeID != 1 || len(resp.Nodes[0].Listeners) == 0) {
				t.Errorf("nodes %+v", resp.Nodes)
			}
		}
	}},
	{"§3.11", "DescribeTopicPartitions: at least one partition whatever the limit, and a cursor's topic must be among those asked for", func(t *testing.T, b *broker) {
		tp := b.topic(t, 3)
		req := kmsg.NewPtrDescribeTopicPartitionsRequest()
		rt := kmsg.NewDescribeTopicPartitionsRequestTopic()
		rt.Topic = tp.name
		req.Topics = append(req.Topics, rt)
		for _, limit := range []int32{0, -1, 1} {
			req.ResponsePartitionLimit = limit
			want(t, fmt.Sprint("partitions with limit ", limit), len(Ask[*kmsg.DescribeTopicPartitionsResponse](b.dial(t), 0, req).Topics[0].Partitions), 1)
		}
		req.Cursor = &kmsg.DescribeTopicPartitionsRequestCursor{Topic: tp.name + "x"}
		wantCode(t, "a cursor elsewhere", Ask[*kmsg.DescribeTopicPartitionsResponse](b.dial(t), 0, req).Topics[0].ErrorCode, kerr.InvalidRequest)
	}},
}
