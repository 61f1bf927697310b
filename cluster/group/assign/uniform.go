package assign

import (
	"slices"
	"sort"
)

// Uniform gives every member as many partitions as any other, as far as the subscriptions allow, and moves as few as that
// needs. With equal subscriptions the counts differ by at most one, and no assignment of such counts keeps more
// partitions where they are. With different subscriptions nobody who subscribes to a topic has two partitions
// less than an owner of that topic's partitions. It is Kafka's `uniform` in purpose, not partition for partition.
func Uniform(s Spec) []Partitions {
	if len(s.Members) == 0 {
		return nil
	}
	p := newPlan(s)
	p.keep()
	if s.homogeneous() {
		p.uniformSame()
	} else {
		p.uniformMixed()
	}
	return p.result()
}

// uniformSame levels members that subscribe to the same topics.
func (p *plan) uniformSame() {
	topics := p.spec.Members[0].Topics
	total := 0
	for _, t := range topics {
		total += int(p.spec.Topics[t].Partitions)
	}
	limits := p.limits(total)
	p.shed(topics, limits)
	// Round robin, so that each topic is spread over the members.
	needy := make([]int, 0, len(limits))
	for m, limit := range limits {
		if p.counts[m] < limit {
			needy = append(needy, m)
		}
	}
	next := 0
	for _, t := range topics {
		for i := p.first[t]; i < p.first[t+1]; i++ {
			if p.owner[i] != nobody {
				continue
			}
			m := needy[next]
			p.give(i, m)
			if p.counts[m] == limits[m] {
				needy = slices.Delete(needy, next, next+1)
			} else {
				next++
			}
			if next == len(needy) {
				next = 0
			}
		}
	}
}

// run is what a member has of a topic: numbers of partitions, ascending.
type run []int

// shed takes from members what they have over their limits: from the topics that they have most of, the last partitions.
// So a new member gets some of each topic, not all of one.
func (p *plan) shed(topics []int, limits []int) {
	runs := make(map[int][]run)
	for _, t := range topics {
		last := map[int]int{} // member → its run of this topic
		for i := p.first[t]; i < p.first[t+1]; i++ {
			m := int(p.owner[i])
			if m == nobody || p.counts[m] <= limits[m] {
				continue
			}
			at, ok := last[m]
			if !ok {
				at = len(runs[m])
				last[m], runs[m] = at, append(runs[m], nil)
			}
			runs[m][at] = append(runs[m][at], i)
		}
	}
	for m, of := range runs {
		for _, i := range cut(of, p.counts[m]-limits[m]) {
			p.take(i)
		}
	}
}

// cut takes n partitions off the ends of the longest runs, so that what is left is as even as can be.
func cut(runs []run, n int) []int {
	over := func(length int) int {
		sum := 0
		for _, r := range runs {
			sum += max(len(r)-length, 0)
		}
		return sum
	}
	longest := 0
	for _, r := range runs {
		longest = max(longest, len(r))
	}
	// The shortest length to which all can be cut with n cuts.
	length := sort.Search(longest, func(l int) bool { return over(l) <= n })
	more := n - over(length) // these give one more
	var out []int
	for _, r := range runs {
		keep := min(len(r), length)
		if more > 0 && keep == length {
			keep--
			more--
		}
		out = append(out, r[keep:]...)
	}
	return out
}

// limits is how many of total partitions each member shall have. The odd ones go first to members that have as many:
// that keeps the most.
func (p *plan) limits(total int) []int {
	n := len(p.counts)
	limits := make([]int, n)
	odd := total % n
	for m := range limits {
		limits[m] = total / n
		if odd > 0 && p.counts[m] > limits[m] {
			limits[m]++
			odd--
		}
	}
	for m := range limits {
		if odd > 0 && limits[m] == total/n {
			limits[m]++
			odd--
		}
	}
	return limits
}

// maxPasses bounds the passes of uniformMixed. Each move makes the sum of the squares of the counts smaller, so it ends
// by itself, nearly always within a few.
const maxPasses = 1000

// uniformMixed levels members of different subscriptions.
func (p *plan) uniformMixed() {
	subscribers := p.spec.subscribers(inOrder(len(p.spec.Members)))
	// Topics with few subscribers leave no choice, so they come first.
	order := make([]int, 0, len(subscribers))
	for t := range subscribers {
		if len(subscribers[t]) > 0 {
			order = append(order, t)
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return len(subscribers[a]) - len(subscribers[b]) })
	for _, t := range order {
		p.fill(t, subscribers[t])
	}
	for range maxPasses {
		moved := false
		for _, t := range order {
			moved = p.level(t, subscribers[t]) || moved
		}
		if !moved {
			return
		}
	}
}

// fill gives the free partitions of a topic to the subscribers that have the least.
func (p *plan) fill(t int, subscribers []int) {
	var free []int
	for i := p.first[t]; i < p.first[t+1]; i++ {
		if p.owner[i] == nobody {
			free = append(free, i)
		}
	}
	if len(free) <= fewFree {
		for _, i := range free {
			p.give(i, p.poorest(subscribers))
		}
		return
	}
	h := newMinHeap(subscribers, p.counts)
	for _, i := range free {
		p.give(i, h.members[0])
		h.down(0)
	}
}

// fewFree partitions are given away quicker by looking at all subscribers for each than with a heap.
const fewFree = 4

// poorest is the member with the least partitions; the first of several.
func (p *plan) poorest(members []int) int {
	best := members[0]
	for _, m := range members {
		if p.counts[m] < p.counts[best] {
			best = m
		}
	}
	return best
}

// level moves partitions of a topic from owners with many to subscribers with at least two less. It says whether it
// moved any.
func (p *plan) level(t int, subscribers []int) bool {
	least := p.counts[p.poorest(subscribers)]
	over := false
	for i := p.first[t]; i < p.first[t+1] && !over; i++ {
		over = p.counts[p.owner[i]] >= least+2
	}
	if !over {
		return false
	}
	owned := map[int][]int{} // partitions of the topic
	for i := p.first[t]; i < p.first[t+1]; i++ {
		owner := int(p.owner[i])
		owned[owner] = append(owned[owner], i)
	}
	owners := make([]int, 0, len(owned))
	for m := range owned {
		owners = append(owners, m)
	}
	slices.Sort(owners)
	most := newRanking(owners, func(a, b int) bool { return p.counts[a] > p.counts[b] || p.counts[a] == p.counts[b] && a < b })
	fewest := newRanking(subscribers, func(a, b int) bool { return p.counts[a] < p.counts[b] || p.counts[a] == p.counts[b] && a < b })
	for {
		from, to := most.top(), fewest.top()
		if p.counts[from] < p.counts[to]+2 {
			return true
		}
		last := len(owned[from]) - 1
		i := owned[from][last]
		owned[from], owned[to] = owned[from][:last], append(owned[to], i)
		p.take(i)
		p.give(i, to)
		fewest.move(from)
		fewest.move(to)
		if last == 0 {
			most.remove(from)
		} else {
			most.move(from)
		}
		most.move(to)
	}
}

// minHeap has the member with the least partitions on top; the first of several.
type minHeap struct {
	members []int
	counts  []int // shared with the plan; only the top's may grow between calls of down
}

func newMinHeap(members, counts []int) minHeap {
	h := minHeap{slices.Clone(members), counts}
	for i := len(h.members)/2 - 1; i >= 0; i-- {
		h.down(i)
	}
	return h
}

func (h minHeap) less(i, j int) bool {
	a, b := h.members[i], h.members[j]
	return h.counts[a] < h.counts[b] || h.counts[a] == h.counts[b] && a < b
}

func (h minHeap) down(i int) {
	for {
		c := 2*i + 1
		if c >= len(h.members) {
			return
		}
		if c+1 < len(h.members) && h.less(c+1, c) {
			c++
		}
		if !h.less(c, i) {
			return
		}
		h.members[i], h.members[c] = h.members[c], h.members[i]
		i = c
	}
}
