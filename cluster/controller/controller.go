// Package controller owns the decisions about a cluster: which topics there are, where partitions live, who leads them,
// which settings hold, which producer ids are given out. It checks every change against the newest image and commits it
// through the metadata log. Every broker has a Controller; the one whose process holds the controller lease commits, the
// others answer ErrNotController.
//
// Requests that arrive while a commit is under way share the next one (group commit, no timer): a commit costs about the
// same for one topic as for a thousand. After a lost race all of them are checked again on the newer image.
//
// It holds nothing that is not in the log, but for when it last heard of each broker. The lease makes collisions rare;
// the log makes them harmless. ingest/kafka and ingest/broker are the callers; they alone know Kafka's error codes.
package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/lease"
	"github.com/everlog/everlog/cluster/metadata"
)

// Refusals. Each error that wraps one has the sentence for the client as its whole text, Kafka's where Kafka has one.
var (
	ErrTopicExists              = errors.New("topic exists")
	ErrInvalidTopicName         = errors.New("invalid topic name")
	ErrInvalidPartitions        = errors.New("invalid number of partitions")
	ErrInvalidReplicationFactor = errors.New("invalid replication factor")
	ErrInvalidAssignment        = errors.New("invalid replica assignment")
	ErrUnknownTopic             = errors.New("unknown topic")
	ErrUnknownTopicID           = errors.New("unknown topic id")
	ErrPolicy                   = errors.New("policy violation")
	ErrDeletionDisabled         = errors.New("topic deletion is disabled")
	// ErrDuplicateBroker means that a broker with this id is alive on another disk.
	ErrDuplicateBroker = errors.New("duplicate broker id")
	// ErrStaleBroker means that the broker was registered again since, or is not registered.
	ErrStaleBroker = errors.New("stale broker epoch")
	// ErrWrongDisk means that a broker led partitions without the store, on a disk that is no longer the registered one:
	// what it wrote meanwhile is on that disk alone, and a person must decide.
	ErrWrongDisk = errors.New("disk was replaced")
	// ErrNotController means that another broker is the controller; see Lease.Seen for who. Retriable.
	ErrNotController = errors.New("not the controller")

	// ErrInvalidConfig and ErrInvalidRequest are cluster/config's.
	ErrInvalidConfig  = config.ErrInvalid
	ErrInvalidRequest = config.ErrRequest
	// ErrUnavailable means that the store did not answer in time. The change may yet happen. Retriable.
	ErrUnavailable = metadata.ErrUnavailable
)

type refusal struct {
	kind     error
	sentence string
}

func (r *refusal) Error() string { return r.sentence }
func (r *refusal) Unwrap() error { return r.kind }

func refuse(kind error, format string, args ...any) error {
	return &refusal{kind, fmt.Sprintf(format, args...)}
}

// Lease is what the controller needs of *lease.Lease.
type Lease interface {
	Holding() (epoch int64, ok bool)
	Changed() <-chan struct{}
	Seen() (lease.Record, bool)
	Fence(epoch int64)
}

// Options of a Controller. The zero value is valid for a cluster of one whose broker is 0.
type Options struct {
	// BrokerID is the broker of this process, which is alive as long as the controller asks.
	BrokerID int32
	// Holder is the Holder of this process's lease. With it requests are refused at once while another holds the lease,
	// instead of waiting for it.
	Holder string
	// Timeout bounds each request, waiting for the lease and the store included; default 5 s.
	Timeout time.Duration
	// Session is how long a broker counts as alive after a heartbeat, default 9 s (broker.session.timeout.ms).
	Session time.Duration
	// Maintain is the time between looks whether the log needs a snapshot, default 1 min.
	Maintain time.Duration
	// Log gets what an operator must know; default none.
	Log *slog.Logger
}

const (
	// queueLimit bounds the requests that wait for a commit; more of them wait outside, within their timeout.
	queueLimit = 1024
	// batchPartitions bounds a commit: requests beyond it go into the next.
	batchPartitions = 40_000
)

// Controller serves the changes of one process. Safe for concurrent use; requests are answered while Run runs.
type Controller struct {
	o      Options
	log    *metadata.Log
	lease  Lease
	static *config.Broker
	queue  chan *request

	mu    sync.Mutex
	heard map[int32]time.Time // last heartbeat of each broker
	since time.Time           // when this process became the controller, as far as known
	epoch int64               // of that
}

// New returns a controller. static is the broker's own configuration; what was changed at run time comes from the image.
func New(log *metadata.Log, l Lease, static *config.Broker, o Options) *Controller {
	set := func(d *time.Duration, v time.Duration) {
		if *d == 0 {
			*d = v
		}
	}
	set(&o.Timeout, 5*time.Second)
	set(&o.Session, 9*time.Second)
	set(&o.Maintain, time.Minute)
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return &Controller{o: o, log: log, lease: l, static: static, queue: make(chan *request, queueLimit), heard: map[int32]time.Time{}}
}

// settings returns the configuration that holds for the cluster under an image.
func (c *Controller) settings(img *metadata.Image) *config.Broker {
	b, err := c.static.WithDynamic(img.ClusterConfigs(), nil)
	if err != nil {
		c.o.Log.Warn("some cluster-wide settings are not understood and left out", "err", err)
	}
	return b
}

// Run commits what is asked for, and looks after the log, until ctx ends. Call it once.
func (c *Controller) Run(ctx context.Context) error {
	var upkeep sync.WaitGroup
	upkeep.Go(func() { c.upkeep(ctx) })
	defer upkeep.Wait()
	var rest []*request
	for {
		if len(rest) > 0 && ctx.Err() == nil {
			rest = c.serve(ctx, rest)
			continue
		}
		select {
		case <-ctx.Done():
			c.refuseAll(rest)
			return ctx.Err()
		case r := <-c.queue:
			rest = c.serve(ctx, c.gather(r))
		}
	}
}

// upkeep writes snapshots of the log while this process is the controller.
func (c *Controller) upkeep(ctx context.Context) {
	tick := time.NewTicker(c.o.Maintain)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if _, ok := c.lease.Holding(); !ok {
			continue
		}
		if err := c.log.Maintain(ctx); err != nil && ctx.Err() == nil {
			c.o.Log.Warn("metadata snapshot failed; the log grows until one succeeds", "err", err)
		}
	}
}

// refuseAll answers what still waits when Run ends.
func (c *Controller) refuseAll(rest []*request) {
	for {
		refuseBatch(rest, c.log.Image(), fmt.Errorf("%w: shutting down", ErrUnavailable))
		select {
		case r := <-c.queue:
			rest = []*request{r}
		default:
			return
		}
	}
}

// gather takes what else waits.
func (c *Controller) gather(first *request) []*request {
	batch := []*request{first}
	for len(batch) < queueLimit {
		select {
		case r := <-c.queue:
			batch = append(batch, r)
		default:
			return batch
		}
	}
	return batch
}
