package matrix

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/e2e/harness"
)

// A commitLog is what a group's committed offsets were seen to be, and when.
type commitLog struct {
	mu   sync.Mutex
	seen map[int32][]commitSeen
	errs []error
}

type commitSeen struct {
	at     time.Time // when the answer was there
	offset int64
}

// watchCommits asks for the group's offsets until the test ends. They must never go back.
func (w *world) watchCommits(t *testing.T, group, topic string) *commitLog {
	t.Helper()
	c := &commitLog{seen: map[int32][]commitSeen{}}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	done.Go(func() {
		for ctx.Err() == nil {
			asked, stop := context.WithTimeout(ctx, 2*time.Second) // brokers are killed meanwhile
			offsets, err := w.admin.FetchOffsets(asked, group)
			stop()
			if err == nil {
				for p, o := range offsets[topic] {
					c.add(p, o.At, o.Err)
				}
			}
			harness.Pause(50 * time.Millisecond)
		}
	})
	t.Cleanup(func() { cancel(); done.Wait() })
	return c
}

func (c *commitLog) add(p int32, offset int64, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err != nil || offset < 0 {
		if len(c.seen[p]) > 0 && err == nil {
			c.errs = append(c.errs, fmt.Errorf("partition %d had a committed offset and has none", p))
		}
		return
	}
	seen := c.seen[p]
	if n := len(seen); n > 0 && offset < seen[n-1].offset {
		c.errs = append(c.errs, fmt.Errorf("the committed offset of partition %d goes back from %d to %d", p, seen[n-1].offset, offset))
	}
	c.seen[p] = append(seen, commitSeen{time.Now(), offset})
}

// before is the last offset known to be committed at a time.
func (c *commitLog) before(p int32, at time.Time) int64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	var offset int64
	for _, s := range c.seen[p] {
		if s.at.After(at) {
			break
		}
		offset = s.offset
	}
	return offset
}

func (c *commitLog) err() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return first(c.errs)
}

// awaitCommitted returns when a group has committed the end of every partition of a topic.
func (w *world) awaitCommitted(t *testing.T, group string, topic string) {
	t.Helper()
	logs := w.read(t, topic, kgo.ReadUncommitted())
	harness.Until(t, limit, group+" has committed everything", func() error {
		offsets, err := w.admin.FetchOffsets(t.Context(), group)
		if err != nil {
			return err
		}
		for p, log := range logs {
			if got := offsets[topic][p]; got.Err != nil || log.end > 0 && got.At != log.end {
				return fmt.Errorf("partition %d: %d, %v; its end is %d", p, got.At, got.Err, log.end)
			}
		}
		return nil
	})
}
