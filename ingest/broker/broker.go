// Package broker owns the replicas of one node: it opens, leads and closes them as the metadata image changes, hands
// out producer ids, watches the disk budget, and drives sealing, shipping, retention and trimming in the background. It
// knows no protocol (ingest/kafka) and decides nothing about the cluster (cluster/controller, which it asks).
package broker

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/ingest/hotlog"
	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/vfs"
)

// Errors of Partition.
var (
	// ErrUnknownPartition means that the topic has no partition of that number.
	ErrUnknownPartition = errors.New("unknown partition")
	// ErrReplaced means that another process, on another disk or a copy of this one, has been registered as this broker: it must
	// stop.
	ErrReplaced = errors.New("another process has taken this broker's place")
	// ErrNotReplica means that this broker holds no replica of the partition.
	ErrNotReplica = errors.New("no replica of the partition here")
	// ErrLoading means that the replica is not open yet: it is being recovered, or restored from the object store.
	ErrLoading = errors.New("replica is being loaded")
)

// Parts are what a broker is made of; cmd/node makes them. All are needed.
type Parts struct {
	FS         vfs.FS
	Dir        string // the data directory
	State      *localstate.Store
	Tier       partition.TierParts
	Metadata   *metadata.Log
	Controller *controller.Controller
	Config     *config.Broker
}

// Options of New. ID is needed, and Self with LocalEpochs.
type Options struct {
	ID     int32
	Logger *slog.Logger
	// OnFatal is called, once, when the disk cannot be trusted any more: the broker must make no further promise.
	OnFatal func(error)
	// Self is this broker as it registers. What clients are told of it while the registration waits for the store.
	Self metadata.Broker
	// LocalEpochs are the epochs in which the broker leads without the store's consent, which was away at its start
	// (controller.LocalLeaderships); nil otherwise.
	LocalEpochs map[controller.Partition]record.LeaderEpoch
	// Registered is the epoch of this process's registration, 0 before it is committed. Nil: never.
	Registered func() int64
	// ObserveSync is told how long each fsync took.
	ObserveSync func(took time.Duration)
}

// Broker is the replicas of a node. Its methods are safe for concurrent use.
type Broker struct {
	Parts
	opts    Options
	log     *slog.Logger
	flusher *hotlog.Flusher
	started uint64 // image version when the broker began: topics of later versions were created under it

	image atomic.Pointer[metadata.Image] // applied: its partitions are open
	conf  atomic.Pointer[config.Broker]
	ids   producerIDs
	disk  pressure
	tiers scheduler
	files *hotlog.Files // of sealed segments

	deleting deletes

	mu       sync.RWMutex
	replicas map[replicaKey]*replica
	changed  chan struct{} // closed and renewed when image changes
}

type replicaKey struct {
	topic     record.TopicID
	partition int32
}

// replica is one partition held here; partition is nil while it loads.
type replica struct {
	key       replicaKey
	topic     string
	partition atomic.Pointer[partition.Partition]

	mu       sync.Mutex
	state    *metadata.Partition // newest
	settings *config.TopicConfig
	gone     bool // not placed here any more

	failed atomic.Pointer[error] // why it cannot be opened
}

// New returns a broker; Run makes it work.
func New(p Parts, o Options) *Broker {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	b := &Broker{Parts: p, opts: o, log: o.Logger, replicas: map[replicaKey]*replica{}, changed: make(chan struct{})}
	var once sync.Once
	b.flusher = hotlog.NewFlusher(hotlog.FlusherOptions{
		Observe: o.ObserveSync,
		OnError: func(err error) {
			once.Do(func() {
				b.log.Error("the disk failed: no further promise can be kept, stopping", "err", err)
				if o.OnFatal != nil {
					o.OnFatal(err)
				}
			})
		},
	})
	b.files = hotlog.NewFiles(0, 0)
	b.ids.turn = make(chan struct{}, 1)
	b.conf.Store(p.Config)
	b.image.Store(p.Metadata.Image())
	if b.started = p.Metadata.Image().Version; p.Metadata.Stale() {
		b.started = unknownStart
	}
	b.tiers.init(b)
	return b
}

// ID is the node's id.
func (b *Broker) ID() int32 { return b.opts.ID }

// Image is the newest metadata whose partitions are open here.
func (b *Broker) Image() *metadata.Image { return b.image.Load() }

// Changed is closed when the next image is applied.
func (b *Broker) Changed() <-chan struct{} {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.changed
}

// Config is the broker's effective configuration.
func (b *Broker) Config() *config.Broker { return b.conf.Load() }

// Flusher is the group fsync of the broker's logs.
func (b *Broker) Flusher() *hotlog.Flusher { return b.flusher }

// Start opens the replicas that the image has now. Those whose data must first be restored from the object store are
// loaded in the background by Run.
func (b *Broker) Start(ctx context.Context) error {
	img := b.Metadata.Image()
	if err := errors.Join(b.loadDeletes(), b.removeLeftovers(img)); err != nil {
		return err
	}
	return b.apply(ctx, img)
}

// Run follows the metadata and does the background work until ctx ends, then closes every replica.
func (b *Broker) Run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { b.tiers.run(ctx) })
	wg.Go(func() { b.watchDisk(ctx) })
	err := b.follow(ctx)
	cancel()
	wg.Wait()
	return errors.Join(err, b.closeAll())
}

// follow applies each new image.
func (b *Broker) follow(ctx context.Context) error {
	for {
		next := b.Metadata.Watch() // before the image is read: no change is missed
		if img := b.Metadata.Image(); img.Version != b.Image().Version {
			if err := b.apply(ctx, img); err != nil {
				return err
			}
		}
		select {
		case <-next:
		case <-ctx.Done():
			return nil
		}
	}
}

// await returns when an image of at least version is applied.
func (b *Broker) await(ctx context.Context, version uint64) error {
	for {
		changed := b.Changed()
		if b.Image().Version >= version {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

func (b *Broker) closeAll() error {
	b.mu.Lock()
	rs := b.replicas
	b.replicas = map[replicaKey]*replica{}
	b.mu.Unlock()
	var errs []error
	for _, r := range rs {
		if p := r.partition.Load(); p != nil {
			if err := p.Close(); err != nil {
				errs = append(errs, fmt.Errorf("close %s-%d: %w", r.topic, r.key.partition, err))
			}
		}
	}
	b.flusher.Close()
	return errors.Join(errs...)
}

// Partition returns the replica held here.
func (b *Broker) Partition(t *metadata.Topic, index int32) (*partition.Partition, error) {
	if index < 0 || int(index) >= len(t.Partitions) {
		return nil, fmt.Errorf("%w: %s-%d, the topic has %d", ErrUnknownPartition, t.Name, index, len(t.Partitions))
	}
	b.mu.RLock()
	r := b.replicas[replicaKey{t.ID, index}]
	b.mu.RUnlock()
	if r == nil {
		return nil, fmt.Errorf("%w: %s-%d", ErrNotReplica, t.Name, index)
	}
	if p := r.partition.Load(); p != nil {
		return p, nil
	}
	if err := r.failed.Load(); err != nil {
		return nil, *err
	}
	return nil, fmt.Errorf("%w: %s-%d", ErrLoading, t.Name, index)
}

// Partitions returns the open replicas.
func (b *Broker) Partitions() []*partition.Partition {
	b.mu.RLock()
	defer b.mu.RUnlock()
	ps := make([]*partition.Partition, 0, len(b.replicas))
	for _, r := range b.replicas {
		if p := r.partition.Load(); p != nil {
			ps = append(ps, p)
		}
	}
	return ps
}

func (r *replica) isGone() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.gone
}
