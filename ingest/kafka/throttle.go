package kafka

import (
	"math"
	"net/netip"
	"reflect"
	"sync"
	"time"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/cluster/quota"
)

const (
	// maxThrottle bounds what a client is asked to wait at once. A debt that is larger is asked for again.
	maxThrottle = 5 * time.Minute
	// maxBuckets bounds the clients that are measured at the same time.
	maxBuckets = 100_000
)

// anonymousUser is the user of a connection without authentication, as Kafka names it.
const anonymousUser = "ANONYMOUS"

// throttles hold clients to the quotas of the metadata image (KIP-13, KIP-219, KIP-599, KIP-612). Safe for concurrent use.
// Produce is answered at once, with the time to wait, and then the connection is muted for that time; Fetch over the quota
// is answered empty in the same way. request_percentage is kept and shown, and not enforced: what a request costs here is
// not the time of a thread.
type throttles struct {
	image  func() *metadata.Image
	config func() *config.Broker

	mu      sync.Mutex
	values  map[string]string // the image's quotas that table was made of
	table   *quota.Table
	buckets map[bucketKey]*bucket
}

// bucketKey is a limit, and who is held to it together.
type bucketKey struct {
	limit  string
	client quota.Client
	addr   netip.Addr
}

func newThrottles(image func() *metadata.Image, config func() *config.Broker) *throttles {
	return &throttles{image: image, config: config, buckets: map[bucketKey]*bucket{}}
}

// allowance is a client's bucket for one limit at one moment. The zero value is no limit.
type allowance struct {
	of   *throttles
	key  bucketKey
	rate float64
	// burst is what the bucket holds.
	burst float64
}

// of returns what holds for the client of a request. Without any quotas it costs a map look-up.
func (t *throttles) of(limit string, c *call) allowance {
	values := t.image().Values(quota.Kind)
	if len(values) == 0 {
		return allowance{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	rate, client, ok := t.tableLocked(values).Limit(limit, anonymousUser, c.clientID)
	if !ok {
		return allowance{}
	}
	return allowance{t, bucketKey{limit: limit, client: client}, rate, rate * t.windows(limit)}
}

// ofAddress is of for the connections from an address.
func (t *throttles) ofAddress(addr netip.Addr) allowance {
	values := t.image().Values(quota.Kind)
	if len(values) == 0 {
		return allowance{}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	rate, ok := t.tableLocked(values).ConnectionLimit(addr)
	if !ok {
		return allowance{}
	}
	return allowance{t, bucketKey{limit: quota.ConnectionRate, addr: addr.Unmap()}, rate, max(1, rate*t.windows(quota.ConnectionRate))}
}

// tableLocked returns the quotas in a form that can be asked. An image's values never change: the same map is the same quotas.
func (t *throttles) tableLocked(values map[string]string) *quota.Table {
	if t.table == nil || reflect.ValueOf(values).Pointer() != reflect.ValueOf(t.values).Pointer() {
		t.table, _ = quota.Parse(values) // a later version's quotas do not hold here
		t.values = values
	}
	return t.table
}

// windows are the seconds of a rate that a client may use up at once: all windows but the one that is running, as in
// Kafka, whose bucket of controller_mutation_rate alone holds them all.
func (t *throttles) windows(limit string) float64 {
	config := t.config()
	if limit == quota.MutationRate {
		return float64(config.Int("controller.quota.window.num") * config.Int("controller.quota.window.size.seconds"))
	}
	return float64(max(config.Int("quota.window.num")-1, 1) * config.Int("quota.window.size.seconds"))
}

// limited reports whether there is a limit.
func (a allowance) limited() bool { return a.of != nil }

// charge takes n tokens and returns how long the client is to wait now.
func (a allowance) charge(n float64, now time.Time) time.Duration {
	if !a.limited() {
		return 0
	}
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	b := a.of.bucketLocked(a, now)
	b.tokens -= n
	return b.wait(a.rate)
}

// wait is how long the client is to wait before it gets anything.
func (a allowance) wait(now time.Time) time.Duration { return a.charge(0, now) }

// room is how many tokens there are, 1 at least.
func (a allowance) room(now time.Time) int {
	if !a.limited() {
		return math.MaxInt
	}
	a.of.mu.Lock()
	defer a.of.mu.Unlock()
	return int(min(max(a.of.bucketLocked(a, now).tokens, 1), math.MaxInt32))
}

// bucketLocked returns a client's bucket as it is now.
func (t *throttles) bucketLocked(a allowance, now time.Time) *bucket {
	b := t.buckets[a.key]
	if b == nil {
		if len(t.buckets) >= maxBuckets {
			clear(t.buckets) // everybody begins anew, which is better than to grow without end
		}
		b = newBucket(a.burst, now)
		t.buckets[a.key] = b
	}
	b.refill(a.rate, a.burst, now)
	return b
}
