package broker

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// past is what the bucket knows of a partition whose local log is gone: where to go on, and in which state.
type past struct {
	log *manifest.Log
	// logStart is the earliest readable offset, end where the local log begins.
	logStart, end record.Offset
	epochs        []record.EpochStart
	producers     []byte // snapshot at end
}

// loadPast reads the manifest and, if there is history, the last segment's footer.
func (b *Broker) loadPast(ctx context.Context, id segment.Identity) (*past, error) {
	log, err := manifest.Open(ctx, b.Tier.Store, id, partition.ManifestOptions(b.Tier))
	if err != nil {
		return nil, err
	}
	m := log.Manifest()
	p := &past{log: log, logStart: m.LogStart(), end: m.End(), epochs: m.Epochs()}
	if m.Start() == m.End() {
		return p, nil
	}
	last, ok, err := m.Find(ctx, b.Tier.Store, m.End()-1) // it may be listed in a page
	if err == nil && !ok {
		err = fmt.Errorf("manifest of %v: no segment holds offset %d, its last", id, m.End()-1)
	}
	if err != nil {
		return nil, err
	}
	f, err := b.footer(ctx, last)
	if err != nil {
		return nil, err
	}
	p.producers = f.Producers
	return p, nil
}

// footer reads the footer of a remote segment with one request.
func (b *Broker) footer(ctx context.Context, s manifest.Segment) (*segment.Footer, error) {
	buf := make([]byte, s.FooterSize)
	if n, err := b.Tier.Store.ReadAt(ctx, s.Object, buf, s.Position+s.Size-int64(s.FooterSize)); err != nil && !(errors.Is(err, io.EOF) && n == len(buf)) {
		return nil, fmt.Errorf("read footer of %s: %w", s.Object, err)
	}
	f, err := segment.ParseFooter(buf)
	if err != nil {
		return nil, fmt.Errorf("footer of %s: %w", s.Object, err)
	}
	return f, nil
}
