package ship

import (
	"math"
	"time"
)

// Load is what the pace of uploads follows from. All fields are of the whole broker.
type Load struct {
	// Ingest is the recent average of bytes appended per second.
	Ingest float64
	// Backlog is how many local bytes are not in the store yet, Budget how many there may be. A Budget of 0 means that it
	// is not known, and uploads run at full speed.
	Backlog, Budget int64
	// Within is the time in which what is appended should be in the store; 0 is without limit.
	Within time.Duration
}

// PaceOptions bound the pace, in bytes of log per second (before compression). The zero value is valid.
type PaceOptions struct {
	// Full is the pace of a broker whose backlog nears its budget; default 0 = without limit.
	Full float64
	// Steady is the pace of an idle broker with room to spare. Default 64 MiB/s: what is appended beside it, little as it
	// is, should not wait behind uploads for the disk.
	Steady float64
	// Floor is the pace beside busy producers with room to spare. Default 32 MiB/s.
	Floor float64
	// Idle and Busy are the ingest rates up to which the broker counts as idle and from which as busy. Defaults 4 and 48 MiB/s.
	Idle, Busy float64
}

// Shares of the budget: below easy a backlog is no reason to hurry, from urgent on nothing else counts.
const (
	easy   = 0.20
	urgent = 0.60
)

// unlimited stands for "no limit" where a pace is computed: more than a disk or a network of today moves.
const unlimited = 4 << 30

func (o PaceOptions) withDefaults() PaceOptions {
	set := func(v *float64, to float64) {
		if *v <= 0 {
			*v = to
		}
	}
	set(&o.Full, unlimited)
	set(&o.Steady, 64<<20)
	set(&o.Floor, 32<<20)
	set(&o.Idle, 4<<20)
	set(&o.Busy, 48<<20)
	o.Steady = min(o.Steady, o.Full)
	o.Floor = min(o.Floor, o.Steady)
	o.Busy = max(o.Busy, o.Idle+1)
	return o
}

// Pace returns how many bytes of log the broker may ship per second; +Inf for no limit. Uploads compete with producers for
// two scarce things, processor and disk, so they yield while the local disk has room: the pace falls from Steady to Floor as
// ingest rises from Idle to Busy, and rises to Full as the backlog takes the budget. It is continuous, so that it
// needs no hysteresis; never rises with ingest and never falls with the backlog. Where ingest stays above the pace, the
// backlog settles at the share of the budget at which both are equal, or where the pace ships it within the time it has,
// whichever is less.
func Pace(l Load, o PaceOptions) float64 {
	o = o.withDefaults()
	idleness := 1 - ramp(l.Ingest, o.Idle, o.Busy)
	pressure := 1.0
	if l.Budget > 0 {
		pressure = ramp(float64(l.Backlog)/float64(l.Budget), easy, urgent)
	}
	// Squared, so that the first signs of a backlog raise the pace by little: it should settle low, not at full speed.
	pace := max(o.Floor+(o.Steady-o.Floor)*idleness*idleness, o.Floor+(o.Full-o.Floor)*pressure*pressure)
	if l.Within > 0 {
		pace = max(pace, min(float64(l.Backlog)/l.Within.Seconds(), o.Full))
	}
	if pace >= unlimited {
		return math.Inf(1)
	}
	return pace
}

// ramp is 0 up to low, 1 from high on, and linear between.
func ramp(v, low, high float64) float64 {
	return min(max((v-low)/(high-low), 0), 1)
}
