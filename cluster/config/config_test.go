package config

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func text(s string) *string { return &s }

// Every topic default must be what the broker's chain of synonyms gives, or a topic would change when asked twice.
func TestTopicDefaultsAgreeWithBrokerDefaults(t *testing.T) {
	for _, k := range TopicKeys() {
		if got := (topicView{nil, defaults}).text(k.Name); got != k.Default {
			t.Errorf("%s: table says %q, broker synonym %s gives %q", k.Name, k.Default, k.Synonym, got)
		}
		if k.Synonym != "" && brokerKeys[k.Synonym] == nil {
			t.Errorf("%s: synonym %s is no broker setting", k.Name, k.Synonym)
		}
	}
	for name, chain := range chains {
		for _, f := range chain {
			if brokerKeys[f.name] == nil {
				t.Errorf("chain of %s: %s is no broker setting", name, f.name)
			}
		}
	}
}

func TestDefaultsAreValid(t *testing.T) {
	for _, k := range append(TopicKeys(), BrokerKeys()...) {
		if !k.HasDefault {
			continue
		}
		if v, err := k.parse(k.Default); err != nil || v != k.Default {
			t.Errorf("%s: default %q parses to %q, %v", k.Name, k.Default, v, err)
		}
		if k.Doc == "" || !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s: no documentation sentence", k.Name)
		}
	}
}

// The names that clients, Streams, Connect and consoles read or set (reference/protocol.md §3.11, §5).
func TestDefaultsThatDifferFromKafka(t *testing.T) {
	c, err := Topic(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want := TopicConfig{Delete: true, Retention: 7 * 24 * time.Hour, RetentionBytes: -1, LocalRetention: -1, LocalRetentionBytes: -1,
		SegmentBytes: 128 << 20, SegmentAge: 7 * 24 * time.Hour, DeleteDelay: time.Minute, MaxMessageBytes: 1048588,
		MinInsyncReplicas: 1, KeepCodec: true, TimestampBeforeMax: 1<<63 - 1, TimestampAfterMax: time.Hour,
		TombstoneRetention: 24 * time.Hour, MaxCompactionLag: 1<<63 - 1, MinDirtyRatio: 0.5, Remote: true}
	if d := cmp.Diff(want, *c); d != "" {
		t.Error(d)
	}
	if defaults.FlushOS || defaults.LocalBudgetBytes != 0 || defaults.TierSeal != 10*time.Minute || defaults.CacheMemoryBytes != 128<<20 ||
		defaults.CacheDiskBytes != 0 {
		t.Errorf("everlog's own defaults: %+v", defaults)
	}
}

func TestSentences(t *testing.T) {
	for _, c := range []struct{ name, value, want string }{
		{"retention.ms", "abc", "Invalid value abc for configuration retention.ms: Not a number of type LONG"},
		{"retention.ms", "-2", "Invalid value -2 for configuration retention.ms: Value must be at least -1"},
		{"segment.bytes", "1024", "Invalid value 1024 for configuration segment.bytes: Value must be at least 1048576"},
		{"segment.bytes", "4294967296", "Invalid value 4294967296 for configuration segment.bytes: Not a number of type INT"},
		{"preallocate", "yes", "Invalid value yes for configuration preallocate: Expected value to be either true or false"},
		{"cleanup.policy", "shred", "Invalid value shred for configuration cleanup.policy: String must be one of: compact, delete"},
		{"cleanup.policy", "delete,delete", "Configuration 'cleanup.policy' values must not be duplicated."},
		{"cleanup.policy", "delete,", "Configuration 'cleanup.policy' values must not be empty."},
		{"compression.gzip.level", "0", "Invalid value 0 for configuration compression.gzip.level: Value must be between 1 and 9 or equal to -1"},
		{"min.cleanable.dirty.ratio", "2", "Invalid value 2 for configuration min.cleanable.dirty.ratio: Value must be no more than 1"},
		{"message.downconversion.enable", "true", "Unknown topic config name: message.downconversion.enable"},
		{"retension.ms", "1", "Unknown topic config name: retension.ms (did you mean retention.ms?)"},
		{"log.retention.hours", "1", "Unknown topic config name: log.retention.hours (did you mean retention.ms?)"},
		{"local.retention.ms", "-1", "Invalid value -1 for configuration local.retention.ms: Value must not be -1 as retention.ms value is set as 604800000."},
		{"local.retention.ms", "604800001", "Invalid value 604800001 for configuration local.retention.ms: Value must not be more than property: retention.ms value."},
		{"max.compaction.lag.ms", "1", ""},
	} {
		_, err := Topic(map[string]string{c.name: c.value}, nil)
		got := ""
		if err != nil {
			got = err.Error()
			if !errors.Is(err, ErrInvalid) {
				t.Errorf("%s: %v is not ErrInvalid", c.name, err)
			}
		}
		if got != c.want {
			t.Errorf("%s=%s\n got %s\nwant %s", c.name, c.value, got, c.want)
		}
	}
}

func TestCompactedTopicIsTiered(t *testing.T) {
	c, err := Topic(map[string]string{"cleanup.policy": " compact , delete ", "remote.storage.enable": "true"}, nil)
	if err != nil || !c.Compact || !c.Delete || !c.Remote {
		t.Fatalf("%+v, %v", c, err)
	}
	c, err = Topic(map[string]string{"cleanup.policy": "", "retention.ms": "-1"}, nil)
	if err != nil || c.Compact || c.Delete || c.Retention >= 0 {
		t.Fatalf("empty policy: %+v, %v", c, err)
	}
}

func TestInvalidStoredValueIsLeftOut(t *testing.T) {
	c, err := Topic(map[string]string{"retention.ms": "soon", "segment.bytes": "2097152", "from.the.future": "1"}, nil)
	if err == nil || c.Retention != 7*24*time.Hour || c.SegmentBytes != 2<<20 {
		t.Fatalf("%+v, %v", c, err)
	}
}

func TestBrokerSynonymsAndLayers(t *testing.T) {
	b, err := ParseBroker(map[string]string{"log.retention.hours": "2", "log.roll.hours": "1", "broker.id": "7", "flush": "os"})
	if err != nil {
		t.Fatal(err)
	}
	check := func(b *Broker, want time.Duration) {
		t.Helper()
		if c, err := Topic(nil, b); err != nil || c.Retention != want {
			t.Errorf("retention %v, %v; want %v", c.Retention, err, want)
		}
	}
	check(b, 2*time.Hour)
	if b.Int("node.id") != 7 || !b.FlushOS || b.Millis("log.roll.ms") != time.Hour {
		t.Errorf("synonyms: node.id %d, flush os %v, roll %v", b.Int("node.id"), b.FlushOS, b.Millis("log.roll.ms"))
	}
	d, err := b.WithDynamic(map[string]string{"log.retention.ms": "5000"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	check(d, 5*time.Second)
	d, err = b.WithDynamic(map[string]string{"log.retention.ms": "5000"}, map[string]string{"log.retention.ms": "-1"})
	if err != nil {
		t.Fatal(err)
	}
	check(d, -1)
	forever, err := ParseBroker(map[string]string{"log.retention.hours": "-1"})
	if err != nil {
		t.Fatal(err)
	}
	check(forever, -1)

	entries := DescribeTopic(map[string]string{"retention.ms": "7000"}, d, []string{"retention.ms"})
	want := []Entry{{Name: "retention.ms", Value: text("7000"), Type: Long, Source: FromTopic, Doc: topicKeys["retention.ms"].Doc,
		Synonyms: []Synonym{{"retention.ms", text("7000"), FromTopic}, {"log.retention.ms", text("-1"), FromBroker},
			{"log.retention.ms", text("5000"), FromClusterDefault}, {"log.retention.hours", text("2"), FromStatic}}}}
	if diff := cmp.Diff(want, entries); diff != "" {
		t.Error(diff)
	}
}

func TestParseBrokerRefuses(t *testing.T) {
	_, err := ParseBroker(map[string]string{"num.partition": "3", "flush": "never", "log.retention.hours": "0", "retention.bytes": "5"})
	want := `Invalid value never for configuration flush: String must be one of: ack, os
Invalid value 0 for configuration log.retention.hours: Value must be unlimited (-1) or, equal or greater than 1
Unknown broker config name: num.partition (did you mean num.partitions?)
Unknown broker config name: retention.bytes (did you mean log.retention.bytes?)`
	if err == nil || err.Error() != want {
		t.Errorf("got\n%v\nwant\n%s", err, want)
	}
	if _, err := ParseBroker(map[string]string{"listener.name.internal.ssl.keystore.password": "x", "rsm.config.bucket": "b"}); err != nil {
		t.Error(err)
	}
}

func TestDescribeHidesSecrets(t *testing.T) {
	b, err := ParseBroker(map[string]string{"ssl.key.password": "secret", "listener.name.a.ssl.keystore.password": "secret"})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, e := range b.Describe(nil) {
		if !e.Sensitive {
			continue
		}
		if len(e.Synonyms) > 0 {
			found++
		}
		for _, s := range append(e.Synonyms, Synonym{Value: e.Value}) {
			if s.Value != nil {
				t.Errorf("%s shows %q", e.Name, *s.Value)
			}
		}
	}
	if found != 2 {
		t.Errorf("%d sensitive settings with a value, want 2", found)
	}
}

func TestAlterTopic(t *testing.T) {
	for _, c := range []struct {
		about   string
		current map[string]string
		changes []Change
		want    map[string]string
		err     error
		says    string
	}{
		{"set", nil, []Change{{"retention.ms", Set, text(" 5 ")}}, map[string]string{"retention.ms": "5"}, nil, ""},
		{"delete returns to the default", map[string]string{"retention.ms": "5"}, []Change{{"retention.ms", Delete, nil}}, map[string]string{}, nil, ""},
		{"append to the default", nil, []Change{{"cleanup.policy", Append, text("compact")}}, map[string]string{"cleanup.policy": "delete,compact"}, nil, ""},
		{"append twice is once", nil, []Change{{"cleanup.policy", Append, text("compact,delete,compact")}}, map[string]string{"cleanup.policy": "delete,compact"}, nil, ""},
		{"subtract", map[string]string{"cleanup.policy": "compact,delete"}, []Change{{"cleanup.policy", Subtract, text("delete")}}, map[string]string{"cleanup.policy": "compact"}, nil, ""},
		{"append to a number", nil, []Change{{"retention.ms", Append, text("5")}}, nil, ErrInvalid, "Can't APPEND to key retention.ms because its type is not LIST."},
		{"null", nil, []Change{{"retention.ms", Set, nil}}, nil, ErrRequest, "Null value not supported for : retention.ms"},
		{"twice", nil, []Change{{"retention.ms", Set, text("5")}, {"retention.ms", Delete, nil}}, nil, ErrRequest, "Error due to duplicate config keys"},
		{"operation 9", nil, []Change{{"retention.ms", 9, text("5")}}, nil, ErrRequest, "Unknown operation 9 for config retention.ms"},
		{"off without deleting", nil, []Change{{"remote.storage.enable", Set, text("false")}}, nil, ErrInvalid, "remote.storage.enable cannot be turned off"},
		{"off with deleting", nil, []Change{{"remote.storage.enable", Set, text("false")}, {"remote.log.delete.on.disable", Set, text("true")}}, nil, ErrInvalid, "remote.storage.enable cannot be turned off"},
		{"two that contradict", map[string]string{"local.retention.ms": "9000"}, []Change{{"retention.ms", Set, text("8000")}}, nil, ErrInvalid, "Value must not be more than property: retention.ms value."},
	} {
		got, err := AlterTopic(c.current, c.changes, nil)
		if !errors.Is(err, c.err) || (c.err != nil && !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: error %v, want %v %s", c.about, err, c.err, c.says)
		}
		if c.err == nil {
			if d := cmp.Diff(c.want, got); d != "" {
				t.Errorf("%s: %s", c.about, d)
			}
		}
	}
}

func TestLegacyReplacesTheSet(t *testing.T) {
	current := map[string]string{"retention.ms": "5", "segment.ms": "9"}
	got, err := AlterTopic(current, Replacing(current, []Change{{"retention.ms", Set, text("6")}}), nil)
	if err != nil || !cmp.Equal(got, map[string]string{"retention.ms": "6"}) {
		t.Errorf("%v, %v", got, err)
	}
}

func TestAlterBroker(t *testing.T) {
	if _, err := AlterBroker(nil, []Change{{"log.dirs", Set, text("/x")}}, true); !errors.Is(err, ErrReadOnly) {
		t.Errorf("log.dirs: %v", err)
	}
	if _, err := AlterBroker(nil, []Change{{"ssl.keystore.location", Set, text("/x")}}, false); !errors.Is(err, ErrReadOnly) {
		t.Errorf("per-broker setting for all brokers: %v", err)
	}
	got, err := AlterBroker(nil, []Change{{"tier.seal.ms", Set, text("60000")}}, false)
	if err != nil || got["tier.seal.ms"] != "60000" {
		t.Errorf("%v, %v", got, err)
	}
	got, err = AlterBroker(map[string]string{"gone.in.this.version": "1"}, []Change{{"gone.in.this.version", Delete, nil}}, false)
	if err != nil || len(got) != 0 {
		t.Errorf("delete of an unknown name: %v, %v", got, err)
	}
}

// Append then Subtract of the same items is the identity on a set that held none of them, and no input is modified.
func TestAppendSubtractProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		items := rapid.SliceOfNDistinct(rapid.StringMatching(`[0-9]{1,2}:[0-9]`), 1, 8, rapid.ID[string]).Draw(t, "items")
		n := rapid.IntRange(0, len(items)-1).Draw(t, "n")
		const name = "leader.replication.throttled.replicas"
		start := map[string]string{name: strings.Join(items[:n], ",")}
		more := strings.Join(items[n:], ",")
		mid, err := AlterTopic(start, []Change{{name, Append, &more}}, nil)
		if err != nil || mid[name] != strings.Join(items, ",") {
			t.Fatalf("append: %v, %v", mid, err)
		}
		end, err := AlterTopic(mid, []Change{{name, Subtract, &more}}, nil)
		if err != nil || !cmp.Equal(end, start) {
			t.Fatalf("subtract: %v, %v, want %v", end, err, start)
		}
	})
}
