package hotlog

import (
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// maxMarks is how many ends of appends are remembered. Durable points, and so high watermarks, are among them.
const maxMarks = 256

// marks remembers where the latest appends ended, so that reading up to a high watermark needs no look at the file.
type marks struct {
	ring []segment.BatchPosition // grows to maxMarks, then wraps
	next int
}

func (m *marks) add(p segment.BatchPosition) {
	if len(m.ring) < maxMarks {
		m.ring = append(m.ring, p)
		return
	}
	m.ring[m.next] = p
	m.next = (m.next + 1) % maxMarks
}

// find returns the position of a border, if it is remembered. The newest are looked at first: a watermark follows closely.
func (m *marks) find(o record.Offset) (int64, bool) {
	for i := range m.ring {
		p := m.ring[(m.next-1-i+2*len(m.ring))%len(m.ring)]
		if p.Offset == o {
			return p.Position, true
		}
		if p.Offset < o {
			return 0, false
		}
	}
	return 0, false
}
