package hotlog

import (
	"syscall"
	"testing"
	"time"

	pebblevfs "github.com/cockroachdb/pebble/v2/vfs"

	"github.com/everlog/everlog/tier/vfs"
)

// flush=os: kill -9 between a roll and the sealing of the rolled segment must lose nothing that Append had acknowledged.
func TestFlushOSKillAfterRoll(t *testing.T) {
	m := newMachine(t, Options{FlushOS: true})
	m.mustStart()
	m.mustAppend(3, 100, 1)
	m.log.flush()
	m.mustAppend(3, 100, 1)
	if err := m.log.Roll(nil); err != nil {
		t.Fatal(err)
	}
	m.mustAppend(3, 100, 1) // acknowledged: durable in the sense of flush=os
	acked := m.log.Durable()
	c := m.powerCut(1, 1) // everything in the page cache survives: kill -9
	m.stop()
	c.mustStart()
	defer c.stop()
	if c.log.End() < acked {
		t.Errorf("log ends at %d after kill -9, %d was acknowledged; recovery %+v", c.log.End(), acked, c.found)
	}
}

// A log that is marked late is synced Background later, whatever other logs do.
func TestLateIsNotPutOff(t *testing.T) {
	background := 200 * time.Millisecond
	fl := NewFlusher(FlusherOptions{Background: background})
	defer fl.Close()
	mem := vfs.NewMem()
	if err := mem.MkdirAll("/data"); err != nil {
		t.Fatal(err)
	}
	m := &machine{t: t, state: pebblevfs.NewCrashableMem()}
	if err := m.openStore(); err != nil {
		t.Fatal(err)
	}
	defer m.store.Close()
	var logs []*Log
	for i := range 20 {
		id := testID
		id.Partition = int32(i)
		l, _, err := Open(mem, "/data/"+string(rune('a'+i)), id, m.store.Log(id.Topic, id.Partition), fl, Options{FlushOS: true})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		logs = append(logs, l)
	}
	began := time.Now()
	for _, l := range logs {
		if err := l.Append(batch(0, 1, 1, 10, 1)); err != nil {
			t.Fatal(err)
		}
		for next := time.Now().Add(background / 2); time.Now().Before(next); time.Sleep(time.Millisecond) {
			if logs[0].synced.Load() > 0 {
				return
			}
		}
	}
	t.Fatalf("the first log is not synced after %v; Background is %v", time.Since(began), background)
}

// Trimming a segment whose footer was made again must not store an empty producer snapshot as the truth.
func TestTrimOfRebuilt(t *testing.T) {
	m := newMachine(t, Options{})
	m.mustStart()
	m.mustAppend(3, 100, 1)
	if err := m.log.Roll([]byte("snapshot at 3")); err != nil {
		t.Fatal(err)
	}
	m.mustAppend(3, 100, 1)
	if err := m.log.Roll([]byte("snapshot at 6")); err != nil {
		t.Fatal(err)
	}
	m.mustAppend(3, 100, 1)
	m.log.flush()
	m.log.flush()
	name := m.log.name(3)
	m.restart()
	// the footer of the second segment goes bad
	info, _ := m.mem.Stat(name)
	f, err := m.mem.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xde, 0xad, 0xbe, 0xef}, info.Size-8); err != nil {
		t.Fatal(err)
	}
	_ = f.Sync()
	_ = f.Close()
	m.restart()
	if _, err := m.log.Trim(6); err != nil {
		t.Fatal(err)
	}
	m.restart()
	defer m.stop()
	if len(m.found.Producers) == 0 && m.found.FirstReplay > 0 {
		t.Errorf("the producer state below %d is lost", m.found.FirstReplay)
	}
}

// lying is Linux after a failed writeback: the pages are clean, so the next fsync succeeds and writes nothing; only what
// is written again reaches the disk.
type lying struct {
	vfs.FS
	fail  bool
	clean map[string]bool
}

type lyingFile struct {
	vfs.File
	fs *lying
}

func (l *lying) wrap(f vfs.File, err error) (vfs.File, error) {
	if err != nil {
		return nil, err
	}
	return &lyingFile{f, l}, nil
}
func (l *lying) Create(name string) (vfs.File, error) { return l.wrap(l.FS.Create(name)) }
func (l *lying) Open(name string) (vfs.File, error)   { return l.wrap(l.FS.Open(name)) }

func (f *lyingFile) WriteAt(p []byte, at int64) (int, error) {
	delete(f.fs.clean, f.Name())
	return f.File.WriteAt(p, at)
}

func (f *lyingFile) Sync() error {
	if f.fs.fail {
		f.fs.fail = false
		f.fs.clean[f.Name()] = true
		return syscall.EIO
	}
	if f.fs.clean[f.Name()] {
		return nil
	}
	return f.File.Sync()
}

// An fsync that failed before a restart of the process must not make recovery call durable what is only in memory.
func TestRecoveryAfterFailedFsync(t *testing.T) {
	m := newMachine(t, Options{})
	l := &lying{FS: m.mem, clean: map[string]bool{}}
	m.fs = l
	m.mustStart()
	m.mustAppend(1, 100, 1)
	m.log.flush() // on disk
	m.mustAppend(1, 100, 1)
	l.fail = true
	m.log.flush()
	if len(m.failed) != 1 || m.log.Durable() != 1 {
		t.Fatalf("failed %v durable %d", m.failed, m.log.Durable())
	}
	m.stop()      // OnFatal ends the process
	m.mustStart() // it is started again; the machine runs on
	durable := m.log.Durable()
	m.mustAppend(1, 100, 1)
	_ = m.store.Flush()
	// without any further flush: what recovery called durable must survive a power cut
	c := m.powerCut(1, 0)
	m.stop()
	c.mustStart()
	defer c.stop()
	if c.log.End() < durable {
		t.Errorf("recovery said all below %d is durable (so it was served, and resent batches were acknowledged), after a power cut the log ends at %d; %+v", durable, c.log.End(), c.found)
	}
}
