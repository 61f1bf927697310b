package producer

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"github.com/everlog/everlog/tier/record"
)

// ErrCorrupt means that bytes are not a snapshot as it was written.
var ErrCorrupt = errors.New("corrupt producer snapshot")

// ErrVersion means a snapshot written by a later version of everlog.
var ErrVersion = errors.New("unknown version of producer snapshot")

// The layout is in FORMAT.md; all integers are big-endian.
const (
	snapshotMagic   = "EVPS"
	snapshotVersion = 1

	headerSize    = 28
	producerSize  = 31
	batchSize     = 32
	completedSize = 24
	abortedSize   = 32
	crcSize       = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Snapshot returns the whole state in the format of FORMAT.md. Equal states give equal bytes.
func (s *State) Snapshot() []byte {
	ids := make([]record.ProducerID, 0, len(s.producers))
	batches := 0
	for id, e := range s.producers {
		ids = append(ids, id)
		batches += e.count
	}
	slices.Sort(ids)
	completed := len(s.unstable) - s.open
	be := binary.BigEndian
	p := make([]byte, 0, headerSize+len(ids)*producerSize+batches*batchSize+completed*completedSize+
		len(s.aborted)*abortedSize+crcSize)
	p = append(p, snapshotMagic...)
	p = append(p, snapshotVersion, 0, 0, 0)
	p = be.AppendUint64(p, uint64(s.end))
	p = be.AppendUint32(p, uint32(len(ids)))
	p = be.AppendUint32(p, uint32(completed))
	p = be.AppendUint32(p, uint32(len(s.aborted)))
	for _, id := range ids {
		p = appendProducer(p, id, s.producers[id])
	}
	for _, t := range s.unstable {
		if !t.open() {
			p = appendOffsets(p, t.id, t.first, t.marker)
		}
	}
	for _, t := range s.aborted {
		p = be.AppendUint64(appendOffsets(p, t.ProducerID, t.First, t.Last), uint64(t.LastStable))
	}
	return be.AppendUint32(p, crc32.Checksum(p, castagnoli))
}

func appendProducer(p []byte, id record.ProducerID, e *entry) []byte {
	be := binary.BigEndian
	p = be.AppendUint64(p, uint64(id))
	p = be.AppendUint16(p, uint16(e.epoch))
	p = be.AppendUint32(p, uint32(e.coordinatorEpoch))
	p = be.AppendUint64(p, uint64(e.activeMs))
	p = be.AppendUint64(p, uint64(e.txnFirst))
	p = append(p, byte(e.count))
	for _, w := range e.window[:e.count] {
		p = be.AppendUint32(p, uint32(w.firstSeq))
		p = be.AppendUint32(p, uint32(w.lastSeq))
		p = be.AppendUint64(p, uint64(w.base))
		p = be.AppendUint64(p, uint64(w.next))
		p = be.AppendUint64(p, uint64(w.appendTimeMs))
	}
	return p
}

func appendOffsets(p []byte, id record.ProducerID, first, last record.Offset) []byte {
	p = binary.BigEndian.AppendUint64(p, uint64(id))
	p = binary.BigEndian.AppendUint64(p, uint64(first))
	return binary.BigEndian.AppendUint64(p, uint64(last))
}

// Restore replaces the state by the one of a snapshot; the expiration time stays. An empty p is the empty state, as a
// segment without producers has it. On error (ErrCorrupt, ErrVersion) the state is unchanged.
func (s *State) Restore(p []byte) error {
	n := New(s.expirationMs)
	if len(p) > 0 {
		if err := n.decode(p); err != nil {
			return err
		}
	}
	*s = *n
	return nil
}

func (s *State) decode(p []byte) error {
	be := binary.BigEndian
	if len(p) < headerSize+crcSize || string(p[:4]) != snapshotMagic {
		return fmt.Errorf("%w: no header", ErrCorrupt)
	}
	if p[4] != snapshotVersion {
		return fmt.Errorf("%w: %d, known is %d", ErrVersion, p[4], snapshotVersion)
	}
	body := p[:len(p)-crcSize]
	if sum := crc32.Checksum(body, castagnoli); sum != be.Uint32(p[len(body):]) {
		return fmt.Errorf("%w: CRC-32C is %08x", ErrCorrupt, sum)
	}
	if p[5]|p[6]|p[7] != 0 {
		return fmt.Errorf("%w: reserved bytes are set", ErrCorrupt)
	}
	d := decoder{rest: body[headerSize:]}
	s.end = record.Offset(be.Uint64(p[8:]))
	producers, completed, aborted := be.Uint32(p[16:]), be.Uint32(p[20:]), be.Uint32(p[24:])
	// Counts are compared with the bytes there are before anything is allocated for them.
	if uint64(producers)*producerSize+uint64(completed)*completedSize+uint64(aborted)*abortedSize > uint64(len(d.rest)) {
		return fmt.Errorf("%w: %d producers, %d completed, %d aborted in %d bytes", ErrCorrupt, producers, completed, aborted, len(p))
	}
	s.decodeProducers(&d, int(producers))
	s.decodeCompleted(&d, int(completed))
	s.decodeAborted(&d, int(aborted))
	if d.bad || len(d.rest) != 0 || s.end < 0 {
		return fmt.Errorf("%w: fields out of range", ErrCorrupt)
	}
	return nil
}

func (s *State) decodeProducers(d *decoder, n int) {
	last := record.NoProducer
	for range n {
		id := record.ProducerID(d.int64())
		e := &entry{epoch: record.ProducerEpoch(d.int16()), coordinatorEpoch: d.int32(), activeMs: d.int64(),
			txnFirst: record.Offset(d.int64()), count: int(d.int8())}
		d.check(id > last && e.epoch >= 0 && e.txnFirst >= noOffset && e.txnFirst < max(s.end, 0) && uint(e.count) <= Window)
		if d.bad {
			return
		}
		for i := range e.count {
			w := batch{d.int32(), d.int32(), record.Offset(d.int64()), record.Offset(d.int64()), d.int64()}
			d.check(w.firstSeq >= 0 && w.lastSeq >= 0 && w.base >= 0 && w.base < w.next && w.next <= s.end)
			d.check(i == 0 || w.base >= e.window[i-1].next)
			e.window[i] = w
		}
		s.producers[id] = e
		if e.txnFirst != noOffset {
			s.begin(id, e.txnFirst)
		}
		last = id
	}
}

func (s *State) decodeCompleted(d *decoder, n int) {
	last := noOffset
	for range n {
		t := txn{record.ProducerID(d.int64()), record.Offset(d.int64()), record.Offset(d.int64())}
		d.check(t.id >= 0 && t.first > last && t.marker > t.first && t.marker < s.end)
		if s.firstMarker == noOffset || t.marker < s.firstMarker {
			s.firstMarker = t.marker
		}
		s.unstable = append(s.unstable, t)
		last = t.first
	}
	slices.SortFunc(s.unstable, func(a, b txn) int { return cmp.Compare(a.first, b.first) })
	for i := 1; i < len(s.unstable); i++ {
		d.check(s.unstable[i-1].first < s.unstable[i].first)
	}
}

func (s *State) decodeAborted(d *decoder, n int) {
	last := noOffset
	for range n {
		t := record.AbortedTxn{ProducerID: record.ProducerID(d.int64()), First: record.Offset(d.int64()),
			Last: record.Offset(d.int64()), LastStable: record.Offset(d.int64())}
		d.check(t.ProducerID >= 0 && t.First >= 0 && t.Last > t.First && t.Last > last && t.Last < s.end)
		d.check(t.LastStable >= 0 && t.LastStable <= t.Last+1)
		s.aborted = append(s.aborted, t)
		last = t.Last
	}
}

// decoder reads integers; after the end of the bytes it reads zeros and is bad.
type decoder struct {
	rest []byte
	bad  bool
}

func (d *decoder) check(ok bool) { d.bad = d.bad || !ok }

func (d *decoder) uint(n int) (v uint64) {
	if len(d.rest) < n {
		d.bad, d.rest = true, nil
		return 0
	}
	for _, c := range d.rest[:n] {
		v = v<<8 | uint64(c)
	}
	d.rest = d.rest[n:]
	return v
}

func (d *decoder) int8() int8   { return int8(d.uint(1)) }
func (d *decoder) int16() int16 { return int16(d.uint(2)) }
func (d *decoder) int32() int32 { return int32(d.uint(4)) }
func (d *decoder) int64() int64 { return int64(d.uint(8)) }
