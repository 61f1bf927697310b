// Package grammar owns the small languages a person types on the command line: offsets and ranges of offsets (-o), retention,
// durations, sizes, times, and record formats (-f). It parses and prints; it talks to nothing and reads no clock: whoever
// calls it passes now. The commands of cmd/everlog call it.
package grammar

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
)

// durationUnits are the units ParseDuration knows, longest name first where one begins another.
var durationUnits = []struct {
	name string
	unit time.Duration
}{
	{"ns", time.Nanosecond}, {"us", time.Microsecond}, {"µs", time.Microsecond}, {"ms", time.Millisecond},
	{"s", time.Second}, {"m", time.Minute}, {"h", time.Hour},
	{"d", 24 * time.Hour}, {"w", 7 * 24 * time.Hour}, {"y", 365 * 24 * time.Hour},
}

// ParseDuration reads a duration such as 90s, 1h30m, 30d, 2w or 1y. A day is 24 hours and a year 365 days. Numbers may have a
// fraction; a sign is not allowed, and the result is at least 0 and at most about 292 years.
func ParseDuration(s string) (time.Duration, error) {
	rest, total := s, time.Duration(0)
	for first := true; first || rest != ""; first = false {
		digits := len(rest) - len(strings.TrimLeft(rest, "0123456789."))
		number, err := strconv.ParseFloat(rest[:digits], 64)
		if err != nil {
			return 0, fmt.Errorf("%q is not a duration (write 90s, 1h30m, 30d, 2w)", s)
		}
		unit, tail, ok := cutUnit(rest[digits:])
		if !ok {
			return 0, fmt.Errorf("%q is not a duration: %q needs a unit (ms, s, m, h, d, w, y)", s, rest)
		}
		part := number * float64(unit)
		if part+float64(total) >= math.MaxInt64 {
			return 0, fmt.Errorf("duration %q is too long (write forever where it should not end)", s)
		}
		total, rest = total+time.Duration(part), tail
	}
	return total, nil
}

func cutUnit(s string) (time.Duration, string, bool) {
	for _, u := range durationUnits {
		if tail, ok := strings.CutPrefix(s, u.name); ok {
			return u.unit, tail, true
		}
	}
	return 0, s, false
}

// FormatDuration prints a duration as ParseDuration reads it, in days, hours, minutes, seconds and milliseconds.
func FormatDuration(d time.Duration) string {
	if d <= 0 {
		return "0s"
	}
	var b strings.Builder
	for _, u := range []struct {
		name string
		unit time.Duration
	}{{"d", 24 * time.Hour}, {"h", time.Hour}, {"m", time.Minute}, {"s", time.Second}, {"ms", time.Millisecond}} {
		if n := d / u.unit; n > 0 {
			fmt.Fprintf(&b, "%d%s", n, u.name)
			d -= n * u.unit
		}
	}
	if b.Len() == 0 {
		return d.String()
	}
	return b.String()
}

// ParseSize reads a number of bytes: 1048576, 500GiB (powers of 1024) or 500GB (powers of 1000). A unit ends in B, so that
// 30m is never taken for a size. The result is at least 0.
func ParseSize(s string) (int64, error) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		return n, nil
	}
	if !strings.HasSuffix(strings.ToUpper(s), "B") || strings.HasPrefix(s, "-") {
		return 0, fmt.Errorf("%q is not a size (write 1048576, 64MiB, 500GB)", s)
	}
	n, err := humanize.ParseBytes(s)
	if err != nil || n > math.MaxInt64 {
		return 0, fmt.Errorf("%q is not a size (write 1048576, 64MiB, 500GB)", s)
	}
	return int64(n), nil
}

// FormatSize prints bytes in IEC units, as tables show them.
func FormatSize(n int64) string {
	if n < 0 {
		return "-" + humanize.IBytes(uint64(-n))
	}
	return humanize.IBytes(uint64(n))
}

// timeLayouts are the written forms of a point in time; those without a zone are UTC.
var timeLayouts = []string{time.RFC3339Nano, "2006-01-02T15:04:05.999999999", "2006-01-02T15:04", "2006-01-02 15:04:05", time.DateOnly}

// ParseTime reads a point in time: now, 2026-01-02, 2026-01-02T15:04:05Z (RFC 3339; UTC where it names no zone), a duration
// before now as -48h or -30d, 10 digits (Unix seconds) or 13 digits (Unix milliseconds).
func ParseTime(s string, now time.Time) (time.Time, error) {
	if s == "now" {
		return now, nil
	}
	if ago, ok := strings.CutPrefix(s, "-"); ok {
		if d, err := ParseDuration(ago); err == nil {
			return now.Add(-d), nil
		}
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil && n >= 0 {
		switch len(s) {
		case 10:
			return time.Unix(n, 0).UTC(), nil
		case 13:
			return time.UnixMilli(n).UTC(), nil
		}
	}
	for _, layout := range timeLayouts {
		if t, err := time.Parse(layout, s); err == nil && t.Year() >= 1970 && t.UnixMilli() >= 0 {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time (write 2026-01-02, 2026-01-02T15:04:05Z, -48h, or Unix milliseconds)", s)
}

// FormatTime prints Unix milliseconds as RFC 3339 in UTC; a negative time, Kafka's "none", is "-".
func FormatTime(ms int64) string {
	if ms < 0 {
		return "-"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
