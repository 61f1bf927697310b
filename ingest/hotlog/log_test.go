package hotlog

import (
	"testing"
)

func TestAppendReadRollRestart(t *testing.T) {
	m := newMachine(t, Options{SegmentBytes: 2 << 20})
	m.mustStart()
	for i := range 300 {
		if m.log.NeedsRoll(20 << 10) {
			if err := m.log.Roll([]byte("snapshot")); err != nil {
				t.Fatal(err)
			}
		}
		m.mustAppend(1+i%5, 5000, 1)
		if i%7 == 0 {
			m.log.flush()
			if m.log.Durable() != m.log.End() {
				t.Fatalf("durable %d, end %d", m.log.Durable(), m.log.End())
			}
		}
	}
	m.check(5000)
	m.restart()
	m.check(5000)
	if n := len(m.log.Sealed(0)); n < 2 {
		t.Errorf("%d sealed segments", n)
	}
	if err := m.log.Close(); err != nil {
		t.Fatal(err)
	}
	m.log = nil
	m.stop()
	if n := m.mem.OpenFiles(); n != 0 {
		t.Errorf("%d files left open", n)
	}
}
