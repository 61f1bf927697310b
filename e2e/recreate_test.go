package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/kversion"

	"github.com/everlog/everlog/e2e/harness"
	"github.com/everlog/everlog/tier/record"
)

// lives is how often each topic of the test is made and deleted.
func lives() int {
	if os.Getenv("EVERLOG_E2E_SIZE") == "full" {
		return 1000
	}
	return 60
}

// TestRecreate makes, uses and deletes topics of the same names from several clients at once. A topic takes writes the moment
// CreateTopics answers, its name is free the moment DeleteTopics answers, and nothing is ever acknowledged into, or read
// from, the deleted topic of the same name. (Apache Kafka often answers NOT_LEADER_OR_FOLLOWER to the first write.)
func TestRecreate(t *testing.T) {
	b := harness.StartBroker(t, harness.Options{})
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	var all sync.WaitGroup
	for i := range 3 {
		n := &reborn{t: t, addr: b.Addr(), name: fmt.Sprintf("alone-%d", i), owners: 1}
		all.Go(func() { n.run(ctx) })
	}
	contended := &reborn{t: t, addr: b.Addr(), name: "contended", owners: 3}
	all.Go(func() { contended.run(ctx) })
	all.Wait()
	b.MustRun()
}

// reborn is one name under which topics are made, used and deleted. owners race to make the next one; whoever did deletes it.
type reborn struct {
	t      *testing.T
	addr   string
	name   string
	owners int

	mu     sync.Mutex
	acked  map[[16]byte]map[string]bool // values acknowledged by topic id, of those who wrote by id
	byName map[string]bool              // values acknowledged of those who wrote by name, whichever topic that was
	gone   map[[16]byte]bool            // DeleteTopics has answered
}

// life is one topic of the name.
type life struct {
	id     [16]byte
	before map[string]bool // acknowledged by name before the one before was deleted
}

func (n *reborn) run(ctx context.Context) {
	n.acked, n.byName, n.gone = map[[16]byte]map[string]bool{}, map[string]bool{}, map[[16]byte]bool{}
	writing, stop := context.WithCancel(ctx)
	var writers, owners sync.WaitGroup
	for i := range 2 {
		writers.Go(func() { n.write(writing, i) })
	}
	writers.Go(func() { n.writeByName(writing) })
	for i := range n.owners {
		owners.Go(func() {
			if err := n.own(writing, i); err != nil && writing.Err() == nil {
				n.t.Errorf("%s, owner %d: %v", n.name, i, err)
				stop() // nobody else may delete what this owner left behind
			}
		})
	}
	owners.Wait()
	stop()
	writers.Wait()
	if err := ctx.Err(); err != nil {
		n.t.Errorf("%s: not done in time", n.name)
	}
}

// raw is a client whose requests go to the one broker, once.
type raw struct{ *kgo.Client }

// dial connects; old clients name topics where newer ones give ids.
func (n *reborn) dial(old bool) (raw, error) {
	options := []kgo.Opt{kgo.SeedBrokers(n.addr), kgo.RetryTimeout(time.Minute)}
	if old {
		versions := kversion.Stable()
		versions.SetMaxKeyVersion(0, 12)
		versions.SetMaxKeyVersion(1, 12)
		options = append(options, kgo.MaxVersions(versions))
	}
	client, err := kgo.NewClient(options...)
	return raw{client}, err
}

func ask[R kmsg.Response](ctx context.Context, c raw, req kmsg.Request) (R, error) {
	resp, err := c.SeedBrokers()[0].Request(ctx, req)
	if err != nil {
		var none R
		return none, fmt.Errorf("%s: %w", kmsg.NameForKey(req.Key()), err)
	}
	return resp.(R), nil
}

// own makes the topic, uses it and deletes it again, as often as it has lives.
func (n *reborn) own(ctx context.Context, owner int) error {
	young, err := n.dial(false)
	if err != nil {
		return err
	}
	defer young.Close()
	old, err := n.dial(true)
	if err != nil {
		return err
	}
	defer old.Close()
	for made := 0; made < lives(); {
		n.mu.Lock()
		before := make(map[string]bool, len(n.byName))
		for v := range n.byName {
			before[v] = true
		}
		n.mu.Unlock()
		id, err := n.create(ctx, young)
		if n.owners > 1 && errors.Is(err, kerr.TopicAlreadyExists) {
			continue // another owner was faster
		}
		if err != nil {
			return fmt.Errorf("life %d: create: %w", made, err)
		}
		if n.owners > 1 {
			before = nil // what was acknowledged meanwhile may be in this life
		}
		made++
		if err := n.live(ctx, young, old, life{id, before}, fmt.Sprintf("owner %d life %d", owner, made)); err != nil {
			return fmt.Errorf("life %d: %w", made, err)
		}
	}
	return nil
}

func (n *reborn) create(ctx context.Context, c raw) (id [16]byte, err error) {
	req := kmsg.NewPtrCreateTopicsRequest()
	one := kmsg.NewCreateTopicsRequestTopic()
	one.Topic, one.NumPartitions, one.ReplicationFactor = n.name, 2, 1
	req.Topics, req.TimeoutMillis = append(req.Topics, one), 30_000
	resp, err := ask[*kmsg.CreateTopicsResponse](ctx, c, req)
	if err != nil {
		return id, err
	}
	return resp.Topics[0].TopicID, kerr.ErrorForCode(resp.Topics[0].ErrorCode)
}

// live is the life of one topic: written to at once by both kinds of client, read, and deleted.
func (n *reborn) live(ctx context.Context, young, old raw, l life, label string) error {
	if err := n.produce(ctx, young, l.id, 0, label); err != nil {
		return fmt.Errorf("the first write, by id: %w", err)
	}
	if err := n.produce(ctx, old, [16]byte{}, 1, label); err != nil {
		return fmt.Errorf("the first write, by name: %w", err)
	}
	if err := n.produce(ctx, young, l.id, 1, label); err != nil {
		return fmt.Errorf("the next write, by id: %w", err)
	}
	for _, c := range []raw{young, old} {
		if err := n.check(ctx, c, l); err != nil {
			return err
		}
	}
	req := kmsg.NewPtrDeleteTopicsRequest()
	one := kmsg.NewDeleteTopicsRequestTopic()
	one.TopicID = l.id
	req.Topics, req.TimeoutMillis = append(req.Topics, one), 30_000
	resp, err := ask[*kmsg.DeleteTopicsResponse](ctx, young, req)
	if err == nil {
		err = kerr.ErrorForCode(resp.Topics[0].ErrorCode)
	}
	if err != nil {
		return fmt.Errorf("delete: %w", err)
	}
	n.mu.Lock()
	n.gone[l.id] = true
	n.mu.Unlock()
	if _, err := n.fetch(ctx, young, l.id, 0); !errors.Is(err, kerr.UnknownTopicID) {
		return fmt.Errorf("a fetch of the deleted topic, by id: %v, want UNKNOWN_TOPIC_ID", err)
	}
	return nil
}

var recreateSequence atomic.Int64

// produce writes one value, by id, or by name with a zero id, and notes the acknowledgement.
func (n *reborn) produce(ctx context.Context, c raw, id [16]byte, partition int32, label string) error {
	value := fmt.Sprintf("%x|%s|%d", id, label, recreateSequence.Add(1))
	batch, err := oneRecord(value)
	if err != nil {
		return err
	}
	req := kmsg.NewPtrProduceRequest()
	req.Acks, req.TimeoutMillis = -1, 30_000
	p := kmsg.NewProduceRequestTopicPartition()
	p.Partition, p.Records = partition, batch
	one := kmsg.NewProduceRequestTopic()
	one.Topic, one.TopicID, one.Partitions = n.name, id, append(one.Partitions, p)
	req.Topics = append(req.Topics, one)
	n.mu.Lock()
	gone := n.gone[id]
	n.mu.Unlock()
	resp, err := ask[*kmsg.ProduceResponse](ctx, c, req)
	if err != nil {
		return err
	}
	if err := kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode); err != nil {
		return err
	}
	if gone {
		return errors.New("a write into a topic whose deletion was answered is acknowledged")
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	if id == ([16]byte{}) {
		n.byName[value] = true
		return nil
	}
	if n.acked[id] == nil {
		n.acked[id] = map[string]bool{}
	}
	n.acked[id][value] = true
	return nil
}

func oneRecord(value string) ([]byte, error) {
	b := record.NewBuilder(record.Attrs{})
	b.Append(time.Now().UnixMilli(), nil, []byte(value))
	return b.Build()
}

// check reads the topic: every value acknowledged in this life is there, and none of another.
func (n *reborn) check(ctx context.Context, c raw, l life) error {
	n.mu.Lock()
	wanted := map[string]bool{}
	for v := range n.acked[l.id] {
		wanted[v] = true
	}
	n.mu.Unlock()
	mine := fmt.Sprintf("%x|", l.id)
	byName := fmt.Sprintf("%x|", [16]byte{})
	for partition := range int32(2) {
		values, err := n.fetch(ctx, c, l.id, partition)
		if err != nil {
			return fmt.Errorf("fetch of partition %d: %w", partition, err)
		}
		for _, v := range values {
			switch {
			case strings.HasPrefix(v, mine):
				delete(wanted, v)
			case !strings.HasPrefix(v, byName):
				return fmt.Errorf("topic %x holds %q, which was written into another of the same name", l.id, v)
			case l.before[v]:
				return fmt.Errorf("topic %x holds %q, which was acknowledged before the topic was made", l.id, v)
			}
		}
	}
	if len(wanted) > 0 {
		return fmt.Errorf("topic %x lacks %d values that were acknowledged", l.id, len(wanted))
	}
	return nil
}

// fetch reads a partition whole.
func (n *reborn) fetch(ctx context.Context, c raw, id [16]byte, partition int32) ([]string, error) {
	req := kmsg.NewPtrFetchRequest()
	req.ReplicaID, req.MinBytes, req.MaxBytes, req.SessionEpoch = -1, 1, 50<<20, -1
	p := kmsg.NewFetchRequestTopicPartition()
	p.Partition, p.PartitionMaxBytes, p.CurrentLeaderEpoch = partition, 50<<20, -1
	one := kmsg.NewFetchRequestTopic()
	one.Topic, one.TopicID, one.Partitions = n.name, id, append(one.Partitions, p)
	req.Topics = append(req.Topics, one)
	resp, err := ask[*kmsg.FetchResponse](ctx, c, req)
	if err != nil {
		return nil, err
	}
	if err := errors.Join(kerr.ErrorForCode(resp.ErrorCode), kerr.ErrorForCode(resp.Topics[0].Partitions[0].ErrorCode)); err != nil {
		return nil, err
	}
	var values []string
	for p := resp.Topics[0].Partitions[0].RecordBatches; len(p) > 0; {
		b, rest, err := record.Next(p)
		if err != nil {
			return nil, fmt.Errorf("batch after %d values: %w", len(values), err)
		}
		if err := b.Each(func(r *record.Record) error { values = append(values, string(r.Value)); return nil }); err != nil {
			return nil, err
		}
		p = rest
	}
	return values, nil
}

// write looks up which topic has the name and writes into it, again and again. What the race may answer is expected; any
// acknowledgement is noted.
func (n *reborn) write(ctx context.Context, writer int) {
	c, err := n.dial(false)
	if err != nil {
		n.t.Error(err)
		return
	}
	defer c.Close()
	for i := 0; ctx.Err() == nil; i++ {
		req := kmsg.NewPtrMetadataRequest()
		one := kmsg.NewMetadataRequestTopic()
		one.Topic = &n.name
		req.Topics = append(req.Topics, one)
		resp, err := ask[*kmsg.MetadataResponse](ctx, c, req)
		if err == nil && resp.Topics[0].ErrorCode == 0 {
			err = n.produce(ctx, c, resp.Topics[0].TopicID, int32(i%2), fmt.Sprintf("writer %d", writer))
		}
		n.mayFail(ctx, fmt.Sprintf("writer %d", writer), err)
	}
}

// writeByName writes into whatever topic has the name.
func (n *reborn) writeByName(ctx context.Context) {
	c, err := n.dial(true)
	if err != nil {
		n.t.Error(err)
		return
	}
	defer c.Close()
	for i := 0; ctx.Err() == nil; i++ {
		n.mayFail(ctx, "the writer by name", n.produce(ctx, c, [16]byte{}, int32(i%2), "by name"))
	}
}

// mayFail reports what a topic that comes and goes does not explain.
func (n *reborn) mayFail(ctx context.Context, who string, err error) {
	for _, fine := range []error{nil, kerr.UnknownTopicID, kerr.UnknownTopicOrPartition, kerr.NotLeaderForPartition} {
		if errors.Is(err, fine) {
			return
		}
	}
	if ctx.Err() == nil {
		n.t.Errorf("%s, %s: %v", n.name, who, err)
	}
}

// TestRecreatedTopicHasNoOffsets: a group that read the deleted topic begins anew in the one of the same name.
func TestRecreatedTopicHasNoOffsets(t *testing.T) {
	b := harness.StartBroker(t, harness.Options{})
	byName := kversion.Stable() // newer versions name topics by id, so that nothing of another topic can be found
	byName.SetMaxKeyVersion(8, 9)
	byName.SetMaxKeyVersion(9, 9)
	admin := kadm.NewClient(newClient(t, b.Addr(), kgo.MaxVersions(byName)))
	for life := range 10 {
		if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, "orders"); err != nil {
			t.Fatal(err)
		}
		harness.Until(t, time.Minute, "the group has a coordinator", func() error {
			offsets, err := admin.FetchOffsets(t.Context(), "billing")
			if o, ok := offsets.Lookup("orders", 0); err == nil && ok && o.At >= 0 {
				t.Fatalf("life %d: the group stands at %d before it read anything", life, o.At)
			}
			return err
		})
		commit := kadm.Offsets{}
		commit.AddOffset("orders", 0, 5, -1)
		if err := admin.CommitAllOffsets(t.Context(), "billing", commit); err != nil {
			t.Fatal(err)
		}
		if _, err := admin.DeleteTopic(t.Context(), "orders"); err != nil {
			t.Fatal(err)
		}
	}
}
