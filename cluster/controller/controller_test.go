package controller

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/lease"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
	"github.com/everlog/everlog/tier/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// node is one process: log, lease and controller, running until stop.
type node struct {
	*Controller
	log   *metadata.Log
	lease *lease.Lease
	stop  func()
}

func start(t *testing.T, store object.Store, id int32, settings map[string]string) *node {
	t.Helper()
	return startWith(t, store, id, settings, false)
}

// startWith starts a node; one that lies never notices by its lease that it was deposed.
func startWith(t testing.TB, store object.Store, id int32, settings map[string]string, lies bool) *node {
	t.Helper()
	holder := fmt.Sprintf("disk-%d", id)
	log, err := metadata.Open(t.Context(), store, metadata.Options{})
	if err != nil {
		t.Fatal(err)
	}
	l, err := lease.New(store, lease.Options{Name: "controller", Holder: holder})
	if err != nil {
		t.Fatal(err)
	}
	static, err := config.ParseBroker(settings)
	if err != nil {
		t.Fatal(err)
	}
	var held Lease = l
	if lies {
		held = &liar{Lease: l}
	}
	n := &node{Controller: New(log, held, static, Options{BrokerID: id, Holder: holder}), log: log, lease: l}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	var all sync.WaitGroup
	for _, run := range []func(context.Context) error{l.Run, n.Run, log.Follow} {
		all.Go(func() {
			if err := run(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("broker %d: %v", id, err)
			}
		})
	}
	n.stop = func() { cancel(); all.Wait() }
	return n
}

func (n *node) register(t *testing.T, ids ...int32) {
	t.Helper()
	for _, id := range ids {
		if _, err := n.RegisterBroker(t.Context(), registration(id)); err != nil {
			t.Fatal(err)
		}
	}
}

func registration(id int32) Registration {
	return Registration{ID: id, DiskID: fmt.Sprintf("disk-%d", id), Host: "localhost", Port: 9092 + id, Rack: string('a' + rune(id)%2)}
}

func value(s string) *string { return &s }

// The whole start of a broker on an empty prefix, up to its first topic, in store operations: what `start to first ack`
// is made of. Each write costs two fsyncs in a directory, and some 30 ms on S3.
func TestStartToFirstTopicInStoreOperations(t *testing.T) {
	var trace []string
	store := objecttest.NewFaulty(object.NewMemory(), func(c objecttest.Call) objecttest.Fault {
		trace = append(trace, c.Op+" "+c.Name)
		return objecttest.Fault{}
	})
	n := start(t, store, 0, nil)
	n.register(t, 0)
	if r := n.CreateTopics(t.Context(), []NewTopic{{Name: "first", Partitions: -1, ReplicationFactor: -1}}, false); r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
	count := store.Calls()
	n.stop()
	want := []string{
		"get cluster.json", "list meta/", "put cluster.json", // no cluster: make one
		"get lease/controller", "put lease/controller",
		"put meta/log/00000000000000000001", "get cluster.json", "get meta/root", // controller and broker, on what was there
		"put meta/log/00000000000000000002", "get meta/log/00000000000000000001", "get meta/root", // topic
	}
	if d := cmp.Diff(want, trace[:count]); d != "" {
		t.Error(d)
	}
}

func TestRestartInStoreOperations(t *testing.T) {
	memory := object.NewMemory()
	n := start(t, memory, 0, nil)
	n.register(t, 0)
	n.stop()
	store := objecttest.NewFaulty(memory, nil)
	n = start(t, store, 0, nil)
	n.register(t, 0)
	count := store.Calls()
	n.stop()
	// cluster.json, root, list, log/1, list, log/2 (absent), root; lease twice; log/2, log/1 and root.
	if count > 12 {
		t.Errorf("%d operations, want 12 at most", count)
	}
}

func TestCreateTopicsRefusals(t *testing.T) {
	n := start(t, object.NewMemory(), 0, map[string]string{"num.partitions": "3"})
	defer n.stop()
	n.register(t, 0, 1, 2)
	if r := n.CreateTopics(t.Context(), []NewTopic{{Name: "is.there", Partitions: 1, ReplicationFactor: 1}}, false); r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
	plain := func(name string) NewTopic { return NewTopic{Name: name, Partitions: 1, ReplicationFactor: 1} }
	manual := func(a map[int32][]int32) NewTopic {
		return NewTopic{Name: "manual", Partitions: -1, ReplicationFactor: -1, Assignments: a}
	}
	for _, c := range []struct {
		topics []NewTopic
		kind   error
		says   string
	}{
		{[]NewTopic{plain("")}, ErrInvalidTopicName, "Topic name is invalid: the empty string is not allowed"},
		{[]NewTopic{plain("..")}, ErrInvalidTopicName, "Topic name is invalid: '.' or '..' is not allowed"},
		{[]NewTopic{plain("a/b")}, ErrInvalidTopicName, "Topic name is invalid: 'a/b' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"},
		{[]NewTopic{plain(strings.Repeat("x", 250))}, ErrInvalidTopicName, "is longer than the max allowed length 249"},
		{[]NewTopic{plain("is_there")}, ErrInvalidTopicName, "Topic 'is_there' collides with existing topic: is.there"},
		{[]NewTopic{plain("is.there")}, ErrTopicExists, "Topic 'is.there' already exists."},
		{[]NewTopic{plain("twice"), plain("twice")}, ErrInvalidRequest, "Duplicate topic name."},
		{[]NewTopic{{Name: "x", Partitions: 0, ReplicationFactor: 1}}, ErrInvalidPartitions, "Number of partitions was set to an invalid non-positive value."},
		{[]NewTopic{{Name: "x", Partitions: -2, ReplicationFactor: 1}}, ErrInvalidPartitions, "Number of partitions was set to an invalid non-positive value."},
		{[]NewTopic{{Name: "x", Partitions: 1, ReplicationFactor: 0}}, ErrInvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value."},
		{[]NewTopic{{Name: "x", Partitions: 1, ReplicationFactor: 4}}, ErrInvalidReplicationFactor, "only 3 broker(s) are registered."},
		{[]NewTopic{{Name: "x", Partitions: 10001, ReplicationFactor: 1}}, ErrPolicy, "Excessively large number of partitions per request."},
		{[]NewTopic{{Name: "x", Partitions: 1, ReplicationFactor: 1, Configs: map[string]*string{"retention.ms": value("x")}}}, ErrInvalidConfig, "Not a number of type LONG"},
		{[]NewTopic{{Name: "x", Partitions: 1, ReplicationFactor: 1, Configs: map[string]*string{"retention.ms": nil}}}, ErrInvalidConfig, "Null value not supported for topic configs: retention.ms"},
		{[]NewTopic{{Name: "x", Partitions: 1, ReplicationFactor: 1, Configs: map[string]*string{"no.such": value("x")}}}, ErrInvalidConfig, "Unknown topic config name: no.such"},
		{[]NewTopic{{Name: "x", Partitions: 1, ReplicationFactor: 1, Configs: map[string]*string{"local.retention.ms": value("-1")}}}, ErrInvalidConfig, "Value must not be -1"},
		{[]NewTopic{{Name: "x", Partitions: 1, ReplicationFactor: -1, Assignments: map[int32][]int32{0: {0}}}}, ErrInvalidRequest, "numPartitions was not set to -1."},
		{[]NewTopic{{Name: "x", Partitions: -1, ReplicationFactor: 1, Assignments: map[int32][]int32{0: {0}}}}, ErrInvalidRequest, "replication factor was not set to -1."},
		{[]NewTopic{manual(map[int32][]int32{1: {0}})}, ErrInvalidAssignment, "consecutive 0-based integer sequence"},
		{[]NewTopic{manual(map[int32][]int32{0: {}})}, ErrInvalidAssignment, "empty replica list"},
		{[]NewTopic{manual(map[int32][]int32{0: {0, 0}})}, ErrInvalidAssignment, "includes the broker 0 more than once."},
		{[]NewTopic{manual(map[int32][]int32{0: {9}})}, ErrInvalidAssignment, "includes broker 9, but no such broker is registered."},
		{[]NewTopic{manual(map[int32][]int32{0: {0, 1}, 1: {2}})}, ErrInvalidAssignment, "not consistent with previous partitions, which have 2 replica(s)."},
	} {
		for _, r := range n.CreateTopics(t.Context(), c.topics, false) {
			if !errors.Is(r.Err, c.kind) || !strings.Contains(r.Err.Error(), c.says) {
				t.Errorf("%+v: %v, want %v: %s", c.topics, r.Err, c.kind, c.says)
			}
		}
	}
	if got := n.log.Image().TopicCount(); got != 1 {
		t.Errorf("%d topics after refusals, want 1", got)
	}
}

func TestTopicLife(t *testing.T) {
	n := start(t, object.NewMemory(), 0, map[string]string{"num.partitions": "3", "default.replication.factor": "2"})
	defer n.stop()
	n.register(t, 0, 1, 2)
	ctx := t.Context()
	ask := []NewTopic{{Name: "a", Partitions: -1, ReplicationFactor: -1, Configs: map[string]*string{"cleanup.policy": value("compact"), "remote.storage.enable": value("false")}},
		{Name: "bad name", Partitions: 1, ReplicationFactor: 1},
		{Name: "m", Partitions: -1, ReplicationFactor: -1, Assignments: map[int32][]int32{0: {2, 0}, 1: {1, 2}}}}
	dry := n.CreateTopics(ctx, ask, true)
	if dry[0].Err != nil || dry[0].Partitions != 3 || n.log.Image().TopicCount() != 0 {
		t.Fatalf("validate only: %+v, %d topics", dry[0], n.log.Image().TopicCount())
	}
	r := n.CreateTopics(ctx, ask, false)
	a := n.log.Image().Topic("a")
	if r[0].Err != nil || r[1].Err == nil || r[2].Err != nil || a == nil || a.ID != r[0].ID || r[0].ReplicationFactor != 2 ||
		!cmp.Equal(r[0].Configs, map[string]string{"cleanup.policy": "compact", "remote.storage.enable": "false"}) {
		t.Fatalf("%+v", r)
	}
	m := n.log.Image().Topic("m")
	want := []metadata.Partition{{Leader: 2, Replicas: []int32{2, 0}, ISR: []int32{2, 0}}, {Leader: 1, Replicas: []int32{1, 2}, ISR: []int32{1, 2}}}
	if d := cmp.Diff(want, m.Partitions); d != "" {
		t.Error(d)
	}

	for _, c := range []struct {
		g    Growth
		kind error
		says string
	}{
		{Growth{Name: "none", Count: 5}, ErrUnknownTopic, "does not host"},
		{Growth{Name: "m", Count: 2}, ErrInvalidPartitions, "Topic already has 2 partition(s)."},
		{Growth{Name: "m", Count: 1}, ErrInvalidPartitions, "The topic m currently has 2 partition(s); 1 would not be an increase."},
		{Growth{Name: "m", Count: 4, Assignments: [][]int32{{0, 1}}}, ErrInvalidAssignment, "Attempted to add 2 additional partition(s), but only 1 assignment(s) were specified."},
		{Growth{Name: "m", Count: 3, Assignments: [][]int32{{0}}}, ErrInvalidAssignment, "not consistent"},
		{Growth{Name: "m", Count: 10003}, ErrPolicy, "Excessively"},
	} {
		if r := n.CreatePartitions(ctx, []Growth{c.g}, false); !errors.Is(r[0].Err, c.kind) || !strings.Contains(r[0].Err.Error(), c.says) {
			t.Errorf("%+v: %v", c.g, r[0].Err)
		}
	}
	if r := n.CreatePartitions(ctx, []Growth{{Name: "m", Count: 3, Assignments: [][]int32{{0, 1}}}, {Name: "a", Count: 5}}, false); r[0].Err != nil || r[1].Err != nil {
		t.Fatalf("%+v", r)
	}
	if got := len(n.log.Image().Topic("a").Partitions); got != 5 {
		t.Errorf("a has %d partitions", got)
	}

	// Delete and create again in quick succession: a new id, and nothing of the old one.
	if r := n.DeleteTopics(ctx, []TopicRef{{Name: "a"}, {Name: "none"}, {ID: m.ID}, {ID: record.NewTopicID()}}); r[0].Err != nil || r[2].Err != nil ||
		!errors.Is(r[1].Err, ErrUnknownTopic) || !errors.Is(r[3].Err, ErrUnknownTopicID) || r[2].Name != "m" {
		t.Fatalf("%+v", r)
	}
	again := n.CreateTopics(ctx, []NewTopic{{Name: "a", Partitions: 1, ReplicationFactor: 1}}, false)
	if again[0].Err != nil || again[0].ID == a.ID || n.log.Image().TopicByID(a.ID) != nil {
		t.Errorf("%+v", again[0])
	}
}

func TestDeletionDisabled(t *testing.T) {
	n := start(t, object.NewMemory(), 0, map[string]string{"delete.topic.enable": "false"})
	defer n.stop()
	n.register(t, 0)
	n.CreateTopics(t.Context(), []NewTopic{{Name: "a", Partitions: 1, ReplicationFactor: 1}}, false)
	if r := n.DeleteTopics(t.Context(), []TopicRef{{Name: "a"}}); !errors.Is(r[0].Err, ErrDeletionDisabled) {
		t.Error(r[0].Err)
	}
}

func TestAlterConfigs(t *testing.T) {
	n := start(t, object.NewMemory(), 0, nil)
	defer n.stop()
	ctx := t.Context()
	n.register(t, 0)
	n.CreateTopics(ctx, []NewTopic{{Name: "a", Partitions: 1, ReplicationFactor: 1, Configs: map[string]*string{"segment.ms": value("9000")}}}, false)
	set := func(name, v string) []config.Change { return []config.Change{{Name: name, Op: config.Set, Value: &v}} }
	errs := n.AlterConfigs(ctx, []ConfigChange{
		{TopicResource, "a", set("retention.ms", "5")},
		{TopicResource, "none", set("retention.ms", "5")},
		{BrokerResource, "", set("log.retention.ms", "7000")},
		{BrokerResource, "0", set("log.dirs", "/x")},
		{BrokerResource, "zero", set("tier.seal.ms", "5000")},
		{BrokerResource, "0", set("tier.seal.ms", "5000")},
		{9, "a", nil},
		{BrokerResource, "7", set("tier.seal.ms", "5000")}}, false)
	for i, kind := range []error{nil, ErrUnknownTopic, nil, ErrInvalidRequest, ErrInvalidRequest, ErrInvalidRequest, ErrInvalidRequest, nil} {
		if !errors.Is(errs[i], kind) {
			t.Errorf("%d: %v, want %v", i, errs[i], kind)
		}
	}
	if err := n.AlterConfigs(ctx, []ConfigChange{{BrokerResource, "0", set("log.dirs", "/x")}}, false)[0]; !errors.Is(err, config.ErrReadOnly) {
		t.Error(err)
	}
	img := n.log.Image()
	if d := cmp.Diff(map[string]string{"retention.ms": "5", "segment.ms": "9000"}, img.Topic("a").Configs); d != "" {
		t.Error(d)
	}
	// The cluster's new default holds for the next topic's validation: local retention above it is refused.
	if r := n.CreateTopics(ctx, []NewTopic{{Name: "b", Partitions: 1, ReplicationFactor: 1, Configs: map[string]*string{"local.retention.ms": value("8000")}}}, false); !errors.Is(r[0].Err, ErrInvalidConfig) {
		t.Error(r[0].Err)
	}
	if err := n.LegacyAlterConfigs(ctx, []ConfigChange{{TopicResource, "a", set("retention.ms", "6")}}, true)[0]; err != nil || n.log.Image().Version != img.Version {
		t.Errorf("validate only: %v", err)
	}
	if err := n.LegacyAlterConfigs(ctx, []ConfigChange{{TopicResource, "a", set("retention.ms", "6")}}, false)[0]; err != nil {
		t.Error(err)
	}
	if d := cmp.Diff(map[string]string{"retention.ms": "6"}, n.log.Image().Topic("a").Configs); d != "" {
		t.Error(d)
	}
	before := n.log.Image().Version
	if err := n.AlterConfigs(ctx, []ConfigChange{{TopicResource, "a", set("retention.ms", "6")}}, false)[0]; err != nil || n.log.Image().Version != before {
		t.Errorf("a change that changes nothing made a commit: %v", err)
	}
}

// Many requests at once make few commits, and every one gets its own answer.
func TestGroupCommit(t *testing.T) {
	store := objecttest.NewFaulty(object.NewMemory(), func(c objecttest.Call) objecttest.Fault {
		if c.Op == "put" && strings.HasPrefix(c.Name, "meta/log/") {
			return objecttest.Fault{Delay: 5 * time.Millisecond}
		}
		return objecttest.Fault{}
	})
	n := start(t, store, 0, nil)
	defer n.stop()
	n.register(t, 0)
	const requests = 200
	first := n.log.Image().Version
	var all sync.WaitGroup
	ids := make([]record.ProducerID, requests)
	for i := range requests {
		all.Go(func() {
			if i%2 == 0 {
				r := n.CreateTopics(t.Context(), []NewTopic{{Name: fmt.Sprintf("t%d", i/4), Partitions: 1, ReplicationFactor: 1}}, false)
				if r[0].Err != nil && !errors.Is(r[0].Err, ErrTopicExists) {
					t.Error(r[0].Err)
				}
				return
			}
			var err error
			if ids[i], err = n.AllocateProducerIDs(t.Context(), 1000); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	seen := map[record.ProducerID]bool{}
	for i := 1; i < requests; i += 2 {
		if seen[ids[i]] || ids[i]%1000 != 0 {
			t.Fatalf("block %d given twice, or crooked", ids[i])
		}
		seen[ids[i]] = true
	}
	img := n.log.Image()
	if commits := img.Version - first; commits > requests/4 || img.TopicCount() != requests/4 || img.NextProducerID != requests/2*1000 {
		t.Errorf("%d commits, %d topics, next id %d", commits, img.TopicCount(), img.NextProducerID)
	}
}
