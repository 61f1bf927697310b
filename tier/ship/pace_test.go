package ship

import (
	"context"
	"math"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"
)

const mib = 1 << 20

func TestPace(t *testing.T) {
	o := PaceOptions{Full: 500 * mib}
	for _, c := range []struct {
		name string
		load Load
		want float64 // MiB/s
	}{
		{"idle with room to spare: steadily", Load{Ingest: 1 * mib, Backlog: 10, Budget: 1000}, 64},
		{"busy with room to spare: slowly", Load{Ingest: 200 * mib, Backlog: 10, Budget: 1000}, 32},
		{"half way to busy", Load{Ingest: 26 * mib, Backlog: 0, Budget: 1000}, 32 + 32*0.25},
		{"a first backlog changes nothing", Load{Ingest: 200 * mib, Backlog: 200, Budget: 1000}, 32},
		{"it grows: faster", Load{Ingest: 200 * mib, Backlog: 400, Budget: 1000}, 32 + 468*0.25},
		{"it nears the budget: at full speed", Load{Ingest: 200 * mib, Backlog: 600, Budget: 1000}, 500},
		{"far beyond", Load{Ingest: 200 * mib, Backlog: math.MaxInt64, Budget: 1}, 500},
		{"the backlog would not be shipped in time", Load{Ingest: 200 * mib, Backlog: 60_000 * mib, Budget: 1_000_000 * mib, Within: 10 * time.Minute}, 100},
		{"nor at full speed", Load{Ingest: 200 * mib, Backlog: 900_000 * mib, Budget: math.MaxInt64, Within: 10 * time.Minute}, 500},
		{"no budget known", Load{Ingest: 200 * mib}, 500},
	} {
		if got := Pace(c.load, o) / mib; math.Abs(got-c.want) > 0.01 {
			t.Errorf("%s: %.2f MiB/s, want %.2f", c.name, got, c.want)
		}
	}
	if got := Pace(Load{}, PaceOptions{}); !math.IsInf(got, 1) {
		t.Errorf("%v without a limit", got)
	}
	if got := Pace(Load{Ingest: 1e12, Budget: 1}, PaceOptions{Full: 10 * mib}); got != 10*mib {
		t.Errorf("%v: the floor is not above the full pace", got)
	}
}

func TestPaceIsMonotonic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var o PaceOptions
		if rapid.Bool().Draw(t, "limited") {
			o.Full = rapid.Float64Range(1, 1e10).Draw(t, "full")
		}
		a := Load{Ingest: rapid.Float64Range(0, 1e9).Draw(t, "ingest"), Backlog: rapid.Int64Range(0, 1<<40).Draw(t, "backlog"),
			Budget: rapid.Int64Range(0, 1<<40).Draw(t, "budget")}
		more, busier := a, a
		more.Backlog += rapid.Int64Range(0, 1<<40).Draw(t, "more")
		busier.Ingest += rapid.Float64Range(0, 1e9).Draw(t, "busier")
		p := Pace(a, o)
		if Pace(more, o) < p || Pace(busier, o) > p || p <= 0 {
			t.Fatalf("%v for %+v, %v with more backlog, %v with more ingest", p, a, Pace(more, o), Pace(busier, o))
		}
	})
}

// TestPaceKeepsUp simulates a steady producer: the backlog must settle below the whole budget.
func TestPaceKeepsUp(t *testing.T) {
	for _, ingest := range []float64{10 * mib, 60 * mib, 200 * mib, 400 * mib} {
		const budget = 64 << 30
		backlog := 0.0
		for range 3600 {
			pace := Pace(Load{Ingest: ingest, Backlog: int64(backlog), Budget: budget}, PaceOptions{Full: 450 * mib})
			backlog = max(backlog+ingest-pace, 0)
		}
		if backlog > urgent*budget {
			t.Errorf("at %.0f MiB/s the backlog is %.1f GiB of a budget of 64", ingest/mib, backlog/(1<<30))
		}
	}
}

func TestLimiterPaces(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(1, PaceOptions{Full: 100 * mib})
		took := func(n int64) time.Duration {
			start := time.Now()
			if err := l.wait(t.Context(), n); err != nil {
				t.Fatal(err)
			}
			return time.Since(start)
		}
		took(burst)
		if d := took(64 * mib); d.Round(time.Millisecond) != 2*time.Second {
			t.Errorf("64 MiB at the floor of 32 MiB/s took %v", d)
		}
		l.Adapt(Load{})
		if d := took(100 * mib); d.Round(time.Millisecond) != time.Second {
			t.Errorf("100 MiB at the full 100 MiB/s took %v", d)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := l.wait(ctx, 1<<40); err == nil {
			t.Error("waited for a TiB in a second")
		}
	})
}

func TestLimiterBoundsConcurrency(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := NewLimiter(2, PaceOptions{})
		releases := make(chan func(), 10)
		for range 5 {
			go func() {
				release, err := l.acquire(t.Context())
				if err != nil {
					t.Error(err)
				}
				releases <- release
			}()
		}
		for n := range 5 {
			synctest.Wait()
			if want := min(2, 5-n); len(releases) != want {
				t.Fatalf("%d at once, want %d", len(releases), want)
			}
			(<-releases)()
		}
		ctx, cancel := context.WithCancel(t.Context())
		for range 2 {
			if _, err := l.acquire(ctx); err != nil {
				t.Fatal(err)
			}
		}
		cancel()
		if _, err := l.acquire(ctx); err != context.Canceled {
			t.Errorf("%v after the context ended", err)
		}
	})
}
