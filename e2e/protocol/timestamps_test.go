package protocol

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/tier/record"
)

const day = 24 * int64(time.Hour/time.Millisecond)

// wantErrorRecords wants the records with these indexes in the batch, and no others, to be named in the answer, and a message with it.
func wantErrorRecords(t *testing.T, got kmsg.ProduceResponseTopicPartition, indexes ...int32) {
	t.Helper()
	var found []int32
	for _, r := range got.ErrorRecords {
		found = append(found, r.RelativeOffset)
		if r.ErrorMessage == nil || *r.ErrorMessage == "" {
			t.Errorf("record %d has no message", r.RelativeOffset)
		}
	}
	if !slices.Equal(found, indexes) {
		t.Errorf("records in error: %v, want %v", found, indexes)
	}
	if got.ErrorMessage == nil || *got.ErrorMessage == "" {
		t.Error("the answer has no message")
	}
}

// mixed is a batch of records with these timestamps.
func mixed(t *testing.T, codec record.Codec, timestamps ...int64) record.Batch {
	t.Helper()
	builder := record.NewBuilder(record.Attrs{Codec: codec})
	for _, ts := range timestamps {
		builder.Append(ts, []byte("k"), []byte("v"))
	}
	p, err := builder.Build()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

var timestampRules = []rule{
	{"§3.2", "CreateTime after now + message.timestamp.after.max.ms, an hour by default: INVALID_TIMESTAMP with the records' indexes", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		now := time.Now().UnixMilli()
		for _, codec := range allCodecs {
			got := produceIn(c, 9, tp, 0, mixed(t, codec, now, now+2*day, now-day, now+3*day, now+30*60_000))
			wantCode(t, codec.String(), got.ErrorCode, kerr.InvalidTimestamp)
			wantErrorRecords(t, got, 1, 3)
			want(t, "base offset", got.BaseOffset, -1)
		}
		want(t, "log end: the whole batch is refused", listOffset(c, 7, tp, 0, -1).Offset, 0)
		wantCode(t, "within the hour", produce(c, tp, 0, mixed(t, record.None, now+30*60_000)).ErrorCode, nil)
	}},
	{"§3.2", "CreateTime before now - message.timestamp.before.max.ms: INVALID_TIMESTAMP; by default there is no limit", func(t *testing.T, b *broker) {
		c := b.dial(t)
		now := time.Now().UnixMilli()
		limited, free := b.topic(t, 1, "message.timestamp.before.max.ms=3600000"), b.topic(t, 1, "retention.ms=-1")
		got := produceIn(c, 9, limited, 0, mixed(t, record.None, now, now-day))
		wantCode(t, "a day old", got.ErrorCode, kerr.InvalidTimestamp)
		wantErrorRecords(t, got, 1)
		wantCode(t, "within the limit", produce(c, limited, 0, mixed(t, record.None, now-1_800_000)).ErrorCode, nil)
		wantCode(t, "no limit", produce(c, free, 0, mixed(t, record.None, 0, 1, now-100*day)).ErrorCode, nil)
	}},
	{"§3.2", "a record without a timestamp, -1, passes every limit", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "message.timestamp.before.max.ms=1000")
		wantCode(t, "-1", produce(b.dial(t), tp, 0, mixed(t, record.None, -1)).ErrorCode, nil)
	}},
	{"§3.2", "with LogAppendTime the limits do not count", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1, "message.timestamp.type=LogAppendTime", "message.timestamp.before.max.ms=1000", "message.timestamp.after.max.ms=1000")
		now := time.Now().UnixMilli()
		for _, ts := range []int64{now - day, now + day, -1} {
			wantCode(t, fmt.Sprint(ts), produce(b.dial(t), tp, 0, mixed(t, record.None, ts)).ErrorCode, nil)
		}
	}},
	{"§3.2", "LogAppendTime set by a producer: INVALID_TIMESTAMP on a topic with that type", func(t *testing.T, b *broker) {
		set := func(codec record.Codec) record.Batch {
			return edit(batchAt(t, record.Attrs{Codec: codec}, time.Now().UnixMilli(), "a"), func(b []byte) { b[atAttributes+1] |= 8 })
		}
		append, create := b.topic(t, 1, "message.timestamp.type=LogAppendTime"), b.topic(t, 1)
		c := b.dial(t)
		for _, codec := range allCodecs {
			wantCode(t, codec.String(), produce(c, append, 0, set(codec)).ErrorCode, kerr.InvalidTimestamp)
			wantCode(t, codec.String()+" on CreateTime", produce(c, create, 0, set(codec)).ErrorCode,
				differs(b, nil, kerr.InvalidTimestamp, "Kafka clears the bit; everlog stores no batch that says something else than its producer did"))
		}
	}},
	{"§3.2", "the timestamp type of a topic may change: each batch keeps the one it was appended with", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "create")
		wantNoErrors(t, "alter", Ask[*kmsg.IncrementalAlterConfigsResponse](c, 1, incrementalRequest(tp.name, set("message.timestamp.type", "LogAppendTime"))))
		b.awaitConfig(t, tp, "message.timestamp.type", "LogAppendTime")
		fill(t, c, tp, 0, "append")
		got, _ := decode(t, fetch(c, tp, 0, 0).RecordBatches)
		want(t, "first", got[0].LogAppendTime(), false)
		want(t, "second", got[1].LogAppendTime(), true)
	}},
}
