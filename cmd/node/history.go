package node

import (
	"context"
	"errors"

	"github.com/everlog/everlog/cache"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

type noHistory struct{}

func (noHistory) Read(context.Context, record.Offset, int, bool, bool) ([][]byte, []record.AbortedTxn, func(), error) {
	return nil, nil, nil, errors.New("not yet")
}
func (noHistory) FindTime(context.Context, int64, record.Offset) (record.Offset, int64, error) {
	return -1, -1, errors.New("not yet")
}

func newHistories(object.Store, *cache.Cache, *manifest.PageCache) func(segment.Identity, func() *manifest.Manifest, func(context.Context) error) partition.History {
	return func(segment.Identity, func() *manifest.Manifest, func(context.Context) error) partition.History {
		return noHistory{}
	}
}
