package controller

import (
	"slices"
	"strings"

	"github.com/everlog/everlog/cluster/metadata"
)

// spread orders brokers so that neighbours are in different racks as far as that goes: round robin over the racks.
func spread(brokers []*metadata.Broker) []*metadata.Broker {
	racks := map[string][]*metadata.Broker{}
	var names []string
	for _, b := range brokers {
		if racks[b.Rack] == nil {
			names = append(names, b.Rack)
		}
		racks[b.Rack] = append(racks[b.Rack], b)
	}
	slices.Sort(names)
	var order []*metadata.Broker
	for i := 0; len(order) < len(brokers); i++ {
		for _, n := range names {
			if i < len(racks[n]) {
				order = append(order, racks[n][i])
			}
		}
	}
	return order
}

// place chooses replicas for count partitions: leaders take turns from first on, followers come after their leader, in
// other racks before the same one, and shift with every round so that a dead leader's load is shared by all. Pure. There
// must be at least factor brokers.
func place(brokers []*metadata.Broker, first, count, factor int) [][]int32 {
	order := spread(brokers)
	n := len(order)
	assignment := make([][]int32, count)
	for p := range assignment {
		lead := (first + p) % n
		shift := (first + p) / n
		used := map[string]bool{order[lead].Rack: true}
		replicas := []int32{order[lead].ID}
		for _, fresh := range []bool{true, false} { // racks without a replica first, then whatever is left
			for k := 0; k < n-1 && len(replicas) < factor; k++ {
				b := order[(lead+1+(k+shift)%(n-1))%n]
				if slices.Contains(replicas, b.ID) || fresh && used[b.Rack] {
					continue
				}
				used[b.Rack] = true
				replicas = append(replicas, b.ID)
			}
		}
		assignment[p] = replicas
	}
	return assignment
}

// ValidateTopicName applies Kafka's rules for topic names; ErrInvalidTopicName.
func ValidateTopicName(name string) error {
	const maxLength = 249
	switch {
	case name == "":
		return refuse(ErrInvalidTopicName, "Topic name is invalid: the empty string is not allowed")
	case name == "." || name == "..":
		return refuse(ErrInvalidTopicName, "Topic name is invalid: '.' or '..' is not allowed")
	case len(name) > maxLength:
		return refuse(ErrInvalidTopicName, "Topic name is invalid: the length of '%s' is longer than the max allowed length %d", name, maxLength)
	}
	for _, r := range name {
		if (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune("._-", r) {
			return refuse(ErrInvalidTopicName, "Topic name is invalid: '%s' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'", name)
		}
	}
	return nil
}

// collision returns a topic whose name differs only by '.' for '_': metric names cannot tell the two apart.
func collision(img *metadata.Image, name string) *metadata.Topic {
	if !strings.ContainsAny(name, "._") {
		return nil
	}
	plain := strings.ReplaceAll(name, ".", "_")
	for t := range img.Topics() {
		if len(t.Name) == len(name) && t.Name != name && strings.ReplaceAll(t.Name, ".", "_") == plain {
			return t
		}
	}
	return nil
}
