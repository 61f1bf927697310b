package e2e

import (
	"context"
	"fmt"
	"maps"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/everlog/everlog/e2e/clients"
	"github.com/everlog/everlog/e2e/corpus"
)

// partitionsPerTopic is the number of partitions of each topic of the data set.
const partitionsPerTopic = 2

// parallelClients is how many clients work at once: more than the cores, few enough to finish.
const parallelClients = 4

// A stored is one partition of the data set and what must be in it. Timestamps of kcat's records are known only when they were read once.
type stored struct {
	topic     string
	partition int32
	want      corpus.Sum
	timed     bool // want.Whole and want.Folded are known
}

// datasetTopic is what topics are created with: several segments for each partition, and history for ever, whatever its timestamps say.
var datasetTopic = map[string]string{"segment.bytes": "4194304", "retention.ms": "-1"}

// loadDataSet creates a topic for each client and codec and produces the whole data set into them.
func loadDataSet(t *testing.T, addr string, size corpus.Size, configs map[string]string) []*stored {
	t.Helper()
	admin := newAdmin(t, addr)
	var all []*stored
	var work errgroup.Group
	work.SetLimit(parallelClients)
	for _, writer := range clients.Writers {
		for codec, name := range clients.Codecs {
			topic := writer.Name + "-" + name
			if err := admin.CreateTopic(t.Context(), topic, partitionsPerTopic, with(datasetTopic, configs)); err != nil {
				t.Fatal(err)
			}
			for partition := range partitionsPerTopic {
				part := corpus.Part{Style: writer.Style, Size: size, Index: codec*partitionsPerTopic + partition, Parts: len(clients.Codecs) * partitionsPerTopic}
				to := clients.Destination{Addr: addr, Topic: topic, Partition: int32(partition), Codec: name, Headers: part.Headers()}
				here := &stored{topic: topic, partition: to.Partition, timed: part.Style == corpus.Rich}
				all = append(all, here)
				work.Go(func() error {
					digest := corpus.NewDigest()
					err := writer.Write(t.Context(), to, func(yield func(corpus.Record) bool) {
						for r := range part.Records() {
							digest.Add(r)
							if !yield(r) {
								return
							}
						}
					})
					here.want = digest.Sum()
					return err
				})
			}
		}
	}
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
	return all
}

// verify reads every partition with each of the readers and compares.
func verify(t *testing.T, addr, when string, all []*stored, readers ...clients.Reader) {
	t.Helper()
	began := time.Now()
	var work errgroup.Group
	work.SetLimit(parallelClients)
	for _, s := range all {
		work.Go(func() error {
			for _, reader := range readers {
				if err := s.compare(t.Context(), addr, reader); err != nil {
					return fmt.Errorf("%s: %w", when, err)
				}
			}
			return nil
		})
	}
	if err := work.Wait(); err != nil {
		t.Fatal(err)
	}
	var records, bytes int64
	for _, s := range all {
		records += s.want.Records
		bytes += s.want.Bytes
	}
	t.Logf("%s: %d partitions, %d records, %.1f MB equal by %d clients in %.1f s", when, len(all), records, float64(bytes)/1e6, len(readers), time.Since(began).Seconds())
}

// compare reads the partition once. Only one goroutine at a time may compare the same partition.
func (s *stored) compare(ctx context.Context, addr string, reader clients.Reader) error {
	got, err := reader.Sum(ctx, clients.Range{Addr: addr, Topic: s.topic, Partition: s.partition, To: s.want.Records})
	if err != nil {
		return err
	}
	if !s.timed {
		s.want.Whole, s.want.Folded, s.timed = got.Whole, got.Folded, true
	}
	if !reader.Equal(got, s.want) {
		return fmt.Errorf("%s reads %s-%d as %v, want %v", reader.Name, s.topic, s.partition, got, s.want)
	}
	return nil
}

func newAdmin(t *testing.T, addr string) *clients.Admin {
	t.Helper()
	admin, err := clients.NewAdmin(addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(admin.Close)
	return admin
}

func with(base, more map[string]string) map[string]string {
	all := maps.Clone(base)
	maps.Copy(all, more)
	return all
}
