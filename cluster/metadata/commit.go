package metadata

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/everlog/everlog/tier/object"
)

func newClusterID() (id [16]byte) {
	_, _ = rand.Read(id[:]) // never fails since Go 1.24
	id[6] = id[6]&0x0f | 0x40
	id[8] = id[8]&0x3f | 0x80
	return id
}

const (
	firstBackoff = 50 * time.Millisecond
	maxBackoff   = time.Second
)

// Commit appends one object with these records to the log, all of them or none, if base is still the newest image, and
// returns the image that results. It returns once the outcome is known, or with ErrUnavailable when ctx ends: then the
// commit may yet happen, and the next Commit or Follow finds out before anything else is written. With any error the
// image returned is the newest known. ErrLost, ErrFenced, ErrInvalid, ErrUnavailable, or a final error.
func (l *Log) Commit(ctx context.Context, base *Image, records ...Record) (*Image, error) {
	if err := l.lock(ctx); err != nil {
		return l.Image(), err
	}
	defer l.unlock()
	img, err := l.commit(ctx, base, records)
	return img, l.fail(err)
}

func (l *Log) commit(ctx context.Context, base *Image, records []Record) (*Image, error) {
	if err := l.settle(ctx); err != nil {
		return l.Image(), err
	}
	img := l.Image()
	if base.Version != img.Version {
		return img, ErrLost
	}
	h := header{Kind: kindLog, Cluster: img.ClusterIDString(), Version: img.Version + 1, Epoch: img.Controller.Epoch,
		Writer: l.o.Writer, Commit: newNonce(), Previous: img.last.String(), Time: time.Now().UTC().Round(0)}
	if len(records) > 0 {
		if e, ok := records[0].(ControllerElected); ok {
			h.Epoch = e.Epoch
		}
	}
	body := encode(h, records)
	if len(body) > maxObject {
		return img, fmt.Errorf("%w: %d records make %d bytes, the limit is %d", ErrInvalid, len(records), len(body), maxObject)
	}
	// What is applied is what readers will read, not what was meant.
	read, decoded, err := decode(body, kindLog)
	if err != nil {
		return img, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if !entitled(read, decoded, img.Controller) {
		return img, fmt.Errorf("%w: that is %q with epoch %d", ErrFenced, img.Controller.Writer, img.Controller.Epoch)
	}
	d := newDraft(img)
	d.img.Version, d.img.last = read.Version, sum(body)
	if err := d.applyAll(decoded); err != nil {
		return img, err
	}
	l.pending = &attempt{version: h.Version, body: body, image: d.img, records: len(records)}
	return l.resolve(ctx)
}

// settle finds out what became of an earlier commit, and after trouble that the bucket is still the same.
func (l *Log) settle(ctx context.Context) error {
	if l.pending != nil {
		if _, err := l.resolve(ctx); err != nil && !errors.Is(err, ErrLost) {
			return err
		}
	}
	if l.doubt {
		if err := l.tail(ctx); err != nil {
			return away(err)
		}
	}
	return nil
}

// away marks errors of the store as retriable.
func away(err error) error {
	if err == nil || final(err) || errors.Is(err, ErrUnavailable) {
		return err
	}
	return fmt.Errorf("%w: %w", ErrUnavailable, err)
}

// resolve drives the pending commit to its outcome. The slot is held.
func (l *Log) resolve(ctx context.Context) (*Image, error) {
	for wait := firstBackoff; ; wait = min(2*wait, maxBackoff) {
		img, decided, err := l.attempt(ctx)
		if decided {
			l.pending = nil
			return img, err
		}
		l.doubt = true
		if final(err) {
			return l.Image(), err
		}
		select {
		case <-ctx.Done():
			return l.Image(), fmt.Errorf("%w: commit %d: %w", ErrUnavailable, l.pending.version, errors.Join(err, ctx.Err()))
		case <-time.After(wait):
		}
	}
}

// attempt sends the pending commit once and reads back what its answer does not tell.
func (l *Log) attempt(ctx context.Context) (img *Image, decided bool, err error) {
	p := l.pending
	if !p.created {
		_, putErr := l.put(ctx, logName(p.version), p.body, object.IfAbsent())
		if putErr != nil {
			// Also "precondition failed" may be the echo of an earlier attempt of our own.
			there, err := l.object(ctx, p.version)
			switch {
			case err != nil:
				return nil, false, errors.Join(putErr, err)
			case there == nil:
				return nil, false, putErr // not there yet; it may still come
			case !bytes.Equal(there, p.body):
				return l.lost(ctx)
			}
		}
		p.created = true
	}
	// A number is no success in a bucket that was emptied or restored meanwhile, and later ones would hide the hole before it.
	if err := l.verify(ctx, l.Image()); err != nil && !errors.Is(err, errHole) {
		return nil, false, err
	}
	r, _, err := l.readRoot(ctx, p.image.ClusterIDString())
	if err != nil {
		return nil, false, err
	}
	if r.FirstRetained > p.version {
		// The number was dropped long ago, by others, after it may have been ours or not. Nothing can be claimed.
		err := l.reload(ctx, l.Image())
		return l.Image(), err == nil || final(err), errors.Join(fmt.Errorf("%w: number %d is below the boundary %d", ErrUnavailable, p.version, r.FirstRetained), err)
	}
	l.accept(p.image, p.records)
	return p.image, true, nil
}

// lost takes in what another committed into the slot. Only when that is done the outcome is told.
func (l *Log) lost(ctx context.Context) (*Image, bool, error) {
	if err := l.tail(ctx); err != nil {
		return nil, false, err
	}
	return l.Image(), true, ErrLost
}

// tail brings the image to the end of the log. The slot is held.
func (l *Log) tail(ctx context.Context) error {
	img := l.Image()
	if l.doubt {
		if err := l.verify(ctx, img); err != nil {
			if errors.Is(err, errHole) {
				return l.reload(ctx, img)
			}
			return err
		}
	}
	d := newDraft(img)
	records, err := l.follow(ctx, d, tailDirect)
	if final(err) {
		return l.reload(ctx, img) // below the boundary anything may lie about; above it the error comes again
	}
	if err != nil {
		l.doubt = true
		return err
	}
	switch d.img.Version - img.Version {
	case 0:
		l.accept(img, 0)
		return nil
	case tailDirect: // far behind
		return l.reload(ctx, img)
	}
	r, _, err := l.readRoot(ctx, img.ClusterIDString())
	if err != nil {
		return err
	}
	if r.FirstRetained > img.Version+1 {
		return l.reload(ctx, img) // what we read may be leftovers below the boundary
	}
	l.verified = time.Now() // what follows our last number proves it; that nothing follows, or that we wrote what does, proves nothing
	l.accept(d.img, records)
	return nil
}

// verify checks that the bucket still holds the history that led to img. errHole means that its number was dropped, and
// the newest snapshot must be read.
func (l *Log) verify(ctx context.Context, img *Image) error {
	name := logName(img.Version)
	if img.Version == 0 {
		name = clusterName
	}
	_, err := l.get(ctx, name, l.o.Timeout, func(p []byte) error {
		if sum(p) != img.last {
			return corrupt("other bytes")
		}
		return nil
	})
	switch {
	case err == nil:
		l.verified = time.Now()
		return nil
	case errors.Is(err, ErrCorrupt):
		return fmt.Errorf("%w: %s is not what it was", ErrRestored, name)
	case !errors.Is(err, object.ErrNotFound):
		return fmt.Errorf("read %s: %w", name, err)
	}
	r, _, err := l.readRoot(ctx, img.ClusterIDString())
	if err != nil {
		return err
	}
	if r.FirstRetained > img.Version {
		return errHole
	}
	return fmt.Errorf("%w: version %d was seen, %s is not there", ErrRestored, img.Version, name)
}
