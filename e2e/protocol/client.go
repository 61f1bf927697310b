// Package protocol holds the rules of the Kafka protocol as tests: one subtest a rule, named by its section of the protocol
// reference and its words. The same rules run against everlog and, when EVERLOG_PROTOCOL_KAFKA names a program that starts one
// (`PROGRAM start PORT DIR`, as for package harness), against Apache Kafka 4.3.1, so that a rule cannot drift from the original.
// Where everlog differs on purpose the rule says so, with the reason (see differs).
//
// The package owns a raw client too: a connection that sends what it is told, in the version it is told, and hides nothing.
// It knows no retries, no metadata, no versions of its own. Its callers are tests, of this package and of others.
package protocol

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// answerLimit is how long a broker may take to answer anything here; requests that wait on purpose wait for less.
const answerLimit = 20 * time.Second

// Conn is one connection to a broker. Its methods fail the test rather than return errors. Not safe for concurrent use.
type Conn struct {
	t           testing.TB
	conn        net.Conn
	correlation int32
	pending     []int32 // correlation ids of the requests sent and not answered, in order
	formatter   *kmsg.RequestFormatter
}

// Dial connects to a broker. The connection is closed when the test ends.
func Dial(t testing.TB, addr string) *Conn { return DialAs(t, addr, "protocol-suite") }

// DialAs is Dial with another client id in the headers of the requests.
func DialAs(t testing.TB, addr, clientID string) *Conn {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, answerLimit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &Conn{t: t, conn: conn, formatter: kmsg.NewRequestFormatter(kmsg.FormatterClientID(clientID))}
}

// Send writes one request, in the version set in it, and returns without waiting.
func (c *Conn) Send(req kmsg.Request) {
	c.t.Helper()
	frame := c.frame(req)
	c.pending = append(c.pending, c.correlation)
	c.Write(frame)
}

// SendSilent is Send of a request that gets no answer: Produce with acks=0.
func (c *Conn) SendSilent(req kmsg.Request) {
	c.t.Helper()
	c.Write(c.frame(req))
}

// frame is the request with its header and length, under the next correlation id.
func (c *Conn) frame(req kmsg.Request) []byte {
	c.correlation++
	return c.formatter.AppendRequest(nil, req, c.correlation)
}

// Receive reads the answer of the oldest request that Send wrote, which must be req, and returns it decoded. Every byte of the answer must have a meaning: it
// must encode to the same bytes again.
func (c *Conn) Receive(req kmsg.Request) kmsg.Response {
	c.t.Helper()
	body := c.ReceiveBody(req)
	resp := req.ResponseKind()
	resp.SetVersion(req.GetVersion())
	if err := resp.ReadFrom(body); err != nil {
		c.t.Fatalf("%s v%d: the answer does not decode: %v: %x", kmsg.NameForKey(req.Key()), req.GetVersion(), err, body)
	}
	if again := resp.AppendTo(nil); !bytes.Equal(body, again) {
		c.t.Fatalf("%s v%d: the answer is\n%x, which decodes to\n%+v and encodes to\n%x", kmsg.NameForKey(req.Key()), req.GetVersion(), body, resp, again)
	}
	return resp
}

// ReceiveBody is Receive without decoding: the bytes after the header of the answer.
func (c *Conn) ReceiveBody(req kmsg.Request) []byte {
	c.t.Helper()
	frame := c.ReadFrame()
	if len(frame) < 4 {
		c.t.Fatalf("an answer of %d bytes", len(frame))
	}
	got, want := int32(binary.BigEndian.Uint32(frame)), c.pending[0]
	if got != want {
		c.t.Fatalf("%s v%d: answer for request %d, want %d: answers come in the order of requests", kmsg.NameForKey(req.Key()), req.GetVersion(), got, want)
	}
	c.pending = c.pending[1:]
	body := frame[4:]
	// The header of an answer has tagged fields if the request is flexible, but never for ApiVersions.
	if req.IsFlexible() && req.Key() != apiVersions {
		if len(body) == 0 || body[0] != 0 {
			c.t.Fatalf("%s v%d: the header of the answer has tagged fields or none at all: %x", kmsg.NameForKey(req.Key()), req.GetVersion(), body)
		}
		body = body[1:]
	}
	return body
}

const apiVersions = 18

// Ask sends one request and returns its answer.
func Ask[R kmsg.Response](c *Conn, version int16, req kmsg.Request) R {
	c.t.Helper()
	req.SetVersion(version)
	c.Send(req)
	return c.Receive(req).(R)
}

// Write sends bytes as they are.
func (c *Conn) Write(p []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(p); err != nil {
		c.t.Fatalf("write to the broker: %v", err)
	}
}

// WriteFrame sends bytes behind their length.
func (c *Conn) WriteFrame(p []byte) {
	c.t.Helper()
	c.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(p))), p...))
}

// ReadFrame reads one answer, without its length.
func (c *Conn) ReadFrame() []byte {
	c.t.Helper()
	frame, err := c.read()
	if err != nil {
		c.t.Fatalf("read from the broker: %v", err)
	}
	return frame
}

func (c *Conn) read() ([]byte, error) {
	if err := c.conn.SetReadDeadline(time.Now().Add(answerLimit)); err != nil {
		return nil, err
	}
	var length [4]byte
	if _, err := io.ReadFull(c.conn, length[:]); err != nil {
		return nil, err
	}
	frame := make([]byte, binary.BigEndian.Uint32(length[:]))
	_, err := io.ReadFull(c.conn, frame)
	return frame, err
}

// MustBeClosed fails the test unless the broker closes the connection without another byte.
func (c *Conn) MustBeClosed() {
	c.t.Helper()
	frame, err := c.read()
	switch {
	case err == nil:
		c.t.Fatalf("the broker answered %x, want a closed connection", frame)
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.t.Fatalf("the connection is open after %v, want it closed", answerLimit)
	case !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET):
		c.t.Fatalf("read from the broker: %v, want a closed connection", err)
	}
}
