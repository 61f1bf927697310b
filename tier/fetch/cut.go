package fetch

import (
	"fmt"
	"slices"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// take adds the batches of blocks, the first of which is block from of l, that contain offset or come after it, as many as
// o allows beside what there is already.
func (res *Result) take(l *layout, from int, blocks [][]byte, offset record.Offset, o Options) error {
	start := res.Next
	room := o.MaxBytes - res.size()
	for i, p := range blocks {
		b := &l.footer.Blocks[from+i]
		if b.First >= offset && len(p) <= room {
			res.Blocks, res.Next, room = append(res.Blocks, p), b.End, room-len(p)
			continue
		}
		part, next, err := cut(p, offset, room, o.AtLeastOne && len(res.Blocks) == 0)
		if err != nil {
			return fmt.Errorf("%w: block %d of %s: %w", segment.ErrCorrupt, from+i, l.object, err)
		}
		if len(part) > 0 {
			res.Blocks, res.Next, room = append(res.Blocks, part), next, room-len(part)
		}
		if next != b.End {
			break
		}
	}
	if n := len(l.footer.Blocks); n > 0 && res.Next == l.footer.Blocks[n-1].End {
		res.Next = l.footer.End // what compaction left out behind the last batch
	}
	if o.Committed && len(res.Blocks) > 0 {
		res.Aborted = mergeAborted(res.Aborted, l.footer, max(start, l.footer.Base), res.Next)
	}
	return nil
}

// cut returns the batches of a block from the one that contains offset, or the first after it, as many as fit into room, but
// one at least if atLeastOne; and the offset after the last of them.
func cut(block []byte, offset record.Offset, room int, atLeastOne bool) (part []byte, next record.Offset, err error) {
	start, end := -1, 0
	next = offset
	for rest := block; len(rest) > 0; {
		var b record.Batch
		if b, rest, err = record.Next(rest); err != nil {
			return nil, 0, err
		}
		if b.NextOffset() <= offset {
			continue
		}
		if start < 0 {
			start = len(block) - len(rest) - b.Size()
			end = start
		}
		if end+b.Size()-start > room && !(atLeastOne && end == start) {
			break
		}
		end += b.Size()
		next = b.NextOffset()
	}
	if start < 0 {
		return nil, next, nil
	}
	return block[start:end:end], next, nil
}

// mergeAborted adds the aborted transactions of a segment that overlap [from, to). A footer lists all that overlap its
// segment, so one that spans two segments comes twice.
func mergeAborted(known []record.AbortedTxn, f *segment.Footer, from, to record.Offset) []record.AbortedTxn {
	for _, a := range f.Aborted {
		if a.First < to && a.Last >= from && !slices.Contains(known, a) {
			known = append(known, a)
		}
	}
	slices.SortStableFunc(known, func(a, b record.AbortedTxn) int { return int(a.First - b.First) })
	return known
}
