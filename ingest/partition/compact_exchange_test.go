package partition

import (
	"errors"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/objecttest"
	"github.com/everlog/everlog/tier/record"
)

// TestTrimWaitsForTheExchange: until the store has the compacted form of a segment the local one stays.
func TestTrimWaitsForTheExchange(t *testing.T) {
	r := newRig(t, 6, true)
	defer func() { r.close() }()
	r.p.tier.objectBytes = exchangeBytes
	for range 5 {
		for range 20 {
			r.produce()
		}
		for _, id := range r.openTxns() {
			r.end(id)
		}
		if err := r.p.Roll(); err != nil {
			t.Fatal(err)
		}
	}
	r.produce()
	r.p.tier.schedule.Retention = time.Hour
	copyDisabled := r.settings
	copyDisabled.RemoteCopyDisabled = true
	if err := r.tierSteps(20); err != nil || r.p.tier.RemoteEnd() < 100 {
		t.Fatalf("shipped up to %d, %v", r.p.tier.RemoteEnd(), err)
	}
	for range 50 {
		if _, err := r.compact(); err != nil {
			t.Fatal(err)
		}
	}
	r.p.SetSettings(&copyDisabled)
	if err := r.tierSteps(5); err != nil {
		t.Fatal(err)
	}
	if l := r.p.LocalLog(); l.RemoteEnd > 0 {
		t.Errorf("what is not exchanged counts as remote, up to %d", l.RemoteEnd)
	}
	if freed, err := r.p.Trim(r.p.tier.RemoteEnd()); err != nil || freed > 0 {
		t.Errorf("%d bytes were trimmed, %v", freed, err)
	}
	r.p.SetSettings(&r.settings)
	if err := r.tierSteps(20); err != nil {
		t.Fatal(err)
	}
	if s := r.p.log.Sealed(0); len(s) < 2 || len(r.p.tier.Manifest().Root()) != 1 {
		t.Fatalf("%d segments, %d objects", len(s), len(r.p.tier.Manifest().Root()))
	} else if freed, err := r.p.Trim(s[0].End); err != nil || freed > 0 {
		t.Errorf("%d bytes of an object that is needed whole were trimmed, %v", freed, err)
	}
	if freed, err := r.p.Trim(r.p.tier.RemoteEnd()); err != nil || freed == 0 {
		t.Errorf("%d bytes were trimmed after the exchange, %v", freed, err)
	}
	if err := r.check(); err != nil {
		t.Error(err)
	}
	m := r.p.tier.Manifest()
	if s, ok, err := m.Find(t.Context(), r.bucket, r.p.log.Start()); err != nil || ok && s.Base != r.p.log.Start() || !ok && r.p.log.Start() != m.End() {
		t.Errorf("local log starts at %d, inside of an object: %v", r.p.log.Start(), err)
	}
}

// TestStoreKeepsWhatItHasUntilItHasWhatReplacesIt: compaction of what is not shipped must not empty the bucket.
func TestStoreKeepsWhatItHasUntilItHasWhatReplacesIt(t *testing.T) {
	r := newRig(t, 7, true)
	defer func() { r.close() }()
	keys := r.many(20)
	r.put(record.Attrs{}, false, keys...)
	r.roll()
	r.settings.RemoteCopyDisabled = true
	r.p.SetSettings(&r.settings)
	r.put(record.Attrs{}, false, keys...)
	r.roll()
	if done := r.mustCompact(true); done.RecordsAfter >= done.RecordsBefore {
		t.Fatalf("nothing was compacted: %+v", done)
	}
	r.settings.RemoteCopyDisabled = false
	r.p.SetSettings(&r.settings)
	if more, err := r.p.tier.exchange(t.Context(), r.shipper); more || err != nil {
		t.Errorf("exchanged before what took its place was shipped: %v", err)
	}
	if err := r.check(); err != nil {
		t.Error(err)
	}
	if err := errors.Join(r.tierSteps(10), r.check()); err != nil {
		t.Error(err)
	}
	if e, end := r.p.tier.Exchanged(), r.p.tier.RemoteEnd(); e != end {
		t.Errorf("exchanged up to %d of %d", e, end)
	}
}

// TestTombstonesStayWhileHistoryIsOutOfSight: what is only in the bucket still holds values that they delete.
func TestTombstonesStayWhileHistoryIsOutOfSight(t *testing.T) {
	r := newRig(t, 8, true)
	defer func() { r.close() }()
	keys := r.many(20)
	r.put(record.Attrs{}, false, keys...)
	r.roll()
	r.mustCompact(true)
	if freed, err := r.p.Trim(r.p.tier.RemoteEnd()); err != nil || freed == 0 {
		t.Fatalf("%d bytes were trimmed, %v", freed, err)
	}
	r.put(record.Attrs{}, true, keys...)
	for range 4 {
		r.put(record.Attrs{}, false, r.many(10)...)
		r.roll()
		r.now += time.Hour.Milliseconds()
		r.mustCompact(true)
	}
	if start := r.p.log.Start(); start == 0 {
		t.Error("nothing is out of sight")
	}
}

// TestMiddleOfAnObject: a log that was trimmed inside of an object before it became compacted. The records before the local
// start must outlive the exchange.
func TestMiddleOfAnObject(t *testing.T) {
	r := newRig(t, 9, true)
	defer func() { r.close() }()
	compacted := r.settings
	r.settings.Compact, r.settings.Delete, r.settings.Retention = false, true, -1
	r.p.SetSettings(&r.settings)
	keys := r.many(10)
	for range 9 { // as many small objects as are merged
		r.put(record.Attrs{}, false, append(r.many(5), keys...)...)
		r.roll()
	}
	r.p.tier.retained = time.Time{}
	if err := r.tierSteps(3); err != nil {
		t.Fatal(err)
	}
	m := r.p.tier.Manifest()
	if s := r.p.log.Sealed(0); len(m.Root()) > 2 || len(s) < 9 {
		t.Fatalf("%d objects, %d segments", len(m.Root()), len(s))
	} else if _, err := r.p.Trim(s[4].End); err != nil {
		t.Fatal(err)
	}
	r.p.SetSettings(&compacted)
	for range 4 {
		r.put(record.Attrs{}, false, append(r.many(5), keys...)...)
		r.roll()
		r.mustCompact(true)
	}
	var v view
	if err := v.remote(r, 0, m.Root()[0].End); err != nil {
		t.Fatal(err)
	}
	records := int64(0)
	for _, b := range v.batches {
		records += int64(b.Count())
	}
	if records != m.Root()[0].Records {
		t.Errorf("%d records are left of %d in an object that is here only in part", records, m.Root()[0].Records)
	}
}

// TestAbortedTransactionsLeaveNoTrace: the marker of an aborted transaction may go only when no list names it, after restarts
// from old snapshots too, or a reader would miss what its producer has written since.
func TestAbortedTransactionsLeaveNoTrace(t *testing.T) {
	r := newRig(t, 10, true)
	defer func() { r.close() }()
	r.settings.TombstoneRetention = 0
	r.p.SetSettings(&r.settings)
	apart := func() { r.p.tier.objectBytes = 1 } // what was shipped apart stays apart
	apart()
	txn := func(id record.ProducerID, seq int32) record.Attrs {
		return record.Attrs{Transactional: true, Idempotent: true, ProducerID: id, BaseSequence: seq}
	}
	r.put(record.Attrs{}, false, r.many(3)...) // stay
	r.put(txn(20, 0), false, "a", "b")
	r.put(txn(21, 0), false, "c", "d")
	r.roll()
	r.finish(20, false)
	r.finish(21, false)
	r.put(txn(20, 2), false, "e", "f")
	r.finish(20, true)
	r.put(txn(21, 2), false, "g", "h")
	r.finish(21, true)
	r.roll()
	r.put(txn(20, 4), false, "e")
	r.finish(20, true)
	for range 12 {
		r.put(record.Attrs{}, false, r.many(60)...) // more than a round knows
	}
	r.roll()
	markers := func() (n int) {
		_ = r.p.log.Scan(0, r.p.View().LastStable, func(b record.Batch) error {
			if b.IsControl() {
				n++
			}
			return nil
		})
		return n
	}
	was := markers()
	for round := range 12 {
		r.mustCompact(true)
		if round%5 != 4 {
			continue // a restart brings the list of the last snapshot back
		}
		if err := r.reopened(func() { r.close(); r.open(); apart() }); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(r.check(), r.tierSteps(10), r.check()); err != nil {
			t.Fatal(err)
		}
	}
	if n := markers(); n > 3 || was != 5 {
		t.Errorf("%d markers of %d are left, want those of what is still there", n, was)
	}
	if list := r.p.Aborted(0, r.p.End()); len(list) > 0 {
		t.Errorf("still listed: %v", list)
	}
}

// TestFaultAtEveryRequestOfAnExchange breaks each request of an exchange in each way, and lets lost writes land late. Whatever
// happens, both tiers and the bucket alone read right, and when the store is well again it comes to hold what the disk does.
func TestFaultAtEveryRequestOfAnExchange(t *testing.T) {
	most := 0
	for _, kind := range []objecttest.Kind{objecttest.Before, objecttest.After, objecttest.Late, objecttest.Throttle, objecttest.Conflict,
		objecttest.SelfPrecondition, objecttest.Cut, objecttest.Omit} {
		for n := 0; ; n++ {
			r := newRig(t, 30, true)
			r.p.tier.objectBytes = 300
			keys := r.many(10)
			for range 4 {
				r.put(record.Attrs{}, false, append(r.many(2), keys...)...)
				r.roll()
			}
			if _, err := r.p.Compact(t.Context(), r.generous()); err != nil {
				t.Fatal(err)
			}
			calls, hit := 0, false
			r.fault = func() objecttest.Kind {
				if calls++; calls == n+1 {
					hit = true
					return kind
				}
				return objecttest.None
			}
			for range 8 {
				_ = r.tierSteps(1)
				if r.faulty.Late() > 0 && n%2 == 0 {
					_ = r.faulty.ApplyLate(t.Context(), 0)
				}
				if err := r.check(); err != nil {
					t.Fatalf("%v at request %d: %v", kind, n, err)
				}
				r.clock = r.clock.Add(time.Minute)
				r.deleter.Step(t.Context())
			}
			r.fault = func() objecttest.Kind { return objecttest.None }
			if err := r.settle(); err != nil {
				t.Fatalf("%v at request %d: %v", kind, n, err)
			}
			r.close()
			if most = max(most, n); !hit {
				break
			}
		}
	}
	if most < 8 {
		t.Errorf("an exchange made %d requests only", most)
	}
}
