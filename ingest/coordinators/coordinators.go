// Package coordinators owns the coordinator partitions that this broker leads: it makes __consumer_offsets and
// __transaction_state on demand, runs one shard (cluster/coordinator) per partition led here, finds the shard of a group
// or transactional id, and writes the markers that end transactions. The rules of groups and transactions are cluster/group
// and cluster/txn; requests come from ingest/kafka. cmd/node makes and runs it.
package coordinators

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/cluster/group"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/cluster/txn"
	"github.com/everlog/everlog/ingest/broker"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/record"
)

// The internal topics.
const (
	OffsetsTopic = "__consumer_offsets"
	TxnTopic     = "__transaction_state"
)

// Internal reports whether a topic is a coordinator's.
func Internal(topic string) bool { return topic == OffsetsTopic || topic == TxnTopic }

var (
	// ErrLoading means that the coordinator's log is being replayed. Retriable.
	ErrLoading = coordinator.ErrLoading
	// ErrNotCoordinator means that another broker is the coordinator, or none at the moment. Retriable.
	ErrNotCoordinator = coordinator.ErrNotCoordinator
	// ErrNotAvailable means that the internal topic could not be made. Retriable.
	ErrNotAvailable = errors.New("coordinator is not available")
)

// Coordinators are those of one broker. Its methods are safe for concurrent use.
type Coordinators struct {
	broker *broker.Broker
	log    *slog.Logger

	mu     sync.RWMutex
	shards map[place]*running
}

// place is one partition of an internal topic.
type place struct {
	topic     string
	partition int32
}

// running is a shard led here.
type running struct {
	*coordinator.Shard
	log    *partitionLog
	topic  record.TopicID
	epoch  record.LeaderEpoch // of the image that started it
	cancel context.CancelFunc
	done   chan struct{}

	telling sync.Mutex
	told    *metadata.Image // whose topics the shard was told last
}

// New returns coordinators that start with Run.
func New(b *broker.Broker, log *slog.Logger) *Coordinators {
	return &Coordinators{broker: b, log: log, shards: map[place]*running{}}
}

// Run starts and ends shards as the metadata changes, until ctx ends and all have ended.
func (c *Coordinators) Run(ctx context.Context) error {
	defer c.stop()
	shown := uint64(0)
	for {
		changed := c.broker.Changed() // before the image is read: no change is missed
		if img := c.broker.Image(); img.Version != shown {
			shown = img.Version
			c.follow(ctx, img)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil
		}
	}
}

// follow makes the shards those that the image has this broker lead, and tells groups of changed topics.
func (c *Coordinators) follow(ctx context.Context, img *metadata.Image) {
	want := map[place]*metadata.Topic{}
	for _, name := range []string{OffsetsTopic, TxnTopic} {
		t := img.Topic(name)
		if t == nil {
			continue
		}
		for i := range t.Partitions {
			if t.Partitions[i].Leader == c.broker.ID() {
				want[place{name, int32(i)}] = t
			}
		}
	}
	c.mu.Lock()
	var ended []*running
	for at, r := range c.shards {
		if t := want[at]; t == nil || t.ID != r.topic || t.Partitions[at.partition].LeaderEpoch != r.epoch {
			ended = append(ended, r)
			delete(c.shards, at)
		}
	}
	for _, r := range ended {
		r.cancel()
	}
	c.mu.Unlock()
	for _, r := range ended {
		<-r.done // one machine of a log at a time
	}
	c.mu.Lock()
	for at, t := range want {
		if c.shards[at] == nil {
			c.shards[at] = c.start(ctx, at, t)
		}
	}
	c.mu.Unlock()
	for at, r := range c.all() {
		if at.topic == OffsetsTopic {
			c.tell(r, false)
		}
	}
}

// tell gives a shard of groups what the newest image says of topics and of groups' settings. An image of before the store
// went away may lack a topic that was made since: by it no offsets may be removed. So staleness is asked first, and then the
// newest image, whether or not the broker has applied it. A shard that has just loaded is told in any case, others only of
// topics that changed: groups look at all of their topics then.
func (c *Coordinators) tell(r *running, loaded bool) {
	r.telling.Lock() // an older image must not be told after a newer
	defer r.telling.Unlock()
	stale, img := c.broker.Metadata.Stale(), c.broker.Metadata.Image()
	r.Start(configured(img, c.broker.Config()))
	if !stale && (loaded || r.told == nil || !img.SameTopics(r.told)) {
		r.told = img
		r.Start(group.TopicsChanged{Topics: topicsOf(img)})
	}
}

// start runs the shard of one partition.
func (c *Coordinators) start(ctx context.Context, at place, t *metadata.Topic) *running {
	ctx, cancel := context.WithCancel(ctx)
	r := &running{topic: t.ID, epoch: t.Partitions[at.partition].LeaderEpoch, cancel: cancel, done: make(chan struct{})}
	markers := &writers{parent: ctx}
	l := &partitionLog{broker: c.broker, topic: t, index: at.partition}
	r.log = l
	parts := coordinator.Parts{Log: l, Load: l.load, Now: time.Now, Logger: c.log.With("topic", at.topic, "partition", at.partition)}
	if at.topic == OffsetsTopic {
		parts.Machine = func() coordinator.Machine {
			return group.New(groupOptions(c.broker.Config()), topicsOf(c.broker.Image()))
		}
		parts.Loaded = func() { c.tell(r, true) }
	} else {
		parts.Machine = func() coordinator.Machine { return txn.New(txnOptions(c.broker.Config(), r.epoch)) }
		parts.Load = func(ctx context.Context, fn func(record.Batch) error) error {
			markers.renew()
			return l.load(ctx, fn)
		}
		parts.Request = func(request any) {
			markers.run(func(ctx context.Context) { c.writeMarkers(ctx, r, request.(txn.WriteMarkers)) })
		}
	}
	r.Shard = coordinator.New(parts)
	go func() {
		defer close(r.done)
		r.Run(ctx)
		markers.end()
	}()
	return r
}

func (c *Coordinators) stop() {
	for _, r := range c.all() {
		r.cancel()
	}
	for _, r := range c.all() {
		<-r.done
	}
}

func (c *Coordinators) all() map[place]*running {
	c.mu.RLock()
	defer c.mu.RUnlock()
	all := make(map[place]*running, len(c.shards))
	for at, r := range c.shards {
		all[at] = r
	}
	return all
}

// Group returns the shard that coordinates a group. Errors: ErrNotCoordinator.
func (c *Coordinators) Group(id string) (*coordinator.Shard, error) { return c.find(OffsetsTopic, id) }

// GroupLog returns the partition that the shard of a group appends to, as far as it is loaded. Errors: ErrNotCoordinator, ErrLoading.
func (c *Coordinators) GroupLog(id string) (*partition.Partition, error) {
	r, err := c.running(OffsetsTopic, id)
	if err != nil {
		return nil, err
	}
	p := r.log.p.Load()
	if p == nil {
		return nil, ErrLoading
	}
	return p, nil
}

// Txn returns the shard that coordinates a transactional id. Errors: ErrNotCoordinator.
func (c *Coordinators) Txn(id string) (*coordinator.Shard, error) { return c.find(TxnTopic, id) }

// Groups and Txns return every shard of that kind led here, for listings.
func (c *Coordinators) Groups() []*coordinator.Shard { return c.ofTopic(OffsetsTopic) }

// Txns is Groups for transactions.
func (c *Coordinators) Txns() []*coordinator.Shard { return c.ofTopic(TxnTopic) }

func (c *Coordinators) ofTopic(topic string) []*coordinator.Shard {
	var list []*coordinator.Shard
	for at, r := range c.all() {
		if at.topic == topic {
			list = append(list, r.Shard)
		}
	}
	return list
}

func (c *Coordinators) find(topic, id string) (*coordinator.Shard, error) {
	r, err := c.running(topic, id)
	if err != nil {
		return nil, err
	}
	return r.Shard, nil
}

func (c *Coordinators) running(topic, id string) (*running, error) {
	t := c.broker.Image().Topic(topic)
	if t == nil {
		return nil, fmt.Errorf("%w: %s does not exist", ErrNotCoordinator, topic)
	}
	index := PartitionFor(id, len(t.Partitions))
	c.mu.RLock()
	r := c.shards[place{topic, index}]
	c.mu.RUnlock()
	switch {
	case r != nil:
		return r, nil
	case t.Partitions[index].Leader == c.broker.ID():
		return nil, fmt.Errorf("%w: %s-%d", ErrLoading, topic, index)
	}
	return nil, fmt.Errorf("%w: %s-%d is led by broker %d", ErrNotCoordinator, topic, index, t.Partitions[index].Leader)
}

// Leader returns the broker that coordinates an id of the topic, making the topic if it is not there. Errors:
// ErrNotAvailable.
func (c *Coordinators) Leader(ctx context.Context, topic, id string) (*metadata.Broker, error) {
	t := c.broker.Image().Topic(topic)
	if t == nil {
		if err := c.create(ctx, topic); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotAvailable, err)
		}
		if t = c.broker.Image().Topic(topic); t == nil {
			return nil, fmt.Errorf("%w: %s is not there yet", ErrNotAvailable, topic)
		}
	}
	index := PartitionFor(id, len(t.Partitions))
	leader := c.broker.Image().Broker(t.Partitions[index].Leader)
	if leader == nil {
		return nil, fmt.Errorf("%w: %s-%d has no leader", ErrNotAvailable, topic, index)
	}
	return leader, nil
}

// create makes an internal topic as Kafka does, with no more replicas than there are brokers.
func (c *Coordinators) create(ctx context.Context, topic string) error {
	conf := c.broker.Config()
	t := controller.NewTopic{Name: topic, Partitions: conf.OffsetsPartitions, ReplicationFactor: conf.OffsetsReplication}
	segment := "offsets.topic.segment.bytes"
	if topic == TxnTopic {
		t.Partitions, t.ReplicationFactor, segment = conf.TxnLogPartitions, conf.TxnLogReplication, "transaction.state.log.segment.bytes"
	}
	t.ReplicationFactor = min(t.ReplicationFactor, int16(len(c.broker.Image().BrokerIDs())))
	set := func(name, value string) { t.Configs[name] = &value }
	t.Configs = map[string]*string{}
	set("cleanup.policy", "compact")
	set("compression.type", "producer")
	set("segment.bytes", fmt.Sprint(max(conf.Int(segment), 1<<20)))
	r := c.broker.Controller.CreateTopics(ctx, []controller.NewTopic{t}, false)[0]
	if r.Err != nil && !errors.Is(r.Err, controller.ErrTopicExists) {
		return r.Err
	}
	return c.broker.Settled(ctx)
}

// PartitionFor is the partition of an internal topic with n partitions that an id belongs to: the absolute value of Java's hash
// of its UTF-16, as in Kafka (Utils.abs), so that tools and backups agree.
func PartitionFor(id string, n int) int32 {
	h := int32(0)
	for _, u := range utf16Of(id) {
		h = 31*h + int32(u)
	}
	if h == math.MinInt32 {
		return 0
	}
	return max(h, -h) % int32(n)
}

// partition is the local replica of a topic's partition.
func (c *Coordinators) partition(topic string, index int32) (*partition.Partition, error) {
	t := c.broker.Image().Topic(topic)
	if t == nil {
		return nil, broker.ErrUnknownPartition
	}
	return c.broker.Partition(t, index)
}
