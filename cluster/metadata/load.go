package metadata

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/everlog/everlog/tier/object"
)

const (
	createAttempts = 4
	loadAttempts   = 5
	// fetchParallel is how many objects of the log a late reader fetches at once.
	fetchParallel = 16
	// tailDirect is how many commits a reader follows one by one before it lists.
	tailDirect = 4
)

// load brings a new Log to the newest image, starting from what was cached, if anything.
func (l *Log) load(ctx context.Context, cached *Image) error {
	l.slot <- struct{}{}
	defer l.unlock()
	origin, created, err := l.origin(ctx, cached)
	if err != nil {
		return err
	}
	if created {
		l.verified = time.Now()
		l.publish(origin)
		return nil
	}
	if cached == nil {
		return l.reload(ctx, origin)
	}
	if cached.ClusterID != origin.ClusterID {
		return fmt.Errorf("%w: it is %s, this data directory belongs to %s", ErrWrongCluster, origin.ClusterIDString(), cached.ClusterIDString())
	}
	l.image.Store(cached)
	l.doubt = true
	return l.tail(ctx)
}

// origin returns the image of version 0, creating the cluster if there is none.
func (l *Log) origin(ctx context.Context, cached *Image) (img *Image, created bool, err error) {
	var zero [16]byte
	for attempt := 0; ; attempt++ {
		_, err = l.get(ctx, clusterName, l.o.Timeout, func(p []byte) error {
			id, err := decodeCluster(p)
			img = &Image{ClusterID: id, last: sum(p)}
			return err
		})
		switch {
		case err == nil && l.o.ClusterID != zero && img.ClusterID != l.o.ClusterID:
			want := Image{ClusterID: l.o.ClusterID}
			return nil, false, fmt.Errorf("%w: it is %s, not %s", ErrWrongCluster, img.ClusterIDString(), want.ClusterIDString())
		case err == nil:
			return img, false, nil
		case !errors.Is(err, object.ErrNotFound):
			return nil, false, fmt.Errorf("read %s: %w", clusterName, err)
		case attempt == createAttempts:
			return nil, false, fmt.Errorf("create %s: %w", clusterName, ErrUnavailable)
		}
		if attempt == 0 {
			if err := l.mayCreate(ctx, cached); err != nil {
				return nil, false, err
			}
		}
		img, err = l.create(ctx)
		if err == nil {
			return img, true, nil
		}
		if errors.Is(err, object.ErrDenied) || errors.Is(err, object.ErrUnsupported) {
			return nil, false, err
		}
		// Anything else, a failed precondition too, may have been ourselves or another: read it.
	}
}

// mayCreate refuses to begin a new history where there is, or was, one.
func (l *Log) mayCreate(ctx context.Context, cached *Image) error {
	if cached != nil {
		return fmt.Errorf("%w: cluster %s at version %d is gone from it", ErrRestored, cached.ClusterIDString(), cached.Version)
	}
	if l.o.Join {
		return fmt.Errorf("%w: there is no %s", ErrNoCluster, clusterName)
	}
	once, cancel := context.WithTimeout(ctx, l.o.Timeout)
	defer cancel()
	found, err := l.store.List(once, "meta/", "", 1)
	if err != nil {
		return fmt.Errorf("look for metadata: %w", err)
	}
	if len(found) > 0 {
		// Two that start at once can meet here: the other's cluster.json is younger than our first look.
		if _, err := l.get(ctx, clusterName, l.o.Timeout, func([]byte) error { return nil }); err != nil {
			return fmt.Errorf("%w: %s is there but %s is not", ErrCorrupt, found[0].Name, clusterName)
		}
	}
	return nil
}

func (l *Log) create(ctx context.Context) (*Image, error) {
	img := &Image{ClusterID: l.o.ClusterID}
	for img.ClusterID == [16]byte{} {
		img.ClusterID = newClusterID()
	}
	body := seal(cluster{Kind: "cluster", Format: formatVersion, ID: img.ClusterIDString(), Created: time.Now().UTC().Round(0)})
	img.last = sum(body)
	if _, err := l.put(ctx, clusterName, body, object.IfAbsent()); err != nil {
		return nil, fmt.Errorf("create %s: %w", clusterName, err)
	}
	return img, nil
}

// reload replays the log from the newest snapshot, or from base if no number after it was dropped. The slot is held.
func (l *Log) reload(ctx context.Context, base *Image) error {
	for range loadAttempts {
		r, _, err := l.readRoot(ctx, base.ClusterIDString())
		if err != nil {
			return err
		}
		img := base
		if base.Version+1 < r.FirstRetained || base.Version == 0 && r.Snapshot.Name != "" {
			img, err = l.snapshot(ctx, r.Snapshot)
			if errors.Is(err, object.ErrNotFound) {
				continue // replaced meanwhile: the root names a newer one
			}
			if err != nil {
				return err
			}
		}
		d := newDraft(img)
		records, err := l.replay(ctx, d)
		if err != nil && !errors.Is(err, errHole) && !final(err) {
			return err
		}
		after, _, rootErr := l.readRoot(ctx, base.ClusterIDString())
		switch {
		case rootErr != nil:
			return rootErr
		case after.FirstRetained > img.Version+1:
			continue // truncated under our feet: what we read may be leftovers
		case errors.Is(err, errHole):
			return corrupt(err.Error())
		case err != nil:
			return err
		}
		if old := l.Image(); old == nil || old.Version != d.img.Version {
			l.verified = time.Now()
		}
		l.accept(d.img, records)
		return nil
	}
	return fmt.Errorf("%w: the log is truncated faster than it can be read", ErrUnavailable)
}

// accept makes an image that was read or committed the current one.
func (l *Log) accept(img *Image, records int) {
	l.doubt = false
	l.applied.Add(int64(records))
	l.publish(img)
	l.stale.Store(false)
}

func (l *Log) snapshot(ctx context.Context, ref snapshotRef) (img *Image, err error) {
	_, err = l.get(ctx, ref.Name, 10*l.o.Timeout, func(p []byte) error {
		if sum(p).String() != ref.SHA256 {
			return corrupt("it is not the snapshot that " + rootName + " names")
		}
		img, err = decodeSnapshot(p)
		return err
	})
	if err == nil && img.Version != ref.Version {
		err = corrupt(fmt.Sprintf("it is of version %d, not %d", img.Version, ref.Version))
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", ref.Name, err)
	}
	return img, nil
}

var errHole = errors.New("a number of the log is missing")

// replay applies everything after the draft's version and returns how many records that were. It lists first, to fetch in
// parallel; the end of the log is a number that is not there, never the end of a listing.
func (l *Log) replay(ctx context.Context, d *draft) (records int, err error) {
	for {
		once, cancel := context.WithTimeout(ctx, l.o.Timeout)
		listed, err := l.store.List(once, logPrefix, logName(d.img.Version), 1000)
		cancel()
		if err != nil {
			return 0, fmt.Errorf("list %s: %w", logPrefix, err)
		}
		if len(listed) == 0 {
			break
		}
		last, ok := versionOf(listed[len(listed)-1].Name)
		if !ok || last <= d.img.Version {
			return 0, corrupt("object " + listed[len(listed)-1].Name)
		}
		last = min(last, d.img.Version+1000) // a hole would make it far
		objects, err := l.fetch(ctx, d.img.Version+1, last)
		if err != nil {
			return 0, err
		}
		for _, p := range objects {
			if p == nil {
				return 0, fmt.Errorf("%w: %d", errHole, d.img.Version+1)
			}
			if records, err = l.applyNext(d, p, records); err != nil {
				return 0, err
			}
		}
	}
	more, err := l.follow(ctx, d, 1<<30)
	return records + more, err
}

// follow applies numbers one by one until one is missing, at most limit of them.
func (l *Log) follow(ctx context.Context, d *draft, limit int) (records int, err error) {
	for range limit {
		p, err := l.object(ctx, d.img.Version+1)
		if p == nil || err != nil {
			return records, err
		}
		if records, err = l.applyNext(d, p, records); err != nil {
			return records, err
		}
	}
	return records, nil
}

func (l *Log) applyNext(d *draft, p []byte, records int) (int, error) {
	version := d.img.Version + 1
	if err := d.applyObject(p); err != nil {
		return records, fmt.Errorf("read %s: %w", logName(version), err)
	}
	return records + max(bytes.Count(p, []byte("\n"))-2, 0), nil
}

// object returns one object of the log, nil if there is none.
func (l *Log) object(ctx context.Context, version uint64) (body []byte, err error) {
	_, err = l.get(ctx, logName(version), l.o.Timeout, func(p []byte) error {
		body = p
		_, err := frame(p)
		return err
	})
	if errors.Is(err, object.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", logName(version), err)
	}
	return body, nil
}

// fetch returns the objects of numbers first to last, nil for those that are not there.
func (l *Log) fetch(ctx context.Context, first, last uint64) ([][]byte, error) {
	objects := make([][]byte, last-first+1)
	errs := make([]error, len(objects))
	limit := make(chan struct{}, fetchParallel)
	var all sync.WaitGroup
	for i := range objects {
		limit <- struct{}{}
		all.Go(func() {
			objects[i], errs[i] = l.object(ctx, first+uint64(i))
			<-limit
		})
	}
	all.Wait()
	return objects, errors.Join(errs...)
}
