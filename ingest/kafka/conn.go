package kafka

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// readBufferSize lets small requests arrive in one system call; large frames bypass it.
const readBufferSize = 8 << 10

// conn is one client connection.
type conn struct {
	server *Server
	net    net.Conn
	// queue holds the requests read and not yet answered, in order. The reader sends, the writer receives.
	queue chan *call

	// Of the reader goroutine alone:
	clientSoftware string // by ApiVersions v3+

	clientID atomic.Pointer[string] // as the last request gave it
	muted    atomic.Int64           // no request is read before this time, in nanoseconds since 1970 (KIP-219)

	held     atomic.Int64  // bytes of the calls that are not answered
	answered chan struct{} // room for one: held has become less
}

// call is one request, from frame to response.
type call struct {
	conn        *conn
	key         int16
	version     int16
	correlation int32
	clientID    string
	started     time.Time

	// frame holds the request; the reader releases it when the handler returns, unless the handler took it over.
	frame *buffer

	// held is what the request and its answer take in memory, as far as known, until it is answered.
	held int64
	// prompt, if set, says that finish would not wait.
	prompt func() bool
	// finish, if set, waits for what the response needs; the writer runs it. It returns ctx's error when the connection ends.
	finish func(ctx context.Context) error
	// reply is the response; nil means that none is sent (Produce with acks=0).
	reply reply
	// hangUp closes the connection after this request instead of answering it; the reason is logged.
	hangUp error
	// throttle mutes the connection for so long after the request (KIP-219). The handler sets it; what finish finds out
	// goes to conn.mute.
	throttle time.Duration
}

// reply is a response that can be written to a connection.
type reply interface {
	// write sends the body after the header; w has the frame's length computed from size.
	size() int
	write(w *responseWriter) error
	// done is called once, whether or not the response was written.
	done()
}

// client is the client id that the connection's requests carry.
func (c *conn) client() string {
	if id := c.clientID.Load(); id != nil {
		return *id
	}
	return ""
}

func newConn(s *Server, nc net.Conn) *conn {
	return &conn{server: s, net: nc, queue: make(chan *call, maxInFlight), answered: make(chan struct{}, 1)}
}

// run serves the connection until the client leaves, ctx ends, or a request cannot be answered.
func (c *conn) run(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _ = c.net.Close() })
	defer stop()
	var wg sync.WaitGroup
	wg.Go(func() {
		defer cancel() // a failed write ends the reader too
		if err := c.writeLoop(ctx); err != nil && ctx.Err() == nil {
			c.logEnd(err)
		}
	})
	if err := c.readLoop(ctx); err != nil && ctx.Err() == nil {
		c.logEnd(err)
		if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || isReset(err) || errors.Is(err, os.ErrDeadlineExceeded) {
			cancel() // nobody waits for what is still being waited for
		}
	}
	close(c.queue)
	wg.Go(func() { // nothing more is served, but that the client leaves is noticed
		_, _ = io.Copy(io.Discard, c.net) // until the writer's end closes it, or the deadline of an idle connection
		cancel()
	})
	wg.Wait()
}

// logEnd says why a connection ended, unless the client simply left.
func (c *conn) logEnd(err error) {
	if errors.Is(err, io.EOF) || errors.Is(err, net.ErrClosed) || isReset(err) || errors.Is(err, os.ErrDeadlineExceeded) {
		return
	}
	c.server.log.Warn("connection closed", "remote", c.net.RemoteAddr().String(), "client", c.client(), "err", err)
}

func (c *conn) readLoop(ctx context.Context) error {
	r := bufio.NewReaderSize(c.net, readBufferSize)
	for {
		if err := c.net.SetReadDeadline(time.Now().Add(c.server.opts.IdleTimeout)); err != nil {
			return err
		}
		req, err := c.readFrame(ctx, r)
		if err != nil {
			return err
		}
		size, bytes := len(req.frame.p), c.server.weight(req.key, len(req.frame.p))
		c.server.dispatch(ctx, req)
		req.hold(size)
		if req.frame != nil {
			req.frame.release()
			req.frame = nil
		}
		c.server.memoryFor(size).Release(bytes)
		c.mute(req.throttle)
		hangUp := req.hangUp // the writer owns req once it is queued
		if err := c.enqueue(ctx, req); err != nil {
			return err
		}
		if hangUp != nil {
			return nil // the writer says why, behind the answers before it
		}
	}
}

// mute lets no request be read from the connection for so long. Safe for concurrent use; the longest mute holds.
func (c *conn) mute(d time.Duration) {
	if d <= 0 {
		return
	}
	until := time.Now().Add(d).UnixNano()
	for {
		old := c.muted.Load()
		if old >= until || c.muted.CompareAndSwap(old, until) {
			return
		}
	}
}

// awaitUnmuted returns when the connection is not muted any more.
func (c *conn) awaitUnmuted(ctx context.Context) error {
	for {
		left := time.Until(time.Unix(0, c.muted.Load()))
		if left <= 0 {
			return nil
		}
		select {
		case <-time.After(left):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// readFrame reads one request, its size checked and its memory reserved before any of it is read.
func (c *conn) readFrame(ctx context.Context, r *bufio.Reader) (*call, error) {
	// The size is judged before another byte is waited for: what is too short or too long may never send one.
	head, err := r.Peek(4)
	if err == nil {
		if size := int32(binary.BigEndian.Uint32(head)); size < 8 || size > c.server.opts.MaxRequestBytes {
			return nil, fmt.Errorf("%w: request of %d bytes, allowed are 8 to %d", errMalformed, size, c.server.opts.MaxRequestBytes)
		}
		head, err = r.Peek(4 + 8) // size, API key, version, correlation id
	}
	if err != nil {
		if len(head) > 0 && errors.Is(err, io.EOF) {
			return nil, fmt.Errorf("%w: %d bytes, then the end", errMalformed, len(head))
		}
		return nil, err
	}
	size := int32(binary.BigEndian.Uint32(head))
	req := &call{conn: c, key: int16(binary.BigEndian.Uint16(head[4:])), version: int16(binary.BigEndian.Uint16(head[6:])), correlation: int32(binary.BigEndian.Uint32(head[8:]))}
	limit := c.server.opts.MaxRequestBytes
	if req.key != keyProduce {
		limit = min(limit, maxControlFrame)
	}
	if size < 8 || size > limit {
		return nil, fmt.Errorf("%w: request (API key %d) of %d bytes, allowed are 8 to %d", errMalformed, req.key, size, limit)
	}
	// The head of a request is waited for first: a client that leaves while it is muted is noticed, and holds no memory.
	if err := c.awaitUnmuted(ctx); err != nil {
		return nil, err
	}
	if err := c.awaitAnswers(ctx); err != nil {
		return nil, err
	}
	memory, bytes := c.server.memoryFor(int(size)), c.server.weight(req.key, int(size))
	if err := memory.Acquire(ctx, bytes); err != nil {
		return nil, err
	}
	_, _ = r.Discard(4) // peeked before
	req.frame = getBuffer(int(size))
	if err := c.fill(r, req.frame.p); err != nil {
		req.frame.release()
		memory.Release(bytes)
		return nil, err
	}
	req.started = time.Now()
	return req, nil
}

// fill reads a frame whose memory is held: a client that stops in the middle must not hold it for as long as an idle one
// may stay.
func (c *conn) fill(r *bufio.Reader, p []byte) error {
	for len(p) > 0 {
		if err := c.net.SetReadDeadline(time.Now().Add(pieceTimeout)); err != nil {
			return err
		}
		n, err := io.ReadFull(r, p[:min(len(p), framePiece)])
		if err != nil {
			return err
		}
		p = p[n:]
	}
	return nil
}

// writeLoop answers the queued requests in order.
func (c *conn) writeLoop(ctx context.Context) error {
	w := newResponseWriter(c.net)
	defer w.close()
	var failed error
	for req := range c.queue {
		if failed == nil {
			failed = c.answer(ctx, w, req)
		}
		if req.reply != nil {
			req.reply.done()
		}
		c.held.Add(-req.held)
		select {
		case c.answered <- struct{}{}:
		default:
		}
		if failed != nil {
			_ = c.net.Close() // the reader ends; what is queued is drained so that replies give back what they hold
		}
	}
	return failed
}

func (c *conn) answer(ctx context.Context, w *responseWriter, req *call) error {
	if req.finish != nil {
		if len(c.queue) == 0 || req.prompt == nil || !req.prompt() {
			if err := w.flush(); err != nil { // nothing already answered waits behind what is not ready
				return err
			}
		}
		if err := req.finish(ctx); err != nil {
			return err
		}
	}
	if req.hangUp != nil {
		_ = w.flush()
		return req.hangUp
	}
	if req.reply != nil {
		if err := w.frame(req); err != nil {
			return err
		}
	}
	c.server.opts.Observe(req.key, time.Since(req.started))
	if len(c.queue) == 0 {
		return w.flush()
	}
	return nil
}

// enqueue hands a request to the writer. While the queue is full nothing is read, so a client that has left is not noticed:
// that lasts no longer than an idle connection may.
func (c *conn) enqueue(ctx context.Context, req *call) error {
	select {
	case c.queue <- req:
		return nil
	default:
	}
	t := time.NewTimer(c.server.opts.IdleTimeout)
	defer t.Stop()
	select {
	case c.queue <- req:
		return nil
	case <-t.C:
		return os.ErrDeadlineExceeded
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hold counts what the call, which is about to be queued, keeps in memory until it is answered; the request's frame had so many
// bytes.
func (c *call) hold(size int) {
	if c.finish != nil && c.key != keyProduce {
		c.held += int64(size) * heldPerByte
	}
	if m, ok := c.reply.(message); ok {
		c.held += int64(len(m))
	}
	c.conn.held.Add(c.held)
}

// awaitAnswers returns when what waits to be answered leaves room for another request: a client that sends and does not read
// would have answers pile up.
func (c *conn) awaitAnswers(ctx context.Context) error {
	if c.held.Load() <= maxHeldBytes {
		return nil
	}
	t := time.NewTimer(c.server.opts.IdleTimeout)
	defer t.Stop()
	for c.held.Load() > maxHeldBytes {
		select {
		case <-c.answered:
		case <-t.C:
			return os.ErrDeadlineExceeded
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}
