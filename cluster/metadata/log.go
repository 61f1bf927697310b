package metadata

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everlog/everlog/tier/object"
)

// Cache keeps the newest image on local disk, so that a broker starts and serves while the store is away, and notices a
// bucket that was restored from an older copy.
type Cache interface {
	// Load returns what was saved last, nil if there is nothing.
	Load() ([]byte, error)
	// Save replaces it, durably and all or nothing.
	Save(image []byte) error
}

// Options of Open. The zero value is valid.
type Options struct {
	// Cache of the image; default none: every start needs the store.
	Cache Cache
	// ClusterID is what a cluster created here gets, and what one found here must have. Zero: a random one, and any.
	ClusterID [16]byte
	// Join forbids to create a cluster: an empty prefix is ErrNoCluster.
	Join bool
	// Writer names this process in its commits; it must be unique to one process lifetime. Default: random.
	Writer string
	// Poll is the time between looks for new commits, default 3 s. Verify is the time between checks that the bucket still
	// holds what was seen, default 30 s.
	Poll, Verify time.Duration
	// Timeout of one request, default 2 s. Ten times as much for a snapshot.
	Timeout time.Duration
	// Patience bounds how long Open tries to reach the store when it could start from the cache; default 3 s.
	Patience time.Duration
	// SnapshotEvery is the number of records or commits after which Maintain writes a snapshot, default 1000.
	SnapshotEvery int
	// Retain is how long numbers of the log are kept at least, default 24 h. It must exceed, by far, the time that a request
	// or a process can be delayed and still reach the store.
	Retain time.Duration
	// Log gets what an operator must know; default none.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&o.Poll, 3*time.Second)
	set(&o.Verify, 30*time.Second)
	set(&o.Timeout, 2*time.Second)
	set(&o.Patience, 3*time.Second)
	set(&o.Retain, 24*time.Hour)
	if o.SnapshotEvery == 0 {
		o.SnapshotEvery = 1000
	}
	if o.Writer == "" {
		o.Writer = newNonce()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Log is one process's view of the metadata log. Safe for concurrent use.
type Log struct {
	o     Options
	store object.Store
	image atomic.Pointer[Image]
	stale atomic.Bool
	hint  chan struct{}

	mu    sync.Mutex
	watch chan struct{} // closed and replaced when image changes
	// fatal is set once: the histories here and in the bucket do not agree.
	fatal error

	// slot is held (sent to) by whoever talks to the store about the log; it is a mutex that a context can leave. What
	// follows is guarded by it.
	slot       chan struct{}
	pending    *attempt // a commit whose outcome is not known
	doubt      bool     // the store was away: see that it still holds what we saw before anything is built on it
	verified   time.Time
	generation uint64 // highest of meta/root seen

	upkeep  sync.Mutex // held by Maintain
	applied atomic.Int64
}

// attempt is a commit under way.
type attempt struct {
	version uint64
	body    []byte
	image   *Image
	records int
	created bool // the slot is known to hold body; the boundary remains to be checked
}

// Open reads the newest image from the store. On an empty prefix it creates a cluster; of several processes that do so at
// once one wins and the others join it. If the store cannot be reached but the cache holds an image, Open succeeds with
// that, Stale, and Follow goes on trying. ErrRestored, ErrWrongCluster, ErrNoCluster, ErrCorrupt and ErrVersion are final.
func Open(ctx context.Context, store object.Store, o Options) (*Log, error) {
	l := &Log{o: o.withDefaults(), store: store, hint: make(chan struct{}, 1), watch: make(chan struct{}), slot: make(chan struct{}, 1)}
	cached, err := l.cached()
	if err != nil {
		// The cache only saves time: without it the store decides.
		l.o.Log.Warn("metadata cache cannot be read, starting from the store", "err", err)
	}
	if cached == nil {
		if err := l.load(ctx, nil); err != nil {
			return nil, fmt.Errorf("open metadata in %s: %w", store, err)
		}
		return l, nil
	}
	bounded, cancel := context.WithTimeout(ctx, l.o.Patience)
	defer cancel()
	err = l.load(bounded, cached)
	if err == nil {
		return l, nil
	}
	if final(err) || ctx.Err() != nil {
		return nil, fmt.Errorf("open metadata in %s: %w", store, err)
	}
	l.o.Log.Warn("object store away: starting from the last known metadata", "version", cached.Version, "err", err)
	l.image.Store(cached)
	l.stale.Store(true)
	l.doubt = true
	return l, nil
}

func (l *Log) cached() (*Image, error) {
	if l.o.Cache == nil {
		return nil, nil
	}
	p, err := l.o.Cache.Load()
	if err != nil || p == nil {
		return nil, err
	}
	return decodeSnapshot(p)
}

// final reports whether trying again cannot help.
func final(err error) bool {
	for _, f := range []error{ErrRestored, ErrWrongCluster, ErrNoCluster, ErrCorrupt, ErrVersion} {
		if errors.Is(err, f) {
			return true
		}
	}
	return false
}

// Image returns the newest image known here. It never blocks.
func (l *Log) Image() *Image { return l.image.Load() }

// Stale reports whether the image is still the cache's, because the store was not reached since Open.
func (l *Log) Stale() bool { return l.stale.Load() }

// Writer returns the name that this process commits under.
func (l *Log) Writer() string { return l.o.Writer }

// Watch returns a channel that is closed when a newer image is there. Take it before looking at Image.
func (l *Log) Watch() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.watch
}

// Hint says that there may be something new: Follow looks at once instead of at its next poll.
func (l *Log) Hint() {
	select {
	case l.hint <- struct{}{}:
	default:
	}
}

// Err returns what ended this log for good, or nil. Commit and Follow return it too.
func (l *Log) Err() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fatal
}

// publish makes a newer image the current one. The slot is held.
func (l *Log) publish(img *Image) {
	l.mu.Lock()
	defer l.mu.Unlock()
	old := l.image.Load()
	l.image.Store(img)
	if old == nil || old.Version != img.Version {
		close(l.watch)
		l.watch = make(chan struct{})
	}
}

// fail remembers a final error and passes every error on.
func (l *Log) fail(err error) error {
	if !final(err) {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fatal == nil {
		l.fatal = err
		l.o.Log.Error("metadata in the bucket does not fit what this broker has seen; a person must decide which is right", "err", err)
	}
	return err
}

// lock takes the slot.
func (l *Log) lock(ctx context.Context) error {
	if err := l.Err(); err != nil {
		return err
	}
	select {
	case l.slot <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
	}
}

func (l *Log) unlock() { <-l.slot }

// get reads one object, again if it arrives damaged, and calls check on its bytes.
func (l *Log) get(ctx context.Context, name string, timeout time.Duration, check func([]byte) error) (object.Version, error) {
	const attempts = 3 // a flipped bit on the way is not corruption in the bucket
	for i := 1; ; i++ {
		once, cancel := context.WithTimeout(ctx, timeout)
		p, v, err := l.store.Get(once, name)
		cancel()
		if err != nil {
			return "", err
		}
		if err = check(p); err == nil || !errors.Is(err, ErrCorrupt) || i == attempts {
			return v, err
		}
	}
}

// slowest is the transfer that a Put is still waited for, in bytes a second: the registration of a broker with 100,000 partitions is
// some 15 MB.
const slowest = 256 << 10

func (l *Log) put(ctx context.Context, name string, body []byte, c object.Condition) (object.Version, error) {
	ctx, cancel := context.WithTimeout(ctx, l.o.Timeout+time.Duration(len(body))*time.Second/slowest)
	defer cancel()
	return l.store.Put(ctx, name, object.Bytes(body), object.PutOptions{Condition: c, NoRetry: true})
}

// readRoot returns meta/root and its version ("" if there is none). The slot is held, or Open is not done.
func (l *Log) readRoot(ctx context.Context, clusterID string) (root, object.Version, error) {
	r := root{Kind: "metadata-root", Format: formatVersion, Cluster: clusterID, FirstRetained: 1}
	v, err := l.get(ctx, rootName, l.o.Timeout, func(p []byte) (err error) {
		r, err = decodeRoot(p, clusterID)
		return err
	})
	if err != nil && !errors.Is(err, object.ErrNotFound) {
		return r, "", fmt.Errorf("read %s: %w", rootName, err)
	}
	if r.Generation < l.generation {
		return r, "", fmt.Errorf("%w: generation of %s went from %d to %d", ErrRestored, rootName, l.generation, r.Generation)
	}
	l.generation = r.Generation
	return r, v, nil
}
