// Package metadata owns what a cluster knows of itself: the image (brokers, topics, partitions, settings, producer ids)
// and the log of changes that it is the sum of. The log is a sequence of create-only objects in the bucket, meta/log/<n>,
// each the result of one commit; whoever creates number n first has decided n, for everybody and for ever. Snapshots and
// the boundary object meta/root let old numbers go. FORMAT.md has the bytes, DESIGN.md one directory up the reasons.
//
// It decides nothing about the cluster: cluster/controller makes the records, brokers read images. It knows no leases: an
// epoch in every object fences controllers that were deposed.
//
// # The rules of a slot
//
// The outcome of a commit is unknown until its slot was read back; the same bytes are sent until then, and nothing is
// written to slot n+1 before n is decided. After each creation the boundary is read: below it a slot may have been
// deleted and created anew, so nothing is claimed there. Each object names the SHA-256 of the one before.
package metadata

import (
	"errors"

	"github.com/everlog/everlog/tier/record"
)

var (
	// ErrLost means that another commit took the slot, or that base was not the newest image. Nothing was committed; the
	// image that Commit returns is newer, and the change must be made and checked again on top of it.
	ErrLost = errors.New("metadata changed meanwhile")
	// ErrFenced means that this process is not the controller of the newest image and its records do not make it so.
	ErrFenced = errors.New("not the controller in the metadata log")
	// ErrUnavailable means that the store did not answer in time. The change may have happened, and may yet happen.
	ErrUnavailable = errors.New("metadata store unavailable")
	// ErrRestored means that the bucket holds an older or another history than this process has seen: it was emptied, or
	// restored from a copy. Nothing goes on until a person has decided which history is right.
	ErrRestored = errors.New("the bucket is older than what was seen before")
	// ErrWrongCluster means that the bucket belongs to another cluster than the one asked for or seen before.
	ErrWrongCluster = errors.New("the bucket belongs to another cluster")
	// ErrNoCluster means that the prefix holds no cluster and none was to be created.
	ErrNoCluster = errors.New("no cluster at this place in the bucket")
	// ErrCorrupt means that an object is not what was written, or contradicts those before it.
	ErrCorrupt = errors.New("corrupt metadata")
	// ErrVersion means that an object was written by a later version of everlog.
	ErrVersion = errors.New("metadata of a later version of everlog")
	// ErrInvalid means that a record contradicts the image it is for. It is a fault of the caller, and nothing was written.
	ErrInvalid = errors.New("invalid metadata record")
)

// NoLeader is the leader of a partition that has none.
const NoLeader int32 = -1

// Broker is one registered broker. Immutable.
type Broker struct {
	ID int32 `json:"id"`
	// Epoch is the version of the commit that registered it: one process lifetime.
	Epoch int64 `json:"epoch"`
	// DiskID is the identity of its data directory. Another one means that its local data is gone.
	DiskID string `json:"disk"`
	// Incarnation names the process, known to its disk before it was committed: a disk that does not know it is an older copy.
	Incarnation string `json:"incarnation,omitempty"`
	Host        string `json:"host"`
	Port        int32  `json:"port"`
	Rack        string `json:"rack,omitempty"`
	// Listeners are further addresses by listener name; may be empty.
	Listeners []Listener `json:"listeners,omitempty"`
}

// Listener is one named address of a broker.
type Listener struct {
	Name     string `json:"name"`
	Protocol string `json:"protocol"`
	Host     string `json:"host"`
	Port     int32  `json:"port"`
}

// Topic is one topic. Immutable; also its maps and slices must not be modified.
type Topic struct {
	ID   record.TopicID `json:"id"`
	Name string         `json:"name"`
	// Created is the version of the commit that made it.
	Created uint64 `json:"created"`
	// Configs are the topic's own settings; see cluster/config for effective ones.
	Configs    map[string]string `json:"configs,omitempty"`
	Partitions []Partition       `json:"partitions"`
	// Internal is true for __consumer_offsets and __transaction_state.
	Internal bool `json:"-"`
}

// Partition is the decided state of one partition. It never holds offsets: those are the replicas' business.
type Partition struct {
	// Leader is a member of ISR, or NoLeader.
	Leader int32 `json:"leader"`
	// LeaderEpoch grows with every change of leader and with every new process of the same leader.
	LeaderEpoch record.LeaderEpoch `json:"leaderEpoch"`
	// PartitionEpoch grows by one with every change.
	PartitionEpoch int32 `json:"partitionEpoch"`
	// Replicas begin with the preferred leader. ISR is a subset, and empty when all complete copies are known to be lost.
	Replicas []int32 `json:"replicas"`
	ISR      []int32 `json:"isr"`
}

// Controller is who may commit.
type Controller struct {
	// Epoch is that of its lease; 0 before the first.
	Epoch int64 `json:"epoch"`
	// Writer is Options.Writer of its process.
	Writer string `json:"writer,omitempty"`
}

// isInternal reports whether Kafka treats a topic of that name as internal.
func isInternal(name string) bool {
	return name == "__consumer_offsets" || name == "__transaction_state"
}
