// Package budget owns one decision: what a broker does as its hot tier fills. Decide is a pure function from what is on
// disk, the disk budget and two rates to a level: nothing, trim local copies harder, slow producers in proportion, or
// refuse produce requests with a retriable error. Replication, reads and shipping go on at every level.
//
// It measures nothing and acts on nothing: ingest/broker feeds it about once a second, hands TrimTarget to compaction's
// trim plan, and applies delay and refusal to produce requests.
//
// Only bytes that are not in the object store yet can fill the disk: a tiered segment can be trimmed at once. So throttling
// and refusing look at untiered bytes, trimming at all of them.
package budget

import (
	"math"
	"time"
)

// Level is what a broker does about its disk. Higher levels include the lower ones.
type Level uint8

// The levels, in order of severity.
const (
	// Normal: nothing to do.
	Normal Level = iota
	// Trim: drop local copies of tiered segments down to TrimTarget, ahead of local retention.
	Trim
	// Throttle: delay produce responses by DelayPerMiB as well.
	Throttle
	// Refuse: answer produce requests with a retriable error. Replication still writes.
	Refuse
)

var levelNames = [...]string{"normal", "trim", "throttle", "refuse"}

// String returns the level's name as metrics and logs have it.
func (l Level) String() string { return levelNames[min(l, Refuse)] }

// Thresholds, as shares of the capacity. A level is entered at the first and left below the second, so that a value
// wavering by less than the distance cannot make it flap.
const (
	trimEnter, trimLeave         = 0.90, 0.80
	throttleEnter, throttleLeave = 0.70, 0.65
	refuseEnter, refuseLeave     = 0.95, 0.90

	// trimTargetShare is how far a trim goes once it has begun: below trimLeave, so that it ends.
	trimTargetShare = 0.75

	// drainShare of the ship rate is what the strongest throttle admits, so that the backlog shrinks.
	drainShare = 0.9
	// minRate is what the strongest throttle admits, in bytes per second, however slow shipping is: refusing is another level.
	minRate = 1 << 20

	// DefaultReserve is the free disk space kept for what is not log data, in bytes: half of it is the hard floor for
	// produce, so that followers' writes and the local store still find room.
	DefaultReserve = 1 << 30
)

// Input is what Decide looks at. All fields are in bytes or bytes per second, and not negative.
type Input struct {
	// Used is what the log takes on this broker's disk.
	Used int64
	// Tiered is the part of Used that is also in the object store, committed, and could be trimmed now.
	Tiered int64
	// Budget is the configured size of the hot tier; 0 means what the disk has.
	Budget int64
	// Free is what the file system has left.
	Free int64
	// Reserve is the free space to keep; 0 means DefaultReserve.
	Reserve int64
	// IngestRate and ShipRate are recent averages of log bytes appended and of log bytes committed to the store.
	IngestRate, ShipRate float64
}

// Decision is what to do until the next one.
type Decision struct {
	Level Level
	// TrimTarget is the byte budget for the local trim plan: local copies are dropped while the log takes more.
	TrimTarget int64
	// DelayPerMiB is how long each produced MiB should take, over all producers of the broker together: it admits
	// 1 MiB / DelayPerMiB a second. 0 below Throttle.
	DelayPerMiB time.Duration
	// TimeToFull is how long until untiered bytes take the whole capacity at the present rates, in seconds; +Inf if
	// shipping keeps up.
	TimeToFull float64
}

// Decide returns the decision that follows from the input and the level before. For a fixed level before, more used,
// untiered or ingested bytes, a smaller budget, less free space and slower shipping never give a lower level or a shorter
// delay.
func Decide(in Input, before Level) Decision {
	capacity, free := in.capacity()
	untiered := max(in.Used-in.Tiered, 0)
	u := share(untiered, capacity)
	enter := func(l Level, value, enter, leave float64) bool {
		return value >= enter || before >= l && value >= leave
	}
	d := Decision{TrimTarget: int64(trimEnter * float64(capacity)), TimeToFull: timeToFull(capacity-untiered, in)}
	reserve := in.reserve()
	switch {
	case enter(Refuse, u, refuseEnter, refuseLeave), free < reserve/2, before == Refuse && free < reserve*3/4:
		d.Level = Refuse
	case enter(Throttle, u, throttleEnter, throttleLeave):
		d.Level = Throttle
	case enter(Trim, share(in.Used, capacity), trimEnter, trimLeave):
		d.Level = Trim
	}
	if d.Level >= Trim {
		d.TrimTarget = int64(trimTargetShare * float64(capacity))
	}
	if d.Level >= Throttle {
		d.DelayPerMiB = delayPerMiB(u, in.ShipRate)
	}
	return d
}

func (in *Input) reserve() int64 {
	if in.Reserve > 0 {
		return in.Reserve
	}
	return DefaultReserve
}

// capacity is how many bytes the log may take: the budget, or less if the disk is smaller than promised.
func (in *Input) capacity() (capacity, free int64) {
	free = max(in.Free, 0)
	capacity = max(in.Used+min(free, math.MaxInt64-in.Used)-in.reserve(), 0) // free may be 2^63-1 for "not known"
	if in.Budget > 0 {
		capacity = min(capacity, in.Budget)
	}
	return capacity, free
}

// share is part/whole; nothing of nothing is nothing, something of nothing is everything.
func share(part, whole int64) float64 {
	if part <= 0 {
		return 0
	}
	return float64(part) / float64(max(whole, 1))
}

// delayPerMiB grows from 0 where throttling is left to the delay that admits less than is shipped where refusing begins.
// In between it admits shipRate·drainShare/x, x being how far the way is gone: producers of a broker that ships well feel
// little, and with the store away they are down to a few MiB/s long before the disk is full.
func delayPerMiB(u, shipRate float64) time.Duration {
	x := min(max((u-throttleLeave)/(refuseEnter-throttleLeave), 0), 1)
	seconds := x * (1 << 20) / max(shipRate*drainShare, minRate)
	return time.Duration(seconds * float64(time.Second))
}

func timeToFull(room int64, in Input) float64 {
	growth := in.IngestRate - in.ShipRate
	switch {
	case room <= 0:
		return 0
	case growth <= 0:
		return math.Inf(1)
	}
	return float64(room) / growth
}
