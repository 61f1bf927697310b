package consumer

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
)

// episode is how many random steps a run has before it comes to rest.
const episode = 400

// TestSafety drives groups with clients that lose requests and answers, crash, come back, change what they subscribe to,
// speak either protocol, while topics come, go and grow, time passes and the group is loaded again from its log, which
// compaction may have been at. At every step no partition is with two clients, what a client has is the group's knowledge,
// and epochs only grow; a group from the log is the group that wrote it. When all is quiet everybody has the target.
//
// EVERLOG_CONSUMER_STEPS makes it longer, EVERLOG_CONSUMER_SEED is where it begins.
func TestSafety(t *testing.T) {
	steps, seed := number(t, "EVERLOG_CONSUMER_STEPS", 20_000), uint64(number(t, "EVERLOG_CONSUMER_SEED", 1))
	total := map[string]int{}
	for done := 0; done < steps; done += episode {
		s, failed := simulate(seed, nil)
		if failed != "" {
			var lines []string
			simulate(seed, func(line string) { lines = append(lines, line) })
			t.Fatalf("EVERLOG_CONSUMER_SEED=%d: %s\n%s", seed, failed, strings.Join(lines[max(0, len(lines)-60):], "\n"))
		}
		for what, n := range s.counts {
			total[what] += n
		}
		seed++
	}
	for _, what := range []string{"assigned", "revoked", "unreleased", "lost answer taken", "fenced", "removed by time", "came back", "loaded", "compacted",
		"classic assigned", "rebalance in progress", "topic deleted"} {
		if total[what] < steps/4000 {
			t.Errorf("%q happened %d times: the test does not reach what it should", what, total[what])
		}
	}
	t.Log(steps, "steps:", total)
}

func number(t *testing.T, env string, otherwise int) int {
	s := os.Getenv(env)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// failure ends a simulation.
type failure string

func simulate(seed uint64, trace func(string)) (s *sim, failed string) {
	defer func() {
		if r := recover(); r != nil {
			f, ok := r.(failure)
			if !ok {
				panic(fmt.Sprintf("EVERLOG_CONSUMER_SEED=%d: %v", seed, r))
			}
			failed = string(f)
		}
	}()
	s = newSim(seed, trace)
	for range episode {
		s.step()
		s.check()
	}
	s.rest()
	return s, ""
}

// check is what holds at any time.
func (s *sim) check() {
	g := s.g
	holder := map[tp]*actor{}
	for _, a := range s.actors {
		for p := range a.has {
			if o := holder[p]; o != nil {
				s.fail("%v is with %s and %s", p, o.id, a.id)
			}
			holder[p] = a
			if o := g.owner(p.topic, p.partition); o != a.id {
				s.fail("%v is with %s, the group thinks with %q", p, a.id, o)
			}
		}
	}
	given := map[tp]string{}
	for id, m := range g.members {
		for _, o := range []owned{m.assigned, m.revoking} {
			for t, parts := range o {
				for n := range parts {
					p := tp{t, n}
					if given[p] != "" {
						s.fail("%v is given to %s and %s", p, given[p], id)
					}
					given[p] = id
				}
			}
		}
		if was, ok := s.epochs[id]; ok && m.epoch < was && m.epoch > 0 {
			s.fail("the epoch of %s went from %d to %d", id, was, m.epoch)
		}
		if s.epochs[id] = m.epoch; m.epoch > g.targetEpoch {
			s.fail("%s is in epoch %d, the target in %d", id, m.epoch, g.targetEpoch)
		}
	}
	if g.epoch < s.epoch || g.targetEpoch < s.targetEpoch || g.targetEpoch > g.epoch {
		s.fail("epochs went from %d, %d to %d, %d", s.epoch, s.targetEpoch, g.epoch, g.targetEpoch)
	}
	s.epoch, s.targetEpoch = g.epoch, g.targetEpoch
	if len(g.members) > 0 && g.topicsHash(s.topics) != g.hash && g.reregex.IsZero() {
		s.fail("the group does not know its topics")
	}
}

// rest lets everything come to an end: no losses, time passes. Then all have the target, and the target has all.
func (s *sim) rest() {
	s.quiet = true
	for range 120 {
		s.pass(1)
		for _, a := range s.actors {
			a.revoke()
			a.talk()
			s.check()
		}
	}
	if len(s.actors) == 0 {
		return
	}
	if st := s.g.State(); st != "Stable" {
		s.fail("at rest the group is %s", st)
	}
	all := 0
	for _, a := range s.actors {
		target := s.g.target[a.id]
		if all += len(a.has); target.Len() != len(a.has) {
			s.fail("at rest %s has %v, its target is %v", a.id, a.has, target)
		}
		for p := range a.has { // check has compared who with the group
			if a.epoch != s.g.epoch {
				s.fail("at rest %s with %v is in epoch %d of %d", a.id, p, a.epoch, s.g.epoch)
			}
		}
	}
	want := 0
	for name, t := range s.topics.byName {
		if s.g.Subscribed(name) {
			want += int(t.partitions)
		}
	}
	if all != want {
		s.fail("at rest %d of %d partitions are with somebody", all, want)
	}
}

// dump is all that is in the log, and what is derived from it.
func (g *Group) dump() string {
	var b strings.Builder
	fmt.Fprintln(&b, g.epoch, g.hash, g.targetEpoch, g.targetTime, g.hasPartitionMetadata, g.dead)
	for _, id := range g.memberIDs() {
		m := g.members[id]
		fmt.Fprintf(&b, "%s %x %x\n", id, m.encodeMetadata(), m.encodeAssignment())
		fmt.Fprintf(&b, "  target %v %t\n", g.target[id], g.target[id] != nil)
	}
	for _, r := range sortedKeys(g.resolved) {
		fmt.Fprintln(&b, r, sortedKeys(g.resolved[r].topics))
	}
	fmt.Fprintln(&b, len(g.target), g.instances, g.owners, g.names, g.regexes, g.assignors, g.classicCount, g.classicProtocols)
	return b.String()
}
