package object_test

import (
	"context"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everlog/everlog/tier/object"
)

// uplink takes so many bytes a second of a body, up to stall, and then none.
type uplink struct {
	object.Store
	rate, stall int64
	attempts    int
}

func (u *uplink) Put(ctx context.Context, _ string, body object.Body, _ object.PutOptions) (object.Version, error) {
	u.attempts++
	buf := make([]byte, 64<<10)
	for position := int64(0); position < body.Size(); position += int64(len(buf)) {
		wait := time.Duration(len(buf)) * time.Second / time.Duration(u.rate)
		if u.stall > 0 && position >= u.stall {
			wait = time.Hour
		}
		if _, err := body.ReadAt(buf, position); err != nil {
			return "", err
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return "", fmt.Errorf("%w: %w", object.ErrUnknown, context.Cause(ctx))
		}
	}
	return "v", nil
}

// zeros is a Body of so many bytes.
type zeros int64

func (z zeros) Size() int64                           { return int64(z) }
func (z zeros) ReadAt(p []byte, _ int64) (int, error) { return len(p), nil }

// An upload that goes on is let go on, however slow the link is; one that stands still is not.
func TestRetryOnASlowUplink(t *testing.T) {
	for _, c := range []struct {
		rate, stall int64
		attempts    int
		ok          bool
	}{{1 << 20, 0, 1, true}, {100 << 10, 0, 1, true}, {10 << 10, 0, 1, true}, {1 << 20, 8 << 20, 5, false}} {
		synctest.Test(t, func(t *testing.T) {
			u := &uplink{rate: c.rate, stall: c.stall}
			_, err := object.Retry(u, object.RetryOptions{}).Put(t.Context(), "o", zeros(128<<20), object.PutOptions{})
			if (err == nil) != c.ok || u.attempts != c.attempts {
				t.Errorf("%+v: %d attempts, %v", c, u.attempts, err)
			}
		})
	}
}
