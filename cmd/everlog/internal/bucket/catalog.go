package bucket

import (
	"context"
	"errors"

	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/tier/object"
)

// FromMetadata is the ReadCatalog that reads the cluster's metadata log. It never makes a cluster where there is none.
func FromMetadata(ctx context.Context, store object.Store) (*Catalog, error) {
	log, err := metadata.Open(ctx, store, metadata.Options{Join: true})
	switch {
	case errors.Is(err, metadata.ErrNoCluster):
		return nil, (&report.Error{Code: report.NotFound, What: store.String() + " holds no everlog cluster", Cause: err}).
			WithHint("check the prefix: the URL ends where cluster.json lies")
	case errors.Is(err, metadata.ErrCorrupt):
		return nil, &report.Error{Code: report.Damaged, What: err.Error(), Cause: err}
	case err != nil:
		return nil, err
	}
	image := log.Image()
	catalog := &Catalog{Cluster: image.ClusterID}
	for t := range image.Topics() {
		catalog.Topics = append(catalog.Topics, Topic{Name: t.Name, ID: t.ID, Partitions: int32(len(t.Partitions))})
	}
	return catalog, nil
}
