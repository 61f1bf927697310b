package connect

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/everlog/everlog/e2e/drivers"
	"github.com/everlog/everlog/e2e/harness"
)

// rest asks workers; one that waits for a broker that is away is asked again.
var rest = http.Client{Timeout: 20 * time.Second}

// A worker is one process of the cluster of workers.
type worker struct {
	*harness.Process
	t       *testing.T
	command harness.Command
	url     string
}

// newWorker starts a worker. Sources write in transactions, so that what one has written when it is killed is undone.
func newWorker(t *testing.T, broker string) *worker {
	t.Helper()
	addr := harness.FreeAddress(t)
	properties := fmt.Sprintf(`bootstrap.servers=%s
group.id=connect
listeners=http://%s
rest.advertised.listener=http
key.converter=org.apache.kafka.connect.storage.StringConverter
value.converter=org.apache.kafka.connect.storage.StringConverter
config.storage.topic=connect-configs
offset.storage.topic=connect-offsets
status.storage.topic=connect-status
config.storage.replication.factor=1
offset.storage.replication.factor=1
status.storage.replication.factor=1
offset.storage.partitions=3
status.storage.partitions=2
offset.flush.interval.ms=500
exactly.once.source.support=enabled
consumer.isolation.level=read_committed
consumer.auto.offset.reset=earliest
session.timeout.ms=10000
heartbeat.interval.ms=1000
scheduled.rebalance.max.delay.ms=1000
`, broker, addr)
	path := filepath.Join(t.TempDir(), "worker.properties")
	if err := os.WriteFile(path, []byte(properties), 0o644); err != nil {
		t.Fatal(err)
	}
	java := drivers.JavaCommand(t.Context(), t, "org.apache.kafka.connect.cli.ConnectDistributed", path)
	w := &worker{t: t, url: "http://" + addr}
	w.command = harness.Command{Name: "worker", Path: java.Path, Args: java.Args[1:], Log: filepath.Join(t.TempDir(), "worker.log")}
	w.start()
	return w
}

func (w *worker) start() {
	w.t.Helper()
	w.Process = harness.Start(w.t, w.command)
}

// stop ends the worker in good order. A JVM that leaves on SIGTERM exits with 143.
func (w *worker) stop() {
	w.t.Helper()
	w.Signal(syscall.SIGTERM)
	harness.Until(w.t, limit, "the worker has left", func() error {
		if w.Alive() {
			return errors.New("it runs")
		}
		return nil
	})
}

// ask returns the answer of the worker to a request; body is nil, or sent as JSON.
func (w *worker) ask(method, path string, body any) ([]byte, error) {
	var sent io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		sent = bytes.NewReader(text)
	}
	request, err := http.NewRequestWithContext(w.t.Context(), method, w.url+path, sent)
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := rest.Do(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return nil, err
	}
	if response.StatusCode/100 != 2 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, response.Status, text)
	}
	return text, nil
}

// configure creates a connector, or changes it.
func (w *worker) configure(name string, config map[string]string) {
	w.t.Helper()
	harness.Until(w.t, limit, "connector "+name+" is taken", func() error {
		w.MustRun()
		_, err := w.ask(http.MethodPut, "/connectors/"+name+"/config", config)
		return err
	})
}

// awaitRunning returns when a connector and its tasks run.
func (w *worker) awaitRunning(name string) {
	w.t.Helper()
	harness.Until(w.t, limit, name+" runs", func() error {
		text, err := w.ask(http.MethodGet, "/connectors/"+name+"/status", nil)
		if err != nil {
			return err
		}
		type state struct{ State string }
		var status struct {
			Connector state
			Tasks     []state
		}
		if err := json.Unmarshal(text, &status); err != nil {
			return err
		}
		if status.Connector.State != "RUNNING" || len(status.Tasks) != 1 || status.Tasks[0].State != "RUNNING" {
			return fmt.Errorf("its status is %s", text)
		}
		return nil
	})
}
