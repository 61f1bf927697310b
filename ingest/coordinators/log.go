package coordinators

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/ingest/broker"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/record"
)

// How a log is loaded.
const (
	loadBytes = 4 << 20                // read at a time
	loadPoll  = 100 * time.Millisecond // while the replica is opened, or its history cannot be read
	loadTries = 100                    // of a read of history, before the load begins anew
)

// partitionLog is one partition of an internal topic as a coordinator's log.
type partitionLog struct {
	broker *broker.Broker
	topic  *metadata.Topic
	index  int32
	p      atomic.Pointer[partition.Partition] // set by load
}

// Append implements coordinator.Log.
func (l *partitionLog) Append(b record.Batch) (record.Offset, record.LeaderEpoch, error) {
	p := l.p.Load()
	if p == nil {
		return 0, 0, ErrLoading
	}
	done, err := p.Append(b, partition.AppendOptions{NowMs: time.Now().UnixMilli(), AllReplicas: true, Origin: partition.FromCoordinator})
	return done.Next, done.Epoch, err
}

// Await implements coordinator.Log.
func (l *partitionLog) Await(next record.Offset, epoch record.LeaderEpoch, done func(error)) {
	l.p.Load().AwaitCommit(next, epoch, committed(done), 0)
}

// committed is a function as a partition.CommitWaiter.
type committed func(error)

// Committed implements partition.CommitWaiter.
func (f committed) Committed(_ int, err error) { f(err) }

// open waits for the replica.
func (l *partitionLog) open(ctx context.Context) (*partition.Partition, error) {
	for {
		p, err := l.broker.Partition(l.topic, l.index)
		if err == nil && p.LeaderEpoch() != record.NoEpoch {
			l.p.Store(p)
			return p, nil
		}
		if err != nil && !errors.Is(err, broker.ErrLoading) {
			return nil, err
		}
		if !sleep(ctx, loadPoll) {
			return nil, ctx.Err()
		}
	}
}

// load reads the log from its start to its end, which must be committed: remote history, then what is local.
func (l *partitionLog) load(ctx context.Context, fn func(record.Batch) error) error {
	p, err := l.open(ctx)
	if err != nil {
		return err
	}
	w := partition.NewWatcher()
	p.Watch(w)
	defer p.Unwatch(w)
	end := p.End() // only the shard appends, and it has not begun
	at := p.View().LogStart
	for at < end {
		next, err := l.read(ctx, p, at, fn)
		if err != nil {
			return err
		}
		if next > at {
			at = next
			continue
		}
		if at >= p.View().HighWatermark {
			select {
			case <-w.Wake(): // the end is not on disk yet
			case <-ctx.Done():
				return ctx.Err()
			}
			continue
		}
		return nil // compaction left nothing up to the end
	}
	return nil
}

// read passes on one read's worth of batches and returns the offset after them.
func (l *partitionLog) read(ctx context.Context, p *partition.Partition, at record.Offset, fn func(record.Batch) error) (record.Offset, error) {
	req := partition.ReadRequest{Offset: at, MaxBytes: loadBytes, AtLeastOne: true, CurrentEpoch: record.NoEpoch, LastFetchedEpoch: record.NoEpoch}
	res, err := p.Read(req)
	for try := 0; err == nil && res.Remote; try++ {
		var remote partition.ReadResult
		if remote, err = p.ReadRemote(ctx, req, res.View); err == nil {
			res = remote
			break
		}
		if errors.Is(err, partition.ErrTierUnavailable) && try < loadTries && sleep(ctx, loadPoll) {
			err = nil
		}
	}
	if err != nil {
		return at, err
	}
	defer res.Data.Release()
	data, err := bytesOf(&res.Data)
	if err != nil {
		return at, err
	}
	for len(data) > 0 {
		b, rest, err := record.Next(data)
		if errors.Is(err, record.ErrShort) {
			break // cut by the read's size; the next begins there
		}
		if err != nil {
			return at, fmt.Errorf("at %d: %w", at, err)
		}
		if b.NextOffset() > at {
			if err := fn(b); err != nil {
				return at, fmt.Errorf("at %d: %w", b.BaseOffset(), err)
			}
			at = b.NextOffset()
		}
		data = rest
	}
	return at, nil
}

// bytesOf is the data as one run of bytes.
func bytesOf(d *partition.Data) ([]byte, error) {
	if f := d.File(); f != nil {
		p := make([]byte, d.Size())
		n, err := f.ReadAt(p, 0)
		if n < len(p) {
			return nil, fmt.Errorf("read %d bytes of %d: %w", n, len(p), err)
		}
		return p, nil
	}
	var p []byte
	for _, b := range d.Blocks() {
		p = append(p, b...)
	}
	return p, nil
}

// sleep is false if ctx ended first.
func sleep(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}
