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
	if !o.Verify || !b.IsTransactional() || p.producers.InTxn(id, b.ProducerEpoch()) {
		return nil
	}
	if o.Guard == 0 || p.verifying[id] != o.Guard {
		return fmt.Errorf("%w: producer %d in %s-%d", ErrUnverified, id, p.topic, p.id.Partition)
	}
	return nil
}
