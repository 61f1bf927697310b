package disk

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/e2e/clients"
	"github.com/everlog/everlog/e2e/corpus"
	"github.com/everlog/everlog/e2e/harness"
	"github.com/everlog/everlog/e2e/history"
	"github.com/everlog/everlog/e2e/servers"
)

const (
	budgetBytes   = 96 << 20
	fillPerSecond = 8_000 // slow enough for the broker to see its budget run out
	fillLimit     = 2 * time.Minute
	drainLimit    = 2 * time.Minute
)

// A filling is a broker with a disk of its own and a producer that never gives up.
type filling struct {
	t      *testing.T
	disk   *harness.Disk
	server *servers.Server
	broker *harness.Broker
	load   *history.Load
}

func startFilling(t *testing.T, perSecond int, set map[string]string) *filling {
	t.Helper()
	f := &filling{t: t, disk: harness.NewDisk(t, diskBytes), server: servers.MinIO(t)}
	f.broker = harness.StartBroker(t, harness.Options{Dir: filepath.Join(f.disk.Dir(), "broker"), Store: f.server.MinIOURL("everlog-full", ""), Set: set})
	admin, err := clients.NewAdmin(f.broker.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	for topic, n := range map[string]int32{"fill": partitions, "probe": 1} {
		if err := admin.CreateTopic(t.Context(), topic, n, map[string]string{"segment.bytes": "2097152", "retention.ms": "-1"}); err != nil {
			t.Fatal(err)
		}
	}
	f.load, err = history.StartLoad(history.Plan{Addr: f.broker.Addr(), Topic: "fill", Partitions: partitions, Codec: "none", PerSecond: perSecond})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endLoad(f.load) })
	harness.Until(t, progressLimit, "the load is under way", func() error {
		if got := f.load.Acked(); got < fewestBeforeCut {
			return fmt.Errorf("%d records acknowledged", got)
		}
		return nil
	})
	return f
}

// TestDiskFullBudget fills the broker's disk budget while the object store hangs. Producers are slowed, then told to try again; reads
// go on; the broker survives kill -9 in that state. When the store is back, segments ship, the disk is trimmed, and the
// producer that waited all the time goes on as if nothing had been.
func TestDiskFullBudget(t *testing.T) {
	f := startFilling(t, fillPerSecond, map[string]string{"local.budget.bytes": fmt.Sprint(budgetBytes)})
	f.server.Signal(syscall.SIGSTOP)
	throttled := f.untilRefused()
	if throttled == 0 {
		t.Error("producers were refused without having been slowed first")
	}
	f.whileFull()
	f.server.Signal(syscall.SIGCONT)
	f.recovers()
}

// TestDiskFullByOthers takes the disk's last byte from under the broker.
func TestDiskFullByOthers(t *testing.T) {
	f := startFilling(t, loadPerSecond, nil)
	f.disk.Fill()
	f.untilRefused()
	f.whileFull()
	f.disk.Unfill()
	f.recovers()
}

// whileFull reads everything that is local, kills the broker, and reads it again.
func (f *filling) whileFull() {
	f.t.Helper()
	f.broker.MustRun()
	f.checkLocal("reads with a full disk")
	f.broker.Kill()
	f.broker.Restart()
	f.checkLocal("killed and started with a full disk")
}

// checkLocal checks what is on the local disk: the rest is in a store that may hang.
func (f *filling) checkLocal(when string) {
	f.t.Helper()
	admin, err := clients.NewAdmin(f.broker.Addr())
	if err != nil {
		f.t.Fatal(err)
	}
	defer admin.Close()
	known := f.load.Known()
	for i := range known {
		start, err := admin.Offset(f.t.Context(), known[i].Topic, known[i].Number, clients.EarliestLocal)
		if err != nil {
			f.t.Fatal(err)
		}
		known[i].From = start.Offset
	}
	check(f.t, f.broker, when, known, history.Anomalies{})
}

// recovers waits until producers are served again, and checks the whole log.
func (f *filling) recovers() {
	f.t.Helper()
	full := f.load.Acked()
	harness.Until(f.t, drainLimit, "the producer goes on", func() error {
		if got := f.load.Acked(); got < full+fewestBeforeCut {
			return fmt.Errorf("%d records acknowledged, %d when the disk was full", got, full)
		}
		return nil
	})
	produceSmall(f.t, f.broker)
	ctx, cancel := context.WithTimeout(f.t.Context(), drainLimit)
	defer cancel()
	if err := f.load.Stop(ctx); err != nil {
		f.t.Fatal(err)
	}
	check(f.t, f.broker, "in the end", f.load.Known(), history.Anomalies{})
	f.t.Logf("%d records acknowledged, %d of them after the disk was full", f.load.Acked(), f.load.Acked()-full)
}

// untilRefused produces to a topic of its own, batch by batch and retrying nothing, until the broker refuses one with an error
// that clients retry. It returns the longest throttle before that.
func (f *filling) untilRefused() time.Duration {
	f.t.Helper()
	var throttled time.Duration
	client, err := kgo.NewClient(
		kgo.SeedBrokers(f.broker.Addr()), kgo.RequestRetries(0), kgo.RecordRetries(0), kgo.DisableIdempotentWrite(), kgo.WithHooks(throttleHook{&throttled}),
	)
	if err != nil {
		f.t.Fatal(err)
	}
	defer client.Close()
	var refusal *kerr.Error
	harness.Until(f.t, fillLimit, "the disk is full and the broker says so", func() error {
		err := client.ProduceSync(f.t.Context(), &kgo.Record{Topic: "probe", Value: make([]byte, 64<<10)}).FirstErr()
		if err == nil {
			return errors.New("a batch was taken")
		}
		if !errors.As(err, &refusal) {
			return fmt.Errorf("a batch was not answered: %w", err)
		}
		return nil
	})
	f.t.Logf("refused with %v at %d records, %.1f MB of the disk free; throttled up to %v before", refusal, f.load.Acked(), float64(f.disk.Free())/1e6, throttled)
	if !refusal.Retriable {
		f.t.Errorf("a full disk answers %v, which producers do not retry", refusal)
	}
	return throttled
}

// throttleHook notes how long the broker asks clients to wait.
type throttleHook struct{ longest *time.Duration }

// OnBrokerThrottle implements kgo.HookBrokerThrottle.
func (h throttleHook) OnBrokerThrottle(_ kgo.BrokerMetadata, interval time.Duration, _ bool) {
	*h.longest = max(*h.longest, interval)
}

// produceSmall shows that any producer is served again.
func produceSmall(t *testing.T, broker *harness.Broker) {
	t.Helper()
	records := corpus.Part{Style: corpus.Plain, Size: corpus.Slice, Parts: 100}.Take(100)
	to := clients.Destination{Addr: broker.Addr(), Topic: "probe", Codec: "gzip"}
	if err := clients.WriteKcat(t.Context(), to, slices.Values(records)); err != nil {
		t.Error(err)
	}
}
