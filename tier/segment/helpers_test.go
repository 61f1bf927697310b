package segment

import (
	"bytes"
	"encoding/binary"
	"math/rand"
	"testing"

	"github.com/everlog/everlog/tier/record"
)

var testID = Identity{
	Cluster:   [16]byte{0xc1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	Topic:     record.TopicID{0x70, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1},
	Partition: 3,
}

// batchOf makes a stamped, signed batch of count records whose record section is payload. The records need not decode:
// nothing here looks at them.
func batchOf(base record.Offset, epoch record.LeaderEpoch, count int32, ts int64, payload []byte) record.Batch {
	b := record.Batch(make([]byte, record.HeaderSize, record.HeaderSize+len(payload)))
	b = append(b, payload...)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	b[16] = 2
	binary.BigEndian.PutUint32(b[23:], uint32(count-1))
	binary.BigEndian.PutUint64(b[27:], uint64(ts))
	binary.BigEndian.PutUint64(b[35:], uint64(ts+int64(count)-1))
	binary.BigEndian.PutUint64(b[43:], ^uint64(0))
	binary.BigEndian.PutUint16(b[51:], ^uint16(0))
	binary.BigEndian.PutUint32(b[53:], ^uint32(0))
	binary.BigEndian.PutUint32(b[57:], uint32(count))
	b.Stamp(base, epoch)
	binary.BigEndian.PutUint32(b[17:], b.Checksum())
	return b
}

// script is a random run of batches: sizes from tiny to past the block target, some compressible, epochs that grow.
func script(rng *rand.Rand, base record.Offset, n int) []record.Batch {
	var out []record.Batch
	epoch := record.LeaderEpoch(5)
	for range n {
		size := 1 << rng.Intn(17)
		if rng.Intn(20) == 0 {
			size = 300 << 10
		}
		payload := make([]byte, size)
		if rng.Intn(2) == 0 {
			rng.Read(payload)
		} else {
			copy(payload, bytes.Repeat([]byte("the same words again "), size/21+1))
		}
		if rng.Intn(10) == 0 {
			epoch += record.LeaderEpoch(1 + rng.Intn(3))
		}
		b := batchOf(base, epoch, int32(1+rng.Intn(50)), 1_700_000_000_000+rng.Int63n(1e6), payload)
		out = append(out, b)
		base = b.NextOffset()
	}
	return out
}

// write seals batches into a raw segment and returns its bytes and footer.
func write(t testing.TB, base record.Offset, batches []record.Batch, aborted []record.AbortedTxn, producers []byte) ([]byte, *Footer) {
	t.Helper()
	b := NewBuilder(testID, base, 5)
	out := b.Header()
	for _, k := range batches {
		if b.Position() != int64(len(out)) {
			t.Fatalf("position is %d, %d bytes are written", b.Position(), len(out))
		}
		if err := b.Add(k); err != nil {
			t.Fatal(err)
		}
		out = append(out, k...)
	}
	trailer, f := b.Finish(aborted, producers)
	return append(out, trailer...), f
}
