// Package kafka owns the Kafka protocol: listener, framing, the order of responses, request memory, API versions, one
// file per API key, fetch sessions, and the one table that turns domain errors into Kafka's error codes. It decides
// nothing about records, offsets or topics: that is broker and partition, which it calls. cmd/node starts it.
//
// A connection is two goroutines. The reader takes frames off the socket and runs each request as far as it can go
// without waiting; for Produce that is the append. The writer takes the requests in their order, waits for what is
// still missing (an fsync, bytes to fetch) and sends the response. So a request is processed while earlier ones still
// wait for the disk, and responses leave in request order all the same.
package kafka

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/everlog/everlog/ingest/broker"
	"github.com/everlog/everlog/ingest/coordinators"
)

// Limits that no setting moves.
const (
	// maxInFlight bounds the requests of one connection that are read but not answered.
	maxInFlight = 128
	// maxControlFrame bounds every request but Produce: their arrays decode to many times their bytes.
	maxControlFrame = 4 << 20
	// smallFrame is the size up to which a frame's memory is taken from a part of its own: clients that promise large
	// frames and do not send them must not keep the others waiting.
	smallFrame = 1 << 20
	// smallMemory bounds the bytes of small frames being processed.
	smallMemory = 64 << 20
	// framePiece and pieceTimeout are the slowest pace at which a frame that holds memory may arrive.
	framePiece   = 1 << 20
	pieceTimeout = 10 * time.Second
	// heavyFrame is from where on a request that is no Produce is charged for what its arrays may decode to, heavyFactor times its
	// bytes (measured: up to 72), heaviest at most.
	heavyFrame  = 64 << 10
	heavyFactor = 32
	heaviest    = 32 << 20
	// maxHeldBytes bounds what the requests of one connection that are not answered take, with their answers, beyond the last:
	// heldPerByte of the frame of one that waits, heldPerPartition of a Produce.
	maxHeldBytes     = 8 << 20
	heldPerByte      = 8
	heldPerPartition = 160
	// maxProducePartitions bounds the topics and the partitions of one Produce request, whose arrays take more memory
	// decoded than in the frame.
	maxProducePartitions = 100_000
	// maxHeld bounds the connections that are held back because their address opens too many.
	maxHeld = 1000
	// writeTimeout bounds how long a client may take to accept one piece of a response.
	writeTimeout = 2 * time.Minute
)

// Options of a Server. The zero value is valid.
type Options struct {
	// MaxRequestBytes bounds one frame; Kafka's socket.request.max.bytes. 0 is 100 MiB.
	MaxRequestBytes int32
	// RequestMemory bounds the bytes of all large frames being processed; Kafka's queued.max.request.bytes. 0 is 256 MiB.
	RequestMemory int64
	// MaxConnections bounds the open connections, whenever one comes; Kafka's max.connections. Nil is 10,000.
	MaxConnections func() int
	// IdleTimeout closes a connection without requests; Kafka's connections.max.idle.ms. 0 is ten minutes.
	IdleTimeout time.Duration
	// FetchSessions bounds the incremental fetch sessions; Kafka's max.incremental.fetch.session.cache.slots. 0 is 1000.
	FetchSessions int
	// FetchMaxBytes bounds a fetch response; Kafka's fetch.max.bytes. 0 is 55 MiB.
	FetchMaxBytes int32
	Logger        *slog.Logger
	// Observe is told of every request answered: its API key, the error code of the whole response or 0, and how long it took from frame to response.
	Observe func(key int16, took time.Duration)
}

func (o Options) withDefaults() Options {
	if o.MaxRequestBytes <= 0 {
		o.MaxRequestBytes = 100 << 20
	}
	if o.RequestMemory <= 0 {
		o.RequestMemory = 256 << 20
	}
	o.RequestMemory = max(o.RequestMemory, int64(o.MaxRequestBytes))
	if o.MaxConnections == nil {
		o.MaxConnections = func() int { return 10_000 }
	}
	if o.IdleTimeout <= 0 {
		o.IdleTimeout = 10 * time.Minute
	}
	if o.FetchSessions <= 0 {
		o.FetchSessions = 1000
	}
	if o.FetchMaxBytes <= 0 {
		o.FetchMaxBytes = 57671680
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Observe == nil {
		o.Observe = func(int16, time.Duration) {}
	}
	return o
}

// Server serves the Kafka protocol for one broker. Its methods are safe for concurrent use.
type Server struct {
	broker       *broker.Broker
	coordinators *coordinators.Coordinators
	opts         Options
	log          *slog.Logger
	memory       *semaphore.Weighted // of frames larger than smallFrame
	small        *semaphore.Weighted // of the others
	sessions     *sessionCache
	throttle     *throttles

	held atomic.Int32 // connections that wait to be closed

	mu    sync.Mutex
	conns map[*conn]struct{}
}

// New returns a server for b and the coordinators on it.
func New(b *broker.Broker, c *coordinators.Coordinators, o Options) *Server {
	o = o.withDefaults()
	return &Server{broker: b, coordinators: c, opts: o, log: o.Logger, memory: semaphore.NewWeighted(o.RequestMemory), small: semaphore.NewWeighted(smallMemory), sessions: newSessionCache(o.FetchSessions), throttle: newThrottles(b.Image, b.Config), conns: map[*conn]struct{}{}}
}

// weight is how much memory a request of so many bytes is charged for.
func (s *Server) weight(key int16, size int) int64 {
	if key == keyProduce || size < heavyFrame {
		return int64(size)
	}
	return max(int64(size), min(int64(size)*heavyFactor, heaviest, s.opts.RequestMemory/2))
}

// memoryFor is what a frame's memory is taken from.
func (s *Server) memoryFor(size int) *semaphore.Weighted {
	if size <= smallFrame {
		return s.small
	}
	return s.memory
}

// Connections is the number of open connections.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Serve accepts connections of ln until ctx ends, then closes ln and every connection, and returns when all their
// goroutines have.
func (s *Server) Serve(ctx context.Context, ln net.Listener) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = ln.Close() })
	defer stop()
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	for {
		nc, err := ln.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() || isTemporary(err) {
				s.log.Warn("accept failed; going on", "err", err)
				select {
				case <-ctx.Done():
				case <-time.After(100 * time.Millisecond): // out of file descriptors, most likely: give others time to close theirs
				}
				continue
			}
			return fmt.Errorf("accept on %s: %w", ln.Addr(), err)
		}
		if hold := s.admitConnection(nc.RemoteAddr()); hold > 0 {
			s.turnAway(ctx, &wg, nc, hold)
			continue
		}
		c := newConn(s, nc)
		if !s.add(c) {
			s.log.Warn("connection refused: too many are open", "remote", nc.RemoteAddr().String(), "limit", s.opts.MaxConnections())
			_ = nc.Close()
			continue
		}
		wg.Go(func() {
			defer s.remove(c)
			c.run(ctx)
		})
	}
}

// turnAway closes a connection after a while, or at once if too many wait for that already.
func (s *Server) turnAway(ctx context.Context, wg *sync.WaitGroup, nc net.Conn, hold time.Duration) {
	if s.held.Add(1) > maxHeld {
		s.held.Add(-1)
		_ = nc.Close()
		return
	}
	wg.Go(func() {
		defer s.held.Add(-1)
		select {
		case <-ctx.Done():
		case <-time.After(hold):
		}
		_ = nc.Close()
	})
}

func (s *Server) add(c *conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.conns) >= s.opts.MaxConnections() {
		return false
	}
	s.conns[c] = struct{}{}
	return true
}

func (s *Server) remove(c *conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
}
