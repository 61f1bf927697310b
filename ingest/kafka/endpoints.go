package kafka

import (
	"encoding/binary"

	"github.com/everlog/everlog/cluster/metadata"
)

// endpoints are the brokers of ids that are known.
func (s *Server) endpoints(ids []int32) []*metadata.Broker {
	var bs []*metadata.Broker
	for _, id := range ids {
		if b := s.broker.Image().Broker(id); b != nil {
			bs = append(bs, b)
		}
	}
	return bs
}

// encodeEndpoints writes the NodeEndpoints of KIP-951, always in a flexible version.
func encodeEndpoints(bs []*metadata.Broker) []byte {
	p := binary.AppendUvarint(nil, uint64(len(bs))+1)
	for _, b := range bs {
		p = appendInt32(p, b.ID)
		p = appendString(p, true, b.Host)
		p = appendInt32(p, b.Port)
		p = appendNullableString(p, true, b.Rack)
		p = append(p, 0)
	}
	return p
}

// appendEndpoints writes the tags of a response: the addresses of brokers (tag 0), or none.
func appendEndpoints(b []byte, nodes []*metadata.Broker) []byte {
	if len(nodes) == 0 {
		return append(b, 0)
	}
	body := encodeEndpoints(nodes)
	b = append(b, 1, 0)
	b = binary.AppendUvarint(b, uint64(len(body)))
	return append(b, body...)
}
