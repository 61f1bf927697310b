package protocol

import (
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// A rule is one sentence of the protocol reference and what proves it. Rules share a broker and run side by side: each makes
// the topics it needs and looks at no others.
type rule struct {
	section string
	text    string
	check   func(t *testing.T, b *broker)
}

// chapters are the rules, in the order of the reference.
var chapters = [][]rule{
	framingRules, orderRules, versionRules, metadataRules,
	produceRules, batchRules, codecRules, timestampRules, idempotenceRules,
	fetchRules, fetchSizeRules, fetchWaitRules, sessionRules,
	listOffsetsRules, epochRules,
	createTopicsRules, deleteTopicsRules, partitionsRules, describeConfigsRules, alterConfigsRules, deleteRecordsRules, clusterRules,
	quotaRules, electionRules, groupConfigRules, featureRules, consoleRules,
}

// broker is what the rules are tried against.
type broker struct {
	addr  string
	kafka bool
}

// TestRules runs every rule against everlog, and against Apache Kafka if there is one.
func TestRules(t *testing.T) {
	t.Run("everlog", func(t *testing.T) { runRules(t, "") })
	if starter := os.Getenv("EVERLOG_PROTOCOL_KAFKA"); starter != "" {
		t.Run("kafka", func(t *testing.T) { runRules(t, starter) })
	}
}

func runRules(t *testing.T, kafkaStarter string) {
	process, b := start(t, kafkaStarter)
	t.Run("rules", func(t *testing.T) {
		for _, r := range slices.Concat(chapters...) {
			t.Run(r.section+" "+r.text, func(t *testing.T) {
				t.Parallel()
				r.check(t, b)
			})
		}
	})
	process.MustRun()
}

func (b *broker) dial(t testing.TB) *Conn {
	t.Helper()
	return Dial(t, b.addr)
}

// differs is what is expected of the broker where everlog differs from Kafka on purpose. The reason stands in the test.
func differs[T any](b *broker, kafka, everlog T, reason string) T {
	if reason == "" {
		panic("a difference without a reason")
	}
	if b.kafka {
		return kafka
	}
	return everlog
}

// topic is a topic made for one rule.
type topic struct {
	name       string
	id         [16]byte
	partitions int32
}

var topicNumber atomic.Int64

func freshName() string { return fmt.Sprintf("rule-%d", topicNumber.Add(1)) }

// topic creates a topic with configs given as name=value and returns when all its partitions have a leader that answers.
func (b *broker) topic(t testing.TB, partitions int32, configs ...string) topic {
	t.Helper()
	c := b.dial(t)
	req := kmsg.NewPtrCreateTopicsRequest()
	req.TimeoutMillis = 15_000
	one := newTopic(freshName(), partitions, 1, configs...)
	req.Topics = append(req.Topics, one)
	created := Ask[*kmsg.CreateTopicsResponse](c, 7, req).Topics[0]
	if created.ErrorCode != 0 {
		t.Fatalf("create topic %s: %s", one.Topic, codeName(created.ErrorCode))
	}
	made := topic{one.Topic, created.TopicID, partitions}
	if b.kafka { // everlog answers when the partitions take writes: a rule of §3.11
		b.awaitLeaders(t, made)
	}
	return made
}

func newTopic(name string, partitions int32, replicas int16, configs ...string) kmsg.CreateTopicsRequestTopic {
	one := kmsg.NewCreateTopicsRequestTopic()
	one.Topic, one.NumPartitions, one.ReplicationFactor = name, partitions, replicas
	for _, config := range configs {
		name, value, _ := strings.Cut(config, "=")
		c := kmsg.NewCreateTopicsRequestTopicConfig()
		c.Name, c.Value = name, &value
		one.Configs = append(one.Configs, c)
	}
	return one
}

func (b *broker) awaitLeaders(t testing.TB, made topic) {
	t.Helper()
	c := b.dial(t)
	harness.Until(t, answerLimit, "the partitions of "+made.name+" have leaders", func() error {
		for p := range made.partitions {
			if got := listOffset(c, 7, made, p, -1); got.ErrorCode != 0 {
				return fmt.Errorf("partition %d: %s", p, codeName(got.ErrorCode))
			}
		}
		return nil
	})
}

// codeName is the name of an error code with its number, for messages.
func codeName(code int16) string {
	if code == 0 {
		return "no error (0)"
	}
	if err := kerr.TypedErrorForCode(code); err != nil {
		return fmt.Sprintf("%s (%d)", err.Message, code)
	}
	return fmt.Sprintf("error code %d", code)
}

func wantCode(t testing.TB, what string, got int16, want *kerr.Error) {
	t.Helper()
	code := int16(0)
	if want != nil {
		code = want.Code
	}
	if got != code {
		t.Errorf("%s: %s, want %s", what, codeName(got), codeName(code))
	}
}

func want[T comparable](t testing.TB, what string, got, want T) {
	t.Helper()
	if got != want {
		t.Errorf("%s: %v, want %v", what, got, want)
	}
}

// wantNoErrors fails the test if any field named ErrorCode, at any depth of the answer, is set.
func wantNoErrors(t testing.TB, what string, resp any) {
	t.Helper()
	walkErrors(reflect.ValueOf(resp), func(code int16) {
		t.Errorf("%s: %s in %+v", what, codeName(code), resp)
	})
}

func walkErrors(v reflect.Value, report func(code int16)) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			walkErrors(v.Elem(), report)
		}
	case reflect.Slice:
		for i := range v.Len() {
			walkErrors(v.Index(i), report)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Type().Field(i)
			switch {
			case field.Name == "ErrorCode" && v.Field(i).Int() != 0:
				report(int16(v.Field(i).Int()))
			case field.IsExported():
				walkErrors(v.Field(i), report)
			}
		}
	}
}
