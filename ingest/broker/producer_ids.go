package broker

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
)

// How producer ids are kept. Blocks are of Kafka's size (KIP-730); several are asked for ahead and remembered on disk, so
// that idempotent producers can start while the object store is away, over several restarts of the broker.
const (
	producerIDBlock = 1000
	producerIDAhead = 8
	producerIDsName = "producer-id-blocks"
)

// producerIDs hands out ids. A block is taken out of the list on disk before its first id is used: a crash loses the rest
// of a block, never uses an id twice.
type producerIDs struct {
	turn      chan struct{}     // of one: held while a block is fetched, given up on by ctx
	next, end record.ProducerID // of the block in use
	loaded    bool
	spare     []record.ProducerID // first ids of unused blocks, as on disk
}

// NewProducerID returns an id that no producer of the cluster ever had.
func (b *Broker) NewProducerID(ctx context.Context) (record.ProducerID, error) {
	p := &b.ids
	select {
	case p.turn <- struct{}{}:
	case <-ctx.Done():
		return record.NoProducer, ctx.Err()
	}
	defer func() { <-p.turn }()
	if p.next == p.end {
		if err := b.nextBlockLocked(ctx); err != nil {
			return record.NoProducer, err
		}
	}
	id := p.next
	p.next++
	return id, nil
}

// nextBlockLocked takes the next block; the caller has the turn.
func (b *Broker) nextBlockLocked(ctx context.Context) error {
	p := &b.ids
	if !p.loaded {
		stored, err := b.State.Get(producerIDsName)
		if err == nil && stored != nil {
			err = json.Unmarshal(stored, &p.spare)
		}
		if err != nil {
			return fmt.Errorf("producer id blocks on disk: %w", err)
		}
		p.loaded = true
	}
	if len(p.spare) == 0 {
		first, err := b.Controller.AllocateProducerIDs(ctx, producerIDBlock*producerIDAhead)
		if err != nil {
			return err
		}
		for i := range producerIDAhead {
			p.spare = append(p.spare, first+record.ProducerID(i*producerIDBlock))
		}
	}
	rest, err := json.Marshal(p.spare[1:])
	if err != nil {
		return err
	}
	if err := b.State.Set(producerIDsName, rest); err != nil {
		return fmt.Errorf("producer id blocks on disk: %w", err)
	}
	p.next, p.end, p.spare = p.spare[0], p.spare[0]+producerIDBlock, p.spare[1:]
	return nil
}

// ForgetProducerIDs drops the blocks kept in the local state of a broker that does not run.
func ForgetProducerIDs(s *localstate.Store) error { return s.Set(producerIDsName, nil) }
