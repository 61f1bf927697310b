package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/e2e/harness"
)

// shell runs commands of the everlog binary against a broker.
type shell struct {
	t    *testing.T
	addr string
}

// try runs a command and returns what it said, and its exit code.
func (s shell) try(stdin string, args ...string) (out, errs string, code int) {
	s.t.Helper()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(s.t.Context(), harness.Binary(s.t), append(args, "-b", s.addr)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(stdin), &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); errors.As(err, &exit) {
		code = exit.ExitCode()
	} else if err != nil {
		s.t.Fatalf("everlog %s: %v", strings.Join(args, " "), err)
	}
	return stdout.String(), stderr.String(), code
}

// run is try of a command that must succeed.
func (s shell) run(args ...string) string {
	s.t.Helper()
	out, errs, code := s.try("", args...)
	if code != 0 {
		s.t.Fatalf("everlog %s: exit code %d\n%s", strings.Join(args, " "), code, errs)
	}
	return out
}

// refused is try of a command that must fail with a code and words.
func (s shell) refused(code int, words string, args ...string) {
	s.t.Helper()
	_, errs, got := s.try("", args...)
	if got != code || !strings.Contains(errs, words) {
		s.t.Errorf("everlog %s: exit code %d, %q; want %d and %q", strings.Join(args, " "), got, errs, code, words)
	}
}

// groupStanding is what the tests read of group describe and group lag.
type groupStanding struct {
	Groups []struct {
		Group, State, Type string
		Members            int
		Lag                int64
		LagSeconds         float64 `json:"lag_seconds"`
		Partitions         []struct {
			Topic      string
			Partition  int32
			Current    int64   `json:"current_offset"`
			End        int64   `json:"log_end_offset"`
			Lag        int64   `json:"lag"`
			LagSeconds float64 `json:"lag_seconds"`
			Member     string  `json:"member"`
		}
	}
}

func (s shell) describe(group string) groupStanding {
	s.t.Helper()
	var d groupStanding
	if err := json.Unmarshal([]byte(s.run("group", "describe", group, "--json")), &d); err != nil || len(d.Groups) != 1 {
		s.t.Fatalf("group describe: %v, %d groups", err, len(d.Groups))
	}
	return d
}

func newClient(t *testing.T, addr string, options ...kgo.Opt) *kgo.Client {
	t.Helper()
	client, err := kgo.NewClient(append(options, kgo.SeedBrokers(addr))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return client
}

// hourOld writes ten records to each of a topic's two partitions, the first one hour old and each a minute younger.
func hourOld(t *testing.T, addr, topic string) {
	t.Helper()
	client := newClient(t, addr, kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if _, err := kadm.NewClient(client).CreateTopic(t.Context(), 2, 1, nil, topic); err != nil {
		t.Fatal(err)
	}
	began := time.Now().Add(-time.Hour)
	for i := range 20 {
		r := &kgo.Record{Topic: topic, Partition: int32(i % 2), Value: []byte("x"), Timestamp: began.Add(time.Duration(i/2) * time.Minute)}
		if err := client.ProduceSync(t.Context(), r).FirstErr(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestGroupCommands takes a group through list, describe, lag, seek and delete. EVERLOG_E2E_KAFKA runs it against Kafka.
func TestGroupCommands(t *testing.T) {
	b := harness.StartBroker(t, harness.Options{})
	s := shell{t, b.Addr()}
	hourOld(t, b.Addr(), "orders")
	// The first group of a cluster may have to wait for its coordinator.
	harness.Until(t, time.Minute, "offsets can be committed", func() error {
		if _, errs, code := s.try("orders 0 4\norders 1 10\n", "group", "seek", "billing", "--to-file", "-", "--execute"); code != 0 {
			return errors.New(errs)
		}
		return nil
	})
	s.refused(4, `group "shipping" does not exist`, "group", "describe", "shipping")
	g := s.describe("billing").Groups[0]
	if g.State != "Empty" || g.Lag != 6 || len(g.Partitions) != 2 || g.Partitions[0].Current != 4 || g.Partitions[0].End != 10 || g.Partitions[1].Lag != 0 || g.Partitions[1].LagSeconds != 0 {
		t.Errorf("described: %+v", g)
	}
	// The record at offset 4 is 56 minutes old.
	for what, seconds := range map[string]float64{"the group": g.LagSeconds, "partition 0": g.Partitions[0].LagSeconds} {
		if seconds < 55*60 || seconds > 60*60 {
			t.Errorf("%s is %v s behind, want 56 minutes", what, seconds)
		}
	}
	if out := s.run("group", "lag"); !strings.Contains(out, "billing") || !strings.Contains(out, "56m") {
		t.Errorf("group lag says\n%s", out)
	}
	if out := s.run("group", "list"); !strings.Contains(out, "billing") || !strings.Contains(out, "classic") {
		t.Errorf("group list says\n%s", out)
	}

	// Dry runs change nothing.
	s.run("group", "seek", "billing", "--to", "start")
	s.run("group", "delete", "billing")
	if again := s.describe("billing").Groups[0]; again.Lag != 6 {
		t.Errorf("after dry runs: %+v", again)
	}
	saved := s.run("group", "describe", "billing", "--json")
	s.run("group", "seek", "billing", "--to", "+1", "--execute")
	if moved := s.describe("billing").Groups[0]; moved.Partitions[0].Current != 1 || moved.Partitions[1].Current != 1 {
		t.Errorf("after seek: %+v", moved)
	}
	if _, errs, code := s.try(saved, "group", "seek", "billing", "--to-file", "-", "--execute"); code != 0 {
		t.Errorf("seek to what describe printed: %s", errs)
	}
	if back := s.describe("billing").Groups[0]; back.Partitions[0].Current != 4 || back.Partitions[1].Current != 10 {
		t.Errorf("after seek to a file: %+v", back)
	}
	if _, errs, code := s.try("orders 0 400\n", "group", "seek", "billing", "--to-file", "-", "--execute"); code != 2 || !strings.Contains(errs, "offset 400 is not within the log, 0 to 10") {
		t.Errorf("an offset outside of the log: exit code %d, %s", code, errs)
	}
	s.run("group", "delete", "billing", "--execute")
	s.refused(4, `group "billing" does not exist`, "group", "delete", "billing")
}

// consumerProtocol has a client of kgo join groups by the consumer protocol (KIP-848).
func consumerProtocol(ctx context.Context) context.Context {
	//lint:ignore SA1029 the library looks for this very key
	return context.WithValue(ctx, "opt_in_kafka_next_gen_balancer_beta", true)
}

// TestGroupCommandsWithMembers: groups of both protocols, which refuse to be moved or deleted, and consume -g.
func TestGroupCommandsWithMembers(t *testing.T) {
	b := harness.StartBroker(t, harness.Options{})
	s := shell{t, b.Addr()}
	hourOld(t, b.Addr(), "orders")
	for kind, ctx := range map[string]context.Context{"classic": t.Context(), "consumer": consumerProtocol(t.Context())} {
		t.Run(kind, func(t *testing.T) {
			s := shell{t, b.Addr()}
			group := "of-" + kind
			client := newClient(t, b.Addr(), kgo.WithContext(ctx), kgo.ConsumerGroup(group), kgo.ConsumeTopics("orders"), kgo.ConsumeResetOffset(kgo.NewOffset().AtStart()), kgo.DisableAutoCommit())
			for got := 0; got < 20; {
				fetches := client.PollFetches(t.Context())
				if err := fetches.Err(); err != nil {
					t.Fatal(err)
				}
				got += fetches.NumRecords()
			}
			if err := client.CommitUncommittedOffsets(t.Context()); err != nil {
				t.Fatal(err)
			}
			g := s.describe(group).Groups[0]
			if g.Type != kind || g.State != "Stable" || g.Members != 1 || g.Lag != 0 || len(g.Partitions) != 2 || g.Partitions[0].Member == "" {
				t.Errorf("described: %+v", g)
			}
			s.refused(1, "stop its consumers first", "group", "seek", group, "orders", "--to", "start", "--execute")
			s.refused(1, "stop its consumers first", "group", "delete", group, "--execute")
			client.Close()
			harness.Until(t, time.Minute, "the member has left", func() error {
				if g := s.describe(group).Groups[0]; g.State != "Empty" {
					return fmt.Errorf("%+v", g)
				}
				return nil
			})
			s.run("group", "seek", group, "orders", "--to", "-2", "-p", "1", "--execute")
			if g := s.describe(group).Groups[0]; g.Lag != 2 || g.Partitions[1].Current != 8 {
				t.Errorf("after seek: %+v", g)
			}
		})
	}
	// consume -g goes on where the group stands, and commits.
	if out := s.run("consume", "orders", "-g", "of-classic", "-e", "-f", `%p %o\n`); out != "1 8\n1 9\n" {
		t.Errorf("consume -g prints %q", out)
	}
	if g := s.describe("of-classic").Groups[0]; g.Lag != 0 {
		t.Errorf("after consume -g: %+v", g)
	}
}

// TestTxnCommands lists, describes and aborts a transaction whose producer is gone.
func TestTxnCommands(t *testing.T) {
	b := harness.StartBroker(t, harness.Options{})
	s := shell{t, b.Addr()}
	hourOld(t, b.Addr(), "orders")
	producer := newClient(t, b.Addr(), kgo.TransactionalID("shop"), kgo.TransactionTimeout(10*time.Minute), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := producer.BeginTransaction(); err != nil {
		t.Fatal(err)
	}
	if err := producer.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: 1, Value: []byte("open")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	var listed struct {
		Transactions []struct {
			ID         string  `json:"transactional_id"`
			State      string  `json:"state"`
			Producer   int64   `json:"producer_id"`
			Open       float64 `json:"open_seconds"`
			Partitions []struct {
				Topic     string
				Partition int32
			}
		}
	}
	for _, args := range [][]string{{"txn", "list", "--json"}, {"txn", "list", "--state", "Ongoing", "--json"}, {"txn", "describe", "shop", "--json"}} {
		if err := json.Unmarshal([]byte(s.run(args...)), &listed); err != nil {
			t.Fatal(err)
		}
		if x := listed.Transactions; len(x) != 1 || x[0].ID != "shop" || x[0].State != "Ongoing" || x[0].Open < 0 || len(x[0].Partitions) != 1 || x[0].Partitions[0].Topic != "orders" || x[0].Partitions[0].Partition != 1 {
			t.Errorf("%v: %+v", args, x)
		}
	}
	for _, args := range [][]string{{"txn", "list", "--older-than", "1h", "--json"}, {"txn", "list", "--state", "Empty", "--json"}} {
		listed.Transactions = nil
		if err := json.Unmarshal([]byte(s.run(args...)), &listed); err != nil || len(listed.Transactions) != 0 {
			t.Errorf("%v: %v, %+v", args, err, listed.Transactions)
		}
	}
	s.refused(4, `transactional id "none" does not exist`, "txn", "describe", "none")

	if out := s.run("consume", "orders", "-p", "1", "-o", "10", "-e"); out != "open\n" {
		t.Errorf("the open transaction reads %q", out)
	}
	if out := s.run("txn", "abort", "orders", "1"); !strings.Contains(out, "open") || !strings.Contains(out, fmt.Sprint(listedProducer(t, s))) {
		t.Errorf("what is open: %s", out)
	}
	if out := s.run("txn", "abort", "orders", "0"); strings.Contains(out, "open") {
		t.Errorf("what is open in the other partition: %s", out)
	}
	s.refused(4, "has no such open transaction", "txn", "abort", "orders", "1", "--start-offset", "7", "--execute")
	s.refused(4, `topic "none" does not exist`, "txn", "abort", "none", "0")
	if out := s.run("txn", "abort", "orders", "1", "--start-offset", "10", "--execute"); !strings.Contains(out, "aborted") {
		t.Errorf("abort says %s", out)
	}
	if out := s.run("txn", "abort", "orders", "1"); strings.Contains(out, "open") {
		t.Errorf("after the abort: %s", out)
	}
	// Committed readers are past it.
	after := newClient(t, b.Addr(), kgo.RecordPartitioner(kgo.ManualPartitioner()))
	if err := after.ProduceSync(t.Context(), &kgo.Record{Topic: "orders", Partition: 1, Value: []byte("after")}).FirstErr(); err != nil {
		t.Fatal(err)
	}
	if out := s.run("consume", "orders", "-p", "1", "-o", "10", "-e", "--read-committed"); out != "after\n" {
		t.Errorf("committed readers see %q", out)
	}
}

// listedProducer is the producer id of the one transactional id.
func listedProducer(t *testing.T, s shell) int64 {
	t.Helper()
	var listed struct {
		Transactions []struct {
			Producer int64 `json:"producer_id"`
		}
	}
	if err := json.Unmarshal([]byte(s.run("txn", "list", "--json")), &listed); err != nil || len(listed.Transactions) != 1 {
		t.Fatalf("%v, %+v", err, listed)
	}
	return listed.Transactions[0].Producer
}
