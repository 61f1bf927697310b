package main

import (
	"context"
	"errors"
	"log/slog"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/cmd/everlog/internal/server"
	"github.com/everlog/everlog/cmd/node"
	"github.com/everlog/everlog/tier/object"
)

// startNode starts a broker with the settings that dev and serve have read.
func startNode(ctx context.Context, s server.Settings, logger *slog.Logger) (server.Broker, error) {
	n, err := node.Start(ctx, node.Options{
		NodeID: s.NodeID, DataDir: s.DataDir, Listen: s.Listen, Advertise: s.Advertise, HTTP: s.HTTP, Store: s.Store, Settings: s.Kafka, Logger: logger,
	})
	if err != nil {
		return nil, err // not n: a nil *Node in an interface is not nil
	}
	return n, nil
}

// openStore opens the store of a URL; one that cannot be understood is bad usage.
func openStore(ctx context.Context, url string) (object.Store, error) {
	store, err := node.OpenStore(ctx, url)
	if errors.Is(err, node.ErrStoreURL) {
		return nil, report.Usagef("%w", err).WithHint("file:///dir, s3://bucket/prefix, minio://KEY:SECRET@host:port/bucket/prefix")
	}
	return store, err
}
