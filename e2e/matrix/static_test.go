package matrix

import (
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/everlog/everlog/e2e/drivers"
)

// staticMembers restarts a member with a group.instance.id within its session: the other one sees no rebalance, and it gets
// back what it had. When it stays away, the other one gets everything.
func staticMembers(t *testing.T, w *world, c drivers.Client, protocol string) {
	topic := "static-" + c.Name + "-" + protocol
	w.createTopic(t, topic, partitions)
	load := w.produce(t, c, topic, 200)
	g := w.newGroup(t, c, topic, "protocol="+protocol)
	// The one that is restarted has time for it; the one that stays away is given up soon.
	stays, goes := g.join("instance=stays", "session=45000"), g.join("instance=goes", "session=45000")
	var before []int32
	goes.Await(limit, "the partitions are shared", func(events []drivers.Event) error {
		before = owns(events)
		other := owns(stays.Events())
		if len(before) == 0 || len(other) == 0 || len(before)+len(other) != partitions {
			return fmt.Errorf("it has %v, the other one %v", before, other)
		}
		return nil
	})
	awaitMore(goes, 50)
	awaitMore(stays, 50)

	back := g.join("instance=goes", "session=6000", "hold=true") // started before its session counts
	back.AwaitCount(limit, "ready", 1)
	changes := countOwnership(stays)
	if protocol == "classic" {
		goes.Kill()
	} else {
		goes.Leave() // it says that it will be back: without that KIP-848 keeps its place until the session ends
	}
	back.Go()
	back.Await(limit, "it has what it had", func(events []drivers.Event) error {
		if got := owns(events); !slices.Equal(got, before) {
			return fmt.Errorf("it has %v, it had %v", got, before)
		}
		return nil
	})
	awaitMore(back, 50)
	awaitMore(stays, 50)
	if now := countOwnership(stays); now != changes {
		t.Errorf("the restart of a static member was a rebalance for the other one: %d reports of partitions before, %d after", changes, now)
	}

	back.Kill()
	g.awaitAlone(stays)
	g.check(load.finish())
	w.awaitCommitted(t, g.name, topic)
	stays.Leave()
}

// owns is what a member has after its events, sorted.
func owns(events []drivers.Event) []int32 {
	have := map[int32]bool{}
	for _, e := range events {
		switch e.Kind {
		case "assigned":
			for _, p := range numbers(e.Args[0]) {
				have[p] = true
			}
		case "revoked", "lost":
			for _, p := range numbers(e.Args[0]) {
				delete(have, p)
			}
		}
	}
	return slices.Sorted(maps.Keys(have))
}

func countOwnership(d *drivers.Driver) int {
	return d.Count("assigned") + d.Count("revoked") + d.Count("lost")
}
