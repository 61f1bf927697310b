package connect

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// limit is how long any one step may take: Connect starts slowly and waits long.
const limit = 4 * time.Minute

const topic = "lines"

// A bench is a file that is copied into a topic, which is copied into another file.
type bench struct {
	*harness.Broker
	t      *testing.T
	source string
	sink   string
	lines  []string
}

// TestConnect copies lines through a broker that is killed, workers that are killed, and workers that are stopped and started.
func TestConnect(t *testing.T) {
	dir := t.TempDir()
	b := &bench{
		Broker: harness.StartBroker(t, harness.Options{Set: map[string]string{
			"group.initial.rebalance.delay.ms": "0", "offsets.topic.num.partitions": "5", "transaction.state.log.num.partitions": "5",
		}}),
		t: t, source: filepath.Join(dir, "source"), sink: filepath.Join(dir, "sink"),
	}
	b.write("first", 100)
	workers := []*worker{newWorker(t, b.Addr()), newWorker(t, b.Addr())}
	workers[0].configure("source", map[string]string{
		"connector.class": "org.apache.kafka.connect.file.FileStreamSourceConnector", "tasks.max": "1", "file": b.source, "topic": topic,
	})
	workers[1].configure("sink", map[string]string{
		"connector.class": "org.apache.kafka.connect.file.FileStreamSinkConnector", "tasks.max": "1", "file": b.sink, "topics": topic,
	})
	for _, w := range workers {
		w.awaitRunning("source")
		w.awaitRunning("sink")
	}
	b.awaitSunk()
	if got := b.read(b.sink); !slices.Equal(got, b.lines) {
		t.Errorf("before anything broke the sink has %d lines for %d", len(got), len(b.lines))
	}

	b.Kill()
	b.write("while the broker is away", 100)
	b.Restart()
	b.awaitSunk()

	workers[0].Kill()
	b.write("while a worker is away", 100)
	b.awaitSunk()
	workers[0].start()
	workers[0].awaitRunning("source")
	workers[1].Kill()
	b.write("while the other one is away", 100)
	b.awaitSunk()

	workers[0].stop()
	sunk := len(b.read(b.sink))
	b.write("while all are away", 100)
	for _, w := range workers {
		w.start()
	}
	b.awaitSunk()
	if got := len(b.read(b.sink)); got != sunk+100 {
		t.Errorf("workers that left in good order begin again before where they were: the sink had %d lines, and has %d after 100 more", sunk, got)
	}
	b.inTopic()
}

// write appends lines to the source file.
func (b *bench) write(name string, n int) {
	b.t.Helper()
	file, err := os.OpenFile(b.source, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		b.t.Fatal(err)
	}
	defer file.Close()
	for i := range n {
		line := fmt.Sprintf("%s: line %d", name, i)
		if _, err := fmt.Fprintln(file, line); err != nil {
			b.t.Fatal(err)
		}
		b.lines = append(b.lines, line)
	}
}

func (b *bench) read(path string) []string {
	b.t.Helper()
	text, err := os.ReadFile(path)
	if err != nil && !os.IsNotExist(err) {
		b.t.Fatal(err)
	}
	lines := strings.Split(string(text), "\n")
	return lines[:len(lines)-1] // the last one is not whole
}

// awaitSunk returns when every line is in the sink file, in order; sinks write a line again if they are killed before they commit.
func (b *bench) awaitSunk() {
	b.t.Helper()
	harness.Until(b.t, limit, "all lines are in the sink", func() error {
		seen := map[string]bool{}
		var first []string
		for _, line := range b.read(b.sink) {
			if !seen[line] {
				seen[line] = true
				first = append(first, line)
			}
		}
		if !slices.Equal(first, b.lines) {
			return fmt.Errorf("it has %d different lines, %d were written", len(first), len(b.lines))
		}
		return nil
	})
}

// inTopic holds the committed records of the topic against the lines: each once, in order, whatever was killed.
func (b *bench) inTopic() {
	b.t.Helper()
	client, err := kgo.NewClient(
		kgo.SeedBrokers(b.Addr()), kgo.ConsumeTopics(topic), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()),
		kgo.FetchIsolationLevel(kgo.ReadCommitted()), kgo.KeepControlRecords(),
	)
	if err != nil {
		b.t.Fatal(err)
	}
	defer client.Close()
	ends, err := kadm.NewClient(client).ListCommittedOffsets(b.t.Context(), topic)
	if err == nil {
		err = ends.Error()
	}
	if err != nil {
		b.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), limit)
	defer cancel()
	var got []string
	for next := int64(0); next < ends[topic][0].Offset; {
		fetches := client.PollFetches(ctx)
		if err := fetches.Err(); err != nil {
			b.t.Fatal(err)
		}
		fetches.EachRecord(func(r *kgo.Record) {
			next = r.Offset + 1
			if !r.Attrs.IsControl() {
				got = append(got, string(r.Value))
			}
		})
	}
	if !slices.Equal(got, b.lines) {
		b.t.Errorf("the topic has %d committed lines, %d were written", len(got), len(b.lines))
	}
}
