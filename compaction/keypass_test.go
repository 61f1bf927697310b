package compaction

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/everlog/everlog/tier/record"
)

// written is one record as it was appended, and what became of its transaction.
type written struct {
	offset     record.Offset
	key, value []byte
	timestamp  int64
	headers    []record.Header
	producer   record.ProducerID
	aborted    bool
	open       bool
	marker     record.Offset // that ends its transaction
	appendTime int64         // of a batch with log append time, else 0
}

// keyLog is a random log of a compacted topic with its producers, and all that was ever written to it: the naive model.
type keyLog struct {
	rng     *rand.Rand
	batches []record.Batch
	records map[record.Offset]*written
	next    record.Offset
	now     int64
	keys    int

	seq   map[record.ProducerID]int32
	last  map[record.ProducerID]KeyProducer
	txn   map[record.ProducerID][]*written // of the open transaction
	first map[record.ProducerID]record.Offset
	list  []record.AbortedTxn
	clean record.Offset
	// abortedBelow is where a pass has ended that knew the transactions to be aborted.
	abortedBelow record.Offset
	// filtered is the end of all that a pass has ever replaced, crashed or not.
	filtered record.Offset
}

func newKeyLog(seed int64) *keyLog {
	return &keyLog{
		rng: rand.New(rand.NewSource(seed)), records: map[record.Offset]*written{}, now: 1_700_000_000_000, keys: 1 + int(seed%40),
		seq: map[record.ProducerID]int32{}, last: map[record.ProducerID]KeyProducer{},
		txn: map[record.ProducerID][]*written{}, first: map[record.ProducerID]record.Offset{},
	}
}

// append adds a random batch: plain, idempotent, or of a transaction.
func (l *keyLog) append() {
	a := record.Attrs{Codec: record.Codec(l.rng.Intn(5))}
	id := record.NoProducer
	if kind := l.rng.Intn(3); kind > 0 {
		id = record.ProducerID(10*kind + l.rng.Intn(3))
		a.Idempotent, a.ProducerID, a.ProducerEpoch, a.BaseSequence, a.Transactional = true, id, 1, l.seq[id], kind == 2
	}
	w := record.NewBuilder(a)
	n := 1 + l.rng.Intn(6)
	var recs []*written
	for i := range n {
		r := &written{offset: l.next + record.Offset(i), timestamp: l.now - l.rng.Int63n(5000), producer: id, open: a.Transactional}
		if l.rng.Intn(30) > 0 {
			r.key = fmt.Appendf(nil, "key-%d", l.rng.Intn(l.keys))
		}
		if l.rng.Intn(4) > 0 {
			r.value = make([]byte, l.rng.Intn(200))
			l.rng.Read(r.value[:len(r.value)/2])
		}
		for range l.rng.Intn(3) {
			r.headers = append(r.headers, record.Header{Key: "h", Value: fmt.Append(nil, l.rng.Int31())})
		}
		w.Append(r.timestamp, r.key, r.value, r.headers...)
		recs = append(recs, r)
	}
	b, err := w.Build()
	if err != nil {
		panic(err)
	}
	if l.rng.Intn(6) == 0 {
		b.StampAppendTime(l.now)
		for _, r := range recs {
			r.appendTime = l.now
		}
	}
	b.Stamp(l.next, 1)
	l.batches, l.next = append(l.batches, b), b.NextOffset()
	for _, r := range recs {
		l.records[r.offset] = r
	}
	if id == record.NoProducer {
		return
	}
	l.seq[id] += int32(n)
	l.last[id] = KeyProducer{Next: l.next, Epoch: 1}
	if a.Transactional {
		if len(l.txn[id]) == 0 {
			l.first[id] = b.BaseOffset()
		}
		l.txn[id] = append(l.txn[id], recs...)
	}
}

// end ends the transaction of a producer, if one is open.
func (l *keyLog) end(id record.ProducerID) {
	if len(l.txn[id]) == 0 {
		return
	}
	commit := l.rng.Intn(2) == 0
	b := markerBatch(id, commit, l.now)
	b.Stamp(l.next, 1)
	l.batches, l.next = append(l.batches, b), b.NextOffset()
	for _, r := range l.txn[id] {
		r.open, r.aborted, r.marker = false, !commit, b.BaseOffset()
	}
	if !commit {
		l.list = append(l.list, record.AbortedTxn{ProducerID: id, First: l.first[id], Last: b.BaseOffset(), LastStable: b.NextOffset()})
	}
	delete(l.txn, id)
}

// markerBatch is a control batch as a transaction coordinator writes it.
func markerBatch(id record.ProducerID, commit bool, ts int64) record.Batch {
	w := record.NewBuilder(record.Attrs{Transactional: true, Control: true, Idempotent: true, ProducerID: id, ProducerEpoch: 1, BaseSequence: -1})
	key := []byte{0, 0, 0, abortMarker}
	if commit {
		key[3] = commitMarker
	}
	w.Append(ts, key, []byte{0, 0, 0, 0, 0, 7})
	b, err := w.Build()
	if err != nil {
		panic(err)
	}
	return b
}

// stable is the last stable offset.
func (l *keyLog) stable() record.Offset {
	end := l.next
	for id := range l.txn {
		end = min(end, l.first[id])
	}
	return end
}

// pass compacts what is stable with a map of so many keys, or a part of it as before a crash.
func (l *keyLog) pass(mapKeys int64, retention int64) {
	bound := record.Offset(0)
	for _, b := range l.batches {
		if b.NextOffset() <= l.stable() {
			bound = b.NextOffset()
		}
	}
	m := &KeyMap{slots: make([]keySlot, mapKeys*2), limit: int(mapKeys)}
	p := NewKeyPass(KeyPassOptions{FirstDirty: l.clean, Bound: bound, Whole: true, NowMs: l.now, TombstoneMs: retention, Aborted: slices.Clone(l.list), Producers: l.last, Keys: m})
	full := false
	for _, b := range l.batches {
		if b.BaseOffset() >= bound || full {
			break
		}
		var err error
		if full, err = p.Index(b); err != nil {
			panic(err)
		}
	}
	if !full {
		p.Indexed(bound)
	}
	var out []record.Batch
	crash := record.Offset(1 << 62) // what lies there and above is not replaced any more
	if l.rng.Intn(4) == 0 {
		crash = record.Offset(l.rng.Int63n(int64(bound) + 1))
	}
	for _, b := range l.batches {
		if b.BaseOffset() >= min(p.End(), crash) {
			out = append(out, b)
			continue
		}
		k, err := p.Filter(b)
		if err != nil {
			panic(err)
		}
		if k != nil {
			out = append(out, slices.Clone(k))
		}
	}
	l.filtered = max(l.filtered, min(p.End(), crash))
	if l.batches = out; crash < 1<<62 {
		return // and so nothing else is known to be done
	}
	l.clean, l.abortedBelow = p.End(), p.End()
	gone := p.Emptied()
	l.list = slices.DeleteFunc(l.list, func(a record.AbortedTxn) bool { return slices.Contains(gone, a) })
}

// committed is what a read_committed consumer makes of the log: it goes by the list of aborted transactions and by markers,
// as Kafka's client does.
func (l *keyLog) committed(see func(record.Offset, *record.Record, record.Batch)) error {
	list := slices.Clone(l.list)
	slices.SortFunc(list, func(a, b record.AbortedTxn) int { return int(a.First - b.First) })
	aborted := map[record.ProducerID]bool{}
	end := l.stable()
	for _, b := range l.batches {
		if b.BaseOffset() >= end {
			break
		}
		for len(list) > 0 && list[0].First <= b.LastOffset() {
			aborted[list[0].ProducerID] = true
			list = list[1:]
		}
		if b.IsControl() {
			if kind, err := markerType(b); err != nil || kind == abortMarker {
				delete(aborted, b.ProducerID())
			}
			continue
		}
		if b.IsTransactional() && aborted[b.ProducerID()] {
			continue
		}
		if err := b.Each(func(r *record.Record) error { see(b.BaseOffset()+record.Offset(r.OffsetDelta), r, b); return nil }); err != nil {
			return err
		}
	}
	return nil
}

// check holds the log against what was written.
func (l *keyLog) check(retention int64) error {
	if err := l.checkBatches(); err != nil {
		return err
	}
	newest, counted := map[string]*written{}, map[string]record.Offset{}
	end := l.stable()
	for o := record.Offset(0); o < end; o++ {
		if r := l.records[o]; r != nil && !r.aborted && r.key != nil {
			newest[string(r.key)] = r
		}
	}
	state := map[string]record.Offset{}
	var failed error
	err := l.committed(func(o record.Offset, r *record.Record, _ record.Batch) {
		w := l.records[o]
		if failed == nil && (w == nil || w.aborted) {
			failed = fmt.Errorf("record at %d was aborted, or never written", o)
		}
		if failed != nil {
			return
		}
		if r.Key == nil {
			if o < l.clean {
				failed = fmt.Errorf("record without a key at %d below %d", o, l.clean)
			}
			return
		}
		if before, twice := counted[string(r.Key)]; twice && o < l.clean {
			failed = fmt.Errorf("key %q at %d and %d, both below %d", r.Key, before, o, l.clean)
		}
		counted[string(r.Key)], state[string(r.Key)] = o, o
	})
	if err != nil || failed != nil {
		return errorsJoin(err, failed)
	}
	for k, w := range newest {
		o, there := state[k]
		switch {
		case there && o == w.offset:
		case !there && w.value == nil && l.now-w.timestamp >= retention && w.offset < l.filtered: // a tombstone of its time
		default:
			return fmt.Errorf("key %q: the newest record is at %d, a reader finds %d (%v)", k, w.offset, o, there)
		}
	}
	return nil
}

func errorsJoin(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// checkBatches verifies the bytes of every batch, and that its records are the written ones.
func (l *keyLog) checkBatches() error {
	next := record.Offset(0)
	lastOf, ends := map[record.ProducerID]record.Offset{}, map[record.Offset]bool{}
	wanted := map[record.Offset]bool{} // markers of transactions of which something is left
	for _, b := range l.batches {
		if err := b.Verify(); err != nil || b.BaseOffset() < next || b.Size() != int(binary.BigEndian.Uint32(b[8:]))+12 {
			return fmt.Errorf("batch at %d after %d: %w", b.BaseOffset(), next, err)
		}
		next = b.NextOffset()
		ends[next] = true
		if delete(wanted, b.BaseOffset()); !b.IsControl() {
			lastOf[b.ProducerID()] = next
			if b.ProducerID() >= 0 && b.BaseSequence() < 0 {
				return fmt.Errorf("batch at %d lost its sequence", b.BaseOffset())
			}
		}
		latest := int64(-1)
		err := b.Each(func(r *record.Record) error {
			o, ts := b.BaseOffset()+record.Offset(r.OffsetDelta), b.BaseTimestamp()+r.TimestampDelta
			latest = max(latest, ts)
			w := l.records[o]
			if b.IsControl() {
				return nil
			}
			if w != nil && w.marker > 0 {
				wanted[w.marker] = true
			}
			if w != nil && w.aborted && o < l.abortedBelow {
				return fmt.Errorf("record at %d of an aborted transaction is left", o)
			}
			headers, err := r.Headers()
			if err != nil {
				return err
			}
			same := w != nil && bytes.Equal(w.key, r.Key) && (w.key == nil) == (r.Key == nil) && bytes.Equal(w.value, r.Value) && (w.value == nil) == (r.Value == nil) &&
				w.timestamp == ts && len(headers) == len(w.headers)
			for i := range headers {
				same = same && headers[i].Key == w.headers[i].Key && bytes.Equal(headers[i].Value, w.headers[i].Value)
			}
			if same && b.LogAppendTime() {
				same = w.appendTime == b.MaxTimestamp()
			}
			if !same {
				return fmt.Errorf("record at %d is not the one written", o)
			}
			return nil
		})
		if err != nil {
			return err
		}
		if b.Count() > 0 && !b.LogAppendTime() && latest != b.MaxTimestamp() {
			return fmt.Errorf("batch at %d: the header says %d ms at most, the records %d", b.BaseOffset(), b.MaxTimestamp(), latest)
		}
	}
	if len(wanted) > 0 {
		return fmt.Errorf("markers at %v are gone, records of their transactions are not", wanted)
	}
	for id, p := range l.last {
		if lastOf[id] != p.Next {
			return fmt.Errorf("producer %d: its last batch ended at %d, what is left ends at %d", id, p.Next, lastOf[id])
		}
	}
	if l.clean > 0 && !ends[l.clean] && l.clean == l.stable() {
		return fmt.Errorf("nothing ends at %d, the end of what was compacted", l.clean)
	}
	return nil
}

// TestPassLeavesWhatReadersNeed compacts random logs again and again while they grow, with maps of all sizes.
func TestPassLeavesWhatReadersNeed(t *testing.T) {
	for seed := range int64(40) {
		l := newKeyLog(seed)
		retention := []int64{0, 1000, 20_000}[seed%3]
		for step := range 120 {
			l.now += l.rng.Int63n(1000)
			switch r := l.rng.Intn(10); {
			case r < 6:
				l.append()
			case r < 8:
				l.end(record.ProducerID(20 + l.rng.Intn(3)))
			default:
				l.pass(1+l.rng.Int63n(50), retention)
			}
			if err := l.check(retention); err != nil {
				t.Fatalf("seed %d, step %d: %v", seed, step, err)
			}
		}
	}
}

// TestPassesBoundALog: a log that is written for ever keeps what its keys and producers need.
func TestPassesBoundALog(t *testing.T) {
	l := newKeyLog(39)
	l.keys = 20
	most := 0
	for range 150 {
		for range 20 {
			l.append()
			l.end(record.ProducerID(20 + l.rng.Intn(3)))
		}
		l.now += 2000
		for id := range l.txn {
			l.end(id)
		}
		l.pass(1000, 1000)
		most = max(most, len(l.batches))
	}
	// A batch for each key and each producer; of the last passes, tombstones and markers that wait for their time.
	for range 3 {
		l.now += 5000
		l.abortedBelow = 0 // so that pass is not done half
		for l.abortedBelow == 0 {
			l.pass(1000, 1000)
		}
	}
	for _, b := range l.batches {
		err := b.Each(func(r *record.Record) error {
			if r.Value == nil {
				return fmt.Errorf("a tombstone of %q is left at %d", r.Key, b.BaseOffset())
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
	if limit := 20 + 6 + 1 + 3*40; most > limit {
		t.Errorf("%d batches are left of %d, want %d at most", most, l.next, limit)
	}
}
