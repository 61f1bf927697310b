package hotlog

import (
	"fmt"
	"sort"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
)

// withEpoch returns a history with one entry more; entries that start there or later go, for nothing of them is left or was
// ever written. The old history is left as it is.
func withEpoch(epochs []record.EpochStart, e record.EpochStart) []record.EpochStart {
	n := len(epochs)
	for n > 0 && epochs[n-1].Start >= e.Start {
		n--
	}
	return append(epochs[:n:n], e)
}

// epochsBelow returns the entries that say something of offsets up to end; an epoch may start at end, with nothing written
// in it yet.
func epochsBelow(epochs []record.EpochStart, end record.Offset) []record.EpochStart {
	n := sort.Search(len(epochs), func(i int) bool { return epochs[i].Start > end })
	return epochs[:n:n]
}

// Epochs returns the leader epoch history, also of what is not local any more. The slice must not be modified.
func (l *Log) Epochs() []record.EpochStart {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.epochs
}

// SetEpoch records that epoch begins at End, durably, even if nothing is ever appended in it: a new leader must know the
// epoch when followers ask (KAFKA-7415). The epoch of the last entry is accepted and changes nothing; an older one is
// ErrOrder.
func (l *Log) SetEpoch(epoch record.LeaderEpoch) error {
	l.writer.Lock()
	defer l.writer.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	epochs := l.Epochs()
	if n := len(epochs); n > 0 && epochs[n-1].Epoch >= epoch {
		if epochs[n-1].Epoch == epoch {
			return nil
		}
		return fmt.Errorf("%w: leader epoch %d after %d", ErrOrder, epoch, epochs[n-1].Epoch)
	}
	return l.storeEpochs(withEpoch(epochs, record.EpochStart{Epoch: epoch, Start: l.End()}))
}

// ReplaceEpochs stores a history that comes from elsewhere, such as the manifest, when a follower starts from the remote
// log. It must only speak of offsets up to End.
func (l *Log) ReplaceEpochs(epochs []record.EpochStart) error {
	l.writer.Lock()
	defer l.writer.Unlock()
	if err := l.usable(); err != nil {
		return err
	}
	return l.storeEpochs(append([]record.EpochStart{}, epochsBelow(epochs, l.End())...))
}

func (l *Log) storeEpochs(epochs []record.EpochStart) error {
	if err := l.state.Save(localstate.Update{Epochs: epochs}); err != nil {
		l.fail(err)
		return fmt.Errorf("%w: %w", ErrFenced, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.epochs = epochs
	return nil
}

// EndOffsetFor answers OffsetsForLeaderEpoch (KIP-101, KIP-279): the largest known epoch up to the one asked for, and where
// it ends. Epochs newer than all known, NoEpoch and an empty history give NoEpoch and -1; for one older than all known,
// that epoch ends where the first known starts.
func (l *Log) EndOffsetFor(epoch record.LeaderEpoch) (record.LeaderEpoch, record.Offset) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return endOffsetFor(l.epochs, epoch, l.End())
}

func endOffsetFor(epochs []record.EpochStart, epoch record.LeaderEpoch, end record.Offset) (record.LeaderEpoch, record.Offset) {
	n := len(epochs)
	if n == 0 || epoch < 0 || epoch > epochs[n-1].Epoch {
		return record.NoEpoch, -1
	}
	i := sort.Search(n, func(i int) bool { return epochs[i].Epoch > epoch }) // the first later one
	switch i {
	case n:
		return epochs[n-1].Epoch, end
	case 0:
		return epoch, epochs[0].Start
	}
	return epochs[i-1].Epoch, epochs[i].Start
}
