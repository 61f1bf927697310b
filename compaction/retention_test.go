package compaction

import (
	"errors"
	"iter"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/record"
)

// remote makes manifest entries of ten offsets and 100 bytes each, written at 10, 20, 30 … ms.
func remote(n int) []manifest.Segment {
	var list []manifest.Segment
	for i := range n {
		base := record.Offset(10 * i)
		list = append(list, manifest.Segment{Base: base, End: base + 10, DataSize: 100, Records: 10, MaxTimestamp: int64(10 * (i + 1))})
	}
	return list
}

// localLog makes local segments likewise, from base on; the last is active.
func localLog(base record.Offset, n int) []LocalSegment {
	var list []LocalSegment
	for i := range n {
		b := base + record.Offset(10*i)
		list = append(list, LocalSegment{Base: b, End: b + 10, Bytes: 100, MaxTimestamp: int64(b) + 10, Active: i == n-1})
	}
	return list
}

func entries(list []manifest.Segment, read *int) iter.Seq2[manifest.Segment, error] {
	return func(yield func(manifest.Segment, error) bool) {
		for _, s := range list {
			*read++
			if !yield(s, nil) {
				return
			}
		}
	}
}

func TestPlanRetention(t *testing.T) {
	forever := Retention{Unlimited, Unlimited}
	// Offsets [0, 50) remote, [30, 80) local with [70, 80) active: 800 bytes.
	base := RetentionInput{Retention: forever, NowMs: 1000, HighWatermark: 80, RemoteEnd: 50, RemoteBytes: 500, Local: localLog(30, 5)}
	for _, c := range []struct {
		name   string
		change func(*RetentionInput)
		want   record.Offset
	}{
		{"for ever", func(in *RetentionInput) {}, 0},
		{"Long.MAX", func(in *RetentionInput) { in.Retention = Retention{math.MaxInt64, math.MaxInt64} }, 0},
		{"Long.MAX before 1970", func(in *RetentionInput) { in.Ms, in.NowMs = math.MaxInt64, math.MinInt64+100 }, 0},
		{"by time, one is exactly as old as may be", func(in *RetentionInput) { in.Ms, in.NowMs = 100, 120 }, 10},
		{"by time, into the local part", func(in *RetentionInput) { in.Ms, in.NowMs = 100, 165 }, 60},
		{"by time, all but the active segment", func(in *RetentionInput) { in.Ms = 1 }, 70},
		{"a retention of nothing", func(in *RetentionInput) { in.Ms = 0 }, 70},
		{"never above the high watermark", func(in *RetentionInput) { in.Ms, in.HighWatermark = 1, 35 }, 30},
		{"by size, exactly full", func(in *RetentionInput) { in.Bytes = 800 }, 0},
		{"by size, what remains is still as much", func(in *RetentionInput) { in.Bytes = 700 }, 10},
		{"by size, it would not be", func(in *RetentionInput) { in.Bytes = 701 }, 0},
		{"by size, into the local part", func(in *RetentionInput) { in.Bytes = 200 }, 60},
		{"by size, nothing is to remain", func(in *RetentionInput) { in.Bytes = 0 }, 70},
		{"both: the one that takes more", func(in *RetentionInput) { in.Bytes, in.Ms, in.NowMs = 700, 100, 125 }, 20},
		{"what was deleted does not count", func(in *RetentionInput) { in.Bytes, in.LogStart = 500, 20 }, 30},
		{"a log start inside a segment", func(in *RetentionInput) { in.Bytes, in.LogStart = 600, 25 }, 25},
		{"it deletes the segment that holds the log start", func(in *RetentionInput) { in.Bytes, in.LogStart = 500, 25 }, 30},
		{"a local segment that straddles the remote end is not counted twice", func(in *RetentionInput) {
			in.Bytes, in.Local = 700, []LocalSegment{{Base: 45, End: 60, Bytes: 150, MaxTimestamp: 60}, {Base: 60, End: 80, Bytes: 200, MaxTimestamp: 80, Active: true}}
		}, 0},
		{"nor deleted by a size that does not count it", func(in *RetentionInput) {
			in.Bytes, in.Local = 150, []LocalSegment{{Base: 45, End: 60, Bytes: 150, MaxTimestamp: 60}, {Base: 60, End: 80, Bytes: 200, MaxTimestamp: 80, Active: true}}
		}, 50},
		{"a segment without timestamps stays", func(in *RetentionInput) { in.Ms = 1; in.Local[3].MaxTimestamp = -1 }, 60},
		{"one from the future too, and all after it", func(in *RetentionInput) { in.Ms = 1; in.Local[2].MaxTimestamp = 5000 }, 50},
		{"nothing but an active segment", func(in *RetentionInput) {
			in.Bytes, in.Ms, in.LogStart, in.RemoteEnd, in.Local = 0, 0, 70, 70, localLog(70, 1)
		}, 70},
	} {
		in := base
		in.Local = append([]LocalSegment(nil), base.Local...)
		c.change(&in)
		read := 0
		got, err := PlanRetention(in, entries(remote(5), &read))
		if err != nil || got != c.want {
			t.Errorf("%s: log start %d, %v; want %d", c.name, got, err, c.want)
		}
	}
}

func TestPlanRetentionReadsOnlyWhatGoes(t *testing.T) {
	read := 0
	in := RetentionInput{Retention: Retention{Ms: 100, Bytes: Unlimited}, NowMs: 145, HighWatermark: 10000, RemoteEnd: 10000, RemoteBytes: 1e5}
	if got, err := PlanRetention(in, entries(remote(1000), &read)); err != nil || got != 40 || read != 5 {
		t.Errorf("%d, %v after %d entries; want 40 after 5", got, err, read)
	}
	read, in.Ms = 0, Unlimited
	if got, err := PlanRetention(in, entries(remote(1000), &read)); err != nil || got != 0 || read != 0 {
		t.Errorf("%d, %v after %d entries; keeping for ever reads none", got, err, read)
	}
	bad := errors.New("page unreadable")
	in.Ms = 1
	if got, err := PlanRetention(in, func(yield func(manifest.Segment, error) bool) {
		_ = yield(remote(1)[0], nil) && yield(manifest.Segment{}, bad)
	}); !errors.Is(err, bad) || got != 0 {
		t.Errorf("%d, %v: half a plan is none", got, err)
	}
}

// TestRetentionKeepsWhatItPromises: at least Bytes remain if there were as many, and nothing younger than Ms goes.
func TestRetentionKeepsWhatItPromises(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list []manifest.Segment
		var local []LocalSegment
		sizes := rapid.SliceOfN(rapid.Int64Range(1, 100), 1, 20).Draw(t, "sizes")
		remoteN, localFrom := rapid.IntRange(0, len(sizes)).Draw(t, "remote"), 0
		localFrom = rapid.IntRange(0, remoteN).Draw(t, "local")
		in := RetentionInput{NowMs: 1000, HighWatermark: record.Offset(rapid.IntRange(0, 10*len(sizes)).Draw(t, "hw"))}
		in.Ms, in.Bytes = rapid.Int64Range(-1, 1000).Draw(t, "ms"), rapid.Int64Range(-1, 1500).Draw(t, "bytes")
		var total int64
		times := make([]int64, len(sizes))
		for i, size := range sizes {
			base := record.Offset(10 * i)
			times[i] = rapid.Int64Range(-1, 1000).Draw(t, "time")
			total += size
			if i < remoteN {
				list = append(list, manifest.Segment{Base: base, End: base + 10, DataSize: size, Records: 10, MaxTimestamp: times[i]})
				in.RemoteEnd, in.RemoteBytes = base+10, in.RemoteBytes+size
			}
			if i >= localFrom {
				local = append(local, LocalSegment{Base: base, End: base + 10, Bytes: size, MaxTimestamp: times[i], Active: i == len(sizes)-1})
			}
		}
		in.Local = local
		read := 0
		got, err := PlanRetention(in, entries(list, &read))
		if err != nil || got < in.LogStart || got > max(in.HighWatermark, in.LogStart) {
			t.Fatalf("log start %d, high watermark %d, %v", got, in.HighWatermark, err)
		}
		left := total
		for i := range int(got / 10) {
			left -= sizes[i]
			young := in.Ms < 0 || times[i] < 0 || in.NowMs-times[i] <= in.Ms
			if young && (in.Bytes < 0 || left < in.Bytes) {
				t.Fatalf("segment %d is in retention: %d bytes left of %d, written at %d", i, left, total, times[i])
			}
		}
	})
}

// TestEmptySegmentsHoldNothingUp: what key compaction has emptied has no time to wait for, but goes only in its turn.
func TestEmptySegmentsHoldNothingUp(t *testing.T) {
	segs := remote(4)
	for _, i := range []int{0, 2} {
		segs[i].Records, segs[i].DataSize, segs[i].MaxTimestamp = 0, 61, -1
	}
	read := 0
	in := RetentionInput{Retention: Retention{Ms: 5, Bytes: Unlimited}, NowMs: 30, HighWatermark: 40, RemoteEnd: 40, RemoteBytes: 222}
	if got, err := PlanRetention(in, entries(segs, &read)); err != nil || got != 30 {
		t.Errorf("log start %d, %v; want 30: the second segment is of 20 ms, the fourth of 40", got, err)
	}
	in.Ms = 15
	if got, err := PlanRetention(in, entries(segs, &read)); err != nil || got != 10 {
		t.Errorf("log start %d, %v; want 10: the second segment is to stay", got, err)
	}
}

func TestSharedObjectsStay(t *testing.T) {
	removed := []manifest.Segment{{Object: "a"}, {Object: "b"}, {Object: "b"}, {Object: "c"}}
	if got := objects(removed, "c", nil); len(got) != 2 || got[0] != "a" || got[1] != "b" {
		t.Errorf("%v, want a and b: c still holds a segment", got)
	}
	if got := objects(removed, "", errors.New("not known")); len(got) != 0 {
		t.Errorf("%v although it is not known what is in use", got)
	}
}
