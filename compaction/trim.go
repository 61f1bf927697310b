package compaction

import (
	"container/heap"

	"github.com/everlog/everlog/tier/record"
)

// LocalLog is one replica's local log, as PlanTrim sees it.
type LocalLog struct {
	// RemoteEnd is the end of the remote log in a manifest version known to be committed; negative if none is known, and
	// then nothing is trimmed. HighWatermark bounds trimming too.
	RemoteEnd, HighWatermark record.Offset
	// Local limits the local copy: the topic's local.retention.ms and local.retention.bytes. Negative: only the broker's
	// budget does.
	Local Retention
	// Segments are those of the local log in order of offsets, the active one last.
	Segments []LocalSegment
}

// Trim says that log number Log of those given to PlanTrim may drop its local segments that end at or below To.
type Trim struct {
	Log   int
	To    record.Offset
	Bytes int64 // freed by it
}

// PlanTrim returns which local copies go, at most one Trim a log, ordered by log: first what a topic's own limits say, then,
// while all logs together take more than budgetBytes (negative: no budget), the segment with the oldest records of all that
// may go. Only segments below both RemoteEnd and HighWatermark ever go, so a budget that untiered bytes alone exceed is
// not met.
func PlanTrim(logs []LocalLog, budgetBytes, nowMs int64) []Trim {
	trims := make([]Trim, len(logs))
	var total int64
	var queue oldestFirst
	for i := range logs {
		log := &logs[i]
		trims[i] = Trim{Log: i, To: -1}
		c := candidate{log: log, trim: &trims[i]}
		size := log.size()
		total += size
		in := RetentionInput{Retention: log.Local, NowMs: nowMs}
		for c.next < len(log.Segments) && c.droppable() {
			s := log.Segments[c.next]
			if !in.expired(s.MaxTimestamp) && (log.Local.Bytes < 0 || size-s.Bytes < log.Local.Bytes) {
				break
			}
			size -= s.Bytes
			total -= c.drop()
		}
		if c.droppable() {
			queue = append(queue, c)
		}
	}
	heap.Init(&queue)
	for budgetBytes >= 0 && total > budgetBytes && len(queue) > 0 {
		total -= queue[0].drop()
		if queue[0].droppable() {
			heap.Fix(&queue, 0)
		} else {
			heap.Pop(&queue)
		}
	}
	n := 0
	for _, t := range trims {
		if t.To >= 0 {
			trims[n] = t
			n++
		}
	}
	return trims[:n]
}

func (l *LocalLog) size() (bytes int64) {
	for _, s := range l.Segments {
		bytes += s.Bytes
	}
	return bytes
}

// candidate is a log with a next segment that might go.
type candidate struct {
	log  *LocalLog
	next int
	trim *Trim
}

func (c *candidate) droppable() bool {
	if c.next >= len(c.log.Segments) {
		return false
	}
	s := c.log.Segments[c.next]
	return !s.Active && s.End <= min(c.log.RemoteEnd, c.log.HighWatermark)
}

// drop takes the next segment and returns its size.
func (c *candidate) drop() int64 {
	s := c.log.Segments[c.next]
	c.next++
	c.trim.To = s.End
	c.trim.Bytes += s.Bytes
	return s.Bytes
}

// oldestFirst is a heap by the age of the next segment; equal ages by log, so that a plan is a function of its input.
type oldestFirst []candidate

func (q oldestFirst) Len() int { return len(q) }
func (q oldestFirst) Less(i, j int) bool {
	a, b := q[i].log.Segments[q[i].next].MaxTimestamp, q[j].log.Segments[q[j].next].MaxTimestamp
	return a < b || a == b && q[i].trim.Log < q[j].trim.Log
}
func (q oldestFirst) Swap(i, j int) { q[i], q[j] = q[j], q[i] }
func (q *oldestFirst) Push(x any)   { *q = append(*q, x.(candidate)) }
func (q *oldestFirst) Pop() any {
	last := (*q)[len(*q)-1]
	*q = (*q)[:len(*q)-1]
	return last
}
