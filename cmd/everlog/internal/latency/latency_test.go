package latency

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// TestQuantile compares with a sorted list: never below the exact value, and above it by less than one part in 128.
func TestQuantile(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for _, spread := range []float64{1, 10, 21} {
		var h Histogram
		var exact []time.Duration
		for range 20_000 {
			d := time.Duration(float64(time.Microsecond) * (1 + rng.ExpFloat64()*spread*1000))
			h.Add(d)
			exact = append(exact, d)
		}
		slices.Sort(exact)
		for _, q := range []float64{0, 0.5, 0.9, 0.99, 0.999, 1} {
			want := exact[min(max(int(q*float64(len(exact))+0.5), 1), len(exact))-1]
			if got := h.Quantile(q); got < want || float64(got) > float64(want)*(1+1.0/128) {
				t.Errorf("spread %v: quantile %v = %v, exact %v", spread, q, got, want)
			}
		}
	}
}

// TestBuckets checks that buckets are in order and hold what they say, over all magnitudes.
func TestBuckets(t *testing.T) {
	for shift := range 63 {
		for _, v := range []uint64{1 << shift, 1<<shift + 1, 1<<(shift+1) - 1} {
			i := bucket(v)
			if high := highest(i); high < v || bucket(high) != i || high < 1<<62 && bucket(high+1) != i+1 {
				t.Fatalf("value %d: bucket %d whose highest is %d", v, i, high)
			}
		}
	}
}

func TestEmptyAndMerge(t *testing.T) {
	var a, b Histogram
	if a.Quantile(0.5) != 0 || a.Mean() != 0 {
		t.Error("an empty histogram is not zero")
	}
	a.Add(time.Second)
	b.Add(3 * time.Second)
	a.Merge(&b)
	if a.Count() != 2 || a.Max() != 3*time.Second || a.Mean() != 2*time.Second {
		t.Errorf("merged: count %d, max %v, mean %v", a.Count(), a.Max(), a.Mean())
	}
}
