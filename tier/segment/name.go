package segment

import (
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"

	"github.com/everlog/everlog/tier/record"
)

// ObjectID is what the name of a segment's object says.
type ObjectID struct {
	Topic     record.TopicID
	Partition int32
	Base, End record.Offset
	Epoch     record.LeaderEpoch // of the leader that wrote the object
	UUID      string
}

// NewUUID returns 128 random bits as 32 hexadecimal digits: what makes an object name one that was never used.
func NewUUID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails since Go 1.24
	return hex.EncodeToString(b[:])
}

// Prefix is the folder of a partition's objects: data/<2 hex digits of a hash>/<topic id, 32 hex digits>/<partition>/.
// The hash spreads partitions over the store's key space. The cluster is not in it: a cluster has its own prefix.
func Prefix(id Identity) string {
	key := binary.BigEndian.AppendUint32(append(make([]byte, 0, 20), id.Topic[:]...), uint32(id.Partition))
	return fmt.Sprintf("data/%02x/%s/%010d/", byte(crc32.Checksum(key, castagnoli)>>24), id.Topic.Hex(), id.Partition)
}

// ObjectName is the name of the object that holds [base, end), written by the leader of epoch. The uuid must be new for
// every attempt (NewUUID): a name is never written twice, since a write that timed out may still land. Numbers are
// padded, so that a listing is in offset order.
func ObjectName(id Identity, base, end record.Offset, epoch record.LeaderEpoch, uuid string) string {
	return string(append(AppendObjectName(nil, Prefix(id), base, end, epoch), uuid...))
}

// AppendObjectName appends the name that ObjectName returns, up to its uuid, given the partition's Prefix: for callers
// that make thousands.
func AppendObjectName(p []byte, prefix string, base, end record.Offset, epoch record.LeaderEpoch) []byte {
	p = append(append(p, prefix...), "seg/"...)
	p = append(appendPadded(p, int64(base), 20), '-')
	p = append(appendPadded(p, int64(end), 20), '-')
	return append(appendPadded(p, int64(epoch), 10), '-')
}

// appendPadded appends a number that is not negative in at least width digits.
func appendPadded(p []byte, v int64, width int) []byte {
	var digits [20]byte
	d := strconv.AppendInt(digits[:0], v, 10)
	for range width - len(d) {
		p = append(p, '0')
	}
	return append(p, d...)
}

// ParseObjectName reads what ObjectName wrote; an error says that the name is not one of these.
func ParseObjectName(name string) (ObjectID, error) {
	parts := strings.Split(name, "/")
	fail := fmt.Errorf("%q is not the name of a segment object", name)
	if len(parts) != 6 {
		return ObjectID{}, fail
	}
	fields := strings.SplitN(parts[5], "-", 4)
	if len(fields) != 4 || fields[3] == "" {
		return ObjectID{}, fail
	}
	var n [4]int64
	for i, s := range append([]string{parts[3]}, fields[:3]...) {
		v, err := strconv.ParseInt(s, 10, 64)
		if err != nil {
			return ObjectID{}, fail
		}
		n[i] = v
	}
	o := ObjectID{Partition: int32(n[0]), Base: record.Offset(n[1]), End: record.Offset(n[2]), Epoch: record.LeaderEpoch(n[3]), UUID: fields[3]}
	if _, err := hex.Decode(o.Topic[:], []byte(parts[2])); err != nil || len(parts[2]) != 2*len(o.Topic) {
		return ObjectID{}, fail
	}
	if n[0] < 0 || n[3] < 0 || o.Base < 0 || o.End < o.Base ||
		ObjectName(Identity{Topic: o.Topic, Partition: o.Partition}, o.Base, o.End, o.Epoch, o.UUID) != name {
		return ObjectID{}, fail
	}
	return o, nil
}
