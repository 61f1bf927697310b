package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/everlog/everlog/tier/record"
)

// TopicConfig is the effective configuration of a topic: its own settings over the broker's. Immutable.
// Durations and sizes that may be unlimited are negative then.
type TopicConfig struct {
	// Delete and Compact are the two parts of cleanup.policy; with neither everything is kept.
	Delete, Compact bool
	Retention       time.Duration
	RetentionBytes  int64
	// LocalRetention and LocalRetentionBytes bound what stays on disk; negative leaves it to the broker's disk budget.
	LocalRetention      time.Duration
	LocalRetentionBytes int64
	SegmentBytes        int64
	SegmentAge          time.Duration
	SegmentJitter       time.Duration
	DeleteDelay         time.Duration
	Preallocate         bool

	MaxMessageBytes   int
	MinInsyncReplicas int
	// KeepCodec is compression.type=producer; otherwise batches are stored in Codec with CodecLevel.
	KeepCodec  bool
	Codec      record.Codec
	CodecLevel int
	// LogAppendTime is message.timestamp.type; the other two bound CreateTime stamps.
	LogAppendTime      bool
	TimestampBeforeMax time.Duration
	TimestampAfterMax  time.Duration

	TombstoneRetention time.Duration
	MinCompactionLag   time.Duration
	MaxCompactionLag   time.Duration
	MinDirtyRatio      float64

	// Remote is remote.storage.enable; RemoteCopyDisabled stops shipping only.
	Remote                bool
	RemoteCopyDisabled    bool
	RemoteDeleteOnDisable bool
}

// topicView reads the effective texts of one topic.
type topicView struct {
	own    map[string]string
	broker *Broker
}

// chain returns every value a topic setting could take, strongest first.
func (v topicView) chain(k *Key) []layered {
	var all []layered
	if value, ok := v.own[k.Name]; ok {
		all = append(all, layered{k.Name, value, FromTopic, 1})
	}
	if k.Synonym != "" {
		return append(all, v.broker.chain(k.Synonym)...)
	}
	return append(all, layered{k.Name, k.Default, FromDefault, 1})
}

func (v topicView) text(name string) string { return v.chain(topicKeys[name])[0].text() }

func (v topicView) int(name string) int64 {
	n, _ := strconv.ParseInt(v.text(name), 10, 64)
	return n
}

func (v topicView) millis(name string) time.Duration { return millis(v.int(name)) }
func (v topicView) bool(name string) bool            { return strings.EqualFold(v.text(name), "true") }

// Topic returns the effective configuration of a topic with these settings on this broker. A nil broker stands for the
// defaults. The result is never nil: what is unknown or invalid is left out and reported in the error, so that a topic
// whose settings a later version wrote still opens; the controller refuses on any error.
func Topic(configs map[string]string, b *Broker) (*TopicConfig, error) {
	if b == nil {
		b = defaults
	}
	faults := []error{ValidateTopicNames(configs)}
	own := make(map[string]string, len(configs))
	for _, name := range sortedNames(configs) {
		if k, ok := topicKeys[name]; ok {
			value, err := k.parse(configs[name])
			if err != nil {
				faults = append(faults, err)
				continue
			}
			own[name] = value
		}
	}
	v := topicView{own, b}
	faults = append(faults, v.validate())
	return v.typed(), errors.Join(faults...)
}

var defaults = mustDefaults()

func mustDefaults() *Broker {
	b, err := ParseBroker(nil)
	if err != nil {
		panic(err)
	}
	return b
}

// validate checks the rules between settings, in the order of Kafka's LogConfig.
func (v topicView) validate() error {
	if low, high := v.int("min.compaction.lag.ms"), v.int("max.compaction.lag.ms"); low > high {
		return invalid(fmt.Sprintf("conflict topic config setting min.compaction.lag.ms (%d) > max.compaction.lag.ms (%d)", low, high))
	}
	if !v.bool("remote.storage.enable") {
		return nil
	}
	for _, pair := range [][2]string{{"local.retention.bytes", "retention.bytes"}, {"local.retention.ms", "retention.ms"}} {
		local, total := v.int(pair[0]), v.int(pair[1])
		if v.bool("remote.log.copy.disable") && local != -2 && local != total {
			return invalid("When `remote.log.copy.disable` is set to true, the `" + pair[0] + "` and `" + pair[1] +
				"` must be set to the identical value because there will be no more logs copied to the remote storage.")
		}
		// A broker-wide local retention above this topic's retention is no fault of the topic: retention wins.
		if _, own := v.own[pair[0]]; !own || total < 0 || local == -2 {
			continue
		}
		if local == -1 {
			return invalidValue(pair[0], "-1", fmt.Sprintf("Value must not be -1 as %s value is set as %d.", pair[1], total))
		}
		if local > total {
			return invalidValue(pair[0], strconv.FormatInt(local, 10), "Value must not be more than property: "+pair[1]+" value.")
		}
	}
	return nil
}

// ValidateTopicChange checks the rules between a topic's old settings and its new ones, beyond what Topic checks.
func ValidateTopicChange(before, after map[string]string, b *Broker) error {
	if b == nil {
		b = defaults
	}
	was, is := topicView{before, b}, topicView{after, b}
	if was.bool("remote.storage.enable") && !is.bool("remote.storage.enable") {
		return invalid("remote.storage.enable cannot be turned off for a topic that exists: what is only in the object store could not be read any more. " +
			"Set remote.log.copy.disable=true to ship no more, and delete the topic to delete its remote data.")
	}
	return nil
}

func (v topicView) typed() *TopicConfig {
	t := &TopicConfig{
		Retention:             v.millis("retention.ms"),
		RetentionBytes:        max(v.int("retention.bytes"), -1),
		LocalRetention:        v.millis("local.retention.ms"),
		LocalRetentionBytes:   max(v.int("local.retention.bytes"), -2),
		SegmentBytes:          v.int("segment.bytes"),
		SegmentAge:            v.millis("segment.ms"),
		SegmentJitter:         v.millis("segment.jitter.ms"),
		DeleteDelay:           v.millis("file.delete.delay.ms"),
		Preallocate:           v.bool("preallocate"),
		MaxMessageBytes:       int(v.int("max.message.bytes")),
		MinInsyncReplicas:     int(v.int("min.insync.replicas")),
		LogAppendTime:         v.text("message.timestamp.type") == "LogAppendTime",
		TimestampBeforeMax:    v.millis("message.timestamp.before.max.ms"),
		TimestampAfterMax:     v.millis("message.timestamp.after.max.ms"),
		TombstoneRetention:    v.millis("delete.retention.ms"),
		MinCompactionLag:      v.millis("min.compaction.lag.ms"),
		MaxCompactionLag:      v.millis("max.compaction.lag.ms"),
		Remote:                v.bool("remote.storage.enable"),
		RemoteCopyDisabled:    v.bool("remote.log.copy.disable"),
		RemoteDeleteOnDisable: v.bool("remote.log.delete.on.disable"),
	}
	t.LocalRetentionBytes = max(t.LocalRetentionBytes, -1)
	t.MinDirtyRatio, _ = strconv.ParseFloat(v.text("min.cleanable.dirty.ratio"), 64)
	for _, policy := range splitList(v.text("cleanup.policy")) {
		t.Delete = t.Delete || policy == "delete"
		t.Compact = t.Compact || policy == "compact"
	}
	switch v.text("compression.type") {
	case "producer":
		t.KeepCodec = true
	case "gzip":
		t.Codec, t.CodecLevel = record.Gzip, int(v.int("compression.gzip.level"))
	case "snappy":
		t.Codec = record.Snappy
	case "lz4":
		t.Codec, t.CodecLevel = record.LZ4, int(v.int("compression.lz4.level"))
	case "zstd":
		t.Codec, t.CodecLevel = record.Zstd, int(v.int("compression.zstd.level"))
	}
	return t
}
