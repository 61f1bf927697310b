package ship

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/vfs"
)

// drain steps until there is nothing to do.
func drain(t *testing.T, s *Shipper) {
	t.Helper()
	for range 1000 {
		progress, err := s.Step(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if !progress {
			return
		}
	}
	t.Fatal("never done")
}

func TestShipsWhatIsBelowTheLimit(t *testing.T) {
	log, store := batches(1, 60), newAudited()
	p := newPartition(t, log, 7)
	var told []manifest.Segment
	s := shipper(t, store, p, 50)
	s.c.Committed = func(seg manifest.Segment) { told = append(told, seg) }
	for _, l := range p.segments {
		p.limit = l.footer.End - 1
		drain(t, s)
		if end := checkRemote(t, store, log, p.limit); end != l.footer.Base {
			t.Fatalf("with the limit at %d the remote log ends at %d, want %d", p.limit, end, l.footer.Base)
		}
		p.limit = l.footer.End
		drain(t, s)
		if end := checkRemote(t, store, log, p.limit); end != l.footer.End {
			t.Fatalf("with the limit at %d the remote log ends at %d", p.limit, end)
		}
	}
	st := s.Status()
	if st.Uploads != int64(len(p.segments)) || len(told) != len(p.segments) || st.Failures != 0 || st.Err != nil || st.Stored >= st.Bytes {
		t.Errorf("%+v, told of %d", st, len(told))
	}
	if p.pinned != 0 || p.fs.(*vfs.Mem).OpenFiles() != 0 || scratchFiles(t, p.fs) != 0 {
		t.Errorf("%d pins, %d open files, %d temporary files left", p.pinned, p.fs.(*vfs.Mem).OpenFiles(), scratchFiles(t, p.fs))
	}
}

func TestNothingIsWrittenForAnIdlePartition(t *testing.T) {
	store := newAudited()
	p := newPartition(t, batches(1, 10), 20)
	p.limit = 0
	drain(t, shipper(t, store, p, 3))
	if n := len(store.names()); n != 0 {
		t.Errorf("%d objects", n)
	}
}

// TestNewLeaderContinuesAtTheExactOffset: its segments have other borders.
func TestNewLeaderContinuesAtTheExactOffset(t *testing.T) {
	log := batches(2, 60)
	for _, per := range []int{1, 5, 13, 60} {
		store := newAudited()
		a, b := newPartition(t, log, 7), newPartition(t, log, per)
		a.limit = a.segments[4].footer.End
		drain(t, shipper(t, store, a, 50))
		drain(t, shipper(t, store, b, 51))
		if end := checkRemote(t, store, log, b.limit); end != b.end() {
			t.Errorf("with %d batches a segment it ends at %d, want %d", per, end, b.end())
		}
	}
}

func TestFencedByANewerLeader(t *testing.T) {
	log, store := batches(3, 30), newAudited()
	p := newPartition(t, log, 10)
	old := shipper(t, store, p, 50)
	if _, err := old.Step(t.Context()); err != nil {
		t.Fatal(err)
	}
	l, err := manifest.Open(t.Context(), store, testID, manifest.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Claim(t.Context(), 51); err != nil {
		t.Fatal(err)
	}
	if err := old.Run(t.Context()); !errors.Is(err, ErrFenced) {
		t.Fatalf("Run = %v", err)
	}
	if err := shipper(t, store, p, 49).Run(t.Context()); !errors.Is(err, ErrFenced) {
		t.Fatalf("Run of an older one = %v", err)
	}
	if end := checkRemote(t, store, log, p.limit); end != p.segments[0].footer.End {
		t.Errorf("the fenced leader appended up to %d", end)
	}
	if err := l.Delete(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := shipper(t, store, p, 52).Run(t.Context()); !errors.Is(err, ErrDeleted) {
		t.Errorf("Run after the deletion = %v", err)
	}
}

func TestSkipsWhatWasDeletedButNeverALoss(t *testing.T) {
	log, store := batches(4, 60), newAudited()
	p := newPartition(t, log, 10)
	p.limit = p.segments[0].footer.End
	s := shipper(t, store, p, 50)
	var removed []manifest.Segment
	s.c.Removed = func(segs []manifest.Segment) { removed = append(removed, segs...) }
	drain(t, s)
	p.limit = p.end()
	all := p.segments
	p.segments = all[3:]
	if _, err := s.Step(t.Context()); !errors.Is(err, ErrGap) {
		t.Fatalf("two segments are lost: %v", err)
	}
	p.logStart = all[3].footer.Base + 1
	drain(t, s)
	if end := checkRemote(t, store, log, p.limit); end != p.end() {
		t.Errorf("ends at %d", end)
	}
	if len(removed) != 1 || removed[0].Base != 0 {
		t.Errorf("removed %v", removed)
	}
}

// TestDamageIsNotShipped flips a bit on the disk under a sealed segment.
func TestDamageIsNotShipped(t *testing.T) {
	log, store := batches(5, 30), newAudited()
	p := newPartition(t, log, 10)
	f, err := p.fs.Open(p.segments[1].name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt([]byte{0xff}, 500); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	if err := shipper(t, store, p, 50).Run(t.Context()); !errors.Is(err, ErrDamaged) {
		t.Fatalf("Run = %v", err)
	}
	if end := checkRemote(t, store, log, p.limit); end != p.segments[0].footer.End {
		t.Errorf("ends at %d", end)
	}
}

// TestFullDiskShipsUncompressed: shipping is what makes room.
func TestFullDiskShipsUncompressed(t *testing.T) {
	log, store := large(t, 20, func(int) bool { return true }), newAudited()
	p := newPartition(t, log, 20)
	p.fs = vfs.Fault(p.fs, func(op vfs.Op) error {
		if op.Kind == vfs.OpCreate {
			return vfs.ErrNoSpace
		}
		return nil
	})
	s := shipper(t, store, p, 50)
	drain(t, s)
	if end := checkRemote(t, store, log, p.limit); end != p.end() || s.Status().Stored < s.Status().Bytes {
		t.Errorf("ends at %d, %+v", end, s.Status())
	}
}

// TestACorruptedUploadIsNotCommitted: the store keeps other bytes than were sent, or fewer.
func TestACorruptedUploadIsNotCommitted(t *testing.T) {
	log, store := batches(6, 20), newAudited()
	p := newPartition(t, log, 10)
	bad := true
	faulty := objecttest.NewFaulty(store, func(c objecttest.Call) objecttest.Fault {
		if c.Op == "put" && !c.Conditional && bad {
			bad = false
			return objecttest.Fault{Kind: objecttest.Corrupt}
		}
		return objecttest.Fault{}
	})
	s := shipper(t, faulty, p, 50)
	if _, err := s.Step(t.Context()); !errors.Is(err, object.ErrCorrupt) {
		t.Fatalf("Step = %v", err)
	}
	if end := checkRemote(t, store, log, p.limit); end != 0 {
		t.Fatalf("committed up to %d", end)
	}
	drain(t, s)
	if end := checkRemote(t, store, log, p.limit); end != p.end() {
		t.Errorf("ends at %d", end)
	}
}

// truncating stores one byte less of every segment and reports success.
type truncating struct{ *audited }

func (s truncating) Head(ctx context.Context, name string) (object.Attributes, error) {
	a, err := s.audited.Head(ctx, name)
	a.Size--
	return a, err
}

func TestAShorterObjectIsNotCommitted(t *testing.T) {
	log, store := batches(6, 20), newAudited()
	p := newPartition(t, log, 10)
	if _, err := shipper(t, truncating{store}, p, 50).Step(t.Context()); !errors.Is(err, object.ErrCorrupt) {
		t.Fatalf("Step = %v", err)
	}
	if end := checkRemote(t, store, log, p.limit); end != 0 {
		t.Errorf("committed up to %d", end)
	}
}

func TestLagGrowsWhileTheStoreIsAway(t *testing.T) {
	log := batches(7, 20)
	p := newPartition(t, log, 10)
	down := true
	faulty := objecttest.NewFaulty(newAudited(), func(c objecttest.Call) objecttest.Fault {
		if down && c.N > 0 {
			return objecttest.Fault{Kind: objecttest.Before}
		}
		return objecttest.Fault{}
	})
	s := shipper(t, faulty, p, 50)
	at := func(ms int64) (time.Duration, int64) { return s.Lag(time.UnixMilli(ms)) }
	for _, ms := range []int64{2000, 5000} {
		if _, err := s.Step(t.Context()); err == nil {
			t.Fatal("the store is away")
		}
		if lag, bytes := at(ms); lag != time.Duration(ms-1000)*time.Millisecond || bytes == 0 {
			t.Errorf("%v behind with %d bytes at %d ms", lag, bytes, ms)
		}
	}
	down = false
	drain(t, s)
	if lag, bytes := at(9000); lag != 0 || bytes != 0 {
		t.Errorf("%v behind with %d bytes after all was shipped", lag, bytes)
	}
}

// TestDoHasTheLogToItself: what others do with the Log neither races with the Shipper nor waits for an upload.
func TestDoHasTheLogToItself(t *testing.T) {
	log, store := batches(8, 40), newAudited()
	p := newPartition(t, log, 2)
	s := shipper(t, store, p, 50)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- s.Run(ctx) }()
	raised := record.Offset(0)
	for raised < p.end()/2 {
		if err := s.Do(t.Context(), func() error {
			if err := s.Claim(t.Context()); err != nil {
				return err
			}
			to := s.c.Log.Manifest().End() / 2
			_, err := s.c.Log.SetLogStart(t.Context(), to)
			raised = to
			return err
		}); err != nil {
			t.Fatal(err)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	checkRemote(t, store, log, p.limit)
}
