package config

import "slices"

// Entry is one setting as DescribeConfigs answers it.
type Entry struct {
	Name string
	// Value is null for a setting that is unset or sensitive.
	Value     *string
	Type      Type
	Source    Source
	ReadOnly  bool
	Sensitive bool
	Doc       string
	// Synonyms are all values the setting could take, the effective one first. Values of sensitive settings are null.
	Synonyms []Synonym
}

// Synonym is one candidate value of a setting.
type Synonym struct {
	Name   string
	Value  *string
	Source Source
}

// DescribeTopic returns the effective settings of a topic in name order; only those named, if names is not nil. Names
// that do not exist are left out, as in Kafka.
func DescribeTopic(configs map[string]string, b *Broker, names []string) []Entry {
	if b == nil {
		b = defaults
	}
	v := topicView{configs, b}
	var entries []Entry
	for _, k := range TopicKeys() {
		if wanted(k.Name, names) {
			e := entry(k, v.chain(k))
			// Kafka names the default of the first broker synonym alone: not those it falls back to, nor the topic's own.
			e.Synonyms = slices.DeleteFunc(e.Synonyms, func(s Synonym) bool { return s.Source == FromDefault && s.Name != k.Synonym })
			entries = append(entries, e)
		}
	}
	return entries
}

// Describe returns the effective settings of a broker in name order; only those named, if names is not nil.
func (b *Broker) Describe(names []string) []Entry {
	var entries []Entry
	for _, k := range b.known() {
		if wanted(k.Name, names) {
			e := entry(k, b.chain(k.Name))
			e.ReadOnly = k.Scope == ReadOnly
			entries = append(entries, e)
		}
	}
	return entries
}

// DescribeClusterDefaults returns the cluster-wide dynamic settings, which Kafka answers for the broker resource "".
func DescribeClusterDefaults(cluster map[string]string, names []string) []Entry {
	var entries []Entry
	for _, name := range sortedNames(cluster) {
		if k, ok := BrokerKey(name); ok && wanted(name, names) {
			entries = append(entries, entry(k, []layered{{name, cluster[name], FromClusterDefault, 1}}))
		}
	}
	return entries
}

// known returns the registry plus the members of families (listener.name.…) that are set.
func (b *Broker) known() []*Key {
	all := make(map[string]*Key, len(brokerKeys))
	for name, k := range brokerKeys {
		all[name] = k
	}
	for _, layer := range []map[string]string{b.own, b.cluster, b.static} {
		for name := range layer {
			if k, ok := BrokerKey(name); ok {
				all[name] = k
			}
		}
	}
	return sorted(all)
}

func wanted(name string, names []string) bool {
	if names == nil {
		return true
	}
	for _, n := range names {
		if n == name {
			return true
		}
	}
	return false
}

func entry(k *Key, chain []layered) Entry {
	e := Entry{Name: k.Name, Type: k.Type, Source: FromDefault, Sensitive: k.Sensitive, Doc: k.Doc}
	for i, l := range chain {
		s := Synonym{Name: l.name, Source: l.source}
		if !k.Sensitive {
			value := l.value // a synonym shows its own unit, the entry shows the effective one
			s.Value = &value
		}
		if i == 0 {
			e.Source = l.source
			if !k.Sensitive {
				value := l.text()
				e.Value = &value
			}
		}
		e.Synonyms = append(e.Synonyms, s)
	}
	return e
}
