package kafka

import "testing"

func TestBuffersHaveTheSizeAskedFor(t *testing.T) {
	for _, size := range []int{0, 1, 4095, 4096, 4097, 1 << 20, 1<<27 + 1} {
		b := getBuffer(size)
		if len(b.p) != size {
			t.Fatalf("asked for %d, got %d", size, len(b.p))
		}
		b.release()
		if again := getBuffer(size); len(again.p) != size {
			t.Fatalf("asked for %d again, got %d", size, len(again.p))
		}
	}
}
