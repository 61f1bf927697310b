package object

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/everlog/everlog/tier/vfs"
)

// Directory is a Store in a local directory: one plain file an object, at the path that is its name, so that any tool can
// copy the directory to a bucket and back. Several processes of one machine may use one directory at a time: conditions
// hold between them too.
//
// Beside the objects it keeps two directories whose names no object can have:
//
//	.lock/<2 hex>            one lock per shard of names, held (flock) from the check of a condition to the fsync after the rename
//	.tmp/<owner>, <owner>-n  bodies being written; <owner> is locked while its process lives, and what a dead one left is removed
//
// A write is temp file, fdatasync, lock, check, rename, fsync of the directory, unlock. A loser of a race therefore learns
// that it lost only after the winner's object is durable. A reader that takes no lock may see an object some milliseconds
// before a power cut could no longer take it away.
//
// The version of an object of at most 4 MiB is a hash of its bytes, like an ETag. A larger one's is a hash of size, time of
// modification, and the first and last 64 KiB.
type Directory struct {
	dir   string
	fs    vfs.FS
	owner string
	temps atomic.Int64
	// alive is the lock on .tmp/<owner>.
	alive  io.Closer
	shards [shardCount]chan struct{}
	files  openFiles

	mu sync.Mutex
	// durable holds the directories ("" = dir itself) that exist, and whose entry in their parent is on disk.
	durable map[string]bool
}

const (
	shardCount = 64
	lockDir    = ".lock"
	tempDir    = ".tmp"
	// lockPollMin and lockPollMax bound the wait between two attempts at a lock that another process holds. It holds it for
	// one fsync of a directory.
	lockPollMin, lockPollMax = 200 * time.Microsecond, 10 * time.Millisecond
)

// NewDirectory opens the store in dir, which it makes if absent, and removes temporary files of dead processes. Close
// gives up its files.
func NewDirectory(dir string, fs vfs.FS) (*Directory, error) {
	dir = path.Clean(dir)
	d := &Directory{dir: dir, fs: fs, durable: map[string]bool{}}
	d.files.open = func(name string) (vfs.File, error) { return fs.Open(d.path(name)) }
	for i := range d.shards {
		d.shards[i] = make(chan struct{}, 1)
	}
	if err := d.makeRoot(); err != nil {
		return nil, fmt.Errorf("open object directory %s: %w", dir, err)
	}
	if err := d.register(); err != nil {
		return nil, fmt.Errorf("open object directory %s: %w", dir, err)
	}
	if err := d.sweep(); err != nil {
		d.Close()
		return nil, fmt.Errorf("open object directory %s: remove old temporary files: %w", dir, err)
	}
	return d, nil
}

// makeRoot creates the directory and its missing parents, durably.
func (d *Directory) makeRoot() error {
	first := d.dir // the uppermost directory that is missing
	var missing []string
	for {
		if _, err := d.fs.Stat(first); err == nil {
			break
		} else if !isAbsent(err) {
			return err
		}
		missing = append(missing, first)
		if path.Dir(first) == first {
			break
		}
		first = path.Dir(first)
	}
	for _, sub := range []string{lockDir, tempDir} {
		if err := d.fs.MkdirAll(d.path(sub)); err != nil {
			return err
		}
	}
	for _, made := range slices.Backward(missing) {
		if err := d.fs.SyncDir(path.Dir(made)); err != nil {
			return err
		}
	}
	d.durable[""] = true
	return d.fs.SyncDir(d.dir)
}

// register takes a lock of our own among the temporary files. A sweeper may unlink the file between its creation and the
// lock; then the lock protects nothing, and another name is tried.
func (d *Directory) register() error {
	for {
		id := make([]byte, 8)
		rand.Read(id) // never fails
		d.owner = path.Join(tempDir, hex.EncodeToString(id))
		lock, err := d.fs.Lock(d.path(d.owner))
		if errors.Is(err, vfs.ErrLocked) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err = d.fs.Stat(d.path(d.owner)); err == nil {
			d.alive = lock
			return nil
		}
		lock.Close()
		if !isAbsent(err) {
			return err
		}
	}
}

// sweep removes the temporary files of owners that hold no lock: their processes are dead.
func (d *Directory) sweep() error {
	names, err := d.fs.List(d.path(tempDir))
	if err != nil {
		return err
	}
	dead := map[string]io.Closer{}
	defer func() {
		for owner, lock := range dead {
			d.fs.Remove(d.path(path.Join(tempDir, owner))) // unlinked before it is unlocked: see register
			lock.Close()
		}
	}()
	for _, name := range names {
		owner, _, temp := strings.Cut(name, "-")
		if dead[owner] == nil {
			lock, err := d.fs.Lock(d.path(path.Join(tempDir, owner)))
			if errors.Is(err, vfs.ErrLocked) {
				continue
			}
			if err != nil {
				return err
			}
			dead[owner] = lock
		}
		if temp {
			if err := d.fs.Remove(d.path(path.Join(tempDir, name))); err != nil && !isAbsent(err) {
				return err
			}
		}
	}
	return nil
}

// Close closes the cached files and lets other processes remove what this one left behind. No operation may be running.
func (d *Directory) Close() error {
	d.files.closeAll()
	err := d.fs.Remove(d.path(d.owner))
	return errors.Join(err, d.alive.Close())
}

func (d *Directory) path(name string) string { return d.dir + "/" + name }

// lock excludes every other writer of name, of this process and of others, until unlock.
func (d *Directory) lock(ctx context.Context, name string) (unlock func(), err error) {
	n := shardOf(name)
	shard := d.shards[n]
	select {
	case shard <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	for wait := lockPollMin; ; wait = min(2*wait, lockPollMax) {
		file, err := d.fs.Lock(d.path(fmt.Sprintf("%s/%02x", lockDir, n)))
		if err == nil {
			return func() { file.Close(); <-shard }, nil
		}
		if !errors.Is(err, vfs.ErrLocked) {
			<-shard
			return nil, err
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			<-shard
			return nil, ctx.Err()
		}
	}
}

// shardOf must be the same in every process that uses the directory, of any version: FNV-1a.
func shardOf(name string) uint32 {
	h := uint32(2166136261)
	for i := range len(name) {
		h = (h ^ uint32(name[i])) * 16777619
	}
	return h % shardCount
}

// ensureDir makes the directory of name and its parents, and their entries durable.
func (d *Directory) ensureDir(dir string) error {
	d.mu.Lock()
	done := d.durable[dir]
	d.mu.Unlock()
	if done {
		return nil
	}
	parent := parentOf(dir)
	if err := d.ensureDir(parent); err != nil {
		return err
	}
	if err := d.fs.MkdirAll(d.path(dir)); err != nil {
		if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTDIR) {
			return fmt.Errorf("%s is an object: %w", dir, ErrUnsupported)
		}
		return err
	}
	if err := d.fs.SyncDir(d.path(parent)); err != nil {
		return err
	}
	d.mu.Lock()
	d.durable[dir] = true
	d.mu.Unlock()
	return nil
}

// forgetDirs makes later calls of ensureDir look again.
func (d *Directory) forgetDirs() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.durable = map[string]bool{"": true}
}

// parentOf is the directory of a name within the store, "" at its top.
func parentOf(name string) string {
	return name[:max(strings.LastIndexByte(name, '/'), 0)]
}

// isAbsent also takes a name below a plain file for absent.
func isAbsent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// failed wraps an error of the file system, or of the context, as sentinel.
func failed(op, name string, sentinel, err error) error {
	for _, ours := range []error{ErrNotFound, ErrPrecondition, ErrUnsupported, ErrCorrupt, ErrTooLarge, ErrConflict} {
		if errors.Is(err, ours) {
			return fmt.Errorf("%s %s: %w", op, name, err)
		}
	}
	if isAbsent(err) && op != "put" {
		return fmt.Errorf("%s %s: %w", op, name, ErrNotFound)
	}
	return fmt.Errorf("%s %s: %w: %w", op, name, sentinel, err)
}

// String implements Store.
func (d *Directory) String() string { return "file://" + d.dir }
