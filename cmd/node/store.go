package node

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/everlog/everlog/tier/minio"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/s3"
	"github.com/everlog/everlog/tier/vfs"
)

// ErrStoreURL means that a store URL cannot be understood.
var ErrStoreURL = errors.New("bad store URL")

// OpenStore opens the object store that a URL names:
//
//	file:///dir or file://dir                            a directory, made if it is absent
//	s3://bucket/prefix?region=…&endpoint=…               S3 by the AWS SDK, credentials from its usual places
//	minio://key:secret@host:port/bucket/prefix?secure=…  MinIO and others by minio-go
//	mem://                                               memory, gone with the process
func OpenStore(ctx context.Context, raw string) (object.Store, error) {
	scheme, rest, ok := strings.Cut(raw, "://")
	if !ok {
		return nil, fmt.Errorf("%w: %q has no scheme; want file://, s3://, minio:// or mem://", ErrStoreURL, redact(raw))
	}
	switch scheme {
	case "file":
		if rest == "" {
			return nil, fmt.Errorf("%w: file:// needs a directory", ErrStoreURL)
		}
		dir, err := filepath.Abs(rest)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrStoreURL, err)
		}
		return object.NewDirectory(dir, vfs.OS())
	case "mem":
		return object.NewMemory(), nil
	case "s3":
		return s3.Open(ctx, raw)
	case "minio":
		return minio.Open(ctx, raw)
	}
	return nil, fmt.Errorf("%w: scheme %q is not known; want file, s3, minio or mem", ErrStoreURL, scheme)
}

// redact takes credentials out of a URL that is to be shown.
func redact(raw string) string {
	u, err := url.Parse(raw)
	if err != nil {
		return "store URL"
	}
	return u.Redacted()
}
