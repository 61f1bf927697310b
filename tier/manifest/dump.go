package manifest

import (
	"bufio"
	"fmt"
	"io"
	"time"
)

// Dump prints a manifest for people, one line a fact, an epoch, a page and a root entry. It does not read the pages.
func (m *Manifest) Dump(w io.Writer) {
	b := bufio.NewWriter(w)
	defer b.Flush()
	fmt.Fprintf(b, "manifest    of partition %d of topic %s, cluster %x\n", m.id.Partition, m.id.Topic, m.id.Cluster)
	fmt.Fprintf(b, "version     %d, nonce %x, claimed by leader epoch %d, deleted %t\n", m.version, m.nonce, m.claim, m.deleted)
	fmt.Fprintf(b, "offsets     log start %d, segments [%d, %d)\n", m.logStart, m.start, m.end)
	fmt.Fprintf(b, "stored      %d segments, %d bytes of %d raw\n", m.Count(), m.Bytes(), m.DataBytes())
	for _, e := range m.epochs {
		fmt.Fprintf(b, "epoch       %d from %d\n", e.Epoch, e.Start)
	}
	for i, p := range m.pages {
		fmt.Fprintf(b, "page %-6d [%d, %d), %d segments, %d bytes of %d raw, %s to %s, %s\n", i, p.First, p.End, p.Count, p.Bytes, p.DataBytes,
			timestamp(p.MinTimestamp), timestamp(p.MaxTimestamp), PageName(m.id, p))
	}
	for i := range m.segments {
		s := &m.segments[i]
		fmt.Fprintf(b, "segment %-3d [%d, %d), epochs %d to %d, %d records, %d bytes of %d raw, %s to %s, %d aborted, crc %08x, at %d of %s\n", i, s.Base, s.End,
			s.FirstEpoch, s.LastEpoch, s.Records, s.Size, s.DataSize, timestamp(s.MinTimestamp), timestamp(s.MaxTimestamp), s.Aborted, s.CRC, s.Position, s.Object)
	}
}

// timestamp prints Kafka milliseconds.
func timestamp(ms int64) string {
	if ms < 0 {
		return "none"
	}
	return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z")
}
