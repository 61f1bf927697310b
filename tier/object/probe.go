package object

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

const (
	// probeKeys names are raced for by probeWriters writers each, once to create and once to swap; probeParallel names at a
	// time.
	probeKeys, probeWriters, probeParallel = 20, 8, 4
	// probeCleanup bounds the removal of the probe's objects when the probe's own context has ended.
	probeCleanup = 30 * time.Second
)

// Probe tries out whether the store honours what everlog's metadata rests on: create-if-absent, compare-and-swap (stale,
// right, and on an absent name), one winner of a race, and reads, heads and listings that see the last write. It writes a
// few hundred small objects under probe/ and removes them. The error wraps ErrUnsupported and says in one sentence what the
// store did wrong; an error that does not wrap it means that the store could not be tried out.
//
// Give it the store without Retry: a repeated request is what it must not see.
func Probe(ctx context.Context, s Store) error {
	p := &prober{s: s, prefix: "probe/" + rand.Text() + "-"}
	defer p.cleanUp(ctx)
	for _, step := range []func(context.Context) error{p.creates, p.swaps, p.reads, p.races} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("probe %s: %w", s, err)
		}
	}
	return nil
}

type prober struct {
	s      Store
	prefix string

	mu    sync.Mutex
	names []string
}

func (p *prober) cleanUp(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), probeCleanup)
	defer cancel()
	// What cannot be removed stays: the verdict is more useful than this error, and the names are never used again.
	_ = p.s.Delete(ctx, p.names...)
}

// name remembers the name for cleanUp.
func (p *prober) name(format string, a ...any) string {
	name := p.prefix + fmt.Sprintf(format, a...)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.names = append(p.names, name)
	return name
}

func (p *prober) put(ctx context.Context, name, body string, c Condition) (Version, error) {
	return p.s.Put(ctx, name, Bytes([]byte(body)), PutOptions{Condition: c, NoRetry: true})
}

func lies(format string, a ...any) error {
	return fmt.Errorf("%w: %s", ErrUnsupported, fmt.Sprintf(format, a...))
}

// refused checks that a Put was answered with ErrPrecondition and changed nothing.
func (p *prober) refused(ctx context.Context, err error, what, name, body string) error {
	if err == nil {
		return lies("%s was accepted", what)
	}
	if !errors.Is(err, ErrPrecondition) {
		return fmt.Errorf("%s: %w", what, err)
	}
	return p.holds(ctx, name, body, "after "+what+" was refused")
}

func (p *prober) holds(ctx context.Context, name, body, when string) error {
	got, _, err := p.s.Get(ctx, name)
	if errors.Is(err, ErrNotFound) {
		return lies("an object was not found %s", when)
	}
	if err != nil {
		return err
	}
	if string(got) != body {
		return lies("an object held other bytes than the last accepted write %s", when)
	}
	return nil
}

func (p *prober) creates(ctx context.Context) error {
	name := p.name("create")
	if _, err := p.put(ctx, name, "one", IfAbsent()); err != nil {
		if errors.Is(err, ErrPrecondition) {
			return lies("create-if-absent of a new name was refused")
		}
		return err
	}
	if err := p.holds(ctx, name, "one", "right after it was created"); err != nil {
		return err
	}
	_, err := p.put(ctx, name, "two", IfAbsent())
	return p.refused(ctx, err, "create-if-absent of a name that exists", name, "one")
}

func (p *prober) swaps(ctx context.Context) error {
	name := p.name("swap")
	first, err := p.put(ctx, name, "one", Condition{})
	if err != nil {
		return err
	}
	second, err := p.put(ctx, name, "two", IfMatch(first))
	if errors.Is(err, ErrPrecondition) {
		return lies("a swap with the right version was refused")
	}
	if err != nil {
		return err
	}
	if second == first || second == "" {
		return lies("a swap did not change the object's version")
	}
	_, got, err := p.s.Get(ctx, name)
	if err != nil {
		return err
	}
	if got != second {
		return lies("a read gave another version than the write before it")
	}
	_, err = p.put(ctx, name, "three", IfMatch(first))
	if err := p.refused(ctx, err, "a swap with a stale version", name, "two"); err != nil {
		return err
	}
	absent := p.name("absent")
	if _, err = p.put(ctx, absent, "four", IfMatch(second)); !errors.Is(err, ErrPrecondition) {
		if err != nil {
			return fmt.Errorf("a swap of an absent name: %w", err)
		}
		return lies("a swap of an absent name was accepted")
	}
	return nil
}

func (p *prober) reads(ctx context.Context) error {
	name, body := p.name("read"), []byte("0123456789")
	if _, err := p.put(ctx, name, string(body), Condition{}); err != nil {
		return err
	}
	middle := make([]byte, 4)
	if _, err := p.s.ReadAt(ctx, name, middle, 3); err != nil && err != io.EOF {
		return err
	} else if !bytes.Equal(middle, body[3:7]) {
		return lies("a read of a range gave other bytes")
	}
	a, err := p.s.Head(ctx, name)
	if err != nil {
		return err
	}
	if a.Size != int64(len(body)) {
		return lies("head told a size of %d for an object of %d bytes", a.Size, len(body))
	}
	list, err := p.s.List(ctx, name, "", 2)
	if err != nil {
		return err
	}
	if len(list) != 1 || list[0].Name != name {
		return lies("a listing did not show an object just written")
	}
	if err := p.s.Delete(ctx, name); err != nil {
		return err
	}
	if _, _, err := p.s.Get(ctx, name); !errors.Is(err, ErrNotFound) {
		if err != nil {
			return err
		}
		return lies("an object was found right after its deletion")
	}
	return nil
}

func (p *prober) races(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(probeParallel)
	for key := range probeKeys {
		g.Go(func() error {
			name := p.name("race-%02d", key)
			v, err := p.race(ctx, name, "create", IfAbsent())
			if err != nil {
				return err
			}
			_, err = p.race(ctx, name, "swap", IfMatch(v))
			return err
		})
	}
	return g.Wait()
}

// race lets writers write one name under one condition at the same time. At most one may win, and what the object holds
// afterwards must be the winner's. Where all answers were lost or throttled, the object tells. It returns the version left.
func (p *prober) race(ctx context.Context, name, kind string, c Condition) (Version, error) {
	var answers [probeWriters]error
	var start, done sync.WaitGroup
	start.Add(1)
	for i := range answers {
		done.Go(func() {
			start.Wait()
			_, answers[i] = p.put(ctx, name, fmt.Sprintf("%s %d", kind, i), c)
		})
	}
	start.Done()
	done.Wait()

	winner, winners := -1, 0
	var undecided error
	for i, err := range answers {
		switch {
		case err == nil:
			winner, winners = i, winners+1
		case !errors.Is(err, ErrPrecondition):
			undecided = err
		}
	}
	if winners > 1 {
		return "", lies("%d of %d concurrent writers won one %s", winners, probeWriters, kind)
	}
	body, v, err := p.s.Get(ctx, name)
	if err != nil && !errors.Is(err, ErrNotFound) {
		return "", err
	}
	switch {
	case winners == 1 && string(body) != fmt.Sprintf("%s %d", kind, winner):
		return "", lies("the object held %q after writer %d won the %s", body, winner, kind)
	case winners == 0 && !bytes.HasPrefix(body, []byte(kind)):
		if undecided == nil {
			return "", lies("all of %d concurrent writers lost one %s", probeWriters, kind)
		}
		return "", fmt.Errorf("no writer of %d got an answer to one %s: %w", probeWriters, kind, undecided)
	}
	return v, nil
}
