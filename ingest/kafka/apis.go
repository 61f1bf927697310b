package kafka

import (
	"bytes"
	"context"
	"fmt"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// API keys that the code names.
const (
	keyProduce     int16 = 0
	keyFetch       int16 = 1
	keyApiVersions int16 = 18
)

// api is one row of the table of what is served.
type api struct {
	min, max int16
	// advertisedMin is min, except for Produce (librdkafka below 2.11.1 sends uncompressed if it is not 0: KAFKA-18659).
	advertisedMin int16
	handle        func(s *Server, ctx context.Context, c *call, body []byte) error
}

// serve makes a row of a handler for one of kmsg's requests. The handler runs on the reader goroutine. An error closes
// the connection.
func serve[R kmsg.Request](min, max int16, handler func(s *Server, ctx context.Context, c *call, req R) (kmsg.Response, error)) api {
	return api{min: min, max: max, advertisedMin: min, handle: func(s *Server, ctx context.Context, c *call, body []byte) error {
		req := kmsg.RequestForKey(c.key).(R)
		req.SetVersion(c.version)
		err := error(nil)
		if req.IsFlexible() {
			err = wellFormed(c.key, c.version, body)
		}
		if err == nil {
			err = req.ReadFrom(body)
		}
		if err != nil {
			return fmt.Errorf("%w: %s v%d from client %q: %w", errMalformed, kmsg.NameForKey(c.key), c.version, c.clientID, err)
		}
		resp, err := handler(s, ctx, c, req)
		if err != nil {
			return err
		}
		if resp != nil {
			c.reply = newMessage(resp)
		}
		return nil
	}}
}

// serveKept is serve for requests that live on after the handler, in a coordinator: their bytes are not the frame's, which
// is used again.
func serveKept[R kmsg.Request](min, max int16, handler func(s *Server, ctx context.Context, c *call, req R) (kmsg.Response, error)) api {
	a := serve(min, max, handler)
	handle := a.handle
	a.handle = func(s *Server, ctx context.Context, c *call, body []byte) error {
		return handle(s, ctx, c, bytes.Clone(body))
	}
	return a
}

// apis is every API served, by key. It is filled by init so that the ApiVersions handler can read it.
var apis map[int16]api

func init() {
	apis = map[int16]api{
		8:              serveKept(2, 10, (*Server).offsetCommit),
		9:              serveKept(1, 10, (*Server).offsetFetch),
		11:             serveKept(0, 9, (*Server).joinGroup),
		12:             serveKept(0, 4, (*Server).heartbeat),
		13:             serveKept(0, 5, (*Server).leaveGroup),
		14:             serveKept(0, 5, (*Server).syncGroup),
		15:             serve(0, 6, (*Server).describeGroups),
		16:             serve(0, 5, (*Server).listGroups),
		24:             serveKept(0, 5, (*Server).addPartitionsToTxn),
		25:             serveKept(0, 4, (*Server).addOffsetsToTxn),
		26:             serveKept(0, 5, (*Server).endTxn),
		27:             serve(1, 2, (*Server).writeTxnMarkers),
		28:             serveKept(0, 5, (*Server).txnOffsetCommit),
		42:             serve(0, 2, (*Server).deleteGroups),
		47:             serveKept(0, 0, (*Server).offsetDelete),
		61:             serve(0, 0, (*Server).describeProducers),
		65:             serve(0, 0, (*Server).describeTransactions),
		66:             serve(0, 2, (*Server).listTransactions),
		68:             serveKept(0, 1, (*Server).consumerGroupHeartbeat),
		69:             serve(0, 1, (*Server).consumerGroupDescribe),
		keyProduce:     {min: 3, max: 13, advertisedMin: 0, handle: (*Server).produce},
		keyFetch:       serve(4, 18, (*Server).fetch),
		2:              serveKept(1, 11, (*Server).listOffsets),
		3:              serve(0, 13, (*Server).metadata),
		10:             serve(0, 6, (*Server).findCoordinator),
		keyApiVersions: serve(0, 4, (*Server).apiVersions),
		19:             serve(2, 7, (*Server).createTopics),
		20:             serve(1, 6, (*Server).deleteTopics),
		21:             serveKept(0, 2, (*Server).deleteRecords),
		22:             serve(0, 5, (*Server).initProducerID),
		23:             serve(2, 4, (*Server).offsetForLeaderEpoch),
		29:             serve(1, 3, (*Server).describeACLs),
		30:             serve(1, 3, (*Server).createACLs),
		31:             serve(1, 3, (*Server).deleteACLs),
		32:             serve(1, 4, (*Server).describeConfigs),
		33:             serve(0, 2, (*Server).alterConfigs),
		35:             serve(1, 5, (*Server).describeLogDirs),
		37:             serve(0, 3, (*Server).createPartitions),
		43:             serve(0, 2, (*Server).electLeaders),
		44:             serve(0, 1, (*Server).incrementalAlterConfigs),
		45:             serve(0, 1, (*Server).alterPartitionReassignments),
		46:             serve(0, 0, (*Server).listPartitionReassignments),
		48:             serve(0, 1, (*Server).describeClientQuotas),
		49:             serve(0, 1, (*Server).alterClientQuotas),
		55:             serve(0, 2, (*Server).describeQuorum),
		60:             serve(0, 2, (*Server).describeCluster),
		74:             serve(0, 1, (*Server).listConfigResources),
		75:             serve(0, 0, (*Server).describeTopicPartitions),
	}
}

// flexibleRequest reports whether a request's header is version 2, with tagged fields.
func flexibleRequest(key, version int16) bool {
	r := kmsg.RequestForKey(key)
	if r == nil {
		return false
	}
	r.SetVersion(version)
	return r.IsFlexible()
}

// flexibleResponse reports whether a response's header has tagged fields; ApiVersions' never has (KIP-511).
func flexibleResponse(key, version int16) bool {
	return key != keyApiVersions && flexibleRequest(key, version)
}

// dispatch decodes the header of c and runs its handler. What cannot be served sets c.hangUp.
func (s *Server) dispatch(ctx context.Context, c *call) {
	if err := s.handle(ctx, c); err != nil {
		c.hangUp = err
	}
}

func (s *Server) handle(ctx context.Context, c *call) error {
	a, known := apis[c.key]
	if !known {
		return fmt.Errorf("%w: API key %d is not served", errMalformed, c.key)
	}
	if c.key == keyApiVersions && (c.version < a.min || c.version > a.max) {
		c.reply = newMessage(unsupportedApiVersions())
		return nil
	}
	if c.version < a.min || c.version > a.max {
		return fmt.Errorf("%w: %s version %d is not served, %d to %d are", errMalformed, kmsg.NameForKey(c.key), c.version, a.min, a.max)
	}
	r := wireReader{p: c.frame.p[8:]}
	id, _ := r.nullableString(false)
	if r.err == nil {
		r.tags(flexibleRequest(c.key, c.version))
	}
	if r.err != nil {
		return fmt.Errorf("%w: header of %s v%d", errMalformed, kmsg.NameForKey(c.key), c.version)
	}
	if c.clientID = c.conn.client(); c.clientID != string(id) {
		name := string(id) // of its own: a pointer into the call would keep its answer as long as the connection
		c.clientID = name
		c.conn.clientID.Store(&name)
	}
	return a.handle(s, ctx, c, r.p)
}

// millis is d in whole milliseconds, as the protocol has durations.
func millis(d time.Duration) int32 { return int32(d / time.Millisecond) }
