package config

import (
	"slices"
	"strconv"
	"strings"
	"time"
)

// GroupConfig is the effective configuration of a consumer group: its own settings over the broker's. Immutable.
type GroupConfig struct {
	// SessionTimeout, HeartbeatInterval and AssignmentInterval are for the consumer protocol (KIP-848): a classic member
	// brings its own session timeout.
	SessionTimeout     time.Duration
	HeartbeatInterval  time.Duration
	AssignmentInterval time.Duration
}

var groupKeys = func() map[string]*groupKey {
	m := map[string]*groupKey{}
	for i := range groupTable {
		m[groupTable[i].Name] = &groupTable[i]
	}
	return m
}()

// cutGroupName splits consumer.session.timeout.ms into the type of group and the rest.
func cutGroupName(name string) (kind, setting string) {
	kind, setting, _ = strings.Cut(name, ".")
	return kind, setting
}

// groupView reads the effective texts of one group.
type groupView struct {
	own    map[string]string
	broker *Broker
}

// chain returns every value a group setting could take, strongest first.
func (v groupView) chain(k *groupKey) []layered {
	var all []layered
	if value, ok := v.own[k.Name]; ok {
		all = append(all, layered{k.Name, value, FromGroup, 1})
	}
	if _, ok := brokerKeys[k.Synonym]; ok {
		return append(all, v.broker.chain(k.Synonym)...)
	}
	return append(all, layered{k.Synonym, k.Default, FromDefault, 1})
}

func (v groupView) int(name string) int64 {
	n, _ := strconv.ParseInt(v.chain(groupKeys[name])[0].text(), 10, 64)
	return n
}

// limit is the value of a bound; ok is false if there is none.
func (v groupView) limit(b bound) (n int64, ok bool) {
	if b.name == "" {
		return 0, false
	}
	text := b.value
	if _, known := brokerKeys[b.name]; known {
		text = v.broker.Text(b.name)
	}
	n, err := strconv.ParseInt(text, 10, 64)
	return n, err == nil
}

// Group returns the effective configuration of a group with these settings on this broker; a nil broker stands for the
// defaults. What lies outside the broker's bounds (they may have changed since) counts as the bound.
func Group(own map[string]string, b *Broker) *GroupConfig {
	if b == nil {
		b = defaults
	}
	v := groupView{own, b}
	bounded := func(name string) time.Duration {
		k, n := groupKeys[name], v.int(name)
		if low, ok := v.limit(k.min); ok {
			n = max(n, low)
		}
		if high, ok := v.limit(k.max); ok {
			n = min(n, high)
		}
		return millis(n)
	}
	return &GroupConfig{SessionTimeout: bounded("consumer.session.timeout.ms"), HeartbeatInterval: bounded("consumer.heartbeat.interval.ms"), AssignmentInterval: bounded("consumer.assignment.interval.ms")}
}

// DescribeGroup returns the effective settings of a group in name order; only those named, if names is not nil. Names that
// do not exist are left out.
func DescribeGroup(own map[string]string, b *Broker, names []string) []Entry {
	if b == nil {
		b = defaults
	}
	v := groupView{own, b}
	var entries []Entry
	for i := range groupTable {
		if k := &groupTable[i]; wanted(k.Name, names) {
			entries = append(entries, entry(&k.Key, v.chain(k)))
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int { return strings.Compare(a.Name, b.Name) })
	return entries
}

// AlterGroup returns a group's settings after the changes, validated as a whole; current is not modified.
func AlterGroup(current map[string]string, changes []Change, b *Broker) (map[string]string, error) {
	if b == nil {
		b = defaults
	}
	if err := wellFormed(changes); err != nil {
		return nil, err
	}
	after := clone(current)
	for _, c := range changes {
		k, ok := groupKeys[c.Name]
		switch {
		case ok:
			if err := apply(after, &k.Key, c, groupView{after, b}.chain(k)[0].text()); err != nil {
				return nil, err
			}
		case c.Op == Delete: // lets an operator remove what another version left behind
			delete(after, c.Name)
		default:
			return nil, invalid("Unknown group config name: " + c.Name)
		}
	}
	return after, groupView{after, b}.validate()
}

// validate checks the bounds that the broker sets, and the rules between settings. The first fault alone is told, as in Kafka.
func (v groupView) validate() error {
	for i := range groupTable {
		k := &groupTable[i]
		if _, set := v.own[k.Name]; !set || k.Type != Int {
			continue
		}
		n := v.int(k.Name)
		if low, ok := v.limit(k.min); ok && n < low {
			return invalid(k.Name + " must be greater than or equal to " + k.min.name)
		}
		if high, ok := v.limit(k.max); ok && n > high {
			return invalid(k.Name + " must be less than or equal to " + k.max.name)
		}
	}
	for _, kind := range []string{"consumer", "share", "streams"} {
		session, heartbeat := kind+".session.timeout.ms", kind+".heartbeat.interval.ms"
		if v.int(session) <= v.int(heartbeat) {
			return invalid(session + " must be greater than " + heartbeat)
		}
	}
	return nil
}
