package scale

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"time"

	"github.com/twmb/franz-go/pkg/kbin"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// conn speaks the protocol over one connection, one request at a time: a member costs a connection and a goroutine, as that
// of a real consumer does, and little else.
type conn struct {
	net.Conn
	correlation int32
}

func dial(addr string) (*conn, error) {
	c, err := net.DialTimeout("tcp", addr, 10*time.Second)
	if err != nil {
		return nil, err
	}
	return &conn{Conn: c}, nil
}

var formatter = kmsg.NewRequestFormatter(kmsg.FormatterClientID("scale"))

// ask sends a request and decodes the answer.
func (c *conn) ask(req kmsg.Request) (kmsg.Response, error) {
	c.correlation++
	if err := c.SetDeadline(time.Now().Add(2 * time.Minute)); err != nil {
		return nil, err
	}
	if _, err := c.Write(formatter.AppendRequest(nil, req, c.correlation)); err != nil {
		return nil, err
	}
	var size [4]byte
	if _, err := io.ReadFull(c, size[:]); err != nil {
		return nil, err
	}
	body := make([]byte, binary.BigEndian.Uint32(size[:]))
	if _, err := io.ReadFull(c, body); err != nil {
		return nil, err
	}
	r := kbin.Reader{Src: body}
	if got := r.Int32(); got != c.correlation {
		return nil, fmt.Errorf("answer %d to request %d", got, c.correlation)
	}
	if req.IsFlexible() {
		kmsg.SkipTags(&r)
	}
	resp := req.ResponseKind()
	return resp, resp.ReadFrom(r.Src)
}

// member is one member of a classic group.
type member struct {
	*conn
	group      string
	id         string
	generation int32
	leader     bool
	others     []kmsg.JoinGroupResponseMember
	size       int // members of the generation, as the leader saw them
}

// join takes part in one rebalance and returns when the member is assigned.
func (m *member) join() error {
	for {
		err := m.joinOnce()
		if err == nil {
			err = m.sync()
		}
		switch err {
		case nil:
			return nil
		case kerr.RebalanceInProgress, kerr.MemberIDRequired, kerr.CoordinatorLoadInProgress, kerr.NotCoordinator:
		case kerr.IllegalGeneration, kerr.UnknownMemberID:
			m.id = ""
		default:
			return fmt.Errorf("member of %s: %w", m.group, err)
		}
	}
}

func (m *member) joinOnce() error {
	req := kmsg.NewPtrJoinGroupRequest()
	req.Version, req.Group, req.MemberID, req.ProtocolType = 7, m.group, m.id, "consumer"
	req.SessionTimeoutMillis, req.RebalanceTimeoutMillis = 60_000, 60_000
	p := kmsg.NewJoinGroupRequestProtocol()
	subscription := kmsg.NewConsumerMemberMetadata()
	subscription.Topics = []string{"t"}
	p.Name, p.Metadata = "range", subscription.AppendTo(nil)
	req.Protocols = []kmsg.JoinGroupRequestProtocol{p}
	answer, err := m.ask(req)
	if err != nil {
		return err
	}
	resp := answer.(*kmsg.JoinGroupResponse)
	m.id, m.generation, m.others = resp.MemberID, resp.Generation, resp.Members
	m.leader = resp.LeaderID == resp.MemberID
	return kerr.ErrorForCode(resp.ErrorCode)
}

func (m *member) sync() error {
	req := kmsg.NewPtrSyncGroupRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 5, m.group, m.id, m.generation
	kind, name := "consumer", "range"
	req.ProtocolType, req.Protocol = &kind, &name
	if m.leader {
		m.size = len(m.others)
		for _, o := range m.others {
			a := kmsg.NewSyncGroupRequestGroupAssignment()
			a.MemberID, a.MemberAssignment = o.MemberID, []byte{0, 1}
			req.GroupAssignment = append(req.GroupAssignment, a)
		}
	}
	answer, err := m.ask(req)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(answer.(*kmsg.SyncGroupResponse).ErrorCode)
}

func (m *member) heartbeat() error {
	req := kmsg.NewPtrHeartbeatRequest()
	req.Version, req.Group, req.MemberID, req.Generation = 4, m.group, m.id, m.generation
	answer, err := m.ask(req)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(answer.(*kmsg.HeartbeatResponse).ErrorCode)
}

func (m *member) leave() error {
	req := kmsg.NewPtrLeaveGroupRequest()
	req.Version, req.Group, req.MemberID = 2, m.group, m.id
	answer, err := m.ask(req)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(answer.(*kmsg.LeaveGroupResponse).ErrorCode)
}

// commit commits one offset; a member's own, or without a member for a group that has none.
func (c *conn) commit(group string, offset int64) error {
	req := kmsg.NewPtrOffsetCommitRequest()
	req.Version, req.Group, req.Generation = 8, group, -1
	t := kmsg.NewOffsetCommitRequestTopic()
	t.Topic = "t"
	p := kmsg.NewOffsetCommitRequestTopicPartition()
	p.Offset = offset
	t.Partitions = []kmsg.OffsetCommitRequestTopicPartition{p}
	req.Topics = []kmsg.OffsetCommitRequestTopic{t}
	answer, err := c.ask(req)
	if err != nil {
		return err
	}
	return kerr.ErrorForCode(answer.(*kmsg.OffsetCommitResponse).Topics[0].Partitions[0].ErrorCode)
}
