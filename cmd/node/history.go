package node

import (
	"context"

	"github.com/everlog/everlog/cache"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/fetch"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// history is tier/fetch as ingest/partition sees it.
type history struct{ r *fetch.Reader }

// newHistories returns what makes the reader of each partition's remote log, all over one cache of blocks and one of footers.
func newHistories(store object.Store, blocks *cache.Cache, footers *fetch.Footers) func(segment.Identity, func() *manifest.Manifest, func(context.Context) error) partition.History {
	return func(_ segment.Identity, m func() *manifest.Manifest, reload func(context.Context) error) partition.History {
		return history{fetch.NewReader(fetch.Source{Store: store, Manifest: m, Reload: reload, Blocks: blocks, Footers: footers})}
	}
}

// Read implements partition.History.
func (h history) Read(ctx context.Context, offset record.Offset, max int, atLeastOne, committed bool) (partition.HistoryResult, error) {
	res, err := h.r.Read(ctx, offset, fetch.Options{MaxBytes: max, AtLeastOne: atLeastOne, Committed: committed})
	if err != nil {
		return partition.HistoryResult{}, err
	}
	return partition.HistoryResult{Blocks: res.Blocks, Release: res.Release, Next: res.Next, Aborted: res.Aborted}, nil
}

// FindTime implements partition.History.
func (h history) FindTime(ctx context.Context, ts int64, from record.Offset) (partition.Found, error) {
	f, err := h.r.FindTime(ctx, ts, from)
	return partition.Found{Offset: f.Offset, Timestamp: f.Timestamp, Epoch: f.Epoch}, err
}
