package server

import (
	"fmt"
	"strings"
	"time"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cmd/everlog/internal/connect"
	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// banner tells on standard error what runs, where it keeps its data, and what to type first. Every word of it is taken from
// the settings in force.
func banner(shell *report.Shell, s Settings, took time.Duration) error {
	broker, err := config.ParseBroker(s.Kafka)
	if err != nil {
		return err
	}
	style := shell.ErrStyle()
	kept := "kept"
	if strings.HasPrefix(s.Store, "mem://") {
		kept = "kept; the store is memory and is not"
	}
	shell.Notef("%s dev mode · 1 broker · data in %s (%s) · ready in %.2f s", style.Bold("everlog "+shell.Version), s.DataDir, kept, took.Seconds())
	shell.Notef("  Kafka     %-22s Metrics  http://%s/metrics   Health  http://%s/readyz", s.Advertise, s.HTTP, s.HTTP)
	shell.Notef("  Store     %s · segments go there when sealed, after %s at most · retention %s", showURL(s.Store), grammar.FormatDuration(broker.TierSeal), retention(broker))
	at := ""
	if s.Advertise != connect.DefaultBrokers {
		at = " -b " + s.Advertise
	}
	shell.Notef("  Try       echo hello | everlog produce demo%s     everlog consume demo -o start%s", at, at)
	if strings.HasPrefix(s.Store, "file://") {
		shell.Notef("            everlog tier ls %s", showURL(s.Store))
	}
	durability := "fsync before every acknowledgement"
	if broker.FlushOS {
		durability = "no fsync (flush=os)"
	}
	shell.Notef("  %s", style.Dim(fmt.Sprintf("Not for production: no authentication, one copy on this disk; %s. Ctrl-C stops.", durability)))
	return nil
}

// retention is the default of new topics, in words.
func retention(b *config.Broker) string {
	return grammar.Limits{MS: broker64(b, "log.retention.ms"), Bytes: broker64(b, "log.retention.bytes")}.String()
}

func broker64(b *config.Broker, name string) int64 {
	if _, ok := b.Lookup(name); !ok {
		return grammar.Forever
	}
	return b.Int(name)
}
