// Package partition owns one replica of one partition: its role, its offsets, appending, and reading over the local and
// the remote log as if they were one. It does not know the network or Kafka's error codes (ingest/kafka), nor which
// partitions a broker has (ingest/broker). ingest/broker opens and closes it, ingest/kafka appends and reads.
package partition

import (
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/ingest/hotlog"
	"github.com/everlog/everlog/ingest/producer"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// noUnstable stands for "no transaction is open".
const noUnstable = int64(1<<63 - 1)

// NotLeaderError says who leads instead, as far as is known (KIP-951). It is ErrNotLeader.
type NotLeaderError struct {
	Leader int32 // -1 if nobody does
	Epoch  record.LeaderEpoch
}

func (e *NotLeaderError) Error() string {
	return fmt.Sprintf("%v: broker %d is, in epoch %d", ErrNotLeader, e.Leader, e.Epoch)
}

// Unwrap makes the error ErrNotLeader.
func (e *NotLeaderError) Unwrap() error { return ErrNotLeader }

// Partition is one replica. Its methods are safe for concurrent use.
//
// Locks: mu makes appends, rolls and changes of role exclude each other. producerMu, commitMu and watchMu guard the
// fields below them and are held for no I/O; each may be taken under mu, none under another of them. With flush=os the
// log's notification comes from inside an append, under mu.
type Partition struct {
	id           segment.Identity
	topic        string
	log          *hotlog.Log
	logger       *slog.Logger
	settings     atomic.Pointer[config.TopicConfig]
	rules        atomic.Pointer[rules]
	tier         *Tier // nil if the partition has no remote log
	saveLogStart func(record.Offset) error

	// highWatermark is the end of what is committed: with one replica, of what is fsynced. It never goes back.
	highWatermark atomic.Int64
	// firstUnstable is the first offset of the earliest open transaction, or noUnstable.
	firstUnstable atomic.Int64
	// logStart is the earliest readable offset of any tier. It only grows.
	logStart atomic.Int64
	// epoch is the leader epoch that this replica leads in, or record.NoEpoch.
	epoch  atomic.Int32
	leader atomic.Int32 // who leads, for NotLeaderError

	mu     sync.Mutex // one appender at a time
	closed bool
	rolled []rolledAt // when segments that are not remote yet began

	producerMu sync.Mutex
	producers  *producer.State
	verifying  map[record.ProducerID]Guard
	lastGuard  Guard
	appending  int64 // base of the transactional batch that is in the log but not applied yet, or noUnstable

	startMu sync.Mutex // one change of the log start at a time; held while it is made durable

	commitMu sync.Mutex
	waiters  []commitWaiter // in offset order

	watchMu  sync.Mutex
	watchers map[*Watcher]struct{}
	watched  atomic.Int32 // len(watchers), read without the lock

	logOptions hotlog.Options // but for what the topic's settings say

	offline atomic.Pointer[error] // why appends are refused for good, until a person has looked

	ingested atomic.Int64 // bytes appended since it was opened

	// compacting is held by a compaction pass, a trim of a compacted log, and while an object is made of one: they exclude
	// each other. It is held across I/O; only Close waits for it.
	compacting  sync.Mutex
	stop        chan struct{} // closed by Close
	stopOnce    sync.Once
	cleaned     atomic.Int64  // below it no key occurs twice
	superseded  atomic.Int64  // below it are the records that others have given way to
	forgets     atomic.Uint64 // counts the times that aborted transactions were forgotten because nothing is left of them
	saveCleaned func(record.Offset) error
}

// Options of Open.
type Options struct {
	Topic    string
	Settings *config.TopicConfig
	// Log are the log's options but for what the topic's settings say.
	Log hotlog.Options
	// LogStart is the earliest readable offset as remembered locally; it may be below the local log's start.
	LogStart           record.Offset
	ProducerExpiration time.Duration
	// SaveLogStart makes a raised log start durable on the local disk.
	SaveLogStart func(record.Offset) error
	// Cleaned is the offset below which the log has been compacted, as remembered locally; SaveCleaned makes a new one
	// durable on the local disk. If it is nil the partition is never compacted.
	Cleaned     record.Offset
	SaveCleaned func(record.Offset) error
	Logger      *slog.Logger
}

// Open makes a replica of an opened log and what its recovery found. It replays the batches since the last producer
// snapshot. The replica leads nothing until Lead.
func Open(id segment.Identity, l *hotlog.Log, rec *hotlog.Recovery, o Options) (*Partition, error) {
	p := &Partition{id: id, topic: o.Topic, log: l, logger: o.Logger, saveLogStart: o.SaveLogStart, logOptions: o.Log, producers: producer.New(o.ProducerExpiration.Milliseconds()), watchers: map[*Watcher]struct{}{}, stop: make(chan struct{}), saveCleaned: o.SaveCleaned}
	p.SetSettings(o.Settings)
	p.epoch.Store(int32(record.NoEpoch))
	p.leader.Store(-1)
	p.firstUnstable.Store(noUnstable)
	p.appending = noUnstable
	if err := p.replay(rec); err != nil {
		return nil, fmt.Errorf("rebuild producer state of %s-%d: %w", o.Topic, id.Partition, err)
	}
	p.cleaned.Store(int64(min(o.Cleaned, l.End())))
	p.superseded.Store(p.cleaned.Load())
	if s := l.Sealed(l.Start()); len(s) > 0 { // a pass that did not end may have gone so far
		p.superseded.Store(int64(s[len(s)-1].End))
	}
	if err := p.forgetCompacted(); err != nil {
		return nil, fmt.Errorf("aborted transactions of %s-%d: %w", o.Topic, id.Partition, err)
	}
	if err := p.lower(o, l.End()); err != nil {
		return nil, fmt.Errorf("log start of %s-%d: %w", o.Topic, id.Partition, err)
	}
	p.logStart.Store(int64(min(max(o.LogStart, 0), l.Start())))
	if o.LogStart > l.Start() { // DeleteRecords went into the local log
		p.logStart.Store(int64(min(o.LogStart, l.End())))
	}
	p.highWatermark.Store(int64(l.Durable()))
	p.producers.SetHighWatermark(l.Durable())
	p.updateUnstableLocked()
	l.Notify(p.durable)
	return p, nil
}

// lower saves what is remembered beyond the log's end as that end. With flush=os the log may have lost its last records, and
// those that come to stand there are neither deleted nor compacted.
func (p *Partition) lower(o Options, end record.Offset) error {
	if o.LogStart > end {
		if err := p.saveLogStart(end); err != nil {
			return err
		}
	}
	if o.Cleaned > end && p.saveCleaned != nil {
		return p.saveCleaned(end)
	}
	return nil
}

// replay restores the producer state to the end of the log. Producers count as having written now: by their records'
// timestamps those of old records would have expired, and a batch resent after a restart be taken twice.
func (p *Partition) replay(rec *hotlog.Recovery) error {
	if err := p.producers.Restore(rec.Producers); err != nil {
		return err
	}
	now := time.Now().UnixMilli()
	return p.log.Scan(rec.FirstReplay, p.log.End(), func(b record.Batch) error {
		return p.producers.Apply(b, b.BaseOffset(), now)
	})
}

// Identity names the partition: cluster, topic id, number.
func (p *Partition) Identity() segment.Identity { return p.id }

// Topic is the topic's name.
func (p *Partition) Topic() string { return p.topic }

// Settings are the topic's effective settings.
func (p *Partition) Settings() *config.TopicConfig { return p.settings.Load() }

// SetSettings makes changed topic settings effective at once.
func (p *Partition) SetSettings(c *config.TopicConfig) {
	p.settings.Store(c)
	p.rules.Store(rulesOf(c))
	o := p.logOptions
	o.SegmentBytes = c.SegmentBytes
	p.log.SetOptions(o)
}

// Lead makes this replica the leader in epoch, which must be newer than any it led in. The epoch's start is on disk
// before Lead returns (KAFKA-7415).
func (p *Partition) Lead(self int32, epoch record.LeaderEpoch) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if record.LeaderEpoch(p.epoch.Load()) == epoch {
		return nil
	}
	if err := p.log.SetEpoch(epoch); err != nil {
		return fmt.Errorf("%w: start epoch %d of %s-%d: %w", ErrStorage, epoch, p.topic, p.id.Partition, err)
	}
	p.leader.Store(self)
	p.epoch.Store(int32(epoch))
	return nil
}

// Resign stops leading; leader is who leads now, or -1. Waiting producers are told.
func (p *Partition) Resign(leader int32) {
	p.mu.Lock()
	p.epoch.Store(int32(record.NoEpoch))
	p.leader.Store(leader)
	p.mu.Unlock()
	p.failWaiters(p.notLeader())
	p.wakeWatchers()
}

// takeOffline refuses appends from now on.
func (p *Partition) takeOffline(err error) { p.offline.Store(&err) }

// LeaderEpoch is the epoch that this replica leads in, or record.NoEpoch.
func (p *Partition) LeaderEpoch() record.LeaderEpoch { return record.LeaderEpoch(p.epoch.Load()) }

func (p *Partition) notLeader() error {
	return &NotLeaderError{Leader: p.leader.Load(), Epoch: record.LeaderEpoch(p.epoch.Load())}
}

// View is one consistent look at a partition's offsets.
type View struct {
	HighWatermark, LastStable, LogStart record.Offset
}

// View reads each offset once: two reads of a moving value within one request would let records above it out (KAFKA-9835).
func (p *Partition) View() View {
	start, hw := p.logStart.Load(), p.highWatermark.Load() // in this order: the start never passes the high watermark
	return View{HighWatermark: record.Offset(hw), LastStable: record.Offset(min(hw, max(start, p.firstUnstable.Load()))), LogStart: record.Offset(start)}
}

// LocalStart is the first offset of the local log, End the offset after its last record, committed or not.
func (p *Partition) LocalStart() record.Offset { return p.log.Start() }

// End is the log end offset.
func (p *Partition) End() record.Offset { return p.log.End() }

// Size is the bytes of the local log on disk.
func (p *Partition) Size() int64 { return p.log.Size() }

// Ingested is the number of bytes appended since the partition was opened.
func (p *Partition) Ingested() int64 { return p.ingested.Load() }

// Producers lists the known producers, for DescribeProducers.
func (p *Partition) Producers() []producer.Producer {
	p.producerMu.Lock()
	defer p.producerMu.Unlock()
	return p.producers.Producers()
}

// ExpireProducers forgets producers idle for too long.
func (p *Partition) ExpireProducers(now time.Time) {
	p.producerMu.Lock()
	defer p.producerMu.Unlock()
	p.producers.Expire(now.UnixMilli())
}

// Close ends the partition; its waiters get ErrClosed. The log is flushed and closed.
func (p *Partition) Close() error {
	p.mu.Lock()
	p.closed = true
	p.epoch.Store(int32(record.NoEpoch))
	p.mu.Unlock()
	p.failWaiters(ErrClosed)
	p.wakeWatchers()
	p.stopOnce.Do(func() { close(p.stop) })
	p.compacting.Lock()
	defer p.compacting.Unlock()
	return p.log.Close()
}

// Delete closes the partition and removes its local files.
func (p *Partition) Delete() error {
	_ = p.Close() // what cannot be flushed is about to be removed
	return p.log.Delete()
}
