// Package harness starts brokers as real processes and does to them what happens to machines: kill -9, lost disks, full disks,
// power cuts. It knows nothing of records; packages corpus and clients do. Its callers are the tests of e2e.
//
// With EVERLOG_E2E_KAFKA set, Apache Kafka runs in everlog's place, so that a test can be tried against the original: the
// variable names a program that, called as `PROGRAM start PORT DIR`, starts a broker on 127.0.0.1:PORT with its data below
// DIR, prints its process id when it listens, and reads further broker properties from the file named by KAFKA_EXTRA.
package harness

import (
	"fmt"
	"maps"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// readyLimit is how long a broker may take to be ready, recovery included.
const readyLimit = 60 * time.Second

// probe asks for health; a broker that accepts and does not answer is asked again.
var probe = http.Client{Timeout: 2 * time.Second}

// Options says how a broker is started. The zero value is a broker in a fresh directory with a directory store beside its data.
type Options struct {
	Dir   string            // directory of this broker's files; default a temporary one
	Store string            // --store; default file://<Dir>/store
	Set   map[string]string // --set, Kafka's broker setting names; flush=ack|os too
	Env   []string
}

// Broker is one broker process, and what it is started with again after it was killed.
type Broker struct {
	*Process
	t       testing.TB
	options Options
	addr    string
	http    string
}

// StartBroker starts a broker and returns when it is ready.
func StartBroker(t testing.TB, o Options) *Broker {
	t.Helper()
	if o.Dir == "" {
		o.Dir = t.TempDir()
	}
	if o.Store == "" {
		o.Store = "file://" + filepath.Join(o.Dir, "store")
	}
	b := &Broker{t: t, options: o, addr: FreeAddress(t), http: FreeAddress(t)}
	b.Restart()
	return b
}

// IsKafka reports whether Apache Kafka runs in everlog's place.
func IsKafka() bool { return os.Getenv("EVERLOG_E2E_KAFKA") != "" }

// Addr is the address clients connect to; it stays the same over restarts.
func (b *Broker) Addr() string { return b.addr }

// HTTP is the base URL of metrics and health.
func (b *Broker) HTTP() string { return "http://" + b.http }

// Store is the URL of the object store.
func (b *Broker) Store() string { return b.options.Store }

// DataDir is where the broker's local data is.
func (b *Broker) DataDir() string { return filepath.Join(b.options.Dir, "data") }

// Set changes a setting for the next Restart.
func (b *Broker) Set(name, value string) {
	b.options.Set = maps.Clone(b.options.Set)
	if b.options.Set == nil {
		b.options.Set = map[string]string{}
	}
	b.options.Set[name] = value
}

// Restart starts the broker again, with what is on its disk, and returns when it is ready. It must not be running.
func (b *Broker) Restart() {
	b.t.Helper()
	b.Launch()
	b.WaitReady()
}

// Launch is Restart without waiting.
func (b *Broker) Launch() {
	b.t.Helper()
	if b.Process != nil && b.Alive() {
		b.t.Fatal("the broker is running already")
	}
	if IsKafka() {
		b.startKafka()
		return
	}
	args := []string{"dev", "--data-dir", b.DataDir(), "--listen", b.addr, "--advertise", b.addr, "--http", b.http, "--store", b.options.Store, "--node-id", "1"}
	for _, name := range slices.Sorted(maps.Keys(b.options.Set)) {
		args = append(args, "--set", name+"="+b.options.Set[name])
	}
	b.Process = Start(b.t, Command{Name: "everlog", Path: Binary(b.t), Args: args, Env: b.options.Env, Log: filepath.Join(b.logDir(), "everlog.log")})
}

// logDir keeps the log outside Dir, which may be a disk that fails.
func (b *Broker) logDir() string { return b.t.TempDir() }

func (b *Broker) startKafka() {
	b.t.Helper()
	dir := filepath.Join(b.options.Dir, "kafka")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		b.t.Fatal(err)
	}
	var properties strings.Builder
	for name, value := range b.options.Set {
		switch {
		case name == "flush" && value == "ack":
			fmt.Fprintln(&properties, "log.flush.interval.messages=1")
		case name != "flush":
			fmt.Fprintf(&properties, "%s=%s\n", name, value)
		}
	}
	extra := filepath.Join(b.t.TempDir(), "extra.properties")
	if err := os.WriteFile(extra, []byte(properties.String()), 0o644); err != nil {
		b.t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(b.addr)
	cmd := exec.Command(os.Getenv("EVERLOG_E2E_KAFKA"), "start", port, dir)
	cmd.Dir = b.t.TempDir()
	cmd.Env = append(os.Environ(), "KAFKA_EXTRA="+extra)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		b.t.Fatalf("start Kafka: %v", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(out)))
	if err != nil {
		b.t.Fatalf("the starter printed %q, not a process id", out)
	}
	b.Process = adopt(b.t, "Kafka", pid, filepath.Join(dir, "1", "kafka.log"))
}

// WaitReady returns when the broker says it is ready.
func (b *Broker) WaitReady() {
	b.t.Helper()
	Until(b.t, readyLimit, "the broker is ready", func() error {
		b.MustRun()
		if IsKafka() {
			return b.listens()
		}
		response, err := probe.Get(b.HTTP() + "/readyz")
		if err != nil {
			return err
		}
		response.Body.Close()
		if response.StatusCode != http.StatusOK {
			return fmt.Errorf("/readyz: %s", response.Status)
		}
		return b.listens()
	})
}

func (b *Broker) listens() error {
	conn, err := net.Dial("tcp", b.addr)
	if err != nil {
		return err
	}
	return conn.Close()
}

// Wipe deletes all local data, as a lost disk does. The store stays. The broker must not be running.
func (b *Broker) Wipe() {
	b.t.Helper()
	if b.Alive() {
		b.t.Fatal("the broker is running: its disk cannot be wiped")
	}
	if err := os.RemoveAll(b.DataDir()); err != nil {
		b.t.Fatal(err)
	}
}
