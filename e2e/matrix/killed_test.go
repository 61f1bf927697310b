package matrix

import (
	"testing"
)

// TestBrokerKilled kills the broker with SIGKILL in the middle of each client's production and consumption. What idempotent
// producers send is there once and in order, committed offsets do not go back, and every record is consumed.
func TestBrokerKilled(t *testing.T) {
	const kills, recordsPerRound = 2, 600
	w := newWorld(t)
	var groups []*group
	var loads []*load
	for _, c := range wanted(t) {
		topic := "killed-" + c.Name
		w.createTopic(t, topic, partitions)
		loads = append(loads, w.produce(t, c, topic, 200))
		g := w.newGroup(t, c, topic)
		g.clean = false // nothing can be committed while there is no broker
		g.join()
		groups = append(groups, g)
	}
	goOn := func() {
		ends, given := make([]int64, len(loads)), make([]int, len(loads))
		for i, load := range loads {
			var err error
			if ends[i], err = w.end(t.Context(), load.topic); err != nil {
				t.Fatal(err)
			}
			given[i] = groups[i].all[0].Count("record")
		}
		for i, load := range loads {
			w.awaitEnd(t, load.topic, ends[i]+recordsPerRound)
			groups[i].all[0].AwaitCount(limit, "record", given[i]+recordsPerRound)
		}
	}
	goOn()
	for range kills {
		w.Kill()
		w.Restart()
		goOn()
	}
	for i, g := range groups {
		t.Run(g.client.Name, func(t *testing.T) { g.endKilled(t, loads[i]) })
	}
}

func (g *group) endKilled(t *testing.T, l *load) {
	g.t, l.t = t, t
	logs := l.finish()
	g.check(logs)
	g.w.awaitCommitted(t, g.name, g.topic)
	g.all[0].Leave()
	ledger, _ := g.ledger()
	twice := 0
	for _, offsets := range ledger.seen() {
		for _, n := range offsets {
			twice += n - 1
		}
	}
	t.Logf("%d records, %d delivered again", l.sent(), twice)
}
