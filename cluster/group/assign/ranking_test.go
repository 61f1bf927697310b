package assign

import (
	"cmp"
	"math/rand/v2"
	"testing"
)

func TestRanking(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	value := make([]int, 40)
	before := func(a, b int) bool { return cmp.Or(cmp.Compare(value[a], value[b]), cmp.Compare(a, b)) < 0 }
	q, in := newRanking([]int{3, 1, 2}, before), map[int]bool{1: true, 2: true, 3: true}
	for range 20_000 {
		m := r.IntN(len(value))
		if in[m] && len(in) > 1 && r.IntN(4) == 0 {
			q.remove(m)
			delete(in, m)
		} else {
			value[m] = r.IntN(20)
			q.move(m)
			in[m] = true
		}
		want := -1
		for m := range in {
			if want < 0 || before(m, want) {
				want = m
			}
		}
		if got := q.top(); got != want || q.Len() != len(in) {
			t.Fatalf("%d is on top of %d, want %d of %d", got, q.Len(), want, len(in))
		}
	}
}
