package node

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"time"

	"github.com/everlog/everlog/cache"
	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/lease"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/compaction"
	"github.com/everlog/everlog/ingest/broker"
	"github.com/everlog/everlog/ingest/coordinators"
	"github.com/everlog/everlog/ingest/kafka"
	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/fetch"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/ship"
)

// How long a start waits for the lease of a process that is gone: more than a lease (10 s) and the time to take it.
const (
	leaseWait = 30 * time.Second
	leasePoll = 200 * time.Millisecond
)

// registerRetry is how often a broker that started without the store asks whether it is back.
const registerRetry = 2 * time.Second

// cachedPages is how many pages of old manifest entries a broker keeps decoded, about 0.9 MB each.
const cachedPages = 16

// imageName is where the newest metadata image is kept locally.
const imageName = "metadata-image"

// clusterName is where the id of the cluster is kept that this disk belongs to: no other's metadata decides what is left over.
const clusterName = "cluster"

// imageCache keeps the newest image in the local state, so that a broker starts while the store is away.
type imageCache struct{ state *localstate.Store }

// Load implements metadata.Cache.
func (c imageCache) Load() ([]byte, error) { return c.state.Get(imageName) }

// Save implements metadata.Cache.
func (c imageCache) Save(image []byte) error { return c.state.Set(imageName, image) }

// expected reports whether an error of the store is an answer rather than a failure.
func expected(err error) bool {
	return errors.Is(err, object.ErrNotFound) || errors.Is(err, object.ErrPrecondition) || errors.Is(err, context.Canceled)
}

// join enters the cluster, registers this process, and starts the replicas. run is the context of what goes on afterwards.
func (n *Node) join(ctx, run context.Context, g *group) error {
	var err error
	o := metadata.Options{Cache: imageCache{n.state}, Log: n.log}
	known, err := n.state.Get(clusterName)
	if err != nil {
		return err
	}
	if len(known) == len(o.ClusterID) {
		o.ClusterID, o.Join = [16]byte(known), true
	}
	if n.meta, err = metadata.Open(ctx, n.store, o); err != nil {
		return fmt.Errorf("join the cluster at %s: %w", n.store, err)
	}
	if id := n.meta.Image().ClusterID; known == nil {
		if err := n.state.Set(clusterName, id[:]); err != nil {
			return err
		}
	}
	disk := n.state.DiskID()
	registration := controller.Registration{ID: n.opts.NodeID, DiskID: hex.EncodeToString(disk[:]), Rack: n.config.Text("broker.rack")}
	if registration.Host, registration.Port, err = n.advertised(); err != nil {
		return err
	}
	l, err := lease.New(n.store, lease.Options{Name: "controller", Holder: registration.DiskID, Address: n.kafka.Addr().String(), Log: n.log})
	if err != nil {
		return fmt.Errorf("controller lease: %w", err)
	}
	n.control = controller.New(n.meta, l, n.config, controller.Options{BrokerID: n.opts.NodeID, Holder: registration.DiskID, Log: n.log})
	g.run(func() error { return l.Run(run) })
	g.run(func() error { return n.control.Run(run) })
	g.run(func() error { return n.meta.Follow(run) })
	local, err := n.register(ctx, run, registration, g)
	if err != nil {
		return err
	}
	self := metadata.Broker{ID: registration.ID, DiskID: registration.DiskID, Host: registration.Host, Port: registration.Port, Rack: registration.Rack}
	return n.startBroker(ctx, run, self, local, g)
}

// register commits this process to the metadata log. If the store is away, the broker starts from what it knew: it leads
// the partitions that nobody else can lead, in epochs of its own, which are committed once the store is back.
func (n *Node) register(ctx, run context.Context, r controller.Registration, g *group) (map[controller.Partition]record.LeaderEpoch, error) {
	used, err := n.loadLocalEpochs()
	if err != nil {
		return nil, err
	}
	if err := n.remember(&r); err != nil {
		return nil, err
	}
	if !n.meta.Stale() {
		for at, epoch := range used { // of an earlier process that never got to register
			if r.LocalEpochs == nil {
				r.LocalEpochs = map[controller.Partition]record.LeaderEpoch{}
			}
			r.LocalEpochs[at] = epoch + 1
		}
		if err = n.registerNow(ctx, r); err == nil {
			return nil, n.saveLocalEpochs(nil)
		}
		if !errors.Is(err, controller.ErrUnavailable) {
			return nil, fmt.Errorf("register broker %d: %w", r.ID, err)
		}
	}
	local, lerr := n.leadLocally(r)
	if lerr != nil {
		return nil, lerr
	}
	if local == nil {
		return nil, fmt.Errorf("register broker %d: %w", r.ID, errors.Join(err, errNoImage))
	}
	n.log.Warn("the object store cannot be reached; starting with what is on this disk", "partitions", len(local))
	r.LocalEpochs = local
	g.run(func() error { return n.registerLater(run, r) })
	return local, nil
}

// incarnationsName holds the processes of this disk since the last that is known to be registered, which is the first.
const incarnationsName = "incarnations"

// remember gives this process a name, durable before it can be committed. A disk that does not know the registered one is an
// older copy: what it has in store of producer ids was given away since.
func (n *Node) remember(r *controller.Registration) error {
	p, err := n.state.Get(incarnationsName)
	if err == nil && p != nil {
		err = json.Unmarshal(p, &r.Past)
	}
	if err != nil {
		return fmt.Errorf("incarnations of this disk: %w", err)
	}
	if old := n.meta.Image().Broker(r.ID); old != nil && old.DiskID == r.DiskID && old.Incarnation != "" && !slices.Contains(r.Past, old.Incarnation) {
		n.log.Error("this data directory is an older copy of the one that was in use last")
		if err := broker.ForgetProducerIDs(n.state); err != nil {
			return err
		}
	}
	r.Incarnation = rand.Text()
	return n.saveIncarnations(append(r.Past, r.Incarnation))
}

func (n *Node) saveIncarnations(list []string) error {
	p, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return n.state.Set(incarnationsName, p)
}

// registerNow registers the broker. If another process holds the controller lease, most likely this broker's own before
// its disk was replaced, it waits for that lease to run out.
func (n *Node) registerNow(ctx context.Context, r controller.Registration) error {
	limit, said := time.Now().Add(leaseWait), false
	for {
		img, err := n.control.RegisterBroker(ctx, r)
		if err == nil {
			n.registered.Store(img.Broker(r.ID).Epoch)
			err = n.saveIncarnations([]string{r.Incarnation})
		}
		if !errors.Is(err, controller.ErrNotController) || time.Now().After(limit) {
			return err
		}
		if !said {
			n.log.Warn("waiting for the controller lease of another process to run out", "err", err)
			said = true
		}
		select {
		case <-time.After(leasePoll):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

var errNoImage = errors.New("the object store cannot be reached, and this disk does not know the cluster")

// registerLater registers the broker when the store is back.
func (n *Node) registerLater(ctx context.Context, r controller.Registration) error {
	for {
		img, err := n.control.RegisterBroker(ctx, r)
		switch {
		case err == nil:
			n.registered.Store(img.Broker(r.ID).Epoch)
			n.log.Info("the object store is back; this broker is registered")
			if err := errors.Join(n.saveLocalEpochs(nil), n.saveIncarnations([]string{r.Incarnation})); err != nil {
				return err
			}
			<-ctx.Done()
			return ctx.Err()
		case ctx.Err() != nil:
			return ctx.Err()
		case !errors.Is(err, controller.ErrUnavailable) && !errors.Is(err, controller.ErrNotController):
			return fmt.Errorf("register broker %d: %w", r.ID, err)
		}
		select {
		case <-time.After(registerRetry):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// startBroker makes the broker of its parts and opens its replicas.
func (n *Node) startBroker(ctx, run context.Context, self metadata.Broker, local map[controller.Partition]record.LeaderEpoch, g *group) error {
	scratch := filepath.Join(n.opts.DataDir, "scratch")
	if err := ship.CleanScratch(n.fs, scratch); err != nil {
		return fmt.Errorf("scratch directory: %w", err)
	}
	data := object.Retry(n.store, object.RetryOptions{})
	n.cache = cache.New(data, n.cacheOptions())
	n.footers = fetch.NewFooters(0)
	n.deleter = compaction.NewDeleter(data, 0, nil)
	tier := partition.TierParts{Store: data, Pages: manifest.NewPageCache(cachedPages), Deleter: n.deleter, FS: n.fs, Scratch: scratch, Logger: n.log,
		Limiter: ship.NewLimiter(n.config.TierUploadThreads, ship.PaceOptions{Full: float64(n.config.TierUploadBytesPerSecond)})}
	tier.History = newHistories(data, n.cache, n.footers)
	n.broker = broker.New(broker.Parts{FS: n.fs, Dir: n.opts.DataDir, State: n.state, Tier: tier, Metadata: n.meta, Controller: n.control, Config: n.config},
		broker.Options{ID: n.opts.NodeID, Logger: n.log, OnFatal: n.fail, Self: self, LocalEpochs: local, Registered: n.registered.Load, ObserveSync: n.metrics.observeSync})
	if err := n.broker.Start(ctx); err != nil {
		return fmt.Errorf("start replicas: %w", err)
	}
	n.coordinators = coordinators.New(n.broker, n.log)
	n.server = kafka.New(n.broker, n.coordinators, kafka.Options{MaxRequestBytes: int32(n.config.SocketRequestMax), MaxConnections: func() int { return n.broker.Config().MaxConnections }, IdleTimeout: n.config.ConnectionsMaxIdle,
		FetchSessions: int(n.config.Int("max.incremental.fetch.session.cache.slots")), FetchMaxBytes: int32(n.config.FetchMaxBytes), Logger: n.log, Observe: n.metrics.observeRequest})
	g.run(func() error { return n.deleter.Run(run) })
	return nil
}

func (n *Node) cacheOptions() cache.Options {
	o := cache.Options{MemoryBytes: n.config.CacheMemoryBytes}
	if o.MemoryBytes == 0 {
		o.MemoryBytes = -1 // to the setting 0 is none, to the cache its default
	}
	if n.config.CacheDiskBytes > 0 {
		o.Disk, o.Dir, o.DiskBytes = n.fs, filepath.Join(n.opts.DataDir, "cache"), n.config.CacheDiskBytes
	}
	return o
}
