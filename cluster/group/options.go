package group

import (
	"math"
	"time"

	"github.com/everlog/everlog/cluster/group/consumer"
)

// Options of a machine. The zero Options has Kafka's defaults, but NewID is needed.
type Options struct {
	// NewID makes the unique part of a member's id: no two calls give the same, not of another broker either.
	NewID func() string
	// InitialRebalanceDelay that an empty group waits for more members (group.initial.rebalance.delay.ms, 3 s); negative is none.
	InitialRebalanceDelay time.Duration
	// MinSessionTimeout and MaxSessionTimeout that a classic member may ask for (group.min.session.timeout.ms, 6 s, and
	// group.max.session.timeout.ms, 30 min).
	MinSessionTimeout, MaxSessionTimeout time.Duration
	// NewMemberTimeout bounds how long a new member's first JoinGroup is parked (5 min; not a setting in Kafka).
	NewMemberTimeout time.Duration
	// MaxSize is how many members a classic group may have (group.max.size, no limit).
	MaxSize int
	// MaxOffsetMetadata of a commit, in characters as Java counts them (offset.metadata.max.bytes, 4096).
	MaxOffsetMetadata int
	// OffsetsRetention after which offsets nobody uses are removed (offsets.retention.minutes, 7 days).
	OffsetsRetention time.Duration
	// RetentionCheckInterval between two searches for them (offsets.retention.check.interval.ms, 10 min).
	RetentionCheckInterval time.Duration
	// Consumer are the options of KIP-848 groups (group.consumer.*). NewID and ClassicMaxSize are taken from above.
	Consumer consumer.Options
}

const (
	defaultInitialRebalanceDelay  = 3 * time.Second
	defaultMinSessionTimeout      = 6 * time.Second
	defaultMaxSessionTimeout      = 30 * time.Minute
	defaultNewMemberTimeout       = 5 * time.Minute
	defaultMaxOffsetMetadata      = 4096
	defaultOffsetsRetention       = 7 * 24 * time.Hour
	defaultRetentionCheckInterval = 10 * time.Minute
)

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&o.InitialRebalanceDelay, defaultInitialRebalanceDelay)
	o.InitialRebalanceDelay = max(o.InitialRebalanceDelay, 0)
	set(&o.MinSessionTimeout, defaultMinSessionTimeout)
	set(&o.MaxSessionTimeout, defaultMaxSessionTimeout)
	set(&o.NewMemberTimeout, defaultNewMemberTimeout)
	set(&o.OffsetsRetention, defaultOffsetsRetention)
	set(&o.RetentionCheckInterval, defaultRetentionCheckInterval)
	if o.MaxSize == 0 {
		o.MaxSize = math.MaxInt32
	}
	if o.MaxOffsetMetadata == 0 {
		o.MaxOffsetMetadata = defaultMaxOffsetMetadata
	}
	o.Consumer.NewID = o.NewID
	o.Consumer.ClassicMaxSize = o.MaxSize
	return o
}

// consumerOptions are those of one KIP-848 group.
func (m *Machine) consumerOptions(group string) consumer.Options {
	if m.own == nil {
		return m.o.Consumer
	}
	o := m.own(group)
	o.NewID, o.ClassicMaxSize = m.o.Consumer.NewID, m.o.Consumer.ClassicMaxSize
	return o
}

// configure gives every KIP-848 group its options, now and when it comes.
func (m *Machine) configure(own func(group string) consumer.Options) {
	m.own = own
	for _, g := range m.groups {
		if g.consumer != nil {
			g.consumer.Configure(m.consumerOptions(g.id))
		}
	}
}
