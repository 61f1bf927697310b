package partition

import (
	"testing"

	"github.com/everlog/everlog/ingest/producer"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// Transactions that end in another order than they began: a footer lists them by their markers, a reader gets them by their
// first records.
func TestAbortedTransactionsThatOverlap(t *testing.T) {
	p := leading(t, false)
	for _, id := range []record.ProducerID{1, 2, 3} {
		w := record.NewBuilder(record.Attrs{Transactional: true, Idempotent: true, ProducerID: id})
		w.Append(now, []byte("k"), []byte("v"))
		b, err := w.Build()
		if err != nil {
			t.Fatal(err)
		}
		commit(t, p, b, FromClient)
	}
	for _, id := range []record.ProducerID{3, 1, 2} {
		commit(t, p, producer.Marker(id, 0, false, 1, now), FromCoordinator)
	}
	if err := p.Roll(); err != nil {
		t.Fatal(err)
	}
	commit(t, p, batchOf(t, record.Attrs{}, now), FromClient) // behind it the footer is on disk
	f, err := p.log.Sealed(0)[0].Footer()
	if err == nil {
		_, err = segment.ParseFooter(f.Encode())
	}
	if err != nil || len(f.Aborted) != 3 || f.Aborted[0].ProducerID != 3 {
		t.Errorf("footer lists %v: %v", f.Aborted, err)
	}
	if list := p.Aborted(0, 6); len(list) != 3 || list[0].ProducerID != 3 {
		t.Errorf("a shipper gets %v, in the order of the markers", list)
	}
	if list := p.abortedLocal(0, 6); len(list) != 3 || list[0].ProducerID != 1 {
		t.Errorf("a reader gets %v, in the order of their first records", list)
	}
}
