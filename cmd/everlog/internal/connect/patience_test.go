package connect

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// TestPatience runs in a bubble where time only passes when all sleep.
func TestPatience(t *testing.T) {
	tests := []struct {
		name string
		do   func(ctx context.Context, p *Patience)
		want error
	}{
		{"nothing under way", func(context.Context, *Patience) { time.Sleep(time.Hour) }, nil},
		{"silence", func(_ context.Context, p *Patience) { p.Sent(); time.Sleep(12 * time.Second) }, kgo.ErrRecordTimeout},
		{"quiet before a record does not count", func(_ context.Context, p *Patience) { time.Sleep(time.Hour); p.Sent(); time.Sleep(9 * time.Second) }, nil},
		{"slow but steady", func(_ context.Context, p *Patience) {
			p.Sent()
			for range 20 {
				p.Sent()
				time.Sleep(9 * time.Second)
				p.Arrived()
			}
		}, nil},
		{"stopped", func(_ context.Context, p *Patience) { p.Stop(errors.ErrUnsupported) }, errors.ErrUnsupported},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, p := (&Flags{Timeout: 10 * time.Second}).Watch(t.Context())
				test.do(ctx, p)
				if got := context.Cause(ctx); !errors.Is(got, test.want) {
					t.Errorf("the context ended with %v, want %v", got, test.want)
				}
				p.Close()
			})
		})
	}
}
