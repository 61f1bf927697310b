package protocol

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/tier/record"
)

var allCodecs = []record.Codec{record.None, record.Gzip, record.Snappy, record.LZ4, record.Zstd}

// codecRules has one rule for each compression.type and timestamp type: batches of every codec go through.
var codecRules = func() []rule {
	rules := []rule{
		{"§3.2", "v<7 must not carry zstd: UNSUPPORTED_COMPRESSION_TYPE", func(t *testing.T, b *broker) {
			tp := b.topic(t, 1)
			for version := int16(3); version < 7; version++ {
				refuses(t, b, tp, version, []refused{{"zstd", batchAt(t, record.Attrs{Codec: record.Zstd}, 1000, "a"), kerr.UnsupportedCompressionType}})
			}
			wantCode(t, "v7", produceIn(b.dial(t), 7, tp, 0, batchAt(t, record.Attrs{Codec: record.Zstd}, 1000, "a")).ErrorCode, nil)
		}},
		{"§3.4", "Fetch below v10 is given zstd as it is: down-conversion is gone", func(t *testing.T, b *broker) {
			tp := b.topic(t, 1, "compression.type=zstd")
			c := b.dial(t)
			fill(t, c, tp, 0, "a")
			for version := int16(4); version <= 12; version++ {
				got := Ask[*kmsg.FetchResponse](c, version, fetchRequest(wanted{topic: tp})).Topics[0].Partitions[0]
				wantCode(t, fmt.Sprintf("v%d", version), got.ErrorCode, nil)
				if batches, _ := decode(t, got.RecordBatches); len(batches) != 1 || batches[0].Codec() != record.Zstd {
					t.Errorf("v%d: %d batches, want the one in zstd", version, len(batches))
				}
			}
		}},
		{"§3.2", "a codec that does not exist is an error, not a crash", func(t *testing.T, b *broker) {
			tp := b.topic(t, 1)
			c := b.dial(t)
			for codec := byte(5); codec < 8; codec++ {
				got := produce(c, tp, 0, edit(batch(t, "a"), func(b []byte) { b[atAttributes+1] |= codec }))
				if got.ErrorCode == 0 {
					t.Errorf("codec %d was accepted", codec)
				}
			}
			want(t, "log end", listOffset(c, 7, tp, 0, -1).Offset, 0)
			mustServe(b.dial(t))
		}},
	}
	for _, clock := range []string{"CreateTime", "LogAppendTime"} {
		for _, kept := range []string{"producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"} {
			text := fmt.Sprintf("compression.type=%s and message.timestamp.type=%s, with batches of all five codecs", kept, clock)
			rules = append(rules, rule{"§3.2", text, func(t *testing.T, b *broker) { throughCodecs(t, b, kept, clock) }})
		}
	}
	return rules
}()

// throughCodecs sends a batch in each codec. Records, keys and offsets must come back; the codec is the topic's, or the
// producer's; the timestamp is the record's, or the broker's clock.
func throughCodecs(t *testing.T, b *broker, kept, clock string) {
	tp := b.topic(t, 1, "compression.type="+kept, "message.timestamp.type="+clock)
	c := b.dial(t)
	values := []string{"", "a", strings.Repeat("compressible ", 500), "last"}
	for i, codec := range allCodecs {
		created := time.Now().UnixMilli() - 60_000
		sent := batchAt(t, record.Attrs{Codec: codec}, created, values...)
		from := time.Now().UnixMilli()
		answer := produce(c, tp, 0, sent)
		until := time.Now().UnixMilli()
		base := int64(i * len(values))
		wantCode(t, codec.String(), answer.ErrorCode, nil)
		want(t, "base offset", answer.BaseOffset, base)

		batches, records := decode(t, fetch(c, tp, 0, base).RecordBatches)
		if len(batches) != 1 || len(records) != len(values) {
			t.Fatalf("%s: %d batches of %d records, want one of %d", codec, len(batches), len(records), len(values))
		}
		stored := batches[0]
		wanted := codec
		if kept != "producer" {
			wanted, _ = record.ParseCodec(strings.Replace(kept, "uncompressed", "none", 1))
		}
		want(t, "stored codec of a batch in "+codec.String(), stored.Codec(), wanted)
		want(t, "timestamp type", stored.LogAppendTime(), clock == "LogAppendTime")
		for j, r := range records {
			want(t, "value", r.value, values[j])
			want(t, "offset", r.offset, base+int64(j))
			if clock == "CreateTime" {
				want(t, "timestamp", r.timestamp, created+int64(j))
			}
		}
		if clock == "LogAppendTime" {
			want(t, "append time in the answer and in the batch", answer.LogAppendTime, stored.MaxTimestamp())
			if got := answer.LogAppendTime; got < from || got > until {
				t.Errorf("append time %d, want one in [%d, %d]", got, from, until)
			}
		} else {
			want(t, "append time", answer.LogAppendTime, -1)
			want(t, "base timestamp", stored.BaseTimestamp(), created)
			want(t, "max timestamp", stored.MaxTimestamp(), created+int64(len(values))-1)
			if wanted == codec && !bytes.Equal(stored[atCRC:], sent[atCRC:]) {
				t.Errorf("%s: the codec was kept, and yet the bytes changed", codec)
			}
		}
	}
}
