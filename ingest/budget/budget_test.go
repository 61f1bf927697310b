package budget

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

const gib = 1 << 30

func TestDecide(t *testing.T) {
	const ample = 1000 * gib
	for _, c := range []struct {
		name   string
		in     Input
		before Level
		want   Level
	}{
		{"an empty broker", Input{Budget: 100 * gib, Free: ample}, Normal, Normal},
		{"a full cache of tiered data is trimmed, producers feel nothing", Input{Used: 95 * gib, Tiered: 90 * gib, Budget: 100 * gib, Free: ample}, Normal, Trim},
		{"trimming goes on until it is well below", Input{Used: 81 * gib, Tiered: 81 * gib, Budget: 100 * gib, Free: ample}, Trim, Trim},
		{"and then ends", Input{Used: 79 * gib, Tiered: 79 * gib, Budget: 100 * gib, Free: ample}, Trim, Normal},
		{"store down: most is untiered", Input{Used: 75 * gib, Budget: 100 * gib, Free: ample}, Normal, Throttle},
		{"throttling does not end at its own border", Input{Used: 67 * gib, Budget: 100 * gib, Free: ample}, Throttle, Throttle},
		{"nor begin there", Input{Used: 67 * gib, Budget: 100 * gib, Free: ample}, Normal, Normal},
		{"no room left", Input{Used: 96 * gib, Budget: 100 * gib, Free: ample}, Throttle, Refuse},
		{"refusing ends later than it began", Input{Used: 92 * gib, Budget: 100 * gib, Free: ample}, Refuse, Refuse},
		{"into throttling, not into freedom", Input{Used: 89 * gib, Budget: 100 * gib, Free: ample}, Refuse, Throttle},
		{"over the budget, but all of it tiered", Input{Used: 200 * gib, Tiered: 200 * gib, Budget: 100 * gib, Free: ample}, Normal, Trim},
		{"a disk smaller than the budget", Input{Used: 40 * gib, Budget: 100 * gib, Free: 10 * gib}, Normal, Throttle},
		{"no budget: the disk is it", Input{Used: 40 * gib, Free: 100 * gib}, Normal, Normal},
		{"somebody else filled the disk", Input{Used: 40 * gib, Tiered: 40 * gib, Budget: 100 * gib, Free: gib / 3}, Normal, Refuse},
		{"and has not freed enough yet", Input{Used: 1 * gib, Tiered: 1 * gib, Budget: 100 * gib, Free: gib * 5 / 8}, Refuse, Refuse},
		{"free space not known", Input{Used: 40 * gib, Tiered: 40 * gib, Budget: 100 * gib, Free: math.MaxInt64}, Normal, Normal},
		{"nothing at all", Input{}, Normal, Refuse},
	} {
		if got := Decide(c.in, c.before); got.Level != c.want {
			t.Errorf("%s: %v, want %v", c.name, got.Level, c.want)
		}
	}
}

func TestDelayIsProportional(t *testing.T) {
	in := Input{Budget: 100 * gib, Free: 1000 * gib}
	rate := func(percent int64, ship float64) float64 { // admitted MiB/s
		in.Used, in.ShipRate = percent*gib, ship
		return 1 / Decide(in, Throttle).DelayPerMiB.Seconds()
	}
	for _, c := range []struct {
		percent int64
		ship    float64
		want    float64
	}{
		{80, 0, 2}, {95, 0, 1}, {99, 0, 1}, {68, 0, 10}, // store down
		{80, 100 << 20, 180}, {95, 100 << 20, 90}, // it ships 100 MiB/s
	} {
		if got := rate(c.percent, c.ship); math.Abs(got-c.want) > 0.01*c.want {
			t.Errorf("at %d %% shipping %.0f B/s: %.2f MiB/s admitted, want %.2f", c.percent, c.ship, got, c.want)
		}
	}
}

func TestTimeToFull(t *testing.T) {
	in := Input{Used: 60 * gib, Tiered: 20 * gib, Budget: 100 * gib, Free: 1000 * gib, IngestRate: 3 * gib, ShipRate: 1 * gib}
	if got := Decide(in, Normal).TimeToFull; got != 30 {
		t.Errorf("%v s, want 30: 60 GiB are not taken by untiered bytes, 2 GiB/s more come", got)
	}
	in.ShipRate = in.IngestRate
	if got := Decide(in, Normal).TimeToFull; !math.IsInf(got, 1) {
		t.Errorf("%v s although shipping keeps up", got)
	}
	in.Used = 200 * gib
	if got := Decide(in, Normal).TimeToFull; got != 0 {
		t.Errorf("%v s although it is full", got)
	}
}

func input(t *rapid.T) Input {
	size := func(name string) int64 { return rapid.Int64Range(0, 200*gib).Draw(t, name) }
	in := Input{Used: size("used"), Budget: size("budget"), Free: size("free"),
		IngestRate: float64(size("ingest")), ShipRate: float64(size("ship"))}
	in.Tiered = rapid.Int64Range(0, in.Used).Draw(t, "tiered")
	return in
}

// TestMonotonic makes the input worse in one way and wants nothing to get better.
func TestMonotonic(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := input(t)
		before := Level(rapid.IntRange(0, 3).Draw(t, "before"))
		worse, by := in, rapid.Int64Range(0, 50*gib).Draw(t, "by")
		switch rapid.IntRange(0, 4).Draw(t, "way") {
		case 0: // more untiered bytes, which come out of the free ones
			by = min(by, worse.Free)
			worse.Used, worse.Free = worse.Used+by, worse.Free-by
		case 1:
			worse.Tiered -= min(by, worse.Tiered)
		case 2:
			worse.Free -= min(by, worse.Free)
		case 3:
			worse.ShipRate = max(worse.ShipRate-float64(by), 0)
		case 4:
			if worse.Budget > 0 {
				worse.Budget = max(worse.Budget-by, 1)
			}
		}
		a, b := Decide(in, before), Decide(worse, before)
		if b.Level < a.Level || b.DelayPerMiB < a.DelayPerMiB || b.TimeToFull > a.TimeToFull {
			t.Fatalf("worse input, better decision:\n%+v\n%+v\n%+v\n%+v", in, a, worse, b)
		}
		if c := Decide(in, Refuse); c.Level < a.Level {
			t.Fatalf("a higher level before gives a lower one: %+v, %+v", a, c)
		}
		if a.DelayPerMiB < 0 || a.DelayPerMiB > time.Second || a.TrimTarget < 0 || a.Level < Throttle && a.DelayPerMiB != 0 {
			t.Fatalf("%+v", a)
		}
	})
}

// TestNoFlapping lets the used bytes waver by less than the hysteresis: after the first step the level changes at most once.
func TestNoFlapping(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := Input{Budget: 100 * gib, Free: 1000 * gib, Used: rapid.Int64Range(0, 110*gib).Draw(t, "used")}
		base.Tiered = rapid.Int64Range(0, base.Used).Draw(t, "tiered")
		level, changes := Decide(base, Normal).Level, 0
		for _, waver := range rapid.SliceOfN(rapid.Int64Range(-2*gib, 2*gib), 2, 50).Draw(t, "waver") {
			in := base
			in.Used = max(in.Used+waver, in.Tiered)
			next := Decide(in, level).Level
			if next != level {
				changes++
			}
			level = next
		}
		if changes > 2 { // one border of untiered bytes and one of all may lie within the wavering
			t.Fatalf("%d changes", changes)
		}
	})
}

// TestSettles: with trimming following TrimTarget and everything tiered, the level returns to Normal.
func TestSettles(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		in := input(t)
		in.Free += 3 * gib
		in.Tiered = in.Used
		total := in.Used + in.Free
		level := Level(rapid.IntRange(0, 3).Draw(t, "before"))
		for range 4 {
			d := Decide(in, level)
			level = d.Level
			in.Used = min(in.Used, d.TrimTarget)
			in.Tiered, in.Free = in.Used, total-in.Used
		}
		if level != Normal {
			t.Fatalf("%v after trimming to %+v", level, in)
		}
	})
}
