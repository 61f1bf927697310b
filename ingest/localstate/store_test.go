package localstate

import (
	"errors"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"github.com/everlog/everlog/tier/record"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var topic = record.TopicID{0xaa, 1}

func open(t *testing.T, fs vfs.FS) *Store {
	t.Helper()
	// An hour: tests decide when checkpoints are flushed.
	s, err := Open("state", Options{FS: fs, Flush: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func closed(t *testing.T, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// crash returns what is synced.
func crash(fs *vfs.MemFS) *vfs.MemFS { return fs.CrashClone(vfs.CrashCloneCfg{}) }

func load(t *testing.T, l *Log) Saved {
	t.Helper()
	s, err := l.Load()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func equal(t *testing.T, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
}

func ptr(o record.Offset) *record.Offset { return &o }

func TestDiskIDIsMadeOnceAndSurvivesACrash(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs)
	defer closed(t, s)
	after := open(t, crash(fs))
	defer closed(t, after)
	if s.DiskID() != after.DiskID() || s.DiskID() == [16]byte{} {
		t.Errorf("disk id %x, after a crash %x", s.DiskID(), after.DiskID())
	}
	other := open(t, vfs.NewCrashableMem())
	defer closed(t, other)
	if other.DiskID() == s.DiskID() {
		t.Error("two disks with one identity")
	}
}

func TestNamedValues(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs)
	defer closed(t, s)
	for _, step := range []struct{ set, want []byte }{{[]byte("one"), []byte("one")}, {[]byte{}, []byte{}}, {nil, nil}} {
		if err := s.Set("image", step.set); err != nil {
			t.Fatal(err)
		}
		after := open(t, crash(fs))
		got, err := after.Get("image")
		if err != nil {
			t.Fatal(err)
		}
		equal(t, got, step.want)
		closed(t, after)
	}
}

func TestSaveIsDurableAndChangesOnlyWhatItNames(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs)
	defer closed(t, s)
	l := s.Log(topic, 7)
	equal(t, load(t, l), Saved{Cut: NoCut})

	epochs := []record.EpochStart{{Epoch: 3, Start: 0}, {Epoch: 5, Start: 99}}
	updates := []Update{
		{Start: ptr(10), Epochs: epochs},
		{Cut: ptr(50), Checkpoint: &Checkpoint{Base: 20, Durable: 45, Table: []byte("table")}},
		{Producers: &Producers{At: 10, Snapshot: []byte("snapshot")}},
		{Cut: ptr(NoCut), Checkpoint: &Checkpoint{Base: 30, Durable: 60}},
	}
	want := Saved{
		Start: 10, Cut: NoCut, Epochs: epochs, Checkpoint: Checkpoint{Base: 30, Durable: 60, Table: []byte("table")},
		ProducersAt: 10, Producers: []byte("snapshot"),
	}
	for _, u := range updates {
		if err := l.Save(u); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Log(topic, 8).Save(Update{Start: ptr(1)}); err != nil {
		t.Fatal(err)
	}
	after := open(t, crash(fs))
	defer closed(t, after)
	equal(t, load(t, after.Log(topic, 7)), want)
	logs, err := after.Logs()
	if err != nil {
		t.Fatal(err)
	}
	equal(t, logs, []LogID{{topic, 7}, {topic, 8}})

	if err := after.Log(topic, 7).Save(Update{Epochs: []record.EpochStart{}, Producers: &Producers{}}); err != nil {
		t.Fatal(err)
	}
	got := load(t, after.Log(topic, 7))
	if got.Epochs != nil || got.Producers != nil {
		t.Errorf("not cleared: %+v", got)
	}
	if err := after.Log(topic, 7).Delete(); err != nil {
		t.Fatal(err)
	}
	equal(t, load(t, after.Log(topic, 7)), Saved{Cut: NoCut})
	equal(t, load(t, after.Log(topic, 8)), Saved{Start: 1, Cut: NoCut})
}

func TestCheckpointsAreWrittenTogether(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs)
	defer closed(t, s)
	for p := range int32(3) {
		s.Log(topic, p).Checkpoint(Checkpoint{Durable: 5, Table: []byte("t")})
		s.Log(topic, p).Checkpoint(Checkpoint{Durable: record.Offset(p) + 10})
	}
	want := func(p int32) Saved {
		return Saved{Cut: NoCut, Checkpoint: Checkpoint{Durable: record.Offset(p) + 10, Table: []byte("t")}}
	}
	equal(t, load(t, s.Log(topic, 1)), want(1)) // seen before it is written
	before := open(t, crash(fs))
	equal(t, load(t, before.Log(topic, 1)), Saved{Cut: NoCut})
	closed(t, before)

	if err := s.Flush(); err != nil {
		t.Fatal(err)
	}
	after := open(t, crash(fs))
	defer closed(t, after)
	for p := range int32(3) {
		equal(t, load(t, after.Log(topic, p)), want(p))
	}
}

// A truncation lowers the durable point: the higher one that still waits must not come back afterwards.
func TestSavedCheckpointReplacesTheWaitingOne(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := open(t, fs)
	l := s.Log(topic, 0)
	l.Checkpoint(Checkpoint{Durable: 100, Table: []byte("old")})
	if err := l.Save(Update{Checkpoint: &Checkpoint{Durable: 40, Table: []byte{}}}); err != nil {
		t.Fatal(err)
	}
	closed(t, s)
	after := open(t, crash(fs))
	defer closed(t, after)
	got := load(t, after.Log(topic, 0)).Checkpoint
	if got.Durable != 40 || len(got.Table) != 0 {
		t.Errorf("checkpoint %+v", got)
	}
}

func TestTimerFlushes(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s, err := Open("state", Options{FS: fs, Flush: time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	defer closed(t, s)
	s.Log(topic, 0).Checkpoint(Checkpoint{Durable: 1})
	for { // bounded by the test's own timeout
		s.mu.Lock()
		n := len(s.dirty)
		s.mu.Unlock()
		if n == 0 {
			break
		}
	}
	if err := s.Flush(); err != nil { // whatever the timer's goroutine still syncs is older
		t.Fatal(err)
	}
	equal(t, load(t, s.Log(topic, 0)).Checkpoint, Checkpoint{Durable: 1})
}

func TestCorruptValueIsRefused(t *testing.T) {
	s := open(t, vfs.NewCrashableMem())
	defer closed(t, s)
	for _, kind := range []byte{kindStart, kindCut, kindEpochs, kindCheckpoint, kindProducers} {
		l := s.Log(topic, int32(kind))
		if err := s.db.Set(l.k.kind(kind), []byte("odd"), pebble.NoSync); err != nil {
			t.Fatal(err)
		}
		if _, err := l.Load(); !errors.Is(err, ErrCorrupt) {
			t.Errorf("kind %c: %v", kind, err)
		}
	}
}

// Crashes between random updates: what was saved is there, and never more than was written.
func TestCrashKeepsEverySave(t *testing.T) {
	for seed := uint64(0); seed < 20; seed++ {
		rng := rand.New(rand.NewPCG(seed, 0))
		fs := vfs.NewCrashableMem()
		s := open(t, fs)
		saved, written := record.Offset(0), record.Offset(0)
		for i := record.Offset(1); i < 40; i++ {
			written = i
			if rng.IntN(3) == 0 {
				if err := s.Log(topic, 0).Save(Update{Start: ptr(i), Checkpoint: &Checkpoint{Durable: i}}); err != nil {
					t.Fatal(err)
				}
				saved = i
			} else {
				s.Log(topic, 0).Checkpoint(Checkpoint{Durable: i})
			}
			if rng.IntN(8) == 0 {
				if err := s.Flush(); err != nil {
					t.Fatal(err)
				}
			}
		}
		after := open(t, fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 50, RNG: rng}))
		got := load(t, after.Log(topic, 0))
		if got.Start != saved || got.Checkpoint.Durable < saved || got.Checkpoint.Durable > written {
			t.Errorf("seed %d: start %d, durable %d; saved %d, written %d", seed, got.Start, got.Checkpoint.Durable, saved, written)
		}
		closed(t, after)
		closed(t, s)
	}
}
