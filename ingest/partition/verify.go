package partition

import (
	"fmt"

	"github.com/everlog/everlog/tier/record"
)

// A batch that begins a transaction on a partition must belong to a transaction that its coordinator knows to include the
// partition. Otherwise a batch that was long under way could arrive after the transaction's marker and hold back the last
// stable offset for ever (KIP-890). So whoever appends asks the coordinator first, in between Verification and Append; a
// marker of the same producer that comes between them makes the answer void.

// Guard stands for one verification under way; the zero Guard is none.
type Guard uint64

// Verification begins one for a producer. End it with EndVerification, whether or not anything was appended.
func (p *Partition) Verification(id record.ProducerID) Guard {
	p.producerMu.Lock()
	defer p.producerMu.Unlock()
	if p.verifying == nil {
		p.verifying = map[record.ProducerID]Guard{}
	}
	if g := p.verifying[id]; g != 0 {
		return g // requests of one producer share it
	}
	p.lastGuard++
	p.verifying[id] = p.lastGuard
	return p.lastGuard
}

// EndVerification forgets the guard.
func (p *Partition) EndVerification(id record.ProducerID, g Guard) {
	p.producerMu.Lock()
	defer p.producerMu.Unlock()
	if p.verifying[id] == g {
		delete(p.verifying, id)
	}
}

// checkVerifiedLocked refuses a batch that begins a transaction unverified; producerMu is held.
func (p *Partition) checkVerifiedLocked(b record.Batch, o AppendOptions) error {
	id := b.ProducerID()
	if b.IsControl() {
		delete(p.verifying, id)
		return nil
	}
	if !o.Verify || !b.IsTransactional() {
		return nil
	}
	return p.verifiedLocked(id, b.ProducerEpoch(), o.Guard)
}

// verifiedLocked refuses a producer that has no transaction open here if its verification is void.
func (p *Partition) verifiedLocked(id record.ProducerID, epoch record.ProducerEpoch, g Guard) error {
	if p.producers.InTxn(id, epoch) || g != 0 && p.verifying[id] == g {
		return nil
	}
	return fmt.Errorf("%w: producer %d in %s-%d", ErrUnverified, id, p.topic, p.id.Partition)
}

// MayEnd tells whether Append would take a marker for its producer's sake, which v2 says the rules of (see AppendOptions).
func (p *Partition) MayEnd(marker record.Batch, v2 bool, nowMs int64) error {
	p.producerMu.Lock()
	defer p.producerMu.Unlock()
	_, err := p.checkProducerLocked(marker, v2, nowMs)
	return err
}

// MayCommitOffsets tells whether the coordinator of groups may append offsets for the producer's transaction: nil, ErrUnverified
// (never with the zero guard, which stands for a broker that does not verify), or the producer state's error.
func (p *Partition) MayCommitOffsets(id record.ProducerID, epoch record.ProducerEpoch, g Guard, nowMs int64) error {
	p.producerMu.Lock()
	defer p.producerMu.Unlock()
	if err := p.producers.CheckOffsets(id, epoch, nowMs); err != nil || g == 0 {
		return err
	}
	return p.verifiedLocked(id, epoch, g)
}
