package config

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func set(name, value string) Change { return Change{Name: name, Op: Set, Value: &value} }

func TestGroupSettingsAreKafkas(t *testing.T) {
	want := map[string]string{ // kafka-configs --entity-type groups --describe --all of Apache Kafka 4.3.1
		"consumer.session.timeout.ms": "45000 group.consumer.session.timeout.ms", "consumer.heartbeat.interval.ms": "5000 group.consumer.heartbeat.interval.ms",
		"consumer.assignment.interval.ms": "1000 group.consumer.assignment.interval.ms",
		"share.session.timeout.ms":        "45000 group.share.session.timeout.ms", "share.heartbeat.interval.ms": "5000 group.share.heartbeat.interval.ms",
		"share.assignment.interval.ms": "1000 group.share.assignment.interval.ms", "share.record.lock.duration.ms": "30000 group.share.record.lock.duration.ms",
		"share.delivery.count.limit": "5 group.share.delivery.count.limit", "share.partition.max.record.locks": "2000 group.share.partition.max.record.locks",
		"share.auto.offset.reset": "latest share.auto.offset.reset", "share.isolation.level": "read_uncommitted share.isolation.level",
		"share.renew.acknowledge.enable": "true share.renew.acknowledge.enable",
		"streams.session.timeout.ms":     "45000 group.streams.session.timeout.ms", "streams.heartbeat.interval.ms": "5000 group.streams.heartbeat.interval.ms",
		"streams.assignment.interval.ms": "1000 group.streams.assignment.interval.ms", "streams.initial.rebalance.delay.ms": "3000 group.streams.initial.rebalance.delay.ms",
		"streams.num.standby.replicas": "0 group.streams.num.standby.replicas",
	}
	for _, e := range DescribeGroup(nil, nil, nil) {
		if len(e.Synonyms) != 1 || e.Source != FromDefault {
			t.Errorf("%s: source %d, synonyms %+v", e.Name, e.Source, e.Synonyms)
			continue
		}
		if got := *e.Value + " " + e.Synonyms[0].Name; got != want[e.Name] {
			t.Errorf("%s is %q, want %q", e.Name, got, want[e.Name])
		}
		delete(want, e.Name)
	}
	if len(want) > 0 {
		t.Errorf("not described: %v", want)
	}
}

func TestGroupOverBroker(t *testing.T) {
	b, err := ParseBroker(map[string]string{"group.consumer.session.timeout.ms": "46000"})
	if err != nil {
		t.Fatal(err)
	}
	own, err := AlterGroup(nil, []Change{set("consumer.heartbeat.interval.ms", " 6000 ")}, b)
	if err != nil {
		t.Fatal(err)
	}
	g := Group(own, b)
	if g.SessionTimeout != 46*time.Second || g.HeartbeatInterval != 6*time.Second || g.AssignmentInterval != time.Second {
		t.Errorf("effective: %+v", g)
	}
	e := DescribeGroup(own, b, []string{"consumer.heartbeat.interval.ms", "consumer.session.timeout.ms", "nope"})
	if len(e) != 2 || e[0].Source != FromGroup || *e[0].Value != "6000" || len(e[0].Synonyms) != 2 || e[1].Source != FromStatic || *e[1].Value != "46000" {
		t.Errorf("described: %+v", e)
	}
	narrow, err := ParseBroker(map[string]string{"group.consumer.min.heartbeat.interval.ms": "7000"})
	if err != nil {
		t.Fatal(err)
	}
	if g := Group(own, narrow); g.HeartbeatInterval != 7*time.Second {
		t.Errorf("a heartbeat below the broker's bound counts as %v, want the bound", g.HeartbeatInterval)
	}
}

func TestAlterGroupRefusals(t *testing.T) {
	for _, c := range []struct {
		change Change
		kind   error
		want   string // "" is accepted
	}{
		{set("consumer.session.timeout.ms", "50000"), nil, ""},
		{Change{Name: "nope", Op: Delete}, nil, ""},
		{set("share.auto.offset.reset", "by_duration:PT1H"), nil, ""},
		{set("share.auto.offset.reset", "sideways"), ErrInvalid, "by_duration"},
		{set("nope", "1"), ErrInvalid, "Unknown group config name: nope"},
		{set("consumer.session.timeout.ms", "1"), ErrInvalid, "consumer.session.timeout.ms must be greater than or equal to group.consumer.min.session.timeout.ms"},
		{set("consumer.session.timeout.ms", "60001"), ErrInvalid, "consumer.session.timeout.ms must be less than or equal to group.consumer.max.session.timeout.ms"},
		{set("share.delivery.count.limit", "11"), ErrInvalid, "group.share.max.delivery.count.limit"},
		{set("consumer.session.timeout.ms", "x"), ErrInvalid, "Not a number of type INT"},
		{Change{Name: "consumer.session.timeout.ms", Op: Append, Value: text("1")}, ErrInvalid, "Can't APPEND to key consumer.session.timeout.ms because its type is not LIST."},
		{Change{Name: "consumer.session.timeout.ms"}, ErrRequest, "Null value not supported"},
	} {
		_, err := AlterGroup(nil, []Change{c.change}, nil)
		if (err == nil) != (c.want == "") || err != nil && (!errors.Is(err, c.kind) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.change, err, c.want)
		}
	}
	wide, err := ParseBroker(map[string]string{"group.consumer.max.heartbeat.interval.ms": "100000"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := AlterGroup(nil, []Change{set("consumer.heartbeat.interval.ms", "50000")}, wide); err == nil || !strings.Contains(err.Error(), "consumer.session.timeout.ms must be greater than consumer.heartbeat.interval.ms") {
		t.Errorf("a heartbeat longer than the session: %v", err)
	}
}
