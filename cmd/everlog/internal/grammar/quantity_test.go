package grammar

import (
	"testing"
	"time"
)

func TestRetention(t *testing.T) {
	const day = int64(86_400_000)
	tests := []struct {
		in, out string
		want    Limits
	}{
		{"forever", "forever", Limits{-1, -1}},
		{"30d", "30d", Limits{30 * day, -1}},
		{"12h", "12h", Limits{day / 2, -1}},
		{"1d12h", "1d12h", Limits{3 * day / 2, -1}},
		{"500GiB", "500GiB", Limits{-1, 500 << 30}},
		{"500GB", "466GiB", Limits{-1, 500_000_000_000}},
		{"30d,500GiB", "30d,500GiB", Limits{30 * day, 500 << 30}},
		{"500GiB,30d", "30d,500GiB", Limits{30 * day, 500 << 30}},
		{"2y", "730d", Limits{730 * day, -1}},
	}
	for _, test := range tests {
		got, err := ParseRetention(test.in)
		if err != nil || got != test.want || got.String() != test.out {
			t.Errorf("%q: %+v %q %v, want %+v %q", test.in, got, got, err, test.want, test.out)
		}
	}
	local := map[string]Limits{"auto": {-2, -2}, "2h": {2 * 3_600_000, -2}, "50GiB": {-2, 50 << 30}, "forever": {-1, -1}, "2h,50GiB": {2 * 3_600_000, 50 << 30}}
	for in, want := range local {
		if got, err := ParseLocalRetention(in); err != nil || got != want {
			t.Errorf("local %q: %+v %v, want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "30", "never", "30d,40d", "1GiB,2GiB", "0d", "0B", "-30d", "500M", "30d,", "auto", "1e3d"} {
		if got, err := ParseRetention(in); err == nil {
			t.Errorf("%q was taken for %+v", in, got)
		}
	}
}

func TestDurationAndSize(t *testing.T) {
	durations := map[string]time.Duration{"90s": 90 * time.Second, "1h30m": 90 * time.Minute, "1.5h": 90 * time.Minute, "2w": 14 * 24 * time.Hour, "250ms": 250 * time.Millisecond, "0s": 0}
	for in, want := range durations {
		if got, err := ParseDuration(in); err != nil || got != want {
			t.Errorf("duration %q: %v %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "s", "5", "5x", "-5s", "5s6", "1000y", ".", "..5s", "5 s"} {
		if got, err := ParseDuration(in); err == nil {
			t.Errorf("duration %q was taken for %v", in, got)
		}
	}
	sizes := map[string]int64{"0": 0, "1048576": 1 << 20, "64MiB": 64 << 20, "1.5KiB": 1536, "20MB": 20_000_000, "9007199254740993": 9007199254740993}
	for in, want := range sizes {
		if got, err := ParseSize(in); err != nil || got != want {
			t.Errorf("size %q: %v %v, want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "-1", "-1B", "64M", "B", "12XB", "30m", "99999999999EB"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("size %q was taken for %v", in, got)
		}
	}
}

// FuzzRetention: what parses prints as something that parses, and its limits are -1 or above zero.
func FuzzRetention(f *testing.F) {
	for _, s := range []string{"forever", "30d", "500GiB", "30d,500GiB", "1h30m", "2y,1TB"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		l, err := ParseRetention(s)
		if err != nil {
			return
		}
		if l.MS == 0 || l.MS < -1 || l.Bytes == 0 || l.Bytes < -1 {
			t.Fatalf("%q gives %+v", s, l)
		}
		if again, err := ParseRetention(l.String()); err != nil || again.MS != l.MS {
			t.Fatalf("%q prints %q, which is %+v %v", s, l, again, err)
		}
	})
}
