package kafka

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// writeBufferSize is what one system call sends at most: large enough to be cheap, small enough to stay in a core's
// second-level cache between the read that fills it and the write that sends it.
const writeBufferSize = 256 << 10

// responseWriter collects response bytes and sends them in large pieces. The buffer is taken from a pool when there is
// something to send and given back on flush, so that idle connections hold none.
type responseWriter struct {
	conn net.Conn
	buf  *buffer
	n    int
}

func newResponseWriter(c net.Conn) *responseWriter { return &responseWriter{conn: c} }

func (w *responseWriter) close() {
	w.buf.release()
	w.buf, w.n = nil, 0
}

// room returns the free part of the buffer, at least n bytes of it, sending what is collected if need be. n must not
// exceed writeBufferSize.
func (w *responseWriter) room(n int) ([]byte, error) {
	if w.buf != nil && len(w.buf.p)-w.n >= n {
		return w.buf.p[w.n:], nil
	}
	if w.n > 0 {
		if err := w.send(); err != nil {
			return nil, err
		}
	}
	if w.buf == nil || len(w.buf.p) < n {
		w.buf.release()
		size := writeBufferSize
		if n <= 4<<10 {
			size = 4 << 10 // most responses; fetches and large ones take the large buffer
		}
		w.buf = getBuffer(size)
	}
	return w.buf.p, nil
}

// Write collects p.
func (w *responseWriter) Write(p []byte) (int, error) {
	total := len(p)
	for len(p) > 0 {
		dst, err := w.room(min(len(p), writeBufferSize))
		if err != nil {
			return 0, err
		}
		n := copy(dst, p)
		w.n, p = w.n+n, p[n:]
	}
	return total, nil
}

// copyAt collects size bytes of r from position on, read straight into the buffer.
func (w *responseWriter) copyAt(r io.ReaderAt, position, size int64) error {
	for size > 0 {
		dst, err := w.room(int(min(size, writeBufferSize/4)))
		if err != nil {
			return err
		}
		n, err := r.ReadAt(dst[:min(size, int64(len(dst)))], position)
		if n == 0 {
			if err == nil || errors.Is(err, io.EOF) {
				err = io.ErrUnexpectedEOF
			}
			return err
		}
		w.n += n
		position, size = position+int64(n), size-int64(n)
	}
	return nil
}

// vectorSize is from where on blocks of memory are sent as they lie, instead of being copied into the buffer.
const vectorSize = 64 << 10

// writeBlocks sends what is collected and the blocks behind it with one system call, or collects them if they are small.
func (w *responseWriter) writeBlocks(blocks [][]byte, size int64) error {
	if size < vectorSize {
		for _, b := range blocks {
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
		return nil
	}
	v := make(net.Buffers, 0, 1+len(blocks))
	if w.n > 0 {
		v = append(v, w.buf.p[:w.n])
	}
	v = append(v, blocks...)
	if err := w.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := v.WriteTo(w.conn)
	w.n = 0
	return err
}

func (w *responseWriter) send() error {
	if err := w.conn.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return err
	}
	_, err := w.conn.Write(w.buf.p[:w.n])
	w.n = 0
	return err
}

// flush sends what is collected and gives the buffer back.
func (w *responseWriter) flush() error {
	if w.buf == nil {
		return nil
	}
	var err error
	if w.n > 0 {
		err = w.send()
	}
	w.buf.release()
	w.buf = nil
	return err
}

// frame writes one response: length, header, body.
func (w *responseWriter) frame(req *call) error {
	header := make([]byte, 0, 16)
	size := 4 + req.reply.size()
	flexible := flexibleResponse(req.key, req.version)
	if flexible {
		size++
	}
	header = binary.BigEndian.AppendUint32(header, uint32(size))
	header = binary.BigEndian.AppendUint32(header, uint32(req.correlation))
	header = appendNoTags(header, flexible)
	if _, err := w.Write(header); err != nil {
		return err
	}
	return req.reply.write(w)
}

// message is the reply that most requests have: a response of kmsg, encoded when the reply is made.
type message []byte

func newMessage(r kmsg.Response) message { return r.AppendTo(make([]byte, 0, 256)) }

func (m message) size() int { return len(m) }
func (m message) done()     {}
func (m message) write(w *responseWriter) error {
	_, err := w.Write(m)
	return err
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}
