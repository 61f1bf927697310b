// Package minio owns the driver for MinIO and other servers with static keys, by minio-go. It is the only importer of that
// SDK. It turns the SDK's answers into tier/object's sentinels and repeats nothing: object.Retry does. cmd/node opens it for
// minio:// URLs.
//
// What it sends is what tier/s3 sends, at a little less CPU: unsigned payloads with a CRC-32C of our own in a header, bodies
// over 64 MiB in parts of 16 MiB, four at a time, with the condition on the completion. MinIO ignores conditions on deletes
// and copies without an error, so neither is used.
package minio

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"

	"github.com/everlog/everlog/tier/internal/s3api"
	"github.com/everlog/everlog/tier/object"
)

// location is a minio URL taken apart.
type location struct {
	host, bucket, prefix string
	key, secret          string
	region               string
	secure               bool
}

// defaultRegion is MinIO's own. A region that is known saves a request for it.
const defaultRegion = "us-east-1"

// parse takes minio://key:secret@host:port/bucket/prefix?secure=true|false&region=… apart. Keys that the URL leaves out come
// from the environment.
func parse(text string, getenv func(string) string) (location, error) {
	u, err := s3api.ParseLocation("minio", text, "secure", "region")
	if err != nil {
		return location{}, err
	}
	l := location{host: u.Host, region: u.Options["region"]}
	l.bucket, l.prefix, _ = strings.Cut(u.Path, "/")
	if err := s3api.CheckBucket(l.bucket); err != nil {
		return location{}, err
	}
	if l.secure, err = u.Bool("secure", false); err != nil {
		return location{}, err
	}
	if u.User != nil {
		l.key = u.User.Username()
		l.secret, _ = u.User.Password()
		if l.key == "" || l.secret == "" {
			return location{}, fmt.Errorf("minio URL for %s has only half of its credentials; write key:secret@host, or leave both to the environment", l.host)
		}
		return l, nil
	}
	for _, names := range [][2]string{{"MINIO_ROOT_USER", "MINIO_ROOT_PASSWORD"}, {"AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}} {
		if l.key, l.secret = getenv(names[0]), getenv(names[1]); l.key != "" && l.secret != "" {
			return l, nil
		}
	}
	return location{}, fmt.Errorf("no credentials for minio://%s/%s: write minio://key:secret@%s/…, or set MINIO_ROOT_USER and MINIO_ROOT_PASSWORD (or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY)", l.host, l.bucket, l.host)
}

// String returns the URL without key and secret.
func (l location) String() string {
	query := url.Values{}
	if l.secure {
		query.Set("secure", "true")
	}
	if l.region != "" {
		query.Set("region", l.region)
	}
	u := url.URL{Scheme: "minio", Host: l.host, Path: "/" + l.bucket, RawQuery: query.Encode()}
	if l.prefix != "" {
		u.Path += "/" + l.prefix
	}
	return u.String()
}

// openTimeout bounds how long Open waits for a server that takes connections and does not answer.
const openTimeout = 5 * time.Second

// Dial settings: a server on the local network answers at once or is away.
const (
	dialTimeout = 5 * time.Second
	keepAlive   = 15 * time.Second
)

// Open returns the store at minio://key:secret@host:port/bucket/prefix?secure=true|false&region=…, and makes the bucket if
// absent. secure means TLS. Keys that the URL leaves out are taken from MINIO_ROOT_USER and MINIO_ROOT_PASSWORD, or else from
// AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY. ErrUnavailable if the server does not answer, ErrDenied if it refuses the
// keys.
func Open(ctx context.Context, text string) (object.Store, error) {
	l, err := parse(text, os.Getenv)
	if err != nil {
		return nil, err
	}
	region := l.region
	if region == "" {
		region = defaultRegion
	}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlive}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
	}
	s3api.Tune(transport)
	core, err := minio.NewCore(l.host, &minio.Options{
		Creds: credentials.NewStaticV4(l.key, l.secret, ""), Secure: l.secure, Region: region,
		BucketLookup: minio.BucketLookupPath, Transport: transport,
		MaxRetries: 1, // a conditional Put that is sent twice can lose to itself
	})
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", l, err)
	}
	s := &store{core, l.bucket}
	// A server that is away now may be back before the store is needed: a broker must be able to start meanwhile.
	asking, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if err := s.makeBucket(asking, region); err != nil && asking.Err() == nil && !errors.Is(err, object.ErrUnavailable) {
		return nil, fmt.Errorf("open %s: %w", l, err)
	}
	return s3api.Named(s, l.prefix, l.String()), nil
}

// makeBucket makes the bucket if it is absent. Brokers that start together may all try.
func (s *store) makeBucket(ctx context.Context, region string) error {
	exists, err := s.core.BucketExists(ctx, s.bucket)
	if err != nil {
		return wrap(s3api.Head, false, "bucket "+s.bucket, err)
	}
	if exists {
		return nil
	}
	err = s.core.MakeBucket(ctx, s.bucket, minio.MakeBucketOptions{Region: region})
	switch minio.ToErrorResponse(err).Code {
	case minio.BucketAlreadyOwnedByYou, minio.BucketAlreadyExists:
		return nil
	}
	if err != nil {
		return wrap(s3api.Get, false, "make bucket "+s.bucket, err)
	}
	return nil
}
