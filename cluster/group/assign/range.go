package assign

import (
	"cmp"
	"slices"
)

// Range gives each subscriber of a topic a run of its partitions, in the same order of members for every topic: the
// partitions of the same number of topics with as many partitions are then with the same member, which is what
// joins need. Static members come first, by instance id, then the others by member id (Kafka 4's RangeAssignor).
// It does not look at what members have.
func Range(s Spec) []Partitions {
	if len(s.Members) == 0 {
		return nil
	}
	order := inOrder(len(s.Members))
	slices.SortStableFunc(order, func(a, b int) int {
		return compareStaticFirst(&s.Members[a], &s.Members[b])
	})
	p := newPlan(s)
	for t, members := range s.subscribers(order) {
		if len(members) == 0 {
			continue
		}
		parts := int(s.Topics[t].Partitions)
		at := p.first[t]
		for k, m := range members {
			n := parts / len(members)
			if k < parts%len(members) {
				n++
			}
			for range n {
				p.give(at, m)
				at++
			}
		}
	}
	return p.result()
}

func compareStaticFirst(a, b *Member) int {
	if (a.Instance == "") != (b.Instance == "") {
		if a.Instance != "" {
			return -1
		}
		return 1
	}
	return cmp.Or(cmp.Compare(a.Instance, b.Instance), cmp.Compare(a.ID, b.ID))
}
