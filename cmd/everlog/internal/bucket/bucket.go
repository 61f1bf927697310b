// Package bucket holds the commands that read a cluster's bucket without a broker: replay, tier and debug. They find topics in
// the cluster's metadata, segments in the manifests, records in the segment objects, and need no more than the right to list
// and to get; only tier gc --execute deletes. package main passes in how stores are opened and how metadata is read.
package bucket

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// Open opens the object store of a URL.
type Open func(ctx context.Context, url string) (object.Store, error)

// Topic is what the cluster's metadata says of a topic.
type Topic struct {
	Name       string
	ID         record.TopicID
	Partitions int32
}

// Catalog are the topics of the cluster in a bucket, in name order.
type Catalog struct {
	Cluster [16]byte
	Topics  []Topic
}

// ReadCatalog reads the newest metadata of a bucket and writes nothing.
type ReadCatalog func(ctx context.Context, store object.Store) (*Catalog, error)

// Commands are replay, tier and debug.
func Commands(shell *report.Shell, open Open, read ReadCatalog) []*cobra.Command {
	b := bucket{shell, open, read}
	return []*cobra.Command{replayCommand(b), tierCommand(b), debugCommand(b)}
}

// bucket is what every command here shares.
type bucket struct {
	shell *report.Shell
	open  Open
	read  ReadCatalog
}

// cluster is an opened bucket.
type cluster struct {
	bucket
	store   closable
	catalog *Catalog
	pages   *manifest.PageCache
	usage   *usage
}

// usage counts what a command asked of the store.
type usage struct{ requests, bytes atomic.Int64 }

// partition is one partition's remote log.
type partition struct {
	topic    Topic
	number   int32
	id       segment.Identity
	manifest *manifest.Manifest
}

func (p *partition) String() string { return fmt.Sprintf("%s/%d", p.topic.Name, p.number) }

// openStore opens the store of a URL, with retries and with a count of its use.
func (b bucket) openStore(ctx context.Context, url string) (closable, *usage, error) {
	if dir, ok := strings.CutPrefix(url, "file://"); ok { // opening a directory would make it
		if _, err := os.Stat(dir); err != nil {
			return closable{}, nil, report.Errorf(report.NotFound, "store %s: %w", url, err)
		}
	}
	store, err := b.open(ctx, url)
	if err != nil {
		return closable{}, nil, explain(err, "store "+hideSecrets(url))
	}
	u := &usage{}
	counted := object.Observe(store, func(_ string, bytes int64, _ time.Duration, _ error) {
		u.requests.Add(1)
		u.bytes.Add(bytes)
	})
	return closable{object.Retry(counted, object.RetryOptions{}), store}, u, nil
}

// closable is a store that gives up what it holds open, if it holds anything.
type closable struct {
	object.Store
	inner object.Store
}

// Close closes the store at the bottom. What a command read is whole by then, so that there is nothing to do about an error.
func (c closable) Close() {
	if closer, ok := c.inner.(io.Closer); ok {
		_ = closer.Close()
	}
}

// openCluster opens the store and reads the cluster's metadata from it.
func (b bucket) openCluster(ctx context.Context, url string) (*cluster, error) {
	store, u, err := b.openStore(ctx, url)
	if err != nil {
		return nil, err
	}
	catalog, err := b.read(ctx, store)
	if err != nil {
		store.Close()
		return nil, explain(err, "metadata in "+store.String())
	}
	return &cluster{b, store, catalog, manifest.NewPageCache(16), u}, nil
}

// topic finds a topic by its name or its id.
func (c *cluster) topic(name string) (Topic, error) {
	var names []string
	for _, t := range c.catalog.Topics {
		if t.Name == name || t.ID.String() == name {
			return t, nil
		}
		names = append(names, t.Name)
	}
	e := report.Errorf(report.NotFound, "%s holds no topic %q", c.store, name)
	if hint := report.DidYouMean(name, names); hint != "" {
		return Topic{}, e.WithHint("%s", hint)
	}
	return Topic{}, e.WithHint("everlog tier ls %s lists the topics", c.store)
}

// topics are the one named, or all.
func (c *cluster) topics(names []string) ([]Topic, error) {
	if len(names) == 0 {
		return c.catalog.Topics, nil
	}
	var found []Topic
	for _, name := range names {
		t, err := c.topic(name)
		if err != nil {
			return nil, err
		}
		found = append(found, t)
	}
	return found, nil
}

// load opens the manifest of one partition.
func (c *cluster) load(ctx context.Context, t Topic, number int32) (*partition, error) {
	p := &partition{topic: t, number: number, id: segment.Identity{Cluster: c.catalog.Cluster, Topic: t.ID, Partition: number}}
	log, err := manifest.Open(ctx, c.store, p.id, manifest.Options{Pages: c.pages})
	if err != nil {
		return nil, explain(err, "manifest of "+p.String())
	}
	p.manifest = log.Manifest()
	return p, nil
}

// partitions loads the manifests of a topic, of the numbers given or of all.
func (c *cluster) partitions(ctx context.Context, t Topic, numbers []int32) ([]*partition, error) {
	for _, n := range numbers {
		if n < 0 || n >= t.Partitions {
			return nil, report.Errorf(report.NotFound, "topic %q has no partition %d", t.Name, n).WithHint("it has %s, from 0", report.Count(int64(t.Partitions), "partition"))
		}
	}
	var loaded []*partition
	for n := range t.Partitions {
		if len(numbers) > 0 && !slices.Contains(numbers, n) {
			continue
		}
		p, err := c.load(ctx, t, n)
		if err != nil {
			return nil, err
		}
		loaded = append(loaded, p)
	}
	return loaded, nil
}

// explain turns an error of the store or of a format into one for a person, with the exit code it deserves.
func explain(err error, thing string) error {
	var mine *report.Error
	code, hint := report.Failed, ""
	switch {
	case err == nil:
		return nil
	case errors.As(err, &mine), errors.Is(err, context.Canceled):
		return err
	case isDamage(err):
		code, hint = report.Damaged, "everlog tier verify --deep finds out how much is damaged"
	case errors.Is(err, object.ErrNotFound):
		code = report.NotFound
	case errors.Is(err, object.ErrDenied):
		code, hint = report.Denied, "reading needs s3:GetObject on the prefix and s3:ListBucket on the bucket; everlog doctor --store URL checks every right"
	case errors.Is(err, object.ErrUnavailable), errors.Is(err, object.ErrThrottled), errors.Is(err, object.ErrUnknown), errors.Is(err, context.DeadlineExceeded):
		code, hint = report.Unreachable, "everlog doctor --store URL looks at the store"
	}
	return &report.Error{Code: code, What: fmt.Sprintf("%s: %v", thing, err), Hint: hint, Cause: err}
}

// isDamage tells whether an error says that bytes are not what was written.
func isDamage(err error) bool {
	for _, damage := range []error{segment.ErrCorrupt, segment.ErrNoFooter, segment.ErrOrder, manifest.ErrCorrupt, record.ErrCorrupt, object.ErrCorrupt} {
		if errors.Is(err, damage) {
			return true
		}
	}
	return false
}

// hideSecrets takes a password out of a URL that is shown.
func hideSecrets(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	at := strings.LastIndexByte(rest, '@')
	if !ok || at < 0 {
		return url
	}
	user, _, _ := strings.Cut(rest[:at], ":")
	return scheme + "://" + user + "@" + rest[at+1:]
}
