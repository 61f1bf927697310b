package objecttest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
)

// once makes a Faulty over a store that holds "o", whose next operation has the fault.
func once(t *testing.T, kind objecttest.Kind) (*object.Memory, *objecttest.Faulty) {
	m := object.NewMemory()
	if _, err := m.Put(t.Context(), "o", object.Bytes([]byte("0123456789")), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	return m, objecttest.NewFaulty(m, func(c objecttest.Call) objecttest.Fault {
		if c.N == 0 {
			return objecttest.Fault{Kind: kind}
		}
		return objecttest.Fault{}
	})
}

func content(t *testing.T, s object.Store, name string) string {
	t.Helper()
	p, _, err := s.Get(t.Context(), name)
	if errors.Is(err, object.ErrNotFound) {
		return "absent"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(p)
}

func TestFaultyPut(t *testing.T) {
	for _, c := range []struct {
		kind      objecttest.Kind
		condition object.Condition
		want      error
		holds     string
	}{
		{objecttest.None, object.IfAbsent(), nil, "body"},
		{objecttest.Before, object.IfAbsent(), object.ErrUnknown, "absent"},
		{objecttest.After, object.IfAbsent(), object.ErrUnknown, "body"},
		{objecttest.Late, object.IfAbsent(), object.ErrUnknown, "absent"},
		{objecttest.Throttle, object.IfAbsent(), object.ErrThrottled, "absent"},
		{objecttest.Conflict, object.IfAbsent(), object.ErrConflict, "absent"},
		{objecttest.SelfPrecondition, object.IfAbsent(), object.ErrPrecondition, "body"},
		{objecttest.SelfPrecondition, object.Condition{}, nil, "body"},
		{objecttest.Cut, object.IfAbsent(), object.ErrUnknown, "absent"},
		{objecttest.Corrupt, object.IfAbsent(), nil, "boty"},
		{objecttest.IgnoreCondition, object.IfMatch("stale"), nil, "body"},
		{objecttest.Misread, object.IfMatch("stale"), object.ErrPrecondition, "absent"},
	} {
		m, f := once(t, c.kind)
		body := []byte("body")
		_, err := f.Put(t.Context(), "new", object.Bytes(body), object.PutOptions{Condition: c.condition})
		if !errors.Is(err, c.want) {
			t.Errorf("kind %d: put answered %v, want %v", c.kind, err, c.want)
		}
		if got := content(t, m, "new"); got != c.holds {
			t.Errorf("kind %d: the object is %q, want %q", c.kind, got, c.holds)
		}
	}
}

// A late write carries the bytes and the condition of its time, and is judged when it lands.
func TestFaultyLate(t *testing.T) {
	m, f := once(t, objecttest.Late)
	body := []byte("late")
	if _, err := f.Put(t.Context(), "new", object.Bytes(body), object.PutOptions{Condition: object.IfAbsent()}); !errors.Is(err, object.ErrUnknown) {
		t.Fatal(err)
	}
	copy(body, "xxxx")
	if f.Late() != 1 || content(t, m, "new") != "absent" {
		t.Fatalf("%d late writes, object %q", f.Late(), content(t, m, "new"))
	}
	if err := f.ApplyLate(t.Context(), 0); err != nil || content(t, m, "new") != "late" || f.Late() != 0 {
		t.Errorf("applied late: %v, object %q, %d left", err, content(t, m, "new"), f.Late())
	}

	m, f = once(t, objecttest.Late)
	f.Put(t.Context(), "new", object.Bytes(body), object.PutOptions{Condition: object.IfAbsent()})
	f.Put(t.Context(), "new", object.Bytes([]byte("other")), object.PutOptions{Condition: object.IfAbsent()})
	if err := f.ApplyLate(t.Context(), 0); !errors.Is(err, object.ErrPrecondition) || content(t, m, "new") != "other" {
		t.Errorf("a late write whose slot was taken answered %v, object %q", err, content(t, m, "new"))
	}

	m, f = once(t, objecttest.Late)
	if err := f.Delete(t.Context(), "o"); err == nil || content(t, m, "o") == "absent" {
		t.Errorf("a late deletion answered %v, object %q", err, content(t, m, "o"))
	}
	if err := f.ApplyLate(t.Context(), 0); err != nil || content(t, m, "o") != "absent" {
		t.Errorf("applied late: %v, object %q", err, content(t, m, "o"))
	}
}

func TestFaultyReads(t *testing.T) {
	for _, c := range []struct {
		kind objecttest.Kind
		want error
		p    string
	}{
		{objecttest.None, nil, "3456"}, {objecttest.Before, object.ErrUnavailable, ""}, {objecttest.Throttle, object.ErrThrottled, ""},
		{objecttest.Cut, object.ErrUnavailable, "34"}, {objecttest.Corrupt, nil, "34%6"}, {objecttest.Misread, nil, "0123"},
	} {
		_, f := once(t, c.kind)
		p := make([]byte, 4)
		n, err := f.ReadAt(t.Context(), "o", p, 3)
		if !errors.Is(err, c.want) || string(p[:n]) != c.p {
			t.Errorf("kind %d: read %q, %v; want %q, %v", c.kind, p[:n], err, c.p, c.want)
		}
	}
	_, f := once(t, objecttest.Corrupt)
	if p, _, err := f.Get(t.Context(), "o"); err != nil || bytes.Equal(p, []byte("0123456789")) {
		t.Errorf("a corrupted get answered %q, %v", p, err)
	}
	if got := content(t, f, "o"); got != "0123456789" {
		t.Errorf("the corruption stayed: %q", got)
	}
	_, f = once(t, objecttest.Omit)
	if list, err := f.List(t.Context(), "", "", 0); err != nil || len(list) != 0 {
		t.Errorf("a lagging listing answered %v, %v", list, err)
	}
	_, f = once(t, objecttest.Before)
	if _, err := f.Head(t.Context(), "o"); !errors.Is(err, object.ErrUnavailable) {
		t.Errorf("head answered %v", err)
	}
	if f.Calls() != 1 {
		t.Errorf("%d calls counted, want 1", f.Calls())
	}
}

func TestFaultyDelete(t *testing.T) {
	for _, c := range []struct {
		kind objecttest.Kind
		left []string // named by the error
		gone []string
	}{
		{objecttest.None, nil, []string{"a", "o"}}, {objecttest.Before, []string{"o", "a"}, nil},
		{objecttest.After, []string{"o", "a"}, []string{"a", "o"}}, {objecttest.Cut, []string{"a"}, []string{"o"}},
	} {
		m, f := once(t, c.kind)
		if _, err := m.Put(t.Context(), "a", object.Bytes(nil), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		var left []string
		var partial *object.DeleteError
		if err := f.Delete(t.Context(), "o", "a"); errors.As(err, &partial) {
			left = partial.Names
		}
		var gone []string
		for _, name := range []string{"a", "o"} {
			if content(t, m, name) == "absent" {
				gone = append(gone, name)
			}
		}
		if !slices.Equal(left, c.left) || !slices.Equal(gone, c.gone) {
			t.Errorf("kind %d: delete left %q and removed %q, want %q and %q", c.kind, left, gone, c.left, c.gone)
		}
	}
}

func TestFaultyDelay(t *testing.T) {
	f := objecttest.NewFaulty(object.NewMemory(), func(objecttest.Call) objecttest.Fault {
		return objecttest.Fault{Delay: time.Hour}
	})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		_, err := f.Put(ctx, "o", object.Bytes(nil), object.PutOptions{})
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, object.ErrUnknown) || !errors.Is(err, context.Canceled) {
		t.Errorf("a delayed put answered %v", err)
	}
}

func TestFaultError(t *testing.T) {
	f := objecttest.NewFaulty(object.NewMemory(), func(objecttest.Call) objecttest.Fault {
		return objecttest.Fault{Kind: objecttest.After, Err: io.ErrNoProgress}
	})
	if _, err := f.Put(t.Context(), "o", object.Bytes(nil), object.PutOptions{}); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("put answered %v", err)
	}
}
