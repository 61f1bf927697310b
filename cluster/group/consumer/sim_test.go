package consumer

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/everlog/everlog/cluster/coordinator"
)

type tp struct {
	topic     TopicID
	partition int32
}

func (p tp) String() string {
	return fmt.Sprintf("%d-%d", int(p.topic[14])<<8|int(p.topic[15]), p.partition)
}

// sim is a group, its log, its clients and a clock.
type sim struct {
	rng    *rand.Rand
	trace  func(string)
	o      Options
	g      *Group
	log    []coordinator.Record
	topics catalog
	now    time.Time
	quiet  bool // nothing is lost

	actors []*actor
	lastID int
	counts map[string]int

	// What epochs were.
	epoch, targetEpoch int32
	epochs             map[string]int32
}

func newSim(seed uint64, trace func(string)) *sim {
	s := &sim{
		rng: rand.New(rand.NewPCG(seed, 0)), trace: trace, topics: topics(), now: start,
		counts: map[string]int{}, epochs: map[string]int32{},
	}
	s.o = Options{AssignmentInterval: []time.Duration{-1, time.Second, 3 * time.Second}[s.rng.IntN(3)], Migration: UpgradeOnly, NewID: s.newID}
	s.g = New("g", s.o)
	for range 3 {
		s.changeTopics()
	}
	return s
}

func (s *sim) newID() string {
	s.lastID++
	return fmt.Sprintf("m%d", s.lastID)
}

func (s *sim) say(format string, args ...any) {
	if s.trace != nil {
		s.trace(fmt.Sprintf("%6.1f ", s.now.Sub(start).Seconds()) + fmt.Sprintf(format, args...))
	}
}

func (s *sim) fail(format string, args ...any) { panic(failure(fmt.Sprintf(format, args...))) }

func (s *sim) chance(percent int) bool { return s.rng.IntN(100) < percent }

func (s *sim) keep(records []coordinator.Record) { s.log = append(s.log, records...) }

func (s *sim) step() {
	switch n := s.rng.IntN(100); {
	case n < 4 && len(s.actors) < 7:
		s.newActor()
	case n < 14:
		s.pass(s.rng.IntN(3))
	case n < 16:
		s.pass(s.rng.IntN(50))
	case n < 18:
		s.changeTopics()
	case n < 21:
		s.reload()
	case len(s.actors) == 0:
		s.newActor()
	case n < 23:
		s.pick().stop()
	case n < 26:
		s.pick().resubscribe()
	case n < 45:
		s.pick().revoke()
	default:
		s.pick().talk()
	}
}

func (s *sim) pick() *actor { return s.actors[s.rng.IntN(len(s.actors))] }

// pass lets seconds go by. Who is removed meanwhile has been too slow: what it has does not count any more, which it
// learns when it next talks.
func (s *sim) pass(seconds int) {
	end := s.now.Add(time.Duration(seconds)*time.Second + time.Duration(s.rng.IntN(1000))*time.Millisecond)
	for due := s.g.Deadline(); !due.IsZero() && !due.After(end); due = s.g.Deadline() {
		if due.After(s.now) {
			s.now = due
		}
		s.keep(s.g.Tick(s.topics, s.now))
		for _, a := range s.actors {
			if len(a.has) > 0 && s.g.members[a.id] == nil {
				s.say("%s is removed", a.id)
				s.counts["removed by time"]++
				a.has = map[tp]bool{}
			}
		}
		if next := s.g.Deadline(); !next.IsZero() && !next.After(s.now) {
			s.fail("the deadline %v is not past %v after a tick", next, s.now)
		}
	}
	s.now = end
}

// changeTopics makes, grows or deletes a topic.
func (s *sim) changeTopics() {
	c := s.topics.clone()
	name := fmt.Sprintf("t%d", s.rng.IntN(5))
	switch t, ok := c.byName[name]; {
	case !ok:
		s.lastID++
		c.add(name, topicID(s.lastID), int32(1+s.rng.IntN(5)))
	case s.chance(30):
		c.remove(name)
		s.counts["topic deleted"]++
		for _, a := range s.actors { // Classic clients know topics by name: one of the same name is the same to them.
			maps.DeleteFunc(a.has, func(p tp, _ bool) bool { return a.classic != notClassic && p.topic == t.id })
			maps.DeleteFunc(a.target, func(p tp, _ bool) bool { return a.classic != notClassic && p.topic == t.id })
		}
	default:
		c.add(name, t.id, t.partitions+1)
	}
	s.topics = c
	s.say("%s is %d with %d partitions", name, int(c.byName[name].id[14])<<8|int(c.byName[name].id[15]), c.byName[name].partitions)
	s.keep(s.g.TopicsChanged(c, s.now))
}

// reload replaces the group by what its log makes of it, perhaps after compaction of a part.
func (s *sim) reload() {
	if s.chance(40) {
		s.counts["compacted"]++
		n := s.rng.IntN(len(s.log) + 1)
		s.log = append(compact(s.log[:n]), s.log[n:]...)
	}
	g := New("g", s.o)
	for _, r := range s.log {
		if err := g.Replay(r.Key, r.Value); err != nil {
			s.fail("%v", err)
		}
	}
	if was, is := s.g.dump(), g.dump(); was != is {
		s.fail("the group was\n%sfrom the log it is\n%s", was, is)
	}
	s.g = g
	s.say("loaded")
	s.counts["loaded"]++
	s.keep(g.Loaded(s.topics, s.now))
}

// compact keeps the last record of each key, where it is, and tombstones.
func compact(log []coordinator.Record) []coordinator.Record {
	seen := map[string]bool{}
	var out []coordinator.Record
	for _, r := range slices.Backward(log) {
		if !seen[string(r.Key)] {
			seen[string(r.Key)] = true
			out = append(out, r)
		}
	}
	slices.Reverse(out)
	return out
}
