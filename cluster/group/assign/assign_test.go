package assign

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func topic(n, partitions int) Topic {
	return Topic{ID: TopicID{14: byte(n >> 8), 15: byte(n)}, Partitions: int32(partitions)}
}

// genSpec makes a spec of up to 8 topics and 12 members, with arbitrary current assignments.
func genSpec(t *rapid.T, homogeneous bool) Spec {
	var s Spec
	for i := range rapid.IntRange(0, 8).Draw(t, "topics") {
		s.Topics = append(s.Topics, topic(i, rapid.IntRange(0, 10).Draw(t, "partitions")))
	}
	subscription := func() []int {
		var out []int
		for i := range s.Topics {
			if rapid.Bool().Draw(t, "subscribed") {
				out = append(out, i)
			}
		}
		return out
	}
	all := subscription()
	for i := range rapid.IntRange(1, 12).Draw(t, "members") {
		m := Member{ID: fmt.Sprintf("m%02d", i), Topics: all}
		if !homogeneous {
			m.Topics = subscription()
		}
		if rapid.IntRange(0, 3).Draw(t, "static") == 0 {
			m.Instance = fmt.Sprintf("i%02d", rapid.IntRange(0, 99).Draw(t, "instance"))
		}
		s.Members = append(s.Members, m)
	}
	for i := range s.Members {
		s.Members[i].Current = genCurrent(t)
	}
	return s
}

// genCurrent is any assignment, with topics and partitions that are not there, and some that others have too.
func genCurrent(t *rapid.T) Partitions {
	p := Partitions{}
	for range rapid.IntRange(0, 5).Draw(t, "current") {
		id := topic(rapid.IntRange(0, 9).Draw(t, "topic"), 0).ID
		p[id] = append(p[id], int32(rapid.IntRange(0, 12).Draw(t, "partition")))
	}
	for id := range p {
		slices.Sort(p[id])
		p[id] = slices.Compact(p[id])
	}
	return p
}

// checkComplete: every partition with a subscriber is with exactly one of them, and there is nothing else.
func checkComplete(t *rapid.T, s Spec, got []Partitions) {
	if len(got) != len(s.Members) {
		t.Fatalf("%d assignments for %d members", len(got), len(s.Members))
	}
	type tp struct {
		t TopicID
		p int32
	}
	owners := map[tp]int{}
	for m, parts := range got {
		for id, list := range parts {
			if len(list) == 0 || !slices.IsSorted(list) {
				t.Fatalf("member %d has %v of a topic", m, list)
			}
			if !slices.ContainsFunc(s.Members[m].Topics, func(i int) bool { return s.Topics[i].ID == id }) {
				t.Fatalf("member %d has a topic that it does not subscribe to", m)
			}
			for _, p := range list {
				if o, ok := owners[tp{id, p}]; ok {
					t.Fatalf("partition %d of %x is with %d and %d", p, id, o, m)
				}
				owners[tp{id, p}] = m
			}
		}
	}
	want := 0
	for i, topic := range s.Topics {
		if slices.ContainsFunc(s.Members, func(m Member) bool { return slices.Contains(m.Topics, i) }) {
			want += int(topic.Partitions)
			for p := range topic.Partitions {
				if _, ok := owners[tp{topic.ID, p}]; !ok {
					t.Fatalf("partition %d of %x is with nobody", p, topic.ID)
				}
			}
		}
	}
	if len(owners) != want {
		t.Fatalf("%d partitions assigned, there are %d", len(owners), want)
	}
}

// kept counts the partitions that members have now and had before.
func kept(s Spec, got []Partitions) int {
	n := 0
	for m := range got {
		for id, list := range got[m] {
			for _, p := range list {
				if slices.Contains(s.Members[m].Current[id], p) {
					n++
				}
			}
		}
	}
	return n
}

// after is the spec with what was assigned as the current assignment.
func after(s Spec, got []Partitions) Spec {
	s.Members = slices.Clone(s.Members)
	for i := range s.Members {
		s.Members[i].Current = got[i]
	}
	return s
}

func TestUniformBalancesEqualSubscriptions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSpec(t, true)
		got := Uniform(s)
		checkComplete(t, s, got)
		lo, hi := got[0].Len(), got[0].Len()
		for _, p := range got {
			lo, hi = min(lo, p.Len()), max(hi, p.Len())
		}
		if hi > lo+1 {
			t.Fatalf("members have from %d to %d partitions", lo, hi)
		}
	})
}

func TestUniformBalancesDifferentSubscriptions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSpec(t, false)
		got := Uniform(s)
		checkComplete(t, s, got)
		for a, parts := range got {
			for id := range parts {
				for b, m := range s.Members {
					subscribes := slices.ContainsFunc(m.Topics, func(i int) bool { return s.Topics[i].ID == id })
					if subscribes && got[b].Len() < parts.Len()-1 {
						t.Fatalf("member %d has %d partitions, some of %x; %d, who subscribes too, has %d", a, parts.Len(), id, b, got[b].Len())
					}
				}
			}
		}
	})
}

func TestUniformChangesNothingWithoutNeed(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSpec(t, rapid.Bool().Draw(t, "homogeneous"))
		got := Uniform(s)
		again := Uniform(after(s, got))
		for i := range got {
			if !got[i].Equal(again[i]) {
				t.Fatalf("member %d has %v, and the next time %v", i, got[i], again[i])
			}
		}
	})
}

// With equal subscriptions the most that can stay is known: each member keeps up to its count, and of the possible counts
// those are best that give the odd ones to who has more.
func TestUniformMovesNoMoreThanItMust(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSpec(t, true)
		for i := range s.Members { // begin balanced, without partitions that two have
			s.Members[i].Current = nil
		}
		s = after(s, Uniform(s))
		if rapid.Bool().Draw(t, "leave") && len(s.Members) > 1 {
			gone := rapid.IntRange(0, len(s.Members)-1).Draw(t, "who")
			s.Members = slices.Delete(slices.Clone(s.Members), gone, gone+1)
		}
		for range rapid.IntRange(0, 3).Draw(t, "join") {
			s.Members = append(s.Members, Member{ID: fmt.Sprintf("n%d", len(s.Members)), Topics: s.Members[0].Topics})
		}
		for i := range s.Topics {
			s.Topics[i].Partitions += int32(rapid.IntRange(-1, 2).Draw(t, "growth"))
			s.Topics[i].Partitions = max(s.Topics[i].Partitions, 0)
		}
		got := Uniform(s)
		checkComplete(t, s, got)
		if n, most := kept(s, got), mostKept(s); n != most {
			t.Fatalf("%d partitions stayed, %d could", n, most)
		}
	})
}

func mostKept(s Spec) int {
	total := 0
	for _, i := range s.Members[0].Topics {
		total += int(s.Topics[i].Partitions)
	}
	base, odd, stay := total/len(s.Members), total%len(s.Members), 0
	for _, m := range s.Members {
		has := 0
		for _, i := range m.Topics {
			for _, p := range m.Current[s.Topics[i].ID] {
				if p < s.Topics[i].Partitions {
					has++
				}
			}
		}
		stay += min(has, base)
		if has > base && odd > 0 {
			stay++
			odd--
		}
	}
	return stay
}

func TestANewMemberGetsSomeOfEachTopic(t *testing.T) {
	s := Spec{Topics: []Topic{topic(1, 4), topic(2, 4)}, Members: []Member{{ID: "a", Topics: []int{0, 1}}}}
	s = after(s, Uniform(s))
	s.Members = append(s.Members, Member{ID: "b", Topics: []int{0, 1}})
	got := Uniform(s)
	for _, topic := range s.Topics {
		if n := len(got[1][topic.ID]); n != 2 {
			t.Errorf("it has %d partitions of a topic of 4", n)
		}
	}
}

func TestRangeIsCoPartitioned(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := genSpec(t, rapid.Bool().Draw(t, "homogeneous"))
		got := Range(s)
		checkComplete(t, s, got)
		for m, parts := range got {
			for _, list := range parts {
				if int(list[len(list)-1]-list[0]) != len(list)-1 {
					t.Fatalf("member %d has %v, which is no run", m, list)
				}
			}
		}
		for i := range s.Topics {
			for j := range s.Topics[:i] {
				if s.Topics[i].Partitions != s.Topics[j].Partitions || !sameSubscribers(s, i, j) {
					continue
				}
				for m := range got {
					if a, b := got[m][s.Topics[i].ID], got[m][s.Topics[j].ID]; !slices.Equal(a, b) {
						t.Fatalf("member %d has %v of one topic and %v of another like it", m, a, b)
					}
				}
			}
		}
	})
}

func sameSubscribers(s Spec, i, j int) bool {
	for _, m := range s.Members {
		if slices.Contains(m.Topics, i) != slices.Contains(m.Topics, j) {
			return false
		}
	}
	return true
}

// Kafka's order: static members by instance id, then dynamic ones by member id; the first get the odd partitions.
func TestRangeOrder(t *testing.T) {
	s := Spec{Topics: []Topic{topic(1, 7)}}
	for _, m := range []Member{{ID: "a"}, {ID: "b", Instance: "z"}, {ID: "c"}, {ID: "d", Instance: "y"}} {
		m.Topics = []int{0}
		s.Members = append(s.Members, m)
	}
	got := fmt.Sprint(Range(s)[0][s.Topics[0].ID], Range(s)[1][s.Topics[0].ID], Range(s)[2][s.Topics[0].ID], Range(s)[3][s.Topics[0].ID])
	if want := "[4 5] [2 3] [6] [0 1]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestByName(t *testing.T) {
	if ByName("uniform") == nil || ByName("range") == nil || ByName("sticky") != nil {
		t.Error("the assignors are uniform and range")
	}
}

// 1,000 members, 2,000 partitions: the rebalance when a member joins.
func BenchmarkAssign(b *testing.B) {
	for _, topics := range []int{1, 20, 2000} {
		for _, kind := range []string{"same", "mixed"} {
			s := benchSpec(topics, 2000/topics, 1000, kind == "mixed")
			for _, name := range []string{UniformName, RangeName} {
				assign := ByName(name)
				b.Run(fmt.Sprintf("%s/topics=%d/%s/first", name, topics, kind), func(b *testing.B) {
					for b.Loop() {
						assign(s)
					}
				})
				joined := after(s, assign(s))
				joined.Members = append(joined.Members, Member{ID: "new", Topics: s.Members[0].Topics})
				b.Run(fmt.Sprintf("%s/topics=%d/%s/join", name, topics, kind), func(b *testing.B) {
					for b.Loop() {
						assign(joined)
					}
				})
			}
		}
	}
}

func benchSpec(topics, partitions, members int, mixed bool) Spec {
	var s Spec
	var all []int
	for i := range topics {
		s.Topics = append(s.Topics, topic(i, partitions))
		all = append(all, i)
	}
	for i := range members {
		m := Member{ID: fmt.Sprintf("m%04d", i), Topics: all}
		if mixed && topics > 1 {
			m.Topics = slices.Clone(all)
			m.Topics = slices.Delete(m.Topics, i%topics, i%topics+1)
		}
		s.Members = append(s.Members, m)
	}
	return s
}
