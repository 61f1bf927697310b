package hotlog

import (
	"errors"
	"testing"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// FuzzRecovery damages a log of three segments, the last one active: bytes are changed at a position, or the file is cut
// there, and the durable point is anywhere. What recovery accepts is always a prefix of what was written, batch for batch.
// Below the durable point a shorter log is reported as damage; without damage it is never shorter than that. Sealed
// segments are taken on their footers' word, so in those damage must show when they are read.
func FuzzRecovery(f *testing.F) {
	f.Add(uint8(2), uint16(2000), []byte{1}, uint8(10), false)
	f.Add(uint8(2), uint16(2000), []byte{1}, uint8(30), false)
	f.Add(uint8(2), uint16(1500), []byte{}, uint8(30), true)
	f.Add(uint8(1), uint16(3400), []byte{0xff, 0xff}, uint8(0), false)
	f.Add(uint8(0), uint16(20), []byte("some other bytes"), uint8(5), false)
	f.Fuzz(func(t *testing.T, which uint8, position uint16, change []byte, durable uint8, cut bool) {
		m := newMachine(t, Options{})
		m.mustStart()
		m.ten(4, 8)
		m.ten()
		m.log.flush()
		target := record.Offset(durable) % (m.log.End() + 1)
		// The checkpoint of that moment: the segments below were sealed by then.
		base := []record.Offset{0, 8, 16}[min(int(target)/8, 2)]
		m.log.state.Checkpoint(localstate.Checkpoint{Base: base, Durable: target})
		m.must(m.store.Flush())

		name := m.log.name([]record.Offset{0, 8, 16}[which%3])
		at := int64(position) % m.size(name)
		file, err := m.mem.Open(name)
		m.must(err)
		if cut {
			m.must(file.Truncate(at))
		} else {
			_, err := file.WriteAt(change, at)
			m.must(err)
		}
		m.must(file.Sync())
		m.must(file.Close())

		c := m.powerCut(1, 1)
		end := m.log.End()
		m.stop()
		if err := c.start(); err != nil {
			c.log = nil
			c.stop()
			if !errors.Is(err, segment.ErrVersion) { // a newer release's: not to be touched
				t.Fatal(err)
			}
			return
		}
		defer func() { c.stop() }()
		got := c.log.End()
		if got > end && !cut {
			t.Fatalf("log ends at %d, %d were written", got, end)
		}
		if c.found.Damaged == nil && got < target {
			t.Fatalf("log ends at %d without damage, %d were durable", got, target)
		}
		// What is accepted is what was written, or refuses to be read.
		next := record.Offset(0)
		err = c.log.Scan(0, got, func(b record.Batch) error {
			// Offset and epoch are not under the CRC, but must continue the log.
			want := batch(next, b.LeaderEpoch(), 2, 500, 1000+int64(next))
			if string(b) != string(want) {
				t.Fatalf("batch at %d is not what was written", next)
			}
			next = b.NextOffset()
			return nil
		})
		if err == nil && next != got {
			t.Fatalf("log ends at %d, records at %d", got, next)
		}
	})
}
