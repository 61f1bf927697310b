// Package history puts numbered records on a topic while things break, remembers what the clients were told, and holds that
// against what the log has in the end. Load produces and Tail consumes; Check is a pure function. It knows nothing of how
// brokers are started or broken.
package history

import (
	"fmt"
	"slices"
	"strings"
)

// NoOffset stands for "not acknowledged".
const NoOffset = int64(-1)

// Partition is what the clients know of one partition. Records are numbered from 0 in the order in which they were handed to
// the producer.
type Partition struct {
	Topic  string
	Number int32
	Acked  []int64  // by record number: the offset it was acknowledged with, or NoOffset
	Open   bool     // the producer goes on: the log may hold higher numbers than Acked does
	Failed []string // errors the producer gave up with; their records may or may not be in the log
	Polled []int64  // by offset: the record number a consumer has seen there, from offset 0
	From   int64    // what lies below this offset is not looked at: the log to check begins here
}

// Anomalies is what a log did that no log may do. The zero value is a sound log.
type Anomalies struct {
	Lost    []string // acknowledged and not in the log
	Moved   []string // acknowledged at one offset, in the log at another
	Doubled []string // in the log twice
	Unsent  []string // in the log and never handed to the producer
	Order   []string // in the log before a record that was handed over earlier
	Dirty   []string // seen by a consumer and gone, or another record now
	Failed  []string // the producer was told that its records cannot be written
}

// Check holds what clients know of a partition against its log: the record number at each offset, from p.From on. The log must
// have been read after everything in p happened.
func Check(p Partition, log []int64) Anomalies {
	var a Anomalies
	at := slices.Repeat([]int64{NoOffset}, len(p.Acked)) // by record number: its first offset
	highest := NoOffset
	for i, number := range log {
		offset := p.From + int64(i)
		switch {
		case number < 0 || number >= int64(len(p.Acked)) && !p.Open:
			a.Unsent = append(a.Unsent, p.say("record %d at %d", number, offset))
			continue
		case number >= int64(len(at)):
			at = append(at, slices.Repeat([]int64{NoOffset}, int(number)+1-len(at))...)
		case at[number] != NoOffset:
			a.Doubled = append(a.Doubled, p.say("record %d at %d and %d", number, at[number], offset))
			continue
		}
		if number < highest {
			a.Order = append(a.Order, p.say("record %d at %d, after record %d", number, offset, highest))
		}
		at[number] = offset
		highest = max(highest, number)
	}
	for number, acked := range p.Acked {
		switch found := at[number]; {
		case acked < p.From || acked == found: // not acknowledged, not looked at, or where it should be
		case found == NoOffset:
			a.Lost = append(a.Lost, p.say("record %d, acknowledged at %d", number, acked))
		case !p.inLog(log, acked, int64(number)):
			a.Moved = append(a.Moved, p.say("record %d, acknowledged at %d, is at %d", number, acked, found))
		}
	}
	end := p.From + int64(len(log))
	for offset := p.From; offset < int64(len(p.Polled)); offset++ {
		number := p.Polled[offset]
		switch {
		case offset >= end:
			a.Dirty = append(a.Dirty, p.say("record %d was read at %d, and the log ends at %d", number, offset, end))
		case !p.inLog(log, offset, number):
			a.Dirty = append(a.Dirty, p.say("record %d was read at %d, and there is record %d", number, offset, log[offset-p.From]))
		}
	}
	for _, err := range p.Failed {
		a.Failed = append(a.Failed, p.say("%s", err))
	}
	return a
}

func (p Partition) inLog(log []int64, offset, number int64) bool {
	return offset < p.From+int64(len(log)) && log[offset-p.From] == number
}

func (p Partition) say(format string, args ...any) string {
	return fmt.Sprintf("%s-%d: ", p.Topic, p.Number) + fmt.Sprintf(format, args...)
}

// Add joins the anomalies of another partition.
func (a *Anomalies) Add(b Anomalies) {
	mine, theirs := a.kinds(), b.kinds()
	for i := range mine {
		*mine[i].found = append(*mine[i].found, *theirs[i].found...)
	}
}

type kind struct {
	name  string
	found *[]string
}

func (a *Anomalies) kinds() []kind {
	return []kind{
		{"lost", &a.Lost}, {"moved", &a.Moved}, {"doubled", &a.Doubled}, {"never sent", &a.Unsent}, {"out of order", &a.Order}, {"read and changed", &a.Dirty},
		{"refused", &a.Failed},
	}
}

// Err is nil for a sound log, else it counts the anomalies and shows the first of each kind.
func (a *Anomalies) Err() error {
	const shown = 3
	var lines []string
	for _, k := range a.kinds() {
		if n := len(*k.found); n > 0 {
			lines = append(lines, fmt.Sprintf("%d %s: %s", n, k.name, strings.Join((*k.found)[:min(n, shown)], "; ")))
		}
	}
	if lines == nil {
		return nil
	}
	return fmt.Errorf("the log is not what the clients were told:\n%s", strings.Join(lines, "\n"))
}
