package compaction

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everlog/everlog/tier/object"
)

// picky is a store that refuses to delete some names, or everything, and counts requests.
type picky struct {
	*object.Memory
	mu       sync.Mutex
	refuse   map[string]bool
	down     bool
	requests int
	largest  int
}

func (p *picky) Delete(ctx context.Context, names ...string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.requests++
	p.largest = max(p.largest, len(names))
	if p.down {
		return object.ErrUnavailable
	}
	var left []string
	for _, n := range names {
		if p.refuse[n] {
			left = append(left, n)
		} else if err := p.Memory.Delete(ctx, n); err != nil {
			return err
		}
	}
	if len(left) > 0 {
		return &object.DeleteError{Names: left, Err: object.ErrDenied}
	}
	return nil
}

// made returns how many requests there were.
func (p *picky) made() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.requests
}

func TestOneRefusedNameDoesNotHoldUpTheOthers(t *testing.T) {
	store, c := &picky{Memory: object.NewMemory(), refuse: map[string]bool{"n00007": true}}, &clock{time.Unix(0, 0)}
	d := NewDeleter(store, time.Minute, c.now)
	for i := range 2500 {
		name := fmt.Sprintf("n%05d", i)
		if _, err := store.Put(t.Context(), name, object.Bytes(nil), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		d.Schedule(name)
	}
	c.at = c.at.Add(time.Minute)
	if wait := d.Step(t.Context()); wait != retryAfter {
		t.Errorf("comes again after %v", wait)
	}
	if waiting, deleted, dropped := d.Scheduled(); waiting != 1 || deleted != 2499 || dropped != 0 || store.requests != 3 || store.largest != 1000 {
		t.Errorf("%d waiting, %d deleted, %d dropped in %d requests of up to %d", waiting, deleted, dropped, store.requests, store.largest)
	}
	d.Step(t.Context())
	if store.requests != 3 {
		t.Error("tried again at once")
	}
	store.refuse = nil
	c.at = c.at.Add(retryAfter)
	d.Step(t.Context())
	if waiting, deleted, _ := d.Scheduled(); waiting != 0 || deleted != 2500 {
		t.Errorf("%d waiting, %d deleted", waiting, deleted)
	}
}

func TestQueueIsBounded(t *testing.T) {
	d := NewDeleter(object.NewMemory(), 0, nil)
	for i := range MaxScheduled + 5 {
		d.Schedule(strconv.Itoa(i))
	}
	d.Schedule("7")
	if waiting, _, dropped := d.Scheduled(); waiting != MaxScheduled || dropped != 5 {
		t.Errorf("%d waiting, %d dropped", waiting, dropped)
	}
}

func TestDeleterRuns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := &picky{Memory: object.NewMemory(), down: true}
		d := NewDeleter(store, 0, nil)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- d.Run(ctx) }()
		<-time.After(time.Hour)
		if store.made() > 0 {
			t.Errorf("%d requests without anything to delete", store.made())
		}
		d.Schedule("a", "b")
		<-time.After(DefaultGrace - time.Second)
		if store.made() > 0 {
			t.Error("deleted before the grace was over")
		}
		<-time.After(time.Hour)
		if n := store.made(); n < 4 || n > 10 {
			t.Errorf("%d attempts in an hour while the store is away", n)
		}
		store.mu.Lock()
		store.down = false
		store.mu.Unlock()
		<-time.After(retryAfter << retryDoublings)
		if waiting, deleted, _ := d.Scheduled(); waiting != 0 || deleted != 2 {
			t.Errorf("%d waiting, %d deleted", waiting, deleted)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
