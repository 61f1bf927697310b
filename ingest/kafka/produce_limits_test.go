package kafka

import (
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
)

// produceHead is a Produce request of version 3 up to its topics.
func produceHead(topics uint32) []byte {
	p := binary.BigEndian.AppendUint16(nil, 0xffff) // no transactional id
	p = binary.BigEndian.AppendUint16(p, 1)         // acks
	p = binary.BigEndian.AppendUint32(p, 1000)      // timeout
	return binary.BigEndian.AppendUint32(p, topics)
}

// The arrays of a decoded request take many times the bytes that promise them: they are refused before they are made.
func TestProduceOfTooMuchIsRefusedBeforeMemoryIsTaken(t *testing.T) {
	const many = 4 << 20
	topic := []byte{0, 1, 't'}
	oneTopic := binary.BigEndian.AppendUint32(append(produceHead(1), topic...), many)
	twoTopics := append(produceHead(2), topic...)
	twoTopics = binary.BigEndian.AppendUint32(twoTopics, maxProducePartitions)
	for range maxProducePartitions {
		twoTopics = append(twoTopics, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff)
	}
	twoTopics = binary.BigEndian.AppendUint32(append(twoTopics, topic...), many)
	for _, c := range []struct {
		name  string
		frame []byte
		limit uint64 // bytes that decoding may allocate
	}{
		{"topics", append(produceHead(many), make([]byte, 5*many)...), 1 << 20},
		{"partitions of one topic", append(oneTopic, make([]byte, 8*many)...), 1 << 20},
		{"partitions of all topics", append(twoTopics, make([]byte, 8*many)...), 16 << 20},
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		_, err := decodeProduce(c.frame, 3)
		runtime.ReadMemStats(&after)
		if !errors.Is(err, errMalformed) {
			t.Errorf("%s: %v", c.name, err)
		}
		if took := after.TotalAlloc - before.TotalAlloc; took > c.limit {
			t.Errorf("%s: %d bytes allocated for a refused frame of %d", c.name, took, len(c.frame))
		}
	}
}

func TestProduceAtTheLimitIsTaken(t *testing.T) {
	p := binary.BigEndian.AppendUint32(append(produceHead(1), 0, 1, 't'), maxProducePartitions)
	for i := range uint32(maxProducePartitions) {
		p = binary.BigEndian.AppendUint32(p, i)
		p = binary.BigEndian.AppendUint32(p, 0xffffffff) // no records
	}
	if req, err := decodeProduce(p, 3); err != nil || req.partitions != maxProducePartitions {
		t.Fatalf("%v", err)
	}
}
