package protocol

import (
	"bytes"
	"encoding/binary"
	"net"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// header is a request header of version 1: no tagged fields.
func header(key, version int16, correlation int32, clientID string) []byte {
	p := binary.BigEndian.AppendUint16(nil, uint16(key))
	p = binary.BigEndian.AppendUint16(p, uint16(version))
	p = binary.BigEndian.AppendUint32(p, uint32(correlation))
	p = binary.BigEndian.AppendUint16(p, uint16(len(clientID)))
	return append(p, clientID...)
}

// mustServe fails the test unless the broker answers on the connection.
func mustServe(c *Conn) {
	c.t.Helper()
	wantCode(c.t, "ApiVersions", Ask[*kmsg.ApiVersionsResponse](c, 0, kmsg.NewPtrApiVersionsRequest()).ErrorCode, nil)
}

// closes sends a frame that cannot be served and wants the connection closed and the broker alive.
func closes(t *testing.T, b *broker, frame []byte) {
	t.Helper()
	c := b.dial(t)
	c.WriteFrame(frame)
	c.MustBeClosed()
	mustServe(b.dial(t))
}

// closesStream is closes for bytes that are not a frame.
func closesStream(t *testing.T, b *broker, p []byte) {
	t.Helper()
	c := b.dial(t)
	c.Write(p)
	c.MustBeClosed()
	mustServe(b.dial(t))
}

var framingRules = []rule{
	{"§2.3", "ApiVersions at an unknown version: answer in v0 encoding, UNSUPPORTED_VERSION, with ApiKeys holding only key 18 and its range", func(t *testing.T, b *broker) {
		for _, version := range []int16{5, 127} {
			c := b.dial(t)
			c.WriteFrame(append(header(apiVersions, version, 77, "x"), 0, 0xff, 0xff, 0xff, 0xff)) // no tagged fields; the body must not be parsed
			answer := c.ReadFrame()
			want := []byte{0, 0, 0, 77, 0, 35, 0, 0, 0, 1, 0, 18, 0, 0, 0, 4}
			if !bytes.Equal(answer, want) {
				t.Errorf("version %d: the answer is %x, want %x", version, answer, want)
			}
			mustServe(c)
		}
	}},
	{"§2.3", "ApiVersions v3+: ClientSoftwareName and Version must match [a-zA-Z0-9](?:[a-zA-Z0-9-.]*[a-zA-Z0-9])?, else INVALID_REQUEST", func(t *testing.T, b *broker) {
		c := b.dial(t)
		for _, name := range []struct {
			name, version string
			err           *kerr.Error
		}{
			{"apache-kafka-java", "4.3.1", nil}, {"a", "1", nil}, {"a.b-c", "v1.0-rc.1", nil},
			{"", "1", kerr.InvalidRequest}, {"a", "", kerr.InvalidRequest}, {"-a", "1", kerr.InvalidRequest}, {"a.", "1", kerr.InvalidRequest},
			{"a b", "1", kerr.InvalidRequest}, {"a", "1_0", kerr.InvalidRequest}, {"a", "1.0-", kerr.InvalidRequest}, {"ä", "1", kerr.InvalidRequest},
		} {
			for _, version := range []int16{3, 4} {
				req := kmsg.NewPtrApiVersionsRequest()
				req.ClientSoftwareName, req.ClientSoftwareVersion = name.name, name.version
				wantCode(t, name.name+" "+name.version, Ask[*kmsg.ApiVersionsResponse](c, version, req).ErrorCode, name.err)
			}
		}
	}},
	{"§2.3", "unknown API key: close the connection, no error response", func(t *testing.T, b *broker) {
		for _, key := range []int16{-1, 4, 7, 999} { // 4 to 7 have no versions in 4.x
			closes(t, b, header(key, 0, 1, "x"))
		}
	}},
	{"§2.3", "a known key at an unsupported version: close the connection, no error response", func(t *testing.T, b *broker) {
		for _, r := range []struct{ key, version int16 }{{1, 3}, {1, 19}, {2, 0}, {2, 12}, {3, 14}, {3, -1}, {19, 1}, {20, 0}, {23, 1}, {32, 0}, {35, 0}, {60, 3}} {
			closes(t, b, header(r.key, r.version, 1, "x"))
		}
	}},
	{"§2.1", "Produce 0 to 2 are advertised, and close the connection when they are sent", func(t *testing.T, b *broker) {
		for version := range int16(3) {
			closes(t, b, append(header(0, version, 1, "x"), 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0))
		}
		closes(t, b, header(0, 14, 1, "x"))
	}},
	{"§2.3", "an undecodable body: close the connection, no error response", func(t *testing.T, b *broker) {
		for _, frame := range [][]byte{
			append(header(3, 1, 1, "x"), 0x7f, 0xff, 0xff, 0xff), // two billion topics in four bytes
			append(header(3, 1, 1, "x"), 0, 0, 0, 1, 0, 9, 'a'),  // a string that ends after the frame
			header(3, 1, 1, "x"),                                          // no body at all
			append(header(1, 4, 1, "x"), 1, 2, 3),                         // half of a Fetch
			append(header(0, 9, 1, "x"), 0, 0, 0, 0xff, 0xff, 0xff, 0xff), // a varint without end
			append(header(2, 6, 1, "x"), 0, 0xff, 0xff, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0x0f),
		} {
			closes(t, b, frame)
		}
	}},
	{"§2.3", "a header that is cut or false: close the connection", func(t *testing.T, b *broker) {
		for _, frame := range [][]byte{
			{}, {0}, {0, 3}, {0, 3, 0, 1, 0, 0, 0}, {0, 3, 0, 1, 0, 0, 0, 1}, // ends before the client id
			{0, 3, 0, 1, 0, 0, 0, 1, 0, 50, 'x'},           // a client id that ends after the frame
			append(header(3, 9, 1, "x"), 0xff, 0xff, 0xff), // tagged fields without end
		} {
			closes(t, b, frame)
		}
	}},
	{"§2.4", "a frame longer than socket.request.max.bytes 104857600, or of negative length: close the connection, without waiting for its bytes", func(t *testing.T, b *broker) {
		closesStream(t, b, []byte{0x06, 0x40, 0x00, 0x01}) // 104857601
		closesStream(t, b, []byte{0x7f, 0xff, 0xff, 0xff})
		closesStream(t, b, []byte{0xff, 0xff, 0xff, 0xff})
		closesStream(t, b, []byte{0x80, 0x00, 0x00, 0x00})
		closesStream(t, b, []byte("GET / HTTP/1.1\r\n\r\n"))                                         // 0x47455420 bytes
		closesStream(t, b, []byte{0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03}) // a TLS hello
	}},
	{"§2.3", "a frame may come in any pieces, and many frames in one", func(t *testing.T, b *broker) {
		c := b.dial(t)
		req := kmsg.NewPtrMetadataRequest()
		req.SetVersion(9)
		req.Topics = []kmsg.MetadataRequestTopic{}
		for _, p := range c.frame(req) {
			c.Write([]byte{p})
		}
		c.pending = append(c.pending, c.correlation)
		c.Receive(req)
		var many []byte
		for range 50 {
			many = append(many, c.frame(req)...)
			c.pending = append(c.pending, c.correlation)
		}
		c.Write(many)
		for range 50 {
			c.Receive(req)
		}
	}},
	{"§2.3", "a client that leaves in the middle of a frame harms nobody", func(t *testing.T, b *broker) {
		size := differs(b, uint32(1<<20), 96<<20, "Kafka takes the memory for a frame before its bytes have come, and has no limit on all frames together")
		for range 20 {
			conn, err := net.Dial("tcp", b.addr)
			if err != nil {
				t.Fatal(err)
			}
			conn.Write(append(binary.BigEndian.AppendUint32(nil, size), header(0, 9, 1, "x")...))
			conn.Close()
		}
		mustServe(b.dial(t))
	}},
	{"§2.3", "the client id of a request header may be null, or empty", func(t *testing.T, b *broker) {
		c := b.dial(t)
		c.WriteFrame([]byte{0, 18, 0, 0, 0, 0, 0, 5, 0xff, 0xff})
		c.WriteFrame([]byte{0, 18, 0, 0, 0, 0, 0, 6, 0, 0})
		for _, correlation := range []byte{5, 6} {
			if answer := c.ReadFrame(); !bytes.HasPrefix(answer, []byte{0, 0, 0, correlation, 0, 0}) {
				t.Errorf("the answer begins with %x, want no error for request %d", answer[:min(8, len(answer))], correlation)
			}
		}
	}},
	{"§2.3", "unknown tagged fields, of a header or of a body, are ignored", func(t *testing.T, b *broker) {
		c := b.dial(t)
		tag := []byte{1, 0xe7, 0x07, 2, 'h', 'i'} // one field: tag 999, two bytes
		frame := append(header(3, 9, 8, "x"), tag...)
		frame = append(frame, 1, 0, 0, 0) // no topics; not to be created; no authorized operations
		c.WriteFrame(append(frame, tag...))
		if answer := c.ReadFrame(); !bytes.HasPrefix(answer, []byte{0, 0, 0, 8, 0}) {
			t.Errorf("the answer begins with %x, want request 8", answer[:min(8, len(answer))])
		}
	}},
	{"§2.3", "SupportedFeatures whose MinVersion is 0 are left out below version 4, and sent in it", func(t *testing.T, b *broker) {
		c := b.dial(t)
		for _, version := range []int16{3, 4} {
			req := kmsg.NewPtrApiVersionsRequest()
			req.ClientSoftwareName, req.ClientSoftwareVersion = "suite", "1"
			resp := Ask[*kmsg.ApiVersionsResponse](c, version, req)
			zeros := 0
			for _, f := range resp.SupportedFeatures {
				if f.MinVersion == 0 {
					zeros++
				}
			}
			if version == 3 && zeros != 0 {
				t.Errorf("version 3 has %d features with MinVersion 0: %+v", zeros, resp.SupportedFeatures)
			}
			// Tools read the version of the cluster off the finalized metadata.version.
			found := false
			for _, f := range resp.FinalizedFeatures {
				want(t, f.Name+" MinVersionLevel", f.MinVersionLevel, f.MaxVersionLevel)
				if f.MaxVersionLevel == 0 {
					t.Errorf("%s is finalized at level 0", f.Name)
				}
				found = found || f.Name == "metadata.version" && f.MaxVersionLevel >= 25
			}
			if !found || resp.FinalizedFeaturesEpoch < 0 {
				t.Errorf("version %d: finalized features %+v at epoch %d, want metadata.version of a 4.x cluster", version, resp.FinalizedFeatures, resp.FinalizedFeaturesEpoch)
			}
		}
	}},
}
