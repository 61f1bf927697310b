package connect

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

func testFlags() *Flags {
	return &Flags{Brokers: []string{"b:9092"}, Timeout: 5 * time.Second, shell: &report.Shell{Err: &bytes.Buffer{}, Getenv: func(string) string { return "" }}}
}

// TestExplain is what a person reads for what a broker or the network says, with the exit code.
func TestExplain(t *testing.T) {
	tests := []struct {
		err     error
		message string
		want    string
		code    report.Code
	}{
		{kerr.UnknownTopicOrPartition, "", `topic "a" does not exist [UNKNOWN_TOPIC_OR_PARTITION]`, report.NotFound},
		{kerr.TopicAlreadyExists, "Topic 'a' already exists.", `topic "a" exists already [TOPIC_ALREADY_EXISTS]`, report.Failed},
		{kerr.InvalidConfig, "Unknown topic config name: x", `topic "a": unknown topic config name: x [INVALID_CONFIG]`, report.Usage},
		{kerr.TopicAuthorizationFailed, "", `topic "a": not authorized to access topics: [Topic authorization failed.] [TOPIC_AUTHORIZATION_FAILED]`, report.Denied},
		{kerr.NotEnoughReplicas, "", `topic "a": messages are rejected since there are fewer in-sync replicas than required [NOT_ENOUGH_REPLICAS]`, report.Unreachable},
		{kerr.CorruptMessage, "", `topic "a": this message has failed its CRC checksum, exceeds the valid size, has a null key for a compacted topic, or is otherwise corrupt [CORRUPT_MESSAGE]`, report.Damaged},
		{fmt.Errorf("wrapped: %w", kerr.PolicyViolation), "no", `topic "a": no [POLICY_VIOLATION]`, report.Denied},
		{context.DeadlineExceeded, "", `topic "a": no answer within 5s`, report.Unreachable},
		{&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, "", "no broker answers at b:9092 (connection refused)", report.Unreachable},
		{&net.DNSError{Name: "b"}, "", `host "b" cannot be found`, report.Unreachable},
		{errors.New("odd"), "", `topic "a": odd`, report.Failed},
	}
	for _, test := range tests {
		err := testFlags().Explain(test.err, `topic "a"`, test.message)
		if err.Error() != test.want || report.CodeOf(err) != test.code {
			t.Errorf("%v: %q, exit code %d; want %q, %d", test.err, err, report.CodeOf(err), test.want, test.code)
		}
	}
	if err := testFlags().Explain(nil, "x", ""); err != nil {
		t.Errorf("no error became %v", err)
	}
	if err := testFlags().Explain(context.Canceled, "x", ""); report.CodeOf(err) != report.Interrupted {
		t.Errorf("an interrupt became %v", err)
	}
}

func TestProperties(t *testing.T) {
	f := testFlags()
	f.Properties = []string{"bootstrap.servers=x:1,y:2", "security.protocol=SASL_SSL", "sasl.username=me", "sasl.password=secret", "client.id=tool", "sasl.mechanism=PLAIN"}
	if _, err := f.options(); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(f.Seeds()) != "[x:1 y:2]" || !f.TLS || f.User != "me" || f.clientID != "tool" || f.Mechanism != "PLAIN" {
		t.Errorf("flags: %+v", f)
	}
	for _, bad := range []string{"x", "security.protocol=QUIC", "client.ids=1"} {
		f := testFlags()
		f.Properties = []string{bad}
		if _, err := f.options(); report.CodeOf(err) != report.Usage {
			t.Errorf("-X %s: %v", bad, err)
		}
	}
}

func TestSeeds(t *testing.T) {
	f := testFlags()
	f.Brokers = nil
	if got := fmt.Sprint(f.Seeds()); got != "["+DefaultBrokers+"]" {
		t.Errorf("without anything: %s", got)
	}
	f.shell.Getenv = func(name string) string { return map[string]string{"EVERLOG_BROKERS": "e:1,e:2"}[name] }
	if got := fmt.Sprint(f.Seeds()); got != "[e:1 e:2]" {
		t.Errorf("from the environment: %s", got)
	}
}

func TestSoftwareVersion(t *testing.T) {
	for in, want := range map[string]string{"1.2.3": "1.2.3", "v0.0.0-20261125+dirty": "v0.0.0-20261125-dirty", "": "unknown", "-.": "unknown", "1.0+": "1.0"} {
		if got := softwareVersion(in); got != want {
			t.Errorf("%q: %q, want %q", in, got, want)
		}
	}
}
