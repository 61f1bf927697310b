package scale

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/sync/errgroup"

	"github.com/everlog/everlog/e2e/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// sizes of a run.
type sizes struct{ groups, members, large, committers int }

func size() sizes {
	if os.Getenv("EVERLOG_E2E_SIZE") == "full" {
		return sizes{groups: 1000, members: 10, large: 1000, committers: 64}
	}
	return sizes{groups: 20, members: 5, large: 50, committers: 8}
}

// dialing bounds the connections made at once: a listen queue is short.
const dialing = 64

// load is a broker and its process's use of the machine.
type load struct {
	*harness.Broker
	t *testing.T
}

// cpu is the processor seconds that the broker has used.
func (l *load) cpu() time.Duration {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(l.Pid()), "stat"))
	if err != nil {
		l.t.Fatal(err)
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')'):]))
	ticks := 0
	for _, f := range fields[12:14] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			l.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}

// rss is the broker's resident memory in MiB.
func (l *load) rss() int {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(l.Pid()), "statm"))
	if err != nil {
		l.t.Fatal(err)
	}
	pages, err := strconv.Atoi(strings.Fields(string(text))[1])
	if err != nil {
		l.t.Fatal(err)
	}
	return pages * os.Getpagesize() >> 20
}

func start(t *testing.T) *load {
	l := &load{Broker: harness.StartBroker(t, harness.Options{Set: map[string]string{"group.initial.rebalance.delay.ms": "500"}}), t: t}
	client, err := kgo.NewClient(kgo.SeedBrokers(l.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	admin := kadm.NewClient(client)
	if _, err := admin.CreateTopic(t.Context(), 1, 1, nil, "t"); err != nil {
		t.Fatal(err)
	}
	for { // it makes the internal topic
		if found, err := admin.FetchOffsets(t.Context(), "warm"); err == nil && len(found) == 0 {
			return l
		} else if err != nil && t.Context().Err() != nil {
			t.Fatal(err)
		}
	}
}

// gather makes n members of each of the groups and has them join at once.
func (l *load) gather(groups, n int, name string) []*member {
	l.t.Helper()
	all := make([]*member, groups*n)
	var g errgroup.Group
	g.SetLimit(dialing)
	for i := range all {
		g.Go(func() error {
			c, err := dial(l.Addr())
			if err == nil {
				l.t.Cleanup(func() { _ = c.Close() })
				all[i] = &member{conn: c, group: fmt.Sprintf("%s-%d", name, i/n)}
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		l.t.Fatal(err)
	}
	return all
}

// settle has all members join until each group's generation has all its members, and returns how long that took.
func (l *load) settle(all []*member, perGroup int) time.Duration {
	l.t.Helper()
	began := time.Now()
	ctx, cancel := context.WithCancel(l.t.Context())
	defer cancel()
	complete := map[string]bool{}
	var mu sync.Mutex
	var g errgroup.Group
	for _, m := range all {
		g.Go(func() error {
			for ctx.Err() == nil {
				if err := m.join(); err != nil {
					return err
				}
				if m.leader && m.size == perGroup {
					mu.Lock()
					complete[m.group] = true
					done := len(complete)*perGroup == len(all)
					mu.Unlock()
					if done {
						cancel()
					}
				}
				if err := m.wait(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		l.t.Fatal(err)
	}
	return time.Since(began)
}

// wait sends heartbeats until the group rebalances or ctx ends.
func (m *member) wait(ctx context.Context) error {
	for {
		err := m.heartbeat()
		switch {
		case errors.Is(err, kerr.RebalanceInProgress), errors.Is(err, kerr.IllegalGeneration), errors.Is(err, kerr.UnknownMemberID):
			return nil
		case err != nil:
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(beat):
		}
	}
}

// beat is the heartbeat interval: shorter than a consumer's 3 s, so that it is the broker's time that shows.
const beat = 300 * time.Millisecond

func TestManyGroups(t *testing.T) {
	s, l := size(), start(t)
	before := l.rss()
	all := l.gather(s.groups, s.members, "many")
	took := l.settle(all, s.members)
	after := l.rss()
	t.Logf("%d groups of %d members: all stable after %.1f s; RSS %d MiB, %d before, connections included", s.groups, s.members, took.Seconds(), after, before)
	busy, began := l.cpu(), time.Now()
	var beats atomic.Int64
	var g errgroup.Group
	for _, m := range all {
		g.Go(func() error {
			for range 3 {
				if err := m.heartbeat(); err != nil {
					return err
				}
				beats.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d heartbeats at %.0f/s, %.1f us of the broker's CPU each", beats.Load(), float64(beats.Load())/time.Since(began).Seconds(), float64((l.cpu()-busy).Microseconds())/float64(beats.Load()))
	l.MustRun()
}

func TestOffsetCommits(t *testing.T) {
	s, l := size(), start(t)
	busy, began := l.cpu(), time.Now()
	var commits atomic.Int64
	var g errgroup.Group
	for i := range s.committers {
		g.Go(func() error {
			c, err := dial(l.Addr())
			if err != nil {
				return err
			}
			defer c.Close()
			for n := int64(1); time.Since(began) < 5*time.Second; n++ {
				if err := c.commit(fmt.Sprintf("commit-%d", i), n); err != nil {
					return err
				}
				commits.Add(1)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d committers: %.0f offset commits/s, each fsynced; %.0f us of the broker's CPU each; RSS %d MiB", s.committers, float64(commits.Load())/time.Since(began).Seconds(), float64((l.cpu()-busy).Microseconds())/float64(commits.Load()), l.rss())
	l.MustRun()
}

func TestLargeGroup(t *testing.T) {
	s, l := size(), start(t)
	all := l.gather(1, s.large, "large")
	t.Logf("a group of %d members: first stable after %.1f s", s.large, l.settle(all, s.large).Seconds())
	last := all[len(all)-1]
	if err := last.leave(); err != nil {
		t.Fatal(err)
	}
	t.Logf("one leaves: stable again after %.2f s (heartbeats every %s)", l.settleAgain(all[:len(all)-1]).Seconds(), beat)
	t.Logf("RSS %d MiB", l.rss())
	l.MustRun()
}

// settleAgain has the members notice a rebalance by their heartbeats, and returns the time until all are assigned again.
func (l *load) settleAgain(all []*member) time.Duration {
	l.t.Helper()
	began := time.Now()
	var g errgroup.Group
	for _, m := range all {
		g.Go(func() error {
			if err := m.wait(l.t.Context()); err != nil {
				return err
			}
			return m.join()
		})
	}
	if err := g.Wait(); err != nil {
		l.t.Fatal(err)
	}
	return time.Since(began)
}
