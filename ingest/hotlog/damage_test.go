package hotlog

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// flip changes one byte of a file, durably.
func (m *machine) flip(name string, position int64) {
	m.t.Helper()
	f, err := m.mem.Open(name)
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	p := []byte{0}
	if _, err := f.ReadAt(p, position); err != nil {
		m.t.Fatal(err)
	}
	p[0] ^= 0x10
	if _, err := f.WriteAt(p, position); err != nil {
		m.t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		m.t.Fatal(err)
	}
}

// size returns the size of a file.
func (m *machine) size(name string) int64 {
	m.t.Helper()
	info, err := m.mem.Stat(name)
	if err != nil {
		m.t.Fatal(err)
	}
	return info.Size
}

// ten appends ten batches of two records, rolling before each of rolls.
func (m *machine) ten(rolls ...int) {
	m.t.Helper()
	for i := range 10 {
		if slices.Contains(rolls, i) {
			if err := m.log.Roll([]byte("snapshot")); err != nil {
				m.t.Fatal(err)
			}
		}
		m.mustAppend(2, 500, 1)
	}
}

// checkpointed makes the durable point known to the state, as it is a second after a flush.
func (m *machine) checkpointed() {
	m.t.Helper()
	m.log.flush()
	if err := m.store.Flush(); err != nil {
		m.t.Fatal(err)
	}
}

// wantDamage restarts after a crash, and expects the log to end at offset, readable, refusing appends, with its files
// as they were; and to be usable again after a reset.
func (m *machine) wantDamage(offset record.Offset) {
	m.t.Helper()
	before, _ := m.mem.List(testDir)
	c := m.powerCut(1, 1)
	c.mustStart()
	defer func() { c.stop() }()
	d := c.found.Damaged
	if d == nil || d.Offset != offset || !errors.Is(d, ErrDamaged) || c.log.End() != offset {
		m.t.Fatalf("log ends at %d, damage %v, want it at %d", c.log.End(), d, offset)
	}
	c.check(500)
	wantErr(m.t, c.append(1, 1, 9), ErrDamaged)
	wantErr(m.t, c.log.Truncate(0), ErrDamaged)
	c.log.flush()
	if after, _ := c.mem.List(testDir); !slices.Equal(before, after) || c.log.Durable() != offset {
		m.t.Errorf("files were %v, are %v", before, after)
	}
	if err := c.log.Reset(40); err != nil {
		m.t.Fatal(err)
	}
	c.mustAppend(2, 500, 9)
	c.log.flush()
	again := c.powerCut(1, 0)
	again.mustStart()
	if again.found.Damaged != nil || again.log.Start() != 40 || again.log.End() != 42 {
		m.t.Errorf("after the reset: [%d, %d), %v", again.log.Start(), again.log.End(), again.found.Damaged)
	}
	again.stop()
}

func TestBitFlipBelowTheDurablePointIsReported(t *testing.T) {
	batchSize := int64(len(batch(0, 1, 2, 500, 1)))
	for i := range int64(10) {
		m := newMachine(t, Options{})
		m.mustStart()
		m.ten()
		m.checkpointed()
		m.mustAppend(2, 500, 1) // not flushed: a tail to be cut must not hide the damage
		m.flip(m.log.name(0), segment.HeaderSize+i*batchSize+30+i*50)
		m.wantDamage(record.Offset(2 * i))
		m.stop()
	}
}

func TestDamageProvenByNeighbours(t *testing.T) {
	// The segment of [6, 12) lies between sealed ones; its footer is bad and so is a batch.
	m := newMachine(t, Options{})
	m.mustStart()
	m.ten(3, 6, 9)
	m.log.flush()
	m.flip(m.log.name(6), segment.HeaderSize+1500)
	m.flip(m.log.name(6), m.size(m.log.name(6))-40)
	m.wantDamage(8)
	m.stop()

	for name, spoil := range map[string]func(m *machine){
		"header":  func(m *machine) { m.flip(m.log.name(6), 50); m.flip(m.log.name(6), m.size(m.log.name(6))-40) },
		"missing": func(m *machine) { m.must(m.mem.Remove(m.log.name(6))); m.must(m.mem.SyncDir(testDir)) },
	} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, Options{})
			m.mustStart()
			m.ten(3, 6, 9)
			m.log.flush()
			spoil(m)
			m.wantDamage(6)
			m.stop()
		})
	}
}

func (m *machine) must(err error) {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
}

func TestMissingEndIsDamage(t *testing.T) {
	m := newMachine(t, Options{})
	m.mustStart()
	m.ten()
	m.checkpointed()
	f, err := m.mem.Open(m.log.name(0))
	m.must(err)
	m.must(f.Truncate(segment.HeaderSize + 3000))
	m.must(f.Sync())
	m.must(f.Close())
	m.wantDamage(4)
	m.must(m.mem.Remove(m.log.name(0)))
	m.must(m.mem.SyncDir(testDir))
	m.wantDamage(0)
	m.stop()
}

// A footer that went bad while the batches are intact is made again; readers and the shipper see no difference, and
// producers are replayed from before it.
func TestBadFooterIsRebuilt(t *testing.T) {
	m := newMachine(t, Options{})
	m.mustStart()
	m.ten(3, 6, 9)
	m.log.flush()
	want, err := m.log.Sealed(6)[0].Footer()
	m.must(err)
	m.flip(m.log.name(6), m.size(m.log.name(6))-40)
	for range 2 { // every restart anew
		c := m.powerCut(1, 1)
		m.stop()
		m = c
		m.mustStart()
		if m.found.Damaged != nil || m.log.End() != 20 || m.found.FirstReplay != 18 && m.found.FirstReplay != 6 {
			t.Fatalf("end %d, replay from %d, %v", m.log.End(), m.found.FirstReplay, m.found.Damaged)
		}
		m.check(500)
		got, err := m.log.Sealed(6)[0].Footer()
		m.must(err)
		if got.Base != want.Base || got.End != want.End || !slices.Equal(got.Blocks, want.Blocks) || got.Producers != nil {
			t.Errorf("footer %+v, was %+v", got, want)
		}
	}
	m.stop()
}

// The segment before the active one was rolled, but the crash came before its footer: it is the active one again.
func TestCrashBetweenRollAndSeal(t *testing.T) {
	m := newMachine(t, Options{})
	m.mustStart()
	m.ten(3)
	m.log.flush()
	m.must(m.log.Roll(nil))
	m.mustAppend(2, 500, 1)
	c := m.powerCut(1, 1)
	m.stop()
	c.mustStart()
	defer func() { c.stop() }()
	base, created, size := c.log.ActiveInfo()
	if base != 6 || c.log.End() != 20 || c.found.FirstReplay != 6 || string(c.found.Producers) != "snapshot" || created.IsZero() || size < 7000 {
		t.Errorf("active [%d, %d) of %d bytes since %v, replay %q from %d", base, c.log.End(), size, created, c.found.Producers, c.found.FirstReplay)
	}
	if names := c.found.Removed; len(names) != 1 || names[0] != fmt.Sprintf("%020d.seg", 20) {
		t.Errorf("removed %v", names)
	}
	c.mustAppend(2, 500, 1)
	c.log.flush()
	c.check(500)
}

func TestStrayFilesAreRemoved(t *testing.T) {
	m := newMachine(t, Options{})
	m.mustStart()
	m.ten(3)
	m.checkpointed()
	for _, name := range []string{"something.tmp", "00000000000000000020.seg", "00000000000000000077.seg"} {
		f, err := m.mem.Create(testDir + "/" + name)
		m.must(err)
		_, err = f.WriteAt(make([]byte, 100), 0)
		m.must(err)
		m.must(f.Close())
	}
	c := m.powerCut(1, 1)
	m.stop()
	c.mustStart()
	defer func() { c.stop() }()
	if names, _ := c.mem.List(testDir); len(names) != 2 || c.found.Damaged != nil || c.log.End() != 20 {
		t.Errorf("end %d, files %v, %v", c.log.End(), names, c.found.Damaged)
	}
	c.mustAppend(2, 500, 1)
	c.check(500)
}

// A clean restart reads no records of the active segment but those of the block being filled.
func TestCleanRestartReadsLittle(t *testing.T) {
	m := newMachine(t, Options{})
	m.mustStart()
	for range 40 {
		m.mustAppend(1, 100<<10, 1)
	}
	m.log.flush()
	read := 0
	m.fs = vfs.Fault(m.mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpRead {
			read += op.Size
		}
		return nil
	})
	m.restart()
	if read > segment.BlockTarget+128<<10 {
		t.Errorf("%d bytes read", read)
	}
	m.check(100 << 10)
	m.stop()
}

func TestOtherLogsSegmentIsRefused(t *testing.T) {
	m := newMachine(t, Options{})
	m.mustStart()
	m.ten()
	m.checkpointed()
	other := testID
	other.Partition++
	m.stop()
	m.must(m.openStore())
	m.flusher = &Flusher{wake: make(chan struct{}, 1), later: make(chan struct{}, 1)}
	l, found, err := Open(m.fs, testDir, other, m.store.Log(testID.Topic, testID.Partition), m.flusher, m.options)
	m.must(err)
	if found.Damaged == nil || l.End() != 0 {
		t.Errorf("end %d, %v", l.End(), found.Damaged)
	}
	m.log = l
	m.stop()
}
