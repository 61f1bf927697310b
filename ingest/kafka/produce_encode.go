package kafka

// size encodes the response and returns its length.
func (p *produceReply) size() int {
	if p.encoded == nil {
		p.encoded = p.encode(make([]byte, 0, 64+len(p.topics)*24+len(p.results)*40))
	}
	return len(p.encoded)
}

func (p *produceReply) write(w *responseWriter) error {
	_, err := w.Write(p.encoded)
	return err
}

func (p *produceReply) done() {}

func (p *produceReply) encode(b []byte) []byte {
	version := p.call.version
	flexible := version >= 9
	b = appendArrayLen(b, flexible, len(p.topics))
	for _, t := range p.topics {
		if version >= 13 {
			b = append(b, t.id[:]...)
		} else {
			b = appendString(b, flexible, t.name)
		}
		b = appendArrayLen(b, flexible, t.count)
		for i := t.first; i < t.first+t.count; i++ {
			b = p.results[i].encode(b, version, flexible)
		}
		b = appendNoTags(b, flexible)
	}
	b = appendInt32(b, millis(p.call.throttle))
	if flexible {
		b = appendEndpoints(b, p.nodes)
	}
	return b
}

func (r *produced) encode(b []byte, version int16, flexible bool) []byte {
	b = appendInt32(b, r.index)
	b = appendInt16(b, r.code)
	b = appendInt64(b, int64(r.base))
	b = appendInt64(b, r.appendTime)
	if version >= 5 {
		b = appendInt64(b, int64(r.logStart))
	}
	if version >= 8 {
		b = appendArrayLen(b, flexible, len(r.records))
		for _, e := range r.records {
			b = appendInt32(b, e.Index)
			b = appendString(b, flexible, e.Message)
			b = appendNoTags(b, flexible)
		}
		b = appendNullableString(b, flexible, r.message)
	}
	if !flexible {
		return b
	}
	if version < 10 || r.leader < 0 {
		return append(b, 0)
	}
	// Tag 0: CurrentLeader{id int32, epoch int32, no tags}.
	b = append(b, 1, 0, 9)
	b = appendInt32(b, r.leader)
	b = appendInt32(b, int32(r.epoch))
	return append(b, 0)
}
