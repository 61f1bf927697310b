package group

import "encoding/binary"

// subscriptions are the topics that a consumer group's members subscribe to. Nil if they cannot be told: the group's type is
// another, or the metadata cannot be read. Then every topic of a consumer group counts as subscribed.
func (k *classic) subscriptions() map[string]struct{} {
	if !k.isConsumer() || len(k.members) > 0 && k.protocol == "" {
		return nil
	}
	topics := map[string]struct{}{}
	for _, mem := range k.members {
		if !readSubscription(mem.metadata(k.protocol), topics) {
			return nil
		}
	}
	return topics
}

// readSubscription adds the topics of a ConsumerProtocolSubscription, of which every version begins with that of 0: int16
// version, array of topics (int32 count, int16 length each), int32 length and user data. It reports whether it is one.
func readSubscription(b []byte, topics map[string]struct{}) bool {
	if len(b) < 6 || int16(binary.BigEndian.Uint16(b)) < 0 {
		return false
	}
	n := int32(binary.BigEndian.Uint32(b[2:]))
	b = b[6:]
	if n < 0 {
		return false
	}
	for ; n > 0; n-- {
		if len(b) < 2 {
			return false
		}
		size := int(int16(binary.BigEndian.Uint16(b)))
		if b = b[2:]; size < 0 || size > len(b) {
			return false
		}
		if _, ok := topics[string(b[:size])]; !ok {
			topics[string(b[:size])] = struct{}{}
		}
		b = b[size:]
	}
	if len(b) < 4 {
		return false
	}
	size := int32(binary.BigEndian.Uint32(b))
	return int(size) <= len(b)-4
}

// isSubscribed says whether members may be using a topic's offsets.
func (k *classic) isSubscribed(topic string) bool {
	if k.subscribed == nil {
		return k.isConsumer()
	}
	_, ok := k.subscribed[topic]
	return ok
}

func (g *group) subscribed(topic string) bool {
	if g.consumer != nil {
		return g.consumer.Subscribed(topic)
	}
	return g.classic.isSubscribed(topic)
}
