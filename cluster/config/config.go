// Package config owns the names of all topic, broker and group settings: type, default, documentation, validation, how one
// falls back to another (a topic setting to its broker synonym, log.retention.ms to .minutes to .hours), and how an
// AlterConfigs request changes a set of them. Names, types, defaults and error sentences are those of Apache Kafka
// 4.3.1, except where everlog differs on purpose (DESIGN.md one directory up lists them).
//
// It stores nothing: values live in the metadata image and in the broker's configuration file. The controller validates
// with it, brokers read typed values from it, and ingest/kafka answers DescribeConfigs from it. All functions are pure;
// values are immutable once returned and safe for concurrent use.
package config

import (
	"errors"
	"sort"
	"strings"
)

// Type is the type of a setting, numbered as in DescribeConfigs responses.
type Type int8

// The types of Kafka's ConfigDef.
const (
	Boolean  Type = 1
	String   Type = 2
	Int      Type = 3
	Short    Type = 4
	Long     Type = 5
	Double   Type = 6
	List     Type = 7
	Class    Type = 8
	Password Type = 9
)

var typeNames = map[Type]string{Boolean: "BOOLEAN", String: "STRING", Int: "INT", Short: "SHORT", Long: "LONG",
	Double: "DOUBLE", List: "LIST", Class: "CLASS", Password: "PASSWORD"}

// String returns Kafka's word, as error sentences use it.
func (t Type) String() string { return typeNames[t] }

// Source says where a value comes from, numbered as in DescribeConfigs responses.
type Source int8

// The sources. The first five are in the order of their strength.
const (
	FromTopic          Source = 1
	FromBroker         Source = 2 // dynamic, of one broker
	FromClusterDefault Source = 3 // dynamic, of all brokers
	FromStatic         Source = 4 // the broker's configuration file or flags
	FromDefault        Source = 5
	FromLogger         Source = 6 // the level of a broker's log
	FromGroup          Source = 8 // a group's own, as FromTopic is a topic's
)

// Scope says when a broker setting can change.
type Scope int8

// The scopes ("update mode" in Kafka's documentation).
const (
	ReadOnly    Scope = iota // at a restart
	PerBroker                // at run time, for one named broker
	ClusterWide              // at run time, for one broker or for all
)

// Key describes one setting.
type Key struct {
	Name string
	Type Type
	// Default is the text of the default value; HasDefault is false for a setting that is null until set.
	Default    string
	HasDefault bool
	// Doc is one line for people.
	Doc string
	// Sensitive values are never shown.
	Sensitive bool
	// Scope is meaningful for broker settings; topic settings can always change.
	Scope Scope
	// Synonym is the broker setting a topic setting falls back to; "" if there is none.
	Synonym string

	check check
}

// ErrInvalid is wrapped by every refusal of a name or value: INVALID_CONFIG. Its sentence is Kafka's where Kafka has one.
var ErrInvalid = errors.New("invalid configuration")

// ErrReadOnly is wrapped when a setting cannot change at run time, or not on this level.
var ErrReadOnly = errors.New("configuration is read-only")

// ErrRequest is wrapped by alterations that are malformed in themselves: INVALID_REQUEST.
var ErrRequest = errors.New("invalid configuration request")

// fault is an error whose whole text is the sentence for the client, and which is one of the sentinels.
type fault struct {
	kind     error
	sentence string
}

func (f *fault) Error() string { return f.sentence }
func (f *fault) Unwrap() error { return f.kind }

func invalid(sentence string) error { return &fault{ErrInvalid, sentence} }

func invalidValue(name, value, reason string) error {
	return invalid("Invalid value " + value + " for configuration " + name + ": " + reason)
}

var (
	topicKeys  = index(topicTable)
	brokerKeys = index(brokerTable)
)

func index(table []Key) map[string]*Key {
	m := make(map[string]*Key, len(table))
	for i := range table {
		if m[table[i].Name] != nil {
			panic("setting defined twice: " + table[i].Name)
		}
		m[table[i].Name] = &table[i]
	}
	return m
}

// TopicKey returns the topic setting of that name.
func TopicKey(name string) (*Key, bool) {
	k, ok := topicKeys[name]
	return k, ok
}

// BrokerKey returns the broker setting of that name, also for the families listener.name.<listener>.<setting> and the
// plugin prefixes rsm.config. and rlmm.config. that Kafka accepts.
func BrokerKey(name string) (*Key, bool) {
	if k, ok := brokerKeys[name]; ok {
		return k, true
	}
	if rest, ok := strings.CutPrefix(name, "listener.name."); ok {
		if _, setting, ok := strings.Cut(rest, "."); ok {
			k := Key{Name: name, Type: String, Scope: ReadOnly, Doc: "Setting of one listener."}
			// A mechanism may stand between the listener and the setting: listener.name.x.plain.sasl.jaas.config.
			for s := setting; s != ""; _, s, _ = strings.Cut(s, ".") {
				if base, ok := brokerKeys[s]; ok {
					k.Type, k.Sensitive, k.Doc, k.check = base.Type, base.Sensitive, base.Doc, base.check
					break
				}
			}
			return &k, true
		}
	}
	if strings.HasPrefix(name, "rsm.config.") || strings.HasPrefix(name, "rlmm.config.") {
		return &Key{Name: name, Type: String, Doc: "Accepted for compatibility; everlog has no storage plugins."}, true
	}
	return nil, false
}

// TopicKeys returns all topic settings in name order. The keys must not be modified.
func TopicKeys() []*Key { return sorted(topicKeys) }

// BrokerKeys returns all broker settings in name order. The keys must not be modified.
func BrokerKeys() []*Key { return sorted(brokerKeys) }

func sorted(m map[string]*Key) []*Key {
	keys := make([]*Key, 0, len(m))
	for _, k := range m {
		keys = append(keys, k)
	}
	sort.Slice(keys, func(i, j int) bool { return keys[i].Name < keys[j].Name })
	return keys
}

// ValidateTopicNames refuses names that are no topic settings, with the likely one in the sentence.
func ValidateTopicNames(configs map[string]string) error {
	for _, name := range sortedNames(configs) {
		if _, ok := topicKeys[name]; !ok {
			return invalid("Unknown topic config name: " + name + didYouMean(name, topicKeys, topicNameOf))
		}
	}
	return nil
}

// UnknownBroker returns the refusal of a broker setting that does not exist.
func unknownBroker(name string) error {
	return invalid("Unknown broker config name: " + name + didYouMean(name, brokerKeys, brokerNameOf))
}

func sortedNames(m map[string]string) []string {
	names := make([]string, 0, len(m))
	for n := range m {
		names = append(names, n)
	}
	sort.Strings(names)
	return names
}
