package metadata

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/everlog/everlog/tier/record"
)

// Record is one change. Records are applied in order; each checks that it fits what is there, so that a log that applies
// is a log that makes sense. The types below are all there are.
type Record interface {
	// kind is the record's name and version on the wire.
	kind() (string, int)
	apply(*draft) error
}

// ControllerElected makes a process the controller: what others commit after it is void. It is the first record of the
// first commit of an epoch.
type ControllerElected struct {
	Epoch  int64  `json:"epoch"`
	Writer string `json:"writer"`
}

// BrokerRegistered adds a broker or replaces its registration. Its Epoch is set to the version of the commit.
type BrokerRegistered struct{ Broker }

// TopicCreated adds a topic under a name and an id that are free.
type TopicCreated struct {
	ID         record.TopicID    `json:"id"`
	Name       string            `json:"name"`
	Configs    map[string]string `json:"configs,omitempty"`
	Partitions []Partition       `json:"partitions"`
}

// TopicDeleted removes a topic. Its name is free in the next record.
type TopicDeleted struct {
	ID record.TopicID `json:"id"`
}

// PartitionsAdded appends partitions to a topic, the first of them number First.
type PartitionsAdded struct {
	ID         record.TopicID `json:"id"`
	First      int32          `json:"first"`
	Partitions []Partition    `json:"partitions"`
}

// PartitionChanged replaces the state of one partition. PartitionEpoch must be the present one plus one, so that of two
// changes made from the same state only one fits.
type PartitionChanged struct {
	ID    record.TopicID `json:"id"`
	Index int32          `json:"partition"`
	Partition
}

// TopicConfigured replaces the settings of a topic.
type TopicConfigured struct {
	ID      record.TopicID    `json:"id"`
	Configs map[string]string `json:"configs,omitempty"`
}

// BrokerConfigured replaces the settings changed at run time of one broker (decimal id) or of all ("").
type BrokerConfigured struct {
	Broker  string            `json:"broker"`
	Configs map[string]string `json:"configs,omitempty"`
}

// ProducerIDsAllocated gives away Count producer ids from First on, which must be the next free one.
type ProducerIDsAllocated struct {
	First record.ProducerID `json:"first"`
	Count int64             `json:"count"`
}

// ValueSet sets one value of another package (an ACL, a user, a quota) under its kind and key; "" removes it. The log
// does not look inside.
type ValueSet struct {
	Kind  string `json:"kind"`
	Key   string `json:"key"`
	Value string `json:"value,omitempty"`
}

func (ControllerElected) kind() (string, int)    { return "controller-elected", 1 }
func (BrokerRegistered) kind() (string, int)     { return "broker-registered", 1 }
func (TopicCreated) kind() (string, int)         { return "topic-created", 1 }
func (TopicDeleted) kind() (string, int)         { return "topic-deleted", 1 }
func (PartitionsAdded) kind() (string, int)      { return "partitions-added", 1 }
func (PartitionChanged) kind() (string, int)     { return "partition-changed", 1 }
func (TopicConfigured) kind() (string, int)      { return "topic-configured", 1 }
func (BrokerConfigured) kind() (string, int)     { return "broker-configured", 1 }
func (ProducerIDsAllocated) kind() (string, int) { return "producer-ids-allocated", 1 }
func (ValueSet) kind() (string, int)             { return "value-set", 1 }

func misfit(r Record, format string, args ...any) error {
	name, _ := r.kind()
	return fmt.Errorf("%w: %s: %s", ErrInvalid, name, fmt.Sprintf(format, args...))
}

func (r ControllerElected) apply(d *draft) error {
	if r.Epoch <= d.img.Controller.Epoch || r.Writer == "" {
		return misfit(r, "epoch %d of %q after epoch %d", r.Epoch, r.Writer, d.img.Controller.Epoch)
	}
	d.img.Controller = Controller(r)
	return nil
}

func (r BrokerRegistered) apply(d *draft) error {
	if r.ID < 0 || r.DiskID == "" {
		return misfit(r, "id %d, disk %q", r.ID, r.DiskID)
	}
	b := r.Broker
	b.Epoch = int64(d.img.Version)
	b.Listeners = slices.Clone(b.Listeners)
	d.setBroker(&b)
	return nil
}

func (r TopicCreated) apply(d *draft) error {
	switch {
	case r.Name == "" || r.ID.IsZero() || len(r.Partitions) == 0:
		return misfit(r, "name %q, id %s, %d partitions", r.Name, r.ID, len(r.Partitions))
	case d.img.Topic(r.Name) != nil:
		return misfit(r, "topic %s exists", r.Name)
	case d.img.TopicByID(r.ID) != nil:
		return misfit(r, "topic id %s exists", r.ID)
	}
	t := &Topic{ID: r.ID, Name: r.Name, Created: d.img.Version, Configs: maps.Clone(r.Configs), Internal: isInternal(r.Name)}
	if err := t.add(r, r.Partitions); err != nil {
		return err
	}
	d.addTopic(t)
	return nil
}

// add appends checked copies of partitions to a topic that the caller owns.
func (t *Topic) add(r Record, partitions []Partition) error {
	for i := range partitions {
		p, err := partitions[i].checked(r)
		if err != nil {
			return err
		}
		t.Partitions = append(t.Partitions, p)
	}
	return nil
}

// checked returns a copy that shares nothing with p, or ErrInvalid.
func (p *Partition) checked(r Record) (Partition, error) {
	for i, b := range p.Replicas {
		if b < 0 || slices.Contains(p.Replicas[:i], b) {
			return Partition{}, misfit(r, "replicas %v", p.Replicas)
		}
	}
	for i, b := range p.ISR {
		if !slices.Contains(p.Replicas, b) || slices.Contains(p.ISR[:i], b) {
			return Partition{}, misfit(r, "ISR %v of replicas %v", p.ISR, p.Replicas)
		}
	}
	if len(p.Replicas) == 0 || p.LeaderEpoch < 0 || p.PartitionEpoch < 0 || p.Leader != NoLeader && !slices.Contains(p.ISR, p.Leader) {
		return Partition{}, misfit(r, "leader %d, ISR %v, replicas %v, epochs %d and %d", p.Leader, p.ISR, p.Replicas, p.LeaderEpoch, p.PartitionEpoch)
	}
	c := *p
	c.Replicas, c.ISR = slices.Clone(p.Replicas), append([]int32{}, p.ISR...)
	return c, nil
}

func (r TopicDeleted) apply(d *draft) error {
	t := d.img.TopicByID(r.ID)
	if t == nil {
		return misfit(r, "no topic %s", r.ID)
	}
	d.removeTopic(t)
	return nil
}

func (r PartitionsAdded) apply(d *draft) error {
	t := d.topic(r.ID)
	if t == nil || int(r.First) != len(t.Partitions) || len(r.Partitions) == 0 {
		return misfit(r, "topic %s, partition %d", r.ID, r.First)
	}
	return t.add(r, r.Partitions)
}

func (r PartitionChanged) apply(d *draft) error {
	t := d.topic(r.ID)
	if t == nil || r.Index < 0 || int(r.Index) >= len(t.Partitions) {
		return misfit(r, "no partition %d of topic %s", r.Index, r.ID)
	}
	old := &t.Partitions[r.Index]
	p, err := r.Partition.checked(r)
	switch {
	case err != nil:
		return err
	case p.PartitionEpoch != old.PartitionEpoch+1:
		return misfit(r, "%s-%d: partition epoch %d after %d", t.Name, r.Index, p.PartitionEpoch, old.PartitionEpoch)
	case p.LeaderEpoch < old.LeaderEpoch || p.Leader != old.Leader && p.LeaderEpoch == old.LeaderEpoch:
		return misfit(r, "%s-%d: leader %d in epoch %d after %d in %d", t.Name, r.Index, p.Leader, p.LeaderEpoch, old.Leader, old.LeaderEpoch)
	}
	*old = p
	return nil
}

func (r TopicConfigured) apply(d *draft) error {
	t := d.topic(r.ID)
	if t == nil {
		return misfit(r, "no topic %s", r.ID)
	}
	t.Configs = maps.Clone(r.Configs)
	return nil
}

func (r BrokerConfigured) apply(d *draft) error {
	d.setConfigs(r.Broker, r.Configs)
	return nil
}

func (r ProducerIDsAllocated) apply(d *draft) error {
	if r.First != d.img.NextProducerID || r.Count <= 0 || int64(r.First) > math.MaxInt64-r.Count {
		return misfit(r, "%d from %d on, next is %d", r.Count, r.First, d.img.NextProducerID)
	}
	d.img.NextProducerID += record.ProducerID(r.Count)
	return nil
}

func (r ValueSet) apply(d *draft) error {
	if r.Kind == "" || r.Key == "" {
		return misfit(r, "kind %q, key %q", r.Kind, r.Key)
	}
	d.setValue(r.Kind, r.Key, r.Value)
	return nil
}
