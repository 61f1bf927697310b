package kafka

import (
	"context"
	"errors"
	"net"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/cluster/group"
	"github.com/everlog/everlog/ingest/coordinators"
)

// later has the writer answer c when the shard has answered the event; the reader goes on meanwhile. answer gets the
// event's answer, or the code to give instead.
func (s *Server) later(c *call, shard *coordinator.Shard, err error, event any, answer func(v any, code int16) kmsg.Response) {
	if err != nil {
		c.reply = newMessage(answer(nil, codeOf(err)))
		return
	}
	started := shard.Start(event)
	c.finish = func(ctx context.Context) error {
		v, err := started.Wait(ctx)
		if ctx.Err() != nil {
			shard.Forget(started)
			return ctx.Err()
		}
		c.reply = newMessage(answer(v, codeOf(err)))
		return nil
	}
}

// laterAll has the writer answer c after wait, which may ask several shards.
func (s *Server) laterAll(c *call, wait func(ctx context.Context) (kmsg.Response, error)) {
	c.finish = func(ctx context.Context) error {
		resp, err := wait(ctx)
		if err != nil {
			return err
		}
		c.reply = newMessage(resp)
		return nil
	}
}

// groupRequest is a request as the group's coordinator takes it.
func groupRequest(c *call, body kmsg.Request) group.Request {
	return group.Request{Client: group.Client{ID: c.clientID, Host: c.conn.host()}, Body: body, Version: c.version}
}

// host is the client's address as Kafka shows it.
func (c *conn) host() string {
	host, _, err := net.SplitHostPort(c.net.RemoteAddr().String())
	if err != nil {
		host = c.net.RemoteAddr().String()
	}
	return "/" + host
}

// FindCoordinator (key 10, v0-6; KIP-98, KIP-699, KIP-890). It makes the internal topic if it is not there.
func (s *Server) findCoordinator(ctx context.Context, _ *call, req *kmsg.FindCoordinatorRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.FindCoordinatorResponse)
	keys := req.CoordinatorKeys
	if req.Version < 4 {
		keys = []string{req.CoordinatorKey}
	}
	for _, key := range keys {
		resp.Coordinators = append(resp.Coordinators, s.coordinatorOf(ctx, req.CoordinatorType, key))
	}
	if req.Version < 4 {
		co := resp.Coordinators[0]
		resp.Coordinators = nil
		resp.ErrorCode, resp.ErrorMessage, resp.NodeID, resp.Host, resp.Port = co.ErrorCode, co.ErrorMessage, co.NodeID, co.Host, co.Port
	}
	return resp, nil
}

// Types of coordinators.
const (
	coordinatesGroup = 0
	coordinatesTxn   = 1
)

func (s *Server) coordinatorOf(ctx context.Context, kind int8, key string) kmsg.FindCoordinatorResponseCoordinator {
	co := kmsg.NewFindCoordinatorResponseCoordinator()
	co.Key, co.NodeID, co.Port = key, -1, -1
	topic := map[int8]string{coordinatesGroup: coordinators.OffsetsTopic, coordinatesTxn: coordinators.TxnTopic}[kind]
	if topic == "" { // share groups among them
		co.ErrorCode, co.ErrorMessage = codeInvalidRequest, messageOf(errors.New("there is no such type of coordinator here"))
		return co
	}
	ctx, cancel := context.WithTimeout(ctx, coordinatorTimeout)
	defer cancel()
	b, err := s.coordinators.Leader(ctx, topic, key)
	if err != nil {
		co.ErrorCode, co.ErrorMessage = codeOf(err), messageOf(err)
		return co
	}
	co.NodeID, co.Host, co.Port = b.ID, b.Host, b.Port
	empty := ""
	co.ErrorMessage = &empty
	return co
}
