package hotlog

import (
	"fmt"
	"math/rand"
	"slices"
	"testing"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/vfs"
)

// TestPowerCutAtEveryOperation runs scripts, and lets the power fail before every operation of the file system and around
// every write of the state. Whatever part of the unsynced bytes, sizes and names is left: what was acknowledged is at its
// offset, nothing is there that was not appended, and what recovery calls durable survives the next power cut.
func TestPowerCutAtEveryOperation(t *testing.T) {
	for _, o := range []Options{{SegmentBytes: 8 << 10}, {SegmentBytes: 64 << 10}} {
		for seed := range int64(4) {
			t.Run(fmt.Sprintf("segment=%d/seed=%d", o.SegmentBytes, seed), func(t *testing.T) { runCrashScript(t, seed, o) })
		}
	}
}

func runCrashScript(t *testing.T, seed int64, o Options) {
	s := &script{machine: newMachine(t, o), rng: rand.New(rand.NewSource(seed)), size: 3000}
	s.model = model{starts: []record.Offset{0}, epoch: 1}
	rng := rand.New(rand.NewSource(seed + 1000))
	points := 0
	point := func() {
		points++
		keep := []float64{0, 0.2, 0.5, 0.8, 1}[rng.Intn(5)]
		if err := survives(s, rng.Int63(), keep); err != nil {
			t.Fatalf("power cut %d, %.0f %% kept: %v", points, keep*100, err)
		}
	}
	s.fs = vfs.Fault(s.mem, func(op vfs.Op) error {
		switch op.Kind {
		case vfs.OpRead, vfs.OpSize, vfs.OpStat, vfs.OpList, vfs.OpOpen, vfs.OpClose, vfs.OpPreallocate:
		default:
			point()
		}
		return nil
	})
	s.hook = func(st State) State { return &hookedState{st, point} }
	s.mustStart()
	for i := range 60 {
		if s.log.NeedsRoll(4000) {
			if err := s.log.Roll([]byte(fmt.Sprint("at ", s.log.End()))); err != nil {
				t.Fatal(err)
			}
		}
		if err := s.step(); err != nil {
			t.Fatalf("step %d: %v", i, err)
		}
	}
	point()
	s.stop()
	if points < 50 {
		t.Errorf("only %d crash points", points)
	}
}

// survives cuts the power of a copy of the machine, and checks what a restart finds.
func survives(s *script, seed int64, keep float64) error {
	c := s.powerCut(seed, keep)
	c.mustStart()
	defer func() { c.stop() }()
	if err := s.model.verify(c.log, c.found); err != nil {
		return err
	}
	start, end := c.log.Start(), c.log.End()
	again := c.powerCut(seed, 0)
	again.mustStart()
	defer func() { again.stop() }()
	if again.log.Start() != start || again.log.End() != end {
		return fmt.Errorf("recovered [%d, %d), after another power cut [%d, %d)", start, end, again.log.Start(), again.log.End())
	}
	// The log goes on where it ended.
	b := batch(end, s.model.epoch+1, 2, 100, 1)
	if err := again.log.Append(b); err != nil {
		return fmt.Errorf("append after recovery: %w", err)
	}
	again.log.flush()
	m := s.model
	m.chain = slices.Clone(m.chain)
	m.cut(end)
	m.chain, m.durable, m.starts, m.reset = append(m.chain, b), b.NextOffset(), []record.Offset{start}, false
	last := again.powerCut(seed, 0)
	last.mustStart()
	defer func() { last.stop() }()
	return m.verify(last.log, last.found)
}
