// Package localstate owns the broker's small local state, in one Pebble store: the disk's identity, per log the local
// start, the epoch history, the checkpoint of the active segment and a producer snapshot, and small values by name. It
// does not own records: those are in segment files, and everything here is either a promise those files cannot carry
// (where a log starts, what must be there) or a shortcut. ingest/hotlog writes the state of its log through Log;
// ingest/broker owns the Store. FORMAT.md is the map of keys and values.
package localstate

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/everlog/everlog/tier/record"
)

// ErrCorrupt means that a value is not what this package wrote.
var ErrCorrupt = errors.New("corrupt local state")

// ErrClosed means that the Store has been closed.
var ErrClosed = errors.New("local state is closed")

// Options of a Store. The zero value is valid.
type Options struct {
	// FS is the file system; nil is the operating system's. Tests pass a memory one that can crash.
	FS vfs.FS
	// Logger takes Pebble's own messages: at debug level, errors at error level. nil drops them.
	Logger *slog.Logger
	// Flush is how long a checkpoint may wait to be written together with those of other logs. Default 1 s.
	Flush time.Duration
	// OnError is called once if a checkpoint cannot be written: the disk is not to be trusted any more. May be nil.
	OnError func(error)
}

// Sizes for a broker that is idle most of the time: a few MiB, whatever the number of logs.
const (
	cacheBytes    = 1 << 20
	memTableBytes = 1 << 20
	maxOpenFiles  = 64
)

// formatVersion is pinned, so that an upgrade of the library alone never makes a store unreadable to the release before.
const formatVersion = pebble.FormatTableFormatV6

// Store is a broker's local state. Safe for concurrent use.
type Store struct {
	db      *pebble.DB
	diskID  [16]byte
	onError func(error)
	flush   time.Duration

	mu     sync.Mutex
	dirty  map[logKey]Checkpoint // waiting for the next flush
	wake   chan struct{}         // has room for one: dirty is not empty
	closed bool
	done   chan struct{} // closed when the flushing goroutine ended
	stop   chan struct{}
}

// Open opens or makes the store in dir. A new store gets a fresh disk identity, durably, before Open returns.
func Open(dir string, o Options) (*Store, error) {
	cache := pebble.NewCache(cacheBytes)
	defer cache.Unref()
	logger := o.Logger
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	opts := &pebble.Options{
		FS: o.FS, Cache: cache, MemTableSize: memTableBytes, MaxOpenFiles: maxOpenFiles,
		FormatMajorVersion: formatVersion, Logger: pebbleLogger{logger},
		CompactionConcurrencyRange: func() (int, int) { return 1, 1 },
	}
	db, err := pebble.Open(dir, opts)
	if err != nil {
		return nil, fmt.Errorf("open local state in %s: %w", dir, err)
	}
	s := &Store{
		db: db, onError: o.OnError, flush: o.Flush, dirty: map[logKey]Checkpoint{},
		wake: make(chan struct{}, 1), done: make(chan struct{}), stop: make(chan struct{}),
	}
	if s.flush <= 0 {
		s.flush = time.Second
	}
	if err := s.identify(); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	go s.run()
	return s, nil
}

// identify reads the disk's identity, or makes it.
func (s *Store) identify() error {
	v, err := s.get(keyDiskID)
	if err != nil {
		return err
	}
	if v == nil {
		_, _ = rand.Read(s.diskID[:]) // never fails since Go 1.24
		return s.set(keyDiskID, s.diskID[:])
	}
	if len(v) != len(s.diskID) {
		return fmt.Errorf("%w: disk identity of %d bytes", ErrCorrupt, len(v))
	}
	copy(s.diskID[:], v)
	return nil
}

// DiskID is the identity of this data directory, random, made once. A broker that comes back with another has lost its
// disk.
func (s *Store) DiskID() [16]byte { return s.diskID }

// Get returns the value stored under name, or nil if there is none. The caller owns the slice.
func (s *Store) Get(name string) ([]byte, error) { return s.get(namedKey(name)) }

// Set stores a small value under name, durably; nil removes it.
func (s *Store) Set(name string, value []byte) error {
	if value == nil {
		if err := s.db.Delete(namedKey(name), pebble.Sync); err != nil {
			return fmt.Errorf("delete local state %q: %w", name, err)
		}
		return nil
	}
	return s.set(namedKey(name), value)
}

func (s *Store) get(key []byte) ([]byte, error) {
	v, closer, err := s.db.Get(key)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read local state %q: %w", key, err)
	}
	p := append([]byte{}, v...)
	return p, closer.Close()
}

func (s *Store) set(key, value []byte) error {
	if err := s.db.Set(key, value, pebble.Sync); err != nil {
		return fmt.Errorf("write local state %q: %w", key, err)
	}
	return nil
}

// run writes waiting checkpoints, all logs' in one synced batch, s.flush after the first of them.
func (s *Store) run() {
	defer close(s.done)
	timer := time.NewTimer(time.Hour)
	timer.Stop()
	for {
		select {
		case <-s.wake:
			timer.Reset(s.flush)
		case <-timer.C:
			if err := s.Flush(); err != nil {
				if s.onError != nil {
					s.onError(err)
				}
				return
			}
		case <-s.stop:
			return
		}
	}
}

// Flush writes the waiting checkpoints now, durably.
func (s *Store) Flush() error {
	s.mu.Lock()
	dirty := s.dirty
	s.dirty = make(map[logKey]Checkpoint, len(dirty))
	if len(dirty) == 0 {
		s.mu.Unlock()
		return nil
	}
	b := s.db.NewBatch()
	defer b.Close()
	for k, c := range dirty {
		if err := c.put(b, k); err != nil {
			s.mu.Unlock()
			return fmt.Errorf("write checkpoints: %w", err)
		}
	}
	// Applied under the lock, so that a Save that comes later is also later in the store; synced outside of it.
	err := b.Commit(pebble.NoSync)
	s.mu.Unlock()
	if err == nil {
		err = s.db.LogData(nil, pebble.Sync)
	}
	if err != nil {
		return fmt.Errorf("write %d checkpoints: %w", len(dirty), err)
	}
	return nil
}

// remember takes a checkpoint for the next flush.
func (s *Store) remember(k logKey, c Checkpoint) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	first := len(s.dirty) == 0
	if c.Table == nil {
		c.Table = s.dirty[k].Table // a table taken earlier is still true: it describes synced bytes
	}
	s.dirty[k] = c
	if first {
		select {
		case s.wake <- struct{}{}:
		default:
		}
	}
}

// forgetLocked drops the waiting checkpoint of a log, for what is written now is newer.
func (s *Store) forgetLocked(k logKey) { delete(s.dirty, k) }

// Close flushes and closes the store. Logs' handles must not be used afterwards.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return ErrClosed
	}
	s.closed = true
	s.mu.Unlock()
	close(s.stop)
	<-s.done
	return errors.Join(s.Flush(), s.db.Close())
}

// Logs returns the logs that have state, in the order of topic id and partition.
func (s *Store) Logs() ([]LogID, error) {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: []byte{prefixLog}, UpperBound: []byte{prefixLog + 1}})
	if err != nil {
		return nil, fmt.Errorf("list logs: %w", err)
	}
	defer it.Close()
	var out []LogID
	for ok := it.First(); ok; ok = it.Next() {
		id, err := parseLogKey(it.Key())
		if err != nil {
			return nil, err
		}
		if n := len(out); n == 0 || out[n-1] != id {
			out = append(out, id)
		}
	}
	if err := it.Error(); err != nil {
		return nil, fmt.Errorf("list logs: %w", err)
	}
	return out, nil
}

// LogID names a log: a partition of one incarnation of a topic.
type LogID struct {
	Topic     record.TopicID
	Partition int32
}

// pebbleLogger sends Pebble's messages to slog.
type pebbleLogger struct{ l *slog.Logger }

func (p pebbleLogger) Infof(format string, args ...any) {
	if p.l.Enabled(context.Background(), slog.LevelDebug) {
		p.l.Debug("pebble: " + fmt.Sprintf(format, args...))
	}
}

func (p pebbleLogger) Errorf(format string, args ...any) {
	p.l.Error("pebble: " + fmt.Sprintf(format, args...))
}

// Fatalf is called where Pebble cannot go on, such as when its write-ahead log cannot be synced. It must not return.
func (p pebbleLogger) Fatalf(format string, args ...any) {
	msg := fmt.Sprintf(format, args...)
	p.l.Error("pebble: " + msg)
	panic("local state: " + msg)
}
