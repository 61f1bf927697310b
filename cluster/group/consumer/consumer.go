// Package consumer is one consumer group of KIP-848: a pure state machine over records of __consumer_offsets. It has no
// clock, no I/O, no lock and no randomness of its own. cluster/group owns a map of Groups, gives them requests and the time,
// and appends the records that they return.
//
// Every change is a record that is applied by the same code that replays the log; so a group after a crash is the group
// before it, but for deadlines, which Loaded starts again. Behaviour and record formats are those of Apache Kafka 4.3.1
// (group-coordinator: GroupMetadataManager, CurrentAssignmentBuilder, common/message/ConsumerGroup*.json); the assignors
// are in cluster/group/assign.
//
// # Epochs
//
// The group epoch counts what makes a new target necessary: members, subscriptions, partitions of subscribed topics. The
// target epoch is the group epoch that the target assignment was computed for. A member's epoch is the target epoch
// that it has been brought to. All three only grow.
//
// # Reconciliation
//
// A member whose epoch is behind the target gives up first what is not in its target, and stays in its epoch until a
// heartbeat's list of owned partitions is without them (unrevoked). Then it gets those partitions of its target that no
// other member has, in the target epoch; while others still have some, it waits (unreleased). So a partition never
// has two owners.
//
// # Classic members
//
// A group may have members that speak JoinGroup and SyncGroup, while it is being upgraded or downgraded (classic.go): the
// group is one with both, the assignment of all is computed here.
package consumer

import (
	"slices"
	"time"

	"github.com/everlog/everlog/cluster/group/assign"
)

// TopicID is a topic's id.
type TopicID = assign.TopicID

// Topics is what the cluster has; immutable.
type Topics interface {
	ByName(name string) (id [16]byte, partitions int32, ok bool)
	ByID(id [16]byte) (name string, partitions int32, ok bool)
	// Names yields every topic's name until yield says false.
	Names(yield func(string) bool)
}

// Client says who asks.
type Client struct{ ID, Host string }

// Options of a group. The zero Options has the defaults; each names Kafka's setting.
type Options struct {
	// SessionTimeout after which a silent member is removed (group.consumer.session.timeout.ms, 45 s).
	SessionTimeout time.Duration
	// HeartbeatInterval that members are told (group.consumer.heartbeat.interval.ms, 5 s).
	HeartbeatInterval time.Duration
	// AssignmentInterval between two computations of the target; negative is none (group.consumer.assignment.interval.ms, 1 s;
	// KIP-1263). The first one, and one of an unused group, comes at once.
	AssignmentInterval time.Duration
	// RegexRefreshInterval after which regular expressions are resolved again (group.consumer.regex.refresh.interval.ms, 10 min).
	// They also are when topics come or go, at most every 10 s.
	RegexRefreshInterval time.Duration
	// MaxSize is how many members the group may have (group.consumer.max.size, no limit).
	MaxSize int
	// Assignors that members may ask for; the first is the default (group.consumer.assignors, uniform and range). Unknown
	// ones are left out.
	Assignors []string
	// Migration says which way groups may change their protocol (group.consumer.migration.policy, bidirectional).
	Migration MigrationPolicy
	// ClassicMaxSize is how many members a classic group may have (group.max.size, no limit): a bigger one does not
	// become classic.
	ClassicMaxSize int
	// NewID makes the id of a member that comes without (ConsumerGroupHeartbeat v0, JoinGroup). Needed.
	NewID func() string
}

// MigrationPolicy says which way groups may change their protocol while they have members.
type MigrationPolicy int

// Migration policies, by Kafka's names.
const (
	Bidirectional MigrationPolicy = iota
	UpgradeOnly
	DowngradeOnly
	MigrationDisabled
)

// Upgrade says whether a classic group may become a consumer group.
func (p MigrationPolicy) Upgrade() bool { return p == Bidirectional || p == UpgradeOnly }

// Downgrade says whether a consumer group may become a classic group.
func (p MigrationPolicy) Downgrade() bool { return p == Bidirectional || p == DowngradeOnly }

const (
	defaultSessionTimeout       = 45 * time.Second
	defaultHeartbeatInterval    = 5 * time.Second
	defaultAssignmentInterval   = time.Second
	defaultRegexRefreshInterval = 10 * time.Minute

	// regexMinInterval is the least time between two resolutions of a group's regular expressions, whatever topics come.
	regexMinInterval = 10 * time.Second
)

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, def time.Duration) {
		if *d == 0 {
			*d = def
		}
	}
	set(&o.SessionTimeout, defaultSessionTimeout)
	set(&o.HeartbeatInterval, defaultHeartbeatInterval)
	set(&o.AssignmentInterval, defaultAssignmentInterval)
	set(&o.RegexRefreshInterval, defaultRegexRefreshInterval)
	o.Assignors = slices.DeleteFunc(slices.Clone(o.Assignors), func(name string) bool { return assign.ByName(name) == nil })
	if len(o.Assignors) == 0 {
		o.Assignors = []string{assign.UniformName, assign.RangeName}
	}
	return o
}
