package partition

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"hash/crc32"
	"math/rand"
	randv2 "math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/vfs"
)

// step does one random thing.
func (r *rig) step() error {
	r.now += r.rng.Int63n(2000)
	switch k := r.rng.Intn(100); {
	case k < 50:
		r.produce()
	case k < 65:
		r.end(record.ProducerID(20 + r.rng.Intn(3)))
	case k < 75:
		return r.p.Roll()
	case k < 84:
		if _, err := r.compact(); err != nil {
			return err
		}
	case k < 87:
		return r.reopened(func() { r.close(); r.open() })
	case k < 90:
		return r.reopened(r.crash)
	case k < 93 && r.settings.Delete:
		_, err := r.p.DeleteRecords(r.p.View().LogStart + record.Offset(r.rng.Int63n(int64(r.p.View().HighWatermark-r.p.View().LogStart)+1)/4))
		return errors.Join(err, r.p.TrimDeleted())
	case r.tiered:
		_ = r.tierSteps(1 + r.rng.Intn(4))
		r.clock = r.clock.Add(time.Minute)
		r.deleter.Step(context.Background())
		for r.faulty.Late() > 0 && r.rng.Intn(2) == 0 {
			_ = r.faulty.ApplyLate(context.Background(), 0) // may be refused: that is the point
		}
		if l := r.p.LocalLog(); r.rng.Intn(3) == 0 && l.RemoteEnd > 0 {
			_, err := r.p.Trim(min(l.RemoteEnd, l.HighWatermark))
			return err
		}
	}
	return nil
}

var compactSeeds = flag.Int64("compact.seeds", 16, "random histories of compacted logs that TestCompactedLogs plays; a thousand take some five minutes")

// TestCompactedLogs lets random histories run, with passes, restarts, power cuts, uploads to a bucket that fails, exchanges,
// and trims, and reads everything after every step.
func TestCompactedLogs(t *testing.T) {
	for seed := range *compactSeeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { compactedLog(t, seed, 150) })
	}
}

func compactedLog(t *testing.T, seed int64, steps int) {
	r := newRig(t, seed, seed%4 > 0)
	defer func() { r.close() }()
	r.settings.Delete = seed%8 >= 6
	if r.faults = []int{0, 0, 10, 25}[seed%4]; seed%3 == 0 {
		r.retain = 0
	}
	r.settings.TombstoneRetention = []time.Duration{0, 3 * time.Second, 20 * time.Second}[seed%3]
	r.close()
	r.open()
	for i := range steps {
		if err := r.step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
		if err := r.check(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	if err := r.settle(); err != nil {
		t.Fatalf("at the end: %v", err)
	}
}

// settle ends transactions and heals the store; then all sealed is compacted, and the bucket holds the same and nothing else.
func (r *rig) settle() error {
	for _, id := range r.openTxns() {
		r.end(id)
	}
	if err := r.p.Roll(); err != nil {
		return err
	}
	r.produce()
	for _, id := range r.openTxns() {
		r.end(id)
	}
	r.faults = 0
	for r.faulty.Late() > 0 {
		_ = r.faulty.ApplyLate(context.Background(), 0)
	}
	r.close()
	r.open() // in a new epoch: what the last one left in the bucket is swept
	if r.tiered {
		if err := r.tierSteps(30); err != nil {
			return err
		}
	}
	for range 50 {
		if _, err := r.compact(); err != nil {
			return err
		}
	}
	if plan := r.p.PlanCompaction(time.UnixMilli(r.now)); plan.Due {
		return fmt.Errorf("still due: %+v", plan)
	}
	if !r.tiered {
		return r.check()
	}
	if err := r.tierSteps(30); err != nil {
		return err
	}
	if err := r.check(); err != nil {
		return err
	}
	m := r.p.tier.Manifest()
	if e := r.p.tier.Exchanged(); e != m.End() && m.End() > max(r.p.log.Start(), m.Start()) {
		return fmt.Errorf("exchanged up to %d, the bucket ends at %d, cleaned is %d", e, m.End(), r.p.Cleaned())
	}
	r.clock = r.clock.Add(time.Hour)
	r.deleter.Step(context.Background())
	list, err := r.bucket.List(context.Background(), "", "", 0)
	if err != nil {
		return err
	}
	if want := m.Count() + len(m.Pages()) + 1; len(list) != want {
		return fmt.Errorf("%d objects are in the bucket, %d are referred to", len(list), want)
	}
	return nil
}

// TestEndlessOverwriteIsBounded writes a thousand keys again and again: neither disk nor bucket grow with it.
func TestEndlessOverwriteIsBounded(t *testing.T) {
	r := newRig(t, 1, true)
	defer func() { r.close() }()
	r.p.tier.objectBytes = exchangeBytes
	const keys, value, rounds = 1000, 100, 50
	r.settings.SegmentBytes, r.settings.MinDirtyRatio = 64<<10, 0.5
	r.settings.TombstoneRetention = time.Second
	r.p.SetSettings(&r.settings)
	var total, disk, bucket int64
	for round := range rounds {
		for _, commit := range []bool{false, true} {
			r.put(record.Attrs{Transactional: true, Idempotent: true, ProducerID: 20, BaseSequence: int32(4*round + 2*btoi(commit))}, false, "key-1", "key-2")
			r.finish(20, commit)
		}
		for first := 0; first < keys; first += 50 {
			w := record.NewBuilder(record.Attrs{Idempotent: true, ProducerID: 5, BaseSequence: int32(round*keys + first)})
			for k := range 50 {
				v := make([]byte, value)
				r.rng.Read(v)
				w.Append(r.now, fmt.Appendf(nil, "key-%d", first+k), v)
			}
			b, err := w.Build()
			if err != nil {
				t.Fatal(err)
			}
			total += int64(len(b))
			r.append(b, FromClient)
		}
		r.now += 5000
		for r.p.PlanCompaction(time.UnixMilli(r.now)).Due {
			if _, err := r.p.Compact(t.Context(), r.generous()); err != nil {
				t.Fatal(err)
			}
		}
		if err := r.tierSteps(20); err != nil {
			t.Fatal(err)
		}
		r.clock = r.clock.Add(2 * time.Minute)
		r.deleter.Step(t.Context())
		disk = max(disk, r.p.Size())
		var stored int64
		list, err := r.bucket.List(t.Context(), "", "", 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range list {
			stored += a.Size
		}
		bucket = max(bucket, stored)
	}
	// The newest records take some 120 KB. As much may be dirty, and a segment active; the bucket lags by an exchange.
	const live = keys * (value + 25)
	if limit := int64(2*live + 3*64<<10); disk > limit || bucket > limit+live || total < 10*limit {
		t.Errorf("of %d bytes written %d were on disk at most and %d in the bucket; a bound is %d", total, disk, bucket, limit)
	}
	if n := len(r.p.log.Sealed(0)); n > 8 {
		t.Errorf("%d segments for %d bytes", n, r.p.Size())
	}
	if n := len(r.p.Aborted(0, r.p.End())); n > 10 {
		t.Errorf("%d of %d aborted transactions are remembered", n, rounds)
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// TestPolicyChangesAtRunTime: a log that becomes compacted is, with records without keys in it; one that is not any more is
// left as it is.
func TestPolicyChangesAtRunTime(t *testing.T) {
	r := newRig(t, 3, false)
	defer func() { r.close() }()
	r.settings.Compact, r.settings.Delete = false, true
	r.p.SetSettings(&r.settings)
	w := record.NewBuilder(record.Attrs{})
	w.Append(r.now, nil, []byte("no key"))
	b, err := w.Build()
	if err != nil {
		t.Fatal(err)
	}
	r.append(b, FromClient)
	for range 20 {
		r.produce()
	}
	for _, id := range r.openTxns() {
		r.end(id)
	}
	if err := r.p.Roll(); err != nil {
		t.Fatal(err)
	}
	r.produce()
	size := r.p.Size()
	if done, err := r.compact(); err != nil || done.Replaced > 0 || r.p.Size() != size {
		t.Fatalf("a log that is not compacted: %+v, %v", done, err)
	}
	compacted := r.settings
	compacted.Compact, compacted.Delete = true, false
	r.p.SetSettings(&compacted)
	for range 20 {
		if _, err := r.compact(); err != nil {
			t.Fatal(err)
		}
	}
	if r.p.Size() >= size || r.p.Cleaned() == 0 {
		t.Errorf("%d bytes of %d are left, cleaned is %d", r.p.Size(), size, r.p.Cleaned())
	}
	r.p.SetSettings(&r.settings)
	for range 20 {
		r.produce()
	}
	if err := r.p.Roll(); err != nil {
		t.Fatal(err)
	}
	size = r.p.Size()
	if done, err := r.compact(); err != nil || done.Replaced > 0 || r.p.Size() != size {
		t.Errorf("a log that is not compacted any more: %+v, %v", done, err)
	}
}

// TestCompactionStops: no pass begins on a full disk, and one under way ends when the partition closes or its context does.
func TestCompactionStops(t *testing.T) {
	r := newRig(t, 4, false)
	for range 60 {
		r.produce()
	}
	for _, id := range r.openTxns() {
		r.end(id)
	}
	if err := r.p.Roll(); err != nil {
		t.Fatal(err)
	}
	r.produce()
	o := r.generous()
	plenty := o.Room
	o.Room = func() (int64, error) { return 100, nil }
	size := r.p.Size()
	if _, err := r.p.Compact(t.Context(), o); !errors.Is(err, ErrNoSpace) {
		t.Errorf("on a full disk: %v", err)
	}
	r.mem.SetCapacity(1) // all that is written finds it full
	o.Room = plenty
	if _, err := r.p.Compact(t.Context(), o); !errors.Is(err, ErrNoSpace) {
		t.Errorf("on a disk that fills up: %v", err)
	}
	r.mem.SetCapacity(0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	o.Pace = func(ctx context.Context, _ int) error { return ctx.Err() }
	if _, err := r.p.Compact(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("its context ended: %v", err)
	}
	if r.p.Size() != size || r.p.Cleaned() != 0 {
		t.Errorf("%d bytes of %d, cleaned %d", r.p.Size(), size, r.p.Cleaned())
	}
	if names, err := r.mem.List("/data/log/p"); err != nil || len(names) != len(r.p.log.Sealed(0))+1 {
		t.Errorf("files %v, %v", names, err)
	}
	begun, ended := make(chan struct{}), make(chan error, 1)
	o.Pace = func(context.Context, int) error {
		select {
		case <-begun:
		default:
			close(begun)
		}
		<-r.p.stop
		return nil
	}
	go func() { _, err := r.p.Compact(t.Context(), o); ended <- err }()
	<-begun
	if _, err := r.compact(); !errors.Is(err, ErrBusy) {
		t.Errorf("two passes at once: %v", err)
	}
	r.close()
	if err := <-ended; !errors.Is(err, ErrClosed) {
		t.Errorf("the partition closed: %v", err)
	}
	if n := r.mem.OpenFiles(); n != 0 {
		t.Errorf("%d files are open", n)
	}
}

// TestCompactOnlyLogsAreNotTrimmedByTime: local retention is for logs whose records come to their end.
func TestCompactOnlyLogsAreNotTrimmedByTime(t *testing.T) {
	r := newRig(t, 5, true)
	defer func() { r.close() }()
	r.settings.LocalRetention, r.settings.LocalRetentionBytes = time.Millisecond, 1
	r.p.SetSettings(&r.settings)
	if l := r.p.LocalLog(); l.Local.Ms >= 0 || l.Local.Bytes >= 0 {
		t.Errorf("local retention is %+v", l.Local)
	}
	r.settings.Delete = true
	r.p.SetSettings(&r.settings)
	if l := r.p.LocalLog(); l.Local.Ms != 1 || l.Local.Bytes != 1 {
		t.Errorf("with delete, local retention is %+v", l.Local)
	}
}

// TestPowerCutAtEveryOperationOfAPass cuts the power before every operation of the disk while logs are compacted. A restart
// must find all that readers need, producers as they were, and be able to go on compacting.
func TestPowerCutAtEveryOperationOfAPass(t *testing.T) {
	points := 0
	for seed := range int64(6) {
		r := newRig(t, seed, false)
		r.settings.TombstoneRetention = 0
		r.p.SetSettings(&r.settings)
		var mu sync.Mutex
		armed := false
		arm := func(on bool) {
			mu.Lock()
			defer mu.Unlock()
			armed = on
		}
		r.close()
		r.fs = vfs.Fault(r.mem, func(op vfs.Op) error {
			switch op.Kind {
			case vfs.OpRead, vfs.OpSize, vfs.OpStat, vfs.OpList, vfs.OpOpen, vfs.OpClose:
			default:
				mu.Lock() // the flusher calls too
				defer mu.Unlock()
				if armed {
					points++
					r.survives(fmt.Sprintf("seed %d, power cut %d before %s of %s", seed, points, op.Kind, op.Name))
				}
			}
			return nil
		})
		r.open()
		for range 4 {
			for range 40 {
				r.produce()
				if r.rng.Intn(3) == 0 {
					r.end(record.ProducerID(20 + r.rng.Intn(3)))
				}
				if r.rng.Intn(10) == 0 {
					if err := r.p.Roll(); err != nil {
						t.Fatal(err)
					}
				}
			}
			arm(true)
			if _, err := r.compact(); err != nil {
				t.Fatal(err)
			}
			arm(false)
			r.survives(fmt.Sprintf("seed %d, after a pass", seed))
		}
		r.close()
	}
	if points < 60 {
		t.Errorf("only %d power cuts", points)
	}
}

// survives restarts a copy of the machine after a power cut.
func (r *rig) survives(when string) {
	r.t.Helper()
	c := *r
	c.rng = rand.New(rand.NewSource(int64(crc32.ChecksumIEEE([]byte(when))))) // r's own belongs to another goroutine
	c.mem = r.mem.CrashClone(c.rng, c.rng.Float64())
	c.fs = c.mem
	c.pebble = r.pebble.CrashClone(pebblevfs.CrashCloneCfg{UnsyncedDataPercent: c.rng.Intn(101), RNG: randv2.New(randv2.NewPCG(uint64(c.rng.Int63()), 1))})
	c.open()
	defer c.close()
	err := c.check()
	if err == nil && !slices.Equal(c.producers(), r.producers()) {
		err = fmt.Errorf("producers are %v, were %v", c.producers(), r.producers())
	}
	if err == nil {
		if _, err = c.compact(); err == nil {
			err = c.check()
		}
	}
	if err != nil {
		r.t.Fatalf("%s: %v", when, err)
	}
}
