package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/everlog/everlog/tier/object"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// packed is a Layout over one object. A block with shrink > 1 is stored as its first 1/shrink, and decodes to that repeated.
type packed struct {
	name   string
	blocks []packedBlock
}

type packedBlock struct {
	position    int64
	stored      int
	raw         []byte
	storedCheck uint32
}

var errDamaged = errors.New("damaged")

func (p *packed) Object() string { return p.name }

func (p *packed) Block(i int) (int64, int, int) {
	b := p.blocks[i]
	return b.position, b.stored, len(b.raw)
}

func (p *packed) Decode(i int, dst, stored []byte) ([]byte, error) {
	b := p.blocks[i]
	if crc32.ChecksumIEEE(stored) != b.storedCheck {
		return nil, errDamaged
	}
	if len(stored) == len(b.raw) {
		return stored, nil
	}
	for range len(b.raw) / len(stored) {
		dst = append(dst, stored...)
	}
	return dst, nil
}

// pack puts an object of n blocks of size raw bytes into the store; every third is stored at a quarter if mixed.
func pack(t testing.TB, store object.Store, name string, n, size int, mixed bool) *packed {
	t.Helper()
	rng := rand.New(rand.NewSource(int64(crc32.ChecksumIEEE([]byte(name)))))
	p := &packed{name: name}
	all := []byte("header")
	for i := range n {
		stored := make([]byte, size)
		shrink := 1
		if mixed && i%3 == 0 {
			shrink = 4
		}
		stored = stored[:size/shrink]
		rng.Read(stored)
		p.blocks = append(p.blocks, packedBlock{
			position: int64(len(all)), stored: len(stored), raw: bytes.Repeat(stored, shrink), storedCheck: crc32.ChecksumIEEE(stored),
		})
		all = append(all, stored...)
	}
	if _, err := store.Put(t.Context(), name, object.Bytes(all), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	return p
}

// gate is a store whose reads wait for permission, one each.
type gate struct {
	object.Store
	arrived chan string // "name@position" of each read
	permit  chan struct{}
}

func newGate(s object.Store) *gate {
	return &gate{Store: s, arrived: make(chan string, 1000), permit: make(chan struct{}, 1000)}
}

func (g *gate) ReadAt(ctx context.Context, name string, p []byte, position int64) (int, error) {
	g.arrived <- fmt.Sprintf("%s@%d", name, position)
	select {
	case <-g.permit:
		return g.Store.ReadAt(ctx, name, p, position)
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// clock is a time that the test moves.
type clock struct {
	mu  sync.Mutex
	now time.Time
}

func (c *clock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *clock) pass(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

func open(t testing.TB, store object.Store, o Options) *Cache {
	t.Helper()
	c := New(store, o)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

// mustGet reads [from, to) whole and holds it against what was packed.
func mustGet(t testing.TB, c *Cache, flow uint64, p *packed, from, to int) {
	t.Helper()
	blocks, release, err := c.Get(context.Background(), p, Span{Flow: flow, From: from, To: to})
	if err != nil {
		t.Fatal(err)
	}
	defer release()
	if len(blocks) != to-from {
		t.Fatalf("%d blocks came of [%d, %d)", len(blocks), from, to)
	}
	check(t, p, from, blocks)
}

func check(t testing.TB, p *packed, from int, blocks [][]byte) {
	t.Helper()
	for i, b := range blocks {
		if !bytes.Equal(b, p.blocks[from+i].raw) {
			t.Fatalf("block %d of %s has other bytes", from+i, p.name)
		}
	}
}

// settle waits until nothing is in flight.
func settle(t testing.TB, c *Cache) Stats {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for {
		s := c.Stats()
		if s.Running == 0 && s.Waiting == 0 {
			return s
		}
		if time.Now().After(deadline) {
			t.Fatalf("still in flight: %+v", s)
		}
		yield()
	}
}

// yield lets other goroutines go on.
func yield() { <-time.After(100 * time.Microsecond) }
