package protocol

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/e2e/harness"
)

func describeConfigsRequest(kind kmsg.ConfigResourceType, name string, keys ...string) *kmsg.DescribeConfigsRequest {
	req := kmsg.NewPtrDescribeConfigsRequest()
	one := kmsg.NewDescribeConfigsRequestResource()
	one.ResourceType, one.ResourceName, one.ConfigNames = kind, name, keys
	req.Resources = append(req.Resources, one)
	req.IncludeSynonyms, req.IncludeDocumentation = true, true
	return req
}

// described returns the configs of a topic by name.
func described(c *Conn, tp topic, keys ...string) map[string]kmsg.DescribeConfigsResponseResourceConfig {
	c.t.Helper()
	return describedResource(c, kmsg.ConfigResourceTypeTopic, tp.name, keys...)
}

func describedResource(c *Conn, kind kmsg.ConfigResourceType, name string, keys ...string) map[string]kmsg.DescribeConfigsResponseResourceConfig {
	c.t.Helper()
	one := Ask[*kmsg.DescribeConfigsResponse](c, 4, describeConfigsRequest(kind, name, keys...)).Resources[0]
	wantCode(c.t, "describe configs of "+name, one.ErrorCode, nil)
	all := map[string]kmsg.DescribeConfigsResponseResourceConfig{}
	for _, config := range one.Configs {
		all[config.Name] = config
	}
	return all
}

// awaitConfig returns when the broker has the value in force: Kafka answers an alteration before its brokers know it.
func (b *broker) awaitConfig(t *testing.T, tp topic, name, value string) {
	t.Helper()
	c := b.dial(t)
	harness.Until(t, answerLimit, name+" is "+value, func() error {
		if got := described(c, tp, name)[name]; got.Value == nil || *got.Value != value {
			return fmt.Errorf("it is %+v", got)
		}
		return nil
	})
}

// configLine is what is compared of a config: name, type, source, flags, value and synonyms.
func configLine(c kmsg.DescribeConfigsResponseResourceConfig) string {
	value := "null"
	if c.Value != nil {
		value = *c.Value
	}
	line := fmt.Sprintf("%s %s %s %q", c.Name, c.ConfigType, c.Source, value)
	if c.ReadOnly {
		line += " read-only"
	}
	if c.IsSensitive {
		line += " sensitive"
	}
	for _, s := range c.ConfigSynonyms {
		value := "null"
		if s.Value != nil {
			value = *s.Value
		}
		line += fmt.Sprintf(" | %s %s %q", s.Name, s.Source, value)
	}
	return line
}

var update = flag.Bool("update", false, "write the golden file of topic configs anew from what Kafka answers")

// acceptedTopicConfigs are the lines in which everlog's topic configs differ from Kafka's, each for a reason.
var acceptedTopicConfigs = map[string]string{
	// A segment is the unit of shipping: 128 MiB, so that the store is never far behind (DESIGN.md §6).
	"segment.bytes": `segment.bytes INT DEFAULT_CONFIG "134217728" | log.segment.bytes DEFAULT_CONFIG "134217728"`,
	// Tiering is on for every topic (DESIGN.md §6).
	// Kafka sets the cluster's default for eligible leader replicas, which everlog has not.
	"min.insync.replicas":   `min.insync.replicas INT DEFAULT_CONFIG "1" | min.insync.replicas DEFAULT_CONFIG "1"`,
	"remote.storage.enable": `remote.storage.enable BOOLEAN DEFAULT_CONFIG "true"`,
}

var describeConfigsRules = []rule{
	{"§3.11", "DescribeConfigs returns every key of a topic with its effective value, source, type and synonyms", func(t *testing.T, b *broker) {
		got := map[string]string{}
		for name, config := range described(b.dial(t), b.topic(t, 1)) {
			got[name] = configLine(config)
		}
		golden := filepath.Join("testdata", "topic-configs-4.3.1.txt")
		if b.kafka && *update {
			lines := strings.Join(slices.Sorted(maps.Values(got)), "\n") + "\n"
			if err := os.WriteFile(golden, []byte(lines), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		text, err := os.ReadFile(golden)
		if err != nil {
			t.Fatal(err)
		}
		wanted := map[string]string{}
		for line := range strings.Lines(string(text)) {
			name, _, _ := strings.Cut(line, " ")
			wanted[name] = strings.TrimSpace(line)
		}
		if !b.kafka {
			maps.Copy(wanted, acceptedTopicConfigs)
		}
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("configs of a topic (-want +got):\n%s", diff)
		}
	}},
	{"§3.11", "DescribeConfigs: source of a topic's own value is 1, and the synonyms are its chain", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "retention.bytes=555", "cleanup.policy=compact,delete")
		got := described(b.dial(t), tp, "retention.bytes", "cleanup.policy")
		want(t, "keys: only those asked for", len(got), 2)
		for name, line := range map[string]string{
			"retention.bytes": `retention.bytes LONG DYNAMIC_TOPIC_CONFIG "555" | retention.bytes DYNAMIC_TOPIC_CONFIG "555" | log.retention.bytes DEFAULT_CONFIG "-1"`,
			"cleanup.policy":  `cleanup.policy LIST DYNAMIC_TOPIC_CONFIG "compact,delete" | cleanup.policy DYNAMIC_TOPIC_CONFIG "compact,delete" | log.cleanup.policy DEFAULT_CONFIG "delete"`,
		} {
			want(t, name, configLine(got[name]), line)
		}
	}},
	{"§3.11", "DescribeConfigs: synonyms and documentation only if asked; types from v3", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		for version := int16(1); version <= 4; version++ {
			for _, asked := range []bool{false, true} {
				req := describeConfigsRequest(kmsg.ConfigResourceTypeTopic, tp.name, "retention.bytes")
				req.IncludeSynonyms, req.IncludeDocumentation = asked, asked
				got := Ask[*kmsg.DescribeConfigsResponse](c, version, req).Resources[0].Configs[0]
				want(t, "synonyms", len(got.ConfigSynonyms) > 0, asked)
				if version >= 3 {
					want(t, "documentation", got.Documentation != nil && *got.Documentation != "", asked)
					want(t, "type", got.ConfigType, kmsg.ConfigTypeLong)
				}
			}
		}
	}},
	{"§3.11", "DescribeConfigs: an unknown key is left out, an empty list is no keys in Kafka's words: all; unknown topic: UNKNOWN_TOPIC_OR_PARTITION", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		want(t, "unknown key", len(described(c, tp, "no.such.config")), 0)
		req := describeConfigsRequest(kmsg.ConfigResourceTypeTopic, tp.name)
		req.Resources[0].ConfigNames = []string{}
		all := len(Ask[*kmsg.DescribeConfigsResponse](c, 4, req).Resources[0].Configs)
		want(t, "an empty list of keys gives all", all > 25, true)
		for name, code := range map[string]*kerr.Error{freshName(): kerr.UnknownTopicOrPartition, "a/b": kerr.InvalidTopicException, "": kerr.InvalidTopicException} {
			got := Ask[*kmsg.DescribeConfigsResponse](c, 4, describeConfigsRequest(kmsg.ConfigResourceTypeTopic, name)).Resources[0]
			wantCode(t, fmt.Sprintf("topic %q", name), got.ErrorCode, code)
			want(t, "configs", len(got.Configs), 0)
		}
	}},
	{"§3.11", "configs of a broker: own id, or empty for the cluster's defaults, else INVALID_REQUEST; dynamic ones can be altered", func(t *testing.T, b *broker) {
		c := b.dial(t)
		got := describedResource(c, kmsg.ConfigResourceTypeBroker, "1")
		for name, value := range map[string]string{ // what tools read
			"num.partitions": "1", "default.replication.factor": "1", "auto.create.topics.enable": "true", "delete.topic.enable": "true", "message.max.bytes": "1048588",
			"log.retention.hours": "168", "log.cleanup.policy": "delete", "compression.type": "producer", "min.insync.replicas": "1", "fetch.max.bytes": "57671680", "broker.id": "1", "node.id": "1",
			"socket.request.max.bytes": "104857600", "log.message.timestamp.type": "CreateTime", "max.incremental.fetch.session.cache.slots": "1000", "unclean.leader.election.enable": "false",
		} {
			config, there := got[name]
			if !there || config.Value == nil || *config.Value != value {
				t.Errorf("%s: %+v, want %q", name, config, value)
			}
		}
		for name, config := range got {
			if config.Source == kmsg.ConfigSourceUnknown {
				t.Errorf("%s has no source", name)
			}
			if config.IsSensitive && config.Value != nil {
				t.Errorf("%s is sensitive and has a value", name)
			}
		}
		want(t, "num.partitions", got["num.partitions"].ConfigType, kmsg.ConfigTypeInt)
		want(t, "node.id is read-only", got["node.id"].ReadOnly, true)
		want(t, "log.retention.ms is dynamic", got["log.retention.ms"].ReadOnly, false)
		defaults := describedResource(c, kmsg.ConfigResourceTypeBroker, "")
		want(t, "the cluster's defaults hold only what was set", len(defaults),
			differs(b, 1, 0, "Kafka sets min.insync.replicas there for eligible leader replicas, which everlog has not"))
		change := func(name, key string, op kmsg.IncrementalAlterConfigOp, value *string) int16 {
			req := incrementalRequest(name, operation(key, op, value))
			req.Resources[0].ResourceType = kmsg.ConfigResourceTypeBroker
			return Ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, req).Resources[0].ErrorCode
		}
		value, bad := "12", "many"
		for _, name := range []string{"", "1"} {
			wantCode(t, "set of "+name, change(name, "background.threads", kmsg.IncrementalAlterConfigOpSet, &value), nil)
			source := map[string]kmsg.ConfigSource{"": kmsg.ConfigSourceDynamicDefaultBrokerConfig, "1": kmsg.ConfigSourceDynamicBrokerConfig}[name]
			harness.Until(t, answerLimit, "the setting is in force", func() error {
				if got := describedResource(c, kmsg.ConfigResourceTypeBroker, "1", "background.threads")["background.threads"]; got.Value == nil || *got.Value != value || got.Source != source {
					return fmt.Errorf("it is %s", configLine(got))
				}
				return nil
			})
			wantCode(t, "a bad value", change(name, "background.threads", kmsg.IncrementalAlterConfigOpSet, &bad), kerr.InvalidRequest)
			wantCode(t, "a read-only setting", change(name, "log.dirs", kmsg.IncrementalAlterConfigOpSet, &value), kerr.InvalidRequest)
		}
		for _, name := range []string{"", "1"} {
			wantCode(t, "delete of "+name, change(name, "background.threads", kmsg.IncrementalAlterConfigOpDelete, nil), nil)
		}
		for _, id := range []string{"2", "x"} {
			code := Ask[*kmsg.DescribeConfigsResponse](c, 4, describeConfigsRequest(kmsg.ConfigResourceTypeBroker, id)).Resources[0].ErrorCode
			wantCode(t, "broker "+id, code, kerr.InvalidRequest)
		}
	}},
	{"§3.11", "DescribeConfigs of several resources answers each; a type that is unknown is INVALID_REQUEST", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		req := describeConfigsRequest(kmsg.ConfigResourceTypeTopic, tp.name, "retention.ms")
		req.Resources = append(req.Resources, describeConfigsRequest(kmsg.ConfigResourceTypeBroker, "1", "num.partitions").Resources[0],
			describeConfigsRequest(kmsg.ConfigResourceTypeTopic, freshName()).Resources[0])
		got := Ask[*kmsg.DescribeConfigsResponse](b.dial(t), 4, req)
		want(t, "resources", len(got.Resources), 3)
		for _, one := range got.Resources {
			want(t, one.ResourceName+": configs", len(one.Configs), map[bool]int{true: 1, false: 0}[one.ErrorCode == 0])
		}
	}},
}

// set, remove, add and subtract are operations of IncrementalAlterConfigs.
func set(name, value string) kmsg.IncrementalAlterConfigsRequestResourceConfig {
	return operation(name, kmsg.IncrementalAlterConfigOpSet, &value)
}

func operation(name string, op kmsg.IncrementalAlterConfigOp, value *string) kmsg.IncrementalAlterConfigsRequestResourceConfig {
	c := kmsg.NewIncrementalAlterConfigsRequestResourceConfig()
	c.Name, c.Op, c.Value = name, op, value
	return c
}

func incrementalRequest(name string, ops ...kmsg.IncrementalAlterConfigsRequestResourceConfig) *kmsg.IncrementalAlterConfigsRequest {
	req := kmsg.NewPtrIncrementalAlterConfigsRequest()
	one := kmsg.NewIncrementalAlterConfigsRequestResource()
	one.ResourceType, one.ResourceName, one.Configs = kmsg.ConfigResourceTypeTopic, name, ops
	req.Resources = append(req.Resources, one)
	return req
}

// alterConfigsRequest is the legacy form.
func alterConfigsRequest(name string, configs ...string) *kmsg.AlterConfigsRequest {
	req := kmsg.NewPtrAlterConfigsRequest()
	one := kmsg.NewAlterConfigsRequestResource()
	one.ResourceType, one.ResourceName = kmsg.ConfigResourceTypeTopic, name
	for _, config := range configs {
		name, value, _ := strings.Cut(config, "=")
		c := kmsg.NewAlterConfigsRequestResourceConfig()
		c.Name, c.Value = name, &value
		one.Configs = append(one.Configs, c)
	}
	req.Resources = append(req.Resources, one)
	return req
}

// own are the configs that the topic itself has.
func own(c *Conn, tp topic) map[string]string {
	c.t.Helper()
	all := map[string]string{}
	for name, config := range described(c, tp) {
		if config.Source == kmsg.ConfigSourceDynamicTopicConfig {
			all[name] = *config.Value
		}
	}
	return all
}

// awaitOwn returns when the configs of the topic are these.
func (b *broker) awaitOwn(t *testing.T, tp topic, configs map[string]string) {
	t.Helper()
	c := b.dial(t)
	harness.Until(t, answerLimit, fmt.Sprintf("the configs are %v", configs), func() error {
		if got := own(c, tp); !maps.Equal(got, configs) {
			return fmt.Errorf("they are %v", got)
		}
		return nil
	})
}

var alterConfigsRules = []rule{
	{"§3.11", "IncrementalAlterConfigs: 0 sets, 1 deletes, 2 appends to and 3 subtracts from lists", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "retention.bytes=999")
		c := b.dial(t)
		value := func(v string) *string { return &v }
		for _, s := range []struct {
			ops    []kmsg.IncrementalAlterConfigsRequestResourceConfig
			result map[string]string
		}{
			{[]kmsg.IncrementalAlterConfigsRequestResourceConfig{set("retention.ms", "1000"), set("segment.ms", "2000")}, map[string]string{"retention.bytes": "999", "retention.ms": "1000", "segment.ms": "2000"}},
			{[]kmsg.IncrementalAlterConfigsRequestResourceConfig{operation("segment.ms", kmsg.IncrementalAlterConfigOpDelete, nil), set("retention.ms", "3000")}, map[string]string{"retention.bytes": "999", "retention.ms": "3000"}},
			{[]kmsg.IncrementalAlterConfigsRequestResourceConfig{operation("segment.ms", kmsg.IncrementalAlterConfigOpDelete, nil)}, map[string]string{"retention.bytes": "999", "retention.ms": "3000"}},
			{[]kmsg.IncrementalAlterConfigsRequestResourceConfig{operation("cleanup.policy", kmsg.IncrementalAlterConfigOpAppend, value("compact"))}, map[string]string{"retention.bytes": "999", "retention.ms": "3000", "cleanup.policy": "delete,compact"}},
			{[]kmsg.IncrementalAlterConfigsRequestResourceConfig{operation("cleanup.policy", kmsg.IncrementalAlterConfigOpSubtract, value("delete"))}, map[string]string{"retention.bytes": "999", "retention.ms": "3000", "cleanup.policy": "compact"}},
		} {
			for version := range int16(2) {
				wantNoErrors(t, "alter", Ask[*kmsg.IncrementalAlterConfigsResponse](c, version, incrementalRequest(tp.name, s.ops...)))
				b.awaitOwn(t, tp, s.result)
			}
		}
	}},
	{"§3.11", "IncrementalAlterConfigs: append or subtract of what is no list, and a bad name or value: INVALID_CONFIG; nothing changes", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "retention.ms=1000")
		c := b.dial(t)
		one := "1"
		for _, op := range []kmsg.IncrementalAlterConfigsRequestResourceConfig{
			operation("retention.ms", kmsg.IncrementalAlterConfigOpAppend, &one), operation("retention.ms", kmsg.IncrementalAlterConfigOpSubtract, &one),
			set("no.such.config", "1"), set("retention.ms", "x"), set("segment.bytes", "100"), set("cleanup.policy", "shred"),
		} {
			got := Ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, incrementalRequest(tp.name, set("segment.ms", "7777"), op)).Resources[0]
			wantCode(t, fmt.Sprintf("%s %s", op.Op, op.Name), got.ErrorCode, kerr.InvalidConfig)
			if got.ErrorMessage == nil || *got.ErrorMessage == "" {
				t.Errorf("%s %s has no message", op.Op, op.Name)
			}
		}
		b.awaitOwn(t, tp, map[string]string{"retention.ms": "1000"})
	}},
	{"§3.11", "IncrementalAlterConfigs: duplicate keys or resources, or null to set: INVALID_REQUEST; unknown topic: UNKNOWN_TOPIC_OR_PARTITION", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		twice := incrementalRequest(tp.name, set("retention.ms", "1"))
		twice.Resources = append(twice.Resources, twice.Resources[0])
		for what, req := range map[string]*kmsg.IncrementalAlterConfigsRequest{
			"key twice": incrementalRequest(tp.name, set("retention.ms", "1"), set("retention.ms", "2")), "resource twice": twice,
			"null": incrementalRequest(tp.name, operation("retention.ms", kmsg.IncrementalAlterConfigOpSet, nil)), "operation 9": incrementalRequest(tp.name, operation("retention.ms", 9, nil)),
		} {
			for _, one := range Ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, req).Resources {
				wantCode(t, what, one.ErrorCode, kerr.InvalidRequest)
			}
		}
		got := Ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, incrementalRequest(freshName(), set("retention.ms", "1"))).Resources[0]
		wantCode(t, "unknown topic", got.ErrorCode, kerr.UnknownTopicOrPartition)
		b.awaitOwn(t, tp, map[string]string{})
	}},
	{"§3.11", "ValidateOnly checks and changes nothing", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		good, bad := incrementalRequest(tp.name, set("retention.ms", "1")), incrementalRequest(tp.name, set("retention.ms", "x"))
		good.ValidateOnly, bad.ValidateOnly = true, true
		wantNoErrors(t, "good", Ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, good))
		wantCode(t, "bad", Ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, bad).Resources[0].ErrorCode, kerr.InvalidConfig)
		legacy := alterConfigsRequest(tp.name, "retention.ms=1")
		legacy.ValidateOnly = true
		wantNoErrors(t, "legacy", Ask[*kmsg.AlterConfigsResponse](c, 2, legacy))
		want(t, "configs", len(own(c, tp)), 0)
	}},
	{"§3.11", "legacy AlterConfigs replaces the whole set", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "retention.ms=1000", "segment.ms=2000")
		c := b.dial(t)
		for version := range int16(3) {
			wantNoErrors(t, "alter", Ask[*kmsg.AlterConfigsResponse](c, version, alterConfigsRequest(tp.name, "retention.bytes=5")))
			b.awaitOwn(t, tp, map[string]string{"retention.bytes": "5"})
			wantNoErrors(t, "alter", Ask[*kmsg.AlterConfigsResponse](c, version, alterConfigsRequest(tp.name, "retention.ms=7", "flush.ms=8")))
			b.awaitOwn(t, tp, map[string]string{"retention.ms": "7", "flush.ms": "8"})
			wantCode(t, "bad value", Ask[*kmsg.AlterConfigsResponse](c, version, alterConfigsRequest(tp.name, "retention.ms=x")).Resources[0].ErrorCode, kerr.InvalidConfig)
			wantCode(t, "unknown topic", Ask[*kmsg.AlterConfigsResponse](c, version, alterConfigsRequest(freshName(), "retention.ms=1")).Resources[0].ErrorCode, kerr.UnknownTopicOrPartition)
		}
		b.awaitOwn(t, tp, map[string]string{"retention.ms": "7", "flush.ms": "8"})
	}},
	{"§3.11", "an altered limit is in force: max.message.bytes", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		large := batch(t, string(make([]byte, 5000)))
		mustProduce(c, tp, 0, large)
		wantNoErrors(t, "alter", Ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, incrementalRequest(tp.name, set("max.message.bytes", "1000"))))
		b.awaitConfig(t, tp, "max.message.bytes", "1000")
		wantCode(t, "produce", produce(c, tp, 0, large).ErrorCode, kerr.MessageTooLarge)
	}},
	{"§3.11", "tiering: true to false requires remote.log.delete.on.disable=true, else INVALID_CONFIG", func(t *testing.T, b *broker) {
		if b.kafka {
			// Without remote.log.storage.system.enable nothing can be turned on, so nothing can be turned off.
			name := freshName()
			wantCode(t, "tiering on a broker without", create(b.dial(t), 7, false, newTopic(name, 1, 1, "remote.storage.enable=true"))[name].ErrorCode, kerr.InvalidConfig)
			return
		}
		tp := b.topic(t, 1)
		c := b.dial(t)
		got := Ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, incrementalRequest(tp.name, set("remote.storage.enable", "false"))).Resources[0]
		wantCode(t, "without delete.on.disable", got.ErrorCode, kerr.InvalidConfig)
		// everlog refuses it with delete.on.disable too: what is only in the object store could not be read any more.
		got = Ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, incrementalRequest(tp.name, set("remote.storage.enable", "false"), set("remote.log.delete.on.disable", "true"))).Resources[0]
		wantCode(t, "with it", got.ErrorCode, kerr.InvalidConfig)
	}},
}
