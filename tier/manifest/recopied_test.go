package manifest

import (
	"context"
	"testing"

	"github.com/everlog/everlog/tier/object"
)

// recopied gives objects other versions without changing their bytes, as a copy in place does on S3 with SSE-KMS, or the move of
// a bucket.
type recopied struct {
	object.Store
	suffix string
}

func (r *recopied) Put(ctx context.Context, name string, b object.Body, o object.PutOptions) (object.Version, error) {
	if v, ok := o.Condition.Match(); ok {
		n := len(v) - len(r.suffix)
		if n < 0 || string(v[n:]) != r.suffix {
			return "", object.ErrPrecondition
		}
		o.Condition = object.IfMatch(v[:n])
	}
	v, err := r.Store.Put(ctx, name, b, o)
	return v + object.Version(r.suffix), err
}

func (r *recopied) Get(ctx context.Context, name string) ([]byte, object.Version, error) {
	p, v, err := r.Store.Get(ctx, name)
	return p, v + object.Version(r.suffix), err
}

func TestVersionChangedUnderTheSameBytes(t *testing.T) {
	for _, reload := range []bool{false, true} {
		store := &recopied{Store: object.NewMemory()}
		l := claimed(t, store, 1, quick)
		if err := l.Append(bg, seg(0, 10, 1, 1, 1, 0)); err != nil {
			t.Fatal(err)
		}
		store.suffix = "-copied"
		if reload {
			if err := l.Reload(bg); err != nil {
				t.Fatal(err)
			}
		}
		var err error
		for range 3 { // one try may find out
			if err = l.Append(bg, seg(10, 20, 1, 1, 1, 1)); err == nil {
				break
			}
		}
		if err != nil {
			t.Errorf("reloaded %v: no commit is possible any more: %v", reload, err)
		}
	}
}

// Data bytes of a manifest whose first page names segments that are gone.
func TestLiveDataBytes(t *testing.T) {
	store := object.NewMemory()
	l := claimed(t, store, 1, quick)
	for i := range 12 {
		if err := l.Append(bg, seg(segBase(i), segBase(i+1), 1, 1, 1, i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 12 {
		if _, err := l.SetLogStart(bg, segBase(i)); err != nil {
			t.Fatal(err)
		}
		m, want := l.Manifest(), int64(0)
		for s, err := range m.All(bg, store) {
			if err != nil {
				t.Fatal(err)
			}
			want += s.DataSize
		}
		if got, err := m.LiveDataBytes(bg, store); err != nil || got != want {
			t.Fatalf("log start %d: %d bytes, %v; want %d", segBase(i), got, err, want)
		}
	}
}
