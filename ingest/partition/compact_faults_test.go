package partition

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/vfs"
)

func inTxn(id record.ProducerID, sequence int32) record.Attrs {
	return record.Attrs{Transactional: true, Idempotent: true, ProducerID: id, BaseSequence: sequence}
}

// onceAt opens a rig on a file system that calls fn once, at the first operation of the kind that matches while it is armed.
func onceAt(r *rig, kind vfs.OpKind, matches func() bool) *atomic.Pointer[func()] {
	armed := new(atomic.Pointer[func()])
	r.close()
	r.fs = vfs.Fault(r.mem, func(op vfs.Op) error {
		if op.Kind == kind && armed.Load() != nil && matches() {
			if fn := armed.Swap(nil); fn != nil {
				(*fn)()
			}
		}
		return nil
	})
	r.open()
	return armed
}

// rollOver seals what there is, so that it can be compacted.
func (r *rig) rollOver() {
	r.t.Helper()
	if err := r.p.Roll(); err != nil {
		r.t.Fatal(err)
	}
	r.put(record.Attrs{}, false, "filler")
}

// A pass whose map of keys is full filters whole segments all the same: a marker may be gone above what counts as cleaned. After
// a restart its transaction must not be listed.
func TestMarkerGoneAboveCleanedIsNotListedAfterARestart(t *testing.T) {
	r := newRig(t, 50, false)
	defer func() { r.close() }()
	r.settings.TombstoneRetention, r.settings.SegmentBytes = 0, 1<<20
	r.p.SetSettings(&r.settings)
	r.put(record.Attrs{}, false, r.many(400)...) // the map is full inside of these, each time
	r.put(inTxn(20, 0), false, "a")
	r.finish(20, false)
	r.put(inTxn(20, 1), false, "z")
	r.finish(20, true)
	r.rollOver()
	for range 3 {
		r.now += 1000
		o := r.generous()
		o.KeyMapBytes = 1
		if _, err := r.p.Compact(t.Context(), o); err != nil {
			t.Fatal(err)
		}
		if err := r.check(); err != nil {
			t.Fatal(err)
		}
	}
	if list := r.p.Aborted(0, r.p.End()); len(list) > 0 {
		t.Fatalf("%v is still listed: the marker cannot be gone", list)
	}
	r.close()
	r.open()
	if err := r.check(); err != nil {
		t.Fatal("after a restart:", err)
	}
}

// A reader that two passes overtake gets the records of before with the list of before, or both of after.
func TestReaderOvertakenByPasses(t *testing.T) {
	r := newRig(t, 51, false)
	defer func() { r.close() }()
	armed := onceAt(r, vfs.OpRead, func() bool { return true })
	r.put(record.Attrs{}, false, "a", "b")
	r.put(inTxn(20, 0), false, "c", "d")
	r.finish(20, false)
	r.put(inTxn(20, 2), false, "z")
	r.finish(20, true)
	r.put(record.Attrs{}, false, "e")
	r.rollOver()
	read := func() ReadResult {
		res, err := r.p.Read(ReadRequest{Offset: 2, MaxBytes: 1 << 20, AtLeastOne: true, Committed: true, CurrentEpoch: record.NoEpoch, LastFetchedEpoch: record.NoEpoch})
		if err != nil {
			t.Fatal(err)
		}
		return res
	}
	first := read() // the footer is at hand from here on
	first.Data.Release()
	passes := func() {
		for range 2 {
			if _, err := r.p.Compact(context.Background(), r.generous()); err != nil {
				t.Error(err)
			}
			r.put(record.Attrs{}, false, "e")
			r.rollOver()
		}
	}
	armed.Store(&passes)
	res := read()
	defer res.Data.Release()
	if armed.Load() != nil {
		t.Fatal("nothing overtook the reader")
	}
	data := make([]byte, res.Data.Size())
	n, _ := res.Data.File().ReadAt(data, 0)
	for data = data[:n]; len(data) > 0; {
		b, rest, err := record.Next(data)
		if err != nil {
			t.Fatal(err)
		}
		if b.BaseOffset() == 2 && b.Count() > 0 && len(res.Aborted) == 0 {
			t.Errorf("%d records of an aborted transaction are sent, and no list names it", b.Count())
		}
		data = rest
	}
}

// Records may be deleted at any moment of a pass.
func TestDeleteRecordsRightAfterASegmentWasReplaced(t *testing.T) {
	r := newRig(t, 52, false)
	defer func() { r.close() }()
	r.settings.Delete = true
	armed := onceAt(r, vfs.OpClose, func() bool { return strings.Contains(string(debug.Stack()), "(*Rewrite).Abort") })
	r.put(record.Attrs{}, false, "a", "b")
	r.put(record.Attrs{}, false, "a", "b")
	r.rollOver()
	remove := func() {
		if _, err := r.p.DeleteRecords(-1); err != nil {
			t.Error(err)
		}
		if err := r.p.TrimDeleted(); err != nil {
			t.Error(err)
		}
	}
	armed.Store(&remove)
	if done, err := r.p.Compact(t.Context(), r.generous()); err != nil || done.Replaced != 1 || done.BytesAfter != 0 {
		t.Errorf("%+v, %v", done, err)
	}
	if armed.Load() != nil {
		t.Error("nothing was deleted meanwhile")
	}
}

// A topic is deleted at once, however slowly its pass may go.
func TestCloseEndsAPassThatWaitsForItsPace(t *testing.T) {
	r := newRig(t, 53, false)
	r.put(record.Attrs{}, false, "a", "b")
	r.put(record.Attrs{}, false, "a", "b")
	r.rollOver()
	o := r.generous()
	begun := make(chan struct{}, 1)
	o.Pace = func(ctx context.Context, _ int) error {
		begun <- struct{}{}
		<-ctx.Done()
		return ctx.Err()
	}
	result := make(chan error)
	go func() {
		_, err := r.p.Compact(context.Background(), o)
		result <- err
	}()
	<-begun
	if err := r.p.Close(); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, ErrClosed) {
		t.Errorf("the pass ended with %v, want %v", err, ErrClosed)
	}
	_ = r.state.Close()
	r.flusher.Close()
}

// A pass over what is not shipped may have emptied objects' successors of before: after a restart the bucket keeps its values
// until what took their place is there.
func TestBucketKeepsValuesUntilTheirSuccessorsAreThere(t *testing.T) {
	r := newRig(t, 54, true)
	defer func() { r.close() }()
	r.settings.SegmentBytes = 1300 // none are joined
	r.p.SetSettings(&r.settings)
	keys := r.many(20)
	r.put(record.Attrs{}, false, keys...)
	r.roll()
	r.settings.RemoteCopyDisabled = true
	r.p.SetSettings(&r.settings)
	r.put(record.Attrs{}, false, keys...)
	r.roll()
	o, first := r.generous(), r.p.log.Sealed(0)[0].Size
	o.Pace = func(context.Context, int) error {
		if r.p.log.Sealed(0)[0].Size != first {
			return context.Canceled // in the middle of the pass
		}
		return nil
	}
	if _, err := r.p.Compact(t.Context(), o); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	r.close()
	r.settings.RemoteCopyDisabled = false
	r.open()
	var err error
	if r.shipper, err = r.p.tier.begin(t.Context(), r.epoch); err != nil {
		t.Fatal(err)
	}
	if more, err := r.p.tier.exchange(t.Context(), r.shipper); err != nil || more {
		t.Errorf("exchanged before the successors are shipped: %v", err)
	}
	for i := range 10 {
		if err := r.check(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if _, err := r.p.tier.step(t.Context(), r.shipper); err != nil {
			t.Fatal(err)
		}
	}
}

// What lies between the border of an object and a log start within it was never compacted: a tombstone above must stay.
func TestLogStartWithinAnObjectThatTheLocalLogBeginsIn(t *testing.T) {
	r := newRig(t, 55, true)
	defer func() { r.close() }()
	compacted := r.settings
	compacted.Delete, compacted.TombstoneRetention, compacted.Retention = true, 0, -1
	r.settings.Compact, r.settings.Delete, r.settings.Retention = false, true, -1
	r.p.SetSettings(&r.settings)
	for range 9 {
		r.put(record.Attrs{}, false, append(r.many(5), "k")...)
		r.roll()
	}
	r.p.tier.retained = time.Time{}
	if err := r.tierSteps(3); err != nil { // objects are merged
		t.Fatal(err)
	}
	if _, err := r.p.Trim(r.p.log.Sealed(0)[4].End); err != nil {
		t.Fatal(err)
	}
	r.settings = compacted
	r.p.SetSettings(&r.settings)
	r.put(record.Attrs{}, true, "k") // a tombstone
	r.roll()
	r.mustCompact(true)
	r.now += 10_000
	if _, err := r.p.DeleteRecords(r.p.log.Start() + 1); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r.put(record.Attrs{}, false, r.many(5)...)
		r.roll()
		r.now += 10_000
		if _, err := r.compact(); err != nil {
			t.Fatal(err)
		}
		if err := r.check(); err != nil {
			t.Fatal(err)
		}
	}
}
