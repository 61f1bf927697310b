package partition

import (
	"cmp"
	"io"
	"slices"
	"time"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/ship"
)

// source is the partition as its Shipper sees it.
type source struct{ *Partition }

var _ ship.Source = source{}

// shippable is the end of what may go to the object store: committed, and below every open transaction.
func (p *Partition) shippable() record.Offset {
	return min(p.View().LastStable, p.log.Durable())
}

// View returns the sealed segments that end above from, and how far they may be shipped, as of one moment.
func (p source) View(from record.Offset) ship.View {
	v := ship.View{Limit: p.shippable()}
	for _, s := range p.log.Sealed(from) {
		v.Sealed = append(v.Sealed, ship.Sealed{Base: s.Base, End: s.End, Footer: s.Footer, Open: func() (io.ReaderAt, error) {
			r, err := s.Open()
			if err != nil {
				return nil, err
			}
			return pinned{r, s}, nil
		}})
	}
	v.LogStart = record.Offset(p.logStart.Load()) // after the segments: what was trimmed before them lies below it
	return v
}

// pinned is an open segment file that Close lets go of.
type pinned struct {
	io.ReaderAt
	s interface{ Release() }
}

// Close makes pinned an io.Closer.
func (p pinned) Close() error {
	p.s.Release()
	return nil
}

// Aborted are the aborted transactions that overlap [from, to), in the order of their markers.
func (p *Partition) Aborted(from, to record.Offset) []record.AbortedTxn {
	return byMarker(p.abortedLocal(from, to))
}

// byMarker puts aborted transactions into the order that footers have them in. Readers get them by their first records.
func byMarker(list []record.AbortedTxn) []record.AbortedTxn {
	slices.SortFunc(list, func(a, b record.AbortedTxn) int { return cmp.Compare(a.Last, b.Last) })
	return list
}

// rolledAt is when the first record of a segment was appended.
type rolledAt struct {
	base    record.Offset
	created time.Time
}

// Pending is how much of the local log lies at or above from, and since when.
func (p *Partition) Pending(from record.Offset) ship.Pending {
	pending := ship.Pending{OldestMs: -1}
	sealed := p.log.Sealed(from)
	for _, s := range sealed {
		pending.Bytes += s.Size
	}
	base, created, bytes := p.log.ActiveInfo()
	if p.log.End() > base && p.log.End() > from {
		pending.Bytes += bytes
		if !created.IsZero() {
			pending.OldestMs = created.UnixMilli()
		}
	}
	if len(sealed) > 0 {
		pending.OldestMs = p.appendedAt(sealed[0].Base, sealed[0].MaxTimestamp)
	}
	return pending
}

// appendedAt is when the segment that begins at base began, in milliseconds; fallback if that was in an earlier process.
func (p *Partition) appendedAt(base record.Offset, fallback int64) int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.rolled) > 0 && p.rolled[0].base < base {
		p.rolled = p.rolled[1:]
	}
	if len(p.rolled) > 0 && p.rolled[0].base == base {
		return p.rolled[0].created.UnixMilli()
	}
	return fallback
}
