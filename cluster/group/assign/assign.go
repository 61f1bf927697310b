// Package assign computes the target assignment of a KIP-848 consumer group: the server-side assignors `uniform` and
// `range`. They are pure functions of the subscriptions, the partition counts and, for uniform, the target before.
// Who calls them, and how members get there without a partition having two owners, is cluster/group/consumer.
//
// Racks play no part: Kafka took rack awareness out of its server-side assignors in 4.0 (KIP-848 had it), and 4.3.1 still
// has none.
package assign

import "slices"

// TopicID is a topic's id.
type TopicID = [16]byte

// Partitions are partitions by topic, ascending and without duplicates; no topic is without partitions.
type Partitions map[TopicID][]int32

// Len is the number of partitions.
func (p Partitions) Len() int {
	n := 0
	for _, s := range p {
		n += len(s)
	}
	return n
}

// Equal says whether both have the same partitions.
func (p Partitions) Equal(o Partitions) bool {
	if len(p) != len(o) {
		return false
	}
	for t, s := range p {
		if !slices.Equal(s, o[t]) {
			return false
		}
	}
	return true
}

// Topic is a topic that someone subscribes to.
type Topic struct {
	ID         TopicID
	Partitions int32
}

// Member is a member of the group.
type Member struct {
	ID string
	// Instance is the id of a static member, "" for a dynamic one. range orders by it.
	Instance string
	// Topics are the subscribed topics: indexes into Spec.Topics, ascending. Members with the same subscription may share
	// the slice; that is quicker.
	Topics []int
	// Current is the member's target so far. It may have topics and partitions that are gone, and, after a migration,
	// partitions that others have too.
	Current Partitions
}

// Spec is what an assignor works on. Members are ordered by ID: the result depends on the order.
type Spec struct {
	Topics  []Topic
	Members []Member
}

// Assignor computes a target: the i-th result is for the i-th member. Every partition of a topic with subscribers is given
// to exactly one of them. It changes nothing in the spec; results share nothing with it.
type Assignor func(Spec) []Partitions

// Names of the assignors; the first is the default (group.consumer.assignors).
const (
	UniformName = "uniform"
	RangeName   = "range"
)

// ByName returns the assignor of that name, nil if there is none.
func ByName(name string) Assignor {
	switch name {
	case UniformName:
		return Uniform
	case RangeName:
		return Range
	}
	return nil
}

// homogeneous says whether all members subscribe to the same topics.
func (s Spec) homogeneous() bool {
	for _, m := range s.Members[1:] {
		if !sameSlice(m.Topics, s.Members[0].Topics) && !slices.Equal(m.Topics, s.Members[0].Topics) {
			return false
		}
	}
	return true
}

func sameSlice(a, b []int) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

// nobody owns a partition yet.
const nobody = -1

// plan is an assignment being made: the owner of each partition, numbered through all topics.
type plan struct {
	spec   Spec
	first  []int   // topic → number of its partition 0; one more at the end
	owner  []int32 // partition → index of the member, or nobody
	counts []int   // member → how many it has
}

func newPlan(s Spec) *plan {
	p := &plan{spec: s, first: make([]int, len(s.Topics)+1), counts: make([]int, len(s.Members))}
	for i, t := range s.Topics {
		p.first[i+1] = p.first[i] + int(t.Partitions)
	}
	p.owner = make([]int32, p.first[len(s.Topics)])
	for i := range p.owner {
		p.owner[i] = nobody
	}
	return p
}

// keep gives each member what it has already, if it still subscribes and the partition is there. Of several owners
// the first keeps it.
func (p *plan) keep() {
	index := make(map[TopicID]int, len(p.spec.Topics))
	for t := range p.spec.Topics {
		index[p.spec.Topics[t].ID] = t
	}
	for m := range p.spec.Members {
		member := &p.spec.Members[m]
		for id, parts := range member.Current {
			t, ok := index[id]
			if !ok {
				continue
			}
			if _, ok = slices.BinarySearch(member.Topics, t); !ok {
				continue
			}
			for _, part := range parts {
				if part >= p.spec.Topics[t].Partitions || part < 0 {
					continue
				}
				if i := p.first[t] + int(part); p.owner[i] == nobody {
					p.give(i, m)
				}
			}
		}
	}
}

// subscribers of each topic, in the order of members given.
func (s Spec) subscribers(order []int) [][]int {
	out := make([][]int, len(s.Topics))
	if s.homogeneous() {
		for _, t := range s.Members[0].Topics {
			out[t] = order
		}
		return out
	}
	counts, total := make([]int, len(s.Topics)), 0
	for i := range s.Members {
		total += len(s.Members[i].Topics)
		for _, t := range s.Members[i].Topics {
			counts[t]++
		}
	}
	all := make([]int, total)
	for t, n := range counts {
		out[t], all = all[:0:n], all[n:]
	}
	for _, m := range order {
		for _, t := range s.Members[m].Topics {
			out[t] = append(out[t], m)
		}
	}
	return out
}

// inOrder are the indexes of n members.
func inOrder(n int) []int {
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	return order
}

// give makes the member the owner of partition i, which is nobody's.
func (p *plan) give(i, member int) {
	p.owner[i] = int32(member)
	p.counts[member]++
}

// take makes partition i nobody's.
func (p *plan) take(i int) {
	p.counts[p.owner[i]]--
	p.owner[i] = nobody
}

// result turns the plan into an assignment.
func (p *plan) result() []Partitions {
	out := make([]Partitions, len(p.spec.Members))
	for m := range out {
		out[m] = Partitions{}
	}
	for t, topic := range p.spec.Topics {
		for i := p.first[t]; i < p.first[t+1]; i++ {
			if o := p.owner[i]; o != nobody {
				out[o][topic.ID] = append(out[o][topic.ID], int32(i-p.first[t]))
			}
		}
	}
	return out
}
