package fetch

import (
	"sort"
	"sync"

	"github.com/everlog/everlog/tier/segment"
)

// layout is one remote segment: where its blocks lie in the object. It is what the block cache is asked with. Immutable.
type layout struct {
	object   string
	position int64 // of the segment in the object
	footer   *segment.Footer

	grouped sync.Once
	groups  []int32 // first block of each group
}

// Object is the object's name.
func (l *layout) Object() string { return l.object }

// Block is where block i lies in the object, and its sizes stored and decoded.
func (l *layout) Block(i int) (position int64, stored, raw int) {
	b := &l.footer.Blocks[i]
	return l.position + b.Position, int(b.Stored), int(b.Raw)
}

// Decode checks block i and returns its batches.
func (l *layout) Decode(i int, dst, stored []byte) ([]byte, error) {
	return segment.DecodeBlock(dst, stored, l.footer.Blocks[i])
}

// until is the end of the blocks from from on to read for max bytes: the first may be skipped in part.
func (l *layout) until(from, max int) int {
	to, bytes := from+1, 0
	for to < len(l.footer.Blocks) && bytes+int(l.footer.Blocks[to].Raw) <= max {
		bytes += int(l.footer.Blocks[to].Raw)
		to++
	}
	return to
}

// group returns the blocks [start, end) of the group that holds block i: as many as one GET of size raw bytes brings. The
// size of the first call counts; there is one block cache.
func (l *layout) group(i, size int) (start, end int) {
	l.grouped.Do(func() {
		bytes := 0
		for j := range l.footer.Blocks {
			raw := int(l.footer.Blocks[j].Raw)
			if bytes += raw; j == 0 || bytes > size {
				l.groups, bytes = append(l.groups, int32(j)), raw
			}
		}
	})
	g := sort.Search(len(l.groups), func(k int) bool { return int(l.groups[k]) > i })
	end = len(l.footer.Blocks)
	if g < len(l.groups) {
		end = int(l.groups[g])
	}
	return int(l.groups[g-1]), end
}

// raw is the decoded size of the blocks [from, to).
func (l *layout) raw(from, to int) int {
	n := 0
	for _, b := range l.footer.Blocks[from:to] {
		n += int(b.Raw)
	}
	return n
}

// bytes is about how much memory the layout takes.
func (l *layout) bytes() int64 {
	f := l.footer
	return int64(len(f.Blocks))*56 + int64(len(f.Epochs))*16 + int64(len(f.Aborted))*32 + int64(len(f.Producers)) + 512
}
