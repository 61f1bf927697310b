package object_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
)

// faults makes a Retry over a memory store that fails its operations in the given order, then works.
func faults(o object.RetryOptions, kinds ...objecttest.Kind) (*object.Memory, *objecttest.Faulty, object.Store) {
	m := object.NewMemory()
	f := objecttest.NewFaulty(m, func(c objecttest.Call) objecttest.Fault {
		if c.N < len(kinds) {
			return objecttest.Fault{Kind: kinds[c.N]}
		}
		return objecttest.Fault{}
	})
	if o.Sleep == nil {
		o.Sleep = func(context.Context, time.Duration) error { return nil }
	}
	return m, f, object.Retry(f, o)
}

const (
	before, after, late   = objecttest.Before, objecttest.After, objecttest.Late
	throttle, conflict    = objecttest.Throttle, objecttest.Conflict
	self, cut, none, omit = objecttest.SelfPrecondition, objecttest.Cut, objecttest.None, objecttest.Omit
)

// The table is the contract of Retry for writes: what may be called precondition failed, and what must stay unknown.
func TestRetryPut(t *testing.T) {
	absent, always := object.IfAbsent(), object.Condition{}
	for _, c := range []struct {
		what      string
		condition object.Condition
		noRetry   bool
		faults    []objecttest.Kind
		calls     int
		want      error
	}{
		{"works at once", absent, false, nil, 1, nil},
		{"works in the end", absent, false, []objecttest.Kind{before, throttle, conflict, before}, 5, nil},
		{"gives up", absent, false, []objecttest.Kind{before, before, before, before, before}, 5, object.ErrUnknown},
		{"lost answer, then refused by its own success", absent, false, []objecttest.Kind{after}, 2, object.ErrUnknown},
		{"the same without a condition", always, false, []objecttest.Kind{after}, 2, nil},
		{"refused at the first attempt", absent, false, []objecttest.Kind{self}, 1, object.ErrPrecondition},
		{"one attempt only", absent, true, []objecttest.Kind{before}, 1, object.ErrUnknown},
		{"one attempt only, applied", absent, true, []objecttest.Kind{after}, 1, object.ErrUnknown},
		{"late, then refused or not", absent, false, []objecttest.Kind{late}, 2, nil},
	} {
		_, f, s := faults(object.RetryOptions{}, c.faults...)
		_, err := s.Put(t.Context(), "o", object.Bytes([]byte("x")), object.PutOptions{Condition: c.condition, NoRetry: c.noRetry})
		if !errors.Is(err, c.want) || f.Calls() != c.calls {
			t.Errorf("%s: %v after %d calls, want %v after %d", c.what, err, f.Calls(), c.want, c.calls)
		}
		if c.want == object.ErrUnknown && errors.Is(err, object.ErrPrecondition) {
			t.Errorf("%s: %v passes for a decided answer", c.what, err)
		}
	}
}

func TestRetryReads(t *testing.T) {
	put := func(m *object.Memory) {
		if _, err := m.Put(t.Context(), "o", object.Bytes([]byte("0123456789")), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	for name, op := range map[string]func(object.Store) (string, error){
		"get": func(s object.Store) (string, error) { p, _, err := s.Get(t.Context(), "o"); return string(p), err },
		"head": func(s object.Store) (string, error) {
			a, err := s.Head(t.Context(), "o")
			return fmt.Sprint(a.Size), err
		},
		"list": func(s object.Store) (string, error) {
			l, err := s.List(t.Context(), "", "", 0)
			return fmt.Sprint(len(l)), err
		},
		"read": func(s object.Store) (string, error) {
			p := make([]byte, 20)
			n, err := s.ReadAt(t.Context(), "o", p, 4)
			if err != io.EOF {
				return "", err
			}
			return string(p[:n]), nil
		},
	} {
		want := map[string]string{"get": "0123456789", "head": "10", "list": "1", "read": "456789"}[name]
		m, f, s := faults(object.RetryOptions{}, before, throttle, before)
		put(m)
		if got, err := op(s); err != nil || got != want || f.Calls() != 4 {
			t.Errorf("%s: %q, %v after %d calls; want %q after 4", name, got, err, f.Calls(), want)
		}
		m, f, s = faults(object.RetryOptions{Attempts: 2}, before, before, before)
		put(m)
		if _, err := op(s); !errors.Is(err, object.ErrUnavailable) || f.Calls() != 2 {
			t.Errorf("%s: %v after %d calls, want ErrUnavailable after 2", name, err, f.Calls())
		}
	}
	m, f, s := faults(object.RetryOptions{}, cut)
	put(m)
	p := make([]byte, 6)
	if n, err := s.ReadAt(t.Context(), "o", p, 2); n != 6 || err != nil || string(p) != "234567" {
		t.Errorf("a read cut once: %q, %v", p[:n], err)
	}
	if _, _, err := s.Get(t.Context(), "absent"); !errors.Is(err, object.ErrNotFound) || f.Calls() != 3 {
		t.Errorf("get of an absent object: %v after %d calls; it must not be repeated", err, f.Calls()-2)
	}
}

// Only the names that are left are deleted again.
func TestRetryDelete(t *testing.T) {
	m, f, s := faults(object.RetryOptions{}, cut, before)
	for _, name := range []string{"a", "b", "c"} {
		if _, err := m.Put(t.Context(), name, object.Bytes(nil), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Delete(t.Context(), "a", "b", "c"); err != nil || f.Calls() != 3 {
		t.Fatalf("%v after %d calls", err, f.Calls())
	}
	if left, err := m.List(t.Context(), "", "", 0); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
	_, _, s = faults(object.RetryOptions{Attempts: 1}, cut)
	var partial *object.DeleteError
	if err := s.Delete(t.Context(), "a", "b", "c"); !errors.As(err, &partial) || !slices.Equal(partial.Names, []string{"b", "c"}) {
		t.Errorf("delete answered %v, want a DeleteError that names b and c", err)
	}
}

// The waits grow to their limit, are random in their upper half, and are longer after SlowDown.
func TestRetryWaits(t *testing.T) {
	var waits []time.Duration
	o := object.RetryOptions{Attempts: 8, Base: 100 * time.Millisecond, Max: time.Second, Sleep: func(_ context.Context, d time.Duration) error {
		waits = append(waits, d)
		return nil
	}}
	_, _, s := faults(o, before, before, before, before, before, before, throttle)
	if _, err := s.List(t.Context(), "", "", 0); err != nil {
		t.Fatal(err)
	}
	longest := []time.Duration{100, 200, 400, 800, 1000, 1000, 4000}
	if len(waits) != len(longest) {
		t.Fatalf("%d waits, want %d", len(waits), len(longest))
	}
	for i, d := range waits {
		if top := longest[i] * time.Millisecond; d < top/2 || d > top {
			t.Errorf("wait %d was %v, want %v to %v", i, d, top/2, top)
		}
	}
}

// An attempt that hangs is given up after Timeout and the time for its bytes, and the caller's context still rules.
func TestRetryTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hang := objecttest.NewFaulty(object.NewMemory(), func(c objecttest.Call) objecttest.Fault {
			if c.N == 0 {
				return objecttest.Fault{Delay: time.Hour}
			}
			return objecttest.Fault{}
		})
		s := object.Retry(hang, object.RetryOptions{Timeout: 10 * time.Second, MinRate: 1 << 20, Base: time.Nanosecond, Max: time.Nanosecond})
		start := time.Now()
		if _, err := s.Put(t.Context(), "o", object.Bytes(make([]byte, 5<<20)), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(start).Round(time.Second); took != 15*time.Second {
			t.Errorf("the attempt was given up after %v, want 10 s + 5 MiB / 1 MiB/s", took)
		}
		always := object.Retry(objecttest.NewFaulty(object.NewMemory(), func(objecttest.Call) objecttest.Fault {
			return objecttest.Fault{Delay: time.Hour}
		}), object.RetryOptions{})
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		start = time.Now()
		if _, _, err := always.Get(ctx, "o"); !errors.Is(err, context.DeadlineExceeded) || time.Since(start) != time.Second {
			t.Errorf("get answered %v after %v", err, time.Since(start))
		}
	})
}

func TestObserve(t *testing.T) {
	var seen []string
	f := objecttest.NewFaulty(object.NewMemory(), func(c objecttest.Call) objecttest.Fault {
		return objecttest.Fault{Kind: []objecttest.Kind{none, none, none, none, before, none, none}[c.N], Delay: 0}
	})
	s := object.Observe(f, func(op string, bytes int64, took time.Duration, err error) {
		if took < 0 {
			t.Errorf("%s took %v", op, took)
		}
		seen = append(seen, fmt.Sprintf("%s %d %v", op, bytes, err != nil))
	})
	s.Put(t.Context(), "o", object.Bytes([]byte("12345")), object.PutOptions{})
	s.Get(t.Context(), "o")
	s.ReadAt(t.Context(), "o", make([]byte, 10), 2)
	s.Head(t.Context(), "o")
	s.List(t.Context(), "", "", 0)
	s.List(t.Context(), "", "", 0)
	s.Delete(t.Context(), "o")
	want := []string{"put 5 false", "get 5 false", "read 3 false", "head 0 false", "list 0 true", "list 0 false", "delete 0 false"}
	if !slices.Equal(seen, want) {
		t.Errorf("observed %q, want %q", seen, want)
	}
}

func TestPrefix(t *testing.T) {
	m := object.NewMemory()
	if object.Prefix(m, "//") != object.Store(m) {
		t.Error("an empty prefix makes another store")
	}
	s := object.Prefix(objecttest.NewFaulty(m, func(c objecttest.Call) objecttest.Fault {
		if c.Op == "delete" {
			return objecttest.Fault{Kind: cut}
		}
		return objecttest.Fault{}
	}), "/a/b/")
	if got := s.String(); got != "mem:/a/b" && got != "mem://a/b" {
		t.Errorf("the store calls itself %s", got)
	}
	if _, err := s.Put(t.Context(), "c", object.Bytes(nil), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if _, err := m.Head(t.Context(), "a/b/c"); err != nil {
		t.Error(err)
	}
	if a, err := s.Head(t.Context(), "c"); err != nil || a.Name != "c" {
		t.Errorf("head: %+v, %v", a, err)
	}
	var partial *object.DeleteError
	if err := s.Delete(t.Context(), "x", "c"); !errors.As(err, &partial) || !slices.Equal(partial.Names, []string{"c"}) {
		t.Errorf("delete answered %v, want a DeleteError that names c", err)
	}
}

// The interface permits names that stores with directories cannot hold together; ours say so.
func TestNameBelowAnObject(t *testing.T) {
	for _, s := range []object.Store{object.NewMemory(), openMem(t, newMem())} {
		for _, name := range []string{"a/b", "x/y/z"} {
			if _, err := s.Put(t.Context(), name, object.Bytes([]byte(name)), object.PutOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"a", "a/b/c", "a/b/c/d", "x", "x/y", "x/y/z/1"} {
			if _, err := s.Put(t.Context(), name, object.Bytes(nil), object.PutOptions{}); !errors.Is(err, object.ErrUnsupported) {
				t.Errorf("%s: put %s answered %v, want ErrUnsupported", s, name, err)
			}
		}
		if list, err := s.List(t.Context(), "", "", 0); err != nil || len(list) != 2 {
			t.Errorf("%s: list: %v, %v", s, list, err)
		}
	}
}
