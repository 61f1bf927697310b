package exactlyonce

import "testing"

// The checks must see what they are for.

func log(values ...string) map[int32][]record {
	out := map[int32][]record{}
	for i, v := range values {
		out[0] = append(out[0], record{offset: int64(i), value: v})
	}
	return out
}

func TestCopyIsHeldAgainstTheInput(t *testing.T) {
	p := &pipeline{output: "out"}
	in := log("0:a", "1:b", "2:a")
	for name, out := range map[string]map[int32][]record{
		"lost": log("0:a", "2:a"), "lost at the end": log("0:a", "1:b"), "twice": log("0:a", "1:b", "1:b", "2:a"),
		"out of order": log("1:b", "0:a", "2:a"), "foreign": log("0:a", "1:b", "2:a", "9:z"),
	} {
		if isCopy(p, in, out) == nil {
			t.Errorf("%s: taken for a copy", name)
		}
	}
	if err := isCopy(p, in, log("0:a", "1:b", "2:a")); err != nil {
		t.Error(err)
	}
}

func TestCountsAreHeldAgainstTheInput(t *testing.T) {
	p := &pipeline{output: "out"}
	in := log("0:a", "1:b", "2:a")
	count := func(pairs ...string) map[int32][]record {
		out := map[int32][]record{}
		for i := 0; i < len(pairs); i += 2 {
			out[0] = append(out[0], record{key: pairs[i], value: pairs[i+1]})
		}
		return out
	}
	for name, out := range map[string]map[int32][]record{
		"twice": count("a", "1", "b", "1", "a", "2", "a", "3"), "again": count("a", "1", "b", "1", "b", "1", "a", "2"),
		"lost": count("a", "1", "a", "2"), "jumps": count("a", "2", "b", "1"),
	} {
		if isCount(p, in, out) == nil {
			t.Errorf("%s: taken for the counts", name)
		}
	}
	if err := isCount(p, in, count("b", "1", "a", "1", "a", "2")); err != nil {
		t.Error(err)
	}
}

func TestReadingsAreCompared(t *testing.T) {
	if same("x", log("a", "b"), log("a", "c")) == nil || same("x", log("a", "b"), log("a")) == nil || same("x", log("a"), log("a")) != nil {
		t.Error("two readings that differ are taken for one")
	}
}
