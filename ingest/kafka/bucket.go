package kafka

import "time"

// bucket measures one client against one rate: a token bucket. It holds at most burst tokens, gets rate of them a second,
// and may be overdrawn: what was asked for is given as long as the bucket is not empty, and the debt must be waited out.
//
// Kafka measures the mean rate over its windows (quota.window.num of quota.window.size.seconds) and makes a client wait
// until the mean is back at the quota. For a client that was quiet before, that is the same sum: with a burst of all full
// windows the wait is (sent - burst) / rate. Unlike windows, a debt is not forgotten when the client comes back later.
type bucket struct {
	tokens float64
	at     time.Time // when tokens was right
}

// newBucket returns a full bucket.
func newBucket(burst float64, now time.Time) *bucket { return &bucket{tokens: burst, at: now} }

// refill brings the tokens up to now.
func (b *bucket) refill(rate, burst float64, now time.Time) {
	if passed := now.Sub(b.at); passed > 0 {
		b.tokens += passed.Seconds() * rate
		b.at = now
	}
	b.tokens = min(b.tokens, burst)
}

// wait is how long it takes until the debt is paid; 0 without one.
func (b *bucket) wait(rate float64) time.Duration {
	if b.tokens >= 0 {
		return 0
	}
	seconds := -b.tokens / rate
	if seconds >= maxThrottle.Seconds() {
		return maxThrottle
	}
	return time.Duration(seconds * float64(time.Second))
}
