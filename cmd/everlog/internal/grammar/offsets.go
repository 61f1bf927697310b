package grammar

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// OffsetsHelp is the grammar of ParseOffsets for help texts.
const OffsetsHelp = `OFFSETS says where to begin and, after a colon, where to stop (not included):
  start, end        the first record kept, the end of the log
  47                offset 47
  +5, -5            five after the start, five before the end
  47:90, 47:end     from one bound up to another
  :90               from the start up to 90
  @T, @T1:T2, @:T2  by record time; T is 2026-01-02, 2026-01-02T15:04:05Z, now,
                    -48h or -30d (before now), Unix milliseconds or seconds;
                    T2 may also be a duration after T1, or end
`

// BoundKind says what a Bound counts from.
type BoundKind int

// The kinds of bounds.
const (
	Unbounded  BoundKind = iota // no bound: only as the end of a range, meaning "go on for ever"
	AtStart                     // the log start offset
	AtEnd                       // the log end offset at the time of the command
	AtOffset                    // Value is an offset
	AfterStart                  // Value records after the log start offset
	BeforeEnd                   // Value records before the log end offset
	AtTime                      // the first record with a timestamp of at least Value, Unix milliseconds
)

// Bound is one side of a range of a partition's log. Value is never negative.
type Bound struct {
	Kind  BoundKind
	Value int64
}

// Range is half-open: From is included, To is not.
type Range struct{ From, To Bound }

// Log is what Resolve needs to know of one partition.
type Log struct {
	Start, End int64                                // log start offset, log end offset
	AtTime     func(unixMilli int64) (int64, error) // offset of the first record with at least that timestamp; End if none
}

// ParseOffsets reads the grammar of OffsetsHelp. Times relative to now are made absolute, so the result stays the same
// whenever it is used.
func ParseOffsets(s string, now time.Time) (Range, error) {
	if rest, ok := strings.CutPrefix(s, "@"); ok {
		return parseTimes(s, rest, now)
	}
	left, right, ranged := strings.Cut(s, ":")
	r := Range{From: Bound{Kind: AtStart}}
	var err error
	if !ranged || left != "" {
		if r.From, err = parseBound(left); err != nil {
			return Range{}, offsetsError(s)
		}
	}
	if ranged && right != "" {
		if r.To, err = parseBound(right); err != nil {
			return Range{}, offsetsError(s)
		}
	}
	if ranged && left == "" && right == "" {
		return Range{}, offsetsError(s)
	}
	return r, r.check(s)
}

// parseTimes reads what follows the @. Times themselves hold colons: the whole is tried first, then every colon as the
// border between the two.
func parseTimes(whole, s string, now time.Time) (Range, error) {
	if t, err := ParseTime(s, now); err == nil {
		return Range{From: Bound{AtTime, t.UnixMilli()}}, nil
	}
	for i := range len(s) {
		if s[i] != ':' {
			continue
		}
		if r, ok := parseTimeRange(s[:i], s[i+1:], now); ok {
			return r, r.check(whole)
		}
	}
	return Range{}, offsetsError(whole)
}

func parseTimeRange(left, right string, now time.Time) (Range, bool) {
	r := Range{From: Bound{Kind: AtStart}}
	from := time.Time{}
	if left != "" {
		t, err := ParseTime(left, now)
		if err != nil {
			return Range{}, false
		}
		from, r.From = t, Bound{AtTime, t.UnixMilli()}
	}
	if right == "" {
		return r, left != ""
	}
	if right == "end" {
		r.To = Bound{Kind: AtEnd}
		return r, true
	}
	if d, err := ParseDuration(right); err == nil && left != "" {
		r.To = Bound{AtTime, from.Add(d).UnixMilli()}
		return r, r.To.Value >= 0
	}
	t, err := ParseTime(right, now)
	if err != nil {
		return Range{}, false
	}
	r.To = Bound{AtTime, t.UnixMilli()}
	return r, true
}

func parseBound(s string) (Bound, error) {
	switch s {
	case "start", "beginning", "oldest", "earliest":
		return Bound{Kind: AtStart}, nil
	case "end", "newest", "latest":
		return Bound{Kind: AtEnd}, nil
	}
	kind, digits := AtOffset, s
	switch {
	case strings.HasPrefix(s, "+"):
		kind, digits = AfterStart, s[1:]
	case strings.HasPrefix(s, "-"):
		kind, digits = BeforeEnd, s[1:]
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil {
		return Bound{}, err
	}
	return Bound{kind, int64(n)}, nil
}

// check refuses a range that ends before it begins, where that can be known without the log.
func (r Range) check(s string) error {
	same := r.From.Kind == r.To.Kind
	backwards := same && (r.From.Kind == AtOffset || r.From.Kind == AtTime || r.From.Kind == AfterStart) && r.To.Value < r.From.Value ||
		same && r.From.Kind == BeforeEnd && r.To.Value > r.From.Value
	if backwards {
		return fmt.Errorf("offsets %q end before they begin", s)
	}
	return nil
}

func offsetsError(s string) error {
	return fmt.Errorf("%q does not name offsets (write start, end, 47, +5, -5, 47:90, @2026-01-02, @-48h:-24h)", s)
}

// String prints the range in the grammar ParseOffsets reads; parsing it gives the same range.
func (r Range) String() string {
	if r.From.Kind == AtTime || r.To.Kind == AtTime {
		from := ""
		if r.From.Kind == AtTime {
			from = timeText(r.From.Value)
		}
		switch r.To.Kind {
		case AtTime:
			return "@" + from + ":" + timeText(r.To.Value)
		case AtEnd:
			return "@" + from + ":end"
		default:
			return "@" + from
		}
	}
	if r.To.Kind == Unbounded {
		return r.From.String()
	}
	return r.From.String() + ":" + r.To.String()
}

func timeText(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339Nano) }

// String prints one bound; a time is RFC 3339.
func (b Bound) String() string {
	switch b.Kind {
	case AtStart:
		return "start"
	case AtEnd:
		return "end"
	case AtOffset:
		return strconv.FormatInt(b.Value, 10)
	case AfterStart:
		return "+" + strconv.FormatInt(b.Value, 10)
	case BeforeEnd:
		return "-" + strconv.FormatInt(b.Value, 10)
	case AtTime:
		return timeText(b.Value)
	default:
		return ""
	}
}

// NoEnd is the end Resolve gives for a range without one.
const NoEnd = math.MaxInt64

// Resolve turns the range into offsets [from, to) of one partition. Both are at least the log start, and from is at most the
// log end. Without an end, to is NoEnd; an end past the log end is kept, for it may be written yet. to is never below from.
func (r Range) Resolve(l Log) (from, to int64, err error) {
	if from, err = r.From.resolve(l); err != nil {
		return 0, 0, err
	}
	from = min(max(from, l.Start), l.End)
	if r.To.Kind == Unbounded {
		return from, NoEnd, nil
	}
	if to, err = r.To.resolve(l); err != nil {
		return 0, 0, err
	}
	return from, max(to, from), nil
}

func (b Bound) resolve(l Log) (int64, error) {
	switch b.Kind {
	case AtEnd:
		return l.End, nil
	case AtOffset:
		return b.Value, nil
	case AfterStart:
		if b.Value > math.MaxInt64-l.Start {
			return math.MaxInt64, nil
		}
		return l.Start + b.Value, nil
	case BeforeEnd:
		return l.End - b.Value, nil
	case AtTime:
		return l.AtTime(b.Value)
	default:
		return l.Start, nil
	}
}

// ParseBound reads one bound of --from or --to: start, end, an offset, +5 or -5 as in ParseOffsets, or a time as ParseTime
// reads it. A plain number is an offset; @ before it makes it Unix time.
func ParseBound(s string, now time.Time) (Bound, error) {
	rest, timed := strings.CutPrefix(s, "@")
	if !timed {
		if b, err := parseBound(s); err == nil {
			return b, nil
		}
	}
	t, err := ParseTime(rest, now)
	if err != nil {
		return Bound{}, fmt.Errorf("%q is neither an offset nor a time (write 47, start, end, 2026-01-02, 2026-01-02T15:04:05Z, -48h)", s)
	}
	return Bound{AtTime, t.UnixMilli()}, nil
}
