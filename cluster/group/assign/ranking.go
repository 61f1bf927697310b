package assign

import "container/heap"

// ranking is a heap of members whose order may change: the first is on top.
type ranking struct {
	members []int
	place   map[int]int // of each member in members
	before  func(a, b int) bool
}

func newRanking(members []int, before func(a, b int) bool) *ranking {
	r := &ranking{place: make(map[int]int, len(members)), before: before}
	for _, m := range members {
		r.Push(m)
	}
	heap.Init(r)
	return r
}

func (r *ranking) top() int { return r.members[0] }

// move puts a member, which may be new, where it belongs now.
func (r *ranking) move(m int) {
	if i, ok := r.place[m]; ok {
		heap.Fix(r, i)
		return
	}
	heap.Push(r, m)
}

func (r *ranking) remove(m int) { heap.Remove(r, r.place[m]) }

// Len, Less, Swap, Push and Pop implement heap.Interface.
func (r *ranking) Len() int { return len(r.members) }

func (r *ranking) Less(i, j int) bool { return r.before(r.members[i], r.members[j]) }

func (r *ranking) Swap(i, j int) {
	r.members[i], r.members[j] = r.members[j], r.members[i]
	r.place[r.members[i]], r.place[r.members[j]] = i, j
}

func (r *ranking) Push(m any) {
	r.place[m.(int)] = len(r.members)
	r.members = append(r.members, m.(int))
}

func (r *ranking) Pop() any {
	last := len(r.members) - 1
	m := r.members[last]
	r.members = r.members[:last]
	delete(r.place, m)
	return m
}
