// Package ship owns the way of a partition's sealed segments into the object store: what to upload next, at what pace, and
// the order of steps that makes a crash at any point harmless. It does not decide what is sealed, what may be dropped
// locally (compaction) or which segments make up the remote log (tier/manifest).
//
// The leader's ingest/partition runs one Shipper for each leadership. All Shippers of a broker share one Limiter.
//
// # Order of steps
//
// Claim the manifest for the leader epoch; then, for each segment below the limit: verify and recode it, put it under a name
// never used before, check the size that the store reports, append it to the manifest. The append is the one point of
// commit: it checks the epoch and that the segment begins exactly where the remote log ends, so there is neither gap nor
// overlap whatever was lost in between. An object without an entry is an orphan, for compaction's sweep. A put that was
// given up may still land: under its own name, where nobody looks.
package ship

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

var (
	// ErrFenced means that a newer leader has claimed the remote log: this Shipper must not go on.
	ErrFenced = errors.New("fenced: a newer leader has claimed the remote log")
	// ErrDeleted means that the remote log has been deleted with its topic.
	ErrDeleted = errors.New("the remote log has been deleted")
	// ErrDamaged means that a local segment is not what its footer says. It was not uploaded; the replica is damaged.
	ErrDamaged = errors.New("local segment is damaged")
	// ErrGap means that records between the end of the remote log and the start of the local one are missing and were
	// not deleted. Nothing is shipped until a person has looked, for what follows cannot be appended without them.
	ErrGap = errors.New("records are missing between the remote and the local log")
)

// Source is one partition's local log as its Shipper sees it; ingest/partition implements it. Safe for concurrent use.
type Source interface {
	// View returns what may be shipped from offset from on, all of it as of one moment.
	View(from record.Offset) View
	// Aborted returns all aborted transactions that overlap [from, to), a range below the last stable offset, ordered by
	// marker; nil to use those of the segment's footer.
	Aborted(from, to record.Offset) []record.AbortedTxn
	// Pending returns how much of the local log lies at or above from, the active segment included.
	Pending(from record.Offset) Pending
}

// View is a partition's local log at one moment. Its segments are pinned until Release.
type View struct {
	// LogStart is the log start offset: records below it are deleted.
	LogStart record.Offset
	// Limit is min(high watermark, last stable offset, durable end), exclusive.
	Limit record.Offset
	// Sealed are the sealed and durable segments with an End above the offset asked for, in order.
	Sealed []Sealed
	// Release may be nil.
	Release func()
}

// Sealed is one sealed segment. Its files stay readable until its View is released.
type Sealed struct {
	Base, End record.Offset
	Footer    func() (*segment.Footer, error)
	// Open returns the segment file. If it is an io.Closer it is closed after use.
	Open func() (io.ReaderAt, error)
}

// Pending is the part of a log that is not in the store yet.
type Pending struct {
	// Bytes is its size on the local disk.
	Bytes int64
	// OldestMs is the timestamp of its first record in milliseconds, -1 if there is none.
	OldestMs int64
}

// Config is what a Shipper works on and with. Fields marked optional may be zero.
type Config struct {
	ID segment.Identity
	// Epoch is the leader epoch whose leader ships.
	Epoch record.LeaderEpoch
	// Log is the Shipper's own; others use it within Do.
	Log     *manifest.Log
	Source  Source
	Store   object.Store
	Limiter *Limiter
	// FS and Scratch are where temporary files go: a directory that exists and is the shippers' own. See CleanScratch.
	FS      vfs.FS
	Scratch string

	// MinSaving is the part of a block that compression must save; optional, see segment.RecodeOptions.
	MinSaving float64
	// Poll is how often a Shipper looks for work that nobody woke it for. Optional, default 10 s.
	Poll time.Duration
	// BackoffMax bounds the wait after a failure; waits begin at 200 ms, double, and are jittered. Optional, default 30 s.
	BackoffMax time.Duration
	// Committed, optional, is told of each segment after its commit, from the Shipper's goroutine.
	Committed func(manifest.Segment)
	// Removed, optional, is given the segments that a skip took out of the manifest, to be deleted when readers are gone.
	Removed func([]manifest.Segment)
	// Logger is optional.
	Logger *slog.Logger
}

const (
	defaultPoll       = 10 * time.Second
	backoffBase       = 200 * time.Millisecond
	defaultBackoffMax = 30 * time.Second
)

// Shipper ships one partition's sealed segments during one leadership. Run and Step must not run concurrently; the other
// methods are safe for concurrent use.
type Shipper struct {
	c     Config
	wake  chan struct{}
	owner chan struct{} // holds a token while somebody uses c.Log and the three fields below

	claimed bool
	unsure  bool              // an error has left the manifest's state in doubt
	pending *manifest.Segment // uploaded, commit in doubt

	mu     sync.Mutex
	status Status
	flying string // object name of the attempt under way, "" if none
}

// Status is what a Shipper has done so far.
type Status struct {
	Uploads, Failures int64
	// Bytes is the size of the records shipped, Stored what they take in the store.
	Bytes, Stored int64
	// Err is why the last attempt failed; nil after a success.
	Err error
}

// New returns a Shipper that has done nothing yet.
func New(c Config) *Shipper {
	if c.Poll <= 0 {
		c.Poll = defaultPoll
	}
	if c.BackoffMax <= 0 {
		c.BackoffMax = defaultBackoffMax
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return &Shipper{c: c, wake: make(chan struct{}, 1), owner: make(chan struct{}, 1)}
}

// CleanScratch empties the directory for temporary files, which a crash may have left, and makes it if it is absent. Call
// it once before the first Shipper of a broker starts.
func CleanScratch(fs vfs.FS, dir string) error {
	return errors.Join(fs.RemoveAll(dir), fs.MkdirAll(dir))
}

// Wake tells the Shipper that a segment was sealed or the limit moved.
func (s *Shipper) Wake() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Status returns what has been done so far.
func (s *Shipper) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.status
}

// InFlight returns the name of the object that is being uploaded or awaits its commit, "" if there is none: the orphan
// sweep of this leadership must leave it alone.
func (s *Shipper) InFlight() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.flying
}

// Lag returns for how long the oldest record that is not in the store has been in the log, and how many local bytes are not
// in the store. It is computed from the logs and the clock, not from uploads, so it grows while the store is away.
func (s *Shipper) Lag(now time.Time) (time.Duration, int64) {
	p := s.c.Source.Pending(s.c.Log.Manifest().End())
	if p.OldestMs < 0 || p.Bytes == 0 {
		return 0, p.Bytes
	}
	return max(now.Sub(time.UnixMilli(p.OldestMs)), 0), p.Bytes
}

// Run ships until ctx ends, and then returns nil. Otherwise it returns ErrFenced, ErrDeleted or ErrDamaged: what trying
// again cannot change. Everything else, a store that is away or throttles above all, is waited out.
func (s *Shipper) Run(ctx context.Context) error {
	failures := 0
	for {
		progress, err := s.Step(ctx)
		pause := s.c.Poll
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, ErrFenced), errors.Is(err, ErrDeleted), errors.Is(err, ErrDamaged):
			return err
		case err != nil:
			failures++
			pause = backoff(failures, s.c.BackoffMax)
			s.c.Logger.Warn("shipping is delayed", "topic", s.c.ID.Topic, "partition", s.c.ID.Partition, "epoch", s.c.Epoch, "wait", pause, "err", err)
		default:
			failures = 0
		}
		if progress && err == nil {
			continue
		}
		s.pause(ctx, pause, err == nil)
	}
}

// pause waits; being woken ends it early only when there was nothing to do, lest a busy log defeats the back-off.
func (s *Shipper) pause(ctx context.Context, d time.Duration, wakeable bool) {
	wake := s.wake
	if !wakeable {
		wake = nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-wake:
	case <-ctx.Done():
	}
}

// backoff is the wait after so many failures in a row: between half of a doubling time and all of it.
func backoff(failures int, limit time.Duration) time.Duration {
	d := min(backoffBase<<min(failures-1, 16), limit)
	return d/2 + rand.N(d/2+1)
}
