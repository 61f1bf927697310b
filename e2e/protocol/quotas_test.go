package protocol

import (
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/e2e/harness"
)

// entity is who a quota is for: user=a, client-id=b, ip=c; user alone is the default of users.
func entity(parts ...string) []kmsg.AlterClientQuotasRequestEntryEntity {
	var all []kmsg.AlterClientQuotasRequestEntryEntity
	for _, part := range parts {
		one := kmsg.NewAlterClientQuotasRequestEntryEntity()
		kind, name, named := strings.Cut(part, "=")
		if one.Type = kind; named {
			one.Name = &name
		}
		all = append(all, one)
	}
	return all
}

func limit(key string, value float64) kmsg.AlterClientQuotasRequestEntryOp {
	op := kmsg.NewAlterClientQuotasRequestEntryOp()
	op.Key, op.Value = key, value
	return op
}

func noLimit(key string) kmsg.AlterClientQuotasRequestEntryOp {
	op := kmsg.NewAlterClientQuotasRequestEntryOp()
	op.Key, op.Remove = key, true
	return op
}

func alterQuotasRequest(who []kmsg.AlterClientQuotasRequestEntryEntity, ops ...kmsg.AlterClientQuotasRequestEntryOp) *kmsg.AlterClientQuotasRequest {
	req := kmsg.NewPtrAlterClientQuotasRequest()
	one := kmsg.NewAlterClientQuotasRequestEntry()
	one.Entity, one.Ops = who, ops
	req.Entries = append(req.Entries, one)
	return req
}

// matching is one component of a filter.
func matching(kind string, match kmsg.QuotasMatchType, name ...string) kmsg.DescribeClientQuotasRequestComponent {
	c := kmsg.NewDescribeClientQuotasRequestComponent()
	c.EntityType, c.MatchType = kind, match
	if len(name) > 0 {
		c.Match = &name[0]
	}
	return c
}

func describeQuotasRequest(strict bool, components ...kmsg.DescribeClientQuotasRequestComponent) *kmsg.DescribeClientQuotasRequest {
	req := kmsg.NewPtrDescribeClientQuotasRequest()
	req.Components, req.Strict = components, strict
	return req
}

// quotas are the limits that a filter finds, as "type=name type=name: key".
func quotas(c *Conn, version int16, req *kmsg.DescribeClientQuotasRequest) map[string]float64 {
	c.t.Helper()
	resp := Ask[*kmsg.DescribeClientQuotasResponse](c, version, req)
	wantCode(c.t, "describe quotas", resp.ErrorCode, nil)
	if resp.Entries == nil {
		c.t.Error("the entries are null, which Java's admin client takes for an error")
	}
	found := map[string]float64{}
	for _, e := range resp.Entries {
		names := map[string]string{}
		for _, part := range e.Entity {
			names[part.Type] = part.Type
			if part.Name != nil {
				names[part.Type] += "=" + *part.Name
			}
		}
		var who []string
		for _, kind := range []string{"user", "client-id", "ip"} {
			if name, ok := names[kind]; ok {
				who = append(who, name)
			}
		}
		for _, v := range e.Values {
			found[strings.Join(who, " ")+": "+v.Key] = v.Value
		}
	}
	return found
}

// setQuota sets limits, and returns when the broker shows them: Kafka answers before its brokers know.
func (b *broker) setQuota(t *testing.T, clientID string, ops ...kmsg.AlterClientQuotasRequestEntryOp) {
	t.Helper()
	c := b.dial(t)
	wantNoErrors(t, "alter quotas", Ask[*kmsg.AlterClientQuotasResponse](c, 1, alterQuotasRequest(entity("client-id="+clientID), ops...)))
	b.awaitQuotas(t, describeQuotasRequest(true, matching("client-id", kmsg.QuotasMatchTypeExact, clientID)), func(got map[string]float64) bool { return len(got) == len(ops) })
}

func (b *broker) awaitQuotas(t *testing.T, req *kmsg.DescribeClientQuotasRequest, fine func(map[string]float64) bool) {
	t.Helper()
	c := b.dial(t)
	harness.Until(t, answerLimit, "the quotas are in force", func() error {
		if got := quotas(c, 1, req); !fine(got) {
			return fmt.Errorf("they are %v", got)
		}
		return nil
	})
}

var quotaRules = []rule{
	{"§3.11", "Quotas (KIP-546): entities user, client-id, ip (null name = default); what is set is described back, by filter", func(t *testing.T, b *broker) {
		u, id := freshName(), freshName()
		c := b.dial(t)
		for i, who := range [][]string{{"user=" + u}, {"user=" + u, "client-id"}, {"user=" + u, "client-id=" + id}, {"client-id=" + id}} {
			for version := range int16(2) {
				wantNoErrors(t, "alter", Ask[*kmsg.AlterClientQuotasResponse](c, version, alterQuotasRequest(entity(who...), limit("producer_byte_rate", 1000+float64(i)), limit("request_percentage", 12.5))))
			}
		}
		const exact, fallback, any = kmsg.QuotasMatchTypeExact, kmsg.QuotasMatchTypeDefault, kmsg.QuotasMatchTypeAny
		b.awaitQuotas(t, describeQuotasRequest(true, matching("client-id", exact, id)), func(got map[string]float64) bool { return len(got) == 2 })
		alone, both, default_, client := "user="+u, "user="+u+" client-id="+id, "user="+u+" client-id", "client-id="+id
		for _, s := range []struct {
			strict     bool
			components []kmsg.DescribeClientQuotasRequestComponent
			who        []string
		}{
			{false, []kmsg.DescribeClientQuotasRequestComponent{matching("user", exact, u)}, []string{alone, both, default_}},
			{true, []kmsg.DescribeClientQuotasRequestComponent{matching("user", exact, u)}, []string{alone}},
			{false, []kmsg.DescribeClientQuotasRequestComponent{matching("client-id", exact, id)}, []string{both, client}},
			{true, []kmsg.DescribeClientQuotasRequestComponent{matching("user", exact, u), matching("client-id", fallback)}, []string{default_}},
			{true, []kmsg.DescribeClientQuotasRequestComponent{matching("user", exact, u), matching("client-id", any)}, []string{both, default_}},
			{false, []kmsg.DescribeClientQuotasRequestComponent{matching("user", exact, freshName())}, nil},
			{true, nil, nil},
		} {
			for version := range int16(2) {
				who := map[string]bool{}
				for key := range quotas(c, version, describeQuotasRequest(s.strict, s.components...)) {
					name, _, _ := strings.Cut(key, ":")
					who[name] = true
				}
				wanted := map[string]bool{}
				for _, name := range s.who {
					wanted[name] = true
				}
				if !maps.Equal(who, wanted) {
					t.Errorf("filter %+v, strict %v: %v, want %v", s.components, s.strict, who, wanted)
				}
			}
		}
		got := quotas(c, 1, describeQuotasRequest(true, matching("user", exact, u)))
		if !maps.Equal(got, map[string]float64{alone + ": producer_byte_rate": 1000, alone + ": request_percentage": 12.5}) {
			t.Errorf("limits of %s: %v", alone, got)
		}
		wantNoErrors(t, "remove", Ask[*kmsg.AlterClientQuotasResponse](c, 1, alterQuotasRequest(entity("user="+u), noLimit("producer_byte_rate"), noLimit("request_percentage"))))
		b.awaitQuotas(t, describeQuotasRequest(true, matching("user", exact, u)), func(got map[string]float64) bool { return len(got) == 0 })
	}},
	{"§3.11", "Quotas: keys producer_byte_rate, consumer_byte_rate, request_percentage, controller_mutation_rate, and connection_creation_rate for ip; other keys, values and entities are INVALID_REQUEST", func(t *testing.T, b *broker) {
		c := b.dial(t)
		u := "user=" + freshName()
		for _, s := range []struct {
			who  []string
			op   kmsg.AlterClientQuotasRequestEntryOp
			code *kerr.Error
		}{
			{[]string{u}, limit("producer_byte_rate", 1), nil}, {[]string{u}, limit("consumer_byte_rate", 1), nil}, {[]string{u}, limit("request_percentage", 0.5), nil},
			{[]string{u}, limit("controller_mutation_rate", 0.5), nil}, {[]string{"ip=10.1.2.3"}, limit("connection_creation_rate", 100), nil}, {[]string{u}, noLimit("no_such_key"), nil},
			{[]string{u}, limit("no_such_key", 1), kerr.InvalidRequest}, {[]string{u}, limit("connection_creation_rate", 1), kerr.InvalidRequest},
			{[]string{"ip=10.1.2.3"}, limit("producer_byte_rate", 1), kerr.InvalidRequest}, {[]string{"ip=10.1.2.3", u}, limit("connection_creation_rate", 1), kerr.InvalidRequest},
			{[]string{"ip=no such address"}, limit("connection_creation_rate", 1), kerr.InvalidRequest}, {[]string{"ip=10.1.2.3"}, limit("connection_creation_rate", 1.5), kerr.InvalidRequest},
			{[]string{u}, limit("producer_byte_rate", 0), kerr.InvalidRequest}, {[]string{u}, limit("producer_byte_rate", -1), kerr.InvalidRequest},
			{[]string{u}, limit("producer_byte_rate", 1.5), kerr.InvalidRequest}, {[]string{u}, limit("consumer_byte_rate", math.Inf(1)), kerr.InvalidRequest},
			{nil, limit("producer_byte_rate", 1), kerr.InvalidRequest}, {[]string{"tenant=a"}, limit("producer_byte_rate", 1), kerr.InvalidRequest}, {[]string{"user="}, limit("producer_byte_rate", 1), kerr.InvalidRequest},
		} {
			got := Ask[*kmsg.AlterClientQuotasResponse](c, 1, alterQuotasRequest(entity(s.who...), s.op)).Entries[0]
			wantCode(t, fmt.Sprintf("%v %s %v", s.who, s.op.Key, s.op.Value), got.ErrorCode, s.code)
			want(t, "entity in the answer", len(got.Entity), len(s.who))
			if s.code != nil && (got.ErrorMessage == nil || *got.ErrorMessage == "") {
				t.Errorf("%v %s has no message", s.who, s.op.Key)
			}
		}
		twice := alterQuotasRequest(entity(u), limit("producer_byte_rate", 1), limit("producer_byte_rate", 2))
		wantCode(t, "key twice", Ask[*kmsg.AlterClientQuotasResponse](c, 1, twice).Entries[0].ErrorCode, kerr.InvalidRequest)
		dry := alterQuotasRequest(entity("user="+freshName()), limit("producer_byte_rate", 1))
		dry.ValidateOnly = true
		wantNoErrors(t, "validate only", Ask[*kmsg.AlterClientQuotasResponse](c, 1, dry))
		name := *dry.Entries[0].Entity[0].Name
		want(t, "quotas after validating", len(quotas(c, 1, describeQuotasRequest(false, matching("user", kmsg.QuotasMatchTypeExact, name)))), 0)
	}},
	{"§3.11", "DescribeClientQuotas: a filter that cannot be is INVALID_REQUEST, an entity type that is not there UNSUPPORTED_VERSION", func(t *testing.T, b *broker) {
		c := b.dial(t)
		for _, s := range []struct {
			components []kmsg.DescribeClientQuotasRequestComponent
			code       *kerr.Error
		}{
			{[]kmsg.DescribeClientQuotasRequestComponent{matching("user", kmsg.QuotasMatchTypeExact)}, kerr.InvalidRequest},
			{[]kmsg.DescribeClientQuotasRequestComponent{matching("user", kmsg.QuotasMatchTypeDefault, "x")}, kerr.InvalidRequest},
			{[]kmsg.DescribeClientQuotasRequestComponent{matching("user", kmsg.QuotasMatchTypeAny, "x")}, kerr.InvalidRequest},
			{[]kmsg.DescribeClientQuotasRequestComponent{matching("user", 9)}, kerr.InvalidRequest},
			{[]kmsg.DescribeClientQuotasRequestComponent{matching("", kmsg.QuotasMatchTypeAny)}, kerr.InvalidRequest},
			{[]kmsg.DescribeClientQuotasRequestComponent{matching("user", kmsg.QuotasMatchTypeAny), matching("user", kmsg.QuotasMatchTypeAny)}, kerr.InvalidRequest},
			{[]kmsg.DescribeClientQuotasRequestComponent{matching("user", kmsg.QuotasMatchTypeAny), matching("ip", kmsg.QuotasMatchTypeAny)}, kerr.InvalidRequest},
			{[]kmsg.DescribeClientQuotasRequestComponent{matching("tenant", kmsg.QuotasMatchTypeAny)}, kerr.UnsupportedVersion},
		} {
			got := Ask[*kmsg.DescribeClientQuotasResponse](c, 1, describeQuotasRequest(false, s.components...))
			wantCode(t, fmt.Sprintf("%+v", s.components), got.ErrorCode, s.code)
		}
	}},
	{"§3.11", "Throttling: Produce is answered immediately with ThrottleTimeMs, then the channel is muted for that time (KIP-219)", func(t *testing.T, b *broker) {
		tp, id := b.topic(t, 1), freshName()
		b.setQuota(t, id, limit("producer_byte_rate", 2000))
		// Ten windows of a second may be used up at once; what is beyond is waited for at the rate of the quota.
		first := Ask[*kmsg.ProduceResponse](DialAs(t, b.addr, id), 9, produceRequest(tp, 0, -1, batch(t, string(make([]byte, 10_000)))))
		wantNoErrors(t, "the first", first)
		want(t, "throttle within the quota", first.ThrottleMillis, 0)
		c := DialAs(t, b.addr, id)
		began := time.Now()
		second := Ask[*kmsg.ProduceResponse](c, 9, produceRequest(tp, 0, -1, batch(t, string(make([]byte, 11_000)))))
		wantNoErrors(t, "the second", second)
		throttle := time.Duration(second.ThrottleMillis) * time.Millisecond
		if throttle <= 0 || throttle > 2*time.Second {
			t.Errorf("throttle %v of some 1100 bytes beyond the quota, want up to a second", throttle)
		}
		want(t, "latest", listOffset(c, 7, tp, 0, latest).Offset, 2)
		if took := time.Since(began); took < throttle {
			t.Errorf("the next request was answered after %v, the throttle was %v", took, throttle)
		}
	}},
	{"§3.11", "Throttling: Fetch over quota returns an empty response; the session epoch still advances", func(t *testing.T, b *broker) {
		tp, id := b.topic(t, 1), freshName()
		fill(t, b.dial(t), tp, 0, kilobyte("a"), kilobyte("b"), kilobyte("c"), kilobyte("d"), kilobyte("e"), kilobyte("f"))
		b.setQuota(t, id, limit("consumer_byte_rate", 200)) // 2000 bytes at once
		session := fetchRequest(wanted{topic: tp, max: 1})  // a batch at a time
		session.SessionEpoch = 0
		first := Ask[*kmsg.FetchResponse](DialAs(t, b.addr, id), 11, session)
		wantCode(t, "a session", first.ErrorCode, nil)
		if first.SessionID == 0 || first.ThrottleMillis > 0 || len(first.Topics) != 1 || len(first.Topics[0].Partitions[0].RecordBatches) == 0 {
			t.Fatalf("the first fetch: session %d, throttle %d, %d topics; want a session with records", first.SessionID, first.ThrottleMillis, len(first.Topics))
		}
		for epoch := int32(1); epoch < 10; epoch++ { // each on a connection of its own: one that was throttled is muted
			next := fetchRequest()
			next.SessionID, next.SessionEpoch = first.SessionID, epoch
			got := Ask[*kmsg.FetchResponse](DialAs(t, b.addr, id), 11, next)
			wantCode(t, fmt.Sprintf("epoch %d", epoch), got.ErrorCode, nil)
			if got.ThrottleMillis == 0 {
				continue
			}
			want(t, "topics of a throttled fetch", len(got.Topics), 0)
			want(t, "its session", got.SessionID, first.SessionID)
			again := fetchRequest()
			again.SessionID, again.SessionEpoch = first.SessionID, epoch+1
			wantCode(t, "the epoch after it", Ask[*kmsg.FetchResponse](DialAs(t, b.addr, id), 11, again).ErrorCode, nil)
			alone := Ask[*kmsg.FetchResponse](DialAs(t, b.addr, id), 11, fetchRequest(wanted{topic: tp}))
			if alone.ThrottleMillis == 0 || len(alone.Topics) != 0 {
				t.Errorf("a fetch without a session: throttle %d, %d topics; want a throttle and none", alone.ThrottleMillis, len(alone.Topics))
			}
			return
		}
		t.Error("no fetch was throttled")
	}},
	{"§3.11", "Throttling: CreateTopics v6+/DeleteTopics v5+/CreatePartitions v3+ → THROTTLING_QUOTA_EXCEEDED (89)", func(t *testing.T, b *broker) {
		id := freshName()
		b.setQuota(t, id, limit("controller_mutation_rate", 1)) // eleven at once
		request := func(version int16) *kmsg.CreateTopicsResponse {
			req := kmsg.NewPtrCreateTopicsRequest()
			req.Topics, req.TimeoutMillis = append(req.Topics, newTopic(freshName(), 60, 1)), 15_000
			return Ask[*kmsg.CreateTopicsResponse](DialAs(t, b.addr, id), version, req)
		}
		made := request(7)
		wantCode(t, "the first, on credit", made.Topics[0].ErrorCode, nil)
		want(t, "its throttle", made.ThrottleMillis, 0)
		for version := int16(6); version <= 7; version++ {
			got := request(version)
			wantCode(t, fmt.Sprintf("create v%d", version), got.Topics[0].ErrorCode, kerr.ThrottlingQuotaExceeded)
			want(t, "a throttle", got.ThrottleMillis > 0, true)
		}
		name := made.Topics[0].Topic
		grown := Ask[*kmsg.CreatePartitionsResponse](DialAs(t, b.addr, id), 3, createPartitionsRequest(name, 61))
		wantCode(t, "create partitions v3", grown.Topics[0].ErrorCode, kerr.ThrottlingQuotaExceeded)
		gone := Ask[*kmsg.DeleteTopicsResponse](DialAs(t, b.addr, id), 5, deleteRequest(name))
		wantCode(t, "delete v5", gone.Topics[0].ErrorCode, kerr.ThrottlingQuotaExceeded)
		gone = Ask[*kmsg.DeleteTopicsResponse](DialAs(t, b.addr, id), 4, deleteRequest(name))
		wantCode(t, "delete v4, which does not know the error", gone.Topics[0].ErrorCode, nil)
		want(t, "its throttle", gone.ThrottleMillis > 0, true)
		wantCode(t, "another client", create(b.dial(t), 7, false, newTopic(name+"-other", 20, 1))[name+"-other"].ErrorCode, nil)
	}},
}
