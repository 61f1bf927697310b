package hotlog

import (
	"errors"
	"fmt"
	"math/rand"
	randv2 "math/rand/v2"
	"testing"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var testID = segment.Identity{Cluster: [16]byte{1}, Topic: record.TopicID{2}, Partition: 3}

const testDir = "/data/log/02-3"

// batch makes a stamped batch of n records whose values are size bytes made from seed and offset, so that what is read
// back can be checked without keeping it.
func batch(base record.Offset, epoch record.LeaderEpoch, n, size int, ts int64) record.Batch {
	b := record.NewBuilder(record.Attrs{})
	for i := range n {
		b.Append(ts+int64(i), nil, value(base+record.Offset(i), size))
	}
	out, err := b.Build()
	if err != nil {
		panic(err)
	}
	out.Stamp(base, epoch)
	return out
}

// value is the value of the record at an offset.
func value(o record.Offset, size int) []byte {
	p := make([]byte, size)
	rand.New(rand.NewSource(int64(o))).Read(p)
	return p
}

// machine is a disk with one log on it, which can lose power.
type machine struct {
	t     testing.TB
	mem   *vfs.Mem
	fs    vfs.FS
	state *pebblevfs.MemFS

	store   *localstate.Store
	flusher *Flusher
	log     *Log
	found   *Recovery
	options Options
	failed  []error
	hook    func(State) State
}

func newMachine(t testing.TB, o Options) *machine {
	m := &machine{t: t, mem: vfs.NewMem(), state: pebblevfs.NewCrashableMem(), options: o}
	m.fs = m.mem
	if err := m.mem.MkdirAll("/data"); err != nil {
		t.Fatal(err)
	}
	if err := m.mem.SyncDir("/"); err != nil {
		t.Fatal(err)
	}
	return m
}

// start opens store, flusher and log. The flusher does nothing by itself: tests call flush, so that every run has the
// same order of operations.
func (m *machine) start() error {
	m.t.Helper()
	if err := m.openStore(); err != nil {
		m.t.Fatal(err)
	}
	m.flusher = &Flusher{wake: make(chan struct{}, 1), later: make(chan struct{}, 1)}
	m.flusher.o.OnError = func(err error) { m.failed = append(m.failed, err) }
	var err error
	st := State(m.store.Log(testID.Topic, testID.Partition))
	if m.hook != nil {
		st = m.hook(st)
	}
	m.log, m.found, err = Open(m.fs, testDir, testID, st, m.flusher, m.options)
	return err
}

func (m *machine) openStore() (err error) {
	m.store, err = localstate.Open("state", localstate.Options{FS: m.state})
	return err
}

// stop ends the process without a word to the log: nothing more is written, files close.
func (m *machine) stop() {
	if m.log != nil {
		_ = m.log.shut(false)
		m.log = nil
	}
	if err := m.store.Close(); err != nil {
		m.t.Fatal(err)
	}
}

// mustStart is start where nothing may go wrong.
func (m *machine) mustStart() {
	m.t.Helper()
	if err := m.start(); err != nil {
		m.t.Fatal(err)
	}
}

// restart closes the log in order and opens it again.
func (m *machine) restart() {
	m.t.Helper()
	if err := m.log.Close(); err != nil {
		m.t.Fatal(err)
	}
	m.log = nil
	m.stop()
	m.mustStart()
}

// powerCut returns the machine after a crash: of what was not synced a part is left.
func (m *machine) powerCut(seed int64, keep float64) *machine {
	rng := rand.New(rand.NewSource(seed))
	c := &machine{t: m.t, options: m.options}
	c.mem = m.mem.CrashClone(rng, keep)
	c.fs = c.mem
	c.state = m.state.CrashClone(pebblevfs.CrashCloneCfg{UnsyncedDataPercent: int(keep * 100), RNG: randV2(seed)})
	return c
}

// append adds a batch of n records at the end, in epoch.
func (m *machine) append(n, size int, epoch record.LeaderEpoch) error {
	end := m.log.End()
	return m.log.Append(batch(end, epoch, n, size, 1000+int64(end)))
}

func (m *machine) mustAppend(n, size int, epoch record.LeaderEpoch) {
	m.t.Helper()
	if err := m.append(n, size, epoch); err != nil {
		m.t.Fatal(err)
	}
}

// check reads the log from start to end in several ways and compares with what batch makes.
func (m *machine) check(size int) {
	m.t.Helper()
	if err := checkLog(m.log, size); err != nil {
		m.t.Fatal(err)
	}
}

func checkLog(l *Log, size int) error {
	next := l.Start()
	err := l.Scan(next, l.End(), func(b record.Batch) error {
		if b.BaseOffset() != next {
			return fmt.Errorf("batch at %d where %d is next", b.BaseOffset(), next)
		}
		next = b.NextOffset()
		return b.Each(func(r *record.Record) error {
			o := b.BaseOffset() + record.Offset(r.OffsetDelta)
			if string(r.Value) != string(value(o, len(r.Value))) || size > 0 && len(r.Value) != size {
				return fmt.Errorf("record %d is not what was written", o)
			}
			return nil
		})
	})
	if err == nil && next != l.End() {
		err = fmt.Errorf("log ends at %d, scan at %d", l.End(), next)
	}
	return err
}

func wantErr(t testing.TB, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error is %v, want %v", err, target)
	}
}

// randV2 is the generator that pebble's crash wants.
func randV2(seed int64) *randv2.Rand { return randv2.New(randv2.NewPCG(uint64(seed), 7)) }
