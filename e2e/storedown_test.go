package e2e

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/everlog/everlog/e2e/clients"
	"github.com/everlog/everlog/e2e/corpus"
	"github.com/everlog/everlog/e2e/harness"
	"github.com/everlog/everlog/e2e/servers"
)

// TestStoreDown takes the object store away while records come in: first it hangs, then it is gone, and while it is gone the
// broker is killed and started again. Produce and hot reads go on, old offsets are never "out of range", and when the store
// is back everything ships: the local disk can be lost and nothing is missing.
func TestStoreDown(t *testing.T) {
	server := servers.MinIO(t)
	broker := harness.StartBroker(t, harness.Options{Store: server.MinIOURL(bucket, "")})
	admin := newAdmin(t, broker.Addr())
	// Small segments that leave the local disk once they are shipped, so that the beginning is history soon.
	if err := admin.CreateTopic(t.Context(), "load", loadPartitions, with(tinySegments, map[string]string{"retention.ms": "-1", "local.retention.bytes": "2097152"})); err != nil {
		t.Fatal(err)
	}
	if err := admin.CreateTopic(t.Context(), "new", 1, nil); err != nil {
		t.Fatal(err)
	}
	load := startLoad(t, broker, "load")
	harness.Until(t, shipLimit, "the beginning of the log is in the store alone", func() error {
		return localFrom(t, admin, 1)
	})

	server.Signal(syscall.SIGSTOP)
	goesOn(t, load, "the store hangs")
	historyIsNotOutOfRange(t, broker)
	server.Signal(syscall.SIGCONT)
	waitShipped(t, admin, "load", 0, pending(t, admin)+1) // what was there when it came back is shipped, though more arrives

	server.Kill()
	goesOn(t, load, "the store is gone")
	newProducer(t, broker)
	historyIsNotOutOfRange(t, broker)
	broker.Kill()
	known := load.Known()
	broker.Restart()
	goesOn(t, load, "the broker was started without the store")
	if seen := load.tail.Into(known); seen.Err() != nil {
		t.Fatal(seen.Err())
	}

	server.Restart()
	goesOn(t, load, "the store is back")
	load.finish(t, broker)
	if err := admin.SetTopic(t.Context(), "load", map[string]string{"segment.ms": "1"}); err != nil {
		t.Fatal(err)
	}
	for _, p := range load.Known() {
		end, err := admin.Offset(t.Context(), "load", p.Number, clients.Latest)
		if err != nil {
			t.Fatal(err)
		}
		waitShipped(t, admin, "load", p.Number, end.Offset)
	}
	loseDisk(t, broker)
	known = load.Known()
	load.check(t, broker, "from the store alone", known, load.tail.Into(known))
	t.Logf("%d records acknowledged", load.Acked())
}

// goesOn returns when the producer and the consumer behind it have got on by some thousands of records.
func goesOn(t *testing.T, load *running, while string) {
	t.Helper()
	acked, seen := load.Acked(), load.tail.Seen()
	harness.Until(t, loadLimit, "records go in and out while "+while, func() error {
		if nowAcked, nowSeen := load.Acked(), load.tail.Seen(); nowAcked < acked+ackedPerRound || nowSeen < seen+ackedPerRound {
			return fmt.Errorf("%d acknowledged and %d read since", nowAcked-acked, nowSeen-seen)
		}
		return nil
	})
}

// newProducer starts an idempotent producer, which needs an id of its own, and has a few records acknowledged.
func newProducer(t *testing.T, broker *harness.Broker) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), loadLimit)
	defer cancel()
	records := corpus.Part{Style: corpus.Rich, Size: corpus.Slice, Parts: 100}.Take(50)
	to := clients.Destination{Addr: broker.Addr(), Topic: "new", Codec: "none"}
	if err := clients.WriteFranz(ctx, to, slices.Values(records)); err != nil {
		t.Errorf("a new producer while the store is gone: %v", err)
	}
}

// historyIsNotOutOfRange reads the first offset, which only the store has. It may not be had now; but no answer may say that it is not there.
func historyIsNotOutOfRange(t *testing.T, broker *harness.Broker) {
	t.Helper()
	for _, answer := range fetchRounds(t, broker.Addr(), "load", 0, 0, 3) {
		switch {
		case answer.err == nil: // nothing, or what a cache still has
		case answer.err != nil && retriable(answer.err):
		default:
			t.Errorf("a fetch of history without the store: %d bytes, %v; want an error that clients retry", len(answer.records), answer.err)
		}
	}
}

func localFrom(t *testing.T, admin *clients.Admin, least int64) error {
	answer, err := admin.Offset(t.Context(), "load", 0, clients.EarliestLocal)
	if err == nil && answer.Offset < least {
		err = fmt.Errorf("the local log starts at %d", answer.Offset)
	}
	return err
}

// pending is the first offset that is not in the store.
func pending(t *testing.T, admin *clients.Admin) int64 {
	t.Helper()
	answer, err := admin.Offset(t.Context(), "load", 0, clients.EarliestPendingUpload)
	if err != nil {
		t.Fatal(err)
	}
	return answer.Offset
}

// TestStoreFilesAreWhole: the directory store under kill -9 never shows a half object: whatever is listed verifies.
func TestStoreFilesAreWhole(t *testing.T) {
	broker := harness.StartBroker(t, harness.Options{})
	admin := newAdmin(t, broker.Addr())
	if err := admin.CreateTopic(t.Context(), "load", loadPartitions, with(tinySegments, map[string]string{"retention.ms": "-1"})); err != nil {
		t.Fatal(err)
	}
	load := startLoad(t, broker, "load")
	for range 3 {
		waitAcked(t, load.Load, load.Acked()+ackedPerRound)
		broker.Kill()
		harness.Run(t, "tier", "verify", broker.Store())
		broker.Restart()
	}
	load.finish(t, broker)
	if n := objects(t, broker.Store()); n == 0 {
		t.Error("nothing was shipped: the test has shown nothing")
	}
}

func objects(t *testing.T, store string) int {
	t.Helper()
	n := 0
	err := filepath.WalkDir(strings.TrimPrefix(store, "file://"), func(path string, entry fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err == nil && strings.Contains(path, "/seg/") && entry.Type().IsRegular() {
			n++
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}
