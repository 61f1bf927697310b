package cache

import (
	"hash/maphash"
	"time"
)

// ghost remembers the newest keys that left the memory tier without having been read again, by hash: a block that comes
// back after all was worth keeping. A collision only keeps a block that was not.
type ghost struct {
	capacity int
	seed     maphash.Seed
	left     map[uint64]time.Time
	ring     []uint64
	oldest   int // in ring, once it is full
}

func newGhost(capacity int) *ghost {
	return &ghost{capacity: capacity, seed: maphash.MakeSeed(), left: map[uint64]time.Time{}}
}

// add remembers k, and forgets the oldest beyond the capacity.
func (g *ghost) add(k key, now time.Time) {
	h := maphash.Comparable(g.seed, k)
	_, known := g.left[h]
	g.left[h] = now
	switch {
	case known:
	case len(g.ring) < g.capacity:
		g.ring = append(g.ring, h)
	default:
		delete(g.left, g.ring[g.oldest])
		g.ring[g.oldest] = h
		g.oldest = (g.oldest + 1) % g.capacity
	}
}

// has reports whether k left long enough ago not to be wanted by a straggler of the readers that had it before.
func (g *ghost) has(k key, now time.Time) bool {
	left, known := g.left[maphash.Comparable(g.seed, k)]
	return known && now.Sub(left) >= correlated
}
