package kafka

import "github.com/everlog/everlog/ingest/partition"

// size encodes everything but the records and returns the length of the whole body.
func (f *fetchRead) size() int {
	if f.encoded != nil {
		return f.total
	}
	f.encode()
	for _, b := range f.encoded {
		f.total += len(b)
	}
	for _, r := range f.out {
		f.total += int(r.data.Size())
	}
	return f.total
}

// write sends the encoded pieces with each partition's records between them.
func (f *fetchRead) write(w *responseWriter) error {
	for i, r := range f.out {
		if _, err := w.Write(f.encoded[i]); err != nil {
			return err
		}
		if err := writeData(w, &r.data); err != nil {
			return err
		}
	}
	_, err := w.Write(f.encoded[len(f.out)])
	return err
}

// writeData sends one partition's records from where they lie: a file, or blocks of memory.
func writeData(w *responseWriter, d *partition.Data) error {
	if blocks := d.Blocks(); blocks != nil {
		return w.writeBlocks(blocks, d.Size())
	}
	if reader := d.File(); reader != nil {
		return w.copyAt(reader, 0, d.Size())
	}
	return nil
}

// encode fills f.encoded with len(f.out)+1 pieces; the records of f.out[i] go between pieces i and i+1.
func (f *fetchRead) encode() {
	flexible := f.version >= 12
	b := make([]byte, 0, 64+len(f.out)*64)
	b = appendInt32(b, millis(f.throttle))
	if f.version >= 7 {
		b = appendInt16(b, f.code)
		b = appendInt32(b, f.sessionID)
	}
	groups := f.groups()
	b = appendArrayLen(b, flexible, len(groups))
	start := 0
	cut := func() {
		f.encoded = append(f.encoded, b[start:len(b):len(b)])
		start = len(b)
	}
	for _, g := range groups {
		if f.version >= 13 {
			b = append(b, g[0].part.id[:]...)
		} else {
			b = appendString(b, flexible, g[0].part.topic)
		}
		b = appendArrayLen(b, flexible, len(g))
		for _, r := range g {
			b = f.encodePartition(b, r, flexible)
			cut()
			b = f.encodePartitionTags(b, r, flexible)
		}
		b = appendNoTags(b, flexible)
	}
	if flexible {
		b = f.encodeTags(b)
	}
	cut()
}

// groups puts neighbouring partitions of one topic together.
func (f *fetchRead) groups() [][]*fetched {
	var gs [][]*fetched
	for i, r := range f.out {
		if i > 0 && f.out[i-1].part.topic == r.part.topic && f.out[i-1].part.id == r.part.id {
			gs[len(gs)-1] = append(gs[len(gs)-1], r)
			continue
		}
		gs = append(gs, []*fetched{r})
	}
	return gs
}

// encodePartition writes a partition up to and including the length of its records.
func (f *fetchRead) encodePartition(b []byte, r *fetched, flexible bool) []byte {
	b = appendInt32(b, r.part.partition)
	b = appendInt16(b, r.code)
	b = appendInt64(b, int64(r.hw))
	b = appendInt64(b, int64(r.lso))
	if f.version >= 5 {
		b = appendInt64(b, int64(r.logStart))
	}
	if f.req.IsolationLevel != 1 {
		b = appendNullArray(b, flexible)
	} else {
		b = appendArrayLen(b, flexible, len(r.aborted))
		for _, a := range r.aborted {
			b = appendInt64(b, int64(a.ProducerID))
			b = appendInt64(b, int64(a.First))
			b = appendNoTags(b, flexible)
		}
	}
	if f.version >= 11 {
		b = appendInt32(b, -1) // preferred read replica: none
	}
	return appendBytesLen(b, flexible, int(r.data.Size()))
}

func (f *fetchRead) encodePartitionTags(b []byte, r *fetched, flexible bool) []byte {
	if !flexible {
		return b
	}
	leader := f.version >= 16 && r.leader >= 0
	n := byte(0)
	if r.diverge != nil {
		n++
	}
	if leader {
		n++
	}
	b = append(b, n)
	if r.diverge != nil { // tag 0: DivergingEpoch{epoch int32, endOffset int64, no tags}
		b = append(b, 0, 13)
		b = appendInt32(b, int32(r.diverge.Epoch))
		b = appendInt64(b, int64(r.diverge.Start))
		b = append(b, 0)
	}
	if leader { // tag 1: CurrentLeader{id int32, epoch int32, no tags}
		b = append(b, 1, 9)
		b = appendInt32(b, r.leader)
		b = appendInt32(b, int32(r.epoch))
		b = append(b, 0)
	}
	return b
}

// encodeTags writes the response's tags: the addresses of the leaders named (tag 0, KIP-951).
func (f *fetchRead) encodeTags(b []byte) []byte { return appendEndpoints(b, f.nodes) }
