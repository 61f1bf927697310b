package compaction

import (
	"math"

	"github.com/everlog/everlog/tier/record"
)

// KeyRules are a topic's settings for key compaction, with Kafka's names.
type KeyRules struct {
	// MinDirtyRatio is min.cleanable.dirty.ratio.
	MinDirtyRatio float64
	// MinLagMs and MaxLagMs are min.compaction.lag.ms and max.compaction.lag.ms.
	MinLagMs, MaxLagMs int64
}

// KeySegment is one sealed local segment as PlanKeys sees it.
type KeySegment struct {
	Base, End record.Offset
	Bytes     int64
	// FirstTimestamp is the smallest first timestamp of a batch, MaxTimestamp the largest of a record, -1 if there is none.
	FirstTimestamp, MaxTimestamp int64
}

// KeyInput is the state of a local log that PlanKeys looks at.
type KeyInput struct {
	KeyRules
	NowMs int64
	// Limit is min(high watermark, last stable offset), exclusive. Cleaned is the offset below which no key occurs twice.
	Limit, Cleaned record.Offset
	// Segments are the sealed ones in order.
	Segments []KeySegment
}

// KeyPlan says what a pass would do.
type KeyPlan struct {
	// FirstDirty and Bound delimit the dirty part [FirstDirty, Bound); the pass reads Segments segments, up to Bound.
	FirstDirty, Bound record.Offset
	Segments          int
	// Ratio is the dirty part of the bytes up to Bound. Due says that a pass is worth it, Overdue that max.compaction.lag.ms
	// asks for it.
	Ratio        float64
	Due, Overdue bool
}

// PlanKeys decides what of a log may be compacted, and whether it is time, as Kafka's LogCleanerManager does: whole segments
// below Limit, up to the first dirty one with a record younger than min.compaction.lag.ms. It is due when the dirty part is
// larger than min.cleanable.dirty.ratio of it, or holds a record older than max.compaction.lag.ms.
func PlanKeys(in KeyInput) KeyPlan {
	var p KeyPlan
	if len(in.Segments) == 0 {
		return p
	}
	p.FirstDirty = max(in.Cleaned, in.Segments[0].Base)
	p.Bound = p.FirstDirty
	var clean, dirty int64
	oldest := int64(math.MaxInt64)
	for _, s := range in.Segments {
		if s.End > in.Limit {
			break
		}
		if s.End <= p.FirstDirty {
			clean += s.Bytes
			p.Segments++
			continue
		}
		if in.MinLagMs > 0 && s.MaxTimestamp > in.NowMs-in.MinLagMs {
			break
		}
		dirty += s.Bytes // whole, though it may have been compacted in part
		p.Segments++
		p.Bound = s.End
		if s.FirstTimestamp > 0 {
			oldest = min(oldest, s.FirstTimestamp)
		}
	}
	if dirty == 0 {
		return p
	}
	p.Ratio = float64(dirty) / float64(clean+dirty)
	p.Overdue = oldest < in.NowMs-in.MaxLagMs
	p.Due = p.Overdue || p.Ratio > in.MinDirtyRatio
	return p
}
