// Package node puts a broker together: it opens the data directory and the object store, joins the cluster, starts the
// replicas, and serves the Kafka protocol and the HTTP pages. It is the composition root of cmd/everlog and of the
// simulation, and holds no logic of its own beyond the order of starting and stopping.
package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everlog/everlog/cache"
	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/compaction"
	"github.com/everlog/everlog/ingest/broker"
	"github.com/everlog/everlog/ingest/coordinators"
	"github.com/everlog/everlog/ingest/kafka"
	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/fetch"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/vfs"
)

// Options of Start. NodeID, DataDir, Listen and a store are needed.
type Options struct {
	NodeID  int32
	DataDir string
	// Listen is the address of the Kafka listener, Advertise the one that clients are told (default: Listen), HTTP that of
	// metrics and health ("" serves none).
	Listen, Advertise, HTTP string
	// Store is the URL of the object store; see OpenStore.
	Store string
	// Settings are broker settings by Kafka's names; cluster/config validates them.
	Settings map[string]string
	Logger   *slog.Logger

	// ObjectStore and FS replace what Store names and the operating system's file system, for simulation.
	ObjectStore object.Store
	FS          vfs.FS
}

// Node is one running broker process.
type Node struct {
	opts         Options
	log          *slog.Logger
	fs           vfs.FS
	config       *config.Broker
	lock         io.Closer
	state        *localstate.Store
	store        object.Store
	cache        *cache.Cache
	footers      *fetch.Footers
	deleter      *compaction.Deleter
	meta         *metadata.Log
	control      *controller.Controller
	broker       *broker.Broker
	coordinators *coordinators.Coordinators
	server       *kafka.Server
	metrics      *metrics

	kafka, http net.Listener
	started     time.Time
	ready       time.Duration
	serving     atomic.Bool
	registered  atomic.Int64 // epoch of this process's registration

	cancel context.CancelFunc
	done   chan struct{}
	err    error // set before done is closed
	fatal  chan error
}

// Start starts a broker and returns when it serves. ctx bounds the start; the broker lives on until Stop.
func Start(ctx context.Context, o Options) (*Node, error) {
	n := &Node{opts: o, log: o.Logger, fs: o.FS, started: time.Now(), done: make(chan struct{}), fatal: make(chan error, 1)}
	if n.log == nil {
		n.log = slog.New(slog.DiscardHandler)
	}
	if n.fs == nil {
		n.fs = vfs.OS()
	}
	if err := n.start(ctx); err != nil {
		n.release()
		return nil, err
	}
	n.ready = time.Since(n.started)
	return n, nil
}

func (n *Node) start(ctx context.Context) error {
	var err error
	settings := map[string]string{}
	maps.Copy(settings, n.opts.Settings)
	if err := n.listen(); err != nil {
		return err
	}
	n.describe(settings)
	if n.config, err = config.ParseBroker(settings); err != nil {
		return err
	}
	if err := n.openLocal(); err != nil {
		return err
	}
	n.metrics = newMetrics()
	if err := n.openStore(ctx); err != nil {
		return err
	}
	run, cancel := context.WithCancel(context.Background())
	n.cancel = cancel
	g := newGroup()
	if err := n.join(ctx, run, g); err != nil {
		cancel()
		_ = g.wait()
		return err
	}
	n.metrics.observe(n)
	g.run(func() error { return n.broker.Run(run) })
	g.run(func() error { return n.coordinators.Run(run) })
	g.run(func() error { return n.server.Serve(run, n.kafka) })
	if n.http != nil {
		g.run(func() error { return n.serveHTTP(run, n.http) })
	}
	n.serving.Store(true)
	go n.supervise(cancel, g)
	return nil
}

// supervise ends everything when one part fails, and releases what the node holds.
func (n *Node) supervise(cancel context.CancelFunc, g *group) {
	select {
	case err := <-n.fatal:
		g.fail(err)
	case <-g.ended:
	}
	n.serving.Store(false)
	cancel()
	n.err = errors.Join(g.wait(), n.release())
	close(n.done)
}

// describe puts into the settings what the options say: tools read it off there.
func (n *Node) describe(settings map[string]string) {
	id := strconv.Itoa(int(n.opts.NodeID))
	settings["node.id"], settings["broker.id"] = id, id
	settings["listeners"] = "PLAINTEXT://" + n.kafka.Addr().String()
	settings["advertised.listeners"] = settings["listeners"]
	if n.opts.Advertise != "" {
		settings["advertised.listeners"] = "PLAINTEXT://" + n.opts.Advertise
	}
	settings["log.dirs"] = n.opts.DataDir
}

// listen takes the ports first: that one is in use should be said before anything is opened.
func (n *Node) listen() error {
	var err error
	if n.kafka, err = net.Listen("tcp", n.opts.Listen); err != nil {
		return fmt.Errorf("listen for Kafka clients: %w", err)
	}
	if n.opts.HTTP == "" {
		return nil
	}
	if n.http, err = net.Listen("tcp", n.opts.HTTP); err != nil {
		return fmt.Errorf("listen for HTTP: %w", err)
	}
	return nil
}

// openLocal opens the data directory, which belongs to one process at a time.
func (n *Node) openLocal() error {
	dir := n.opts.DataDir
	if err := n.fs.MkdirAll(dir); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	var err error
	if n.lock, err = n.fs.Lock(filepath.Join(dir, "lock")); err != nil {
		if errors.Is(err, vfs.ErrLocked) {
			return fmt.Errorf("data directory %s is in use by another broker: %w", dir, err)
		}
		return fmt.Errorf("lock data directory: %w", err)
	}
	if err := n.reserve(); err != nil {
		return err
	}
	n.state, err = localstate.Open(filepath.Join(dir, "state"), localstate.Options{Logger: n.log, OnError: n.fail})
	if err != nil {
		return fmt.Errorf("local state: %w", err)
	}
	return nil
}

// reserveSize is the disk space kept for starting on a full disk: the local state cannot be opened without some.
const reserveSize = 64 << 20

// reserve keeps a file of reserveSize while there is room, and gives it up when there is none.
func (n *Node) reserve() error {
	name := filepath.Join(n.opts.DataDir, "reserve")
	_, free, err := n.fs.Usage(n.opts.DataDir)
	if err != nil {
		return fmt.Errorf("free space of the data directory: %w", err)
	}
	_, err = n.fs.Stat(name)
	switch held := err == nil; {
	case held && free < reserveSize:
		n.log.Warn("the disk is full; its reserve is used to start", "free_bytes", free)
		return n.fs.Remove(name)
	case !held && free > 4*reserveSize:
		f, err := n.fs.Create(name)
		if err != nil {
			return fmt.Errorf("reserve of the data directory: %w", err)
		}
		return errors.Join(f.Preallocate(0, reserveSize), f.Close())
	}
	return nil
}

// fail stops the node because a part of it can make no further promise.
func (n *Node) fail(err error) {
	select {
	case n.fatal <- err:
	default: // one reason is enough
	}
}

// probedName remembers which store was found to honour conditional writes, so that the probe is not paid at every start.
const probedName = "probed-store"

func (n *Node) openStore(ctx context.Context) error {
	store := n.opts.ObjectStore
	if store == nil {
		var err error
		if store, err = OpenStore(ctx, n.opts.Store); err != nil {
			return err
		}
	}
	n.store = object.Observe(store, n.metrics.observeStore)
	switch store.(type) {
	case *object.Directory, *object.Memory:
		return nil // our own, whose conditions the conformance suite tests; probing costs hundreds of fsyncs
	}
	return n.probe(ctx)
}

// probe refuses a store that ignores conditional writes. The verdict is remembered for this data directory.
func (n *Node) probe(ctx context.Context) error {
	store := n.store
	known, err := n.state.Get(probedName)
	if err != nil {
		return err
	}
	if string(known) != store.String() {
		err := object.Probe(ctx, store)
		switch {
		case errors.Is(err, object.ErrUnsupported):
			return fmt.Errorf("object store %s cannot be used: %w", store, err)
		case err != nil:
			return fmt.Errorf("object store %s cannot be reached: %w", store, err)
		}
		if err := n.state.Set(probedName, []byte(store.String())); err != nil {
			return err
		}
	}
	return nil
}

// advertised splits the address that clients are told.
func (n *Node) advertised() (host string, port int32, err error) {
	address := n.opts.Advertise
	if address == "" {
		address = n.kafka.Addr().String()
	}
	host, text, err := net.SplitHostPort(address)
	if err != nil {
		return "", 0, fmt.Errorf("advertised address %q: %w", address, err)
	}
	p, err := strconv.ParseUint(text, 10, 16)
	if err != nil {
		return "", 0, fmt.Errorf("advertised address %q: port %q is not a number", address, text)
	}
	if p == 0 {
		p = uint64(n.kafka.Addr().(*net.TCPAddr).Port)
	}
	return host, int32(p), nil
}

// release gives back what start took, in the reverse order. It is called once nothing runs any more.
func (n *Node) release() error {
	var errs []error
	for _, ln := range []net.Listener{n.kafka, n.http} {
		if ln != nil {
			_ = ln.Close()
		}
	}
	if n.cache != nil {
		errs = append(errs, n.footers.Close(), n.cache.Close())
	}
	if n.state != nil {
		errs = append(errs, n.state.Close())
	}
	if n.lock != nil {
		errs = append(errs, n.lock.Close())
	}
	return errors.Join(errs...)
}

// Ready is how long the start took.
func (n *Node) Ready() time.Duration { return n.ready }

// Addr is the address of the Kafka listener, HTTPAddr that of the pages, nil if there are none.
func (n *Node) Addr() net.Addr { return n.kafka.Addr() }

// HTTPAddr is the address of metrics and health.
func (n *Node) HTTPAddr() net.Addr {
	if n.http == nil {
		return nil
	}
	return n.http.Addr()
}

// Wait returns when the node has stopped: nil after Stop, else why.
func (n *Node) Wait() error {
	<-n.done
	return n.err
}

// Stop stops serving, flushes and closes every log, and returns when that is done or ctx ends.
func (n *Node) Stop(ctx context.Context) error {
	n.cancel()
	select {
	case <-n.done:
		return n.err
	case <-ctx.Done():
		return fmt.Errorf("stop: %w", ctx.Err())
	}
}

// group runs the parts of a node; the first that ends, for whatever reason, ends all.
type group struct {
	wg    sync.WaitGroup
	once  sync.Once
	ended chan struct{}
	mu    sync.Mutex
	errs  []error
}

func newGroup() *group { return &group{ended: make(chan struct{})} }

func (g *group) fail(err error) {
	if err != nil && !errors.Is(err, context.Canceled) {
		g.mu.Lock()
		g.errs = append(g.errs, err)
		g.mu.Unlock()
	}
	g.once.Do(func() { close(g.ended) })
}

func (g *group) run(f func() error) {
	g.wg.Go(func() { g.fail(f()) })
}

func (g *group) wait() error {
	g.wg.Wait()
	g.mu.Lock()
	defer g.mu.Unlock()
	return errors.Join(g.errs...)
}
