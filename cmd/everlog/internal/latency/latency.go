// Package latency owns a histogram of durations with a fixed relative error, for bench and doctor. It measures nothing by
// itself.
package latency

import (
	"math/bits"
	"time"
)

// subBits is how finely a power of two is divided: 128 parts, so a value is off by less than 0.8 %.
const subBits = 7

// Histogram counts durations. The zero value is empty and ready. Not safe for concurrent use.
type Histogram struct {
	counts [(64 - subBits) << subBits]uint64
	count  uint64
	sum    time.Duration
	max    time.Duration
}

// Add counts one duration; below zero is zero.
func (h *Histogram) Add(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(uint64(d))]++
	h.count++
	h.sum += d
	h.max = max(h.max, d)
}

// Merge adds the counts of another histogram.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.count, h.sum, h.max = h.count+o.count, h.sum+o.sum, max(h.max, o.max)
}

// Count is how many durations were added, Max the longest, Mean the average (0 without any).
func (h *Histogram) Count() uint64 { return h.count }

// Max is the longest duration added.
func (h *Histogram) Max() time.Duration { return h.max }

// Mean is the average, 0 without any.
func (h *Histogram) Mean() time.Duration {
	if h.count == 0 {
		return 0
	}
	return h.sum / time.Duration(h.count)
}

// Quantile gives the duration that a part q in [0, 1] of all does not exceed, within the histogram's error; 0 without any.
func (h *Histogram) Quantile(q float64) time.Duration {
	rank := uint64(q*float64(h.count) + 0.5)
	rank = min(max(rank, 1), h.count)
	var seen uint64
	for i, n := range h.counts {
		if seen += n; n > 0 && seen >= rank {
			return min(time.Duration(highest(i)), h.max)
		}
	}
	return 0
}

// bucket numbers the values: one each up to 2^subBits, then 2^subBits for each power of two.
func bucket(v uint64) int {
	if v < 1<<subBits {
		return int(v)
	}
	shift := bits.Len64(v) - subBits - 1
	return shift<<subBits + int(v>>shift)
}

// highest is the largest value in a bucket.
func highest(i int) uint64 {
	if i < 1<<(subBits+1) {
		return uint64(i)
	}
	shift := i>>subBits - 1
	return (uint64(i-shift<<subBits)+1)<<shift - 1
}
