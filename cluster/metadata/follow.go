package metadata

import (
	"context"
	"sync"
	"time"
)

// saveInterval is the shortest time between two saves of the cache: a burst of commits is saved once.
const saveInterval = time.Second

// Follow keeps the image at the end of the log and the cache up to date, until ctx ends or something final happens
// (ErrRestored and the like), which it returns. Call it once, after Open.
func (l *Log) Follow(ctx context.Context) error {
	inner, cancel := context.WithCancel(ctx)
	var saving sync.WaitGroup
	saving.Go(func() { l.save(inner) })
	defer saving.Wait()
	defer cancel()
	next := time.Duration(0)
	if !l.Stale() {
		next = l.o.Poll
	}
	failing := false
	for {
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-l.hint:
			timer.Stop()
		case <-timer.C:
		}
		next = l.o.Poll
		_, err := l.Sync(ctx)
		if final(err) {
			return err
		}
		if (err != nil) != failing && ctx.Err() == nil {
			failing = err != nil
			if failing {
				l.o.Log.Warn("metadata cannot be followed; serving from what is known", "version", l.Image().Version, "err", err)
			} else {
				l.o.Log.Info("metadata is followed again", "version", l.Image().Version)
			}
		}
		if err != nil {
			next = min(next, maxBackoff)
		}
	}
}

// Sync reads to the end of the log and returns the image there: at least as new as any commit acknowledged before the
// call. ErrUnavailable, or a final error; the image is then the newest known.
func (l *Log) Sync(ctx context.Context) (*Image, error) {
	if err := l.lock(ctx); err != nil {
		return l.Image(), err
	}
	defer l.unlock()
	if l.pending != nil {
		bounded, cancel := context.WithTimeout(ctx, l.o.Timeout)
		err := l.settle(bounded)
		cancel()
		if err != nil {
			return l.Image(), l.fail(err)
		}
	}
	if time.Since(l.verified) >= l.o.Verify {
		l.doubt = true
	}
	err := l.tail(ctx)
	if err != nil {
		l.doubt = true
	}
	return l.Image(), l.fail(away(err))
}

// save writes each new image to the cache, coalescing those that come fast, and the last one when ctx ends.
func (l *Log) save(ctx context.Context) {
	if l.o.Cache == nil {
		return
	}
	var saved *Image
	for {
		changed := l.Watch()
		if img := l.Image(); img != saved {
			if err := l.o.Cache.Save(img.encodeSnapshot(newNonce(), time.Now())); err != nil {
				l.o.Log.Error("metadata cache cannot be written: a start without the object store would use an older one", "err", err)
				if ctx.Err() != nil {
					return
				}
			} else {
				saved = img
			}
			pause := time.NewTimer(saveInterval)
			select {
			case <-ctx.Done():
			case <-pause.C:
			}
			pause.Stop()
			continue
		}
		select {
		case <-ctx.Done():
			if l.Image() == saved {
				return
			}
		case <-changed:
		}
	}
}
