package vfs

import (
	"math/rand"
	"sort"
	"time"
)

// CrashClone returns what a power cut at this moment might leave: all that was synced, and of the rest each 4 KiB page, each
// change of size and each change of directory entries with probability keep, decided by rng. A page that was not kept holds
// what was synced there, or zeros. Locks and open files are gone. The Mem itself goes on unchanged.
func (m *Mem) CrashClone(rng *rand.Rand, keep float64) *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	c := &crash{rng: rng, keep: keep, copies: map[*node]*node{}, lost: map[*node]map[string]*node{}}
	for _, op := range m.pending {
		if !c.keeps() {
			continue
		}
		for _, ch := range op.changes {
			apply(c.entries(ch.dir), ch.name, ch.target)
		}
	}
	clone := NewMem()
	clone.capacity = m.capacity
	clone.root = c.copy(m.root)
	for _, n := range c.copies {
		clone.used += int64(len(n.data))
	}
	return clone
}

type crash struct {
	rng    *rand.Rand
	keep   float64
	copies map[*node]*node
	lost   map[*node]map[string]*node // entries after the crash, of directories with unsynced changes
}

// keeps decides on one unsynced thing. The extremes do not depend on the generator, so that 0 and 1 are exact.
func (c *crash) keeps() bool { return c.rng.Float64() < c.keep }

// entries returns the directory's entries after the crash, to be changed.
func (c *crash) entries(dir *node) map[string]*node {
	if c.lost[dir] == nil {
		e := make(map[string]*node, len(dir.durable))
		for name, n := range dir.durable {
			e[name] = n
		}
		c.lost[dir] = e
	}
	return c.lost[dir]
}

func (c *crash) copy(n *node) *node {
	if done := c.copies[n]; done != nil {
		return done
	}
	if !n.dir {
		f := &node{data: c.content(n), dirty: map[int64]bool{}, modified: time.Now()}
		f.synced = append([]byte(nil), f.data...)
		c.copies[n] = f
		return f
	}
	d := newDir()
	c.copies[n] = d
	entries := c.entries(n)
	for _, name := range sortedNames(entries) { // sorted: one seed, one outcome
		child := c.copy(entries[name])
		d.entries[name], d.durable[name] = child, child
	}
	return d
}

// content returns the bytes of a file after the crash.
func (c *crash) content(n *node) []byte {
	size := len(n.synced)
	if len(n.data) != size && c.keeps() {
		size = len(n.data)
		if grown := size - len(n.synced); grown > pageSize && c.rng.Intn(2) == 0 {
			size = len(n.synced) + c.rng.Intn(grown) // the size moves with the pages that were written back
		}
	}
	p := make([]byte, size)
	copy(p, n.synced)
	pages := make([]int64, 0, len(n.dirty))
	for page := range n.dirty {
		pages = append(pages, page)
	}
	sort.Slice(pages, func(i, j int) bool { return pages[i] < pages[j] })
	for _, page := range pages {
		from := int(page * pageSize)
		if !c.keeps() || from >= size {
			continue
		}
		to := min(from+pageSize, size)
		clear(p[from:to])
		if from < len(n.data) {
			copy(p[from:to], n.data[from:])
		}
	}
	return p
}
