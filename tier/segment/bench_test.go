package segment

import (
	"bytes"
	"fmt"
	"io"
	"math/rand"
	"testing"

	"github.com/everlog/everlog/tier/record"
)

// BenchmarkAdd is the cost of the block table on the produce path.
func BenchmarkAdd(b *testing.B) {
	for _, size := range []int{1 << 10, 16 << 10, 1 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			batch := batchOf(0, 0, 100, 1, make([]byte, size-record.HeaderSize))
			builder := NewBuilder(testID, 0, 0)
			b.SetBytes(int64(size))
			b.ReportAllocs()
			for b.Loop() {
				if builder.Position() > 1<<30 {
					builder = NewBuilder(testID, 0, 0)
				}
				batch.Stamp(builder.Next(), 0)
				if err := builder.Add(batch); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkAddBatchCRC compares shifting with reading, around minShift.
func BenchmarkAddBatchCRC(b *testing.B) {
	payload := make([]byte, 1<<20)
	rand.New(rand.NewSource(1)).Read(payload)
	for _, size := range []int{4 << 10, 16 << 10, 1 << 20} {
		batch := batchOf(0, 0, 1, 1, payload[:size-record.HeaderSize])
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			var crc uint32
			for b.Loop() {
				crc = addBatch(crc, batch)
			}
		})
	}
}

// BenchmarkRecode is the processor time of shipping, per kind of data, from memory to nowhere.
func BenchmarkRecode(b *testing.B) {
	random := make([]byte, 16<<10)
	rand.New(rand.NewSource(1)).Read(random)
	text := make([]byte, 0, 17<<10)
	for i := 0; len(text) < 16<<10; i++ {
		text = fmt.Appendf(text, `{"user":%d,"action":"login","host":"web-%d.example","took":%d}`, i*7919%100000, i%23, i*104729%9973)
	}
	for name, payload := range map[string][]byte{"random": random, "text": text} {
		for _, saving := range []float64{0, 1} {
			b.Run(fmt.Sprintf("%s/minSaving=%v", name, saving), func(b *testing.B) {
				var batches []record.Batch
				for i := range record.Offset(1000) {
					batches = append(batches, batchOf(i, 5, 1, 0, payload))
				}
				raw, f := write(b, 0, batches, nil, nil)
				b.SetBytes(int64(len(raw)))
				for b.Loop() {
					if _, _, _, err := Recode(io.Discard, bytes.NewReader(raw), f, RecodeOptions{MinSaving: saving}); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}
