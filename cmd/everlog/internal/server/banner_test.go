package server

import (
	"bytes"
	"testing"
	"time"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// TestBanner: what dev says follows from the settings, for they may differ from the defaults.
func TestBanner(t *testing.T) {
	tests := []struct {
		name     string
		settings Settings
		want     string
	}{
		{"defaults", Settings{DataDir: "./everlog-data", Advertise: "localhost:9092", HTTP: "localhost:8080", Store: "file:///d/store"},
			`everlog 1.2.3 dev mode · 1 broker · data in ./everlog-data (kept) · ready in 0.21 s
  Kafka     localhost:9092         Metrics  http://localhost:8080/metrics   Health  http://localhost:8080/readyz
  Store     file:///d/store · segments go there when sealed, after 10m at most · retention 7d
  Try       echo hello | everlog produce demo     everlog consume demo -o start
            everlog tier ls file:///d/store
  Not for production: no authentication, one copy on this disk; fsync before every acknowledgement. Ctrl-C stops.
`},
		{"others", Settings{DataDir: "/d", Advertise: "h:19092", HTTP: "h:1", Store: "mem://", Kafka: map[string]string{"flush": "os", "log.retention.ms": "-1", "tier.seal.ms": "1000"}},
			`everlog 1.2.3 dev mode · 1 broker · data in /d (kept; the store is memory and is not) · ready in 0.21 s
  Kafka     h:19092                Metrics  http://h:1/metrics   Health  http://h:1/readyz
  Store     mem:// · segments go there when sealed, after 1s at most · retention forever
  Try       echo hello | everlog produce demo -b h:19092     everlog consume demo -o start -b h:19092
  Not for production: no authentication, one copy on this disk; no fsync (flush=os). Ctrl-C stops.
`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var b bytes.Buffer
			if err := banner(&report.Shell{Err: &b, Version: "1.2.3"}, test.settings, 210*time.Millisecond); err != nil {
				t.Fatal(err)
			}
			if b.String() != test.want {
				t.Errorf("it says\n%s\nwant\n%s", b.String(), test.want)
			}
		})
	}
}

// TestExplain: one name may be several settings; own keys are found by the name of their flag too.
func TestExplain(t *testing.T) {
	for name, kinds := range map[string][]string{
		"data_dir": {"setting of this process"}, "--data-dir": {"setting of this process"}, "log.retention.ms": {"broker setting"}, "retention.ms": {"topic setting"},
		"min.insync.replicas": {"broker setting", "topic setting"}, "nonsense": nil,
	} {
		docs := explain(name)
		if len(docs) != len(kinds) {
			t.Fatalf("%s: %d explanations, want %d", name, len(docs), len(kinds))
		}
		for i, d := range docs {
			if d.Kind != kinds[i] || d.Doc == "" {
				t.Errorf("%s: %+v", name, d)
			}
		}
	}
}
