package exactlyonce

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/e2e/clients"
	"github.com/everlog/everlog/e2e/drivers"
	"github.com/everlog/everlog/e2e/harness"
	"github.com/everlog/everlog/e2e/servers"
)

// settings make groups and transactions quick to notice who is gone.
var settings = map[string]string{
	"group.initial.rebalance.delay.ms":                            "0",
	"group.consumer.min.heartbeat.interval.ms":                    "500",
	"group.consumer.heartbeat.interval.ms":                        "500",
	"group.consumer.min.session.timeout.ms":                       "3000",
	"group.consumer.session.timeout.ms":                           "6000",
	"group.consumer.assignment.interval.ms":                       "0",
	"transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
	"offsets.topic.num.partitions":                                "4",
	"transaction.state.log.num.partitions":                        "4",
}

// A world is a broker, what runs against it, and the order of its faults.
type world struct {
	*harness.Broker
	t         *testing.T
	admin     *kadm.Client
	random    *rand.Rand
	pipelines []*pipeline
	load      *drivers.Driver
	tail      *tail
}

// TestExactlyOnce lets pipelines run, kills them and the broker, and compares; then, on everlog, has everything moved to MinIO,
// loses the local disk, compares again, and lets the pipelines go on from there.
func TestExactlyOnce(t *testing.T) {
	options := harness.Options{Set: settings}
	if !harness.IsKafka() {
		options.Store = servers.MinIO(t).MinIOURL("everlog-eos", "")
	}
	n := seed(t)
	t.Logf("EVERLOG_E2E_SEED=%d", n)
	w := &world{Broker: harness.StartBroker(t, options), t: t, random: rand.New(rand.NewPCG(n, n))}
	client, err := kgo.NewClient(kgo.SeedBrokers(w.Addr()), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	w.admin = kadm.NewClient(client)
	t.Cleanup(w.diagnose)

	topics := []string{input}
	for _, k := range wanted(t) {
		topics = append(topics, "out-"+k.name)
	}
	w.createTopics(topics...)
	w.tail = newTail(t, w.Addr(), topics...)
	w.produce("a")
	for _, k := range wanted(t) {
		w.pipelines = append(w.pipelines, newPipeline(t, k, w.Addr()))
	}
	w.disturb(duration(t))
	w.settle()
	if harness.IsKafka() {
		return
	}
	w.moveToStore()
	w.produce("b")
	w.resume()
	w.disturb(duration(t) / 4)
	w.settle()
}

// diagnose says, if the test has failed, what is open.
func (w *world) diagnose() {
	if !w.t.Failed() || !w.Alive() {
		return
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	transactions, err := w.admin.DescribeTransactions(ctx)
	for _, d := range transactions {
		w.t.Logf("transaction of %s: %s, producer %d epoch %d, since %v, %v", d.TxnID, d.State, d.ProducerID, d.ProducerEpoch, d.StartTimestamp, d.Topics.Sorted())
	}
	ends, err2 := w.admin.ListEndOffsets(ctx)
	stable, err3 := w.admin.ListCommittedOffsets(ctx)
	ends.Each(func(o kadm.ListedOffset) {
		if s, ok := stable.Lookup(o.Topic, o.Partition); ok && s.Offset != o.Offset {
			w.t.Logf("%s-%d: last stable offset %d, end %d", o.Topic, o.Partition, s.Offset, o.Offset)
		}
	})
	for _, p := range w.pipelines {
		offsets, err := w.admin.FetchOffsets(ctx, p.name)
		for _, o := range offsets.Sorted() {
			w.t.Logf("group %s: %s-%d at %d of %d, %v", p.name, o.Topic, o.Partition, o.At, ends[o.Topic][o.Partition].Offset, o.Err)
		}
		w.t.Log(p.summary(), err)
	}
	w.t.Log(errors.Join(err, err2, err3))
}

func (w *world) createTopics(topics ...string) {
	w.t.Helper()
	configs := map[string]*string{"retention.ms": kadm.StringPtr("-1"), "segment.bytes": kadm.StringPtr("1048576")}
	if !harness.IsKafka() { // ship early, and read what is not new from the store
		configs["segment.ms"], configs["local.retention.ms"] = kadm.StringPtr("3000"), kadm.StringPtr("0")
	}
	responses, err := w.admin.CreateTopics(w.t.Context(), partitions, 1, configs, topics...)
	if err == nil {
		err = responses.Error()
	}
	if err != nil {
		w.t.Fatal(err)
	}
	harness.Until(w.t, limit, "the topics have leaders", func() error {
		ends, err := w.admin.ListEndOffsets(w.t.Context(), topics...)
		if err == nil {
			err = ends.Error()
		}
		return err
	})
}

// produce starts the producer of the input: values NUMBER:WORD, with few words.
func (w *world) produce(prefix string) {
	w.load = drivers.Franz.Start(w.t, "produce", "broker="+w.Addr(), "topic="+input, fmt.Sprintf("partitions=%d", partitions), "rate=200", "prefix="+prefix, "words=17")
}

// disturb kills processes and the broker, one after the other, for some time.
func (w *world) disturb(d time.Duration) {
	w.t.Helper()
	const shortest, longest = 2 * time.Second, 7 * time.Second
	kills, brokers := 0, 0
	next := func() time.Time {
		return time.Now().Add(shortest + time.Duration(w.random.Int64N(int64(longest-shortest))))
	}
	due := next()
	for deadline := time.Now().Add(d); time.Now().Before(deadline); harness.Pause(50 * time.Millisecond) {
		for _, p := range w.pipelines {
			p.revive()
		}
		if err := w.tail.err(); err != nil {
			w.t.Fatal(err)
		}
		if time.Now().Before(due) {
			continue
		}
		if w.random.IntN(4) == 0 {
			w.Kill()
			harness.Pause(time.Duration(w.random.Int64N(int64(time.Second))))
			w.Restart()
			brokers++
		} else {
			w.pipelines[w.random.IntN(len(w.pipelines))].kill(w.random.IntN(processes))
			kills++
		}
		due = next()
	}
	w.t.Logf("disturbed for %v: %d kills of processes, %d of the broker", d, kills, brokers)
}

// settle ends the input, waits for the pipelines to have caught up, ends them, and compares.
func (w *world) settle() {
	w.t.Helper()
	w.load.Leave()
	in := readAll(w.t, w.admin, w.Addr(), input)
	total := 0
	for _, records := range in {
		total += len(records)
	}
	for _, p := range w.pipelines {
		harness.Until(w.t, limit, fmt.Sprintf("%s has written its output of %d records", p.name, total), func() error {
			p.revive()
			if got := w.tail.count(p.output); got < total {
				return fmt.Errorf("%d are committed", got)
			}
			return nil
		})
	}
	for _, p := range w.pipelines {
		p.leave()
		w.t.Log(p.summary())
	}
	w.t.Logf("%d records came through", total)
	w.compare("at the end", in)
}

// compare reads everything again and holds it against the input and against what was read while it was written.
func (w *world) compare(when string, in map[int32][]record) {
	w.t.Helper()
	errs := []error{w.tail.err()}
	for _, p := range w.pipelines {
		out := readAll(w.t, w.admin, w.Addr(), p.output)
		errs = append(errs, p.check(p, in, out), same(p.output, w.tail.copyOf(p.output), out))
	}
	if err := errors.Join(errs...); err != nil {
		w.t.Fatalf("%s: %v", when, err)
	}
}

// moveToStore has every partition of every topic shipped whole, loses the disk, and compares.
func (w *world) moveToStore() {
	w.t.Helper()
	w.awaitShipped()
	in := w.tail.copyOf(input)
	w.Kill()
	w.Wipe()
	w.Restart()
	w.compare("from MinIO alone", in)
}

func (w *world) awaitShipped() {
	w.t.Helper()
	topics, err := w.admin.ListTopicsWithInternal(w.t.Context())
	if err != nil {
		w.t.Fatal(err)
	}
	names := topics.Names()
	w.t.Logf("topics: %v", names)
	seal := []kadm.AlterConfig{{Op: kadm.SetConfig, Name: "segment.ms", Value: kadm.StringPtr("1")}}
	if responses, err := w.admin.AlterTopicConfigs(w.t.Context(), seal, names...); err != nil {
		w.t.Fatal(err)
	} else {
		for _, r := range responses {
			if r.Err != nil {
				w.t.Fatalf("segment.ms of %s: %v %s", r.Name, r.Err, r.ErrMessage)
			}
		}
	}
	harness.Until(w.t, limit, "everything is in the store", func() error { return w.shipped(w.t.Context(), names) })
}

// shipped is nil if the store has all records of all topics.
func (w *world) shipped(ctx context.Context, names []string) error {
	ends, err := w.admin.ListEndOffsets(ctx, names...)
	if err != nil {
		return err
	}
	asks, err := clients.NewAdmin(w.Addr())
	if err != nil {
		return err
	}
	defer asks.Close()
	ends.Each(func(o kadm.ListedOffset) {
		if err != nil {
			return
		}
		if err = o.Err; err == nil {
			var last clients.Answer
			if last, err = asks.Offset(ctx, o.Topic, o.Partition, clients.LatestTiered); err == nil && last.Offset < o.Offset-1 {
				err = fmt.Errorf("%s-%d ends at %d, the last record in the store is %d", o.Topic, o.Partition, o.Offset, last.Offset)
			}
		}
	})
	return err
}

// resume starts the pipelines again.
func (w *world) resume() {
	for _, p := range w.pipelines {
		for slot := range p.slots {
			p.start(slot)
		}
	}
}
