package txn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

// The log has one record for each change of a transactional id, whole, with the id as its key; a tombstone forgets the id.
// Formats are Kafka's TransactionLogKey (version 0) and TransactionLogValue (version 1, flexible, which transaction.version
// 2 writes; version 0 is read). Numbers of a newer version are skipped: they are a newer broker's, before a downgrade.
const (
	keyVersion   = 0
	valueVersion = 1
)

func encodeKey(id string) []byte {
	key := kmsg.TxnMetadataKey{Version: keyVersion, TransactionalID: id}
	return key.AppendTo(nil)
}

func (t *transaction) encode() []byte {
	v := kmsg.NewTxnMetadataValue()
	v.Version = valueVersion
	v.ProducerID, v.ProducerEpoch = int64(t.producerID), int16(t.epoch)
	v.PreviousProducerID, v.NextProducerID = int64(t.previousID), int64(t.nextID)
	v.TimeoutMillis, v.State, v.ClientTransactionVersion = t.timeoutMs, t.state, t.version
	v.LastUpdateTimestamp, v.StartTimestamp = t.updateMs, t.startMs
	if t.state != empty { // null, as Kafka has it
		v.Topics = []kmsg.TxnMetadataValueTopic{}
	}
	for p := range t.topics() {
		v.Topics = append(v.Topics, kmsg.TxnMetadataValueTopic{Topic: p.topic, Partitions: p.partitions})
	}
	return v.AppendTo(nil)
}

type topicPartitions struct {
	topic      string
	partitions []int32
}

// topics yields the transaction's partitions by topic, both in order.
func (t *transaction) topics() func(yield func(topicPartitions) bool) {
	return func(yield func(topicPartitions) bool) {
		for rest := t.partitions; len(rest) > 0; {
			one := topicPartitions{topic: rest[0].Topic}
			for len(rest) > 0 && rest[0].Topic == one.topic {
				one.partitions = append(one.partitions, rest[0].Partition)
				rest = rest[1:]
			}
			if !yield(one) {
				return
			}
		}
	}
}

// Replay applies a record of the log. The error is record.ErrCorrupt.
func (m *Machine) Replay(offset record.Offset, r coordinator.Entry) error {
	if r.Marker {
		return nil // nobody writes transactions into this topic
	}
	if len(r.Key) < 2 {
		return fmt.Errorf("%w: transaction record at %d has a key of %d bytes", record.ErrCorrupt, offset, len(r.Key))
	}
	if binary.BigEndian.Uint16(r.Key) != keyVersion {
		return nil
	}
	var key kmsg.TxnMetadataKey
	if err := key.ReadFrom(r.Key); err != nil {
		return fmt.Errorf("%w: key of the transaction record at %d: %w", record.ErrCorrupt, offset, err)
	}
	if r.Value == nil {
		delete(m.txns, key.TransactionalID)
		return nil
	}
	if len(r.Value) >= 2 && binary.BigEndian.Uint16(r.Value) > valueVersion {
		return nil
	}
	t, err := decode(key.TransactionalID, r.Value)
	if err != nil {
		return fmt.Errorf("%w: transaction record of %q at %d: %w", record.ErrCorrupt, key.TransactionalID, offset, err)
	}
	m.txns[t.id] = t
	return nil
}

func decode(id string, value []byte) (*transaction, error) {
	var v kmsg.TxnMetadataValue
	if len(value) >= 2 && value[1] == valueVersion {
		if s := (skimmer{rest: value}); !s.value() {
			return nil, errShort
		}
	}
	if err := v.ReadFrom(value); err != nil {
		return nil, err
	}
	switch {
	case v.ProducerID < 0 || v.ProducerEpoch < 0:
		return nil, fmt.Errorf("producer %d in epoch %d", v.ProducerID, v.ProducerEpoch)
	case v.State < empty || v.State > completeAbort:
		return nil, fmt.Errorf("state %d", v.State)
	}
	t := &transaction{
		id:         id,
		producerID: record.ProducerID(v.ProducerID),
		previousID: record.ProducerID(v.PreviousProducerID),
		nextID:     max(record.ProducerID(v.NextProducerID), record.NoProducer),
		epoch:      record.ProducerEpoch(v.ProducerEpoch),
		lastEpoch:  noEpoch,
		state:      v.State,
		version:    v.ClientTransactionVersion,
		timeoutMs:  v.TimeoutMillis,
		startMs:    v.StartTimestamp,
		updateMs:   v.LastUpdateTimestamp,
		place:      noPlace,
	}
	if t.state != ongoing && !t.preparing() {
		return t, nil
	}
	for _, topic := range v.Topics {
		for _, p := range topic.Partitions {
			t.partitions = append(t.partitions, TopicPartition{topic.Topic, p})
		}
	}
	slices.SortFunc(t.partitions, TopicPartition.compare)
	t.partitions = slices.Compact(t.partitions)
	return t, nil
}

var errShort = errors.New("value of a length that cannot be")

// skimmer goes through a value of version 1 without reading it. kmsg believes the number of tagged fields that is stated,
// and counts to it after the bytes have ended: that of a corrupt record takes it ten seconds.
type skimmer struct {
	rest []byte
	bad  bool
}

func (s *skimmer) value() bool {
	s.skip(2 + 8 + 2 + 4 + 1) // version, producer id and epoch, timeout, state
	for n := s.number(); n > 1 && !s.bad; n-- {
		s.skip(s.number() - 1)       // topic
		s.skip(4 * (s.number() - 1)) // partitions
		s.tags()
	}
	s.skip(8 + 8)
	s.tags()
	return !s.bad
}

func (s *skimmer) tags() {
	for n := s.number(); n > 0 && !s.bad; n-- {
		s.number()
		s.skip(s.number())
	}
}

// number reads an unsigned varint. Lengths of compact strings and arrays are one too high: 0 is null.
func (s *skimmer) number() int64 {
	v, n := binary.Uvarint(s.rest)
	if n <= 0 || v > math.MaxUint32 {
		s.bad, s.rest = true, nil
		return 0
	}
	s.rest = s.rest[n:]
	return int64(v)
}

func (s *skimmer) skip(n int64) {
	if n > int64(len(s.rest)) {
		s.bad, s.rest = true, nil
		return
	}
	s.rest = s.rest[max(n, 0):]
}
