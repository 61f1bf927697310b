package manifest

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strings"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// Version is the format version of roots and pages this package writes. Readers read every version up to it.
const Version = 1

const (
	rootMagic = "everlogM"
	pageMagic = "everlogP"

	// prefixSize is what root and page begin with: magic, version, flags, partition, cluster id, topic id.
	prefixSize = 48
	rootFixed  = prefixSize + 4 + 8 + 16 + 8*3 + 4*4
	pageFixed  = prefixSize + 8*2 + 4
	crcSize    = 4

	flagDeleted = 1

	// maxRecent is how many nonces of earlier commits the root keeps: a writer whose commit was overtaken by up to so many
	// others can still tell that it happened.
	maxRecent = 32

	minEpochSize   = 2
	minPageSize    = 30
	minSegmentSize = 18
	maxObjectName  = 1024
)

// How an entry names its object.
const (
	objectUUID  = 0 // segment.ObjectName of the entry's own offsets and epoch: only the uuid is stored
	objectNamed = 1
	objectSame  = 2 // the object of the entry before
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func appendPrefix(p []byte, magic string, flags uint16, id segment.Identity) []byte {
	p = append(p, magic...)
	p = binary.BigEndian.AppendUint16(p, Version)
	p = binary.BigEndian.AppendUint16(p, flags)
	p = binary.BigEndian.AppendUint32(p, uint32(id.Partition))
	p = append(p, id.Cluster[:]...)
	return append(p, id.Topic[:]...)
}

// parsePrefix checks all that is common to roots and pages, checksum and identity included, and returns the flags and
// what follows the prefix, without the checksum.
func parsePrefix(p []byte, magic string, fixed int, id segment.Identity) (uint16, []byte, error) {
	if len(p) < fixed+crcSize || string(p[:8]) != magic {
		return 0, nil, fmt.Errorf("%w: %d bytes without the magic %s", ErrCorrupt, len(p), magic)
	}
	version, flags := binary.BigEndian.Uint16(p[8:]), binary.BigEndian.Uint16(p[10:])
	if version > Version {
		return 0, nil, fmt.Errorf("%w %d: this everlog reads up to %d, upgrade it", ErrVersion, version, Version)
	}
	body := p[:len(p)-crcSize]
	if crc32.Checksum(body, castagnoli) != binary.BigEndian.Uint32(p[len(body):]) {
		return 0, nil, fmt.Errorf("%w: checksum", ErrCorrupt)
	}
	got := identityOf(p)
	if version == 0 || got != id {
		return 0, nil, fmt.Errorf("%w: version %d of partition %d of topic %s, cluster %x", ErrCorrupt, version, got.Partition, got.Topic, got.Cluster)
	}
	return flags, body[prefixSize:], nil
}

func identityOf(p []byte) segment.Identity {
	return segment.Identity{Partition: int32(binary.BigEndian.Uint32(p[12:])), Cluster: [16]byte(p[16:]), Topic: record.TopicID(p[32:])}
}

// encode returns the root object.
func (m *Manifest) encode() []byte {
	var flags uint16
	if m.deleted {
		flags = flagDeleted
	}
	p := make([]byte, 0, rootFixed+16*len(m.recent)+6*len(m.epochs)+64*len(m.pages)+72*len(m.segments)+crcSize)
	p = appendPrefix(p, rootMagic, flags, m.id)
	p = binary.BigEndian.AppendUint32(p, uint32(m.claim))
	p = binary.BigEndian.AppendUint64(p, m.version)
	p = append(p, m.nonce[:]...)
	for _, o := range [3]record.Offset{m.logStart, m.start, m.end} {
		p = binary.BigEndian.AppendUint64(p, uint64(o))
	}
	for _, n := range [4]int{len(m.recent), len(m.epochs), len(m.pages), len(m.segments)} {
		p = binary.BigEndian.AppendUint32(p, uint32(n))
	}
	for _, n := range m.recent {
		p = append(p, n[:]...)
	}
	var last record.EpochStart
	for _, e := range m.epochs {
		p = binary.AppendUvarint(p, uint64(e.Epoch-last.Epoch))
		p = binary.AppendUvarint(p, uint64(e.Start-last.Start))
		last = e
	}
	for i := range m.pages {
		p = appendPageRef(p, &m.pages[i])
	}
	p = appendSegments(p, m.id, m.segments)
	return binary.BigEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
}

// decodeRoot reads a root object of the partition. What it allocates is bounded by about 25 times
// len(p).
func decodeRoot(p []byte, id segment.Identity, cache *PageCache) (*Manifest, error) {
	flags, p, err := parsePrefix(p, rootMagic, rootFixed, id)
	if err != nil {
		return nil, err
	}
	d := decoder{p: p}
	m := newManifest(id, cache)
	m.deleted = flags&flagDeleted != 0
	m.claim = record.LeaderEpoch(d.uint32())
	m.version = d.uint64()
	m.nonce = nonce(d.bytes(16))
	m.logStart, m.start, m.end = d.offset(), d.offset(), d.offset()
	recent, epochs, pages, segments := int64(d.uint32()), int64(d.uint32()), int64(d.uint32()), int64(d.uint32())
	if flags&^flagDeleted != 0 || recent > maxRecent || pages > MaxPages ||
		recent*16+epochs*minEpochSize+pages*minPageSize+segments*minSegmentSize > int64(len(d.p)) {
		return nil, fmt.Errorf("%w: flags %#x, %d nonces, %d epochs, %d pages and %d segments in %d bytes", ErrCorrupt, flags, recent, epochs, pages, segments, len(d.p))
	}
	for range recent {
		m.recent = append(m.recent, nonce(d.bytes(16)))
	}
	if epochs > 0 {
		m.epochs = make([]record.EpochStart, epochs)
	}
	var last record.EpochStart
	for i := range m.epochs {
		last.Epoch += record.LeaderEpoch(d.uvarint())
		last.Start += record.Offset(d.uvarint())
		m.epochs[i] = last
	}
	if pages > 0 {
		m.pages = make([]PageRef, pages)
	}
	for i := range m.pages {
		m.pages[i] = d.pageRef()
	}
	base := m.start
	if n := len(m.pages); n > 0 {
		base = m.pages[n-1].End
	}
	m.segments = d.segments(id, base, int(segments))
	if d.bad || len(d.p) != 0 {
		return nil, fmt.Errorf("%w: root sections do not end where the root does", ErrCorrupt)
	}
	return m, m.check()
}

// Parse reads a root object of whatever partition, for tools; everlog itself opens a Log. Its pages are not cached beyond
// four.
func Parse(p []byte) (*Manifest, error) {
	if len(p) < prefixSize {
		return nil, fmt.Errorf("%w: %d bytes", ErrCorrupt, len(p))
	}
	return decodeRoot(p, identityOf(p), NewPageCache(4))
}

func appendPageRef(p []byte, r *PageRef) []byte {
	p = binary.AppendUvarint(p, uint64(r.First))
	p = binary.AppendUvarint(p, uint64(r.End-r.First))
	p = binary.AppendUvarint(p, uint64(r.Epoch))
	p = append(p, r.UUID[:]...)
	p = binary.AppendUvarint(p, uint64(r.Size))
	p = binary.BigEndian.AppendUint32(p, r.CRC)
	p = binary.AppendUvarint(p, uint64(r.Count))
	p = binary.AppendUvarint(p, uint64(r.Bytes))
	p = binary.AppendUvarint(p, uint64(r.DataBytes))
	p = binary.AppendVarint(p, r.MinTimestamp)
	return binary.AppendVarint(p, r.MaxTimestamp)
}

func (d *decoder) pageRef() PageRef {
	r := PageRef{First: record.Offset(d.uvarint())}
	r.End = r.First + record.Offset(d.uvarint())
	r.Epoch = record.LeaderEpoch(d.uvarint())
	r.UUID = [16]byte(d.bytes(16))
	r.Size = int32(d.uvarint())
	r.CRC = d.uint32()
	r.Count = int32(d.uvarint())
	r.Bytes, r.DataBytes = int64(d.uvarint()), int64(d.uvarint())
	r.MinTimestamp, r.MaxTimestamp = d.varint(), d.varint()
	return r
}

// encodePage returns the page object of contiguous segments, and the reference to it, but for its uuid and epoch.
func encodePage(id segment.Identity, segments []Segment) ([]byte, PageRef) {
	r := PageRef{First: segments[0].Base, End: segments[len(segments)-1].End, Count: int32(len(segments)), MinTimestamp: -1, MaxTimestamp: -1}
	for i := range segments {
		s := &segments[i]
		r.Bytes += s.Size
		r.DataBytes += s.DataSize
		r.MaxTimestamp = max(r.MaxTimestamp, s.MaxTimestamp)
		if s.MaxTimestamp >= 0 && (r.MinTimestamp < 0 || s.MinTimestamp < r.MinTimestamp) {
			r.MinTimestamp = s.MinTimestamp
		}
	}
	p := appendPrefix(make([]byte, 0, pageFixed+72*len(segments)), pageMagic, 0, id)
	p = binary.BigEndian.AppendUint64(p, uint64(r.First))
	p = binary.BigEndian.AppendUint64(p, uint64(r.End))
	p = binary.BigEndian.AppendUint32(p, uint32(r.Count))
	p = appendSegments(p, id, segments)
	p = binary.BigEndian.AppendUint32(p, crc32.Checksum(p, castagnoli))
	r.Size, r.CRC = int32(len(p)), crc32.Checksum(p, castagnoli)
	return p, r
}

// decodePage reads the page that r refers to.
func decodePage(p []byte, id segment.Identity, r PageRef) ([]Segment, error) {
	if int64(len(p)) != int64(r.Size) || crc32.Checksum(p, castagnoli) != r.CRC {
		return nil, fmt.Errorf("%w: page of %d bytes is not the one referred to", ErrCorrupt, len(p))
	}
	flags, p, err := parsePrefix(p, pageMagic, pageFixed, id)
	if err != nil {
		return nil, err
	}
	d := decoder{p: p}
	first, end, count := d.offset(), d.offset(), int64(d.uint32())
	if flags != 0 || first != r.First || end != r.End || count != int64(r.Count) || count*minSegmentSize > int64(len(d.p)) {
		return nil, fmt.Errorf("%w: page of %d segments, [%d, %d), referred to as %d, [%d, %d)", ErrCorrupt, count, first, end, r.Count, r.First, r.End)
	}
	segments := d.segments(id, first, int(count))
	if d.bad || len(d.p) != 0 {
		return nil, fmt.Errorf("%w: page entries do not end where the page does", ErrCorrupt)
	}
	return segments, checkRun(segments, first, end)
}

// appendSegments writes entries relative to each other. They must be contiguous.
func appendSegments(p []byte, id segment.Identity, segments []Segment) []byte {
	var last Segment
	names := namer{prefix: segment.Prefix(id)}
	for i := range segments {
		s := &segments[i]
		form, uuid := names.form(s, &last, i == 0)
		p = append(p, form)
		p = binary.AppendUvarint(p, uint64(s.End-s.Base))
		p = binary.AppendVarint(p, int64(s.Epoch)-int64(last.Epoch))
		p = binary.AppendVarint(p, int64(s.FirstEpoch)-int64(last.LastEpoch))
		p = binary.AppendUvarint(p, uint64(s.LastEpoch-s.FirstEpoch))
		switch form {
		case objectUUID:
			p = append(p, uuid[:]...)
		case objectNamed:
			p = binary.AppendUvarint(p, uint64(len(s.Object)))
			p = append(p, s.Object...)
		}
		for _, v := range [6]int64{s.Position, s.Size, int64(s.FooterSize), s.DataSize, s.Records, int64(s.Aborted)} {
			p = binary.AppendUvarint(p, uint64(v))
		}
		p = binary.BigEndian.AppendUint32(p, s.CRC)
		p = binary.AppendVarint(p, s.MinTimestamp-last.MaxTimestamp)
		p = binary.AppendVarint(p, s.MaxTimestamp-s.MinTimestamp)
		latest := uint64(0) // none
		if s.MaxTimestampOffset >= s.Base {
			latest = uint64(s.MaxTimestampOffset-s.Base) + 1
		}
		p = binary.AppendUvarint(p, latest)
		last = *s
	}
	return p
}

// namer makes the names that segment.ObjectName gives.
type namer struct {
	prefix string
	buffer []byte
	ends   []int // of the names in buffer that are to be kept
}

// append makes the name of s at the end of the buffer.
func (n *namer) append(s *Segment, uuid []byte) {
	n.buffer = segment.AppendObjectName(n.buffer, n.prefix, s.Base, s.End, s.Epoch)
	n.buffer = hex.AppendEncode(n.buffer, uuid)
}

// form decides how an entry names its object.
func (n *namer) form(s, last *Segment, first bool) (form byte, uuid [16]byte) {
	if !first && s.Object == last.Object {
		return objectSame, uuid
	}
	if at := strings.LastIndexByte(s.Object, '-'); at >= 0 && len(s.Object)-at-1 == 2*len(uuid) {
		if _, err := hex.Decode(uuid[:], []byte(s.Object[at+1:])); err == nil {
			n.buffer = n.buffer[:0]
			if n.append(s, uuid[:]); string(n.buffer) == s.Object {
				return objectUUID, uuid
			}
		}
	}
	return objectNamed, uuid
}

func (d *decoder) segments(id segment.Identity, base record.Offset, n int) []Segment {
	if n == 0 || d.bad {
		return nil
	}
	segments := make([]Segment, n)
	var last Segment
	names := namer{prefix: segment.Prefix(id)}
	names.buffer = make([]byte, 0, n*(len(names.prefix)+90))
	for i := range segments {
		s := &segments[i]
		form := d.byte()
		s.Base = base
		s.End = base + record.Offset(d.uvarint())
		s.Epoch = last.Epoch + record.LeaderEpoch(d.varint())
		s.FirstEpoch = last.LastEpoch + record.LeaderEpoch(d.varint())
		s.LastEpoch = s.FirstEpoch + record.LeaderEpoch(d.uvarint())
		switch {
		case form == objectUUID && s.End > s.Base && s.Epoch >= 0:
			names.append(s, d.bytes(16))
		case form == objectNamed:
			n := d.uvarint()
			d.bad = d.bad || n == 0 || n > maxObjectName
			names.buffer = append(names.buffer, d.bytes(int(min(n, maxObjectName)))...)
		case form == objectSame && i > 0:
		default:
			d.bad = true
		}
		s.Position, s.Size, s.FooterSize = int64(d.uvarint()), int64(d.uvarint()), int32(d.uvarint())
		s.DataSize, s.Records, s.Aborted = int64(d.uvarint()), int64(d.uvarint()), int32(d.uvarint())
		s.CRC = d.uint32()
		s.MinTimestamp = last.MaxTimestamp + d.varint()
		s.MaxTimestamp = s.MinTimestamp + d.varint()
		s.MaxTimestampOffset = -1
		if latest := d.uvarint(); latest > 0 {
			s.MaxTimestampOffset = s.Base + record.Offset(latest-1)
		}
		if d.bad {
			return nil
		}
		names.ends = append(names.ends, len(names.buffer))
		base, last = s.End, *s
	}
	// All names share one string: entries of a root or page live and die together.
	text, begin := string(names.buffer), 0
	for i, end := range names.ends {
		if end == begin { // the object of the entry before
			segments[i].Object = segments[i-1].Object
			continue
		}
		segments[i].Object, begin = text[begin:end], end
	}
	return segments
}

// decoder reads a byte slice from the front and remembers whether it ran out.
type decoder struct {
	p   []byte
	bad bool
}

// bytes returns the next n bytes, or n zero bytes if there are fewer.
func (d *decoder) bytes(n int) []byte {
	if n > len(d.p) {
		d.bad = true
		d.p = nil
		return make([]byte, n)
	}
	p := d.p[:n]
	d.p = d.p[n:]
	return p
}

func (d *decoder) byte() byte            { return d.bytes(1)[0] }
func (d *decoder) uint32() uint32        { return binary.BigEndian.Uint32(d.bytes(4)) }
func (d *decoder) uint64() uint64        { return binary.BigEndian.Uint64(d.bytes(8)) }
func (d *decoder) offset() record.Offset { return record.Offset(d.uint64()) }

func (d *decoder) uvarint() uint64 {
	v, n := binary.Uvarint(d.p)
	d.skip(n)
	return v
}

func (d *decoder) varint() int64 {
	v, n := binary.Varint(d.p)
	d.skip(n)
	return v
}

// skip consumes what a varint took; n <= 0 says that there was none.
func (d *decoder) skip(n int) {
	if n <= 0 {
		d.bad = true
		d.p = nil
		return
	}
	d.p = d.p[n:]
}
