package metadata

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/everlog/everlog/tier/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// dump writes an image in a way that is equal for equal images.
func dump(m *Image) string { return string(m.encodeSnapshot("dump", time.Unix(0, 0))) }

// naive is the image as maps that are copied for every change.
type naive struct {
	brokers map[int32]Broker
	topics  map[string]Topic
	configs map[string]map[string]string
	values  map[string]string
	next    record.ProducerID
	epoch   int64
}

func (n naive) of(m *Image) naive {
	n = naive{map[int32]Broker{}, map[string]Topic{}, map[string]map[string]string{}, map[string]string{}, m.NextProducerID, m.Controller.Epoch}
	for _, id := range m.BrokerIDs() {
		n.brokers[id] = *m.Broker(id)
	}
	for t := range m.Topics() {
		c := *t
		c.Partitions = slices.Clone(t.Partitions)
		n.topics[t.Name] = c
	}
	for b, c := range m.configs {
		n.configs[b] = maps.Clone(c)
	}
	for k, v := range m.Values("k") {
		n.values[k] = v
	}
	return n
}

// Random records, good and bad, against the naive model; every older image must stay what it was, and the snapshot of
// every image must read back as that image.
func TestImageAgainstNaiveModel(t *testing.T) {
	names := []string{"a", "b", "c", "d", "__consumer_offsets"}
	rapid.Check(t, func(t *rapid.T) {
		img := &Image{Version: 3, ClusterID: [16]byte{1}}
		model := naive{}.of(img)
		type past struct {
			img  *Image
			text string
		}
		var history []past
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			var r Record
			ok := true
			name := rapid.SampledFrom(names).Draw(t, "name")
			topic, exists := model.topics[name]
			switch rapid.IntRange(0, 8).Draw(t, "kind") {
			case 0:
				b := Broker{ID: rapid.Int32Range(0, 3).Draw(t, "id"), DiskID: "d", Host: "h", Port: 1}
				r = BrokerRegistered{b}
				b.Epoch = 3
				model.brokers[b.ID] = b
			case 1:
				p := Partition{Leader: 1, Replicas: []int32{1, 2}, ISR: []int32{1, 2}}
				c := TopicCreated{ID: record.NewTopicID(), Name: name, Partitions: []Partition{p, p}, Configs: map[string]string{"x": "y"}}
				r, ok = c, !exists
				if ok {
					model.topics[name] = Topic{ID: c.ID, Name: name, Created: 3, Configs: c.Configs, Partitions: []Partition{p, p}, Internal: name[0] == '_'}
				}
			case 2:
				r, ok = TopicDeleted{topic.ID}, exists
				delete(model.topics, name)
			case 3:
				p := Partition{Leader: 2, Replicas: []int32{2}, ISR: []int32{2}}
				first := int32(len(topic.Partitions)) + rapid.Int32Range(0, 1).Draw(t, "off")
				r, ok = PartitionsAdded{ID: topic.ID, First: first, Partitions: []Partition{p}}, exists && int(first) == len(topic.Partitions)
				if ok {
					topic.Partitions = append(slices.Clone(topic.Partitions), p)
					model.topics[name] = topic
				}
			case 4:
				index := rapid.Int32Range(0, 3).Draw(t, "index")
				if ok = exists && int(index) < len(topic.Partitions); !ok {
					r = PartitionChanged{ID: topic.ID, Index: index, Partition: Partition{Replicas: []int32{0}, ISR: []int32{0}}}
					break
				}
				p := topic.Partitions[index]
				p.LeaderEpoch += record.LeaderEpoch(rapid.IntRange(-1, 2).Draw(t, "epoch"))
				p.PartitionEpoch += rapid.Int32Range(0, 2).Draw(t, "version")
				p.Leader = rapid.SampledFrom([]int32{NoLeader, 1, 2, 7}).Draw(t, "leader")
				was := topic.Partitions[index]
				ok = p.PartitionEpoch == was.PartitionEpoch+1 && p.LeaderEpoch >= 0 && p.LeaderEpoch >= was.LeaderEpoch &&
					(p.Leader == was.Leader || p.LeaderEpoch > was.LeaderEpoch) && (p.Leader == NoLeader || slices.Contains(p.ISR, p.Leader))
				r = PartitionChanged{ID: topic.ID, Index: index, Partition: p}
				if ok {
					topic.Partitions = slices.Clone(topic.Partitions)
					topic.Partitions[index] = p
					model.topics[name] = topic
				}
			case 5:
				r, ok = TopicConfigured{topic.ID, map[string]string{"z": name}}, exists
				if ok {
					topic.Configs = map[string]string{"z": name}
					model.topics[name] = topic
				}
			case 6:
				r = BrokerConfigured{"1", map[string]string{"q": name}}
				model.configs["1"] = map[string]string{"q": name}
			case 7:
				first := model.next + record.ProducerID(rapid.Int64Range(0, 1).Draw(t, "gap"))
				r, ok = ProducerIDsAllocated{first, 1000}, first == model.next
				if ok {
					model.next += 1000
				}
			case 8:
				value := rapid.SampledFrom([]string{"", "v", "w"}).Draw(t, "value")
				r = ValueSet{"k", name, value}
				model.values[name] = value
				if value == "" {
					delete(model.values, name)
				}
			}
			history = append(history, past{img, dump(img)})
			next, err := img.With(r)
			if ok != (err == nil) || err != nil && !errors.Is(err, ErrInvalid) {
				t.Fatalf("%T %+v: %v", r, r, err)
			}
			if err == nil {
				changes := true
				switch r.(type) {
				case BrokerRegistered, BrokerConfigured, ProducerIDsAllocated, ValueSet:
					changes = false
				}
				if next.SameTopics(img) == changes {
					t.Fatalf("%T: the same topics: %v", r, !changes)
				}
				img = next
			}
			if d := cmp.Diff(model, naive{}.of(img), cmp.AllowUnexported(naive{})); d != "" {
				t.Fatalf("%T: %s", r, d)
			}
		}
		for i, p := range history {
			if dump(p.img) != p.text {
				t.Fatalf("image %d changed", i)
			}
		}
		back, err := decodeSnapshot([]byte(dump(img)))
		if err != nil || dump(back) != dump(img) {
			t.Fatalf("snapshot: %v", err)
		}
		for topic := range img.Topics() {
			if back.TopicByID(topic.ID).Name != topic.Name || img.Topic(topic.Name) != topic || img.TopicByID(topic.ID) != topic {
				t.Fatalf("indexes disagree on %s", topic.Name)
			}
		}
	})
}

func TestPartitionsThatCannotBe(t *testing.T) {
	for _, p := range []Partition{
		{Leader: 1, Replicas: []int32{}, ISR: []int32{}},
		{Leader: 1, Replicas: []int32{1, 1}, ISR: []int32{1}},
		{Leader: 1, Replicas: []int32{1}, ISR: []int32{1, 2}},
		{Leader: 2, Replicas: []int32{1, 2}, ISR: []int32{1}},
		{Leader: 1, LeaderEpoch: -1, Replicas: []int32{1}, ISR: []int32{1}},
		{Leader: 1, PartitionEpoch: -1, Replicas: []int32{1}, ISR: []int32{1}},
		{Leader: -2, Replicas: []int32{-2}, ISR: []int32{-2}},
	} {
		if _, err := (&Image{}).With(TopicCreated{ID: record.NewTopicID(), Name: "a", Partitions: []Partition{p}}); !errors.Is(err, ErrInvalid) {
			t.Errorf("%+v: %v", p, err)
		}
	}
}

// manyTopics is an image of n topics with 3 partitions each.
func manyTopics(tb testing.TB, n int) *Image {
	records := make([]Record, n)
	for i := range records {
		p := Partition{Leader: 1, Replicas: []int32{1, 2, 3}, ISR: []int32{1, 2, 3}}
		records[i] = TopicCreated{ID: record.NewTopicID(), Name: fmt.Sprintf("topic-%05d", i), Partitions: []Partition{p, p, p}}
	}
	img, err := (&Image{}).With(records...)
	if err != nil {
		tb.Fatal(err)
	}
	return img
}

func BenchmarkChangeOneOf10000Topics(b *testing.B) {
	img := manyTopics(b, 10_000)
	t := img.Topic("topic-05000")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := img.With(TopicConfigured{t.ID, nil}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkSnapshotOf10000Topics(b *testing.B) {
	img := manyTopics(b, 10_000)
	for b.Loop() {
		p := img.encodeSnapshot("x", time.Time{})
		if _, err := decodeSnapshot(p); err != nil {
			b.Fatal(err)
		}
		b.SetBytes(int64(len(p)))
	}
}
