package e2e

import (
	"slices"
	"testing"

	"github.com/everlog/everlog/e2e/clients"
	"github.com/everlog/everlog/e2e/corpus"
	"github.com/everlog/everlog/e2e/harness"
)

// TestOtherProducers has sarama and kafka-go produce some of the data set with each codec, each in the versions of the protocol it speaks.
func TestOtherProducers(t *testing.T) {
	const records = 3000
	broker := harness.StartBroker(t, harness.Options{})
	admin := newAdmin(t, broker.Addr())
	for _, writer := range clients.OtherWriters {
		if err := admin.CreateTopic(t.Context(), writer.Name, int32(len(clients.Codecs)), datasetTopic); err != nil {
			t.Fatal(err)
		}
		for number, codec := range clients.Codecs {
			input := corpus.Part{Style: corpus.Rich, Size: corpus.Slice, Index: number, Parts: len(clients.Codecs)}.Take(records)
			to := clients.Destination{Addr: broker.Addr(), Topic: writer.Name, Partition: int32(number), Codec: codec}
			if err := writer.Write(t.Context(), to, slices.Values(input)); err != nil {
				t.Errorf("%s, %s: %v", writer.Name, codec, err)
				continue
			}
			for _, reader := range clients.Readers {
				got, err := reader.Sum(t.Context(), clients.Range{Addr: broker.Addr(), Topic: writer.Name, Partition: to.Partition, To: records})
				if want := corpus.SumOf(slices.Values(input)); err != nil || got.Folded != want.Folded {
					t.Errorf("%s of %s, %s: %v, %v; want %v", reader.Name, writer.Name, codec, got, err, want)
				}
			}
		}
	}
}
