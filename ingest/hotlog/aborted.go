package hotlog

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// openTxns follows the transactions of a run of batches, by producer.
type openTxns struct {
	first  map[record.ProducerID]record.Offset // of the transaction that is open
	marked map[record.ProducerID]bool          // a marker was seen, so what is open began after it
}

func newOpenTxns() openTxns {
	return openTxns{map[record.ProducerID]record.Offset{}, map[record.ProducerID]bool{}}
}

// add takes a batch, of which it needs the header only.
func (t *openTxns) add(b record.Batch) {
	id := b.ProducerID()
	switch _, open := t.first[id]; {
	case !b.IsTransactional():
	case b.IsControl():
		delete(t.first, id)
		t.marked[id] = true
	case !open:
		t.first[id] = b.BaseOffset()
	}
}

// abortedIn finds the aborted transactions of a segment whose footer went bad, from its markers below end. Where one may
// have begun in an earlier segment it is looked for there, as far back as the log is local.
func (r *recovery) abortedIn(f *found, end record.Offset) ([]record.AbortedTxn, error) {
	txns := newOpenTxns()
	var out []record.AbortedTxn
	var failed error
	_, _, err := walk(f.file, segment.HeaderSize, f.size, func(b record.Batch, _ int64) error {
		if b.BaseOffset() >= end {
			return errStop
		}
		if b.IsTransactional() && b.IsControl() && isAbort(b) {
			first, ok := txns.first[b.ProducerID()]
			if !ok {
				first = b.BaseOffset()
			}
			if !txns.marked[b.ProducerID()] {
				if first, failed = r.firstBefore(f.base, b.ProducerID(), first); failed != nil {
					return failed
				}
			}
			// The last stable offset of then is not known any more; a lower one only makes readers look further.
			out = append(out, record.AbortedTxn{ProducerID: b.ProducerID(), First: first, Last: b.BaseOffset(), LastStable: min(first, f.base)})
		}
		txns.add(b)
		return nil
	})
	if err == nil {
		err = failed
	}
	if err != nil {
		return nil, fmt.Errorf("look for aborted transactions in segment %d: %w", f.base, err)
	}
	return out, nil
}

// firstBefore returns where the transaction of a producer that is open at base began, or otherwise if it began later.
func (r *recovery) firstBefore(base record.Offset, id record.ProducerID, otherwise record.Offset) (record.Offset, error) {
	first := otherwise
	for _, s := range slices.Backward(r.segs) {
		if s.base >= base {
			continue
		}
		txns := newOpenTxns()
		f, err := r.l.files.file(r.l, s)
		if err != nil {
			return 0, err
		}
		_, err = hop(f, segment.HeaderSize, s.dataEnd, func(h header) bool {
			txns.add(h.Batch)
			return true
		})
		f.unpin()
		if err != nil {
			return 0, err
		}
		o, ok := txns.first[id]
		if ok {
			first = o
		}
		if txns.marked[id] {
			break
		}
	}
	return first, nil
}

// isAbort reports whether a control batch is an abort marker: the record's key is a version and a type, 16 bits each, and
// type 0 is abort.
func isAbort(b record.Batch) bool {
	abort := false
	err := b.Each(func(r *record.Record) error {
		abort = len(r.Key) >= 4 && binary.BigEndian.Uint16(r.Key[2:]) == 0
		return nil
	})
	return err == nil && abort
}
