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
	cuts := fromEnv(t, "EVERLOG_E2E_CUTS", 2)
	seed := uint64(fromEnv(t, "EVERLOG_E2E_SEED", int(time.Now().UnixNano()&0xffffff)))
	t.Logf("%d cuts, EVERLOG_E2E_SEED=%d", cuts, seed)
	rng := rand.New(rand.NewPCG(seed, 0))

	disk := harness.NewDisk(t, diskBytes)
	broker := harness.StartBroker(t, harness.Options{Dir: filepath.Join(disk.Dir(), "broker")})
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
	tail, err := history.StartTail(broker.Addr(), "cut", partitions)
	if err != nil {
		t.Fatal(err)
	}
	stopped := false
	stop := func() error {
		if stopped {
			return nil
		}
		stopped = true
		ctx, cancel := context.WithTimeout(context.Background(), progressLimit)
		defer cancel()
		defer tail.Stop()
		return load.Stop(ctx)
	}
	defer func() {
		broker.Kill()
		_ = stop()
	}()

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
		consumer := tail.Into(known)
		disk.Remount()
		began := time.Now()
		broker.Restart()
		t.Logf("cut %d with %d records acknowledged; ready again after %.2f s", cut+1, load.Acked(), time.Since(began).Seconds())
		check(t, broker, fmt.Sprintf("after cut %d", cut+1), known, consumer)
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	known := load.Known()
	check(t, broker, "in the end", known, tail.Into(known))
	t.Logf("%d records acknowledged over %d cuts, all there, once, in place", load.Acked(), cuts)
}

func check(t *testing.T, broker *harness.Broker, when string, known []history.Partition, found history.Anomalies) {
	t.Helper()
	log, err := history.CheckLog(t.Context(), broker.Addr(), known)
	found.Add(log)
	if err := errors.Join(err, found.Err()); err != nil {
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
