package objecttest_test

import (
	"context"
	"errors"
	"runtime"
	"sync"
	"testing"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
)

// broken is a memory store with one lie in it.
type broken struct {
	object.Store
	put    func(s object.Store, ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error)
	get    func(s object.Store, ctx context.Context, name string) ([]byte, object.Version, error)
	read   func(s object.Store, ctx context.Context, name string, p []byte, position int64) (int, error)
	remove func(s object.Store, ctx context.Context, names ...string) error
	list   func(s object.Store, ctx context.Context, prefix, after string, limit int) ([]object.Attributes, error)
}

func (b *broken) Put(ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
	if b.put == nil {
		return b.Store.Put(ctx, name, body, o)
	}
	return b.put(b.Store, ctx, name, body, o)
}

func (b *broken) Get(ctx context.Context, name string) ([]byte, object.Version, error) {
	if b.get == nil {
		return b.Store.Get(ctx, name)
	}
	return b.get(b.Store, ctx, name)
}

func (b *broken) ReadAt(ctx context.Context, name string, p []byte, position int64) (int, error) {
	if b.read == nil {
		return b.Store.ReadAt(ctx, name, p, position)
	}
	return b.read(b.Store, ctx, name, p, position)
}

func (b *broken) Delete(ctx context.Context, names ...string) error {
	if b.remove == nil {
		return b.Store.Delete(ctx, names...)
	}
	return b.remove(b.Store, ctx, names...)
}

func (b *broken) List(ctx context.Context, prefix, after string, limit int) ([]object.Attributes, error) {
	if b.list == nil {
		return b.Store.List(ctx, prefix, after, limit)
	}
	return b.list(b.Store, ctx, prefix, after, limit)
}

// checkThenPut judges conditions by a read and writes without one: right for one writer, wrong for two. Every so often it
// lets the others go first between the two.
func checkThenPut(absent, match bool) *broken {
	return &broken{put: func(s object.Store, ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
		want, isMatch := o.Condition.Match()
		if o.Condition.Absent() && absent || isMatch && match {
			head, err := s.Head(ctx, name)
			exists := err == nil
			if o.Condition.Absent() && exists || isMatch && head.Version != want {
				return "", object.ErrPrecondition
			}
			for range 20 {
				runtime.Gosched()
			}
			o.Condition = object.Condition{}
		}
		return s.Put(ctx, name, body, o)
	}}
}

func ignoring(ignored func(object.Condition) bool) *broken {
	return &broken{put: func(s object.Store, ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
		if ignored(o.Condition) {
			o.Condition = object.Condition{}
		}
		return s.Put(ctx, name, body, o)
	}}
}

func isMatch(c object.Condition) bool { _, ok := c.Match(); return ok }

// stale answers reads with the version before the last.
func stale() *broken {
	var mu sync.Mutex
	before := map[string][]byte{}
	b := &broken{}
	b.put = func(s object.Store, ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
		old, _, getErr := s.Get(ctx, name)
		v, err := s.Put(ctx, name, body, o)
		if err == nil && getErr == nil {
			mu.Lock()
			defer mu.Unlock()
			before[name] = old
		}
		return v, err
	}
	b.get = func(s object.Store, ctx context.Context, name string) ([]byte, object.Version, error) {
		p, v, err := s.Get(ctx, name)
		mu.Lock()
		defer mu.Unlock()
		if old := before[name]; old != nil {
			p = old
		}
		return p, v, err
	}
	return b
}

func liars() map[string]*broken {
	return map[string]*broken{
		"ignores IfAbsent":         ignoring(object.Condition.Absent),
		"ignores IfMatch":          ignoring(isMatch),
		"ignores both":             ignoring(func(object.Condition) bool { return true }),
		"races on create":          checkThenPut(true, false),
		"races on swap":            checkThenPut(false, true),
		"reads the version before": stale(),
		"knows no versions":        constantVersion(),
		"refuses every create":     refusing(object.Condition.Absent),
		"refuses every swap":       refusing(isMatch),
		"creates by IfMatch":       createsByMatch(),
		"applies what it refused":  appliesRefused(),
		"ignores the range":        ignoresRange(),
		"deletes nothing":          {remove: func(object.Store, context.Context, ...string) error { return nil }},
		"lists nothing":            {list: func(object.Store, context.Context, string, string, int) ([]object.Attributes, error) { return nil, nil }},
		"finds no object after put": {get: func(object.Store, context.Context, string) ([]byte, object.Version, error) {
			return nil, "", object.ErrNotFound
		}},
	}
}

func constantVersion() *broken {
	return &broken{put: func(s object.Store, ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
		if isMatch(o.Condition) {
			o.Condition = object.Condition{}
		}
		_, err := s.Put(ctx, name, body, o)
		return "1", err
	}}
}

func refusing(refused func(object.Condition) bool) *broken {
	return &broken{put: func(s object.Store, ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
		if refused(o.Condition) {
			return "", object.ErrPrecondition
		}
		return s.Put(ctx, name, body, o)
	}}
}

// createsByMatch is MinIO before September 2025.
func createsByMatch() *broken {
	return &broken{put: func(s object.Store, ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
		if _, err := s.Head(ctx, name); isMatch(o.Condition) && errors.Is(err, object.ErrNotFound) {
			o.Condition = object.Condition{}
		}
		return s.Put(ctx, name, body, o)
	}}
}

func appliesRefused() *broken {
	return &broken{put: func(s object.Store, ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
		v, err := s.Put(ctx, name, body, o)
		if errors.Is(err, object.ErrPrecondition) {
			s.Put(ctx, name, body, object.PutOptions{})
		}
		return v, err
	}}
}

func ignoresRange() *broken {
	return &broken{read: func(s object.Store, ctx context.Context, name string, p []byte, _ int64) (int, error) {
		return s.ReadAt(ctx, name, p, 0)
	}}
}

func TestProbeRefusesLiars(t *testing.T) {
	for name, b := range liars() {
		t.Run(name, func(t *testing.T) {
			m := object.NewMemory()
			b.Store = m
			err := object.Probe(t.Context(), b)
			if !errors.Is(err, object.ErrUnsupported) {
				t.Fatalf("the probe answered %v, want ErrUnsupported", err)
			}
			t.Log(err)
			if left, err := m.List(t.Context(), "", "", 0); err != nil || len(left) > 0 && b.remove == nil {
				t.Errorf("the probe left %v, %v", left, err)
			}
		})
	}
}

// A store that cannot be tried out gets no verdict, and a flaky one that tells the truth passes.
func TestProbeAndFaults(t *testing.T) {
	down := objecttest.NewFaulty(object.NewMemory(), func(objecttest.Call) objecttest.Fault {
		return objecttest.Fault{Kind: objecttest.Before}
	})
	if err := object.Probe(t.Context(), down); err == nil || errors.Is(err, object.ErrUnsupported) {
		t.Errorf("the probe of a store that is down answered %v", err)
	}
	flaky := objecttest.NewFaulty(object.NewMemory(), func(c objecttest.Call) objecttest.Fault {
		kinds := []objecttest.Kind{objecttest.None, objecttest.Throttle, objecttest.None, objecttest.After, objecttest.None, objecttest.Conflict}
		if c.Op == "put" && c.Conditional && c.N > 30 {
			return objecttest.Fault{Kind: kinds[c.N%len(kinds)]}
		}
		return objecttest.Fault{}
	})
	if err := object.Probe(t.Context(), flaky); err != nil {
		t.Errorf("the probe of a flaky store that tells the truth answered %v", err)
	}
}
