package matrix

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/e2e/drivers"
	"github.com/everlog/everlog/e2e/harness"
)

func TestMain(m *testing.M) {
	drivers.Main()
	flag.Parse()
	// Trials wait for sessions and rebalances most of the time. -parallel stands if it was given.
	given := false
	flag.Visit(func(f *flag.Flag) { given = given || f.Name == "test.parallel" })
	if !given {
		_ = flag.Set("test.parallel", "6")
	}
	harness.Main(m)
}

// limit is how long any one step may take.
const limit = 90 * time.Second

// settings make groups quick: no delay for the first members, short sessions.
var settings = map[string]string{
	"group.initial.rebalance.delay.ms":                            "0",
	"group.min.session.timeout.ms":                                "3000",
	"group.consumer.min.heartbeat.interval.ms":                    "500",
	"group.consumer.heartbeat.interval.ms":                        "500",
	"group.consumer.min.session.timeout.ms":                       "3000",
	"group.consumer.session.timeout.ms":                           "15000",
	"group.consumer.assignment.interval.ms":                       "0",
	"transaction.abort.timed.out.transaction.cleanup.interval.ms": "500",
	"offsets.topic.num.partitions":                                "5",
	"transaction.state.log.num.partitions":                        "5",
}

// A world is a broker and an admin of it.
type world struct {
	*harness.Broker
	client *kgo.Client
	admin  *kadm.Client
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{Broker: harness.StartBroker(t, harness.Options{Set: settings})}
	client, err := kgo.NewClient(kgo.SeedBrokers(w.Addr()), kgo.MetadataMinAge(10*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	w.client, w.admin = client, kadm.NewClient(client)
	return w
}

func (w *world) createTopic(t *testing.T, name string, partitions int32) {
	t.Helper()
	if _, err := w.admin.CreateTopic(t.Context(), partitions, 1, nil, name); err != nil {
		t.Fatalf("create topic %s: %v", name, err)
	}
	harness.Until(t, limit, name+" has leaders", func() error {
		ends, err := w.admin.ListEndOffsets(t.Context(), name)
		if err == nil {
			err = ends.Error()
		}
		return err
	})
}

// end is how many records a topic has.
func (w *world) end(ctx context.Context, topic string) (int64, error) {
	ends, err := w.admin.ListEndOffsets(ctx, topic)
	if err != nil {
		return 0, err
	}
	var sum int64
	ends.Each(func(o kadm.ListedOffset) {
		if o.Err != nil {
			err = o.Err
		}
		sum += o.Offset
	})
	return sum, err
}

// awaitEnd returns when the topic has that many records.
func (w *world) awaitEnd(t *testing.T, topic string, records int64) {
	t.Helper()
	harness.Until(t, limit, fmt.Sprintf("%s has %d records", topic, records), func() error {
		got, err := w.end(t.Context(), topic)
		if err == nil && got < records {
			err = fmt.Errorf("it has %d", got)
		}
		return err
	})
}

// partitionLog is what one partition holds: values by offset. Offsets of control records are absent.
type partitionLog struct {
	end    int64
	values map[int64]string
	order  []string
}

// read reads a topic to its end (that of committed records, if only those are wanted).
func (w *world) read(t *testing.T, topic string, isolation kgo.IsolationLevel) map[int32]*partitionLog {
	t.Helper()
	list := w.admin.ListEndOffsets
	if isolation == kgo.ReadCommitted() {
		list = w.admin.ListCommittedOffsets
	}
	ends, err := list(t.Context(), topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	logs, starts := map[int32]*partitionLog{}, map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		logs[o.Partition] = &partitionLog{end: o.Offset, values: map[int64]string{}}
		if o.Offset > 0 {
			starts[o.Partition] = kgo.NewOffset().At(0)
		}
	})
	client, err := kgo.NewClient(
		kgo.SeedBrokers(w.Addr()), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: starts}), kgo.FetchIsolationLevel(isolation),
		kgo.KeepControlRecords(), kgo.FetchMaxWait(100*time.Millisecond),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for reached := map[int32]bool{}; len(reached) < len(starts); {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			log := logs[r.Partition]
			if r.Offset < log.end && !r.Attrs.IsControl() {
				value := strings.TrimSpace(string(r.Value)) // kcat pads
				log.values[r.Offset] = value
				log.order = append(log.order, value)
			}
			if r.Offset >= log.end-1 {
				reached[r.Partition] = true
			}
		})
	}
	return logs
}

// A trial is something that clients are tried at, side by side at one broker.
type trial struct {
	name string
	can  func(drivers.Client) bool
	run  func(t *testing.T, w *world, c drivers.Client)
}

var trials = []trial{
	{"group", func(drivers.Client) bool { return true }, func(t *testing.T, w *world, c drivers.Client) { rebalanceUnderLoad(t, w, c, "classic") }},
	{"group, KIP-848", func(c drivers.Client) bool { return c.ServerSide }, func(t *testing.T, w *world, c drivers.Client) { rebalanceUnderLoad(t, w, c, "consumer") }},
	{"static members", func(c drivers.Client) bool { return c.Static }, func(t *testing.T, w *world, c drivers.Client) { staticMembers(t, w, c, "classic") }},
	{"static members, KIP-848", func(c drivers.Client) bool { return c.StaticServerSide }, func(t *testing.T, w *world, c drivers.Client) { staticMembers(t, w, c, "consumer") }},
	{"transactions", func(c drivers.Client) bool { return c.Transactions }, transactions},
	{"read committed", func(c drivers.Client) bool { return c.Committed > drivers.Never }, readCommitted},
}

func TestClients(t *testing.T) {
	w := newWorld(t)
	clients := wanted(t)
	t.Run("trials", func(t *testing.T) {
		for _, trial := range trials {
			for _, c := range clients {
				if trial.can(c) {
					t.Run(trial.name+"/"+c.Name, func(t *testing.T) {
						t.Parallel()
						trial.run(t, w, c)
					})
				}
			}
		}
	})
	w.MustRun()
}

func wanted(t *testing.T) []drivers.Client {
	t.Helper()
	var clients []drivers.Client
	list := os.Getenv("EVERLOG_E2E_CLIENTS")
	names := strings.Split(list, ",")
	for _, c := range drivers.Clients {
		at := slices.Index(names, c.Name)
		if at >= 0 {
			names = slices.Delete(names, at, at+1)
		}
		if at >= 0 || list == "" && c.Name != drivers.Java.Name {
			clients = append(clients, c)
		}
	}
	if list != "" && len(names) > 0 {
		t.Fatalf("EVERLOG_E2E_CLIENTS: no such client: %v", names)
	}
	return clients
}
