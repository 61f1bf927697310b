package localstate

import (
	"encoding/binary"
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/everlog/everlog/tier/record"
)

// Keys. See FORMAT.md.
const (
	prefixNode  = 'n'
	prefixNamed = 'v'
	prefixLog   = 'l'

	kindStart      = 's'
	kindCut        = 'x'
	kindEpochs     = 'e'
	kindCheckpoint = 'c'
	kindTable      = 't'
	kindProducers  = 'p'
)

// logKinds are all the kinds of a log's values.
var logKinds = []byte{kindStart, kindCut, kindEpochs, kindCheckpoint, kindTable, kindProducers}

var keyDiskID = []byte{prefixNode, 'd', 'i', 's', 'k'}

func namedKey(name string) []byte { return append([]byte{prefixNamed}, name...) }

// logKey is the prefix of a log's keys: 'l', topic id, partition. One more byte says the kind.
type logKey [21]byte

func makeLogKey(id LogID) (k logKey) {
	k[0] = prefixLog
	copy(k[1:], id.Topic[:])
	binary.BigEndian.PutUint32(k[17:], uint32(id.Partition))
	return k
}

func (k logKey) kind(c byte) []byte { return append(k[:], c) }

func parseLogKey(p []byte) (LogID, error) {
	if len(p) != len(logKey{})+1 {
		return LogID{}, fmt.Errorf("%w: key %x", ErrCorrupt, p)
	}
	return LogID{Topic: record.TopicID(p[1:17]), Partition: int32(binary.BigEndian.Uint32(p[17:]))}, nil
}

func offset(p []byte) record.Offset { return record.Offset(binary.BigEndian.Uint64(p)) }

func appendOffset(p []byte, o record.Offset) []byte {
	return binary.BigEndian.AppendUint64(p, uint64(o))
}

// epochSize is the size of an entry of the epoch history.
const epochSize = 12

// take puts a stored value in its field. It copies what it keeps.
func (s *Saved) take(kind byte, v []byte) error {
	bad := func() error { return fmt.Errorf("%w: value %q of %d bytes", ErrCorrupt, kind, len(v)) }
	switch kind {
	case kindStart, kindCut:
		if len(v) != 8 {
			return bad()
		}
		if kind == kindStart {
			s.Start = offset(v)
		} else {
			s.Cut = offset(v)
		}
	case kindEpochs:
		if len(v)%epochSize != 0 {
			return bad()
		}
		for ; len(v) > 0; v = v[epochSize:] {
			s.Epochs = append(s.Epochs, record.EpochStart{Epoch: record.LeaderEpoch(binary.BigEndian.Uint32(v)), Start: offset(v[4:])})
		}
	case kindCheckpoint:
		if len(v) != 16 {
			return bad()
		}
		s.Checkpoint.Base, s.Checkpoint.Durable = offset(v), offset(v[8:])
	case kindTable:
		s.Checkpoint.Table = append([]byte(nil), v...)
	case kindProducers:
		if len(v) < 8 {
			return bad()
		}
		s.ProducersAt, s.Producers = offset(v), append([]byte{}, v[8:]...)
	}
	return nil // a kind of a newer version is not ours to judge
}

// put writes the checkpoint of log k.
func (c *Checkpoint) put(b *pebble.Batch, k logKey) error {
	if err := b.Set(k.kind(kindCheckpoint), appendOffset(appendOffset(nil, c.Base), c.Durable), nil); err != nil {
		return err
	}
	if c.Table == nil {
		return nil
	}
	return b.Set(k.kind(kindTable), c.Table, nil)
}

func (u *Update) put(b *pebble.Batch, k logKey) error {
	if u.Start != nil {
		if err := b.Set(k.kind(kindStart), appendOffset(nil, *u.Start), nil); err != nil {
			return err
		}
	}
	if u.Cut != nil {
		if err := b.Set(k.kind(kindCut), appendOffset(nil, *u.Cut), nil); err != nil {
			return err
		}
	}
	if u.Epochs != nil {
		p := make([]byte, 0, len(u.Epochs)*epochSize)
		for _, e := range u.Epochs {
			p = appendOffset(binary.BigEndian.AppendUint32(p, uint32(e.Epoch)), e.Start)
		}
		if err := b.Set(k.kind(kindEpochs), p, nil); err != nil {
			return err
		}
	}
	if u.Checkpoint != nil {
		if err := u.Checkpoint.put(b, k); err != nil {
			return err
		}
	}
	if u.Producers == nil {
		return nil
	}
	if u.Producers.Snapshot == nil {
		return b.Delete(k.kind(kindProducers), nil)
	}
	return b.Set(k.kind(kindProducers), append(appendOffset(nil, u.Producers.At), u.Producers.Snapshot...), nil)
}
