package ship

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"sync/atomic"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// Step does the next thing that is to be done, at most one upload, and reports whether it did anything. After an error the
// next Step begins by learning what became of the last. Run is a loop around it.
func (s *Shipper) Step(ctx context.Context) (progress bool, err error) {
	defer func() { s.note(err) }()
	var p step
	var v View
	err = s.Do(ctx, func() error {
		if err := s.settle(ctx); err != nil {
			return err
		}
		end := s.c.Log.Manifest().End()
		v = s.c.Source.View(end)
		p = plan(v, end)
		switch p.action {
		case skip:
			return s.skip(ctx, p.from)
		case broken:
			return fmt.Errorf("%w: remote ends at %d, local begins at %d, log start is %d", ErrGap, end, p.from, v.LogStart)
		}
		return nil
	})
	if v.Release != nil {
		defer v.Release()
	}
	if err != nil || p.action != upload {
		return p.action == skip, err
	}
	return s.uploadOne(ctx, v.Sealed[p.segment], p.from)
}

// Do runs fn while nothing else uses the manifest's Log, which has one owner at a time: retention, sweeps and merges of
// this partition go through it. Uploads go on meanwhile; their commits wait. The error is fn's, or that of ctx if it ended
// before fn's turn came.
func (s *Shipper) Do(ctx context.Context, fn func() error) error {
	select {
	case s.owner <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { <-s.owner }()
	return fn()
}

// settle finds out where the manifest stands after an error, with a request that costs little if the store is still away:
// nothing is recoded for a store that does not answer.
func (s *Shipper) settle(ctx context.Context) error {
	if s.unsure {
		if err := s.c.Log.Reload(ctx); err != nil {
			return s.manifestError(err)
		}
		s.unsure = false
	}
	if s.pending == nil {
		return nil
	}
	seg := *s.pending
	if s.c.Log.Manifest().End() == seg.Base {
		return s.commit(ctx, seg)
	}
	for _, in := range slices.Backward(s.c.Log.Manifest().Root()) {
		if in.Object == seg.Object {
			s.committed(seg)
			return nil
		}
	}
	s.settled() // the log start offset has moved past it, and what was uploaded is an orphan
	return nil
}

// settled forgets the attempt under way.
func (s *Shipper) settled() {
	s.pending = nil
	s.fly("")
}

func (s *Shipper) fly(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.flying = name
}

func (s *Shipper) note(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.status.Err = err
	if err != nil {
		s.status.Failures++
	}
}

// Claim makes the remote log this leader's, once. Step claims before it writes anything; whoever deletes for this leader
// claims first too. Call it within Do.
func (s *Shipper) Claim(ctx context.Context) error {
	if s.claimed {
		return nil
	}
	if err := s.c.Log.Claim(ctx, s.c.Epoch); err != nil {
		return s.manifestError(err)
	}
	s.claimed = true
	return nil
}

// manifestError marks the manifest's state as doubtful, and translates what cannot be waited out.
func (s *Shipper) manifestError(err error) error {
	s.unsure = true
	switch {
	case errors.Is(err, manifest.ErrFenced):
		return fmt.Errorf("%w: epoch %d: %w", ErrFenced, s.c.Epoch, err)
	case errors.Is(err, manifest.ErrDeleted):
		return fmt.Errorf("%w: %w", ErrDeleted, err)
	}
	return err
}

func (s *Shipper) skip(ctx context.Context, to record.Offset) error {
	if err := s.Claim(ctx); err != nil {
		return err
	}
	removed, err := s.c.Log.SetLogStart(ctx, to)
	if err != nil {
		return s.manifestError(err)
	}
	if s.c.Removed != nil && len(removed) > 0 {
		s.c.Removed(removed)
	}
	return nil
}

// uploadOne ships one segment from offset from on. It claims when it has its turn, right before the first write; if that
// brings a newer manifest there is nothing to do but to plan again; if the segment has been dropped meanwhile, to do so later.
func (s *Shipper) uploadOne(ctx context.Context, sealed Sealed, from record.Offset) (progress bool, err error) {
	release, err := s.c.Limiter.acquire(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	if err := s.Do(ctx, func() error { return s.Claim(ctx) }); err != nil {
		return false, err
	}
	if s.c.Log.Manifest().End() != from {
		return true, nil
	}
	local, err := sealed.Open()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("open segment %d to ship it: %w", sealed.Base, err)
	}
	if c, ok := local.(io.Closer); ok {
		defer c.Close()
	}
	footer, err := sealed.Footer()
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return false, nil
	case err != nil:
		return false, damaged(sealed.Base, err)
	}
	body, err := s.prepare(ctx, local, footer, from)
	if err != nil {
		return false, damaged(sealed.Base, err)
	}
	defer body.Close()
	return true, s.put(ctx, body)
}

// damaged tells a segment that is not what it should be from one that could not be read.
func damaged(base record.Offset, err error) error {
	if errors.Is(err, segment.ErrCorrupt) || errors.Is(err, segment.ErrNoFooter) {
		return fmt.Errorf("%w: segment %d: %w", ErrDamaged, base, err)
	}
	return fmt.Errorf("prepare segment %d for shipping: %w", base, err)
}

// prepare recodes the segment. If the disk has no room for a temporary file it does without compression, which needs none:
// shipping is what makes room.
func (s *Shipper) prepare(ctx context.Context, local io.ReaderAt, f *segment.Footer, from record.Offset) (*prepared, error) {
	o := segment.RecodeOptions{From: from, MinSaving: s.c.MinSaving, Aborted: s.c.Source.Aborted(from, f.End)}
	// A byte of the log is paid for in two halves: here, for reading and compressing it, and when it is sent.
	pace := func(n int64) error { return s.c.Limiter.wait(ctx, n/2) }
	body, err := prepare(local, f, o, s.c.FS, s.c.Scratch, pace)
	if errors.Is(err, vfs.ErrNoSpace) {
		o.MinSaving = 1
		body, err = prepare(local, f, o, s.c.FS, s.c.Scratch, pace)
	}
	return body, err
}

// put uploads the body under a new name and commits it.
func (s *Shipper) put(ctx context.Context, body *prepared) error {
	f := body.footer
	name := segment.ObjectName(s.c.ID, f.Base, f.End, s.c.Epoch, segment.NewUUID())
	s.fly(name)
	if err := s.send(ctx, name, body); err != nil {
		s.unsure = true
		s.settled() // if it lands yet, it is an orphan
		return fmt.Errorf("upload segment [%d, %d): %w", f.Base, f.End, err)
	}
	return s.Do(ctx, func() error { return s.commit(ctx, manifest.FromFooter(f, name, body.Size(), body.crc, s.c.Epoch)) })
}

// send puts the body and checks what the store says it has.
func (s *Shipper) send(ctx context.Context, name string, body *prepared) error {
	paced := &pacedBody{prepared: body, wait: func(n int64) error {
		return s.c.Limiter.wait(ctx, int64(float64(n)*float64(body.footer.DataSize)/float64(body.Size())/2))
	}}
	if _, err := s.c.Store.Put(ctx, name, paced, object.PutOptions{CRC32C: &body.crc}); err != nil {
		return err
	}
	a, err := s.c.Store.Head(ctx, name)
	if err != nil {
		return err
	}
	if a.Size != body.Size() {
		return fmt.Errorf("%w: the store has %d bytes of %s, sent were %d", object.ErrCorrupt, a.Size, name, body.Size())
	}
	return nil
}

// commit appends the segment to the manifest. If the outcome stays unknown the same entry is tried again, once the manifest
// has been read: uploading the records a second time would help nobody.
func (s *Shipper) commit(ctx context.Context, seg manifest.Segment) error {
	if err := s.c.Log.Append(ctx, seg); err != nil {
		s.pending = &seg
		return s.manifestError(fmt.Errorf("commit segment [%d, %d): %w", seg.Base, seg.End, err))
	}
	s.committed(seg)
	return nil
}

func (s *Shipper) committed(seg manifest.Segment) {
	s.settled()
	s.mu.Lock()
	s.status.Uploads++
	s.status.Bytes += seg.DataSize
	s.status.Stored += seg.Size
	s.mu.Unlock()
	if s.c.Committed != nil {
		s.c.Committed(seg)
	}
}

// pacedBody makes the reader of an upload wait for its share of the bandwidth. Drivers read bytes more than once, for
// checksums and retries, and parts of a body at the same time: only the first reading of each stretch is paid for.
type pacedBody struct {
	*prepared
	wait func(n int64) error // bound to the context of the upload: a Body is read without one
	paid atomic.Int64
}

// ReadAt implements object.Body.
func (b *pacedBody) ReadAt(p []byte, position int64) (int, error) {
	end := min(position+int64(len(p)), b.Size())
	for {
		paid := b.paid.Load()
		if end <= paid {
			break
		}
		if b.paid.CompareAndSwap(paid, end) {
			if err := b.wait(end - paid); err != nil {
				return 0, err
			}
			break
		}
	}
	return b.prepared.ReadAt(p, position)
}
