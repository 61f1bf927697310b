package protocol

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// served is one key with the versions that are answered, and a request of it that succeeds.
type served struct {
	key      int16
	min, max int16
	request  func(t *testing.T, b *broker, version int16) kmsg.Request
}

// table is §1 for the keys of one broker without groups and transactions.
var table = []served{
	{0, 3, 13, func(t *testing.T, b *broker, _ int16) kmsg.Request {
		return produceRequest(b.topic(t, 1), 0, -1, batch(t, "a", "b"))
	}},
	{1, 4, 18, func(t *testing.T, b *broker, _ int16) kmsg.Request {
		tp := b.topic(t, 2)
		fill(t, b.dial(t), tp, 1, "a", "b")
		return fetchRequest(wanted{topic: tp}, wanted{topic: tp, partition: 1})
	}},
	{2, 1, 11, func(t *testing.T, b *broker, _ int16) kmsg.Request {
		tp := b.topic(t, 1)
		fill(t, b.dial(t), tp, 0, "a", "b")
		return listRequest(tp, 0, -2)
	}},
	{3, 0, 13, func(t *testing.T, b *broker, version int16) kmsg.Request {
		return metadataRequest(b.topic(t, 2).name)
	}},
	{18, 0, 4, func(*testing.T, *broker, int16) kmsg.Request {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion = "suite", "1"
		return req
	}},
	{19, 2, 7, func(*testing.T, *broker, int16) kmsg.Request {
		req := kmsg.NewPtrCreateTopicsRequest()
		req.Topics = append(req.Topics, newTopic(freshName(), 2, 1, "retention.ms=1000000"))
		return req
	}},
	{20, 1, 6, func(t *testing.T, b *broker, _ int16) kmsg.Request {
		return deleteRequest(b.topic(t, 1).name)
	}},
	{21, 0, 2, func(t *testing.T, b *broker, _ int16) kmsg.Request {
		tp := b.topic(t, 1)
		fill(t, b.dial(t), tp, 0, "a", "b")
		return deleteRecordsRequest(tp, 0, 1)
	}},
	{22, 0, 5, func(*testing.T, *broker, int16) kmsg.Request { return kmsg.NewPtrInitProducerIDRequest() }},
	{23, 2, 4, func(t *testing.T, b *broker, _ int16) kmsg.Request {
		tp := b.topic(t, 1)
		fill(t, b.dial(t), tp, 0, "a", "b")
		return epochRequest(tp, 0, 0)
	}},
	{32, 1, 4, func(t *testing.T, b *broker, _ int16) kmsg.Request {
		return describeConfigsRequest(kmsg.ConfigResourceTypeTopic, b.topic(t, 1).name)
	}},
	{33, 0, 2, func(t *testing.T, b *broker, _ int16) kmsg.Request {
		return alterConfigsRequest(b.topic(t, 1).name, "retention.ms=5000")
	}},
	{35, 1, 5, func(*testing.T, *broker, int16) kmsg.Request { return kmsg.NewPtrDescribeLogDirsRequest() }},
	{37, 0, 3, func(t *testing.T, b *broker, _ int16) kmsg.Request {
		return createPartitionsRequest(b.topic(t, 1).name, 3)
	}},
	{43, 0, 2, func(t *testing.T, b *broker, _ int16) kmsg.Request {
		req := kmsg.NewPtrElectLeadersRequest() // all partitions: those that need no election are left out
		req.TimeoutMillis = 15_000
		return req
	}},
	{44, 0, 1, func(t *testing.T, b *broker, _ int16) kmsg.Request {
		return incrementalRequest(b.topic(t, 1).name, set("retention.ms", "5000"))
	}},
	{45, 0, 1, func(t *testing.T, b *broker, _ int16) kmsg.Request {
		return reassignRequest(b.topic(t, 1).name, 0, []int32{1})
	}},
	{46, 0, 0, func(*testing.T, *broker, int16) kmsg.Request { return kmsg.NewPtrListPartitionReassignmentsRequest() }},
	{48, 0, 1, func(*testing.T, *broker, int16) kmsg.Request {
		return describeQuotasRequest(false, matching("user", kmsg.QuotasMatchTypeAny))
	}},
	{49, 0, 1, func(*testing.T, *broker, int16) kmsg.Request {
		return alterQuotasRequest(entity("user="+freshName()), limit("producer_byte_rate", 1000))
	}},
	{60, 0, 2, func(*testing.T, *broker, int16) kmsg.Request { return describeClusterRequest() }},
	{74, 0, 1, func(*testing.T, *broker, int16) kmsg.Request { return listResourcesRequest() }},
	{75, 0, 0, func(t *testing.T, b *broker, _ int16) kmsg.Request {
		return describePartitionsRequest(b.topic(t, 2).name)
	}},
}

// versionRules are one rule for each key, and the table itself.
var versionRules = func() []rule {
	rules := []rule{
		{"§1", "the advertised ranges are Kafka's", checkRanges},
		{"§1", "FindCoordinator answers in each of its versions, 0 to 6", checkFindCoordinator},
	}
	for _, s := range table {
		text := fmt.Sprintf("%s answers in each of its versions, %d to %d", kmsg.NameForKey(s.key), s.min, s.max)
		rules = append(rules, rule{"§1", text, func(t *testing.T, b *broker) {
			for version := s.min; version <= s.max; version++ {
				req := s.request(t, b, version)
				req.SetVersion(version)
				c := b.dial(t)
				c.Send(req)
				wantNoErrors(t, fmt.Sprintf("%s v%d", kmsg.NameForKey(s.key), version), c.Receive(req))
			}
		}})
	}
	return rules
}()

// checkRanges holds the answer of ApiVersions against the table, in each of its versions.
func checkRanges(t *testing.T, b *broker) {
	c := b.dial(t)
	for version := range int16(5) {
		req := kmsg.NewPtrApiVersionsRequest()
		req.ClientSoftwareName, req.ClientSoftwareVersion = "suite", "1"
		got := map[int16][2]int16{}
		for _, k := range Ask[*kmsg.ApiVersionsResponse](c, version, req).ApiKeys {
			if _, twice := got[k.ApiKey]; twice {
				t.Errorf("key %d is in the answer twice", k.ApiKey)
			}
			got[k.ApiKey] = [2]int16{k.MinVersion, k.MaxVersion}
		}
		wanted := map[int16][2]int16{10: {0, 6}}
		for _, s := range table {
			wanted[s.key] = [2]int16{s.min, s.max}
		}
		wanted[0] = [2]int16{0, 13} // §2.1: librdkafka before 2.11.1 would send uncompressed
		for key, versions := range wanted {
			if got[key] != versions {
				t.Errorf("ApiVersions v%d: %s %v, want %v", version, kmsg.NameForKey(key), got[key], versions)
			}
		}
		for _, hidden := range []int16{4, 5, 6, 7, 71, 72} {
			if _, there := got[hidden]; there {
				t.Errorf("ApiVersions v%d advertises %s", version, kmsg.NameForKey(hidden))
			}
		}
	}
}

// checkFindCoordinator accepts a coordinator, or that there is none yet: Kafka makes the partitions of its internal topics at the
// first request, and a broker without groups answers the same for ever.
func checkFindCoordinator(t *testing.T, b *broker) {
	c := b.dial(t)
	for version := range int16(7) {
		for kind := range int8(2) {
			if kind == 1 && version == 0 {
				continue // version 0 has groups alone
			}
			req := kmsg.NewPtrFindCoordinatorRequest()
			req.CoordinatorKey, req.CoordinatorType, req.CoordinatorKeys = "a", kind, []string{"a"}
			resp := Ask[*kmsg.FindCoordinatorResponse](c, version, req)
			code, node := resp.ErrorCode, resp.NodeID
			if version >= 4 {
				if len(resp.Coordinators) != 1 || resp.Coordinators[0].Key != "a" {
					t.Fatalf("v%d: coordinators %+v, want one of key a", version, resp.Coordinators)
				}
				code, node = resp.Coordinators[0].ErrorCode, resp.Coordinators[0].NodeID
			}
			switch code {
			case 0:
				want(t, "coordinator of a cluster of one", node, 1)
			case kerr.CoordinatorNotAvailable.Code:
				want(t, "node of no coordinator", node, -1)
			default:
				t.Errorf("FindCoordinator v%d of type %d: %s, want a coordinator or COORDINATOR_NOT_AVAILABLE", version, kind, codeName(code))
			}
		}
	}
	req := kmsg.NewPtrFindCoordinatorRequest()
	req.CoordinatorType, req.CoordinatorKeys = 9, []string{"a"}
	resp := Ask[*kmsg.FindCoordinatorResponse](c, 4, req)
	code := resp.ErrorCode
	if len(resp.Coordinators) > 0 {
		code = resp.Coordinators[0].ErrorCode
	}
	wantCode(t, "a type that is not there", code, kerr.InvalidRequest)
}
