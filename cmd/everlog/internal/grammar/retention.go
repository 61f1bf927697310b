package grammar

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Limits is a retention as Kafka keeps it: an age in milliseconds and a size in bytes of one partition. -1 is no limit.
// In a local retention -2 means "as the broker and the topic's whole retention decide".
type Limits struct{ MS, Bytes int64 }

// Kafka's special values of retention settings.
const (
	Forever = -1
	Inherit = -2
)

// ParseRetention reads forever, an age (30d, 12h), a size of each partition (500GiB), or an age and a size with a comma
// (30d,500GiB). What is not named has no limit: 500GiB alone keeps records of any age.
func ParseRetention(s string) (Limits, error) { return parseLimits(s, Forever) }

// ParseLocalRetention reads the same for the copy on the brokers' disks, and also "auto": what the broker's disk budget
// allows. What is not named is left to the broker.
func ParseLocalRetention(s string) (Limits, error) {
	if s == "auto" {
		return Limits{Inherit, Inherit}, nil
	}
	return parseLimits(s, Inherit)
}

func parseLimits(s string, unnamed int64) (Limits, error) {
	if s == "forever" {
		return Limits{Forever, Forever}, nil
	}
	l := Limits{unnamed, unnamed}
	age, size := false, false
	for part := range strings.SplitSeq(s, ",") {
		if d, err := ParseDuration(part); err == nil && !age && d.Milliseconds() > 0 {
			l.MS, age = d.Milliseconds(), true
			continue
		}
		_, numberErr := strconv.ParseInt(part, 10, 64)
		if n, err := ParseSize(part); err == nil && numberErr != nil && !size && n > 0 {
			l.Bytes, size = n, true
			continue
		}
		return Limits{}, fmt.Errorf("%q is not a retention (write forever, 30d, 500GiB, or 30d,500GiB)", s)
	}
	return l, nil
}

// String prints the limits as ParseRetention reads them; Inherit on both sides is auto.
func (l Limits) String() string {
	var parts []string
	if l.MS >= 0 {
		parts = append(parts, formatAge(l.MS))
	}
	if l.Bytes >= 0 {
		parts = append(parts, strings.ReplaceAll(FormatSize(l.Bytes), " ", ""))
	}
	switch {
	case len(parts) > 0:
		return strings.Join(parts, ",")
	case l.MS == Inherit && l.Bytes == Inherit:
		return "auto"
	default:
		return "forever"
	}
}

// formatAge prints milliseconds; past what a time.Duration holds (292 years) it is whole days.
func formatAge(ms int64) string {
	if ms > math.MaxInt64/int64(time.Millisecond) {
		return strconv.FormatInt(ms/86_400_000, 10) + "d"
	}
	return FormatDuration(time.Duration(ms) * time.Millisecond)
}
