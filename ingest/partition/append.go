package partition

import (
	"errors"
	"fmt"

	"github.com/everlog/everlog/ingest/hotlog"
	"github.com/everlog/everlog/ingest/producer"
	"github.com/everlog/everlog/tier/record"
)

// AppendOptions of Append.
type AppendOptions struct {
	// NowMs is the broker's clock in milliseconds.
	NowMs int64
	// AllReplicas asks for acks=all: the append is refused while fewer than min.insync.replicas are in sync.
	AllReplicas bool
	Origin      Origin
	// V2 asks for the rules of transaction version 2 (KIP-890 part 2).
	V2 bool
	// Verify refuses a batch that would begin a transaction here unless Guard is that of a Verification since then
	// (KIP-890 part 1).
	Verify bool
	Guard  Guard
}

// Appended says where a batch is in the log.
type Appended struct {
	// Base is the offset of its first record, Next the offset after its last.
	Base, Next record.Offset
	// Epoch is the leader epoch to pass to AwaitCommit.
	Epoch record.LeaderEpoch
	// AppendTimeMs is the broker's timestamp for LogAppendTime topics, or -1.
	AppendTimeMs int64
	LogStart     record.Offset
	// Duplicate means that the batch was in the log already (KIP-98): nothing was appended.
	Duplicate bool
}

// Append checks one batch by the topic's rules and its producer's sequence, stamps it in place and writes it to the
// local log. It returns before the batch is on disk: AwaitCommit tells when it is. b must not be used by others
// meanwhile; its bytes are not kept. Errors are this package's or ingest/producer's sentinels; nothing was appended then.
func (p *Partition) Append(b record.Batch, o AppendOptions) (Appended, error) {
	r := p.rules.Load()
	b, err := r.validate(b, o.Origin, o.NowMs)
	if err != nil {
		return Appended{}, err
	}
	done := Appended{AppendTimeMs: -1, LogStart: record.Offset(p.logStart.Load())}
	stamped := r.logAppendTime && o.Origin == FromClient
	if stamped {
		done.AppendTimeMs = o.NowMs
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if done.Epoch = record.LeaderEpoch(p.epoch.Load()); done.Epoch == record.NoEpoch {
		if p.closed {
			return Appended{}, ErrClosed
		}
		return Appended{}, p.notLeader()
	}
	if err := p.offline.Load(); err != nil {
		return Appended{}, fmt.Errorf("%w: %w", ErrStorage, *err)
	}
	p.producerMu.Lock()
	verdict, err := p.checkProducerLocked(b, o.V2, o.NowMs)
	if err == nil && !verdict.Duplicate {
		err = p.checkVerifiedLocked(b, o)
	}
	p.producerMu.Unlock()
	if err != nil {
		return Appended{}, err
	}
	if verdict.Duplicate {
		done.Base, done.Next, done.Duplicate, done.AppendTimeMs = verdict.BaseOffset, verdict.NextOffset, true, verdict.AppendTimeMs
		return done, nil
	}
	if stamped { // not before the checks: a batch that is not verified yet comes again, as it is
		b.StampAppendTime(o.NowMs)
	}
	done.Base = p.log.End()
	b.Stamp(done.Base, done.Epoch)
	done.Next = b.NextOffset()
	return done, p.appendLocked(b, o.NowMs)
}

// checkProducerLocked asks the producer state by the rules of the transaction's version; producerMu is held.
func (p *Partition) checkProducerLocked(b record.Batch, v2 bool, nowMs int64) (producer.Verdict, error) {
	if v2 {
		return p.producers.CheckV2(b, nowMs)
	}
	return p.producers.Check(b, nowMs)
}

// appendLocked writes a stamped batch and applies it to the producer state.
func (p *Partition) appendLocked(b record.Batch, nowMs int64) error {
	if p.log.NeedsRoll(b.Size()) {
		if err := p.rollLocked(); err != nil {
			return err
		}
	}
	if b.IsTransactional() && !b.IsControl() { // before the flusher can move the high watermark past it
		p.producerMu.Lock()
		p.appending = int64(b.BaseOffset())
		p.updateUnstableLocked()
		p.producerMu.Unlock()
	}
	if err := p.log.Append(b); err != nil {
		p.producerMu.Lock()
		p.appending = noUnstable
		p.updateUnstableLocked()
		p.producerMu.Unlock()
		return storageError(err)
	}
	p.ingested.Add(int64(b.Size()))
	if b.ProducerID() == record.NoProducer {
		return nil
	}
	stable := p.View().LastStable
	p.producerMu.Lock()
	if err := p.producers.Apply(b, b.BaseOffset(), nowMs); err != nil {
		panic(fmt.Sprintf("producer state refuses a batch that it had checked: %v", err))
	}
	if b.IsTransactional() {
		p.appending = noUnstable
		p.producers.SetHighWatermark(record.Offset(p.highWatermark.Load())) // it may have passed b already
		p.updateUnstableLocked()
	}
	p.producerMu.Unlock()
	if p.View().LastStable > stable {
		p.wakeWatchers()
	}
	return nil
}

// rollLocked seals the active segment with the producer state at its end.
func (p *Partition) rollLocked() error {
	base, created, _ := p.log.ActiveInfo()
	p.producerMu.Lock()
	aborted, snapshot := byMarker(p.producers.Aborted(base, p.log.End())), p.producers.Snapshot()
	p.producerMu.Unlock()
	p.log.SetTransactions(aborted)
	if err := p.log.Roll(snapshot); err != nil {
		return storageError(err)
	}
	p.rolled = append(p.rolled, rolledAt{base, created})
	return nil
}

// updateUnstableLocked recomputes where the last stable offset is held back; producerMu is held.
func (p *Partition) updateUnstableLocked() {
	at := p.appending
	if o, ok := p.producers.FirstUnstable(); ok {
		at = min(at, int64(o))
	}
	p.firstUnstable.Store(at)
}

func storageError(err error) error {
	if errors.Is(err, hotlog.ErrNoSpace) {
		return fmt.Errorf("%w: %w", ErrNoSpace, err)
	}
	return fmt.Errorf("%w: %w", ErrStorage, err)
}
