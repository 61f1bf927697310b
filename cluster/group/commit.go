package group

import (
	"strings"
	"unicode/utf16"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

// Versions at which OffsetCommit and TxnOffsetCommit change what is done.
const (
	commitUnknownGroup = 9  // KIP-848: an unknown group is told as such
	commitTopicIDs     = 10 // KIP-848: topics by id
	commitRetention    = 4  // the last version that says how long an offset is kept
	fetchTopicIDs      = 10
)

// commitOffsets handles OffsetCommit (key 8, v2-10; KIP-211, KIP-320, KIP-345, KIP-848).
func (m *Machine) commitOffsets(c call, req *kmsg.OffsetCommitRequest) *kmsg.OffsetCommitResponse {
	isNew := m.group(req.Group) == nil
	g, code := m.mayCommit(c, req)
	expires := int64(never)
	if c.version <= commitRetention && req.RetentionTimeMillis != -1 {
		expires = m.now.UnixMilli() + req.RetentionTimeMillis
	}
	resp := &kmsg.OffsetCommitResponse{Topics: make([]kmsg.OffsetCommitResponseTopic, len(req.Topics))}
	for i, t := range req.Topics {
		resp.Topics[i] = kmsg.OffsetCommitResponseTopic{
			Topic: t.Topic, TopicID: t.TopicID, Partitions: make([]kmsg.OffsetCommitResponseTopicPartition, len(t.Partitions)),
		}
		name, id := m.topicOf(t.Topic, t.TopicID)
		for j, p := range t.Partitions {
			answer := &resp.Topics[i].Partitions[j]
			answer.Partition = p.Partition
			switch {
			case code != 0:
				answer.ErrorCode = code
			case name == "":
				answer.ErrorCode = kerr.UnknownTopicID.Code
			case m.metadataTooLong(p.Metadata):
				answer.ErrorCode = kerr.OffsetMetadataTooLarge.Code
			default:
				c := m.commitOf(p.Partition, p.Offset, p.LeaderEpoch, p.Metadata)
				c.topic, c.expires = id, expires
				if req.Version < 6 {
					c.epoch = int32(record.NoEpoch)
				}
				m.putOffset(g, name, c)
				m.write(offsetRecord(g.id, partition{name, p.Partition}, c))
			}
		}
	}
	m.dropEmpty(g, isNew)
	return resp
}

// dropEmpty forgets a group that a commit made, if nothing was committed: it is not in the log.
func (m *Machine) dropEmpty(g *group, isNew bool) {
	if isNew && g != nil && g.offsets.empty() && len(g.pending) == 0 {
		m.remove(g)
	}
}

// commitOf is an offset committed now.
func (m *Machine) commitOf(index int32, offset int64, epoch int32, metadata *string) committed {
	m.written++
	c := committed{partition: index, offset: offset, epoch: epoch, at: m.now.UnixMilli(), expires: never, written: m.written}
	if metadata != nil {
		c.metadata = strings.Clone(*metadata)
	}
	return c
}

// topicOf completes a topic's name and id as far as they are known here.
func (m *Machine) topicOf(name string, id [16]byte) (string, [16]byte) {
	switch {
	case name == "" && id != noTopic:
		name, _, _ = m.topics.ByID(id)
	case id == noTopic:
		id, _, _ = m.topics.ByName(name)
	}
	return name, id
}

// metadataTooLong counts as Java does, in UTF-16.
func (m *Machine) metadataTooLong(s *string) bool {
	if s == nil || len(*s) <= m.o.MaxOffsetMetadata {
		return false
	}
	n := 0
	for _, r := range *s {
		n += utf16.RuneLen(r)
	}
	return n > m.o.MaxOffsetMetadata
}

// mayCommit returns the group of a commit, which is made if the request is of none, or why it may not commit.
func (m *Machine) mayCommit(c call, req *kmsg.OffsetCommitRequest) (*group, int16) {
	g := m.group(req.Group)
	switch {
	case g == nil && req.Generation < 0:
		return m.create(req.Group), 0
	case g == nil && c.version >= commitUnknownGroup:
		return nil, kerr.GroupIDNotFound.Code
	case g == nil:
		return nil, kerr.IllegalGeneration.Code
	case g.consumer != nil:
		return g, m.mayCommitConsumer(g, c, req)
	}
	mem, code := g.classic.mayCommit(req.MemberID, req.InstanceID, req.Generation, false)
	if code == 0 && mem != nil && (g.classic.state == stable || g.classic.state == preparing) {
		m.keepAlive(mem)
	}
	return g, code
}

// mayCommit checks a commit of a member, or of a client that is none. It returns the member, if it is one.
func (k *classic) mayCommit(id string, instance *string, generation int32, txn bool) (*member, int16) {
	if generation < 0 && k.state == empty {
		return nil, 0 // an administrator, or a consumer that uses no group
	}
	if generation < 0 && id == "" && instance == nil {
		if !txn {
			return nil, kerr.UnknownMemberID.Code
		}
		return nil, 0 // older producers do not say for whom they commit
	}
	mem, code := k.validate(id, instance)
	switch {
	case code != 0:
		return nil, code
	case generation != k.generation:
		return nil, kerr.IllegalGeneration.Code
	case k.state == completing && !txn:
		// It has joined, so it knows the generation; what it commits is of the one before.
		return nil, kerr.RebalanceInProgress.Code
	}
	return mem, 0
}

// commitTxnOffsets handles TxnOffsetCommit (key 28, v0-5; KIP-98, KIP-447, KIP-890): offsets that hold when the
// transaction commits. The transaction itself is verified by the caller.
func (m *Machine) commitTxnOffsets(c call, req *kmsg.TxnOffsetCommitRequest) *kmsg.TxnOffsetCommitResponse {
	isNew := m.group(req.Group) == nil
	g, code := m.mayCommitTxn(req)
	producer := record.ProducerID(req.ProducerID)
	batch := coordinator.Batch{Transactional: true, ProducerID: producer, ProducerEpoch: record.ProducerEpoch(req.ProducerEpoch)}
	resp := &kmsg.TxnOffsetCommitResponse{Topics: make([]kmsg.TxnOffsetCommitResponseTopic, len(req.Topics))}
	for i, t := range req.Topics {
		resp.Topics[i] = kmsg.TxnOffsetCommitResponseTopic{
			Topic: t.Topic, TopicID: t.TopicID, Partitions: make([]kmsg.TxnOffsetCommitResponseTopicPartition, len(t.Partitions)),
		}
		name, id := m.topicOf(t.Topic, t.TopicID)
		for j, p := range t.Partitions {
			answer := &resp.Topics[i].Partitions[j]
			answer.Partition = p.Partition
			switch {
			case code != 0:
				answer.ErrorCode = code
			case name == "":
				answer.ErrorCode = kerr.UnknownTopicID.Code
			case m.metadataTooLong(p.Metadata):
				answer.ErrorCode = kerr.OffsetMetadataTooLarge.Code
			default:
				c := m.commitOf(p.Partition, p.Offset, p.LeaderEpoch, p.Metadata)
				c.topic = id
				if req.Version < 2 {
					c.epoch = int32(record.NoEpoch)
				}
				at := partition{strings.Clone(name), p.Partition}
				m.putPending(g, producer, at, c)
				batch.Records = append(batch.Records, offsetRecord(g.id, at, c))
			}
		}
	}
	m.dropEmpty(g, isNew)
	if len(batch.Records) > 0 {
		m.effects.Append = append(m.effects.Append, batch)
	}
	return resp
}

func (m *Machine) mayCommitTxn(req *kmsg.TxnOffsetCommitRequest) (*group, int16) {
	generation, id := req.Generation, req.MemberID
	if req.Version < 3 {
		generation, id = -1, ""
	}
	g := m.group(req.Group)
	switch {
	case req.Group == "":
		return nil, kerr.InvalidGroupID.Code
	case g == nil && generation < 0:
		return m.create(req.Group), 0
	case g == nil:
		return nil, kerr.IllegalGeneration.Code
	case g.consumer != nil:
		return g, m.mayCommitTxnConsumer(g, id, generation, req)
	}
	_, code := g.classic.mayCommit(id, req.InstanceID, generation, true)
	return g, code
}

// deleteOffsets handles OffsetDelete (key 47, v0; KIP-496).
func (m *Machine) deleteOffsets(req *kmsg.OffsetDeleteRequest) *kmsg.OffsetDeleteResponse {
	resp := &kmsg.OffsetDeleteResponse{}
	g := m.group(req.Group)
	switch {
	case req.Group == "":
		resp.ErrorCode = kerr.InvalidGroupID.Code
	case g == nil:
		resp.ErrorCode = kerr.GroupIDNotFound.Code
	case g.classic != nil && g.classic.state != empty && !g.classic.isConsumer():
		resp.ErrorCode = kerr.NonEmptyGroup.Code // what its members use cannot be told
	}
	if resp.ErrorCode != 0 {
		return resp
	}
	for _, t := range req.Topics {
		answer := kmsg.OffsetDeleteResponseTopic{Topic: t.Topic}
		subscribed := g.subscribed(t.Topic)
		for _, p := range t.Partitions {
			a := kmsg.OffsetDeleteResponseTopicPartition{Partition: p.Partition}
			at := partition{t.Topic, p.Partition}
			if subscribed {
				a.ErrorCode = kerr.GroupSubscribedToTopic.Code
			} else if g.offsets.get(at) != nil || g.unstable[at] > 0 {
				m.write(offsetTombstone(g.id, at))
				m.forgetOffset(g, at)
			}
			answer.Partitions = append(answer.Partitions, a)
		}
		resp.Topics = append(resp.Topics, answer)
	}
	return resp
}

// forgetOffset removes an offset whose tombstone is written in this step.
func (m *Machine) forgetOffset(g *group, p partition) {
	m.written++
	m.removeOffset(g, p)
}
