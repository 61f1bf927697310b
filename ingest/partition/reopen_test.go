package partition

import (
	"context"
	"log/slog"
	"sync/atomic"
	"testing"
	"time"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/ingest/hotlog"
	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// saved is what a disk remembers of a partition beside its log.
type saved struct{ logStart, cleaned record.Offset }

// reopened opens the log in dir, with what is remembered of it, and has it lead.
func reopened(t *testing.T, fs vfs.FS, dir string, s *saved, o hotlog.Options) (p *Partition, stop func()) {
	t.Helper()
	quiet := slog.New(slog.DiscardHandler)
	st, err := localstate.Open(dir+"/state", localstate.Options{Logger: quiet})
	if err != nil {
		t.Fatal(err)
	}
	flusher := hotlog.NewFlusher(hotlog.FlusherOptions{})
	id := segment.Identity{Topic: record.TopicID{1}}
	l, rec, err := hotlog.Open(fs, dir+"/log", id, st.Log(id.Topic, 0), flusher, o)
	if err != nil {
		t.Fatal(err)
	}
	bc, err := config.ParseBroker(nil)
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.Topic(nil, bc)
	if err != nil {
		t.Fatal(err)
	}
	p, err = Open(id, l, rec, Options{
		Topic: "t", Settings: c, Log: o, LogStart: s.logStart, Cleaned: s.cleaned, ProducerExpiration: time.Hour, Logger: quiet,
		SaveLogStart: func(o record.Offset) error { s.logStart = o; return nil },
		SaveCleaned:  func(o record.Offset) error { s.cleaned = o; return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Lead(1, 0); err != nil {
		t.Fatal(err)
	}
	return p, func() { _ = p.Close(); flusher.Close(); _ = st.Close() }
}

// With flush=os a power cut may take the end of a log of which more had been deleted, or compacted: what comes to stand there is
// neither.
func TestWhatIsRememberedBeyondTheEndIsForgotten(t *testing.T) {
	dir, s := t.TempDir(), saved{logStart: 100, cleaned: 50}
	p, stop := reopened(t, vfs.OS(), dir, &s, hotlog.Options{FlushOS: true})
	for range 3 {
		commit(t, p, batchOf(t, record.Attrs{}, now), FromClient)
	}
	before := p.View()
	stop()
	p, stop = reopened(t, vfs.OS(), dir, &s, hotlog.Options{FlushOS: true})
	defer stop()
	if after := p.View(); after.LogStart != before.LogStart || p.Cleaned() != 0 {
		t.Errorf("readable was [%d, %d); after a restart the log starts at %d, and counts as compacted up to %d", before.LogStart, before.HighWatermark, after.LogStart, p.Cleaned())
	}
}

// The record with the largest timestamp is nearly always one that is being synced: it is waited for.
func TestMaxTimestampWhileSyncing(t *testing.T) {
	var block atomic.Bool
	gate := make(chan struct{})
	fs := vfs.Fault(vfs.OS(), func(op vfs.Op) error {
		if op.Kind == vfs.OpSync && block.Load() {
			<-gate
		}
		return nil
	})
	p, stop := reopened(t, fs, t.TempDir(), &saved{}, hotlog.Options{})
	defer stop()
	commit(t, p, batchOf(t, record.Attrs{}, now), FromClient)
	block.Store(true)
	if _, err := p.Append(batchOf(t, record.Attrs{}, now+1), AppendOptions{NowMs: now}); err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(context.Background())
	cancel()
	if f, err := p.MaxTimestamp(ended); err == nil {
		t.Errorf("%+v while the newest record is not on disk", f)
	}
	block.Store(false)
	close(gate)
	if f, err := p.MaxTimestamp(t.Context()); err != nil || f.Offset != 1 {
		t.Errorf("%+v, %v; want offset 1", f, err)
	}
}
