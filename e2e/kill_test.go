package e2e

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/everlog/everlog/e2e/clients"
	"github.com/everlog/everlog/e2e/corpus"
	"github.com/everlog/everlog/e2e/harness"
	"github.com/everlog/everlog/e2e/history"
)

const (
	loadPartitions = 4
	loadPerSecond  = 20_000
	loadLimit      = time.Minute // for a load to get anywhere, and to be acknowledged to its end
	ackedPerRound  = 15_000
)

// TestKillInMidLoad kills the broker with SIGKILL several times while franz-go and librdkafka produce, both idempotent, and a consumer
// follows. What was acknowledged must be there, at its offset, once, and what was sent by librdkafka must be exactly the input.
func TestKillInMidLoad(t *testing.T) {
	kills := 3
	if corpus.SizeFromEnv() == corpus.Full {
		kills = 15
	}
	broker := harness.StartBroker(t, harness.Options{})
	admin := newAdmin(t, broker.Addr())
	for topic, partitions := range map[string]int32{"load": loadPartitions, "stream": 1} {
		if err := admin.CreateTopic(t.Context(), topic, partitions, datasetTopic); err != nil {
			t.Fatal(err)
		}
	}
	load := startLoad(t, broker, "load")
	stream := startGated(t, broker, "stream", kills+1)

	for kill := range kills {
		before, err := admin.Offset(t.Context(), "stream", 0, clients.Latest)
		if err != nil {
			t.Fatal(err)
		}
		stream.open()
		waitAcked(t, load.Load, load.Acked()+ackedPerRound)
		harness.Until(t, loadLimit, "librdkafka is in the middle of its input", func() error {
			if len(stream.done) > 0 {
				t.Fatalf("librdkafka has ended in the middle: %v", <-stream.done)
			}
			now, err := admin.Offset(t.Context(), "stream", 0, clients.Latest)
			if err == nil && now.Offset == before.Offset {
				err = errors.New("nothing new has arrived")
			}
			return err
		})
		broker.Kill()
		known := load.Known()
		seen := load.tail.Into(known)
		broker.Restart()
		load.check(t, broker, fmt.Sprintf("after kill %d, with %d acknowledged", kill+1, load.Acked()), known, seen)
	}
	stream.open()
	if err := <-stream.done; err != nil {
		t.Error(err)
	}
	load.finish(t, broker)
	if err := stream.here.compare(t.Context(), broker.Addr(), clients.Franz); err != nil {
		t.Error(err)
	}
	t.Logf("%d kills, %d + %d records, all there, once, in place", kills, load.Acked(), stream.here.want.Records)
}

// A running is a load and a consumer behind it.
type running struct {
	*history.Load
	tail *history.Tail
}

func startLoad(t *testing.T, broker *harness.Broker, topic string) *running {
	t.Helper()
	load, err := history.StartLoad(history.Plan{Addr: broker.Addr(), Topic: topic, Partitions: loadPartitions, Codec: "lz4", PerSecond: loadPerSecond, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	tail, err := history.StartTail(broker.Addr(), topic, loadPartitions)
	if err != nil {
		t.Fatal(err)
	}
	r := &running{load, tail}
	t.Cleanup(func() { // after a failure nothing may keep it waiting
		_ = r.stop(time.Second)
		tail.Stop()
	})
	return r
}

func (r *running) stop(limit time.Duration) error {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	return r.Stop(ctx)
}

// finish stops the load and holds everything the clients were told against the log.
func (r *running) finish(t *testing.T, broker *harness.Broker) {
	t.Helper()
	if err := r.stop(loadLimit); err != nil {
		t.Error(err)
	}
	known := r.Known()
	r.check(t, broker, "in the end", known, r.tail.Into(known))
}

// check holds what was known before against the log as it is now.
func (r *running) check(t *testing.T, broker *harness.Broker, when string, known []history.Partition, found history.Anomalies) {
	t.Helper()
	log, err := history.CheckLog(t.Context(), broker.Addr(), known)
	found.Add(log)
	if err := errors.Join(err, found.Err()); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
}

func waitAcked(t *testing.T, load *history.Load, want int64) {
	t.Helper()
	harness.Until(t, loadLimit, fmt.Sprintf("%d records are acknowledged", want), func() error {
		if got := load.Acked(); got < want {
			return fmt.Errorf("%d are", got)
		}
		return nil
	})
}

// A gated stream is librdkafka producing one part of the data set in shares, each let through by open.
type gated struct {
	here *stored
	gate chan struct{}
	done chan error
}

func startGated(t *testing.T, broker *harness.Broker, topic string, shares int) *gated {
	t.Helper()
	part := corpus.Part{Style: corpus.Plain, Size: corpus.SizeFromEnv(), Index: 0, Parts: 2}
	records := part.Take(1 << 30)
	g := &gated{here: &stored{topic: topic}, gate: make(chan struct{}, shares), done: make(chan error, 1)}
	g.here.want = corpus.SumOf(slices.Values(records))
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	to := clients.Destination{Addr: broker.Addr(), Topic: topic, Codec: "snappy", Headers: part.Headers()}
	go func() {
		g.done <- clients.WriteKcat(ctx, to, func(yield func(corpus.Record) bool) {
			share := len(records)/shares + 1
			for i, r := range records {
				if i%share == 0 {
					select {
					case <-g.gate:
					case <-ctx.Done():
						return
					}
				}
				if !yield(r) {
					return
				}
			}
		})
	}()
	return g
}

func (g *gated) open() { g.gate <- struct{}{} }
