// Package group is the group coordinator of one partition of __consumer_offsets: a pure state machine that a
// coordinator.Shard runs over the partition's log. It owns the groups whose ids hash to the partition, of both protocols,
// and their offsets: classic groups (JoinGroup and its kin) entirely, KIP-848 groups by way of cluster/group/consumer. It
// decides no assignment of a classic group (a member does), checks no topic (the caller does), and never blocks.
//
// Behaviour and record formats are those of Apache Kafka 4.3.1 (group-coordinator: GroupMetadataManager,
// OffsetMetadataManager, ClassicGroup). Where Kafka leaves a replaced or removed member's parked call without an answer,
// this one answers it.
//
// # Classic groups
//
//	Empty ──join──► PreparingRebalance ──all joined, or time is up──► CompletingRebalance ──leader syncs──► Stable
//	  ▲                   │    ▲                                              │                              │
//	  └──none is left─────┘    └──────────a member joins, leaves, changes, is silent, does not sync──────────┘
//
// A call is parked in its member: JoinGroup while the group prepares, SyncGroup until the leader's comes. A generation
// is the time from one completed join to the next; whoever is not of it is told so.
//
// # What is in the log
//
// A group's record is written when the group appears, when the leader's assignment comes (before anybody gets it), when a
// static member is replaced in a stable group, and when the last member is gone; an offset's with each commit. So a group
// restored in the middle of a rebalance is the stable one before it, and its members learn of it by their generation.
package group

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/group/consumer"
	"github.com/everlog/everlog/tier/record"
)

// Topics is what the cluster has; immutable.
type Topics = consumer.Topics

// Client says who asks.
type Client = consumer.Client

// Request is a request of a client: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, OffsetCommit, TxnOffsetCommit, OffsetDelete
// or ConsumerGroupHeartbeat. The answer is the kmsg response of it, of the same version.
//
// Topics and partitions that are not there have been answered and taken out by the caller: what is given is committed.
// A topic may be named, identified or both. A caller that knows the id of a topic named in an OffsetCommit should set it in
// older versions too: it then does not matter whose view of the topics is newer.
type Request struct {
	Client  Client
	Body    kmsg.Request
	Version int16
}

// FetchOffsets asks for committed offsets; a nil Topics for all. The answer is a kmsg.OffsetFetchResponseGroup, with name and
// id of each topic where both are known.
type FetchOffsets struct {
	Group kmsg.OffsetFetchRequestGroup
	// RequireStable refuses an offset that a transaction under way may change (KIP-447).
	RequireStable bool
	Version       int16
}

// Describe asks for a classic group. The answer is a kmsg.DescribeGroupsResponseGroup.
type Describe struct {
	Group   string
	Version int16
}

// DescribeConsumer asks for a KIP-848 group. The answer is a kmsg.ConsumerGroupDescribeResponseGroup.
type DescribeConsumer struct{ Group string }

// List asks for the groups in one of States and of one of Types, whatever their case; none is any. The answer is a
// []kmsg.ListGroupsResponseGroup, in order.
type List struct{ States, Types []string }

// Delete removes a group without members, and its offsets. The answer is an error code, int16.
type Delete struct{ Group string }

// EndTxn says that the marker of a producer's transaction is in the log. The answer is nil.
type EndTxn struct {
	ProducerID    record.ProducerID
	ProducerEpoch record.ProducerEpoch
	Commit        bool
}

// TopicsChanged replaces the machine's Topics. Offsets of topics that are gone, or are others now of the same name, are
// removed; the first one after loading looks at all of them. The answer is nil.
type TopicsChanged struct{ Topics Topics }

// Configured gives KIP-848 groups options of their own (KIP-848's group configs). Of is a function of the group's id alone;
// its NewID and ClassicMaxSize are not used. The answer is nil.
type Configured struct {
	Of func(group string) consumer.Options
}
