package objecttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strconv"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/everlog/everlog/tier/object"
)

func testChecksum(s *suite) {
	body := noise{3, 10_000}.bytes()
	right := crc32.Checksum(body, castagnoli)
	wrong := right + 1
	if _, err := s.s.Put(s.ctx, "new", object.Bytes(body), object.PutOptions{CRC32C: &wrong}); !errors.Is(err, object.ErrCorrupt) {
		s.Errorf("put with a wrong checksum answered %v, want ErrCorrupt", err)
	}
	s.absent("new")
	if _, err := s.s.Put(s.ctx, "new", object.Bytes(body), object.PutOptions{CRC32C: &right}); err != nil {
		s.Fatalf("put with the right checksum: %v", err)
	}
	if _, err := s.s.Put(s.ctx, "new", object.Bytes([]byte("other")), object.PutOptions{CRC32C: &right}); !errors.Is(err, object.ErrCorrupt) {
		s.Errorf("overwrite with a wrong checksum answered %v, want ErrCorrupt", err)
	}
	s.holds("new", body)
}

func testIfAbsent(s *suite) {
	one := []byte("one")
	s.put("o", one, object.IfAbsent())
	s.refused("o", object.IfAbsent(), object.ErrPrecondition, one)
	if err := s.s.Delete(s.ctx, "o"); err != nil {
		s.Fatal(err)
	}
	s.put("o", []byte("two"), object.IfAbsent())
	s.holds("o", []byte("two"))
	s.put("empty", nil, object.IfAbsent())
	s.refused("empty", object.IfAbsent(), object.ErrPrecondition, []byte{})
}

func testIfMatch(s *suite) {
	one, two := []byte("one"), []byte("two")
	first := s.put("o", one, object.Condition{})
	second := s.put("o", two, object.IfMatch(first))
	if first == second {
		s.Fatalf("two versions are %q", first)
	}
	s.refused("o", object.IfMatch(first), object.ErrPrecondition, two)
	s.refused("o", object.IfMatch("0123456789abcdef0123456789abcdef"), object.ErrPrecondition, two)
	s.refused("o", object.IfMatch(""), object.ErrUnsupported, two)
	s.refused("absent", object.IfMatch(second), object.ErrPrecondition, nil)
	read := s.holds("o", two)
	third := s.put("o", []byte("three"), object.IfMatch(read))
	head, err := s.s.Head(s.ctx, "o")
	if err != nil || head.Version != third {
		s.Fatalf("head: %v, %v; want version %q", head, err, third)
	}
	s.put("o", []byte("four"), object.IfMatch(head.Version))
	last := s.put("o", []byte("five"), object.Condition{})
	if err := s.s.Delete(s.ctx, "o"); err != nil {
		s.Fatal(err)
	}
	s.refused("o", object.IfMatch(last), object.ErrPrecondition, nil)
}

// truncated promises more bytes than it has.
type truncated struct{ object.Body }

func (t truncated) Size() int64 { return t.Body.Size() + 1000 }

func testShortBody(s *suite) {
	s.put("o", []byte("old"), object.Condition{})
	v, err := s.s.Put(s.ctx, "o", truncated{noise{1, 1 << 20}}, object.PutOptions{NoRetry: true})
	if err == nil || err == io.EOF {
		s.Errorf("put of a body that ends early answered %q, %v; want an error", v, err)
	}
	s.holds("o", []byte("old"))
}

func testCancelled(s *suite) {
	s.put("o", []byte("x"), object.Condition{})
	ctx, cancel := context.WithCancel(s.ctx)
	cancel()
	_, errPut := s.s.Put(ctx, "new", object.Bytes([]byte("x")), object.PutOptions{})
	_, _, errGet := s.s.Get(ctx, "o")
	_, errRead := s.s.ReadAt(ctx, "o", make([]byte, 1), 0)
	_, errHead := s.s.Head(ctx, "o")
	_, errList := s.s.List(ctx, "", "", 0)
	errDelete := s.s.Delete(ctx, "o")
	for op, err := range map[string]error{"put": errPut, "get": errGet, "read": errRead, "head": errHead, "list": errList, "delete": errDelete} {
		sentinel := object.ErrUnavailable
		if op == "put" {
			sentinel = object.ErrUnknown
		}
		if !errors.Is(err, context.Canceled) || !errors.Is(err, sentinel) {
			s.Errorf("%s without time answered %v, want %v and context.Canceled", op, err, sentinel)
		}
	}
	var partial *object.DeleteError
	if !errors.As(errDelete, &partial) || !slices.Equal(partial.Names, []string{"o"}) {
		s.Errorf("delete answered %#v, want a DeleteError that names o", errDelete)
	}
	s.holds("o", []byte("x"))
	s.absent("new")
}

func testDelete(s *suite) {
	var names []string
	for i := range 5 {
		names = append(names, fmt.Sprintf("d%d/o", i%2)+strconv.Itoa(i))
		s.put(names[i], []byte("x"), object.Condition{})
	}
	s.put("d0/kept", []byte("kept"), object.Condition{})
	if err := s.s.Delete(s.ctx); err != nil {
		s.Errorf("delete of nothing: %v", err)
	}
	if err := s.s.Delete(s.ctx, "absent", "no/such/dir"); err != nil {
		s.Errorf("delete of absent names: %v", err)
	}
	// A cached answer or file must not outlive the object.
	if _, err := s.s.ReadAt(s.ctx, names[0], make([]byte, 1), 0); err != nil {
		s.Error(err)
	}
	if err := s.s.Delete(s.ctx, append(names, "absent")...); err != nil {
		s.Fatal(err)
	}
	for _, name := range names {
		s.absent(name)
	}
	if _, err := s.s.ReadAt(s.ctx, names[0], make([]byte, 1), 0); !errors.Is(err, object.ErrNotFound) {
		s.Errorf("read of a deleted object answered %v, want ErrNotFound", err)
	}
	s.holds("d0/kept", []byte("kept"))
}

func testRaceCreate(s *suite) {
	for key := range 10 {
		name := fmt.Sprintf("race/%d", key)
		var won atomic.Int32
		winner := make(chan string, 8)
		g, ctx := errgroup.WithContext(s.ctx)
		for i := range 8 {
			g.Go(func() error {
				body := fmt.Sprintf("writer %d", i)
				_, err := s.s.Put(ctx, name, object.Bytes([]byte(body)), object.PutOptions{Condition: object.IfAbsent()})
				if err == nil {
					won.Add(1)
					winner <- body
				} else if !undecided(err) && !errors.Is(err, object.ErrPrecondition) {
					return err
				}
				return nil
			})
		}
		if err := g.Wait(); err != nil {
			s.Fatal(err)
		}
		if won.Load() > 1 {
			s.Fatalf("%d writers created one object", won.Load())
		}
		if won.Load() == 1 {
			s.holds(name, []byte(<-winner))
		}
	}
}

// undecided are the answers to a conditional Put that say nothing of its outcome.
func undecided(err error) bool {
	return errors.Is(err, object.ErrUnknown) || errors.Is(err, object.ErrThrottled) || errors.Is(err, object.ErrConflict)
}

// testCounter increments one number by compare-and-swap from several goroutines. Each value carries its writer, so that a
// writer without an answer can read back what became of its increment.
func testCounter(s *suite) {
	const writers, each = 4, 15
	s.put("counter", []byte("0 none"), object.Condition{})
	g, ctx := errgroup.WithContext(s.ctx)
	for w := range writers {
		g.Go(func() error {
			for i := 0; i < each; {
				done, err := increment(ctx, s.s, fmt.Sprintf("writer-%d-%d", w, i))
				if err != nil {
					return err
				}
				if done {
					i++
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		s.Fatal(err)
	}
	got, _, err := s.s.Get(s.ctx, "counter")
	if err != nil {
		s.Fatal(err)
	}
	var value int
	if _, err := fmt.Sscan(string(got), &value); err != nil || value != writers*each {
		s.Errorf("the counter stands at %q, %v; want %d", got, err, writers*each)
	}
}

func increment(ctx context.Context, store object.Store, nonce string) (bool, error) {
	p, v, err := store.Get(ctx, "counter")
	if err != nil {
		return false, err
	}
	var value int
	if _, err := fmt.Sscan(string(p), &value); err != nil {
		return false, err
	}
	next := object.Bytes(fmt.Appendf(nil, "%d %s", value+1, nonce))
	_, err = store.Put(ctx, "counter", next, object.PutOptions{Condition: object.IfMatch(v)})
	switch {
	case err == nil:
		return true, nil
	case errors.Is(err, object.ErrPrecondition), errors.Is(err, object.ErrThrottled), errors.Is(err, object.ErrConflict):
		return false, nil
	}
	return false, err
}

// testWholeObjects replaces an object while others read it: no reader may see a mixture.
func testWholeObjects(s *suite) {
	const size = 256 << 10
	uniform := func(c byte) []byte { return bytes.Repeat([]byte{c}, size) }
	s.put("o", uniform('a'), object.Condition{})
	g, ctx := errgroup.WithContext(s.ctx)
	var stop atomic.Bool
	check := func(p []byte, err error) error {
		if err == nil && (len(p) != size || bytes.Count(p, p[:1]) != size) {
			return fmt.Errorf("a reader saw %d bytes of more than one version", len(p))
		}
		return err
	}
	for range 2 {
		g.Go(func() error {
			for !stop.Load() {
				p, _, err := s.s.Get(ctx, "o")
				if err := check(p, err); err != nil {
					return err
				}
			}
			return nil
		})
		g.Go(func() error {
			p := make([]byte, size)
			for !stop.Load() {
				_, err := s.s.ReadAt(ctx, "o", p, 0)
				if err := check(p, err); err != nil {
					return err
				}
			}
			return nil
		})
	}
	g.Go(func() error {
		defer stop.Store(true)
		for i := range 30 {
			if _, err := s.s.Put(ctx, "o", object.Bytes(uniform('b'+byte(i%20))), object.PutOptions{}); err != nil {
				return err
			}
		}
		return nil
	})
	if err := g.Wait(); err != nil {
		s.Error(err)
	}
}

func testLarge(s *suite) {
	body := noise{42, LargeSize}
	crc := crc32.New(castagnoli)
	if _, err := io.Copy(crc, io.NewSectionReader(body, 0, body.size)); err != nil {
		s.Fatal(err)
	}
	right, wrong := crc.Sum32(), crc.Sum32()+1
	_, err := s.s.Put(s.ctx, "large", body, object.PutOptions{CRC32C: &wrong})
	if !errors.Is(err, object.ErrCorrupt) {
		s.Fatalf("put with a wrong checksum answered %v, want ErrCorrupt", err)
	}
	s.absent("large")
	v, err := s.s.Put(s.ctx, "large", body, object.PutOptions{CRC32C: &right, Condition: object.IfAbsent()})
	if err != nil {
		s.Fatal(err)
	}
	head, err := s.s.Head(s.ctx, "large")
	if err != nil || head.Size != LargeSize || head.Version != v {
		s.Fatalf("head: %+v, %v; want %d bytes of version %q", head, err, int64(LargeSize), v)
	}
	s.readsAs("large", body)
	if _, _, err := s.s.Get(s.ctx, "large"); !errors.Is(err, object.ErrTooLarge) {
		s.Errorf("get of %d bytes answered %v, want ErrTooLarge", int64(LargeSize), err)
	}
	other := noise{43, LargeSize}
	if _, err := s.s.Put(s.ctx, "large", other, object.PutOptions{Condition: object.IfAbsent()}); !errors.Is(err, object.ErrPrecondition) {
		s.Fatalf("a second create answered %v, want ErrPrecondition", err)
	}
	s.readsAs("large", body)
	next, err := s.s.Put(s.ctx, "large", other, object.PutOptions{Condition: object.IfMatch(v)})
	if err != nil || next == v {
		s.Fatalf("swap: version %q, %v; was %q", next, err, v)
	}
	s.readsAs("large", other)
	if _, err := s.s.Put(s.ctx, "large", body, object.PutOptions{Condition: object.IfMatch(v)}); !errors.Is(err, object.ErrPrecondition) {
		s.Fatalf("a stale swap answered %v, want ErrPrecondition", err)
	}
	s.readsAs("large", other)
}

// readsAs compares the ends of an object and the places where parts may meet.
func (s *suite) readsAs(name string, want noise) {
	s.Helper()
	got, expected := make([]byte, 4096), make([]byte, 4096)
	for _, position := range []int64{0, 5<<20 - 100, 16<<20 - 100, 48<<20 - 2000, 64<<20 - 100, want.size - 4096} {
		if _, err := s.s.ReadAt(s.ctx, name, got, position); err != nil {
			s.Fatalf("read %s at %d: %v", name, position, err)
		}
		want.ReadAt(expected, position)
		if !bytes.Equal(got, expected) {
			s.Fatalf("read %s at %d: other bytes", name, position)
		}
	}
}
