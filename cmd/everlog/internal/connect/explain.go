package connect

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"syscall"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// codes are the exit codes of Kafka errors that are not plain failures.
var codes = map[string]report.Code{
	"UNKNOWN_TOPIC_OR_PARTITION": report.NotFound, "UNKNOWN_TOPIC_ID": report.NotFound, "GROUP_ID_NOT_FOUND": report.NotFound,
	"RESOURCE_NOT_FOUND": report.NotFound, "TRANSACTIONAL_ID_NOT_FOUND": report.NotFound,

	"TOPIC_AUTHORIZATION_FAILED": report.Denied, "GROUP_AUTHORIZATION_FAILED": report.Denied, "CLUSTER_AUTHORIZATION_FAILED": report.Denied,
	"TRANSACTIONAL_ID_AUTHORIZATION_FAILED": report.Denied, "SASL_AUTHENTICATION_FAILED": report.Denied, "SECURITY_DISABLED": report.Denied,
	"UNSUPPORTED_SASL_MECHANISM": report.Denied, "ILLEGAL_SASL_STATE": report.Denied, "POLICY_VIOLATION": report.Denied,

	"REQUEST_TIMED_OUT": report.Unreachable, "LEADER_NOT_AVAILABLE": report.Unreachable, "NOT_LEADER_FOR_PARTITION": report.Unreachable,
	"NOT_ENOUGH_REPLICAS": report.Unreachable, "NOT_ENOUGH_REPLICAS_AFTER_APPEND": report.Unreachable, "NETWORK_EXCEPTION": report.Unreachable,
	"BROKER_NOT_AVAILABLE": report.Unreachable, "COORDINATOR_NOT_AVAILABLE": report.Unreachable, "NOT_CONTROLLER": report.Unreachable,

	"CORRUPT_MESSAGE": report.Damaged,

	"INVALID_CONFIG": report.Usage, "INVALID_TOPIC_EXCEPTION": report.Usage, "INVALID_PARTITIONS": report.Usage,
	"INVALID_REPLICATION_FACTOR": report.Usage, "INVALID_REPLICA_ASSIGNMENT": report.Usage, "INVALID_REQUEST": report.Usage,
	"INVALID_REQUIRED_ACKS": report.Usage, "OFFSET_OUT_OF_RANGE": report.Usage,
}

// Explain turns what a broker, the network or the client library answered into an error for a person. thing is what was
// being done or touched, as `topic "demo"`; message is the broker's own explanation, or "".
func (f *Flags) Explain(err error, thing, message string) error {
	var mine *report.Error
	var kafka *kerr.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &mine):
		return mine
	case errors.As(err, &kafka):
		return explainKafka(kafka, thing, message)
	case errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, kgo.ErrRecordTimeout):
		return (&report.Error{Code: report.Unreachable, What: fmt.Sprintf("%s: no answer within %s", thing, f.Timeout), Cause: err}).
			WithHint("--timeout waits longer; everlog doctor -b %s looks at the brokers", strings.Join(f.Seeds(), ","))
	case isNetwork(err):
		return f.unreachable(err)
	case strings.Contains(err.Error(), "broker is too old"): // the library's error for it has no name outside
		return &report.Error{Code: report.Failed, What: thing + ": the brokers at " + strings.Join(f.Seeds(), ",") + " do not know this request", Kafka: kerr.UnsupportedVersion.Message, Cause: err}
	}
	return &report.Error{Code: report.Failed, What: fmt.Sprintf("%s: %v", thing, err), Cause: err}
}

func explainKafka(k *kerr.Error, thing, message string) error {
	e := &report.Error{Code: report.Failed, Kafka: k.Message, Cause: k}
	if code, ok := codes[k.Message]; ok {
		e.Code = code
	}
	reason := sentence(message)
	switch {
	case k == kerr.UnknownTopicOrPartition || k == kerr.UnknownTopicID:
		reason = "does not exist"
		e.Hint = "everlog topic list shows what there is"
	case k == kerr.TopicAlreadyExists:
		reason = "exists already"
		e.Hint = "--if-not-exists takes that for done"
	case k == kerr.NotEnoughReplicas || k == kerr.NotEnoughReplicasAfterAppend:
		e.Hint = "everlog topic describe shows the in-sync replicas"
	case reason == "":
		reason = sentence(k.Description)
	}
	if reason == "" {
		reason = sentence(k.Description)
	}
	sep := ": "
	if reason == "does not exist" || reason == "exists already" {
		sep = " "
	}
	e.What = thing + sep + reason
	return e
}

// sentence makes a broker's text fit after a colon: no full stop, no capital unless the first word is a name.
func sentence(s string) string {
	s = strings.TrimRight(strings.TrimSpace(s), ".")
	if len(s) > 1 && s[0] >= 'A' && s[0] <= 'Z' && s[1] >= 'a' && s[1] <= 'z' {
		s = strings.ToLower(s[:1]) + s[1:]
	}
	return s
}

func isNetwork(err error) bool {
	var dial *net.OpError
	var dns *net.DNSError
	var eof *kgo.ErrFirstReadEOF
	return errors.As(err, &dial) || errors.As(err, &dns) || errors.As(err, &eof)
}

// unreachable says why no broker could be talked to.
func (f *Flags) unreachable(err error) error {
	where := strings.Join(f.Seeds(), ",")
	var kafka *kerr.Error
	var dns *net.DNSError
	var eof *kgo.ErrFirstReadEOF
	e := &report.Error{Code: report.Unreachable, Cause: err}
	switch {
	case errors.As(err, &kafka):
		return explainKafka(kafka, "brokers "+where, "")
	case errors.Is(err, syscall.ECONNREFUSED):
		e.What = fmt.Sprintf("no broker answers at %s (connection refused)", where)
		e.Hint = "everlog dev starts one; -b HOST:PORT names another"
	case errors.As(err, &dns):
		e.What = fmt.Sprintf("host %q cannot be found", dns.Name)
		e.Hint = "check -b, or what the broker advertises: it must be a name this machine can resolve"
	case errors.As(err, &eof):
		e.What = fmt.Sprintf("the broker at %s closes the connection at the first byte", where)
		e.Hint = "it may want --tls, or a --user"
	case errors.Is(err, context.DeadlineExceeded):
		e.What = fmt.Sprintf("no broker answers at %s within %s", where, f.Timeout)
		e.Hint = "-b HOST:PORT names another; --timeout waits longer"
	default:
		e.What = fmt.Sprintf("no broker answers at %s: %v", where, err)
	}
	return e
}
