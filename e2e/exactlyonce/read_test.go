package exactlyonce

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/e2e/drivers"
)

type record struct {
	offset     int64
	key, value string
}

func values(records []record) []string {
	var out []string
	for _, r := range records {
		out = append(out, r.value)
	}
	return out
}

// A tail reads the committed records of topics while they are written, through every restart of the broker.
type tail struct {
	client *kgo.Client
	done   sync.WaitGroup
	stop   context.CancelFunc

	mu    sync.Mutex
	seen  map[string]map[int32][]record
	wrong []error
}

func newTail(t *testing.T, addr string, topics ...string) *tail {
	t.Helper()
	from := map[string]map[int32]kgo.Offset{}
	for _, topic := range topics {
		from[topic] = map[int32]kgo.Offset{}
		for p := range int32(partitions) {
			from[topic][p] = kgo.NewOffset().At(0)
		}
	}
	client, err := kgo.NewClient(kgo.SeedBrokers(addr), kgo.ConsumePartitions(from), kgo.ConsumeResetOffset(kgo.NoResetOffset()), kgo.FetchIsolationLevel(kgo.ReadCommitted()))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r := &tail{client: client, stop: cancel, seen: map[string]map[int32][]record{}}
	for _, topic := range topics {
		r.seen[topic] = map[int32][]record{}
	}
	r.done.Go(func() { r.run(ctx) })
	t.Cleanup(r.close)
	return r
}

func (r *tail) run(ctx context.Context) {
	for {
		fetches := r.client.PollFetches(ctx)
		if ctx.Err() != nil {
			return
		}
		r.mu.Lock()
		fetches.EachError(func(topic string, p int32, err error) {
			// franz-go 1.22.2 forgets the leader epoch of markers it has read: if the first thing in a new epoch is one, it takes the
			// end of the old epoch for a loss and goes back by that marker. What is lost would be missing in the end.
			if lost := (*kgo.ErrDataLoss)(nil); !errors.As(err, &lost) {
				r.wrong = append(r.wrong, fmt.Errorf("a consumer of %s-%d was told: %w", topic, p, err))
			}
		})
		fetches.EachRecord(r.seeLocked)
		r.mu.Unlock()
	}
}

func (r *tail) seeLocked(k *kgo.Record) {
	now, seen := record{k.Offset, string(k.Key), string(k.Value)}, r.seen[k.Topic][k.Partition]
	if strings.Contains(now.value, drivers.Poison) {
		r.wrong = append(r.wrong, fmt.Errorf("%s-%d: an aborted record at %d was read as committed: %q", k.Topic, k.Partition, k.Offset, k.Value))
	}
	at, again := slices.BinarySearchFunc(seen, k.Offset, func(r record, offset int64) int { return cmp.Compare(r.offset, offset) })
	switch {
	case at == len(seen):
		r.seen[k.Topic][k.Partition] = append(seen, now)
	case !again || seen[at] != now:
		r.wrong = append(r.wrong, fmt.Errorf("%s-%d: %v was read again, and was %v", k.Topic, k.Partition, now, seen[at]))
	}
}

func (r *tail) close() {
	r.stop()
	r.done.Wait()
	r.client.Close()
}

// count is how many records of a topic were seen.
func (r *tail) count(topic string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := 0
	for _, records := range r.seen[topic] {
		n += len(records)
	}
	return n
}

// copyOf is what was seen of a topic so far.
func (r *tail) copyOf(topic string) map[int32][]record {
	r.mu.Lock()
	defer r.mu.Unlock()
	return maps.Clone(r.seen[topic])
}

func (r *tail) err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.wrong) > 0 {
		return r.wrong[0]
	}
	return nil
}

// readAll reads the committed records of a topic up to its end as it is now.
func readAll(t *testing.T, admin *kadm.Client, addr, topic string) map[int32][]record {
	t.Helper()
	ends, err := admin.ListCommittedOffsets(t.Context(), topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		t.Fatal(err)
	}
	from := map[int32]kgo.Offset{}
	ends.Each(func(o kadm.ListedOffset) {
		if o.Offset > 0 {
			from[o.Partition] = kgo.NewOffset().At(0)
		}
	})
	client, err := kgo.NewClient(
		kgo.SeedBrokers(addr), kgo.ConsumePartitions(map[string]map[int32]kgo.Offset{topic: from}), kgo.ConsumeResetOffset(kgo.NoResetOffset()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
	)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	out := map[int32][]record{}
	for reached := map[int32]bool{}; len(reached) < len(from); {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			t.Fatalf("read %s: %v", topic, err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			end := ends[topic][r.Partition].Offset
			if r.Offset < end && !r.Attrs.IsControl() {
				out[r.Partition] = append(out[r.Partition], record{r.Offset, string(r.Key), string(r.Value)})
			}
			if r.Offset >= end-1 {
				reached[r.Partition] = true
			}
		})
	}
	return out
}

// same holds what was read of a topic at one time against what was at another.
func same(topic string, was, is map[int32][]record) error {
	for p := range int32(partitions) {
		if !slices.Equal(was[p], is[p]) {
			n := 0
			for n < min(len(was[p]), len(is[p])) && was[p][n] == is[p][n] {
				n++
			}
			return fmt.Errorf("%s-%d: %d records were read before, %d now; the first %d are equal", topic, p, len(was[p]), len(is[p]), n)
		}
	}
	return nil
}
