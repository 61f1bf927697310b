package node

import (
	"math"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/tier/record"
)

// metrics are what /metrics shows. What can be read off the parts is read when asked for (collector); only what would be
// gone by then is counted as it happens.
type metrics struct {
	registry *prometheus.Registry

	requests *prometheus.HistogramVec
	store    *prometheus.HistogramVec
	bytes    *prometheus.CounterVec
	errors   *prometheus.CounterVec
	fsync    prometheus.Histogram
}

// latencies spans what a cached answer and a slow store take, in seconds.
var latencies = prometheus.ExponentialBuckets(0.0001, 2.5, 14)

func newMetrics() *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "everlog_request_duration_seconds", Help: "Time from a request's last byte to its response, long polls included.", Buckets: latencies}, []string{"api"}),
		store:    prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "everlog_objectstore_request_duration_seconds", Help: "Time of one request to the object store.", Buckets: latencies}, []string{"op"}),
		bytes:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "everlog_objectstore_bytes_total", Help: "Bytes sent to and received from the object store."}, []string{"op"}),
		errors:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "everlog_objectstore_errors_total", Help: "Requests to the object store that failed; absent objects and lost conditions are not failures."}, []string{"op"}),
		fsync:    prometheus.NewHistogram(prometheus.HistogramOpts{Name: "everlog_wal_fsync_seconds", Help: "Time of one fsync of a local log.", Buckets: latencies}),
	}
	m.registry.MustRegister(m.requests, m.store, m.bytes, m.errors, m.fsync, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	build := prometheus.NewGauge(prometheus.GaugeOpts{Name: "everlog_build_info", Help: "Always 1; the labels say what runs.", ConstLabels: prometheus.Labels{"version": Version()}})
	build.Set(1)
	m.registry.MustRegister(build)
	return m
}

// Version is the module's version as the Go tool stamped it, or "devel".
func Version() string {
	if bi, ok := debug.ReadBuildInfo(); ok && bi.Main.Version != "" {
		return bi.Main.Version
	}
	return "devel"
}

func (m *metrics) observeStore(op string, bytes int64, took time.Duration, err error) {
	m.store.WithLabelValues(op).Observe(took.Seconds())
	m.bytes.WithLabelValues(op).Add(float64(max(bytes, 0)))
	if err != nil && !expected(err) {
		m.errors.WithLabelValues(op).Inc()
	}
}

func (m *metrics) observeSync(took time.Duration) { m.fsync.Observe(took.Seconds()) }

// observeRequest must be cheap: it runs for every request.
func (m *metrics) observeRequest(key int16, took time.Duration) {
	m.requests.WithLabelValues(kmsg.NameForKey(key)).Observe(took.Seconds())
}

// collector reads the node's state when it is asked for.
type collector struct{ n *Node }

// desc makes the description of a metric that the collector reads.
func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc("everlog_"+name, help, labels, nil)
}

var (
	descPartitions  = desc("partitions", "Replicas open on this broker.")
	descLeaders     = desc("partitions_led", "Partitions that this broker leads.")
	descConns       = desc("connections", "Open client connections.")
	descLocal       = desc("log_bytes", "Bytes of local logs on disk.")
	descBudget      = desc("log_budget_bytes", "Bytes that local logs may take.")
	descUntiered    = desc("tier_unuploaded_bytes", "Bytes of local logs that are not in the object store.")
	descLevel       = desc("disk_level", "What the disk's filling asks for: 0 nothing, 1 trim, 2 throttle producers, 3 refuse them.")
	descToFull      = desc("time_to_full_seconds", "Seconds until data that is not in the object store fills the budget, at present rates; +Inf if it never does.")
	descFree        = desc("disk_free_bytes", "Free bytes of the file system of the data directory.")
	descLag         = desc("tier_upload_lag_seconds", "Age of the oldest record that is not in the object store.", "topic")
	descRemote      = desc("tier_bytes", "Bytes of a topic's records, by place.", "topic", "place")
	descStuck       = desc("tier_stopped_partitions", "Partitions whose remote log failed at its last attempt.")
	descIngested    = desc("produce_bytes_total", "Bytes of record batches appended, by partitions open now.")
	descCacheHits   = desc("cache_hits_total", "Blocks of history found in memory.")
	descCacheMisses = desc("cache_misses_total", "Blocks of history that had to be loaded.")
	descCacheEvict  = desc("cache_evictions_total", "Blocks of history that left memory.")
	descCacheBytes  = desc("cache_bytes", "Bytes of history in the cache, by tier.", "tier")
	descCacheGets   = desc("cache_gets_total", "Ranged GETs made to fill the cache.")
	descCompact     = desc("compaction_passes_total", "Passes of key compaction over local logs, by outcome.", "outcome")
	descCompactRead = desc("compaction_read_bytes_total", "Bytes of local segments that key compaction has read.")
	descCompactLeft = desc("compaction_left_bytes_total", "Bytes that it left of them.")
	descExchanged   = desc("compaction_exchanged_objects_total", "Objects that took the place of others in the store after key compaction.")
	descVersion     = desc("metadata_version", "Version of the metadata image.")
)

func (m *metrics) observe(n *Node) { m.registry.MustRegister(collector{n}) }

// Describe sends nothing: the collector is unchecked, since its topics come and go.
func (c collector) Describe(chan<- *prometheus.Desc) {}

// Collect reads everything once.
func (c collector) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	b := c.n.broker
	c.topics(gauge, counter)
	gauge(descConns, float64(c.n.server.Connections()))
	p := b.Pressure()
	gauge(descLocal, float64(p.Used))
	gauge(descBudget, float64(p.Budget))
	gauge(descUntiered, float64(p.Untiered))
	gauge(descLevel, float64(p.Level))
	gauge(descToFull, p.TimeToFull)
	if _, free, err := b.DiskUsage(); err == nil {
		gauge(descFree, float64(free))
	}
	s := c.n.cache.Stats()
	counter(descCacheHits, float64(s.Hits+s.Shared))
	counter(descCacheMisses, float64(s.Misses))
	counter(descCacheEvict, float64(s.Evicted))
	counter(descCacheGets, float64(s.Gets))
	gauge(descCacheBytes, float64(s.MemoryBytes), "memory")
	gauge(descCacheBytes, float64(s.DiskBytes), "disk")
	k := b.Compactions()
	counter(descCompact, float64(k.Passes), "ended")
	counter(descCompact, float64(k.Failures), "failed")
	counter(descCompactRead, float64(k.BytesBefore))
	counter(descCompactLeft, float64(k.BytesAfter))
	counter(descExchanged, float64(k.Exchanged))
	gauge(descVersion, float64(b.Image().Version))
}

// maxTopicLabels bounds the series by topic; further topics are summed up as "(other)".
const maxTopicLabels = 1000

// topicSums are one topic's series.
type topicSums struct {
	local, remote int64
	lag           time.Duration
}

func (c collector) topics(gauge, counter func(*prometheus.Desc, float64, ...string)) {
	sums := map[string]*topicSums{}
	led, stuck, total := 0, 0, 0
	var ingested int64
	now := time.Now()
	for _, p := range c.n.broker.Partitions() {
		name := p.Topic()
		if sums[name] == nil && len(sums) >= maxTopicLabels {
			name = "(other)"
		}
		t := sums[name]
		if t == nil {
			t = &topicSums{}
			sums[name] = t
		}
		total++
		if p.LeaderEpoch() != record.NoEpoch {
			led++
		}
		t.local += p.Size()
		ingested += p.Ingested()
		if tier := p.Tier(); tier != nil {
			lag, _ := tier.Lag(now)
			t.lag = max(t.lag, lag)
			if m := tier.Manifest(); m != nil {
				t.remote += m.Bytes()
			}
			if tier.Err() != nil {
				stuck++
			}
		}
	}
	for name, t := range sums {
		gauge(descLag, t.lag.Seconds(), name)
		gauge(descRemote, float64(t.local), name, "local")
		gauge(descRemote, float64(t.remote), name, "remote")
	}
	gauge(descPartitions, float64(total))
	gauge(descLeaders, float64(led))
	gauge(descStuck, float64(stuck))
	counter(descIngested, float64(ingested))
}

// checks are the conditions of readiness.
func (n *Node) checks() []check {
	serving := check{Name: "serving", OK: n.serving.Load()}
	if !serving.OK {
		serving.Reason = "starting or stopping"
		return []check{serving}
	}
	p := n.broker.Pressure()
	disk := check{Name: "disk", OK: n.broker.Admit() == nil}
	if !disk.OK {
		disk.Reason = "the hot tier is full: " + strconv.FormatInt(p.Untiered, 10) + " bytes wait for the object store"
	}
	if !math.IsInf(p.TimeToFull, 1) && p.TimeToFull < 3600 && disk.OK {
		disk.Reason = "full in " + time.Duration(p.TimeToFull*float64(time.Second)).Round(time.Second).String() + " at present rates"
	}
	return []check{serving, disk}
}
