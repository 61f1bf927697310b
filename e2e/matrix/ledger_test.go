package matrix

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/everlog/everlog/e2e/drivers"
)

// A stint is the time one member had one partition, and what it was given in it.
type stint struct {
	member    string
	partition int32
	from, to  time.Time // to is zero while it lasts
	orderly   bool      // it ended by revocation: the member could commit first
	first     int64     // offset of the first record; -1 if there was none
	next      int64     // one after the last record
}

func (s *stint) String() string {
	const clock = "15:04:05.000000"
	return fmt.Sprintf("%s from %s to %s with [%d, %d)", s.member, s.from.Format(clock), s.to.Format(clock), s.first, s.next)
}

// A delivery is one record that a member was given.
type delivery struct {
	partition int32
	offset    int64
	value     string
}

// A member is what one driver reported.
type member struct {
	name   string
	events []drivers.Event
	ended  time.Time // when it was killed or had left; zero if it runs
}

// A ledger is what all members of a group were given.
type ledger struct {
	stints     []*stint
	deliveries []delivery
}

// read replays the events of one member. With assigns it says of which partitions it has which; else nothing is known of that.
func (l *ledger) read(m member, assigns bool) error {
	var errs []error
	open := map[int32]*stint{}
	for _, e := range m.events {
		switch e.Kind {
		case "assigned":
			for _, p := range numbers(e.Args[0]) {
				if open[p] != nil {
					errs = append(errs, fmt.Errorf("%s is assigned %d, which it has", m.name, p))
					continue
				}
				open[p] = &stint{member: m.name, partition: p, from: e.At, first: -1}
				l.stints = append(l.stints, open[p])
			}
		case "revoked", "lost":
			for _, p := range numbers(e.Args[0]) {
				if s := open[p]; s != nil {
					s.to, s.orderly = e.At, e.Kind == "revoked"
					delete(open, p)
				}
			}
		case "record":
			d, err := parseDelivery(e)
			if err != nil {
				errs = append(errs, fmt.Errorf("%s: %w", m.name, err))
				continue
			}
			l.deliveries = append(l.deliveries, d)
			if assigns {
				errs = append(errs, m.note(open[d.partition], d))
			}
		case "garbled":
			errs = append(errs, fmt.Errorf("%s: %s", m.name, e))
		}
	}
	for _, s := range open {
		s.to = m.ended
	}
	return errors.Join(errs...)
}

// note adds a record to the stint it came in. In a stint records come one after the other, and none twice.
func (m member) note(s *stint, d delivery) error {
	switch {
	case s == nil:
		return fmt.Errorf("%s is given %d of partition %d, which it does not have", m.name, d.offset, d.partition)
	case s.first < 0:
		s.first = d.offset
	case d.offset != s.next:
		return fmt.Errorf("%s is given %d of partition %d, %d was due", m.name, d.offset, d.partition, s.next)
	}
	s.next = d.offset + 1
	return nil
}

func parseDelivery(e drivers.Event) (delivery, error) {
	if len(e.Args) != 3 {
		return delivery{}, fmt.Errorf("garbled: %s", e)
	}
	partition, err := strconv.ParseInt(e.Args[0], 10, 32)
	if err != nil {
		return delivery{}, fmt.Errorf("garbled: %s", e)
	}
	offset, err := strconv.ParseInt(e.Args[1], 10, 64)
	if err != nil {
		return delivery{}, fmt.Errorf("garbled: %s", e)
	}
	return delivery{int32(partition), offset, e.Args[2]}, nil
}

func numbers(list string) []int32 {
	var out []int32
	for text := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseInt(text, 10, 32)
		if err != nil {
			panic(fmt.Sprintf("%q is no list of numbers", list))
		}
		out = append(out, int32(n))
	}
	return out
}

// seen is how often each offset of a partition was delivered.
func (l *ledger) seen() map[int32]map[int64]int {
	out := map[int32]map[int64]int{}
	for _, d := range l.deliveries {
		if out[d.partition] == nil {
			out[d.partition] = map[int64]int{}
		}
		out[d.partition][d.offset]++
	}
	return out
}

// checkDelivered holds what was delivered against what is in the log: each record at least once, with its value.
func (l *ledger) checkDelivered(logs map[int32]*partitionLog) error {
	var errs []error
	for _, d := range l.deliveries {
		if value, ok := logs[d.partition].values[d.offset]; !ok || value != d.value {
			errs = append(errs, fmt.Errorf("offset %d of partition %d was delivered as %q; the log has %q", d.offset, d.partition, d.value, value))
		}
	}
	seen := l.seen()
	for p, log := range logs {
		for offset := range log.values {
			if seen[p][offset] == 0 {
				errs = append(errs, fmt.Errorf("offset %d of partition %d was delivered to nobody", offset, p))
			}
		}
	}
	return first(errs)
}

// ownership is what may be asked of the members' reports.
type ownership struct {
	exact bool // stints of two members never overlap
	clean bool // after an orderly end the next begins where it ended
}

// checkStints holds the stints of each partition against each other and against the committed offsets.
func (l *ledger) checkStints(o ownership, commits *commitLog) error {
	var errs []error
	by := map[int32][]*stint{}
	for _, s := range l.stints {
		by[s.partition] = append(by[s.partition], s)
	}
	for p, stints := range by {
		slices.SortFunc(stints, func(a, b *stint) int { return cmp.Or(a.from.Compare(b.from), cmp.Compare(a.member, b.member)) })
		var reached int64 // one after the last record anybody was given
		clean := o.clean
		for i, s := range stints {
			if i > 0 && o.exact && (stints[i-1].to.IsZero() || stints[i-1].to.After(s.from)) {
				errs = append(errs, fmt.Errorf("partition %d has two owners: %s; %s", p, stints[i-1], s))
			}
			if s.first >= 0 {
				known := commits.before(p, s.from)
				switch {
				case s.first > reached:
					errs = append(errs, fmt.Errorf("partition %d: [%d, %d) is left out by %s", p, reached, s.first, s))
				case s.first < known:
					errs = append(errs, fmt.Errorf("partition %d: %d was committed before %s", p, known, s))
				case clean && s.first != reached:
					errs = append(errs, fmt.Errorf("partition %d: all before %d was committed before %s", p, reached, s))
				}
				reached = max(reached, s.next)
			}
			clean = o.clean && s.orderly
		}
	}
	return first(errs)
}

// first keeps the first errors of many.
func first(errs []error) error {
	const most = 5
	errs = slices.DeleteFunc(errs, func(err error) bool { return err == nil })
	if len(errs) > most {
		errs = append(errs[:most:most], fmt.Errorf("and %d more", len(errs)-most))
	}
	return errors.Join(errs...)
}
