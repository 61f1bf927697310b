package partition

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math/rand"
	randv2 "math/rand/v2"
	"slices"
	"sort"
	"testing"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/compaction"
	"github.com/everlog/everlog/ingest/hotlog"
	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/ingest/producer"
	"github.com/everlog/everlog/tier/fetch"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/ship"
	"github.com/everlog/everlog/tier/vfs"
)

// written is one record as it was appended, and what became of its transaction.
type written struct {
	key, value     []byte
	timestamp      int64
	open, aborted  bool
	transactionEnd record.Offset
}

// rig is a partition of a compacted topic on a machine that can lose power, with a bucket that can fail, and all that was
// ever written to it.
type rig struct {
	t        testing.TB
	rng      *rand.Rand
	mem      *vfs.Mem
	fs       vfs.FS
	pebble   *pebblevfs.MemFS
	state    *localstate.Store
	flusher  *hotlog.Flusher
	p        *Partition
	settings config.TopicConfig
	tiered   bool
	now      int64
	epoch    record.LeaderEpoch

	bucket  *object.Memory
	faulty  *objecttest.Faulty
	faults  int                    // in a hundred requests
	fault   func() objecttest.Kind // if set, decides instead
	deleter *compaction.Deleter
	clock   time.Time
	shipper *ship.Shipper
	retain  time.Duration // how often

	written map[record.Offset]*written
	seq     map[record.ProducerID]int32
	txn     map[record.ProducerID][]*written
	keys    int
}

var rigID = segment.Identity{Cluster: [16]byte{1}, Topic: record.TopicID{2}, Partition: 3}

func newRig(t testing.TB, seed int64, tiered bool) *rig {
	c, err := config.Topic(map[string]string{"cleanup.policy": "compact", "min.cleanable.dirty.ratio": "0.01"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{t: t, rng: rand.New(rand.NewSource(seed)), mem: vfs.NewMem(), pebble: pebblevfs.NewCrashableMem(), settings: *c, tiered: tiered, now: 1_700_000_000_000,
		bucket: object.NewMemory(), clock: time.Unix(1000, 0), retain: time.Hour,
		written: map[record.Offset]*written{}, seq: map[record.ProducerID]int32{}, txn: map[record.ProducerID][]*written{}, keys: 1 + int(seed%30)}
	r.settings.SegmentBytes, r.settings.TombstoneRetention = 4000, 10*time.Second
	r.fs = r.mem
	kinds := []objecttest.Kind{objecttest.Before, objecttest.After, objecttest.Throttle, objecttest.Conflict, objecttest.SelfPrecondition, objecttest.Cut, objecttest.Late}
	r.faulty = objecttest.NewFaulty(r.bucket, func(objecttest.Call) objecttest.Fault {
		if r.fault != nil {
			return objecttest.Fault{Kind: r.fault()}
		}
		if r.rng.Intn(100) >= r.faults {
			return objecttest.Fault{}
		}
		return objecttest.Fault{Kind: kinds[r.rng.Intn(len(kinds))]}
	})
	r.deleter = compaction.NewDeleter(r.faulty, time.Minute, func() time.Time { return r.clock })
	if err := errors.Join(r.mem.MkdirAll("/data/log"), r.mem.SyncDir("/"), r.mem.SyncDir("/data")); err != nil {
		t.Fatal(err)
	}
	r.open()
	return r
}

// open opens the partition and leads it in a new epoch.
func (r *rig) open() {
	r.t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	var err error
	if r.state, err = localstate.Open("state", localstate.Options{FS: r.pebble, Logger: quiet}); err != nil {
		r.t.Fatal(err)
	}
	r.flusher = hotlog.NewFlusher(hotlog.FlusherOptions{})
	o := hotlog.Options{}
	l, rec, err := hotlog.Open(r.fs, "/data/log/p", rigID, r.state.Log(rigID.Topic, rigID.Partition), r.flusher, o)
	if err != nil {
		r.t.Fatal(err)
	}
	if rec.Damaged != nil {
		r.t.Fatal(rec.Damaged)
	}
	number := func(name string) record.Offset {
		v, err := r.state.Get(name)
		if err != nil {
			r.t.Fatal(err)
		}
		if len(v) == 0 {
			return 0
		}
		return record.Offset(binary.BigEndian.Uint64(v))
	}
	save := func(name string) func(record.Offset) error {
		return func(o record.Offset) error { return r.state.Set(name, binary.BigEndian.AppendUint64(nil, uint64(o))) }
	}
	settings := r.settings
	r.p, err = Open(rigID, l, rec, Options{Topic: "t", Settings: &settings, Log: o, ProducerExpiration: 24 * time.Hour, Logger: quiet,
		LogStart: number("start"), SaveLogStart: save("start"), Cleaned: number("cleaned"), SaveCleaned: save("cleaned")})
	if err != nil {
		r.t.Fatal(err)
	}
	r.epoch++
	if err := r.p.Lead(1, r.epoch); err != nil {
		r.t.Fatal(err)
	}
	if r.shipper = nil; !r.tiered {
		return
	}
	if err := ship.CleanScratch(r.fs, "/data/scratch"); err != nil {
		r.t.Fatal(err)
	}
	r.p.NewTier(TierParts{
		Store: r.faulty, Pages: manifest.NewPageCache(4), Limiter: ship.NewLimiter(0, ship.PaceOptions{Floor: 1 << 31, Steady: 1 << 31}), Deleter: r.deleter, FS: r.fs, Scratch: "/data/scratch", Logger: quiet,
		History: func(segment.Identity, func() *manifest.Manifest, func(context.Context) error) History { return nil },
	}, TierSchedule{Retention: r.retain, Retry: time.Second}, -1, nil)
	r.p.tier.objectBytes = 1 << (r.rng.Intn(14))
}

// close ends the process in order.
func (r *rig) close() {
	r.t.Helper()
	if err := errors.Join(r.p.Close(), r.state.Close()); err != nil {
		r.t.Fatal(err)
	}
	r.flusher.Close()
}

// crash goes on after a power cut, on what the disk has kept.
func (r *rig) crash() {
	r.t.Helper()
	mem := r.mem.CrashClone(r.rng, r.rng.Float64())
	state := r.pebble.CrashClone(pebblevfs.CrashCloneCfg{UnsyncedDataPercent: r.rng.Intn(101), RNG: randv2.New(randv2.NewPCG(uint64(r.rng.Int63()), 1))})
	r.close()
	r.mem, r.fs, r.pebble = mem, mem, state
	r.open()
}

// append writes a batch and returns when it is committed.
func (r *rig) append(b record.Batch, origin Origin) Appended {
	r.t.Helper()
	done, err := r.p.Append(b, AppendOptions{NowMs: r.now, Origin: origin})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := r.p.Committed(r.t.Context(), done.Next, done.Epoch); err != nil {
		r.t.Fatal(err)
	}
	return done
}

// produce appends a random batch: plain, idempotent, or of a transaction.
func (r *rig) produce() {
	r.t.Helper()
	a := record.Attrs{Codec: record.Codec(r.rng.Intn(5))}
	id := record.NoProducer
	if kind := r.rng.Intn(3); kind > 0 {
		id = record.ProducerID(10*kind + r.rng.Intn(3))
		a.Idempotent, a.ProducerID, a.BaseSequence, a.Transactional = true, id, r.seq[id], kind == 2
	}
	w := record.NewBuilder(a)
	var recs []*written
	for range 1 + r.rng.Intn(5) {
		k := &written{timestamp: r.now - r.rng.Int63n(1000), key: fmt.Appendf(nil, "key-%d", r.rng.Intn(r.keys)), open: a.Transactional}
		if r.rng.Intn(4) > 0 {
			k.value = make([]byte, r.rng.Intn(150))
			r.rng.Read(k.value)
		}
		w.Append(k.timestamp, k.key, k.value)
		recs = append(recs, k)
	}
	b, err := w.Build()
	if err != nil {
		r.t.Fatal(err)
	}
	done := r.append(b, FromClient)
	for i, k := range recs {
		r.written[done.Base+record.Offset(i)] = k
	}
	if id != record.NoProducer {
		r.seq[id] += int32(len(recs))
	}
	if a.Transactional {
		r.txn[id] = append(r.txn[id], recs...)
	}
}

// end ends the transaction of a producer, if one is open.
func (r *rig) end(id record.ProducerID) {
	r.t.Helper()
	if len(r.txn[id]) == 0 {
		return
	}
	commit := r.rng.Intn(2) == 0
	done := r.append(producer.Marker(id, 0, commit, 1, r.now), FromCoordinator)
	for _, k := range r.txn[id] {
		k.open, k.aborted, k.transactionEnd = false, !commit, done.Base
	}
	delete(r.txn, id)
}

// compact runs a pass with a key map of random size.
func (r *rig) compact() (Compacted, error) {
	o := r.generous()
	o.KeyMapBytes = 24 * int64(10+r.rng.Intn(100))
	return r.p.Compact(context.Background(), o)
}

// generous are options for a pass over everything.
func (r *rig) generous() CompactOptions {
	return CompactOptions{Now: time.UnixMilli(r.now), KeyMapBytes: 1 << 20, Room: func() (int64, error) { return 1 << 40, nil }, Pace: func(context.Context, int) error { return nil }}
}

// tierSteps runs steps of the tier; what the store fails is tried again by later ones.
func (r *rig) tierSteps(n int) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for range n {
		if r.shipper == nil {
			if r.shipper, err = r.p.tier.begin(ctx, r.epoch); err != nil {
				r.shipper = nil
				continue
			}
		}
		_, err = r.p.tier.step(ctx, r.shipper)
	}
	return err
}

// view is what a reader of committed records finds: batches, and the aborted transactions it is told of.
type view struct {
	batches []record.Batch
	aborted []record.AbortedTxn
}

// remote adds what the bucket holds of [from, to), and what its footers say.
func (v *view) remote(r *rig, from, to record.Offset) error {
	ctx := context.Background()
	l, err := manifest.Open(ctx, r.bucket, rigID, manifest.Options{})
	if err != nil || from >= to {
		return err
	}
	for s, err := range l.Manifest().All(ctx, r.bucket) {
		if err != nil {
			return err
		}
		if s.End <= from || s.Base >= to {
			continue
		}
		p, _, err := r.bucket.Get(ctx, s.Object)
		if err != nil {
			return err
		}
		f, err := segment.ReadFooter(bytes.NewReader(p), int64(len(p)))
		if err == nil {
			err = segment.Verify(bytes.NewReader(p), f)
		}
		if err != nil {
			return fmt.Errorf("object of [%d, %d): %w", s.Base, s.End, err)
		}
		v.add(overlapping(f.Aborted, from, to))
	}
	_, err = fetch.Scan(ctx, r.bucket, l.Manifest(), fetch.ScanOptions{From: from, To: to}, func(b record.Batch, _ *segment.Footer) error {
		v.batches = append(v.batches, bytes.Clone(b))
		return nil
	})
	return err
}

func (v *view) add(list []record.AbortedTxn) {
	for _, a := range list {
		if !slices.Contains(v.aborted, a) {
			v.aborted = append(v.aborted, a)
		}
	}
}

// local adds what the local log holds of [from, to).
func (v *view) local(r *rig, from, to record.Offset) error {
	v.add(r.p.abortedLocal(from, to))
	return r.p.log.Scan(from, to, func(b record.Batch) error { v.batches = append(v.batches, bytes.Clone(b)); return nil })
}

// check reads as Kafka's consumer does with read_committed, all in one answer, and holds it against what was written below
// end: nothing aborted, nothing changed, and of each key the newest record, unless that is a tombstone.
func (v *view) check(r *rig, start, end record.Offset) error {
	sort.Slice(v.aborted, func(i, j int) bool { return v.aborted[i].First < v.aborted[j].First })
	list, hidden, next := v.aborted, map[record.ProducerID]bool{}, record.Offset(0)
	state := map[string]record.Offset{}
	for _, b := range v.batches {
		if err := b.Verify(); err != nil || b.BaseOffset() < next {
			return fmt.Errorf("batch at %d after %d: %w", b.BaseOffset(), next, err)
		}
		next = b.NextOffset()
		for len(list) > 0 && list[0].First <= b.LastOffset() {
			hidden[list[0].ProducerID] = true
			list = list[1:]
		}
		if b.IsControl() {
			_ = b.Each(func(k *record.Record) error {
				if k.Key[3] == 0 {
					delete(hidden, b.ProducerID())
				}
				return nil
			})
			continue
		}
		if b.IsTransactional() && hidden[b.ProducerID()] {
			continue
		}
		err := b.Each(func(k *record.Record) error {
			o := b.BaseOffset() + record.Offset(k.OffsetDelta)
			w := r.written[o]
			switch {
			case w == nil || !bytes.Equal(w.key, k.Key) || !bytes.Equal(w.value, k.Value) || (w.value == nil) != (k.Value == nil) || w.timestamp != b.BaseTimestamp()+k.TimestampDelta:
				return fmt.Errorf("record at %d is not the one written", o)
			case w.aborted || w.open:
				return fmt.Errorf("record at %d was aborted, or not committed", o)
			}
			state[string(k.Key)] = o
			return nil
		})
		if err != nil {
			return err
		}
	}
	newest := map[string]record.Offset{}
	for o := start; o < end; o++ {
		if w := r.written[o]; w != nil && !w.aborted && !w.open {
			newest[string(w.key)] = o
		}
	}
	for k, o := range newest {
		got, there := state[k]
		if there && got == o || !there && r.written[o].value == nil {
			continue
		}
		return fmt.Errorf("key %q: the newest record is at %d (tombstone: %v), a reader finds %d (%v)", k, o, r.written[o].value == nil, got, there)
	}
	return nil
}

// check reads the log over both tiers, and the bucket alone as a broker would that has lost its disk.
func (r *rig) check() error {
	v, start := r.p.View(), r.p.log.Start()
	var both, alone view
	if start > v.LogStart {
		if err := both.remote(r, v.LogStart, start); err != nil {
			return fmt.Errorf("remote: %w", err)
		}
	}
	err := both.local(r, max(start, v.LogStart), v.LastStable)
	if err == nil {
		err = both.check(r, v.LogStart, v.LastStable)
	}
	if err == nil {
		err = r.checkFooters()
	}
	if err != nil {
		return fmt.Errorf("log [%d, %d), local from %d, cleaned to %d: %w", v.LogStart, v.LastStable, start, r.p.Cleaned(), err)
	}
	if !r.tiered {
		return nil
	}
	l, err := manifest.Open(context.Background(), r.bucket, rigID, manifest.Options{})
	if err != nil {
		return err
	}
	from, end := max(l.Manifest().LogStart(), v.LogStart), l.Manifest().End()
	if err = alone.remote(r, from, end); err == nil {
		err = alone.check(r, from, end)
	}
	if err != nil {
		return fmt.Errorf("bucket [%d, %d), cleaned to %d, exchanged to %d: %w", from, end, r.p.Cleaned(), r.p.tier.Exchanged(), err)
	}
	return nil
}

// checkFooters holds the footers of rewritten segments against what the partition knows: they list the aborted transactions
// of which records are left. (After a restart the partition may list more.)
func (r *rig) checkFooters() error {
	left := map[record.ProducerID][]record.Offset{}
	err := r.p.log.Scan(r.p.log.Start(), r.p.End(), func(b record.Batch) error {
		if b.IsTransactional() && !b.IsControl() && b.Count() > 0 {
			left[b.ProducerID()] = append(left[b.ProducerID()], b.BaseOffset())
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, s := range r.p.log.Sealed(0) {
		f, err := s.Footer()
		if err != nil || !f.Sparse {
			continue
		}
		for _, a := range r.p.Aborted(s.Base, s.End) {
			has := slices.ContainsFunc(left[a.ProducerID], func(o record.Offset) bool { return o >= a.First && o < a.Last })
			if has && !slices.Contains(f.Aborted, a) {
				return fmt.Errorf("the footer of [%d, %d) does not know the aborted transaction %+v", s.Base, s.End, a)
			}
		}
	}
	return nil
}

// put appends records of these keys, with values or as tombstones, in one batch.
func (r *rig) put(a record.Attrs, tombstones bool, keys ...string) {
	r.t.Helper()
	w := record.NewBuilder(a)
	var recs []*written
	for _, k := range keys {
		rec := &written{key: []byte(k), timestamp: r.now, open: a.Transactional}
		if !tombstones {
			rec.value = fmt.Appendf(nil, "%s at %d", k, r.p.End())
		}
		w.Append(rec.timestamp, rec.key, rec.value)
		recs = append(recs, rec)
	}
	b, err := w.Build()
	if err != nil {
		r.t.Fatal(err)
	}
	done := r.append(b, FromClient)
	for i, rec := range recs {
		r.written[done.Base+record.Offset(i)] = rec
	}
	if a.Transactional {
		r.txn[a.ProducerID] = append(r.txn[a.ProducerID], recs...)
	}
}

// finish ends a transaction in the way asked for.
func (r *rig) finish(id record.ProducerID, commit bool) {
	r.t.Helper()
	done := r.append(producer.Marker(id, 0, commit, 1, r.now), FromCoordinator)
	for _, k := range r.txn[id] {
		k.open, k.aborted, k.transactionEnd = false, !commit, done.Base
	}
	delete(r.txn, id)
}

// roll ends the segment and ships it.
func (r *rig) roll() {
	r.t.Helper()
	err := r.p.Roll()
	if err == nil {
		r.put(record.Attrs{}, false, "filler") // behind it the footer is on disk
	}
	if err == nil && r.tiered {
		err = r.tierSteps(10)
	}
	if err != nil {
		r.t.Fatal(err)
	}
}

// mustCompact runs a pass, and if asked to the exchange.
func (r *rig) mustCompact(exchange bool) Compacted {
	r.t.Helper()
	done, err := r.compact()
	if err == nil && exchange {
		err = r.tierSteps(10)
	}
	if err == nil {
		err = r.check()
	}
	if err != nil {
		r.t.Fatal(err)
	}
	return done
}

// many are so many keys that no one uses yet.
func (r *rig) many(n int) (keys []string) {
	for range n {
		keys = append(keys, fmt.Sprintf("many-%d", r.rng.Int63()))
	}
	return keys
}

// producers are what is known of producers but for the times.
func (r *rig) producers() []producer.Producer {
	list := r.p.Producers()
	for i := range list {
		list[i].LastTimestampMs = 0
	}
	return list
}

// reopened checks what a restart must keep.
func (r *rig) reopened(how func()) error {
	was, view, cleaned := r.producers(), r.p.View(), r.p.Cleaned()
	how()
	if now := r.producers(); !slices.Equal(was, now) {
		return fmt.Errorf("producers were %v, are %v", was, now)
	}
	// The last stable offset may lag for a moment behind a marker that was committed.
	if now := r.p.View(); now.HighWatermark != view.HighWatermark || now.LogStart != view.LogStart || now.LastStable < view.LastStable || r.p.Cleaned() != cleaned {
		return fmt.Errorf("offsets were %+v, cleaned %d, are %+v, %d", view, cleaned, now, r.p.Cleaned())
	}
	return nil
}

// openTxns are the producers with an open transaction, in order.
func (r *rig) openTxns() []record.ProducerID { return slices.Sorted(maps.Keys(r.txn)) }
