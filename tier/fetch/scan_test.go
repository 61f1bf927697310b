package fetch

import (
	"bytes"
	"context"
	"errors"
	"math/rand"
	"sync/atomic"
	"testing"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// scanned holds what a Scan gives against the history.
func (h *history) scan(t testing.TB, store object.Store, from, to record.Offset) (ScanStats, error) {
	t.Helper()
	want := h.from(from)
	stats, err := Scan(t.Context(), store, h.log.Manifest(), ScanOptions{From: from, To: to}, func(b record.Batch, _ *segment.Footer) error {
		if len(want) == 0 || !bytes.Equal(b, want[0]) {
			t.Fatalf("scan of [%d, %d): the batch at %d is not the next", from, to, b.BaseOffset())
		}
		want = want[1:]
		return nil
	})
	if err == nil && from < to && len(want) > 0 && want[0].BaseOffset() < to {
		t.Fatalf("scan of [%d, %d) ended before %d", from, to, want[0].BaseOffset())
	}
	return stats, err
}

func TestScan(t *testing.T) {
	h := varied(t, object.NewMemory())
	var reads atomic.Int32
	store := object.Observe(h.store, objectCount(&reads))
	stats, err := h.scan(t, store, 0, h.next)
	if err != nil {
		t.Fatal(err)
	}
	if stats.Objects != 28 || stats.Requests != int64(reads.Load()) || stats.Bytes == 0 {
		t.Fatalf("%+v, and %d reads", stats, reads.Load())
	}
	rng := rand.New(rand.NewSource(3))
	for range 60 {
		from := record.Offset(rng.Int63n(int64(h.next)))
		if _, err := h.scan(t, store, from, from+record.Offset(rng.Int63n(300))); err != nil {
			t.Fatal(err)
		}
	}
	if stats, err := h.scan(t, store, 30, 30); err != nil || stats.Requests != 0 {
		t.Fatalf("an empty scan: %+v, %v", stats, err)
	}
}

func TestScanStops(t *testing.T) {
	h := varied(t, object.NewMemory())
	enough := errors.New("enough")
	n := 0
	_, err := Scan(t.Context(), h.store, h.log.Manifest(), ScanOptions{From: 0, To: h.next}, func(_ record.Batch, _ *segment.Footer) error {
		if n++; n == 5 {
			return enough
		}
		return nil
	})
	if err != enough || n != 5 {
		t.Fatalf("%v after %d batches", err, n)
	}
	ctx, cancel := context.WithCancel(t.Context())
	_, err = Scan(ctx, h.store, h.log.Manifest(), ScanOptions{From: 0, To: h.next}, func(_ record.Batch, _ *segment.Footer) error {
		cancel()
		return nil
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("a scan that was cancelled: %v", err)
	}
	if err := h.store.Delete(t.Context(), h.log.Manifest().Root()[0].Object); err != nil {
		t.Fatal(err)
	}
	if _, err := h.scan(t, h.store, 0, h.next); !errors.Is(err, ErrMissing) {
		t.Fatalf("a missing object: %v", err)
	}
}

func TestScanUnderFaults(t *testing.T) {
	inner := object.NewMemory()
	h := varied(t, inner)
	for n := 0; n < 40; n += 3 {
		for _, kind := range []objecttest.Kind{objecttest.Before, objecttest.Cut, objecttest.Corrupt, objecttest.Misread} {
			hit := false
			store := objecttest.NewFaulty(inner, func(c objecttest.Call) objecttest.Fault {
				if c.N != n || c.Op != "read" {
					return objecttest.Fault{}
				}
				hit = true
				return objecttest.Fault{Kind: kind}
			})
			if _, err := h.scan(t, store, 0, h.next); hit != (err != nil) {
				t.Fatalf("fault %d at read %d: %v", kind, n, err)
			}
		}
	}
}
