package partition

import (
	"errors"
	"testing"

	"github.com/everlog/everlog/ingest/producer"
	"github.com/everlog/everlog/tier/record"
)

// What a coordinator said of a transaction is void once a marker of its producer has come in between.
func TestMarkerVoidsVerification(t *testing.T) {
	const id = 7
	batch := func(sequence int32) record.Batch {
		return batchOf(t, record.Attrs{Transactional: true, Idempotent: true, ProducerID: id, BaseSequence: sequence}, now)
	}
	for _, c := range []struct {
		name  string
		begin func(p *Partition, g Guard) error
	}{
		{"a producer's batch", func(p *Partition, g Guard) error {
			_, err := p.Append(batch(0), AppendOptions{NowMs: now, Origin: FromClient, Verify: true, Guard: g})
			return err
		}},
		{"offsets", func(p *Partition, g Guard) error { return p.MayCommitOffsets(id, 0, g, now) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			p := leading(t, true)
			g := p.Verification(id)
			commit(t, p, producer.Marker(id, 0, false, 1, now), FromCoordinator)
			if err := c.begin(p, g); !errors.Is(err, ErrUnverified) {
				t.Errorf("after a marker: %v, want %v", err, ErrUnverified)
			}
			p.EndVerification(id, g)
			if err := c.begin(p, g); !errors.Is(err, ErrUnverified) {
				t.Errorf("after its verification: %v, want %v", err, ErrUnverified)
			}
			g = p.Verification(id)
			if err := c.begin(p, g); err != nil {
				t.Errorf("verified since: %v", err)
			}
			p.EndVerification(id, g)
		})
	}
}

// Offsets follow the producer's epoch, and need no verification in a transaction that is open here.
func TestMayCommitOffsets(t *testing.T) {
	const id = 7
	p := leading(t, true)
	commit(t, p, batchOf(t, record.Attrs{Transactional: true, Idempotent: true, ProducerID: id, ProducerEpoch: 3}, now), FromClient)
	used := p.Verification(id)
	p.EndVerification(id, used)
	for _, c := range []struct {
		epoch record.ProducerEpoch
		guard Guard
		want  error
	}{{2, 0, producer.ErrInvalidEpoch}, {2, used, producer.ErrInvalidEpoch}, {3, 0, nil}, {3, used, nil}, {4, 0, nil}, {4, used, ErrUnverified}} {
		if err := p.MayCommitOffsets(id, c.epoch, c.guard, now); !errors.Is(err, c.want) {
			t.Errorf("epoch %d with guard %d: %v, want %v", c.epoch, c.guard, err, c.want)
		}
	}
}
