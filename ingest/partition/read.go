package partition

import (
	"context"
	"errors"
	"fmt"

	"github.com/everlog/everlog/ingest/hotlog"
	"github.com/everlog/everlog/tier/record"
)

// ReadRequest asks for records from Offset on.
type ReadRequest struct {
	Offset   record.Offset
	MaxBytes int
	// AtLeastOne returns the first batch even if it alone exceeds MaxBytes.
	AtLeastOne bool
	// Committed bounds the read by the last stable offset and asks for the aborted transactions (read_committed).
	Committed bool
	// CurrentEpoch is the leader epoch the reader knows, LastFetchedEpoch that of the last batch it has (KIP-320);
	// record.NoEpoch checks nothing.
	CurrentEpoch, LastFetchedEpoch record.LeaderEpoch
}

// ReadResult is what Read found. View is set also with an error, where the partition could be looked at.
type ReadResult struct {
	View View
	// Data starts with the batch that contains the offset. The caller releases it.
	Data    Data
	Aborted []record.AbortedTxn
	// Remote means that the records are history in the object store: ask ReadRemote.
	Remote bool
	// Diverging is set if the reader's last batch is not in this log: its log and ours part at this epoch's end.
	Diverging *record.EpochStart
}

// limit is the end of what the request may see.
func (r ReadRequest) limit(v View) record.Offset {
	if r.Committed {
		return v.LastStable
	}
	return v.HighWatermark
}

// Read finds records in the local log, without waiting. Nothing to read yet is an empty result. Errors: ErrNotLeader,
// ErrFencedEpoch, ErrUnknownEpoch, ErrOffsetOutOfRange, ErrStorage.
func (p *Partition) Read(req ReadRequest) (ReadResult, error) {
	if err := p.CheckEpoch(req.CurrentEpoch); err != nil {
		return ReadResult{View: View{-1, -1, -1}}, err
	}
	res := ReadResult{View: p.View()}
	if req.LastFetchedEpoch != record.NoEpoch {
		d, err := p.diverging(req)
		if err != nil || d != nil {
			res.Diverging = d
			return res, err
		}
	}
	end := p.log.End()
	if req.Offset < res.View.LogStart || req.Offset > end {
		return res, fmt.Errorf("%w: %d is outside of [%d, %d]", ErrOffsetOutOfRange, req.Offset, res.View.LogStart, end)
	}
	limit := req.limit(res.View)
	if req.Offset >= limit || req.MaxBytes <= 0 && !req.AtLeastOne {
		return res, nil
	}
	if req.Offset < p.log.Start() {
		res.Remote = true
		return res, nil
	}
	forgets := p.forgets.Load()
	s, err := p.log.Read(req.Offset, limit, req.MaxBytes, req.AtLeastOne)
	var trimmed *hotlog.ErrOutOfRange
	switch {
	case errors.As(err, &trimmed): // since we looked
		res.Remote = true
		return res, nil
	case err != nil:
		return res, storageError(err)
	}
	res.Data = fileData(s, s.Size, s.Release)
	if !req.Committed {
		return res, nil
	}
	if res.Aborted = p.abortedLocal(req.Offset, s.Next); p.forgets.Load() != forgets {
		res.Data.Release() // it may be from before the pass that emptied what the list names no more
		return p.Read(req)
	}
	return res, nil
}

// ReadRemote reads history from the object store, through the cache. view is what Read answered with. A read that ctx
// ends goes on behind it into the cache. Errors: ErrTierUnavailable, ErrOffsetOutOfRange.
func (p *Partition) ReadRemote(ctx context.Context, req ReadRequest, view View) (ReadResult, error) {
	res := ReadResult{View: view}
	if p.tier == nil {
		return res, fmt.Errorf("%w: %s-%d has no remote log", ErrTierUnavailable, p.topic, p.id.Partition)
	}
	for {
		found, err := p.tier.read(ctx, req)
		if err != nil {
			return res, err
		}
		if len(found.Blocks) > 0 || found.Next <= req.Offset {
			res.Data, res.Aborted = MemoryData(found.Blocks, found.Release), found.Aborted
			return res, nil
		}
		found.Release()
		req.Offset, req.LastFetchedEpoch = found.Next, record.NoEpoch // compaction left nothing up to there
		if local, err := p.Read(req); err != nil || !local.Remote {
			local.View = view
			return local, err
		}
	}
}

// abortedLocal are the aborted transactions that overlap [from, to).
func (p *Partition) abortedLocal(from, to record.Offset) []record.AbortedTxn {
	p.producerMu.Lock()
	defer p.producerMu.Unlock()
	return p.producers.Aborted(from, to)
}

// CheckEpoch compares the leader epoch a client knows with ours.
func (p *Partition) CheckEpoch(known record.LeaderEpoch) error {
	epoch := p.LeaderEpoch()
	switch {
	case epoch == record.NoEpoch:
		return p.notLeader()
	case known == record.NoEpoch || known == epoch:
		return nil
	case known < epoch:
		return fmt.Errorf("%w: request has %d, this is %d", ErrFencedEpoch, known, epoch)
	default:
		return fmt.Errorf("%w: request has %d, this is %d", ErrUnknownEpoch, known, epoch)
	}
}

func (p *Partition) diverging(req ReadRequest) (*record.EpochStart, error) {
	epoch, end := p.EndOffsetFor(req.LastFetchedEpoch)
	if epoch == record.NoEpoch {
		return nil, fmt.Errorf("%w: nothing is known of epoch %d", ErrOffsetOutOfRange, req.LastFetchedEpoch)
	}
	if epoch < req.LastFetchedEpoch || end < req.Offset {
		return &record.EpochStart{Epoch: epoch, Start: end}, nil
	}
	return nil, nil
}
