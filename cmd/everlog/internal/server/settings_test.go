package server

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// read lays a file (its content, "" for none), an environment and --set flags over the defaults, as serve does.
func read(t *testing.T, content string, environ, sets []string) (*layers, string, error) {
	t.Helper()
	l := newLayers()
	name := filepath.Join(t.TempDir(), "everlog.yaml")
	if content != "" {
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := l.file(name, false); err != nil {
			return nil, name, err
		}
	}
	l.environment(environ)
	for _, s := range sets {
		if err := l.set(s); err != nil {
			return nil, name, err
		}
	}
	return l, name, nil
}

func TestDefaults(t *testing.T) {
	l, _, err := read(t, "", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	got, err := l.settings()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := filepath.Abs("everlog-data")
	if err != nil {
		t.Fatal(err)
	}
	want := Settings{NodeID: 1, DataDir: "./everlog-data", Listen: "localhost:9092", Advertise: "localhost:9092", HTTP: "localhost:8080",
		Store: "file://" + dir + "/store", LogLevel: "info", LogFormat: "text", Kafka: map[string]string{}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestLayers checks that the stronger source wins and that each value remembers its place.
func TestLayers(t *testing.T) {
	content := "# a broker\nnode_id: 7\nlisten: 127.0.0.1:9093\nstore: s3://bucket/prefix\nsettings:\n  num.partitions: 4\n  log.retention.ms: -1\n  auto.create.topics.enable: false\n"
	l, name, err := read(t, content, []string{"EVERLOG_LISTEN=127.0.0.1:9094", "EVERLOG_SET_NUM_PARTITIONS=5", "EVERLOG_BROKERS=x:1", "HOME=/root"}, []string{"num.partitions=6"})
	if err != nil {
		t.Fatal(err)
	}
	s, err := l.settings()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{"num.partitions": "6", "log.retention.ms": "-1", "auto.create.topics.enable": "false"}
	if diff := cmp.Diff(want, s.Kafka); diff != "" {
		t.Error(diff)
	}
	if s.NodeID != 7 || s.Listen != "127.0.0.1:9094" || s.Advertise != s.Listen || s.Store != "s3://bucket/prefix" {
		t.Errorf("settings: %+v", s)
	}
	origins := map[string]string{
		l.own["node_id"].origin: "file " + name + ":2", l.own["listen"].origin: "environment EVERLOG_LISTEN", l.own["http"].origin: "default",
		l.kafka["num.partitions"].origin: "flag --set", l.kafka["log.retention.ms"].origin: "file " + name + ":7",
	}
	for got, want := range origins {
		if got != want {
			t.Errorf("origin %q, want %q", got, want)
		}
	}
}

// TestRefused holds what a person reads for each kind of mistake. FILE is the file's name.
func TestRefused(t *testing.T) {
	tests := []struct {
		name, content string
		environ, sets []string
		want, hint    string
	}{
		{name: "unknown key", content: "node_id: 1\nlistn: x:1\n", hint: "did you mean listen?",
			want: "configuration FILE: [2:1] unknown field \"listn\"\n   1 | node_id: 1\n>  2 | listn: x:1\n       ^\n"},
		{name: "bad yaml", content: "node_id: [1\n", want: "configuration FILE: [1:"},
		{name: "twice", content: "http: a:1\nhttp: b:1\n", want: "configuration FILE: [2:1] mapping key \"http\" already defined"},
		{name: "unknown setting in the file", content: "settings:\n  log.retention.m: 5\n", hint: "did you mean log.retention.ms?",
			want: `file FILE:2: there is no broker setting "log.retention.m"`},
		{name: "nested setting", content: "settings:\n  log:\n    retention.ms: 5\n", want: `file FILE:2: setting "log" is no single value`},
		{name: "empty setting", content: "settings:\n  num.partitions:\n", want: `file FILE:2: setting "num.partitions" has no value`},
		{name: "unknown --set", sets: []string{"num.partition=4"}, want: `flag --set: there is no broker setting "num.partition"`, hint: "did you mean num.partitions?"},
		{name: "topic setting", sets: []string{"retention.ms=4"}, want: `there is no broker setting "retention.ms"`, hint: "topic"},
		{name: "bad value", sets: []string{"num.partitions=four"}, want: "flag --set: Invalid value four for configuration num.partitions", hint: "everlog config explain num.partitions"},
		{name: "no assignment", sets: []string{"num.partitions"}, want: `--set "num.partitions" is not NAME=VALUE`},
		{name: "node id", environ: []string{"EVERLOG_NODE_ID=one"}, want: `environment EVERLOG_NODE_ID: node_id "one" is not a number`},
		{name: "wildcard", content: "listen: 0.0.0.0:9092\n", want: `file FILE:1: listen "0.0.0.0:9092" is every address`, hint: "--advertise HOST:PORT"},
		{name: "advertised wildcard", content: "advertise: 0.0.0.0:9092\n", want: "is no address that a client can dial"},
		{name: "no port", content: "http: localhost\n", want: `http "localhost" is not HOST:PORT`},
		{name: "bad port", content: "http: localhost:99999\n", want: "has no port"},
		{name: "no scheme", content: "store: /var/lib\n", want: `store "/var/lib" is no URL`, hint: "file:///dir"},
		{name: "unknown scheme", content: "store: gs://bucket\n", want: "names no store", hint: "s3://"},
		{name: "log level", content: "log_level: loud\n", want: "is none of debug, info, warn, error"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			l, name, err := read(t, test.content, test.environ, test.sets)
			if err == nil {
				_, err = l.settings()
			}
			if err == nil {
				t.Fatal("it was accepted")
			}
			if report.CodeOf(err) != report.Usage {
				t.Errorf("exit code %d, want %d", report.CodeOf(err), report.Usage)
			}
			var text strings.Builder
			report.WriteError(&text, err, report.Style{}, false)
			if want := strings.ReplaceAll(test.want, "FILE", name); !strings.Contains(text.String(), want) {
				t.Errorf("it says\n%s\nwant\n%s", text.String(), want)
			}
			if !strings.Contains(text.String(), test.hint) || test.hint != "" && !strings.Contains(text.String(), "hint: ") {
				t.Errorf("it says\n%s\nwant the hint %q", text.String(), test.hint)
			}
		})
	}
}

func TestShowURLHidesSecrets(t *testing.T) {
	for in, want := range map[string]string{
		"file:///var/lib/store":                                "file:///var/lib/store",
		"minio://key:topsecret@127.0.0.1:9000/bucket?secure=0": "minio://key@127.0.0.1:9000/bucket?secure=0",
		"s3://bucket/prefix?region=eu&secret=topsecret":        "s3://bucket/prefix?region=eu&secret=hidden",
	} {
		if got := showURL(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}
