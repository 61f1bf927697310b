package object

import (
	"context"
	"fmt"
	"hash/crc32"
	"hash/maphash"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Memory is a Store in memory, for tests and simulation. Its versions are hashes of the body, as S3's are, so that code
// which forgets its nonce fails here too.
type Memory struct {
	mu sync.RWMutex
	// names is sorted and holds exactly the keys of objects.
	names   []string
	objects map[string]memoryObject
}

// memoryObject is one version of an object; body is never modified.
type memoryObject struct {
	body     []byte
	version  Version
	modified time.Time
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{objects: map[string]memoryObject{}} }

var memorySeed = maphash.MakeSeed()

// Put implements Store.
func (m *Memory) Put(ctx context.Context, name string, body Body, o PutOptions) (Version, error) {
	if err := CheckPut(name, o); err != nil {
		return "", err
	}
	p := make([]byte, body.Size())
	if n, err := body.ReadAt(p, 0); n < len(p) {
		return "", fmt.Errorf("put %s: read body at %d: %w", name, n, err)
	}
	if o.CRC32C != nil && crc32.Checksum(p, castagnoli) != *o.CRC32C {
		return "", fmt.Errorf("put %s: %w", name, ErrCorrupt)
	}
	version := Version(strconv.FormatInt(int64(len(p)), 10) + "-" + strconv.FormatUint(maphash.Bytes(memorySeed, p), 16))

	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return "", fmt.Errorf("put %s: %w: %w", name, ErrUnknown, err)
	}
	old, exists := m.objects[name]
	if want, ok := o.Condition.Match(); o.Condition.Absent() && exists || ok && (!exists || old.version != want) {
		return "", fmt.Errorf("put %s: %w", name, ErrPrecondition)
	}
	if !exists {
		if err := m.checkTreeLocked(name); err != nil {
			return "", err
		}
		at, _ := slices.BinarySearch(m.names, name)
		m.names = slices.Insert(m.names, at, name)
	}
	m.objects[name] = memoryObject{body: p, version: version, modified: time.Now()}
	return version, nil
}

// checkTreeLocked refuses a name that is a directory of another name, or lies below one.
func (m *Memory) checkTreeLocked(name string) error {
	at, _ := slices.BinarySearch(m.names, name+"/")
	clash := at < len(m.names) && strings.HasPrefix(m.names[at], name+"/")
	for i, c := range name {
		if c == '/' && !clash {
			_, clash = m.objects[name[:i]]
		}
	}
	if clash {
		return fmt.Errorf("put %s: the name is below another object's, or above: %w", name, ErrUnsupported)
	}
	return nil
}

func (m *Memory) get(ctx context.Context, op, name string) (memoryObject, error) {
	if err := ctx.Err(); err != nil {
		return memoryObject{}, fmt.Errorf("%s %s: %w: %w", op, name, ErrUnavailable, err)
	}
	m.mu.RLock()
	defer m.mu.RUnlock()
	o, ok := m.objects[name]
	if !ok {
		return o, fmt.Errorf("%s %s: %w", op, name, ErrNotFound)
	}
	return o, nil
}

// Get implements Store.
func (m *Memory) Get(ctx context.Context, name string) ([]byte, Version, error) {
	o, err := m.get(ctx, "get", name)
	if err != nil {
		return nil, "", err
	}
	if len(o.body) > MaxGet {
		return nil, "", fmt.Errorf("get %s of %d bytes: %w", name, len(o.body), ErrTooLarge)
	}
	return append(make([]byte, 0, len(o.body)), o.body...), o.version, nil
}

// ReadAt implements Store.
func (m *Memory) ReadAt(ctx context.Context, name string, p []byte, position int64) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	o, err := m.get(ctx, "read", name)
	if err != nil {
		return 0, err
	}
	if position < 0 || position >= int64(len(o.body)) {
		return 0, fmt.Errorf("read %s at %d of %d: %w", name, position, len(o.body), ErrRange)
	}
	n := copy(p, o.body[position:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

// Head implements Store.
func (m *Memory) Head(ctx context.Context, name string) (Attributes, error) {
	o, err := m.get(ctx, "head", name)
	if err != nil {
		return Attributes{}, err
	}
	return Attributes{Name: name, Size: int64(len(o.body)), Version: o.version, Modified: o.modified}, nil
}

// Delete implements Store.
func (m *Memory) Delete(ctx context.Context, names ...string) error {
	if err := ctx.Err(); err != nil && len(names) > 0 {
		return &DeleteError{Names: slices.Clone(names), Err: fmt.Errorf("%w: %w", ErrUnavailable, err)}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		if at, ok := slices.BinarySearch(m.names, name); ok {
			m.names = slices.Delete(m.names, at, at+1)
			delete(m.objects, name)
		}
	}
	return nil
}

// List implements Store.
func (m *Memory) List(ctx context.Context, prefix, after string, limit int) ([]Attributes, error) {
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("list %s: %w: %w", prefix, ErrUnavailable, err)
	}
	limit = limitOf(limit)
	m.mu.RLock()
	defer m.mu.RUnlock()
	at, _ := slices.BinarySearch(m.names, prefix)
	if after >= prefix && after != "" {
		var found bool
		if at, found = slices.BinarySearch(m.names, after); found {
			at++
		}
	}
	var list []Attributes
	for ; at < len(m.names) && len(list) < limit && strings.HasPrefix(m.names[at], prefix); at++ {
		o := m.objects[m.names[at]]
		list = append(list, Attributes{Name: m.names[at], Size: int64(len(o.body)), Version: o.version, Modified: o.modified})
	}
	return list, nil
}

// String implements Store.
func (m *Memory) String() string { return "mem://" }
