package config

import (
	"errors"
	"math"
	"strconv"
	"strings"
	"time"
)

// fallback is one name of a chain of broker settings, with the factor that brings its number to the first one's unit.
type fallback struct {
	name   string
	factor int64
}

const (
	minuteMs = 60_000
	hourMs   = 60 * minuteMs
)

var chains = map[string][]fallback{
	"log.retention.ms":      {{"log.retention.ms", 1}, {"log.retention.minutes", minuteMs}, {"log.retention.hours", hourMs}},
	"log.roll.ms":           {{"log.roll.ms", 1}, {"log.roll.hours", hourMs}},
	"log.roll.jitter.ms":    {{"log.roll.jitter.ms", 1}, {"log.roll.jitter.hours", hourMs}},
	"log.flush.interval.ms": {{"log.flush.interval.ms", 1}, {"log.flush.scheduler.interval.ms", 1}},
	"log.dirs":              {{"log.dirs", 1}, {"log.dir", 1}},
	"node.id":               {{"node.id", 1}, {"broker.id", 1}},
}

// fallbacks returns the names that are asked in turn for a broker setting, itself first.
func fallbacks(name string) []fallback {
	if c, ok := chains[name]; ok {
		return c
	}
	if name == "" {
		return nil
	}
	return []fallback{{name, 1}}
}

// Broker is the effective configuration of one broker: its file and flags, under them Kafka's and everlog's defaults,
// over them what was changed at run time. Immutable.
type Broker struct {
	static, cluster, own map[string]string

	// FlushOS is true for flush=os: a record counts when the operating system has it, as in Kafka.
	FlushOS bool
	// LocalBudgetBytes is the hot tier's share of the disk; 0 means 80 % of the file system's capacity.
	LocalBudgetBytes int64
	// TierSeal is the age at which a segment with records that are not yet remote is sealed.
	TierSeal time.Duration
	// TierUploadBytesPerSecond limits uploads; 0 is no limit.
	TierUploadBytesPerSecond int64
	TierUploadThreads        int
	CacheMemoryBytes         int64
	CacheDiskBytes           int64

	NumPartitions            int32
	DefaultReplicationFactor int16
	MinInsyncReplicas        int
	AutoCreateTopics         bool
	DeleteTopics             bool
	// ReplicaLagMax is replica.lag.time.max.ms.
	ReplicaLagMax time.Duration
	// RetentionCheck is log.retention.check.interval.ms.
	RetentionCheck      time.Duration
	SocketRequestMax    int
	FetchMaxBytes       int
	ProducerIDExpiry    time.Duration
	OffsetsPartitions   int32
	OffsetsReplication  int16
	TxnLogPartitions    int32
	TxnLogReplication   int16
	TxnLogMinISR        int
	ConnectionsMaxIdle  time.Duration
	MaxConnections      int
	MaxConnectionsPerIP int
}

// ParseBroker validates the settings of a configuration file or command line. Unknown names are refused, with the likely
// one in the sentence; all faults are reported at once. A nil map gives the defaults.
func ParseBroker(static map[string]string) (*Broker, error) {
	clean, err := parseLayer(static)
	if err != nil {
		return nil, err
	}
	b := &Broker{static: clean}
	b.fill()
	return b, nil
}

// WithDynamic returns the configuration with the settings changed at run time laid over it: the cluster's defaults, then
// the broker's own. The result is never nil: values that cannot be read (written by a later version, say) are left out
// and reported in the error, since a broker must start whatever the metadata holds.
func (b *Broker) WithDynamic(cluster, own map[string]string) (*Broker, error) {
	c, err1 := parseLayer(cluster)
	o, err2 := parseLayer(own)
	n := &Broker{static: b.static, cluster: c, own: o}
	n.fill()
	return n, errors.Join(err1, err2)
}

func parseLayer(values map[string]string) (map[string]string, error) {
	clean := make(map[string]string, len(values))
	var faults []error
	for _, name := range sortedNames(values) {
		k, ok := BrokerKey(name)
		if !ok {
			faults = append(faults, unknownBroker(name))
			continue
		}
		v, err := k.parse(values[name])
		if err != nil {
			faults = append(faults, err)
			continue
		}
		clean[name] = v
	}
	return clean, errors.Join(faults...)
}

func (b *Broker) fill() {
	b.FlushOS = b.Text("flush") == "os"
	b.LocalBudgetBytes = b.Int("local.budget.bytes")
	b.TierSeal = b.Millis("tier.seal.ms")
	b.TierUploadBytesPerSecond = b.Int("tier.upload.max.bytes.per.second")
	if limit := b.Int("remote.log.manager.copy.max.bytes.per.second"); limit < math.MaxInt64 &&
		(b.TierUploadBytesPerSecond == 0 || limit < b.TierUploadBytesPerSecond) {
		b.TierUploadBytesPerSecond = limit
	}
	b.TierUploadThreads = int(b.Int("tier.upload.threads"))
	b.CacheMemoryBytes = b.Int("cache.memory.bytes")
	b.CacheDiskBytes = b.Int("cache.disk.bytes")
	b.NumPartitions = int32(b.Int("num.partitions"))
	b.DefaultReplicationFactor = int16(min(b.Int("default.replication.factor"), math.MaxInt16))
	b.MinInsyncReplicas = int(b.Int("min.insync.replicas"))
	b.AutoCreateTopics = b.Bool("auto.create.topics.enable")
	b.DeleteTopics = b.Bool("delete.topic.enable")
	b.ReplicaLagMax = b.Millis("replica.lag.time.max.ms")
	b.RetentionCheck = b.Millis("log.retention.check.interval.ms")
	b.SocketRequestMax = int(b.Int("socket.request.max.bytes"))
	b.FetchMaxBytes = int(b.Int("fetch.max.bytes"))
	b.ProducerIDExpiry = b.Millis("producer.id.expiration.ms")
	b.OffsetsPartitions = int32(b.Int("offsets.topic.num.partitions"))
	b.OffsetsReplication = int16(b.Int("offsets.topic.replication.factor"))
	b.TxnLogPartitions = int32(b.Int("transaction.state.log.num.partitions"))
	b.TxnLogReplication = int16(b.Int("transaction.state.log.replication.factor"))
	b.TxnLogMinISR = int(b.Int("transaction.state.log.min.isr"))
	b.ConnectionsMaxIdle = b.Millis("connections.max.idle.ms")
	b.MaxConnections = int(b.Int("max.connections"))
	b.MaxConnectionsPerIP = int(b.Int("max.connections.per.ip"))
}

// layered is one value of one name in one layer.
type layered struct {
	name, value string
	source      Source
	factor      int64
}

// values returns what every layer says of a name, strongest first, the default last.
func (b *Broker) values(f fallback) []layered {
	var found []layered
	for _, layer := range []struct {
		values map[string]string
		source Source
	}{{b.own, FromBroker}, {b.cluster, FromClusterDefault}, {b.static, FromStatic}} {
		if v, ok := layer.values[f.name]; ok {
			found = append(found, layered{f.name, v, layer.source, f.factor})
		}
	}
	if k, ok := BrokerKey(f.name); ok && k.HasDefault {
		found = append(found, layered{f.name, k.Default, FromDefault, f.factor})
	}
	return found
}

// chain returns every value that a name could take, in the order in which they are asked.
func (b *Broker) chain(name string) []layered {
	var all []layered
	for _, f := range fallbacks(name) {
		all = append(all, b.values(f)...)
	}
	return all
}

// text returns a value in the unit of the chain's first name.
func (l layered) text() string {
	if l.factor == 1 {
		return l.value
	}
	n, _ := strconv.ParseInt(l.value, 10, 64)
	if n >= 0 {
		n *= l.factor
	}
	return strconv.FormatInt(n, 10)
}

// Lookup returns the effective text of a setting, following its synonyms; false if it is null.
func (b *Broker) Lookup(name string) (string, bool) {
	if _, ok := BrokerKey(name); !ok {
		panic("no such broker setting: " + name)
	}
	all := b.chain(name)
	if len(all) == 0 {
		return "", false
	}
	return all[0].text(), true
}

// Text returns a setting's text, "" for null. Like all accessors it panics for a name that does not exist.
func (b *Broker) Text(name string) string {
	v, _ := b.Lookup(name)
	return v
}

// Int returns a setting of an integer type.
func (b *Broker) Int(name string) int64 {
	n, _ := strconv.ParseInt(b.Text(name), 10, 64)
	return n
}

// Float returns a setting of type Double.
func (b *Broker) Float(name string) float64 {
	f, _ := strconv.ParseFloat(b.Text(name), 64)
	return f
}

// Bool returns a setting of type Boolean.
func (b *Broker) Bool(name string) bool { return strings.EqualFold(b.Text(name), "true") }

// List returns a setting of type List.
func (b *Broker) List(name string) []string { return splitList(b.Text(name)) }

// Millis returns a setting that counts milliseconds; negative stays negative, and more than 292 years become 292.
func (b *Broker) Millis(name string) time.Duration { return millis(b.Int(name)) }

func millis(ms int64) time.Duration {
	switch {
	case ms < 0:
		return -1
	case ms > math.MaxInt64/int64(time.Millisecond):
		return math.MaxInt64
	}
	return time.Duration(ms) * time.Millisecond
}
