package protocol

import (
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

// Types of resources that kmsg has no constants for.
const (
	metricsResource = kmsg.ConfigResourceType(16)
	groupResource   = kmsg.ConfigResourceType(32)
)

func groupRequest(name string, ops ...kmsg.IncrementalAlterConfigsRequestResourceConfig) *kmsg.IncrementalAlterConfigsRequest {
	req := incrementalRequest(name, ops...)
	req.Resources[0].ResourceType = groupResource
	return req
}

func listResourcesRequest(types ...kmsg.ConfigResourceType) *kmsg.ListConfigResourcesRequest {
	req := kmsg.NewPtrListConfigResourcesRequest()
	for _, kind := range types {
		req.ResourceTypes = append(req.ResourceTypes, int8(kind))
	}
	return req
}

// resources are those listed, as type/name.
func resources(c *Conn, version int16, types ...kmsg.ConfigResourceType) map[string]bool {
	c.t.Helper()
	resp := Ask[*kmsg.ListConfigResourcesResponse](c, version, listResourcesRequest(types...))
	wantCode(c.t, "list config resources", resp.ErrorCode, nil)
	all := map[string]bool{}
	for _, r := range resp.ConfigResources {
		all[fmt.Sprintf("%d/%s", r.Type, r.Name)] = true
	}
	return all
}

var groupConfigRules = []rule{
	{"§3.11", "DescribeConfigs of a group (resource type 32) returns every key with its effective value, source, type and synonyms", func(t *testing.T, b *broker) {
		got := map[string]string{}
		for name, config := range describedResource(b.dial(t), groupResource, freshName()) {
			got[name] = configLine(config)
		}
		golden := filepath.Join("testdata", "group-configs-4.3.1.txt")
		if b.kafka && *update {
			if err := os.WriteFile(golden, []byte(strings.Join(slices.Sorted(maps.Values(got)), "\n")+"\n"), 0o644); err != nil {
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
		if diff := cmp.Diff(wanted, got); diff != "" {
			t.Errorf("configs of a group (-want +got):\n%s", diff)
		}
	}},
	{"§3.11", "configs of a group are altered and described back with source 8; bad ones are INVALID_CONFIG, the empty group INVALID_REQUEST", func(t *testing.T, b *broker) {
		group := freshName()
		c := b.dial(t)
		const key = "consumer.session.timeout.ms"
		alter := func(name string, ops ...kmsg.IncrementalAlterConfigsRequestResourceConfig) int16 {
			return Ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, groupRequest(name, ops...)).Resources[0].ErrorCode
		}
		await := func(line string) {
			t.Helper()
			harness.Until(t, answerLimit, "the setting is in force", func() error {
				if got := configLine(describedResource(c, groupResource, group, key)[key]); got != line {
					return fmt.Errorf("it is %s, want %s", got, line)
				}
				return nil
			})
		}
		wantCode(t, "set", alter(group, set(key, "50000")), nil)
		await(key + ` INT GROUP_CONFIG "50000" | consumer.session.timeout.ms GROUP_CONFIG "50000" | group.consumer.session.timeout.ms DEFAULT_CONFIG "45000"`)
		want(t, "the group is listed", resources(c, 1, groupResource)["32/"+group], true)
		one := "1"
		for what, op := range map[string]kmsg.IncrementalAlterConfigsRequestResourceConfig{
			"below the broker's minimum": set(key, "1"), "above its maximum": set(key, "100000000"), "no number": set(key, "x"), "unknown": set("no.such.config", "1"),
			"append to a number": operation(key, kmsg.IncrementalAlterConfigOpAppend, &one), "a heartbeat above its maximum": set("consumer.heartbeat.interval.ms", "50000"),
		} {
			wantCode(t, what, alter(group, op), kerr.InvalidConfig)
		}
		wantCode(t, "null", alter(group, operation(key, kmsg.IncrementalAlterConfigOpSet, nil)), kerr.InvalidRequest)
		wantCode(t, "the empty group", alter("", set(key, "50000")), kerr.InvalidRequest)
		wantCode(t, "delete", alter(group, operation(key, kmsg.IncrementalAlterConfigOpDelete, nil)), nil)
		await(key + ` INT DEFAULT_CONFIG "45000" | group.consumer.session.timeout.ms DEFAULT_CONFIG "45000"`)
		for _, kind := range []kmsg.ConfigResourceType{groupResource, metricsResource} {
			got := Ask[*kmsg.DescribeConfigsResponse](c, 4, describeConfigsRequest(kind, "")).Resources[0]
			wantCode(t, fmt.Sprintf("describe the empty name of type %d", kind), got.ErrorCode, kerr.InvalidRequest)
		}
	}},
	{"§3.11", "configs of broker loggers (resource type 8): levels by name; only of the broker that is asked", func(t *testing.T, b *broker) {
		c := b.dial(t)
		root := describedResource(c, kmsg.ConfigResourceTypeBrokerLogger, "1")["root"]
		if root.Value == nil || !slices.Contains([]string{"OFF", "FATAL", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"}, *root.Value) || root.Source != kmsg.ConfigSourceDynamicBrokerLoggerConfig || root.ReadOnly {
			t.Errorf("the root logger is %s", configLine(root))
		}
		for _, id := range []string{"2", "x", ""} {
			got := Ask[*kmsg.DescribeConfigsResponse](c, 4, describeConfigsRequest(kmsg.ConfigResourceTypeBrokerLogger, id)).Resources[0]
			wantCode(t, "broker "+id, got.ErrorCode, kerr.InvalidRequest)
		}
		alter := func(id, logger, level string) int16 {
			req := incrementalRequest(id, set(logger, level))
			req.Resources[0].ResourceType = kmsg.ConfigResourceTypeBrokerLogger
			return Ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, req).Resources[0].ErrorCode
		}
		wantCode(t, "a logger that is not there", alter("1", "no.such.logger", "INFO"), kerr.InvalidConfig)
		wantCode(t, "another broker's", alter("2", "root", "INFO"), kerr.InvalidRequest)
		if !b.kafka { // everlog's level is a setting of the process; Kafka's, which other rules share, stays as it is
			wantCode(t, "the root logger", alter("1", "root", "DEBUG"), kerr.InvalidRequest)
		}
	}},
	{"§3.11", "DescribeConfigs of client metrics (resource type 16)", func(t *testing.T, b *broker) {
		got := describedResource(b.dial(t), metricsResource, freshName())
		want(t, "configs", len(got), differs(b, 3, 0, "everlog collects no client metrics, so that there is nothing to set"))
	}},
	{"§3.11", "ListConfigResources: all types, or those asked for; an unknown type is UNSUPPORTED_VERSION; version 0 lists client metrics alone", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		const topicType, brokerType, loggerType = kmsg.ConfigResourceTypeTopic, kmsg.ConfigResourceTypeBroker, kmsg.ConfigResourceTypeBrokerLogger
		all := resources(c, 1)
		for _, name := range []string{"2/" + tp.name, "4/1", "8/1"} {
			want(t, name+" is listed", all[name], true)
		}
		if got := resources(c, 1, brokerType, loggerType); !maps.Equal(got, map[string]bool{"4/1": true, "8/1": true}) {
			t.Errorf("brokers and loggers: %v", got)
		}
		want(t, "the topic among topics", resources(c, 1, topicType)["2/"+tp.name], true)
		want(t, "client metrics", len(resources(c, 1, metricsResource)), 0)
		want(t, "version 0", len(resources(c, 0)), 0)
		resp := Ask[*kmsg.ListConfigResourcesResponse](c, 1, listResourcesRequest(3))
		wantCode(t, "type 3", resp.ErrorCode, kerr.UnsupportedVersion)
	}},
}
