// Package server holds the commands that run a broker (dev, serve), those about its configuration (config), and the one that
// checks what a broker needs (doctor). It reads flags, environment and file into Settings and hands them to what package
// main wires in as Start; how a broker is put together is no matter of this package.
package server

import (
	"fmt"
	"net"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// Settings are the configuration of one broker process. Kafka holds broker settings by Kafka's names.
type Settings struct {
	NodeID    int32
	DataDir   string
	Listen    string
	Advertise string
	HTTP      string
	Store     string
	LogLevel  string
	LogFormat string
	Kafka     map[string]string
}

// key is one setting of everlog's own: what a broker must know before it knows its cluster.
type key struct {
	name, fallback, doc string
}

// keys are all of them. The name in the file is the name of the flag with _ for -, and of the environment variable in
// capitals after EVERLOG_.
var keys = []key{
	{"node_id", "1", "Number of this broker, one of its own in the cluster."},
	{"data_dir", "./everlog-data", "Directory for the log on this machine's disk, and for all other local state."},
	{"listen", "localhost:9092", "HOST:PORT where Kafka clients are served; 0.0.0.0:9092 is every address."},
	{"advertise", "", "HOST:PORT that clients and other brokers dial; by default what listen says."},
	{"http", "localhost:8080", "HOST:PORT for metrics and health."},
	{"store", "", "URL of the object store that holds the cluster: file:///dir, s3://bucket/prefix, minio://host:port/bucket/prefix; by default file://<data_dir>/store."},
	{"log_level", "info", "debug, info, warn or error."},
	{"log_format", "text", "text or json."},
}

func (k key) flag() string { return strings.ReplaceAll(k.name, "_", "-") }
func (k key) env() string  { return "EVERLOG_" + strings.ToUpper(k.name) }

func keyNamed(name string) (key, bool) {
	i := slices.IndexFunc(keys, func(k key) bool { return k.name == name })
	if i < 0 {
		return key{}, false
	}
	return keys[i], true
}

func keyNames() []string {
	names := make([]string, len(keys))
	for i, k := range keys {
		names[i] = k.name
	}
	return names
}

// value is a setting with where it comes from: "default", "file NAME:LINE", "environment NAME", "flag --NAME".
type value struct{ text, origin string }

// layers are all settings, each from the strongest place that names it: flag, then environment, then file, then default.
type layers struct {
	own   map[string]value
	kafka map[string]value
}

func newLayers() *layers {
	l := &layers{own: map[string]value{}, kafka: map[string]value{}}
	for _, k := range keys {
		l.own[k.name] = value{k.fallback, "default"}
	}
	return l
}

// settingPrefix begins environment variables for Kafka's names: EVERLOG_SET_LOG_RETENTION_MS is log.retention.ms.
const settingPrefix = "EVERLOG_SET_"

// environment lays the variables over the file.
func (l *layers) environment(environ []string) {
	for _, variable := range environ {
		name, text, _ := strings.Cut(variable, "=")
		if setting, ok := strings.CutPrefix(name, settingPrefix); ok && setting != "" {
			l.kafka[strings.ReplaceAll(strings.ToLower(setting), "_", ".")] = value{text, "environment " + name}
			continue
		}
		for _, k := range keys {
			if name == k.env() && text != "" {
				l.own[k.name] = value{text, "environment " + name}
			}
		}
	}
}

// set takes one --set NAME=VALUE.
func (l *layers) set(assignment string) error {
	name, text, ok := strings.Cut(assignment, "=")
	if !ok || name == "" {
		return report.Usagef("--set %q is not NAME=VALUE", assignment)
	}
	l.kafka[name] = value{text, "flag --set"}
	return nil
}

// settings checks every value and gives the typed result. The error names the setting and where its value comes from.
func (l *layers) settings() (Settings, error) {
	id, err := strconv.ParseInt(l.own["node_id"].text, 10, 32)
	if err != nil || id < 0 {
		return Settings{}, l.wrong("node_id", "is not a number from 0 to 2147483647")
	}
	s := Settings{
		NodeID: int32(id), DataDir: l.own["data_dir"].text, Listen: l.own["listen"].text, Advertise: l.own["advertise"].text, HTTP: l.own["http"].text,
		Store: l.own["store"].text, LogLevel: l.own["log_level"].text, LogFormat: l.own["log_format"].text, Kafka: map[string]string{},
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, s.LogLevel) {
		return Settings{}, l.wrong("log_level", "is none of debug, info, warn, error")
	}
	if s.LogFormat != "text" && s.LogFormat != "json" {
		return Settings{}, l.wrong("log_format", "is neither text nor json")
	}
	if s.DataDir == "" {
		return Settings{}, l.wrong("data_dir", "names no directory")
	}
	for _, name := range []string{"listen", "http", "advertise"} {
		if err := l.address(name); err != nil {
			return Settings{}, err
		}
	}
	if s.Advertise == "" {
		if host, _, _ := net.SplitHostPort(s.Listen); host == "" || net.ParseIP(host).IsUnspecified() {
			return Settings{}, l.wrong("listen", "is every address of this machine, which no client can dial").(*report.Error).WithHint("--advertise HOST:PORT says what clients should dial")
		}
		s.Advertise = s.Listen
	}
	if s.Store == "" {
		dir, err := filepath.Abs(filepath.Join(s.DataDir, "store"))
		if err != nil {
			return Settings{}, fmt.Errorf("data directory %s: %w", s.DataDir, err)
		}
		s.Store = "file://" + dir
	}
	if err := l.store(s.Store); err != nil {
		return Settings{}, err
	}
	return s, l.kafkaSettings(s.Kafka)
}

// address wants HOST:PORT; advertise may be empty.
func (l *layers) address(name string) error {
	text := l.own[name].text
	if text == "" && name == "advertise" {
		return nil
	}
	host, port, err := net.SplitHostPort(text)
	if err != nil {
		return l.wrong(name, "is not HOST:PORT")
	}
	if n, err := strconv.ParseUint(port, 10, 16); err != nil || name == "advertise" && n == 0 {
		return l.wrong(name, "has no port between 1 and 65535")
	}
	if ip := net.ParseIP(host); name == "advertise" && (host == "" || ip != nil && ip.IsUnspecified()) {
		return l.wrong(name, "is no address that a client can dial")
	}
	return nil
}

// storeSchemes are the kinds of stores.
var storeSchemes = []string{"file", "s3", "minio", "mem"}

func (l *layers) store(url string) error {
	scheme, rest, ok := strings.Cut(url, "://")
	if !ok {
		return l.wrong("store", "is no URL").(*report.Error).WithHint("file:///dir, s3://bucket/prefix, minio://host:port/bucket/prefix")
	}
	if !slices.Contains(storeSchemes, scheme) || rest == "" && scheme != "mem" {
		return l.wrong("store", "names no store").(*report.Error).WithHint("file:///dir, s3://bucket/prefix, minio://host:port/bucket/prefix")
	}
	return nil
}

// kafkaSettings checks the settings by Kafka's names, one by one so that the place of a wrong one can be told.
func (l *layers) kafkaSettings(out map[string]string) error {
	names := make([]string, 0, len(l.kafka))
	for name := range l.kafka {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		v := l.kafka[name]
		if _, ok := config.BrokerKey(name); !ok {
			return unknownSetting(name, v.origin)
		}
		if _, err := config.ParseBroker(map[string]string{name: v.text}); err != nil {
			return report.Usagef("%s: %w", v.origin, err).WithHint("everlog config explain %s", name)
		}
		out[name] = v.text
	}
	if _, err := config.ParseBroker(out); err != nil {
		return report.Usagef("settings: %w", err)
	}
	return nil
}

func unknownSetting(name, origin string) error {
	e := report.Usagef("%s: there is no broker setting %q", origin, name)
	if k, ok := config.TopicKey(name); ok && k.Synonym != "" {
		return e.WithHint("it is a topic setting; %s is its default for all topics", k.Synonym)
	} else if ok {
		return e.WithHint("it is a topic setting: everlog topic alter TOPIC -c %s=…", name)
	}
	if hint := report.DidYouMean(name, brokerNames()); hint != "" {
		return e.WithHint("%s", hint)
	}
	return e.WithHint("everlog config print --all lists them")
}

func brokerNames() []string {
	all := config.BrokerKeys()
	names := make([]string, len(all))
	for i, k := range all {
		names[i] = k.Name
	}
	return names
}

// wrong words a value that cannot be used.
func (l *layers) wrong(name, reason string) error {
	v := l.own[name]
	return report.Usagef("%s: %s %q %s", v.origin, name, v.text, reason).WithHint("everlog config explain %s", name)
}
