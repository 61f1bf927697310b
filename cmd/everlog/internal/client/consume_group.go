package client

import (
	"context"
	"slices"
	"sync"

	"github.com/twmb/franz-go/pkg/kgo"
)

// membership follows which partitions the group gave to this member, and, for --exit, how far each has got.
type membership struct {
	topic string

	mu    sync.Mutex
	mine  []int32
	ready bool  // a first assignment has come
	spans spans // nil: no end is wanted
}

func (m *membership) assigned(_ context.Context, _ *kgo.Client, got map[string][]int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mine, m.ready = append(m.mine, got[m.topic]...), true
}

func (m *membership) revoked(_ context.Context, _ *kgo.Client, lost map[string][]int32) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.mine = slices.DeleteFunc(m.mine, func(p int32) bool { return slices.Contains(lost[m.topic], p) })
}

func (m *membership) read(r *kgo.Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if s := m.spans[r.Partition]; s != nil {
		s.next = r.Offset + 1
	}
}

// finished tells whether every partition of this member has been read to the end it had. Never without an end.
func (m *membership) finished() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.spans != nil && m.ready && !slices.ContainsFunc(m.mine, func(p int32) bool { return m.spans[p] != nil && !m.spans[p].done() })
}
