package localstate

import (
	"fmt"

	"github.com/cockroachdb/pebble/v2"

	"github.com/everlog/everlog/tier/record"
)

// NoCut is the Cut of a log that nothing is to be cut from.
const NoCut record.Offset = -1

// Saved is all that is stored for one log.
type Saved struct {
	// Start is the local log start: whatever files hold below it is left over.
	Start record.Offset
	// Cut, if not NoCut, says that all at and above it was being removed: what is still there is to be removed first.
	Cut record.Offset
	// Epochs is the leader epoch history, also of what is not local any more.
	Epochs []record.EpochStart
	// Checkpoint is what was known to be on disk, at most about a second before a crash.
	Checkpoint Checkpoint
	// Producers is the producer snapshot at ProducersAt, opaque; nil if there is none.
	Producers   []byte
	ProducersAt record.Offset
}

// Checkpoint says what is on disk for certain. It only ever describes what an fsync has covered.
type Checkpoint struct {
	// Base: every segment with a lower base offset is sealed and synced, footer included.
	Base record.Offset
	// Durable: every record below it is synced.
	Durable record.Offset
	// Table is the encoded footer that describes the closed blocks of an unsealed segment (segment.Builder.Checkpoint);
	// nil keeps the one stored before.
	Table []byte
}

// Update is a change of a log's state; nil fields stay.
type Update struct {
	Start      *record.Offset
	Cut        *record.Offset
	Epochs     []record.EpochStart // replaces the history; empty and not nil clears it
	Checkpoint *Checkpoint
	Producers  *Producers
}

// Producers is a producer snapshot and the offset it was taken at. Nil Snapshot removes it.
type Producers struct {
	At       record.Offset
	Snapshot []byte
}

// Log is the state of one log. Safe for concurrent use, but updates of one log are its owner's to order.
type Log struct {
	s *Store
	k logKey
}

// Log returns the handle of a log's state, whether or not there is any.
func (s *Store) Log(topic record.TopicID, partition int32) *Log {
	return &Log{s: s, k: makeLogKey(LogID{topic, partition})}
}

// Load reads the state, a waiting checkpoint included. A log without any starts at 0 with nothing known.
func (l *Log) Load() (Saved, error) {
	saved := Saved{Cut: NoCut}
	it, err := l.s.db.NewIter(&pebble.IterOptions{LowerBound: l.k.kind(0), UpperBound: l.k.kind(0xff)})
	if err != nil {
		return saved, fmt.Errorf("read log state: %w", err)
	}
	defer it.Close()
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err == nil {
			err = saved.take(it.Key()[len(l.k)], v)
		}
		if err != nil {
			return saved, fmt.Errorf("read log state: %w", err)
		}
	}
	if err := it.Error(); err != nil {
		return saved, fmt.Errorf("read log state: %w", err)
	}
	l.s.mu.Lock()
	defer l.s.mu.Unlock()
	if c, ok := l.s.dirty[l.k]; ok {
		if c.Table == nil {
			c.Table = saved.Checkpoint.Table
		}
		saved.Checkpoint = c
	}
	return saved, nil
}

// Save applies an update, all of it or nothing, and returns when it is on disk. A Checkpoint in it replaces what waits.
func (l *Log) Save(u Update) error {
	b := l.s.db.NewBatch()
	defer b.Close()
	if err := u.put(b, l.k); err != nil {
		return fmt.Errorf("write log state: %w", err)
	}
	return l.commit(b, u.Checkpoint != nil)
}

func (l *Log) commit(b *pebble.Batch, newer bool) error {
	l.s.mu.Lock()
	if newer {
		l.s.forgetLocked(l.k)
	}
	err := b.Commit(pebble.NoSync)
	l.s.mu.Unlock()
	if err == nil {
		err = l.s.db.LogData(nil, pebble.Sync)
	}
	if err != nil {
		return fmt.Errorf("write log state: %w", err)
	}
	return nil
}

// Checkpoint remembers c, to be written within about a second together with those of other logs. It does no I/O.
func (l *Log) Checkpoint(c Checkpoint) { l.s.remember(l.k, c) }

// Delete removes all state of the log, durably.
func (l *Log) Delete() error {
	b := l.s.db.NewBatch()
	defer b.Close()
	for _, kind := range logKinds {
		if err := b.Delete(l.k.kind(kind), nil); err != nil {
			return fmt.Errorf("delete log state: %w", err)
		}
	}
	return l.commit(b, true)
}
