// Package connect owns how the client half of the command line reaches a Kafka cluster: the flags that say where and as whom,
// and the sentences for what a broker or the network answers. Commands that speak Kafka call it; it holds no command.
package connect

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/sasl"
	"github.com/twmb/franz-go/pkg/sasl/plain"
	"github.com/twmb/franz-go/pkg/sasl/scram"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// DefaultBrokers is where everlog dev listens.
const DefaultBrokers = "localhost:9092"

// Flags say where the cluster is and how to get in.
type Flags struct {
	Brokers      []string
	Properties   []string // -X name=value
	TLS          bool
	CA           string // file names, PEM
	Cert         string
	Key          string
	User         string
	PasswordFile string
	Mechanism    string
	Timeout      time.Duration

	shell    *report.Shell
	once     sync.Once // applies Properties; many clients may be made of the same flags at once
	badX     error
	clientID string
	rack     string
	password string
}

// Add puts the flags on a command and all below it.
func Add(cmd *cobra.Command, shell *report.Shell) *Flags {
	f := &Flags{shell: shell}
	flags := cmd.PersistentFlags()
	flags.StringSliceVarP(&f.Brokers, "brokers", "b", nil, "brokers to start from, HOST:PORT (default $EVERLOG_BROKERS or "+DefaultBrokers+")")
	flags.StringSliceVar(&f.Brokers, "bootstrap-server", nil, "same as --brokers")
	flags.StringArrayVarP(&f.Properties, "property", "X", nil, "client property NAME=VALUE, by Kafka's or librdkafka's name")
	flags.BoolVar(&f.TLS, "tls", false, "encrypt the connections")
	flags.StringVar(&f.CA, "ca", "", "PEM file of authorities to trust instead of the system's")
	flags.StringVar(&f.Cert, "cert", "", "PEM file of the client's certificate")
	flags.StringVar(&f.Key, "key", "", "PEM file of the client's private key")
	flags.StringVar(&f.User, "user", "", "user name for SASL")
	flags.StringVar(&f.PasswordFile, "password-file", "", "file that holds the password (default $EVERLOG_PASSWORD)")
	flags.StringVar(&f.Mechanism, "mechanism", "SCRAM-SHA-256", "PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
	flags.DurationVar(&f.Timeout, "timeout", 10*time.Second, "how long to wait for an answer")
	_ = flags.MarkHidden("bootstrap-server")
	return f
}

// properties are the client properties of -X, by Kafka's and librdkafka's names.
var properties = map[string]func(f *Flags, value string) error{
	"bootstrap.servers":        func(f *Flags, v string) error { f.Brokers = strings.Split(v, ","); return nil },
	"metadata.broker.list":     func(f *Flags, v string) error { f.Brokers = strings.Split(v, ","); return nil },
	"client.id":                func(f *Flags, v string) error { f.clientID = v; return nil },
	"client.rack":              func(f *Flags, v string) error { f.rack = v; return nil },
	"sasl.mechanism":           func(f *Flags, v string) error { f.Mechanism = v; return nil },
	"sasl.mechanisms":          func(f *Flags, v string) error { f.Mechanism = v; return nil },
	"sasl.username":            func(f *Flags, v string) error { f.User = v; return nil },
	"sasl.password":            func(f *Flags, v string) error { f.password = v; return nil },
	"ssl.ca.location":          func(f *Flags, v string) error { f.CA = v; return nil },
	"ssl.certificate.location": func(f *Flags, v string) error { f.Cert = v; return nil },
	"ssl.key.location":         func(f *Flags, v string) error { f.Key = v; return nil },
	"security.protocol": func(f *Flags, v string) error {
		switch p := strings.ToUpper(v); p {
		case "PLAINTEXT", "SASL_PLAINTEXT":
			f.TLS = false
		case "SSL", "SASL_SSL":
			f.TLS = true
		default:
			return report.Usagef("-X security.protocol: %q does not exist", v).WithHint("one of PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL")
		}
		return nil
	},
}

func (f *Flags) applyProperties() error {
	for _, p := range f.Properties {
		name, value, ok := strings.Cut(p, "=")
		if !ok {
			return report.Usagef("-X %q is not NAME=VALUE", p)
		}
		set, ok := properties[name]
		if !ok {
			names := make([]string, 0, len(properties))
			for n := range properties {
				names = append(names, n)
			}
			slices.Sort(names)
			e := report.Usagef("-X: there is no client property %q", name)
			if hint := report.DidYouMean(name, names); hint != "" {
				return e.WithHint("%s", hint)
			}
			return e.WithHint("one of %s", strings.Join(names, ", "))
		}
		if err := set(f, value); err != nil {
			return err
		}
	}
	return nil
}

// Seeds are the brokers to start from: the flag, $EVERLOG_BROKERS, or DefaultBrokers.
func (f *Flags) Seeds() []string {
	if len(f.Brokers) > 0 {
		return f.Brokers
	}
	if env := f.shell.Getenv("EVERLOG_BROKERS"); env != "" {
		return strings.Split(env, ",")
	}
	return []string{DefaultBrokers}
}

// Client connects and asks one broker for a sign of life, so that a wrong address fails at once and with its reason. The
// caller closes it.
func (f *Flags) Client(ctx context.Context, options ...kgo.Opt) (*kgo.Client, error) {
	base, err := f.options()
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(append(base, options...)...)
	if err != nil {
		return nil, report.Usagef("client options: %w", err)
	}
	ping, cancel := context.WithTimeout(ctx, f.Timeout)
	defer cancel()
	if err := client.Ping(ping); err != nil {
		client.Close()
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		return nil, f.unreachable(err)
	}
	return client, nil
}

// Admin connects for administration. The caller closes it.
func (f *Flags) Admin(ctx context.Context) (*kadm.Client, error) {
	client, err := f.Client(ctx)
	if err != nil {
		return nil, err
	}
	return f.AdminOf(client), nil
}

// AdminOf is the administration half of a client.
func (f *Flags) AdminOf(client *kgo.Client) *kadm.Client {
	admin := kadm.NewClient(client)
	admin.SetTimeoutMillis(int32(f.Timeout.Milliseconds()))
	return admin
}

func (f *Flags) options() ([]kgo.Opt, error) {
	f.once.Do(func() { f.badX = f.applyProperties() })
	if f.badX != nil {
		return nil, f.badX
	}
	options := []kgo.Opt{
		kgo.SeedBrokers(f.Seeds()...),
		kgo.ClientID("everlog"),
		kgo.SoftwareNameAndVersion("everlog", softwareVersion(f.shell.Version)),
		kgo.DialTimeout(f.Timeout),
		kgo.RetryTimeout(f.Timeout),
		kgo.DisableClientMetrics(),
	}
	if f.clientID != "" {
		options = append(options, kgo.ClientID(f.clientID))
	}
	if f.rack != "" {
		options = append(options, kgo.Rack(f.rack))
	}
	if f.shell.Verbose {
		options = append(options, kgo.WithLogger(kgo.BasicLogger(f.shell.Err, kgo.LogLevelInfo, nil)))
	}
	if f.TLS || f.CA != "" || f.Cert != "" {
		config, err := f.tls()
		if err != nil {
			return nil, err
		}
		options = append(options, kgo.DialTLSConfig(config))
	}
	if f.User != "" {
		mechanism, err := f.sasl()
		if err != nil {
			return nil, err
		}
		options = append(options, kgo.SASL(mechanism))
	}
	return options, nil
}

// softwareVersion makes a version fit for ApiVersions: brokers refuse clients whose version has other letters than these
// (KIP-511), such as the + of a modified build.
func softwareVersion(version string) string {
	fit := strings.Trim(strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '.' {
			return r
		}
		return '-'
	}, version), "-.")
	if fit == "" {
		return "unknown"
	}
	return fit
}

func (f *Flags) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return nil, report.Usagef("--ca: %w", err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(pem) {
			return nil, report.Usagef("--ca %s holds no PEM certificate", f.CA)
		}
	}
	if (f.Cert == "") != (f.Key == "") {
		return nil, report.Usagef("--cert and --key go together")
	}
	if f.Cert != "" {
		pair, err := tls.LoadX509KeyPair(f.Cert, f.Key)
		if err != nil {
			return nil, report.Usagef("--cert %s: %w", f.Cert, err)
		}
		config.Certificates = []tls.Certificate{pair}
	}
	return config, nil
}

func (f *Flags) sasl() (sasl.Mechanism, error) {
	password := f.password
	if f.PasswordFile != "" {
		b, err := os.ReadFile(f.PasswordFile)
		if err != nil {
			return nil, report.Usagef("--password-file: %w", err)
		}
		password = strings.TrimRight(string(b), "\r\n")
	} else if password == "" {
		password = f.shell.Getenv("EVERLOG_PASSWORD")
	}
	if password == "" {
		return nil, report.Usagef("user %q has no password", f.User).WithHint("--password-file FILE, or the environment variable EVERLOG_PASSWORD")
	}
	switch strings.ToUpper(f.Mechanism) {
	case "PLAIN":
		return plain.Auth{User: f.User, Pass: password}.AsMechanism(), nil
	case "SCRAM-SHA-256":
		return scram.Auth{User: f.User, Pass: password}.AsSha256Mechanism(), nil
	case "SCRAM-SHA-512":
		return scram.Auth{User: f.User, Pass: password}.AsSha512Mechanism(), nil
	}
	return nil, report.Usagef("--mechanism %q does not exist", f.Mechanism).WithHint("one of PLAIN, SCRAM-SHA-256, SCRAM-SHA-512")
}
