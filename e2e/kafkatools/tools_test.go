package kafkatools

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/everlog/everlog/e2e/drivers"
	"github.com/everlog/everlog/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

var update = flag.Bool("update", false, "write down what Apache Kafka answers; EVERLOG_E2E_KAFKA says how it is started")

const (
	scriptFile = "testdata/kafka-4.3.1.txt"
	stepLimit  = 2 * time.Minute
)

// classes are the tools, by the names of Kafka's scripts.
var classes = map[string]string{
	"kafka-topics":             "org.apache.kafka.tools.TopicCommand",
	"kafka-configs":            "kafka.admin.ConfigCommand",
	"kafka-consumer-groups":    "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
	"kafka-groups":             "org.apache.kafka.tools.GroupsCommand",
	"kafka-producer-perf-test": "org.apache.kafka.tools.ProducerPerformance",
	"kafka-console-producer":   "org.apache.kafka.tools.ConsoleProducer",
	"kafka-console-consumer":   "org.apache.kafka.tools.consumer.ConsoleConsumer",
	"kafka-get-offsets":        "org.apache.kafka.tools.GetOffsetShell",
	"kafka-transactions":       "org.apache.kafka.tools.TransactionsCommand",
	"kafka-delete-records":     "org.apache.kafka.tools.DeleteRecordsCommand",
	"kafka-features":           "org.apache.kafka.tools.FeatureCommand",
}

// TestTools runs the script and compares each answer with the one that Apache Kafka gave, or that everlog gives for a reason.
func TestTools(t *testing.T) {
	text, err := os.ReadFile(scriptFile)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := parseScript(string(text))
	if err != nil {
		t.Fatalf("%s: %v", scriptFile, err)
	}
	if *update && !harness.IsKafka() {
		t.Fatal("-update writes down what Apache Kafka answers: set EVERLOG_E2E_KAFKA")
	}
	broker := harness.StartBroker(t, harness.Options{Set: map[string]string{
		"group.initial.rebalance.delay.ms": "0", "offsets.topic.num.partitions": "5", "transaction.state.log.num.partitions": "5",
		"auto.create.topics.enable": "false",
	}})
	var background []*exec.Cmd
	kill := func() {
		for _, cmd := range background {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
		background = nil
	}
	t.Cleanup(kill)
	for i := range steps {
		s := &steps[i]
		switch s.kind {
		case "kill":
			kill()
		case "&":
			cmd := s.prepare(context.Background(), t, s.command, broker.Addr())
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			background = append(background, cmd)
		default:
			got := s.run(t, broker.Addr())
			if *update {
				s.want = got
			}
			s.compare(t, got)
		}
	}
	broker.MustRun()
	if *update {
		if err := os.WriteFile(scriptFile, []byte(format(steps)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// run runs the command, if need be until it prints what it is to print.
func (s *step) run(t *testing.T, broker string) answer {
	t.Helper()
	text, command, waits := strings.Cut(strings.TrimPrefix(s.command, "until "), ": ")
	if !waits || !strings.HasPrefix(s.command, "until ") {
		return s.once(t, s.command, broker)
	}
	var got answer
	harness.Until(t, stepLimit, s.command, func() error {
		got = s.once(t, command, broker)
		if !strings.Contains(got.String(), text) {
			return fmt.Errorf("it prints\n%s", got)
		}
		return nil
	})
	return got
}

func (s *step) once(t *testing.T, command, broker string) answer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), stepLimit)
	defer cancel()
	cmd := s.prepare(ctx, t, command, broker)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	got := answer{lines: normalise(out.String(), broker)}
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		got.exit = exit.ExitCode()
	} else if err != nil {
		t.Fatalf("line %d: %v", s.lineNumber, err)
	}
	if s.sorted {
		slices.Sort(got.lines)
	}
	return got
}

// prepare makes the process of a command, with its input.
func (s *step) prepare(ctx context.Context, t *testing.T, command, broker string) *exec.Cmd {
	t.Helper()
	words := strings.Fields(command)
	class, ok := classes[words[0]]
	if !ok {
		t.Fatalf("line %d: no tool %q", s.lineNumber, words[0])
	}
	input := strings.Join(s.input, "\n") + "\n"
	for i, word := range words {
		if strings.Contains(word, "{input}") {
			path := filepath.Join(t.TempDir(), "input")
			if err := os.WriteFile(path, []byte(input), 0o644); err != nil {
				t.Fatal(err)
			}
			word = strings.ReplaceAll(word, "{input}", path)
		}
		words[i] = strings.ReplaceAll(word, "{broker}", broker)
	}
	cmd := drivers.JavaCommand(ctx, t, class, slices.Concat([]string{"--bootstrap-server", broker}, words[1:])...)
	cmd.Stdin = strings.NewReader(input)
	return cmd
}

func (s *step) compare(t *testing.T, got answer) {
	t.Helper()
	want := s.want
	if s.differs && !harness.IsKafka() {
		want = s.onEverlog
	}
	if diff := cmp.Diff(want.String(), got.String()); diff != "" {
		t.Errorf("%s:%d: %s\n%s", scriptFile, s.lineNumber, s.command, diff)
	}
	if s.differs && !harness.IsKafka() && got.String() == s.want.String() {
		t.Errorf("%s:%d: %s: everlog answers as Kafka does: the difference is gone", scriptFile, s.lineNumber, s.command)
	}
}

func TestScript(t *testing.T) {
	text, err := os.ReadFile(scriptFile)
	if err != nil {
		t.Fatal(err)
	}
	steps, err := parseScript(string(text))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(text), format(steps)); diff != "" {
		t.Errorf("%s is not written as it would be by -update:\n%s", scriptFile, diff)
	}
}
