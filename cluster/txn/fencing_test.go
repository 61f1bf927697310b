package txn

import (
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"

	"github.com/everlog/everlog/tier/record"
)

// The last epoch of a producer id only fences: no client is given it, and a transaction in it could not be ended by a marker of
// a newer one.
func TestFencingEpochIsNobodys(t *testing.T) {
	m := New(Options{})
	now := time.UnixMilli(1_000_000)
	m.txns["t"] = &transaction{
		id: "t", producerID: 7, previousID: 7, nextID: record.NoProducer, epoch: lastEpoch, lastEpoch: noEpoch,
		state: empty, version: version2, timeoutMs: 1000, startMs: -1, updateMs: now.UnixMilli(), place: noPlace,
	}
	m.Loaded(now)
	add := func(e record.ProducerEpoch, at time.Time) int16 {
		event := Verify{TransactionalID: "t", ProducerID: 7, ProducerEpoch: e, Partitions: []TopicPartition{{"in", 0}}, Add: true}
		return m.Step(1, event, at).Replies[0].Value.([]int16)[0]
	}
	if code := add(lastEpoch, now); code != 0 {
		t.Fatal(kerr.ErrorForCode(code))
	}
	w := m.Tick(now.Add(2 * time.Second)).Requests[0].(WriteMarkers) // it has timed out
	if w.ProducerEpoch != fencingEpoch {
		t.Fatalf("the marker has epoch %d, want %d", w.ProducerEpoch, fencingEpoch)
	}
	m.Step(0, MarkersWritten{Markers: w}, now.Add(3*time.Second))
	if code := add(fencingEpoch, now.Add(4*time.Second)); code != kerr.InvalidProducerEpoch.Code {
		t.Errorf("a transaction in epoch %d: %v, want %v", fencingEpoch, kerr.ErrorForCode(code), kerr.InvalidProducerEpoch)
	}
}
