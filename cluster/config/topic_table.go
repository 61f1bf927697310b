package config

const (
	maxInt  = "2147483647"
	maxLong = "9223372036854775807"
)

// topicTable follows LogConfig and TopicConfig of Kafka 4.3.1. everlog differs in: segment.bytes (128 MiB, not 1 GiB: a
// segment is the unit of shipping) and remote.storage.enable (true: tiering is on for every topic).
var topicTable = []Key{
	topic("cleanup.policy", List, "delete", "log.cleanup.policy", listOf("compact", "delete"), "What happens to old records: delete drops them by retention, compact keeps the newest of each key; both may be given, empty keeps everything."),
	topic("compression.type", String, "producer", "compression.type", codecs, "Codec of stored batches; producer keeps what the producer sent."),
	topic("compression.gzip.level", Int, "-1", "compression.gzip.level", gzipLevel, "Level when compression.type is gzip."),
	topic("compression.lz4.level", Int, "9", "compression.lz4.level", between(1, 17), "Level when compression.type is lz4."),
	topic("compression.zstd.level", Int, "3", "compression.zstd.level", between(-131072, 22), "Level when compression.type is zstd."),
	topic("delete.retention.ms", Long, "86400000", "log.cleaner.delete.retention.ms", atLeast(0), "How long a tombstone stays in a compacted topic, in milliseconds."),
	topic("file.delete.delay.ms", Long, "60000", "log.segment.delete.delay.ms", atLeast(0), "Wait before a dropped segment leaves the disk, in milliseconds."),
	topic("flush.messages", Long, maxLong, "log.flush.interval.messages", atLeast(1), "Records between forced flushes; everlog flushes every acknowledged record unless the broker says flush=os."),
	topic("flush.ms", Long, maxLong, "log.flush.interval.ms", atLeast(0), "Longest time between forced flushes, in milliseconds; see flush.messages."),
	topic("follower.replication.throttled.replicas", List, "", "", throttledReplicas, "Replicas whose replication is throttled on the follower: *, or partition:broker pairs."),
	topic("index.interval.bytes", Int, "4096", "log.index.interval.bytes", atLeast(0), "Accepted for compatibility; everlog's segments index by block."),
	topic("leader.replication.throttled.replicas", List, "", "", throttledReplicas, "Replicas whose replication is throttled on the leader: *, or partition:broker pairs."),
	topic("local.retention.bytes", Long, "-2", "log.local.retention.bytes", atLeast(-2), "Bytes of a partition kept on the broker's disk; -2 follows retention.bytes and the broker's local.budget.bytes."),
	topic("local.retention.ms", Long, "-2", "log.local.retention.ms", atLeast(-2), "Time that records stay on the broker's disk, in milliseconds; -2 follows retention.ms and the broker's local.budget.bytes."),
	topic("max.compaction.lag.ms", Long, maxLong, "log.cleaner.max.compaction.lag.ms", atLeast(1), "Longest time a record stays uncompacted, in milliseconds."),
	topic("max.message.bytes", Int, "1048588", "message.max.bytes", atLeast(0), "Largest record batch accepted, in bytes after compression."),
	topic("message.timestamp.after.max.ms", Long, "3600000", "log.message.timestamp.after.max.ms", atLeast(0), "How far a record's timestamp may be ahead of the broker's clock, in milliseconds."),
	topic("message.timestamp.before.max.ms", Long, maxLong, "log.message.timestamp.before.max.ms", atLeast(0), "How far a record's timestamp may be behind the broker's clock, in milliseconds."),
	topic("message.timestamp.type", String, "CreateTime", "log.message.timestamp.type", timestampTypes, "Whose clock stamps records: the producer's, or the broker's at append."),
	topic("min.cleanable.dirty.ratio", Double, "0.5", "log.cleaner.min.cleanable.ratio", ratio, "Part of a compacted log that must be uncompacted before it is compacted again."),
	topic("min.compaction.lag.ms", Long, "0", "log.cleaner.min.compaction.lag.ms", atLeast(0), "Shortest time a record stays uncompacted, in milliseconds."),
	topic("min.insync.replicas", Int, "1", "min.insync.replicas", atLeast(1), "In-sync replicas without which acks=all writes are refused."),
	topic("preallocate", Boolean, "false", "log.preallocate", nil, "Reserve a segment's blocks on disk when it is created."),
	topic("remote.log.copy.disable", Boolean, "false", "", nil, "Stop shipping segments; what is remote stays readable."),
	topic("remote.log.delete.on.disable", Boolean, "false", "", nil, "Delete what is remote when remote.storage.enable is turned off."),
	topic("remote.storage.enable", Boolean, "true", "", nil, "Ship sealed segments to the object store."),
	topic("retention.bytes", Long, "-1", "log.retention.bytes", nil, "Bytes of a partition kept in all tiers; -1 is no limit."),
	topic("retention.ms", Long, "604800000", "log.retention.ms", atLeast(-1), "Time that records are kept in all tiers, in milliseconds; -1 is for ever."),
	topic("segment.bytes", Int, "134217728", "log.segment.bytes", atLeast(1<<20), "Size at which a segment is sealed."),
	topic("segment.index.bytes", Int, "10485760", "log.index.size.max.bytes", atLeast(4), "Accepted for compatibility; everlog's segments hold their own index."),
	topic("segment.jitter.ms", Long, "0", "log.roll.jitter.ms", atLeast(0), "Random time subtracted from segment.ms, in milliseconds."),
	topic("segment.ms", Long, "604800000", "log.roll.ms", atLeast(1), "Age at which a segment is sealed, in milliseconds; the broker's tier.seal.ms may seal it sooner."),
	topic("unclean.leader.election.enable", Boolean, "false", "unclean.leader.election.enable", nil, "Accepted for compatibility; everlog elects an out-of-sync replica only by an operator's command."),
}

var (
	codecs         = oneOf("uncompressed", "zstd", "lz4", "snappy", "gzip", "producer")
	timestampTypes = oneOf("CreateTime", "LogAppendTime")
)

func topic(name string, t Type, def, synonym string, c check, doc string) Key {
	return Key{Name: name, Type: t, Default: def, HasDefault: true, Synonym: synonym, check: c, Doc: doc, Scope: ClusterWide}
}
