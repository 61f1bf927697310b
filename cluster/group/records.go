package group

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/cluster/group/consumer"
	"github.com/everlog/everlog/tier/record"
)

// Records of __consumer_offsets, as Kafka 4.3.1 writes them: a key begins with its type.
const (
	offsetKeyOld = 0 // read as offsetKey
	offsetKey    = 1
	groupKey     = 2

	offsetValue        = 4 // version: flexible, with the topic's id as a tagged field
	offsetValueExpires = 1 // version: of a commit that says itself when it expires
	groupValue         = 3 // version
)

// groupRecord is the record of a classic group as it is now.
func groupRecord(k *classic) coordinator.Record {
	value := kmsg.GroupMetadataValue{
		Version: groupValue, ProtocolType: k.protocolType, Generation: k.generation,
		Protocol: optional(k.protocol), Leader: optional(k.leader), CurrentStateTimestamp: k.since,
		Members: make([]kmsg.GroupMetadataValueMember, len(k.members)),
	}
	if len(k.members) == 0 && k.generation == 0 {
		value.ProtocolType = ""
	}
	size := 64
	for i, mem := range k.members {
		value.Members[i] = kmsg.GroupMetadataValueMember{
			MemberID: mem.id, InstanceID: mem.instance, ClientID: mem.client.ID, ClientHost: mem.client.Host,
			RebalanceTimeoutMillis: int32(mem.rebalance / time.Millisecond), SessionTimeoutMillis: int32(mem.session / time.Millisecond),
			Subscription: mem.metadata(k.protocol), Assignment: mem.assignment,
		}
		size += 128 + len(value.Members[i].Subscription) + len(mem.assignment)
	}
	return coordinator.Record{Key: groupRecordKey(k.group.id), Value: value.AppendTo(make([]byte, 0, size))}
}

func groupRecordKey(id string) []byte {
	return (&kmsg.GroupMetadataKey{Version: groupKey, Group: id}).AppendTo(make([]byte, 0, 4+len(id)))
}

func groupTombstone(id string) coordinator.Record { return coordinator.Record{Key: groupRecordKey(id)} }

func offsetRecord(id string, p partition, c committed) coordinator.Record {
	value := kmsg.OffsetCommitValue{
		Version: offsetValue, Offset: c.offset, LeaderEpoch: c.epoch, Metadata: c.metadata,
		CommitTimestamp: c.at, ExpireTimestamp: c.expires, TopicID: c.topic,
	}
	if c.expires != never {
		value.Version = offsetValueExpires
	}
	return coordinator.Record{Key: offsetRecordKey(id, p), Value: value.AppendTo(make([]byte, 0, 64+len(c.metadata)))}
}

func offsetRecordKey(id string, p partition) []byte {
	key := kmsg.OffsetCommitKey{Version: offsetKey, Group: id, Topic: p.topic, Partition: p.index}
	return key.AppendTo(make([]byte, 0, 10+len(id)+len(p.topic)))
}

func offsetTombstone(id string, p partition) coordinator.Record {
	return coordinator.Record{Key: offsetRecordKey(id, p)}
}

// Replay implements coordinator.Machine.
func (m *Machine) Replay(offset record.Offset, e coordinator.Entry) error {
	if e.Marker {
		m.endTxn(e.ProducerID, e.Commit)
		return nil
	}
	if len(e.Key) < 2 {
		return fmt.Errorf("%w: group record at %d has a key of %d bytes", record.ErrCorrupt, offset, len(e.Key))
	}
	var err error
	switch kind := int16(binary.BigEndian.Uint16(e.Key)); {
	case kind == offsetKeyOld || kind == offsetKey:
		err = m.replayOffset(e)
	case kind == groupKey:
		err = m.replayGroup(e)
	case consumer.IsKey(kind):
		err = m.replayConsumer(e)
	}
	if err != nil {
		return fmt.Errorf("%w: group record at %d: %w", record.ErrCorrupt, offset, err)
	}
	return nil
}

func (m *Machine) replayOffset(e coordinator.Entry) error {
	var key kmsg.OffsetCommitKey
	if err := key.ReadFrom(e.Key); err != nil {
		return fmt.Errorf("offset key: %w", err)
	}
	p := partition{key.Topic, key.Partition}
	g := m.group(key.Group)
	m.written++
	if e.Value == nil {
		if g != nil {
			m.removeOffset(g, p)
		}
		return nil
	}
	value, err := readOffsetValue(e.Value)
	if err != nil || value == nil {
		return err
	}
	if g == nil {
		g = m.create(key.Group)
	}
	c := committed{
		partition: p.index, offset: value.Offset, epoch: value.LeaderEpoch, metadata: value.Metadata,
		at: value.CommitTimestamp, expires: never, topic: value.TopicID, written: m.written,
	}
	if value.Version == offsetValueExpires {
		c.expires = value.ExpireTimestamp
	}
	if e.Transactional {
		m.putPending(g, e.ProducerID, p, c)
	} else {
		m.putOffset(g, p.topic, c)
	}
	return nil
}

// readOffsetValue returns nil for a version of a newer broker.
func readOffsetValue(b []byte) (*kmsg.OffsetCommitValue, error) {
	version, err := valueVersion(b)
	if err != nil || version > offsetValue {
		return nil, err
	}
	var value kmsg.OffsetCommitValue
	if version == offsetValue {
		err = readFlexibleOffset(&value, b[2:])
	} else if err = value.ReadFrom(b); version < 3 {
		value.LeaderEpoch = int32(record.NoEpoch)
	}
	if err != nil {
		return nil, fmt.Errorf("offset value: %w", err)
	}
	return &value, nil
}

var errTruncated = errors.New("record is truncated")

// readFlexibleOffset reads what follows the version: kmsg would believe any number of tagged fields.
func readFlexibleOffset(v *kmsg.OffsetCommitValue, b []byte) error {
	if len(b) < 12 {
		return errTruncated
	}
	v.Version, v.ExpireTimestamp = offsetValue, never
	v.Offset, v.LeaderEpoch = int64(binary.BigEndian.Uint64(b)), int32(binary.BigEndian.Uint32(b[8:]))
	b = b[12:]
	n, ok := uvarint(&b)
	if !ok || n == 0 || n-1 > uint64(len(b)) {
		return errTruncated
	}
	v.Metadata, b = string(b[:n-1]), b[n-1:]
	if len(b) < 8 {
		return errTruncated
	}
	v.CommitTimestamp, b = int64(binary.BigEndian.Uint64(b)), b[8:]
	tags, ok := uvarint(&b)
	for ; ok && tags > 0; tags-- {
		tag, _ := uvarint(&b)
		var size uint64
		if size, ok = uvarint(&b); !ok || size > uint64(len(b)) {
			return errTruncated
		}
		if tag == 0 && size == uint64(len(v.TopicID)) {
			copy(v.TopicID[:], b)
		}
		b = b[size:]
	}
	if !ok {
		return errTruncated
	}
	return nil
}

func uvarint(b *[]byte) (uint64, bool) {
	v, n := binary.Uvarint(*b)
	if n <= 0 {
		return 0, false
	}
	*b = (*b)[n:]
	return v, true
}

func valueVersion(b []byte) (int16, error) {
	if len(b) < 2 {
		return 0, errTruncated
	}
	v := int16(binary.BigEndian.Uint16(b))
	if v < 0 {
		return 0, fmt.Errorf("value of version %d", v)
	}
	return v, nil
}

func (m *Machine) replayGroup(e coordinator.Entry) error {
	var key kmsg.GroupMetadataKey
	if err := key.ReadFrom(e.Key); err != nil {
		return fmt.Errorf("group key: %w", err)
	}
	g := m.group(key.Group)
	if e.Value == nil {
		if g != nil && g.classic != nil {
			m.replayGone(g)
		}
		return nil
	}
	version, err := valueVersion(e.Value)
	if err != nil || version > groupValue {
		return err
	}
	var value kmsg.GroupMetadataValue
	if err := value.ReadFrom(e.Value); err != nil {
		return fmt.Errorf("group value: %w", err)
	}
	if g == nil {
		g = m.create(key.Group)
	}
	m.dropMembership(g)
	g.classic = m.restore(g, &value)
	return nil
}

// replayGone forgets a group's membership. Its offsets, if it has any, are a simple group's then.
func (m *Machine) replayGone(g *group) {
	m.dropMembership(g)
	if g.offsets.empty() && len(g.pending) == 0 {
		m.remove(g)
		return
	}
	g.classic = m.newClassic(g)
}

// restore makes a group of its record: stable if it has members, who need not know that there was a restart.
func (m *Machine) restore(g *group, v *kmsg.GroupMetadataValue) *classic {
	k := m.newClassic(g)
	k.generation, k.since, k.protocolType = v.Generation, v.CurrentStateTimestamp, v.ProtocolType
	if v.Protocol != nil {
		k.protocol = *v.Protocol
	}
	if v.Leader != nil {
		k.leader = *v.Leader
	}
	for _, r := range v.Members {
		if k.byID[r.MemberID] != nil || r.InstanceID != nil && k.instances[*r.InstanceID] != nil {
			continue // no broker writes that
		}
		mem := &member{
			id: r.MemberID, instance: r.InstanceID, client: Client{ID: r.ClientID, Host: r.ClientHost},
			session:    time.Duration(r.SessionTimeoutMillis) * time.Millisecond,
			rebalance:  time.Duration(r.RebalanceTimeoutMillis) * time.Millisecond,
			protocols:  []protocol{{k.protocol, bytes.Clone(r.Subscription)}},
			assignment: bytes.Clone(r.Assignment),
		}
		if r.RebalanceTimeoutMillis == -1 {
			mem.rebalance = mem.session
		}
		k.add(mem, v.ProtocolType)
		k.state = stable
	}
	if k.byID[k.leader] == nil {
		k.leader = ""
		if len(k.members) > 0 {
			k.leader = k.members[0].id
		}
	}
	k.subscribed = k.subscriptions()
	return k
}

// Loaded implements coordinator.Machine: members have their whole session timeout again, from now on.
func (m *Machine) Loaded(now time.Time) coordinator.Effects {
	m.now = now
	for _, g := range m.sorted() {
		if g.consumer != nil {
			m.loadedConsumer(g)
			continue
		}
		k := g.classic
		for _, mem := range k.members {
			m.keepAlive(mem)
		}
		if len(k.members) > m.o.MaxSize { // the limit is lower now
			m.prepare(k)
		}
	}
	m.timers.set(&m.check, now.Add(m.o.RetentionCheckInterval))
	return m.take()
}
