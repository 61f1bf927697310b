package group

import (
	"container/heap"
	"time"
)

// timer is something due at a time. It is a part of what it is for: set and stop cost the logarithm of the timers set.
type timer struct {
	at  time.Time
	pos int // in the heap, plus one; 0 is not set
	due expirer
}

// expirer does what is due when its timer has run out; the timer is not set any more then.
type expirer interface{ expire(m *Machine) }

// timers is a heap of what is due, the earliest first.
type timers []*timer

func (h timers) Len() int           { return len(h) }
func (h timers) Less(i, j int) bool { return h[i].at.Before(h[j].at) }

func (h timers) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].pos, h[j].pos = i+1, j+1
}

// Push implements heap.Interface.
func (h *timers) Push(x any) {
	t := x.(*timer)
	*h = append(*h, t)
	t.pos = len(*h)
}

// Pop implements heap.Interface.
func (h *timers) Pop() any {
	last := len(*h) - 1
	t := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	t.pos = 0
	return t
}

// set makes t due at at, whether it was set or not.
func (h *timers) set(t *timer, at time.Time) {
	t.at = at
	if t.pos == 0 {
		heap.Push(h, t)
	} else {
		heap.Fix(h, t.pos-1)
	}
}

func (h *timers) stop(t *timer) {
	if t.pos != 0 {
		heap.Remove(h, t.pos-1)
	}
}

// next takes the earliest timer that is due at now; nil if there is none.
func (h *timers) next(now time.Time) *timer {
	if len(*h) == 0 || (*h)[0].at.After(now) {
		return nil
	}
	return heap.Pop(h).(*timer)
}
