package objecttest

import (
	"context"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/everlog/everlog/tier/object"
)

// Kind is a way in which a store fails.
type Kind int

// The faults. "Write" means Put and Delete; a kind that makes no sense for an operation is ignored there.
const (
	// None lets the operation through.
	None Kind = iota
	// Before fails the operation without any effect. A Put answers ErrUnknown, the rest ErrUnavailable.
	Before
	// After applies a write and loses the answer: Put answers ErrUnknown, Delete ErrUnavailable. Reads fail as by Before.
	After
	// Late answers a Put or Delete as After does, but applies it only when ApplyLate is called, perhaps minutes later, and
	// with its condition judged then. Late application is what finds bugs.
	Late
	// Throttle answers ErrThrottled, without effect.
	Throttle
	// Conflict answers ErrConflict to a Put, without effect.
	Conflict
	// SelfPrecondition applies a conditional Put and answers ErrPrecondition, as a hidden repetition of the request does.
	SelfPrecondition
	// Cut breaks the body off half-way: Get and ReadAt answer ErrUnavailable (ReadAt with the bytes that came), Put answers
	// ErrUnknown without effect.
	Cut
	// Corrupt flips one bit of the bytes that Get and ReadAt return, or of those a Put stores if no checksum protects them.
	Corrupt
	// Misread makes ReadAt return the object's first bytes, as a proxy does that ignores ranges.
	Misread
	// Omit leaves the last entry out of a listing, as one does that lags behind.
	Omit
	// IgnoreCondition drops the condition of a Put, as a store without preconditions does.
	IgnoreCondition
)

// Fault is what happens to one operation.
type Fault struct {
	Kind Kind
	// Err replaces the error of the kind, if not nil.
	Err error
	// Delay passes before anything else; if the context ends first, a Put answers ErrUnknown, the rest ErrUnavailable.
	Delay time.Duration
}

// Call is an operation about to happen.
type Call struct {
	// N numbers the operations of one Faulty from 0.
	N int
	// Op is put, get, read, head, delete or list.
	Op string
	// Name is the object, the prefix of a listing, or the first name of a deletion.
	Name string
	// Conditional tells a Put with a condition.
	Conditional bool
	// Size in bytes is that of a body to put or of a range to read.
	Size int64
}

// Faulty is a Store that fails as its plan says. It is safe for concurrent use. Late writes are applied by the test, not
// by a clock, so that a seed gives one history.
type Faulty struct {
	inner object.Store
	plan  func(Call) Fault

	mu   sync.Mutex
	n    int
	late []func(context.Context) error
}

// NewFaulty returns inner with the faults that plan decides on, which is called for every operation in turn and never
// concurrently. A nil plan lets everything through.
func NewFaulty(inner object.Store, plan func(Call) Fault) *Faulty {
	return &Faulty{inner: inner, plan: plan}
}

// Calls returns how many operations there were so far.
func (f *Faulty) Calls() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.n
}

// Late returns how many writes are waiting for ApplyLate.
func (f *Faulty) Late() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.late)
}

// ApplyLate applies the waiting write i (0 = the oldest), and returns what the inner store answered, which nobody else
// will learn.
func (f *Faulty) ApplyLate(ctx context.Context, i int) error {
	f.mu.Lock()
	apply := f.late[i]
	f.late = append(f.late[:i:i], f.late[i+1:]...)
	f.mu.Unlock()
	return apply(ctx)
}

// decide counts the call and waits for the fault's delay.
func (f *Faulty) decide(ctx context.Context, c Call) (Fault, error) {
	f.mu.Lock()
	c.N = f.n
	f.n++
	var fault Fault
	if f.plan != nil {
		fault = f.plan(c)
	}
	f.mu.Unlock()
	if fault.Delay > 0 {
		timer := time.NewTimer(fault.Delay)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-ctx.Done():
			return fault, fault.fail(c, ctx.Err())
		}
	}
	return fault, nil
}

// fail makes the error that the fault answers to the call.
func (fault Fault) fail(c Call, cause error) error {
	sentinel := object.ErrUnavailable
	switch {
	case fault.Err != nil:
		sentinel = fault.Err
	case fault.Kind == Throttle:
		sentinel = object.ErrThrottled
	case fault.Kind == Conflict:
		sentinel = object.ErrConflict
	case fault.Kind == SelfPrecondition:
		sentinel = object.ErrPrecondition
	case c.Op == "put":
		sentinel = object.ErrUnknown
	}
	if cause == nil {
		return fmt.Errorf("%s %s: injected: %w", c.Op, c.Name, sentinel)
	}
	return fmt.Errorf("%s %s: injected: %w: %w", c.Op, c.Name, sentinel, cause)
}

// Put implements object.Store.
func (f *Faulty) Put(ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
	c := Call{Op: "put", Name: name, Conditional: !o.Condition.IsZero(), Size: body.Size()}
	fault, err := f.decide(ctx, c)
	if err != nil {
		return "", err
	}
	switch fault.Kind {
	case Before, Throttle, Conflict, Cut:
		return "", fault.fail(c, nil)
	case Late:
		return "", f.putLate(c, fault, body, o)
	case Corrupt:
		if body, err = flipped(body); err != nil {
			return "", err
		}
	case IgnoreCondition:
		o.Condition = object.Condition{}
	}
	v, err := f.inner.Put(ctx, name, body, o)
	lost := fault.Kind == After || fault.Kind == SelfPrecondition && c.Conditional
	if err == nil && lost {
		return "", fault.fail(c, nil)
	}
	return v, err
}

// putLate keeps a copy of the body, which the caller may change once Put has answered.
func (f *Faulty) putLate(c Call, fault Fault, body object.Body, o object.PutOptions) error {
	p, err := readAll(body)
	if err != nil {
		return err
	}
	f.later(func(ctx context.Context) error {
		_, err := f.inner.Put(ctx, c.Name, object.Bytes(p), o)
		return err
	})
	return fault.fail(c, nil)
}

func (f *Faulty) later(apply func(context.Context) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.late = append(f.late, apply)
}

func readAll(body object.Body) ([]byte, error) {
	p := make([]byte, body.Size())
	if n, err := body.ReadAt(p, 0); n < len(p) {
		return nil, fmt.Errorf("read body at %d: %w", n, err)
	}
	return p, nil
}

func flipped(body object.Body) (object.Body, error) {
	p, err := readAll(body)
	if err != nil {
		return nil, err
	}
	flip(p)
	return object.Bytes(p), nil
}

func flip(p []byte) {
	if len(p) > 0 {
		p[len(p)/2] ^= 0x10
	}
}

// Get implements object.Store.
func (f *Faulty) Get(ctx context.Context, name string) ([]byte, object.Version, error) {
	c := Call{Op: "get", Name: name}
	fault, err := f.decide(ctx, c)
	if err != nil {
		return nil, "", err
	}
	switch fault.Kind {
	case Before, After, Throttle, Cut:
		return nil, "", fault.fail(c, nil)
	}
	p, v, err := f.inner.Get(ctx, name)
	if fault.Kind == Corrupt {
		flip(p)
	}
	return p, v, err
}

// ReadAt implements object.Store.
func (f *Faulty) ReadAt(ctx context.Context, name string, p []byte, position int64) (int, error) {
	c := Call{Op: "read", Name: name, Size: int64(len(p))}
	fault, err := f.decide(ctx, c)
	if err != nil {
		return 0, err
	}
	switch fault.Kind {
	case Before, After, Throttle:
		return 0, fault.fail(c, nil)
	case Cut:
		n, err := f.inner.ReadAt(ctx, name, p[:len(p)/2], position)
		if err != nil && err != io.EOF {
			return n, err
		}
		return n, fault.fail(c, nil)
	case Misread:
		position = 0
	}
	n, err := f.inner.ReadAt(ctx, name, p, position)
	if fault.Kind == Corrupt {
		flip(p[:n])
	}
	return n, err
}

// Head implements object.Store.
func (f *Faulty) Head(ctx context.Context, name string) (object.Attributes, error) {
	c := Call{Op: "head", Name: name}
	fault, err := f.decide(ctx, c)
	if err != nil {
		return object.Attributes{}, err
	}
	switch fault.Kind {
	case Before, After, Throttle:
		return object.Attributes{}, fault.fail(c, nil)
	}
	return f.inner.Head(ctx, name)
}

// Delete implements object.Store. A fault leaves all names or, with Cut, the second half of them.
func (f *Faulty) Delete(ctx context.Context, names ...string) error {
	if len(names) == 0 {
		return nil
	}
	c := Call{Op: "delete", Name: names[0]}
	names = append([]string(nil), names...)
	fault, err := f.decide(ctx, c)
	if err != nil {
		return &object.DeleteError{Names: names, Err: err}
	}
	failed := &object.DeleteError{Names: names, Err: fault.fail(c, nil)}
	switch fault.Kind {
	case Before, Throttle:
		return failed
	case Late:
		f.later(func(ctx context.Context) error { return f.inner.Delete(ctx, names...) })
		return failed
	case Cut:
		half := len(names) / 2
		failed.Names = names[half:]
		names = names[:half]
	}
	if err := f.inner.Delete(ctx, names...); err != nil {
		return err
	}
	if fault.Kind == After || fault.Kind == Cut {
		return failed
	}
	return nil
}

// List implements object.Store.
func (f *Faulty) List(ctx context.Context, prefix, after string, limit int) ([]object.Attributes, error) {
	c := Call{Op: "list", Name: prefix}
	fault, err := f.decide(ctx, c)
	if err != nil {
		return nil, err
	}
	switch fault.Kind {
	case Before, After, Throttle, Cut:
		return nil, fault.fail(c, nil)
	}
	list, err := f.inner.List(ctx, prefix, after, limit)
	if fault.Kind == Omit && len(list) > 0 {
		list = list[:len(list)-1]
	}
	return list, err
}

// String implements object.Store.
func (f *Faulty) String() string { return f.inner.String() }
