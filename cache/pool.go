package cache

import (
	"math/bits"
	"sync"
)

// pool lends buffers and takes them back, so that a busy cache touches no fresh memory: on virtual machines the first touch
// of a page costs more than a second of CPU a GiB. Sizes are rounded up to classes.
type pool struct {
	mu sync.Mutex
	// limit bounds lent + idle, as long as what is lent alone keeps within it.
	limit int64
	lent  int64
	idle  int64
	free  [classes][][]byte
	// fresh counts the bytes that were newly allocated.
	fresh int64
}

const (
	minClassBits = 14 // 16 KiB
	midClassBits = 19 // 512 KiB: from here on four classes to a doubling, since GETs of odd sizes should share buffers
	maxClassBits = 27 // 128 MiB; larger buffers are not kept
	perDoubling  = 8
	classes      = (maxClassBits-minClassBits)*perDoubling + 1
)

func newPool(limit int64) *pool { return &pool{limit: limit} }

// classOf returns the class of a size and the bytes of its buffers; class -1 is not kept.
func classOf(size int) (class, bytes int) {
	if size <= 1<<minClassBits {
		return 0, 1 << minClassBits
	}
	log := bits.Len(uint(size - 1)) // size is in (2^(log-1), 2^log]
	step := 1 << (log - 1) / perDoubling
	coarse := step
	if log > midClassBits {
		coarse *= 2
	}
	bytes = (size + coarse - 1) / coarse * coarse
	if log > maxClassBits {
		return -1, bytes
	}
	return (log-1-minClassBits)*perDoubling + (bytes-1<<(log-1))/step, bytes
}

// rounded is what a buffer of size takes of the budgets.
func rounded(size int) int64 {
	_, n := classOf(size)
	return int64(n)
}

// get returns a buffer of size bytes whose capacity is that of its class. Its content is arbitrary.
func (p *pool) get(size int) []byte {
	class, n := classOf(size)
	p.mu.Lock()
	if b := p.takeLocked(class); b != nil {
		p.mu.Unlock()
		return b[:size]
	}
	p.lent += int64(n)
	p.trimLocked()
	p.fresh += int64(n)
	p.mu.Unlock()
	return make([]byte, size, n)
}

// reuse returns an idle buffer of size bytes; nil if there is none. Where a new one would push others out, it may be one of
// a capacity up to half as large again, and at most most.
func (p *pool) reuse(size int, most int64) []byte {
	class, n := classOf(size)
	if class < 0 {
		return nil
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if b := p.takeLocked(class); b != nil {
		return b[:size]
	}
	if p.lent+p.idle+int64(n) <= p.limit {
		return nil
	}
	for class++; class < classes; class++ {
		if list := p.free[class]; len(list) > 0 {
			if c := cap(list[0]); c > n+n/2 || int64(c) > most {
				return nil
			}
			return p.takeLocked(class)[:size]
		}
	}
	return nil
}

// takeLocked lends an idle buffer of a class, nil if there is none.
func (p *pool) takeLocked(class int) []byte {
	if class < 0 || len(p.free[class]) == 0 {
		return nil
	}
	list := p.free[class]
	b := list[len(list)-1]
	list[len(list)-1] = nil
	p.free[class] = list[:len(list)-1]
	p.idle -= int64(cap(b))
	p.lent += int64(cap(b))
	return b
}

// trimLocked gives idle buffers to the garbage collector, largest first, until all fits the limit.
func (p *pool) trimLocked() {
	for class := classes - 1; class >= 0 && p.lent+p.idle > p.limit; class-- {
		list := p.free[class]
		for len(list) > 0 && p.lent+p.idle > p.limit {
			p.idle -= int64(cap(list[len(list)-1]))
			list[len(list)-1] = nil
			list = list[:len(list)-1]
		}
		p.free[class] = list
	}
}

// put takes a buffer of get back.
func (p *pool) put(b []byte) {
	class, n := classOf(cap(b))
	p.mu.Lock()
	defer p.mu.Unlock()
	p.lent -= int64(n)
	if class >= 0 && p.lent+p.idle+int64(n) <= p.limit {
		p.idle += int64(n)
		p.free[class] = append(p.free[class], b[:cap(b)])
	}
}

// bytes returns what is lent and what is idle.
func (p *pool) bytes() (lent, idle, fresh int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.lent, p.idle, p.fresh
}
