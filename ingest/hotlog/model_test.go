package hotlog

import (
	"bytes"
	"fmt"
	"math/rand"
	"slices"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// model is what a log may and must hold. While an operation runs it allows what was before and what will be.
type model struct {
	chain   []record.Batch  // every batch that may be there, in order
	durable record.Offset   // everything of chain below it must be there
	starts  []record.Offset // where the log may start
	reset   bool            // a reset is running: the log may also be empty at the last of starts
	epoch   record.LeaderEpoch
}

func (m *model) end() record.Offset {
	if n := len(m.chain); n > 0 {
		return m.chain[n-1].NextOffset()
	}
	return m.starts[len(m.starts)-1]
}

// cut drops the batches that reach past to, and returns the border where the chain ends then.
func (m *model) cut(to record.Offset) {
	m.chain = slices.DeleteFunc(m.chain, func(b record.Batch) bool { return b.NextOffset() > to })
}

// verify compares a recovered log with the model.
func (m *model) verify(l *Log, found *Recovery) error {
	if found.Damaged != nil {
		return fmt.Errorf("a power cut was taken for damage: %w", found.Damaged)
	}
	start, end := l.Start(), l.End()
	if last := m.starts[len(m.starts)-1]; m.reset && start == last && end == last {
		return nil
	}
	if !slices.Contains(m.starts, start) {
		return fmt.Errorf("log starts at %d, want one of %d", start, m.starts)
	}
	if end < m.durable || l.Durable() != end {
		return fmt.Errorf("log ends at %d, durable %d; %d was acknowledged", end, l.Durable(), m.durable)
	}
	if end > start && found.FirstReplay > end || found.FirstReplay < start {
		return fmt.Errorf("replay begins at %d in [%d, %d)", found.FirstReplay, start, end)
	}
	i, _ := slices.BinarySearchFunc(m.chain, start, func(b record.Batch, o record.Offset) int { return int(b.BaseOffset() - o) })
	next := start
	err := l.Scan(start, end, func(b record.Batch) error {
		if i >= len(m.chain) || !bytes.Equal(b, m.chain[i]) {
			return fmt.Errorf("batch [%d, %d) of epoch %d was never appended there", b.BaseOffset(), b.NextOffset(), b.LeaderEpoch())
		}
		if e := epochAt(l.Epochs(), b.BaseOffset()); e != b.LeaderEpoch() {
			return fmt.Errorf("history %v says epoch %d at %d, the batch %d", l.Epochs(), e, b.BaseOffset(), b.LeaderEpoch())
		}
		i, next = i+1, b.NextOffset()
		return nil
	})
	if err == nil && next != end {
		err = fmt.Errorf("records end at %d, the log at %d", next, end)
	}
	if err == nil {
		err = verifySealed(l)
	}
	return err
}

func epochAt(epochs []record.EpochStart, o record.Offset) record.LeaderEpoch {
	epoch := record.NoEpoch
	for _, e := range epochs {
		if e.Start <= o {
			epoch = e.Epoch
		}
	}
	return epoch
}

// verifySealed checks the footers of sealed segments against their bytes.
func verifySealed(l *Log) error {
	for _, s := range l.Sealed(0) {
		f, err := s.Footer()
		if err != nil {
			return err
		}
		r, err := s.Open()
		if err != nil {
			return err
		}
		for _, b := range f.Blocks {
			p := make([]byte, b.Stored)
			if _, err := r.ReadAt(p, b.Position); err != nil {
				return err
			}
			if _, err := segment.DecodeBlock(nil, p, b); err != nil {
				return fmt.Errorf("segment %d: %w", s.Base, err)
			}
		}
		s.Release()
		if f.Base != s.Base || f.End != s.End || string(f.Producers) != fmt.Sprint("at ", s.End) {
			return fmt.Errorf("footer [%d, %d) with snapshot %q of segment [%d, %d)", f.Base, f.End, f.Producers, s.Base, s.End)
		}
	}
	return nil
}

// script applies random operations to a machine's log and keeps its model. before is called before every operation of
// the file system and of the state.
type script struct {
	*machine
	model model
	rng   *rand.Rand
	size  int // largest record
}

// hookedState is a State with a crash point before and after each call that writes.
type hookedState struct {
	State
	point func()
}

func (s *hookedState) Save(u localstate.Update) error {
	s.point()
	defer s.point()
	return s.State.Save(u)
}

// step runs one operation.
func (s *script) step() error {
	switch r := s.rng.Intn(100); {
	case r < 50:
		return s.appendSome()
	case r < 72:
		s.log.flush()
		s.acknowledge()
		return nil
	case r < 80:
		return s.log.Roll([]byte(fmt.Sprint("at ", s.log.End())))
	case r < 84:
		return s.trim()
	case r < 88:
		return s.truncate()
	case r < 89:
		return s.resetLog()
	case r < 93:
		s.model.epoch++
		return s.log.SetEpoch(s.model.epoch)
	case r < 96:
		return s.store.Flush()
	}
	s.log.Flush()
	s.restart()
	s.model.durable = s.log.End()
	return nil
}

func (s *script) acknowledge() { s.model.durable = s.log.Durable() }

func (s *script) appendSome() error {
	var p []byte
	base := s.log.End()
	for range 1 + s.rng.Intn(3) {
		rb := record.NewBuilder(record.Attrs{})
		for range 1 + s.rng.Intn(4) {
			v := make([]byte, s.rng.Intn(s.size))
			s.rng.Read(v)
			rb.Append(1000+s.rng.Int63n(1000), nil, v)
		}
		b, err := rb.Build()
		if err != nil {
			return err
		}
		b.Stamp(base, s.model.epoch)
		base = b.NextOffset()
		s.model.chain = append(s.model.chain, b)
		p = append(p, b...)
	}
	return s.log.Append(p)
}

func (s *script) trim() error {
	to := s.model.starts[0] + record.Offset(s.rng.Int63n(int64(s.model.end()-s.model.starts[0])+1))
	for _, g := range s.log.Sealed(0) {
		if g.End <= to {
			s.model.starts = append(s.model.starts, g.End)
		}
	}
	_, err := s.log.Trim(to)
	s.model.starts = []record.Offset{s.log.Start()}
	return err
}

func (s *script) truncate() error {
	start, end := s.log.Start(), s.log.End()
	to := end - record.Offset(s.rng.Int63n(min(int64(end-start), 30)+1))
	// What was durable below the border stays promised.
	after := s.model
	after.chain = slices.Clone(s.model.chain)
	after.cut(to)
	border := max(start, min(to, after.end()))
	if len(after.chain) == 0 {
		border = start
	}
	s.model.durable = min(s.model.durable, border)
	if err := s.log.Truncate(to); err != nil {
		return err
	}
	if s.log.End() != border && to < end {
		return fmt.Errorf("truncated to %d: log ends at %d, want %d", to, s.log.End(), border)
	}
	s.model.chain = after.chain
	return nil
}

func (s *script) resetLog() error {
	to := s.log.Start() + record.Offset(s.rng.Int63n(int64(s.log.End()-s.log.Start())+20))
	s.model.starts = append(s.model.starts, to)
	s.model.durable, s.model.reset = 0, true
	err := s.log.Reset(to)
	s.model.chain, s.model.starts, s.model.durable, s.model.reset = nil, []record.Offset{to}, to, false
	return err
}
