package manifest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/crc32"
	"sync/atomic"
	"time"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// MaxPages bounds the references in a root. With the default page size that is 134 million segments and a root of at
// most 4 MiB.
const MaxPages = 1 << 16

// Options of a Log. The zero value is valid.
type Options struct {
	// RootSegments is how many of the newest entries the root keeps at least; default 2048. Once it has PageSegments more,
	// the oldest PageSegments move to a page; default 2048.
	RootSegments, PageSegments int
	// Pages caches pages; a broker shares one between its partitions. Default: four pages of this Log's own.
	Pages *PageCache
	// Attempts bounds the requests of one commit whose outcome stays unknown; default 10.
	Attempts int
	// RetryDelay is the wait before the second attempt, doubled with each up to 32 times as long; default 50 ms. A random
	// half of it is left out.
	RetryDelay time.Duration
	// Limit returns the offset up to which records may be committed here: the smallest of high watermark, last stable
	// offset and what is durable. Append refuses segments beyond it. Default: no check.
	Limit func() record.Offset
}

func (o Options) withDefaults() Options {
	if o.RootSegments <= 0 {
		o.RootSegments = 2048
	}
	if o.PageSegments <= 0 {
		o.PageSegments = 2048
	}
	if o.Pages == nil {
		o.Pages = NewPageCache(4)
	}
	if o.Attempts <= 0 {
		o.Attempts = 10
	}
	if o.RetryDelay <= 0 {
		o.RetryDelay = 50 * time.Millisecond
	}
	return o
}

// Log is one partition's manifest in the store. Its methods belong to one goroutine, but for Manifest, which anyone may
// call at any time.
type Log struct {
	store   object.Store
	id      segment.Identity
	options Options

	current atomic.Pointer[Manifest]
	version object.Version     // of the root that current was read from or written to; empty if absent
	epoch   record.LeaderEpoch // claimed by this Log, or NoEpoch
	pending bool
	garbage []string
}

// Open reads a partition's manifest: one GET. An absent one is empty, begins at offset 0, and is not written.
func Open(ctx context.Context, store object.Store, id segment.Identity, o Options) (*Log, error) {
	l := &Log{store: store, id: id, options: o.withDefaults(), epoch: record.NoEpoch}
	l.current.Store(newManifest(id, l.options.Pages))
	if err := l.Reload(ctx); err != nil {
		return nil, err
	}
	return l, nil
}

// Manifest returns the newest version that is known to be committed.
func (l *Log) Manifest() *Manifest { return l.current.Load() }

// Pending reports whether a commit of this Log failed with ErrUnknown and may still happen. While it is true, nothing
// that the commit would refer to may be deleted. Any later commit, and a Reload that finds a newer version, ends it.
func (l *Log) Pending() bool { return l.pending }

// Unreferenced returns, once, the names of the pages that commits of this Log replaced or dropped. Readers may still use
// them: delete after the readers' grace.
func (l *Log) Unreferenced() []string {
	names := l.garbage
	l.garbage = nil
	return names
}

// Reload reads the newest version: one GET.
func (l *Log) Reload(ctx context.Context) error {
	m, v, err := l.read(ctx)
	if err != nil {
		return err
	}
	if m.nonce == l.Manifest().nonce {
		l.version = v // of the same bytes: the object may have been copied in place
		return nil
	}
	return l.install(m, v)
}

// read gets the root. It is as new as the newest known, or ErrCorrupt: a bucket that went back in time is not trusted.
func (l *Log) read(ctx context.Context) (*Manifest, object.Version, error) {
	name, cur := RootName(l.id), l.Manifest()
	p, v, err := l.store.Get(ctx, name)
	m := newManifest(l.id, l.options.Pages)
	switch {
	case errors.Is(err, object.ErrNotFound):
		v = ""
	case err != nil:
		return nil, "", fmt.Errorf("read manifest: %w", err)
	default:
		if m, err = decodeRoot(p, l.id, l.options.Pages); err != nil {
			return nil, "", fmt.Errorf("read manifest %s: %w", name, err)
		}
	}
	if m.nonce != cur.nonce {
		if err := checkStep(cur, m); err != nil {
			return nil, "", fmt.Errorf("read manifest %s: %w", name, err)
		}
	}
	return m, v, nil
}

// install makes m, which is committed, the current version. Every commit before it is decided: an earlier request that is
// still under way has a condition that can never be true again, because no two roots have the same bytes.
func (l *Log) install(m *Manifest, v object.Version) error {
	if err := checkStep(l.Manifest(), m); err != nil {
		return err
	}
	l.current.Store(m)
	l.version, l.pending = v, false
	return nil
}

// edit returns the version that should follow m, or m itself if there is nothing to change. It may be called again with a
// newer m, and must not modify it.
type edit func(ctx context.Context, m *Manifest) (*Manifest, error)

// commit swaps the root for the edited one. nil means that the edit is in the store, for good; ErrUnknown that it may be
// or may come to be; any other error that it is not and never will be.
func (l *Log) commit(ctx context.Context, what string, change edit) error {
	var next *Manifest
	var body []byte
	var reason error
	for attempt := range l.options.Attempts {
		if reason != nil {
			if err := l.pause(ctx, attempt); err != nil {
				reason = errors.Join(reason, err)
				break
			}
		}
		cur := l.Manifest()
		if next == nil {
			var err error
			if next, err = change(ctx, cur); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
			if next == cur {
				return nil
			}
			if body, err = next.seal(cur); err != nil {
				return fmt.Errorf("%s: %w", what, err)
			}
		}
		decided, err := l.swap(ctx, cur, next, body, reason != nil)
		if err == nil {
			return nil
		}
		if decided && !errors.Is(err, errOvertaken) {
			return fmt.Errorf("%s: %w", what, err)
		}
		reason = err
		if decided {
			next, reason = nil, nil // edit the version that overtook ours
		}
	}
	if reason == nil {
		return fmt.Errorf("%s: %w %d times", what, errOvertaken, l.options.Attempts)
	}
	return fmt.Errorf("%s: %w: %w", what, ErrUnknown, reason)
}

// errOvertaken means that another commit took the version, and that ours never happens.
var errOvertaken = errors.New("another commit came first")

// swap sends one compare-and-swap and finds out what became of it. Undecided, the same bytes may be sent again: they carry
// the same nonce under the same condition, so that whichever request arrives first decides for all of them.
func (l *Log) swap(ctx context.Context, cur, next *Manifest, body []byte, sent bool) (decided bool, err error) {
	condition := object.IfAbsent()
	if l.version != "" {
		condition = object.IfMatch(l.version)
	}
	sum := crc32.Checksum(body, castagnoli)
	v, err := l.store.Put(ctx, RootName(l.id), object.Bytes(body), object.PutOptions{Condition: condition, CRC32C: &sum, NoRetry: true})
	if err == nil && v != "" {
		return true, l.install(next, v)
	}
	if err != nil && !sent && refused(err) {
		return true, err
	}
	if err == nil {
		err = errors.New("the store gave no version")
	}
	// Anything else proves nothing, a failed precondition included: a hidden repetition loses to its own first request.
	l.pending = true
	got, v, readErr := l.read(ctx)
	switch {
	case readErr != nil:
		return false, errors.Join(err, readErr)
	case got.nonce == next.nonce:
		return true, l.install(got, v)
	case got.nonce == cur.nonce:
		l.version = v
		return false, err
	}
	happened, known := got.includes(next)
	if err := l.install(got, v); err != nil {
		return true, err
	}
	switch {
	case happened:
		return true, nil
	case !known:
		return true, fmt.Errorf("%w: %d versions later", ErrUnknown, got.version-next.version)
	}
	return true, errOvertaken
}

// refused reports whether the store refused the request before it could do anything.
func refused(err error) bool {
	for _, definite := range []error{object.ErrDenied, object.ErrName, object.ErrUnsupported, object.ErrCorrupt} {
		if errors.Is(err, definite) {
			return true
		}
	}
	return false
}

// seal gives m, made of cur, the next version and a new nonce, checks it, and returns its bytes.
func (m *Manifest) seal(cur *Manifest) ([]byte, error) {
	m.version = cur.version + 1
	_, _ = rand.Read(m.nonce[:]) // never fails since Go 1.24
	m.recent = nil
	if cur.version > 0 {
		m.recent = append(append(make([]nonce, 0, maxRecent+1), cur.nonce), cur.recent...)
		m.recent = m.recent[:min(len(m.recent), maxRecent)]
	}
	if err := m.check(); err != nil {
		return nil, err
	}
	if err := checkStep(cur, m); err != nil {
		return nil, err
	}
	return m.encode(), nil
}

// includes reports whether next is among the commits that m, a newer version, was built on. known is false if that is too
// long ago to tell.
func (m *Manifest) includes(next *Manifest) (happened, known bool) {
	for _, n := range m.recent {
		if n == next.nonce {
			return true, true
		}
	}
	return false, m.version-next.version <= uint64(len(m.recent))
}

// pause waits before an attempt.
func (l *Log) pause(ctx context.Context, attempt int) error {
	d := l.options.RetryDelay << min(attempt-1, 5)
	var r [1]byte
	_, _ = rand.Read(r[:])
	t := time.NewTimer(d/2 + d/2*time.Duration(r[0])/256)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
