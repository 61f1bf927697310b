package config

import (
	"regexp"
	"strings"
)

// groupKey is one setting of a group, and the broker settings that bound it.
type groupKey struct {
	Key
	min, max bound
}

// bound is a broker setting that bounds a group's. value is its default, for those that everlog's brokers do not have.
type bound struct{ name, value string }

// groupTable follows GroupConfig of Kafka 4.3.1. everlog serves neither share nor streams groups: their settings are
// accepted, checked and shown, so that tools that set them work, and have no effect.
var groupTable = []groupKey{
	groupMillis("consumer.session.timeout.ms", "45000", "45000", "60000", "Time without a heartbeat after which a member of a consumer group is dropped, in milliseconds."),
	groupMillis("consumer.heartbeat.interval.ms", "5000", "5000", "15000", "Time between two heartbeats of a member of a consumer group, in milliseconds."),
	groupMillis("consumer.assignment.interval.ms", "1000", "0", "15000", "Shortest time between two assignments of a consumer group, in milliseconds."),
	groupMillis("share.session.timeout.ms", "45000", "45000", "60000", "Accepted for compatibility; share groups are not served."),
	groupMillis("share.heartbeat.interval.ms", "5000", "5000", "15000", "Accepted for compatibility; share groups are not served."),
	groupMillis("share.assignment.interval.ms", "1000", "0", "15000", "Accepted for compatibility; share groups are not served."),
	groupMillis("share.record.lock.duration.ms", "30000", "15000", "60000", "Accepted for compatibility; share groups are not served."),
	groupCount("share.delivery.count.limit", "5", bound{"group.share.min.delivery.count.limit", "2"}, bound{"group.share.max.delivery.count.limit", "10"}, "Accepted for compatibility; share groups are not served."),
	groupCount("share.partition.max.record.locks", "2000", bound{"group.share.min.partition.max.record.locks", "100"}, bound{"group.share.max.partition.max.record.locks", "4000"}, "Accepted for compatibility; share groups are not served."),
	{Key: Key{Name: "share.auto.offset.reset", Type: String, Default: "latest", Synonym: "share.auto.offset.reset", check: offsetReset, Doc: "Accepted for compatibility; share groups are not served."}},
	{Key: Key{Name: "share.isolation.level", Type: String, Default: "read_uncommitted", Synonym: "share.isolation.level", check: oneOf("read_committed", "read_uncommitted"), Doc: "Accepted for compatibility; share groups are not served."}},
	{Key: Key{Name: "share.renew.acknowledge.enable", Type: Boolean, Default: "true", Synonym: "share.renew.acknowledge.enable", Doc: "Accepted for compatibility; share groups are not served."}},
	groupMillis("streams.session.timeout.ms", "45000", "45000", "60000", "Accepted for compatibility; streams groups are not served."),
	groupMillis("streams.heartbeat.interval.ms", "5000", "5000", "15000", "Accepted for compatibility; streams groups are not served."),
	groupMillis("streams.assignment.interval.ms", "1000", "0", "15000", "Accepted for compatibility; streams groups are not served."),
	{Key: Key{Name: "streams.initial.rebalance.delay.ms", Type: Int, Default: "3000", Synonym: "group.streams.initial.rebalance.delay.ms", check: atLeast(0), Doc: "Accepted for compatibility; streams groups are not served."}},
	groupCount("streams.num.standby.replicas", "0", bound{}, bound{"group.streams.max.standby.replicas", "2"}, "Accepted for compatibility; streams groups are not served."),
}

// groupMillis is a time of one type of group: its synonym and bounds follow from its name, as in
// group.consumer.min.session.timeout.ms.
func groupMillis(name, def, low, high, doc string) groupKey {
	kind, setting := cutGroupName(name)
	k := groupCount(name, def, bound{"group." + kind + ".min." + setting, low}, bound{"group." + kind + ".max." + setting, high}, doc)
	k.check = atLeast(0)
	return k
}

func groupCount(name, def string, low, high bound, doc string) groupKey {
	return groupKey{Key: Key{Name: name, Type: Int, Default: def, HasDefault: true, Synonym: "group." + name, check: atLeast(0), Doc: doc}, min: low, max: high}
}

var resetByDuration = regexp.MustCompile(`^by_duration:P(\d+D)?(T(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?$`)

func offsetReset(value string) string {
	if strings.EqualFold(value, "latest") || strings.EqualFold(value, "earliest") || resetByDuration.MatchString(value) {
		return ""
	}
	return "must be latest, earliest or by_duration:<duration in ISO 8601>"
}
