package compaction

import (
	"encoding/binary"
	"fmt"
	"slices"
	"sort"

	"github.com/everlog/everlog/tier/record"
)

// KeyProducer is the last batch of a producer that is still remembered.
type KeyProducer struct {
	// Next is the offset after its last batch of records, -1 if only markers are known of its epoch.
	Next  record.Offset
	Epoch record.ProducerEpoch
}

// KeyPassOptions say what a pass over a log goes by.
type KeyPassOptions struct {
	// Start is the first offset that the pass reads. FirstDirty is where the part begins that has not been compacted: below
	// it no key occurs twice. Bound is the end of what may be compacted: the batch that ends there is never removed wholly,
	// so that readers come to the end.
	Start, FirstDirty, Bound record.Offset
	// Whole says that nothing of the log lies below Start. Otherwise older records that the pass does not see may need its
	// tombstones and markers, which all stay.
	Whole bool
	NowMs int64
	// TombstoneMs is delete.retention.ms.
	TombstoneMs int64
	// Aborted are all aborted transactions that overlap what the pass reads and have records there as far as is known.
	Aborted []record.AbortedTxn
	// Producers are those whose last batch must stay, perhaps emptied.
	Producers map[record.ProducerID]KeyProducer
	// Keys takes the keys of the dirty part.
	Keys *KeyMap
}

// KeyPass decides what one pass of key compaction leaves of a log, by the rules of Kafka's log cleaner (KIP-58, KIP-98,
// KIP-354, KIP-534; Cleaner and CleanedTransactionMetadata). First Index sees the batches from FirstDirty on, in order, until
// it says that the map is full or the log ends at Bound; then Filter sees those from Start on, up to End. It does no I/O and
// asks no clock. Not safe for concurrent use.
type KeyPass struct {
	o       KeyPassOptions
	end     record.Offset // keys are indexed up to here
	aborted map[record.ProducerID][]record.AbortedTxn
	markers map[record.Offset]record.AbortedTxn // by the abort marker's offset
	last    map[record.ProducerID]record.Offset // newest marker of producers that have nothing else
	open    map[record.ProducerID]bool          // batches of its transaction were seen
	known   map[record.ProducerID]bool          // a marker was seen
	emptied map[record.Offset]record.AbortedTxn // of which nothing but the marker is left
	rewriter
}

// NewKeyPass returns a pass that has seen nothing.
func NewKeyPass(o KeyPassOptions) *KeyPass {
	p := &KeyPass{
		o: o, end: o.FirstDirty, aborted: map[record.ProducerID][]record.AbortedTxn{}, markers: map[record.Offset]record.AbortedTxn{},
		last: map[record.ProducerID]record.Offset{}, open: map[record.ProducerID]bool{}, known: map[record.ProducerID]bool{},
		emptied: map[record.Offset]record.AbortedTxn{},
	}
	for _, a := range o.Aborted {
		p.aborted[a.ProducerID] = append(p.aborted[a.ProducerID], a)
		p.markers[a.Last] = a
	}
	for _, list := range p.aborted {
		slices.SortFunc(list, func(a, b record.AbortedTxn) int { return int(a.First - b.First) })
	}
	return p
}

// End is the offset up to which the pass knows the keys: records at or above it stay as they are.
func (p *KeyPass) End() record.Offset { return p.end }

// Index takes in the keys of a batch of the dirty part. It is true when the map is full: the rest is for the next pass.
func (p *KeyPass) Index(b record.Batch) (full bool, err error) {
	switch {
	case b.NextOffset() <= p.o.FirstDirty:
		return false, nil
	case b.IsControl():
		if last, ok := p.o.Producers[b.ProducerID()]; ok && last.Next < 0 && b.Count() > 0 {
			p.last[b.ProducerID()] = b.BaseOffset()
		}
	case !p.isAborted(b):
		err = b.Each(func(r *record.Record) error {
			o := b.BaseOffset() + record.Offset(r.OffsetDelta)
			if full || o < p.o.FirstDirty || r.Key == nil {
				return nil
			}
			if full = !p.o.Keys.Put(r.Key, o); full {
				p.end = o
			}
			return nil
		})
		if err != nil {
			return false, fmt.Errorf("index keys of batch at %d: %w", b.BaseOffset(), err)
		}
	}
	if !full {
		p.end = b.NextOffset()
	}
	return full, nil
}

// Indexed says that the dirty part ends at o, after what may be missing at its end.
func (p *KeyPass) Indexed(o record.Offset) { p.end = max(p.end, o) }

// isAborted reports whether a batch of records belongs to an aborted transaction.
func (p *KeyPass) isAborted(b record.Batch) bool {
	if !b.IsTransactional() {
		return false
	}
	list := p.aborted[b.ProducerID()]
	i := sort.Search(len(list), func(i int) bool { return list[i].First > b.BaseOffset() })
	return i > 0 && b.BaseOffset() < list[i-1].Last
}

// Filter returns what stays of a batch: b itself if all of it does, nil if nothing, or another batch with the same offsets,
// valid until the next call. The error is record.ErrCorrupt.
func (p *KeyPass) Filter(b record.Batch) (record.Batch, error) {
	if b.IsControl() {
		return p.control(b)
	}
	aborted := p.isAborted(b)
	if b.IsTransactional() {
		p.open[b.ProducerID()] = true
	}
	switch {
	case aborted || b.Count() == 0:
		return p.without(b), nil
	case b.BaseOffset() >= p.end:
		return b, nil
	}
	records, err := p.decompress(b)
	if err != nil {
		return nil, err
	}
	tombstones := false
	kept, err := p.decide(b, records, func(r *rawRecord) bool {
		o := b.BaseOffset() + record.Offset(r.offsetDelta)
		if o >= p.end {
			return true
		}
		keep := p.keeps(b, r, o)
		tombstones = tombstones || keep && r.tombstone
		return keep
	})
	if err != nil {
		return nil, err
	}
	horizon := int64(-1)
	if _, set := b.DeleteHorizon(); tombstones && !set {
		horizon = p.horizon()
	}
	switch {
	case kept == 0:
		return p.without(b), nil
	case kept == int(b.Count()) && horizon < 0:
		return b, nil
	}
	return p.rebuild(b, records, kept, horizon)
}

// horizon is from when on a tombstone that this pass meets first may be removed.
func (p *KeyPass) horizon() int64 {
	if p.o.TombstoneMs > 1<<62 {
		return 1 << 62
	}
	return max(p.o.NowMs+p.o.TombstoneMs, 0)
}

// passed reports whether the batch's delete horizon is set and over.
func (p *KeyPass) passed(b record.Batch) bool {
	horizon, set := b.DeleteHorizon()
	return set && p.o.NowMs >= horizon
}

// keeps decides about a record below End. A record without a key has no place in a compacted log: as Kafka does, it goes.
func (p *KeyPass) keeps(b record.Batch, r *rawRecord, o record.Offset) bool {
	if r.key == nil {
		return false
	}
	if newest, ok := p.o.Keys.Get(r.key); ok && o < newest {
		return false
	}
	return !r.tombstone || !p.o.Whole || !p.passed(b)
}

// without is what stays of a batch none of whose records does.
func (p *KeyPass) without(b record.Batch) record.Batch {
	last, ok := p.o.Producers[b.ProducerID()]
	switch {
	case b.NextOffset() != p.o.Bound && !(ok && b.ProducerID() >= 0 && last.Next == b.NextOffset()):
		return nil
	case b.Count() == 0:
		return b
	}
	return p.empty(b)
}

// Types of control records that end a transaction.
const (
	abortMarker  = 0
	commitMarker = 1
)

// control decides about a marker: it stays while anything of its transaction does, then until its delete horizon has passed.
// An abort marker whose transaction is still listed as aborted outlives the pass that finds the transaction empty: only a
// list without it may meet a log without the marker.
func (p *KeyPass) control(b record.Batch) (record.Batch, error) {
	if b.Count() == 0 {
		return p.without(b), nil
	}
	kind, err := markerType(b)
	if err != nil || kind != abortMarker && kind != commitMarker {
		return b, err
	}
	id := b.ProducerID()
	gone, first := !p.open[id], !p.known[id]
	delete(p.open, id)
	p.known[id] = true
	txn, listed := p.markers[b.LastOffset()]
	switch {
	case listed:
		gone = gone && txn.First >= p.o.Start
		if gone {
			p.emptied[txn.Last] = txn
		}
	case first && !p.o.Whole:
		gone = false // its records may lie below Start
	}
	switch {
	case !gone:
		return b, nil
	case listed || !p.passed(b) || p.isLastMarker(b):
		return p.mark(b)
	}
	return p.without(b), nil
}

// isLastMarker reports whether a marker is all that tells a producer's epoch.
func (p *KeyPass) isLastMarker(b record.Batch) bool {
	last, ok := p.o.Producers[b.ProducerID()]
	if !ok || last.Next >= 0 || last.Epoch != b.ProducerEpoch() {
		return false
	}
	newest, ok := p.last[b.ProducerID()]
	return !ok || newest == b.BaseOffset()
}

// mark gives a marker its delete horizon, if it has none.
func (p *KeyPass) mark(b record.Batch) (record.Batch, error) {
	if _, set := b.DeleteHorizon(); set {
		return b, nil
	}
	records, err := p.decompress(b)
	if err != nil {
		return nil, err
	}
	kept, err := p.decide(b, records, func(*rawRecord) bool { return true })
	if err != nil {
		return nil, err
	}
	return p.rebuild(b, records, kept, p.horizon())
}

// markerType is the type of a control record, -1 if its key does not tell.
func markerType(b record.Batch) (kind int, err error) {
	kind = -1
	err = b.Each(func(r *record.Record) error {
		if len(r.Key) >= 4 {
			kind = int(binary.BigEndian.Uint16(r.Key[2:]))
		}
		return nil
	})
	return kind, err
}

// Emptied returns the aborted transactions of which the pass has found nothing but the marker. When what it left is in
// place they are to be forgotten: the next pass is not to have them in Aborted.
func (p *KeyPass) Emptied() []record.AbortedTxn {
	var out []record.AbortedTxn
	for _, a := range p.emptied {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b record.AbortedTxn) int { return int(a.Last - b.Last) })
	return out
}
