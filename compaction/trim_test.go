package compaction

import (
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/everlog/everlog/tier/record"
)

func TestPlanTrim(t *testing.T) {
	none := Retention{Unlimited, Unlimited}
	log := func(base record.Offset, n int, remoteEnd record.Offset, local Retention) LocalLog {
		return LocalLog{RemoteEnd: remoteEnd, HighWatermark: 1000, Local: local, Segments: localLog(base, n)}
	}
	for _, c := range []struct {
		name   string
		logs   []LocalLog
		budget int64
		want   []Trim
	}{
		{"nothing to do", []LocalLog{log(0, 5, 50, none)}, 500, nil},
		{"no budget", []LocalLog{log(0, 5, 50, none)}, -1, nil},
		{"over the budget by a byte", []LocalLog{log(0, 5, 50, none)}, 499, []Trim{{0, 10, 100}}},
		{"never the active segment", []LocalLog{log(0, 5, 50, none)}, 0, []Trim{{0, 40, 400}}},
		{"never what is not in the store", []LocalLog{log(0, 5, 25, none)}, 0, []Trim{{0, 20, 200}}},
		{"unknown is not zero, and not everything", []LocalLog{log(0, 5, -1, none)}, 0, nil},
		{"never above the high watermark", []LocalLog{{RemoteEnd: 50, HighWatermark: 15, Local: none, Segments: localLog(0, 5)}}, 0, []Trim{{0, 10, 100}}},
		{"the oldest first, over all logs", []LocalLog{log(20, 3, 50, none), log(0, 4, 50, none)}, 450, []Trim{{0, 30, 100}, {1, 20, 200}}},
		{"equal ages: by log", []LocalLog{log(0, 3, 50, none), log(0, 3, 50, none)}, 500, []Trim{{0, 10, 100}}},
		{"a topic's own size", []LocalLog{log(0, 5, 50, Retention{Unlimited, 300})}, -1, []Trim{{0, 20, 200}}},
		{"a topic's own time, at 130 ms", []LocalLog{log(0, 5, 50, Retention{105, Unlimited})}, -1, []Trim{{0, 20, 200}}},
		{"a topic that keeps no local copy", []LocalLog{log(0, 5, 30, Retention{0, Unlimited})}, -1, []Trim{{0, 30, 300}}},
		{"its own limit first, then the budget", []LocalLog{log(0, 5, 50, Retention{Unlimited, 300}), log(0, 3, 30, none)}, 500, []Trim{{0, 20, 200}, {1, 10, 100}}},
	} {
		if diff := cmp.Diff(c.want, PlanTrim(c.logs, c.budget, 130), cmp.Transformer("empty", func(l []Trim) []Trim { return append([]Trim{}, l...) })); diff != "" {
			t.Errorf("%s:\n%s", c.name, diff)
		}
	}
}

// TestTrimKeepsInvariant28: only what is below a committed manifest end and the high watermark goes, no more than the budget
// asks for, and the budget is met whenever it can be.
func TestTrimKeepsInvariant28(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		logs := make([]LocalLog, rapid.IntRange(1, 5).Draw(t, "logs"))
		var total, largest int64
		for i := range logs {
			n := rapid.IntRange(1, 8).Draw(t, "segments")
			logs[i] = LocalLog{RemoteEnd: record.Offset(rapid.IntRange(-1, 100).Draw(t, "remote end")),
				HighWatermark: record.Offset(rapid.IntRange(0, 100).Draw(t, "hw")), Local: Retention{Unlimited, Unlimited}, Segments: localLog(0, n)}
			for j := range logs[i].Segments {
				s := &logs[i].Segments[j]
				s.Bytes = rapid.Int64Range(1, 100).Draw(t, "bytes")
				s.MaxTimestamp = rapid.Int64Range(-1, 100).Draw(t, "time")
				total, largest = total+s.Bytes, max(largest, s.Bytes)
			}
		}
		budget := rapid.Int64Range(0, 2000).Draw(t, "budget")
		left, to := total, make([]record.Offset, len(logs))
		for _, trim := range PlanTrim(logs, budget, 1000) {
			l := logs[trim.Log]
			if trim.To > l.RemoteEnd || trim.To > l.HighWatermark {
				t.Fatalf("%+v of %+v", trim, l)
			}
			left -= trim.Bytes
			to[trim.Log] = trim.To
		}
		if total > budget && left <= budget-largest || total <= budget && left != total {
			t.Fatalf("%d of %d left with a budget of %d", left, total, budget)
		}
		for i, l := range logs {
			for _, s := range l.Segments {
				if left > budget && s.Base == to[i] && !s.Active && s.End <= min(l.RemoteEnd, l.HighWatermark) {
					t.Fatalf("%d left with a budget of %d, and %+v could go", left, budget, s)
				}
			}
		}
	})
}
