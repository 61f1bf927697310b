package controller

import (
	"context"
	"errors"
	"slices"

	"github.com/everlog/everlog/cluster/metadata"
)

// Refusals of elections and reassignments.
var (
	// ErrElectionNotNeeded means that the partition has the leader that the election was to give it.
	ErrElectionNotNeeded = errors.New("election not needed")
	// ErrPreferredNotAvailable means that the preferred leader is not in sync, or not alive.
	ErrPreferredNotAvailable = errors.New("preferred leader not available")
	// ErrEligibleNotAvailable means that no replica may lead.
	ErrEligibleNotAvailable = errors.New("no eligible leader available")
	// ErrNoReassignment means that there is no reassignment to cancel.
	ErrNoReassignment = errors.New("no reassignment in progress")
)

// Election is the kind of an election, numbered as in ElectLeaders requests.
type Election int8

// The elections. Unclean gives a partition without a leader one of its ISR, never one that lost records: everlog empties no
// ISR by choice, so that there is nothing else to be won.
const (
	Preferred Election = 0
	Unclean   Election = 1
)

// PartitionRef names a partition by its topic's name.
type PartitionRef struct {
	Topic string
	Index int32
}

func (r PartitionRef) find(img *metadata.Image) (*metadata.Topic, *metadata.Partition, error) {
	t := img.Topic(r.Topic)
	if t == nil {
		return nil, nil, refuse(ErrUnknownTopic, "No such topic as %s", r.Topic)
	}
	if r.Index < 0 || int(r.Index) >= len(t.Partitions) {
		return nil, nil, refuse(ErrUnknownTopic, "No such partition as %s-%d", r.Topic, r.Index)
	}
	return t, &t.Partitions[r.Index], nil
}

// ElectLeaders elects leaders, each partition for itself, and returns one error or nil per partition. ErrElectionNotNeeded,
// ErrPreferredNotAvailable, ErrEligibleNotAvailable, ErrUnknownTopic; see CreateTopics.
func (c *Controller) ElectLeaders(ctx context.Context, kind Election, partitions []PartitionRef) []error {
	return c.eachChange(ctx, len(partitions), false, func(img *metadata.Image, i int) (metadata.Record, error) {
		t, p, err := partitions[i].find(img)
		if err != nil {
			return nil, err
		}
		leader, err := c.winner(img, kind, p)
		if err != nil {
			return nil, err
		}
		next := *p
		next.Leader = leader
		next.LeaderEpoch++
		next.PartitionEpoch++
		return metadata.PartitionChanged{ID: t.ID, Index: partitions[i].Index, Partition: next}, nil
	})
}

// winner is the leader that an election gives a partition.
func (c *Controller) winner(img *metadata.Image, kind Election, p *metadata.Partition) (int32, error) {
	can := func(b int32) bool { return slices.Contains(p.ISR, b) && img.Broker(b) != nil && c.alive(b) }
	switch {
	case kind == Preferred && p.Leader == p.Replicas[0], kind == Unclean && p.Leader != metadata.NoLeader:
		return 0, refuse(ErrElectionNotNeeded, "Leader election not needed for topic partition.")
	case kind == Preferred && !can(p.Replicas[0]):
		return 0, refuse(ErrPreferredNotAvailable, "The preferred leader was not available.")
	case kind == Preferred:
		return p.Replicas[0], nil
	}
	if i := slices.IndexFunc(p.Replicas, can); i >= 0 {
		return p.Replicas[i], nil
	}
	return 0, refuse(ErrEligibleNotAvailable, "Eligible topic partition leaders are not available.")
}

// Reassignment asks for other replicas of a partition; nil Replicas cancel what is under way.
type Reassignment struct {
	PartitionRef
	Replicas []int32
}

// Reassign changes the replicas of partitions, each for itself, and returns one error or nil per partition. Only the order
// can change so far, and with it the preferred leader: no partition moves between brokers, so none is ever under way.
// fixedFactor refuses another number of replicas. ErrInvalidAssignment, ErrInvalidReplicationFactor, ErrNoReassignment,
// ErrUnknownTopic; see CreateTopics.
func (c *Controller) Reassign(ctx context.Context, changes []Reassignment, fixedFactor bool) []error {
	return c.eachChange(ctx, len(changes), false, func(img *metadata.Image, i int) (metadata.Record, error) {
		return changes[i].plan(img, fixedFactor)
	})
}

func (r Reassignment) plan(img *metadata.Image, fixedFactor bool) (metadata.Record, error) {
	t, p, err := r.find(img)
	switch {
	case err != nil:
		return nil, err
	case r.Replicas == nil:
		return nil, refuse(ErrNoReassignment, "No partition reassignment is in progress.")
	}
	if err := checkAssignment(img, [][]int32{r.Replicas}, len(r.Replicas)); err != nil {
		return nil, err
	}
	if fixedFactor && len(r.Replicas) != len(p.Replicas) {
		return nil, refuse(ErrInvalidReplicationFactor, "The replication factor is changed from %d to %d", len(p.Replicas), len(r.Replicas))
	}
	if len(r.Replicas) != len(p.Replicas) || slices.ContainsFunc(r.Replicas, func(b int32) bool { return !slices.Contains(p.Replicas, b) }) {
		return nil, refuse(ErrInvalidAssignment, "Partition %s-%d is on brokers %v; moving replicas to other brokers is not supported.", t.Name, r.Index, p.Replicas)
	}
	if slices.Equal(r.Replicas, p.Replicas) {
		return nil, nil
	}
	next := *p
	next.Replicas = r.Replicas
	next.PartitionEpoch++
	return metadata.PartitionChanged{ID: t.ID, Index: r.Index, Partition: next}, nil
}
