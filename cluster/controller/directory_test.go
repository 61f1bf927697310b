package controller

import (
	"testing"
	"time"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/vfs"
)

// BenchmarkStartOnADirectory is the cluster's part of `start to first ack`: open, lease, register, create a topic, on a
// directory of the real file system with its fsyncs.
func BenchmarkStartOnADirectory(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		store, err := object.NewDirectory(b.TempDir(), vfs.OS())
		if err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		began := time.Now()
		n := startWith(b, store, 0, nil, false)
		if _, err := n.RegisterBroker(b.Context(), registration(0)); err != nil {
			b.Fatal(err)
		}
		if r := n.CreateTopics(b.Context(), []NewTopic{{Name: "first", Partitions: 1, ReplicationFactor: 1}}, false); r[0].Err != nil {
			b.Fatal(r[0].Err)
		}
		b.ReportMetric(float64(time.Since(began).Milliseconds()), "last-ms")
		b.StopTimer()
		n.stop()
		b.StartTimer()
	}
}
