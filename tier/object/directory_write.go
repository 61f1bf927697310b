package object

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/everlog/everlog/tier/vfs"
)

const (
	// copySize is the size of one read from a body and one write to a file.
	copySize = 1 << 20
	// hashedSize is the size of the largest object whose version is a hash of all its bytes. What is swapped by IfMatch is
	// smaller, or differs in its first or last edgeSize bytes from what it replaces.
	hashedSize = 4 << 20
	edgeSize   = 64 << 10
	// maxDescribe bounds the attempts to read an object that is replaced all the time.
	maxDescribe = 100
)

var copyBuffers = sync.Pool{New: func() any { return new([copySize]byte) }}

// Put implements Store.
func (d *Directory) Put(ctx context.Context, name string, body Body, o PutOptions) (Version, error) {
	if err := CheckPut(name, o); err != nil {
		return "", err
	}
	if err := ctx.Err(); err != nil {
		return "", failed("put", name, ErrUnknown, err)
	}
	temp := d.path(d.owner + "-" + strconv.FormatInt(d.temps.Add(1), 10))
	version, err := d.writeTemp(ctx, temp, body, o)
	if err != nil {
		d.fs.Remove(temp)
		return "", failed("put", name, ErrUnavailable, err)
	}
	version, err = d.publish(ctx, temp, name, o.Condition, version)
	if err != nil {
		d.fs.Remove(temp) // absent if it was renamed already
		return "", failed("put", name, ErrUnknown, err)
	}
	return version, nil
}

// writeTemp writes the body to a new file, syncs it, and returns the version if that depends on the bytes alone.
func (d *Directory) writeTemp(ctx context.Context, temp string, body Body, o PutOptions) (Version, error) {
	f, err := d.fs.Create(temp)
	if err != nil {
		return "", err
	}
	defer f.Close()
	var sum hash.Hash
	if body.Size() <= hashedSize {
		sum = sha256.New()
	}
	crc, err := copyBody(ctx, f, body, o.CRC32C != nil, sum)
	if err != nil {
		return "", err
	}
	if o.CRC32C != nil && crc != *o.CRC32C {
		return "", fmt.Errorf("body has CRC-32C %08x, not %08x: %w", crc, *o.CRC32C, ErrCorrupt)
	}
	if err := f.Sync(); err != nil {
		return "", err
	}
	if sum == nil {
		return "", nil
	}
	return versionOf(sum), nil
}

// syncEvery is how much of an object is written between syncs. One sync of all at the end would make every other sync on
// the file system, a broker's log among them, wait for it.
const syncEvery = 4 << 20

// copyBody streams the body to the file, and computes on the way what is asked for.
func copyBody(ctx context.Context, f vfs.File, body Body, checksum bool, sum hash.Hash) (crc uint32, err error) {
	inMemory, _ := body.(memoryBody)
	var buffer []byte
	if inMemory == nil {
		b := copyBuffers.Get().(*[copySize]byte)
		defer copyBuffers.Put(b)
		buffer = b[:]
	}
	for position, size := int64(0), body.Size(); position < size; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		n := min(size-position, copySize)
		p := buffer
		if inMemory != nil {
			p = inMemory[position : position+n]
		} else if got, err := body.ReadAt(p[:n], position); int64(got) < n {
			return 0, fmt.Errorf("read body at %d: %w", position+int64(got), noEOF(err))
		}
		p = p[:n]
		if checksum {
			crc = crc32.Update(crc, castagnoli, p)
		}
		if sum != nil {
			sum.Write(p)
		}
		if _, err := f.WriteAt(p, position); err != nil {
			return 0, err
		}
		position += n
		if position%syncEvery == 0 && position < size {
			if err := f.Sync(); err != nil {
				return 0, err
			}
		}
	}
	return crc, nil
}

// noEOF turns the end of a body that promised more into an error that nobody takes for a success.
func noEOF(err error) error {
	if err == nil || err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// publish gives the temporary file its name, if the condition allows, and makes the name durable. It finds out the version,
// where that is not known yet, before another writer can replace the object: the caller may go on to swap it.
func (d *Directory) publish(ctx context.Context, temp, name string, c Condition, version Version) (Version, error) {
	dir := parentOf(name)
	if err := d.ensureDir(dir); err != nil {
		return "", err
	}
	unlock, err := d.lock(ctx, name)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := d.check(name, c); err != nil {
		return "", err
	}
	if err := d.fs.Rename(temp, d.path(name)); err != nil {
		d.forgetDirs() // somebody may have removed the directory; the next Put makes it again
		return "", err
	}
	d.files.drop(name)
	if err := d.fs.SyncDir(d.path(dir)); err != nil || version != "" {
		return version, err
	}
	_, a, err := d.describe(name, false)
	return a.Version, err
}

// check answers ErrPrecondition if the condition is false, and ErrUnsupported if the name is a directory. The name is
// locked.
func (d *Directory) check(name string, c Condition) error {
	info, err := d.fs.Stat(d.path(name))
	if err != nil && !isAbsent(err) {
		return err
	}
	exists := err == nil
	if exists && info.IsDir {
		return fmt.Errorf("the name is a directory of other objects: %w", ErrUnsupported)
	}
	if want, ok := c.Match(); ok {
		if !exists {
			return ErrPrecondition
		}
		_, a, err := d.describe(name, false)
		if err != nil {
			return err
		}
		if a.Version != want {
			return ErrPrecondition
		}
	}
	if c.Absent() && exists {
		return ErrPrecondition
	}
	return nil
}

// describe returns the attributes of an object and, if asked for or at hand, its bytes. Without a lock another process may
// replace the object meanwhile; the answer is that of one version.
func (d *Directory) describe(name string, whole bool) ([]byte, Attributes, error) {
	for range maxDescribe {
		before, err := d.fs.Stat(d.path(name))
		if err != nil {
			return nil, Attributes{}, err
		}
		if before.IsDir {
			return nil, Attributes{}, ErrNotFound
		}
		p, a, err := d.read(name, before.Modified, whole)
		if err != nil {
			return nil, Attributes{}, err
		}
		after, err := d.fs.Stat(d.path(name))
		if err != nil {
			return nil, Attributes{}, err
		}
		if after == before && after.Size == a.Size {
			return p, a, nil
		}
	}
	return nil, Attributes{}, fmt.Errorf("replaced %d times while it was being read: %w", maxDescribe, ErrConflict)
}

// read opens the object and reads what its version is made of.
func (d *Directory) read(name string, modified time.Time, whole bool) ([]byte, Attributes, error) {
	f, err := d.fs.Open(d.path(name))
	if err != nil {
		return nil, Attributes{}, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, Attributes{}, err
	}
	a := Attributes{Name: name, Size: size, Modified: modified}
	if whole && size > MaxGet {
		return nil, a, fmt.Errorf("%d bytes: %w", size, ErrTooLarge)
	}
	var p []byte
	if whole || size <= hashedSize {
		p = make([]byte, size)
		if n, err := f.ReadAt(p, 0); n < len(p) {
			return nil, a, noEOF(err)
		}
	}
	sum := sha256.New()
	if size <= hashedSize {
		sum.Write(p)
	} else if err := hashEdges(sum, f, size, modified); err != nil {
		return nil, a, err
	}
	a.Version = versionOf(sum)
	return p, a, nil
}

func hashEdges(sum hash.Hash, f vfs.File, size int64, modified time.Time) error {
	edge := make([]byte, edgeSize)
	for _, position := range []int64{0, size - edgeSize} {
		if n, err := f.ReadAt(edge, position); n < len(edge) {
			return noEOF(err)
		}
		sum.Write(edge)
	}
	stamp := binary.BigEndian.AppendUint64(nil, uint64(size))
	sum.Write(binary.BigEndian.AppendUint64(stamp, uint64(modified.UnixNano())))
	return nil
}

func versionOf(sum hash.Hash) Version { return Version(hex.EncodeToString(sum.Sum(nil)[:16])) }

// Delete implements Store. The names of one directory share one fsync.
func (d *Directory) Delete(ctx context.Context, names ...string) error {
	removed := map[string][]string{}
	var left []string
	var first error
	fail := func(err error, names ...string) {
		left = append(left, names...)
		if first == nil {
			first = failed("delete", names[0], ErrUnavailable, err)
		}
	}
	for _, name := range names {
		gone, err := d.remove(ctx, name)
		switch {
		case err != nil:
			fail(err, name)
		case gone:
			removed[parentOf(name)] = append(removed[parentOf(name)], name)
		}
	}
	for dir, names := range removed {
		if err := d.fs.SyncDir(d.path(dir)); err != nil {
			fail(err, names...)
		}
	}
	if first == nil {
		return nil
	}
	slices.Sort(left)
	return &DeleteError{Names: left, Err: first}
}

// remove unlinks one object and reports whether it was there.
func (d *Directory) remove(ctx context.Context, name string) (bool, error) {
	if err := ctx.Err(); err != nil {
		return false, err
	}
	if CheckName(name) != nil {
		return false, nil // no object has such a name
	}
	unlock, err := d.lock(ctx, name)
	if err != nil {
		return false, err
	}
	defer unlock()
	info, err := d.fs.Stat(d.path(name))
	if err == nil && !info.IsDir {
		err = d.fs.Remove(d.path(name))
	}
	d.files.drop(name)
	if isAbsent(err) {
		return false, nil
	}
	return err == nil && !info.IsDir, err
}
