package partition

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everlog/everlog/ingest/hotlog"
	"github.com/everlog/everlog/ingest/producer"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/vfs"
)

// leading opens an empty partition that leads in epoch 0.
func leading(t *testing.T, flushOS bool) *Partition {
	t.Helper()
	p, stop := reopened(t, vfs.OS(), t.TempDir(), &saved{}, hotlog.Options{FlushOS: flushOS})
	t.Cleanup(stop)
	return p
}

// commit appends a batch and returns when it is committed.
func commit(t *testing.T, p *Partition, b record.Batch, origin Origin) Appended {
	t.Helper()
	done, err := p.Append(b, AppendOptions{NowMs: now, Origin: origin})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Committed(t.Context(), done.Next, done.Epoch); err != nil {
		t.Fatal(err)
	}
	return done
}

// The last stable offset stays at the first record of an open transaction from the moment that record is readable, and
// goes on when the marker is committed, without another append to push it.
func TestLastStableOffsetAroundATransaction(t *testing.T) {
	for _, c := range []struct {
		name    string
		flushOS bool
	}{{"acknowledged when written", true}, {"acknowledged when synced", false}} {
		t.Run(c.name, func(t *testing.T) {
			p := leading(t, c.flushOS)
			var open, passed atomic.Int64 // first record of the open transaction; a last stable offset seen above it
			open.Store(noUnstable)
			passed.Store(-1)
			p.log.Notify(func(o record.Offset) {
				p.durable(o)
				if v := p.View(); int64(v.LastStable) > open.Load() {
					passed.Store(int64(v.LastStable))
				}
			})
			for i := range int32(50) {
				first := p.End()
				open.Store(int64(first))
				commit(t, p, batchOf(t, record.Attrs{Transactional: true, Idempotent: true, ProducerID: 7, BaseSequence: i}, now), FromClient)
				if v := p.View(); v.LastStable != first || v.HighWatermark != first+1 {
					t.Fatalf("transaction open at %d: %+v", first, v)
				}
				if o := passed.Load(); o >= 0 {
					t.Fatalf("a reader woken by the append saw the last stable offset %d, with a transaction open at %d", o, first)
				}
				open.Store(noUnstable)
				commit(t, p, producer.Marker(7, 0, i%2 == 0, 1, now), FromCoordinator)
				if v := p.View(); v.LastStable != first+2 || v.HighWatermark != first+2 {
					t.Fatalf("transaction of %d ended at %d: %+v", first, first+1, v)
				}
			}
		})
	}
}

// A reader of committed records that waits at the end of a transaction is woken by its marker, and then sees past it.
func TestMarkerWakesReadersOfCommittedRecords(t *testing.T) {
	for _, flushOS := range []bool{true, false} {
		p := leading(t, flushOS)
		commit(t, p, batchOf(t, record.Attrs{Transactional: true, Idempotent: true, ProducerID: 7}, now), FromClient)
		w := NewWatcher()
		p.Watch(w)
		seen := make(chan struct{})
		go func() {
			defer close(seen)
			for p.View().LastStable != 2 {
				<-w.Wake()
			}
		}()
		commit(t, p, producer.Marker(7, 0, true, 1, now), FromCoordinator)
		select {
		case <-seen:
		case <-time.After(20 * time.Second):
			t.Fatalf("not woken: %+v", p.View())
		}
		p.Unwatch(w)
	}
}

// The record with the largest timestamp is looked for among those that are left, also inside of a batch.
func TestMaxTimestampAboveTheLogStart(t *testing.T) {
	p := leading(t, true)
	commit(t, p, batchOf(t, record.Attrs{}, now, now+1, now+9, now+9), FromClient)
	commit(t, p, batchOf(t, record.Attrs{}, now+2, now+3), FromClient)
	for _, c := range []struct {
		start, want record.Offset
		timestamp   int64
	}{{0, 2, now + 9}, {1, 2, now + 9}, {3, 3, now + 9}} {
		if _, err := p.DeleteRecords(c.start); err != nil {
			t.Fatal(err)
		}
		f, err := p.MaxTimestamp(context.Background())
		if err != nil || f.Offset != c.want || f.Timestamp != c.timestamp {
			t.Errorf("log start %d: %+v, %v; want offset %d", c.start, f, err, c.want)
		}
	}
	for _, start := range []record.Offset{4, 6} { // the largest are gone: whatever is answered is there
		if _, err := p.DeleteRecords(start); err != nil {
			t.Fatal(err)
		}
		if f, err := p.MaxTimestamp(context.Background()); err != nil || f.Offset >= 0 && f.Offset < start {
			t.Errorf("log start %d: %+v, %v", start, f, err)
		}
	}
}
