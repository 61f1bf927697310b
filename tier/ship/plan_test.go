package ship

import (
	"testing"

	"github.com/everlog/everlog/tier/record"
)

func TestPlan(t *testing.T) {
	sealed := func(borders ...record.Offset) (list []Sealed) {
		for i := 1; i < len(borders); i++ {
			list = append(list, Sealed{Base: borders[i-1], End: borders[i]})
		}
		return list
	}
	for _, c := range []struct {
		name string
		view View
		end  record.Offset
		want string
	}{
		{"an empty log", View{}, 0, "wait"},
		{"the first segment", View{Limit: 25, Sealed: sealed(0, 10, 20, 30)}, 0, "upload segment 0 from 0"},
		{"the next one", View{Limit: 25, Sealed: sealed(0, 10, 20, 30)}, 10, "upload segment 1 from 10"},
		{"not whole below the limit", View{Limit: 25, Sealed: sealed(0, 10, 20, 30)}, 20, "wait"},
		{"the limit is exclusive, and so is the end", View{Limit: 30, Sealed: sealed(0, 10, 20, 30)}, 20, "upload segment 2 from 20"},
		{"all shipped", View{Limit: 30, Sealed: sealed(0, 10, 20, 30)}, 30, "wait"},
		{"another leader's borders: an exact cut", View{Limit: 30, Sealed: sealed(0, 10, 20, 30)}, 13, "upload segment 1 from 13"},
		{"the remote log is ahead of this replica", View{Limit: 30, Sealed: sealed(0, 10, 20, 30)}, 35, "wait"},
		{"trimmed below the remote end", View{Limit: 40, Sealed: sealed(20, 30, 40)}, 25, "upload segment 0 from 25"},
		{"deleted before it was shipped", View{LogStart: 25, Limit: 40, Sealed: sealed(20, 30, 40)}, 10, "skip to 20"},
		{"whole segments below the log start are passed over", View{LogStart: 33, Limit: 50, Sealed: sealed(10, 20, 30, 40, 50)}, 10, "skip to 30"},
		{"a skip waits for the limit as well", View{LogStart: 33, Limit: 25, Sealed: sealed(10, 20, 30, 40)}, 10, "wait"},
		{"all of it deleted: nothing to continue with", View{LogStart: 40, Limit: 40, Sealed: sealed(10, 20, 30, 40)}, 10, "wait"},
		{"records lost", View{LogStart: 5, Limit: 40, Sealed: sealed(20, 30, 40)}, 10, "broken: the local log begins at 20"},
		{"lost right behind what was deleted", View{LogStart: 19, Limit: 40, Sealed: sealed(20, 30, 40)}, 10, "broken: the local log begins at 20"},
		{"a remote log that begins later than the local one", View{LogStart: 0, Limit: 40, Sealed: sealed(0, 10, 20)}, 20, "wait"},
	} {
		if got := plan(c.view, c.end).String(); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}
