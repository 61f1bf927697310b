package metadata

import (
	"encoding/base64"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/everlog/everlog/tier/record"
)

// digest is the SHA-256 of an object's bytes.
type digest [32]byte

// Image is the state of a cluster after one commit. Immutable and safe for concurrent use; nothing reached from it may be
// modified. A new image shares with the old one whatever did not change: a commit on a cluster of thousands of topics
// copies two slices of pointers.
type Image struct {
	// Version is the number of the newest commit in it; 0 for a new cluster.
	Version uint64
	// ClusterID never changes.
	ClusterID [16]byte
	// Controller is who committed last under a new epoch.
	Controller Controller
	// NextProducerID is the first that was never allocated.
	NextProducerID record.ProducerID

	last    digest   // of the object of Version; of cluster.json for version 0
	byName  []*Topic // sorted by name
	byID    []*Topic // sorted by id
	brokers map[int32]*Broker
	configs map[string]map[string]string // of brokers: "" = all, else the decimal id
	values  map[string]map[string]string // by kind
}

// ClusterIDString returns the cluster's id as Kafka prints it: 22 characters.
func (m *Image) ClusterIDString() string { return base64.RawURLEncoding.EncodeToString(m.ClusterID[:]) }

// Topic returns the topic of that name, or nil.
func (m *Image) Topic(name string) *Topic {
	if i, ok := findName(m.byName, name); ok {
		return m.byName[i]
	}
	return nil
}

// TopicByID returns the topic with that id, or nil.
func (m *Image) TopicByID(id record.TopicID) *Topic {
	if i, ok := findID(m.byID, id); ok {
		return m.byID[i]
	}
	return nil
}

// Topics yields all topics in name order.
func (m *Image) Topics() iter.Seq[*Topic] { return slices.Values(m.byName) }

// SameTopics says whether one image was made of the other without a change to any topic.
func (m *Image) SameTopics(o *Image) bool {
	return len(m.byName) == len(o.byName) && (len(m.byName) == 0 || &m.byName[0] == &o.byName[0])
}

// TopicCount returns the number of topics.
func (m *Image) TopicCount() int { return len(m.byName) }

// Broker returns the registered broker with that id, or nil.
func (m *Image) Broker(id int32) *Broker { return m.brokers[id] }

// BrokerIDs returns the ids of all registered brokers in ascending order. The slice is the caller's.
func (m *Image) BrokerIDs() []int32 { return slices.Sorted(maps.Keys(m.brokers)) }

// ClusterConfigs returns the settings changed at run time for all brokers.
func (m *Image) ClusterConfigs() map[string]string { return m.configs[""] }

// BrokerConfigs returns the settings changed at run time for all brokers, and those for this one.
func (m *Image) BrokerConfigs(id int32) (cluster, own map[string]string) {
	return m.configs[""], m.configs[strconv.Itoa(int(id))]
}

// Values returns the values of one kind by key: what other packages keep in the log (see ValueSet).
func (m *Image) Values(kind string) map[string]string { return m.values[kind] }

// With returns the image as the records would leave it, under the same version. ErrInvalid.
func (m *Image) With(records ...Record) (*Image, error) {
	d := newDraft(m)
	if err := d.applyAll(records); err != nil {
		return nil, err
	}
	return d.img, nil
}

func findName(topics []*Topic, name string) (int, bool) {
	return slices.BinarySearchFunc(topics, name, func(t *Topic, n string) int { return strings.Compare(t.Name, n) })
}

func findID(topics []*Topic, id record.TopicID) (int, bool) {
	return slices.BinarySearchFunc(topics, id, func(t *Topic, id record.TopicID) int { return slices.Compare(t.ID[:], id[:]) })
}

// draft is an image being made. It copies each part of the base the first time that it changes it.
type draft struct {
	img        *Image
	ownTopics  bool
	ownTopic   map[record.TopicID]bool
	ownBrokers bool
	ownConfigs bool
	ownValues  map[string]bool
}

func newDraft(base *Image) *draft {
	img := *base
	return &draft{img: &img, ownTopic: map[record.TopicID]bool{}, ownValues: map[string]bool{}}
}

// topics makes the two slices of topics the draft's own.
func (d *draft) topics() {
	if !d.ownTopics {
		d.ownTopics = true
		d.img.byName, d.img.byID = slices.Clone(d.img.byName), slices.Clone(d.img.byID)
	}
}

func (d *draft) addTopic(t *Topic) {
	d.topics()
	i, _ := findName(d.img.byName, t.Name)
	d.img.byName = slices.Insert(d.img.byName, i, t)
	i, _ = findID(d.img.byID, t.ID)
	d.img.byID = slices.Insert(d.img.byID, i, t)
	d.ownTopic[t.ID] = true
}

func (d *draft) removeTopic(t *Topic) {
	d.topics()
	i, _ := findName(d.img.byName, t.Name)
	d.img.byName = slices.Delete(d.img.byName, i, i+1)
	i, _ = findID(d.img.byID, t.ID)
	d.img.byID = slices.Delete(d.img.byID, i, i+1)
}

// topic returns a topic that the draft may modify, or nil.
func (d *draft) topic(id record.TopicID) *Topic {
	t := d.img.TopicByID(id)
	if t == nil || d.ownTopic[id] {
		return t
	}
	d.topics()
	c := *t
	c.Partitions = slices.Clone(t.Partitions)
	i, _ := findName(d.img.byName, t.Name)
	d.img.byName[i] = &c
	i, _ = findID(d.img.byID, id)
	d.img.byID[i] = &c
	d.ownTopic[id] = true
	return &c
}

func (d *draft) setBroker(b *Broker) {
	if !d.ownBrokers {
		d.ownBrokers = true
		d.img.brokers = cloneMap(d.img.brokers)
	}
	d.img.brokers[b.ID] = b
}

func (d *draft) setConfigs(broker string, configs map[string]string) {
	if !d.ownConfigs {
		d.ownConfigs = true
		d.img.configs = cloneMap(d.img.configs)
	}
	if len(configs) == 0 {
		delete(d.img.configs, broker)
		return
	}
	d.img.configs[broker] = maps.Clone(configs)
}

func (d *draft) setValue(kind, key, value string) {
	if !d.ownValues[kind] {
		if len(d.ownValues) == 0 {
			d.img.values = cloneMap(d.img.values)
		}
		d.ownValues[kind] = true
		d.img.values[kind] = cloneMap(d.img.values[kind])
	}
	if value != "" {
		d.img.values[kind][key] = value
		return
	}
	delete(d.img.values[kind], key)
	if len(d.img.values[kind]) == 0 {
		delete(d.img.values, kind)
		delete(d.ownValues, kind)
	}
}

func cloneMap[K comparable, V any](m map[K]V) map[K]V {
	c := make(map[K]V, len(m)+1)
	maps.Copy(c, m)
	return c
}
