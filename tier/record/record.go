// Package record owns Kafka's vocabulary (topic ids, offsets, leader epochs, producer ids, codecs) and the bytes of one
// record batch of format v2: parsing, verifying, stamping, reading and building. It knows nothing of files, segments or
// the network. Everything above it uses it; it imports nothing of ours.
//
// The batch layout is that of Apache Kafka's DefaultRecordBatch (KIP-98); all integers are big-endian.
package record

import (
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
)

// Offset numbers the records of a partition, from 0. Ranges of offsets are half-open.
type Offset int64

// LeaderEpoch numbers the leaderships of a partition; it never goes back.
type LeaderEpoch int32

// NoEpoch is the leader epoch of a client that does not know one, and the answer where none is known.
const NoEpoch LeaderEpoch = -1

// ProducerID identifies an idempotent or transactional producer, unique in the cluster.
type ProducerID int64

// NoProducer marks a batch of a producer that is not idempotent.
const NoProducer ProducerID = -1

// ProducerEpoch fences older incarnations of one producer id.
type ProducerEpoch int16

// EpochStart is one entry of a leader epoch history: Start is the first offset written in Epoch.
type EpochStart struct {
	Epoch LeaderEpoch
	Start Offset
}

// AbortedTxn is one aborted transaction of a partition, as a read_committed consumer needs it to skip its records.
type AbortedTxn struct {
	ProducerID ProducerID
	// First is the first offset of the transaction, Last the offset of its abort marker (inclusive).
	First, Last Offset
	// LastStable is the last stable offset after the marker was appended.
	LastStable Offset
}

// ErrCorrupt means that bytes are not what was written: a bad checksum, or a length that cannot be.
var ErrCorrupt = errors.New("corrupt record batch")

// ErrShort means that the bytes end before the batch does.
var ErrShort = errors.New("incomplete record batch")

// TopicID identifies one incarnation of a topic: a topic deleted and created again under the same name has another.
type TopicID [16]byte

// NewTopicID returns a random (version 4) id whose text does not start with '-', as Kafka requires of its own.
func NewTopicID() TopicID {
	for {
		var id TopicID
		_, _ = rand.Read(id[:]) // never fails since Go 1.24
		id[6] = id[6]&0x0f | 0x40
		id[8] = id[8]&0x3f | 0x80
		if id.String()[0] != '-' {
			return id
		}
	}
}

// ParseTopicID reads the 22 characters that String writes.
func ParseTopicID(s string) (TopicID, error) {
	var id TopicID
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) != len(id) {
		return id, fmt.Errorf("topic id %q is not 22 characters of base64url", s)
	}
	copy(id[:], b)
	return id, nil
}

// String returns the id as Kafka prints it: 22 characters of unpadded base64url.
func (id TopicID) String() string { return base64.RawURLEncoding.EncodeToString(id[:]) }

// Hex returns the id as 32 lower-case hexadecimal digits, for names of files and objects.
func (id TopicID) Hex() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether the id is unset.
func (id TopicID) IsZero() bool { return id == TopicID{} }

// MarshalText writes the id as String does.
func (id TopicID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads the id as ParseTopicID does.
func (id *TopicID) UnmarshalText(p []byte) error {
	v, err := ParseTopicID(string(p))
	if err == nil {
		*id = v
	}
	return err
}
