package disk

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/everlog/everlog/e2e/clients"
	"github.com/everlog/everlog/e2e/harness"
	"github.com/everlog/everlog/e2e/history"
)

func TestMain(m *testing.M) { harness.Main(m) }

const (
	diskBytes       = 8 << 30 // sparse: ten cuts write less than half of it
	partitions      = 6
	loadPerSecond   = 40_000
	progressLimit   = 60 * time.Second // for the load to get anywhere
	fewestBeforeCut = 20_000           // acknowledged records between two cuts, and
	spreadBeforeCut = 60_000           // up to this many more
)

// TestPowerCut cuts the power of the broker's disk in mid-load, several times in a row, under one producer and one consumer
// that live through it all. The object store is on the same disk. Nothing acknowledged may be lost, moved or doubled, and
// nothing a consumer saw may change. (Apache Kafka at its defaults loses tens of thousands of records at the first cut.)
func TestPowerCut(t *testing.T) {
	if err := cutPower(t, fromEnv(t, "EVERLOG_E2E_CUTS", 2), nil); err != nil {
		t.Fatal(err)
	}
}

// TestPowerCutTakesWhatIsNotSynced is the test of the test: a broker that leaves syncing to the system, as Kafka does, must be caught.
func TestPowerCutTakesWhatIsNotSynced(t *testing.T) {
	err := cutPower(t, 1, map[string]string{"flush": "os"})
	if err == nil {
		t.Fatal("flush=os, and nothing was lost: the cut does not cut")
	}
	t.Logf("as it should be with flush=os: %v", err)
}

// cutPower returns what the clients were told and the log does not keep, nil if it keeps everything.
func cutPower(t *testing.T, cuts int, set map[string]string) error {
	t.Helper()
	seed := uint64(fromEnv(t, "EVERLOG_E2E_SEED", int(time.Now().UnixNano()&0xffffff)))
	t.Logf("%d cuts, EVERLOG_E2E_SEED=%d", cuts, seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	disk := harness.NewDisk(t, diskBytes)
	broker := harness.StartBroker(t, harness.Options{Dir: filepath.Join(disk.Dir(), "broker"), Set: set})
	load, tail := startCutLoad(t, disk, broker, seed)

	for cut := range cuts {
		want := load.Acked() + fewestBeforeCut + rng.Int64N(spreadBeforeCut)
		harness.Until(t, progressLimit, fmt.Sprintf("%d records are acknowledged", want), func() error {
			if got := load.Acked(); got < want {
				return fmt.Errorf("%d are", got)
			}
			return nil
		})
		disk.PowerCut()
		broker.Kill()
		known := load.Known()
		seen := tail.Into(known)
		disk.Remount()
		began := time.Now()
		broker.Restart()
		t.Logf("cut %d with %d records acknowledged; ready again after %.2f s", cut+1, load.Acked(), time.Since(began).Seconds())
		if err := verdict(t, broker, known, seen); err != nil {
			return fmt.Errorf("after cut %d: %w", cut+1, err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), progressLimit)
	defer cancel()
	if err := load.Stop(ctx); err != nil {
		return err
	}
	known := load.Known()
	if err := verdict(t, broker, known, tail.Into(known)); err != nil {
		return fmt.Errorf("in the end: %w", err)
	}
	t.Logf("%d records acknowledged over %d cuts, all there, once, in place", load.Acked(), cuts)
	return nil
}

// startCutLoad starts the producer and the consumer, which end with the test.
func startCutLoad(t *testing.T, disk *harness.Disk, broker *harness.Broker, seed uint64) (*history.Load, *history.Tail) {
	t.Helper()
	admin, err := clients.NewAdmin(broker.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer admin.Close()
	// Small segments, so that cuts fall into rolls and uploads too.
	if err := admin.CreateTopic(t.Context(), "cut", partitions, map[string]string{"segment.bytes": "8388608", "retention.ms": "-1"}); err != nil {
		t.Fatal(err)
	}
	if harness.IsKafka() {
		disk.Sync() // without it Kafka does not survive the first cut to be tested: its own format is not fsynced
	}
	load, err := history.StartLoad(history.Plan{Addr: broker.Addr(), Topic: "cut", Partitions: partitions, Codec: "none", PerSecond: loadPerSecond, Seed: seed})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { endLoad(load) })
	tail, err := history.StartTail(broker.Addr(), "cut", partitions)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tail.Stop)
	return load, tail
}

// endLoad stops a load that a failed test has left without a broker; one that has been stopped is left alone.
func endLoad(load *history.Load) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = load.Stop(ctx) // the failure has been reported
}

// verdict holds what was known before against the log as it is now.
func verdict(t *testing.T, broker *harness.Broker, known []history.Partition, found history.Anomalies) error {
	t.Helper()
	log, err := history.CheckLog(t.Context(), broker.Addr(), known)
	found.Add(log)
	return errors.Join(err, found.Err())
}

func check(t *testing.T, broker *harness.Broker, when string, known []history.Partition, found history.Anomalies) {
	t.Helper()
	if err := verdict(t, broker, known, found); err != nil {
		t.Fatalf("%s: %v", when, err)
	}
}

func fromEnv(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%q is not a number", name, text)
	}
	return n
}
