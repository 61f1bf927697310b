package ship

import (
	"fmt"

	"github.com/everlog/everlog/tier/record"
)

// action is what a plan says to do.
type action uint8

const (
	_ action = iota // wait: nothing may be shipped now
	// upload: ship segment from offset from on.
	upload
	// skip: the records up to offset from were deleted before they were shipped; the manifest has to say so.
	skip
	// broken: records are missing between the remote log and the local one.
	broken
)

// step is one decision of plan.
type step struct {
	action  action
	segment int // index into the view's Sealed
	from    record.Offset
}

func (s step) String() string {
	switch s.action {
	case upload:
		return fmt.Sprintf("upload segment %d from %d", s.segment, s.from)
	case skip:
		return fmt.Sprintf("skip to %d", s.from)
	case broken:
		return fmt.Sprintf("broken: the local log begins at %d", s.from)
	}
	return "wait"
}

// plan decides what to ship next, given that the remote log ends at end.
//
// Borders of segments differ between replicas, so a new leader may have to begin inside one: at exactly end. A segment is
// shipped when it is whole below the limit. One that lies below the log start offset is passed over, and so is a hole that
// the log start offset covers: the remote log then continues at the next segment's base, which is a batch border, as the
// log start offset need not be. Any other hole is never skipped, for that would make a loss look like a deletion.
func plan(v View, end record.Offset) step {
	for i, s := range v.Sealed {
		if s.End <= end || s.End <= v.LogStart {
			continue
		}
		if s.Base <= end {
			if s.End <= v.Limit {
				return step{upload, i, end}
			}
			return step{}
		}
		switch {
		case s.Base > v.LogStart:
			return step{action: broken, from: s.Base}
		case s.Base > v.Limit:
			return step{}
		}
		return step{action: skip, from: s.Base}
	}
	return step{}
}
