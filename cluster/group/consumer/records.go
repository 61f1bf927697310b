package consumer

import (
	"fmt"

	"github.com/everlog/everlog/cluster/group/assign"
)

// The record types of a consumer group in __consumer_offsets, as Kafka 4.3.1 has them
// (group-coordinator/src/main/resources/common/message/ConsumerGroup*.json). A key is the type (int16), the group and,
// for some, one string more, not compact. A value is its version (int16, 0) and flexible fields; a tombstone removes.
//
//	type                     key          value
//	 3 ConsumerGroupMetadata  group        epoch int32; tag 0: metadata hash int64
//	 4 …PartitionMetadata     group        Kafka before 4.1 wrote it; here it is removed when the group changes next
//	 5 …MemberMetadata        group member instance, rack, client id, client host, topics, regex, rebalance timeout, assignor;
//	                                       tag 0: classic metadata
//	 6 …TargetAssignmentMetadata group     epoch int32; tag 0: when it was computed, ms int64
//	 7 …TargetAssignmentMember   group member partitions by topic id
//	 8 …CurrentMemberAssignment  group member epoch, previous epoch, state, assigned, to be revoked; partitions with tag 0:
//	                                       assignment epochs
//	16 …RegularExpression        group regex  topics, metadata version int64, when it was resolved, ms int64
const (
	typeGroup             = 3
	typePartitionMetadata = 4
	typeMember            = 5
	typeTargetMetadata    = 6
	typeTarget            = 7
	typeCurrent           = 8
	typeRegex             = 16
)

// IsKey says whether records of that type (the key's first int16) belong to consumer groups.
func IsKey(version int16) bool {
	return version >= typeGroup && version <= typeCurrent || version == typeRegex
}

// GroupID is the group of a record of this package, from its key.
func GroupID(key []byte) (string, error) {
	k, err := parseKey(key)
	return k.group, err
}

type recordKey struct {
	kind  int16
	group string
	of    string // the member or the regular expression
}

func (k recordKey) encode() []byte {
	var w writer
	w.int16(k.kind)
	w.keyString(k.group)
	if k.hasOf() {
		w.keyString(k.of)
	}
	return w.b
}

func (k recordKey) hasOf() bool {
	return k.kind != typeGroup && k.kind != typePartitionMetadata && k.kind != typeTargetMetadata
}

func parseKey(b []byte) (recordKey, error) {
	r := reader{b: b}
	k := recordKey{kind: r.int16()}
	if r.err == nil && !IsKey(k.kind) {
		return k, fmt.Errorf("key of type %d is not of a consumer group", k.kind)
	}
	k.group = r.keyString()
	if k.hasOf() {
		k.of = r.keyString()
	}
	if r.err != nil {
		return k, fmt.Errorf("key of a consumer group's record: %w", r.err)
	}
	return k, nil
}

// groupValue is ConsumerGroupMetadataValue.
type groupValue struct {
	epoch int32
	hash  int64
}

func (v groupValue) encode() []byte {
	var w writer
	w.int16(0)
	w.int32(v.epoch)
	if v.hash == 0 {
		w.noTags()
	} else {
		w.tag0(func(w *writer) { w.int64(v.hash) })
	}
	return w.b
}

func (v *groupValue) decode(r *reader) {
	v.epoch = r.int32()
	r.tags(func(r *reader) { v.hash = r.int64() })
}

// targetMetadataValue is ConsumerGroupTargetAssignmentMetadataValue.
type targetMetadataValue struct {
	epoch     int32
	timestamp int64 // milliseconds; 0 if an older broker wrote it
}

func (v targetMetadataValue) encode() []byte {
	var w writer
	w.int16(0)
	w.int32(v.epoch)
	if v.timestamp == 0 {
		w.noTags()
	} else {
		w.tag0(func(w *writer) { w.int64(v.timestamp) })
	}
	return w.b
}

func (v *targetMetadataValue) decode(r *reader) {
	v.epoch = r.int32()
	r.tags(func(r *reader) { v.timestamp = r.int64() })
}

// regexValue is ConsumerGroupRegularExpressionValue.
type regexValue struct {
	topics    []string // in order
	version   int64    // of the metadata; not used here, written as 0
	timestamp int64    // milliseconds
}

func (v regexValue) encode() []byte {
	var w writer
	w.int16(0)
	w.strings(v.topics)
	w.int64(v.version)
	w.int64(v.timestamp)
	w.noTags()
	return w.b
}

func (v *regexValue) decode(r *reader) {
	v.topics, v.version, v.timestamp = r.strings(), r.int64(), r.int64()
	r.tags(nil)
}

// encodeTarget is ConsumerGroupTargetAssignmentMemberValue.
func encodeTarget(p assign.Partitions) []byte {
	var w writer
	w.int16(0)
	w.arrayLen(len(p))
	for _, t := range sortedTopics(p) {
		w.id(t)
		w.int32s(p[t])
		w.noTags()
	}
	w.noTags()
	return w.b
}

func decodeTarget(r *reader) assign.Partitions {
	n := r.arrayLen(18)
	p := make(assign.Partitions, n)
	for range n {
		t := r.id()
		if parts := r.int32s(); len(parts) > 0 {
			p[t] = sortedPartitions(parts)
		}
		r.tags(nil)
	}
	r.tags(nil)
	return p
}
