package protocol

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/everlog/everlog/tier/record"
)

// batchRules are the checks of what is in a record batch.
var batchRules = []rule{
	{"§3.2", "exactly one batch of magic 2 a partition: none, more than one or another magic is INVALID_RECORD", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		one := batch(t, "a")
		magic := func(m byte) []byte { return edit(batch(t, "a"), func(b []byte) { b[atMagic] = m }) }
		for _, version := range []int16{3, 8, 12, 13} {
			refuses(t, b, tp, version, []refused{
				{"no batch", []byte{}, kerr.InvalidRecord},
				{"two batches", append(append([]byte{}, one...), batch(t, "b")...), kerr.InvalidRecord},
				{"magic 0", magic(0), kerr.InvalidRecord},
				{"magic 1", magic(1), kerr.InvalidRecord},
			})
		}
	}},
	{"§3.2", "baseOffset other than 0: INVALID_RECORD", func(t *testing.T, b *broker) {
		spoiled := batch(t, "a")
		binary.BigEndian.PutUint64(spoiled[atBaseOffset:], 7)
		refuses(t, b, b.topic(t, 1), 9, []refused{{"base offset 7", spoiled, kerr.InvalidRecord}})
	}},
	{"§3.2", "CRC-32C over attributes to the end must match: CORRUPT_MESSAGE", func(t *testing.T, b *broker) {
		var spoiled []refused
		for _, at := range []int{atCRC, atAttributes + 1, atMaxTimestamp, atRecords, atRecords + 5} {
			p := batch(t, "abcdefgh")
			p[at] ^= 0x40
			spoiled = append(spoiled, refused{fmt.Sprintf("byte %d", at), p, kerr.CorruptMessage})
		}
		refuses(t, b, b.topic(t, 1), 9, spoiled)
	}},
	{"§3.2", "leader epoch and base offset are outside of the CRC: any leader epoch is accepted", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		p := batch(t, "a")
		binary.BigEndian.PutUint32(p[12:], 77)
		mustProduce(c, tp, 0, p)
		got, _ := decode(t, fetch(c, tp, 0, 0).RecordBatches)
		want(t, "leader epoch", int32(got[0].LeaderEpoch()), listOffset(c, 7, tp, 0, -1).LeaderEpoch)
	}},
	{"§3.2", "a batch that is cut, or longer than it says: an error, nothing appended", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		whole := batch(t, "abcdefgh")
		for what, p := range map[string][]byte{
			"cut in its header": whole[:30], "cut in its records": whole[:len(whole)-3],
			"of length 0":        edit(batch(t, "a"), func(b []byte) { binary.BigEndian.PutUint32(b[atLength:], 0) }),
			"of negative length": edit(batch(t, "a"), func(b []byte) { binary.BigEndian.PutUint32(b[atLength:], 0xfffffff0) }),
		} {
			if got := produceIn(c, 9, tp, 0, p); got.ErrorCode == 0 {
				t.Errorf("a batch %s was accepted", what)
			}
		}
		want(t, "log end", listOffset(c, 7, tp, 0, -1).Offset, 0)
	}},
	{"§3.2", "count not above 0, or other than lastOffsetDelta+1: INVALID_RECORD", func(t *testing.T, b *broker) {
		spoil := func(delta, count int32) []byte {
			return edit(batch(t, "a", "b", "c"), func(b []byte) {
				binary.BigEndian.PutUint32(b[atLastDelta:], uint32(delta))
				binary.BigEndian.PutUint32(b[atCount:], uint32(count))
			})
		}
		refuses(t, b, b.topic(t, 1), 9, []refused{
			{"delta above count", spoil(3, 3), kerr.InvalidRecord}, {"delta below count", spoil(1, 3), kerr.InvalidRecord},
			{"negative delta", spoil(-1, 3), kerr.InvalidRecord}, {"no records", spoil(-1, 0), kerr.InvalidRecord}, {"negative count", spoil(2, -3), kerr.InvalidRecord},
		})
	}},
	{"§3.2", "every record is decoded, and their count must match: INVALID_RECORD", func(t *testing.T, b *broker) {
		spoil := func(codec record.Codec, change func(b []byte)) []byte {
			return edit(batchAt(t, record.Attrs{Codec: codec}, 1000, "aaaa", "bbbb", "cccc"), change)
		}
		more := func(b []byte) {
			binary.BigEndian.PutUint32(b[atLastDelta:], 3)
			binary.BigEndian.PutUint32(b[atCount:], 4)
		}
		fewer := func(b []byte) {
			binary.BigEndian.PutUint32(b[atLastDelta:], 1)
			binary.BigEndian.PutUint32(b[atCount:], 2)
		}
		var spoiled []refused
		for _, codec := range []record.Codec{record.None, record.Gzip, record.Snappy, record.LZ4, record.Zstd} {
			spoiled = append(spoiled, refused{codec.String() + ": a record less than counted", spoil(codec, more), kerr.InvalidRecord},
				refused{codec.String() + ": a record more than counted", spoil(codec, fewer), kerr.InvalidRecord})
		}
		spoiled = append(spoiled,
			refused{"a record longer than the batch", spoil(record.None, func(b []byte) { b[atRecords] = 0x7e }), kerr.InvalidRecord},
			refused{"a record shorter than its fields", spoil(record.None, func(b []byte) { b[atRecords] -= 2 }), kerr.InvalidRecord},
			refused{"a key longer than its record", spoil(record.None, func(b []byte) { b[atRecords+4] = 0x7e }), kerr.InvalidRecord})
		refuses(t, b, b.topic(t, 1), 9, spoiled)
	}},
	{"§3.2", "compressed records that do not decompress: an error, nothing appended, the broker lives", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		noise := rand.New(rand.NewPCG(1, 2))
		for _, codec := range []record.Codec{record.Gzip, record.Snappy, record.LZ4, record.Zstd} {
			for range 5 {
				p := edit(batchAt(t, record.Attrs{Codec: codec}, 1000, "aaaaaaaaaaaaaaaa", "bbbb", "cccc"), func(b []byte) {
					for i := atRecords; i < len(b); i++ {
						b[i] = byte(noise.Uint32())
					}
				})
				if got := produceIn(c, 9, tp, 0, p); got.ErrorCode == 0 {
					t.Errorf("noise as %s was accepted", codec)
				}
			}
		}
		want(t, "log end", listOffset(c, 7, tp, 0, -1).Offset, 0)
		mustServe(b.dial(t))
	}},
	{"§3.2", "client control batch, or a producer id with a negative sequence: INVALID_RECORD", func(t *testing.T, b *broker) {
		refuses(t, b, b.topic(t, 1), 9, []refused{
			{"control batch", batchAt(t, record.Attrs{Control: true}, 1000, "a"), kerr.InvalidRecord},
			{"sequence -1", sequenced(t, 4000, 0, -1, "a"), kerr.InvalidRecord},
		})
	}},
	{"§3.2", "batch bytes above max.message.bytes: MESSAGE_TOO_LARGE; exactly as many are accepted", func(t *testing.T, b *broker) {
		fits := batch(t, string(make([]byte, 5000)))
		tp := b.topic(t, 1, fmt.Sprintf("max.message.bytes=%d", len(fits)))
		mustProduce(b.dial(t), tp, 0, fits)
		above := batch(t, string(make([]byte, 5001)))
		both := batch(t, string(make([]byte, 5001)))
		both[atCRC] ^= 1
		moved := batch(t, string(make([]byte, 5001)))
		moved[7] = 1
		refuses(t, b, tp, 9, []refused{
			{"one byte more", above, kerr.MessageTooLarge}, {"size is checked before the CRC", both, kerr.MessageTooLarge}, {"and after the base offset", moved, kerr.InvalidRecord},
		})
	}},
	{"§3.2", "after re-compression the size is checked again: MESSAGE_TOO_LARGE", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "max.message.bytes=10000", "compression.type=uncompressed")
		packed := batchAt(t, record.Attrs{Codec: record.Gzip}, 1000, string(make([]byte, 50_000)))
		refuses(t, b, tp, 9, []refused{{"50,000 bytes unpacked", packed, kerr.MessageTooLarge}})
	}},
	{"§3.2", "a batch larger than segment.bytes: RECORD_LIST_TOO_LARGE", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "segment.bytes=1048576", "max.message.bytes=4000000")
		refuses(t, b, tp, 9, []refused{{"2 MB", batch(t, string(make([]byte, 2_000_000))), kerr.RecordListTooLarge}})
	}},
	{"§3.2", "null key on a compacted topic: INVALID_RECORD, with the record's index and a message in v8+", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "cleanup.policy=compact")
		builder := record.NewBuilder(record.Attrs{})
		now := time.Now().UnixMilli()
		builder.Append(now, []byte("k"), []byte("v"))
		builder.Append(now, nil, []byte("v"))
		builder.Append(now, []byte{}, nil)
		builder.Append(now, nil, []byte("w"))
		p, err := builder.Build()
		if err != nil {
			t.Fatal(err)
		}
		refuses(t, b, tp, 7, []refused{{"null keys", p, kerr.InvalidRecord}})
		got := produceIn(b.dial(t), 8, tp, 0, p)
		wantCode(t, "null keys", got.ErrorCode, kerr.InvalidRecord)
		wantErrorRecords(t, got, 1, 3)
		mustProduce(b.dial(t), tp, 0, batch(t, "with a key"))
	}},
	{"§3.2", "maxTimestamp of a batch is what its records say, whatever the producer wrote", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		now := time.Now().UnixMilli()
		mustProduce(c, tp, 0, edit(batchAt(t, record.Attrs{}, now, "a", "b", "c"), func(b []byte) { binary.BigEndian.PutUint64(b[atMaxTimestamp:], 5) }))
		got, _ := decode(t, fetch(c, tp, 0, 0).RecordBatches)
		want(t, "max timestamp", got[0].MaxTimestamp(), now+2)
	}},
}
