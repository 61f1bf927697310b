package grammar

import (
	"strings"
	"testing"
	"time"
)

// now is the clock of the tests: 2026-11-25T15:00:00Z.
var now = time.Date(2026, 11, 25, 15, 0, 0, 0, time.UTC)

func ms(s string) int64 {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return t.UnixMilli()
}

// TestOffsets is the grammar as a table. The log it is resolved against holds [100, 200), one record a minute until now.
func TestOffsets(t *testing.T) {
	const never = int64(NoEnd)
	tests := []struct {
		in       string
		want     Range
		from, to int64
	}{
		{"start", Range{From: Bound{Kind: AtStart}}, 100, never},
		{"beginning", Range{From: Bound{Kind: AtStart}}, 100, never},
		{"end", Range{From: Bound{Kind: AtEnd}}, 200, never},
		{"latest", Range{From: Bound{Kind: AtEnd}}, 200, never},
		{"147", Range{From: Bound{AtOffset, 147}}, 147, never},
		{"0", Range{From: Bound{AtOffset, 0}}, 100, never},
		{"1000", Range{From: Bound{AtOffset, 1000}}, 200, never},
		{"+5", Range{From: Bound{AfterStart, 5}}, 105, never},
		{"-5", Range{From: Bound{BeforeEnd, 5}}, 195, never},
		{"-500", Range{From: Bound{BeforeEnd, 500}}, 100, never},
		{"147:190", Range{Bound{AtOffset, 147}, Bound{AtOffset, 190}}, 147, 190},
		{"147:147", Range{Bound{AtOffset, 147}, Bound{AtOffset, 147}}, 147, 147},
		{"147:", Range{From: Bound{AtOffset, 147}}, 147, never},
		{"147:end", Range{Bound{AtOffset, 147}, Bound{Kind: AtEnd}}, 147, 200},
		{"150:250", Range{Bound{AtOffset, 150}, Bound{AtOffset, 250}}, 150, 250},
		{":end", Range{Bound{Kind: AtStart}, Bound{Kind: AtEnd}}, 100, 200},
		{":147", Range{Bound{Kind: AtStart}, Bound{AtOffset, 147}}, 100, 147},
		{":7", Range{Bound{Kind: AtStart}, Bound{AtOffset, 7}}, 100, 100},
		{"start:+5", Range{Bound{Kind: AtStart}, Bound{AfterStart, 5}}, 100, 105},
		{"-9:-5", Range{Bound{BeforeEnd, 9}, Bound{BeforeEnd, 5}}, 191, 195},
		{"@2026-11-25", Range{From: Bound{AtTime, ms("2026-11-25T00:00:00Z")}}, 100, never},
		{"@2026-11-25T14:50:00Z", Range{From: Bound{AtTime, ms("2026-11-25T14:50:00Z")}}, 190, never},
		{"@2026-11-25T15:50:00+01:00", Range{From: Bound{AtTime, ms("2026-11-25T14:50:00Z")}}, 190, never},
		{"@2026-11-25T14:50", Range{From: Bound{AtTime, ms("2026-11-25T14:50:00Z")}}, 190, never},
		{"@1795618200000", Range{From: Bound{AtTime, 1795618200000}}, 190, never},
		{"@1795618200", Range{From: Bound{AtTime, 1795618200000}}, 190, never},
		{"@now", Range{From: Bound{AtTime, now.UnixMilli()}}, 200, never},
		{"@-10m", Range{From: Bound{AtTime, ms("2026-11-25T14:50:00Z")}}, 190, never},
		{"@-10m:", Range{From: Bound{AtTime, ms("2026-11-25T14:50:00Z")}}, 190, never},
		{"@-10m:-5m", Range{Bound{AtTime, ms("2026-11-25T14:50:00Z")}, Bound{AtTime, ms("2026-11-25T14:55:00Z")}}, 190, 195},
		{"@-10m:5m", Range{Bound{AtTime, ms("2026-11-25T14:50:00Z")}, Bound{AtTime, ms("2026-11-25T14:55:00Z")}}, 190, 195},
		{"@-10m:end", Range{Bound{AtTime, ms("2026-11-25T14:50:00Z")}, Bound{Kind: AtEnd}}, 190, 200},
		{"@:-5m", Range{Bound{Kind: AtStart}, Bound{AtTime, ms("2026-11-25T14:55:00Z")}}, 100, 195},
		{"@-48h:-24h", Range{Bound{AtTime, ms("2026-11-23T15:00:00Z")}, Bound{AtTime, ms("2026-11-24T15:00:00Z")}}, 100, 100},
		{"@2026-11-25T14:50:00Z:2026-11-25T14:55:00Z", Range{Bound{AtTime, ms("2026-11-25T14:50:00Z")}, Bound{AtTime, ms("2026-11-25T14:55:00Z")}}, 190, 195},
		{"@2026-11-25T14:50:00Z:5m", Range{Bound{AtTime, ms("2026-11-25T14:50:00Z")}, Bound{AtTime, ms("2026-11-25T14:55:00Z")}}, 190, 195},
		{"@2026-11-24:2026-11-25", Range{Bound{AtTime, ms("2026-11-24T00:00:00Z")}, Bound{AtTime, ms("2026-11-25T00:00:00Z")}}, 100, 100},
	}
	log := Log{Start: 100, End: 200, AtTime: func(at int64) (int64, error) {
		if first := now.Add(-100 * time.Minute).UnixMilli(); at > first {
			return min(100+(at-first+59_999)/60_000, 200), nil
		}
		return 100, nil
	}}
	for _, test := range tests {
		t.Run(test.in, func(t *testing.T) {
			got, err := ParseOffsets(test.in, now)
			if err != nil {
				t.Fatal(err)
			}
			if got != test.want {
				t.Errorf("parsed %+v, want %+v", got, test.want)
			}
			from, to, err := got.Resolve(log)
			if err != nil || from != test.from || to != test.to {
				t.Errorf("resolved [%d, %d) %v, want [%d, %d)", from, to, err, test.from, test.to)
			}
		})
	}
}

func TestOffsetsRefused(t *testing.T) {
	for _, in := range []string{
		"", ":", "x", "4x", "+", "-", "++5", "+-5", "5:3", "+5:+3", "-3:-5", "1:2:3", "99999999999999999999", "@", "@:", "@x", "@-", "@5", "@2026-13-01",
		"@-24h:-48h", "@2026-11-25:2026-11-24", "@5m:6m", "@1969-12-31", "start:@-5m",
	} {
		if got, err := ParseOffsets(in, now); err == nil {
			t.Errorf("%q was taken for %+v", in, got)
		} else if !strings.Contains(err.Error(), `"`+in+`"`) {
			t.Errorf("%q: the error does not name it: %v", in, err)
		}
	}
}

// FuzzOffsets: whatever parses prints as something that parses to the same, and resolves to a range inside the log.
func FuzzOffsets(f *testing.F) {
	for _, s := range []string{"start", ":end", "+5", "-5", "47:90", "@2026-01-02", "@-48h:-24h", "@2026-11-25T14:50:00Z:5m", "@1795618200000:end", "@:now"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseOffsets(s, now)
		if err != nil {
			return
		}
		again, err := ParseOffsets(r.String(), now)
		if err != nil || again != r {
			t.Fatalf("%q is %+v, printed %q, which is %+v %v", s, r, r.String(), again, err)
		}
		log := Log{Start: 10, End: 20, AtTime: func(int64) (int64, error) { return 15, nil }}
		from, to, err := r.Resolve(log)
		if err != nil || from < 10 || from > 20 || to < from {
			t.Fatalf("%q resolves to [%d, %d) %v", s, from, to, err)
		}
	})
}

func TestBound(t *testing.T) {
	for in, want := range map[string]Bound{
		"start": {Kind: AtStart}, "end": {Kind: AtEnd}, "47": {AtOffset, 47}, "-5": {BeforeEnd, 5}, "+5": {AfterStart, 5}, "1795618200": {AtOffset, 1795618200},
		"@1795618200": {AtTime, 1795618200000}, "2026-11-25T14:50:00Z": {AtTime, 1795618200000}, "-10m": {AtTime, 1795618200000}, "@-10m": {AtTime, 1795618200000},
	} {
		if got, err := ParseBound(in, now); err != nil || got != want {
			t.Errorf("%q: %+v %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "x", "@", "@start", "1:2", "-"} {
		if got, err := ParseBound(in, now); err == nil {
			t.Errorf("%q was taken for %+v", in, got)
		}
	}
}
