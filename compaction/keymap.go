package compaction

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"

	"github.com/everlog/everlog/tier/record"
)

// KeyMap remembers the newest offset of each key in a fixed amount of memory. Keys are known by 128 bits of their SHA-256:
// two keys taken for one would lose a record, and clients choose the keys. Not safe for concurrent use.
type KeyMap struct {
	slots []keySlot
	used  int
	limit int // keys that fit: three quarters of the slots, so that probes stay short
}

// keySlot is one entry; offset+1 is stored, 0 is an empty slot.
type keySlot struct {
	hash [16]byte
	next record.Offset
}

// keySlotBytes is the memory of a slot, minKeySlots the size of the smallest map.
const (
	keySlotBytes = 24
	minKeySlots  = 64
)

// NewKeyMap returns a map for so many keys that takes at most maxBytes of memory, and so perhaps fewer keys.
func NewKeyMap(keys, maxBytes int64) *KeyMap {
	n := max(min(keys+keys/3+1, maxBytes/keySlotBytes), minKeySlots)
	return &KeyMap{slots: make([]keySlot, n), limit: int(n * 3 / 4)}
}

// Put makes o the newest offset of key if it is newer than the one known. It is false, and nothing changed, if the key is new
// and the map full.
func (m *KeyMap) Put(key []byte, o record.Offset) bool {
	s, found := m.find(key)
	if !found {
		if m.used >= m.limit {
			return false
		}
		m.used++
	}
	s.next = max(s.next, o+1)
	return true
}

// Get returns the newest offset of key; false if the key is not in the map.
func (m *KeyMap) Get(key []byte) (record.Offset, bool) {
	s, found := m.find(key)
	return s.next - 1, found
}

// Len is the number of keys.
func (m *KeyMap) Len() int { return m.used }

// find returns the key's slot. If there is none it returns an empty one, which bears the key's hash then and counts as soon
// as an offset is set.
func (m *KeyMap) find(key []byte) (s *keySlot, found bool) {
	sum := sha256.Sum256(key)
	hash := [16]byte(sum[:16])
	first, _ := bits.Mul64(binary.BigEndian.Uint64(sum[16:]), uint64(len(m.slots))) // a fair slot without a division
	for i := int(first); ; i++ {
		if i == len(m.slots) {
			i = 0
		}
		s = &m.slots[i]
		if s.next == 0 {
			s.hash = hash
			return s, false
		}
		if s.hash == hash {
			return s, true
		}
	}
}
