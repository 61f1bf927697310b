package partition

import (
	"math"
	"time"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/tier/record"
)

// rulesOf takes from a topic's settings what an append is checked against.
func rulesOf(c *config.TopicConfig) *rules {
	return &rules{
		maxBatchBytes: c.MaxMessageBytes,
		segmentBytes:  c.SegmentBytes,
		codec:         c.Codec,
		keepCodec:     c.KeepCodec,
		level:         levelOf(c),
		logAppendTime: c.LogAppendTime,
		beforeMaxMs:   boundMs(c.TimestampBeforeMax),
		afterMaxMs:    boundMs(c.TimestampAfterMax),
		compacted:     c.Compact,
	}
}

// levelOf takes Kafka's defaults for the codec's own default.
func levelOf(c *config.TopicConfig) record.Level {
	defaults := map[record.Codec]int{record.Gzip: -1, record.LZ4: 9, record.Zstd: 3}
	if d, ok := defaults[c.Codec]; !ok || d == c.CodecLevel {
		return record.DefaultLevel
	}
	return record.Level(c.CodecLevel)
}

// boundMs is a limit in milliseconds; negative durations stand for none.
func boundMs(d time.Duration) int64 {
	if d < 0 {
		return math.MaxInt64
	}
	return d.Milliseconds()
}
