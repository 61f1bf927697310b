package producer

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/everlog/everlog/tier/record"
)

// model answers everything by walking the whole log, and keeps nothing else.
type model struct {
	log []logged
}

type logged struct {
	data
	marker, commit bool
	base           record.Offset
}

func (l logged) next() record.Offset { return l.base + record.Offset(l.count) }

func (m *model) end() record.Offset {
	if len(m.log) == 0 {
		return 0
	}
	return m.log[len(m.log)-1].next()
}

// view is a producer's newest epoch and what the log holds of it.
func (m *model) view(id record.ProducerID) (epoch record.ProducerEpoch, batches []logged, txn record.Offset, known bool) {
	txn = -1
	for _, l := range m.log {
		if l.id != id {
			continue
		}
		if !known || l.epoch != epoch {
			epoch, batches, known = l.epoch, nil, true
		}
		switch {
		case l.marker:
			txn = -1
		case l.txn && txn < 0:
			txn = l.base
		}
		if !l.marker {
			batches = append(batches, l)
		}
	}
	return epoch, batches[max(0, len(batches)-5):], txn, known
}

func (m *model) check(d data, isMarker bool) (Verdict, error) {
	epoch, batches, txn, known := m.view(d.id)
	if d.id < 0 || !known {
		return Verdict{}, nil
	}
	if isMarker {
		if d.epoch < epoch {
			return Verdict{}, ErrInvalidEpoch
		}
		return Verdict{}, nil
	}
	for _, l := range batches {
		if l.epoch == d.epoch && l.seq == d.seq && l.count == d.count {
			return Verdict{Duplicate: true, BaseOffset: l.base, NextOffset: l.next(), AppendTimeMs: -1}, nil
		}
	}
	want := int64(0)
	if n := len(batches); n > 0 && d.epoch == epoch {
		want = (int64(batches[n-1].seq) + int64(batches[n-1].count)) % (1 << 31)
	}
	switch {
	case d.epoch < epoch:
		return Verdict{}, ErrInvalidEpoch
	case int64(d.seq) != want:
		return Verdict{}, ErrOutOfOrderSequence
	case txn >= 0 && !d.txn:
		return Verdict{}, ErrInvalidTxnState
	}
	return Verdict{}, nil
}

// walk finds the transactions with their markers (-1 open).
func (m *model) walk() (all []txn, aborted []record.AbortedTxn) {
	for _, l := range m.log {
		at := -1
		for i, t := range all {
			if t.id == l.id && t.open() {
				at = i
			}
		}
		switch {
		case l.marker && at >= 0:
			first := all[at].first
			all[at].marker = l.base
			if l.commit {
				continue
			}
			stable := l.base + 1
			for _, t := range all {
				if t.open() {
					stable = min(stable, t.first)
				}
			}
			aborted = append(aborted, record.AbortedTxn{ProducerID: l.id, First: first, Last: l.base, LastStable: stable})
		case !l.marker && l.txn && at < 0:
			all = append(all, txn{l.id, l.base, -1})
		}
	}
	return all, aborted
}

func (m *model) lastStable(hw record.Offset) record.Offset {
	all, _ := m.walk()
	lso := hw
	for _, t := range all {
		if t.open() || t.marker >= hw {
			lso = min(lso, t.first)
		}
	}
	return lso
}

// replay rebuilds a state as recovery does.
func (m *model) replay(t *rapid.T, s *State, from record.Offset) *State {
	for _, l := range m.log {
		if l.base < from {
			continue
		}
		b := l.batch()
		if l.marker {
			b = Marker(l.id, l.epoch, l.commit, 0, 0)
		}
		if err := s.Apply(b, l.base, 0); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// TestModel drives State and model with the same events: invariants 21 (a sequence has one offset), 22 (state is the replay
// of the log) and 23 (nothing is described at or above the log end offset after truncation) of the replication notes.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s, m := New(0), &model{}
		hw := record.Offset(0)
		snapshot, snapshotAt := s.Snapshot(), record.Offset(0)
		offer := func(t *rapid.T, d data, marker, commit bool) {
			b := d.batch()
			if marker {
				b = Marker(d.id, d.epoch, commit, 0, 0)
			}
			want, wantErr := m.check(d, marker)
			got, err := s.Check(b, 0)
			if got != want || !errors.Is(err, wantErr) {
				t.Fatalf("%+v marker=%v: %+v, %v; want %+v, %v", d, marker, got, err, want, wantErr)
			}
			if err != nil || got.Duplicate {
				return
			}
			l := logged{data: d, marker: marker, commit: commit, base: m.end()}
			m.log = append(m.log, l)
			if err := s.Apply(b, l.base, 0); err != nil {
				t.Fatal(err)
			}
		}
		ids := rapid.SampledFrom([]record.ProducerID{-1, 1, 2, 3})
		t.Repeat(map[string]func(*rapid.T){
			"data": func(t *rapid.T) {
				d := data{id: ids.Draw(t, "id"), epoch: record.ProducerEpoch(rapid.IntRange(0, 2).Draw(t, "epoch")),
					count: int32(rapid.IntRange(1, 3).Draw(t, "count")), txn: rapid.Bool().Draw(t, "txn")}
				if epoch, batches, txn, known := m.view(d.id); known && rapid.IntRange(0, 9).Draw(t, "likely") > 1 {
					d.epoch, d.txn = epoch, d.txn || txn >= 0
					if n := len(batches); n > 0 {
						last := batches[n-1]
						d.seq = int32((int64(last.seq) + int64(last.count)) & 0x7fffffff)
					}
				} else {
					d.seq = rapid.SampledFrom([]int32{0, 0, 1, 2, 3, 5, 1<<31 - 2, 1<<31 - 1}).Draw(t, "seq")
				}
				if d.id < 0 {
					d.epoch, d.seq, d.txn = -1, -1, false
				}
				for range rapid.SampledFrom([]int{1, 1, 1, 3, 7}).Draw(t, "burst") {
					offer(t, d, false, false)
					if d.id >= 0 {
						d.seq = int32((int64(d.seq) + int64(d.count)) & 0x7fffffff)
					}
				}
			},
			"resend": func(t *rapid.T) {
				_, batches, _, _ := m.view(ids.Draw(t, "id"))
				if n := len(batches); n > 0 && batches[0].id >= 0 {
					offer(t, batches[rapid.IntRange(0, n-1).Draw(t, "which")].data, false, false)
				}
			},
			"resend old": func(t *rapid.T) {
				if len(m.log) == 0 {
					return
				}
				l := m.log[len(m.log)-1-rapid.IntRange(0, min(20, len(m.log)-1)).Draw(t, "back")]
				if !l.marker && l.id >= 0 {
					offer(t, l.data, false, false)
				}
			},
			"marker": func(t *rapid.T) {
				d := data{id: rapid.SampledFrom([]record.ProducerID{1, 2, 3}).Draw(t, "id"), count: 1,
					epoch: record.ProducerEpoch(rapid.IntRange(0, 2).Draw(t, "epoch"))}
				if epoch, _, _, known := m.view(d.id); known && rapid.Bool().Draw(t, "likely") {
					d.epoch = epoch
				}
				offer(t, d, true, rapid.Bool().Draw(t, "commit"))
			},
			"high watermark": func(t *rapid.T) {
				hw = record.Offset(rapid.Int64Range(int64(hw), int64(m.end())).Draw(t, "hw"))
				s.SetHighWatermark(hw)
			},
			"snapshot": func(t *rapid.T) { snapshot, snapshotAt = s.Snapshot(), m.end() },
			"restart": func(t *rapid.T) {
				n := New(0)
				if err := n.Restore(snapshot); err != nil {
					t.Fatal(err)
				}
				s = m.replay(t, n, snapshotAt)
				s.SetHighWatermark(hw)
			},
			"truncate": func(t *rapid.T) {
				for len(m.log) > 0 && m.log[len(m.log)-1].base >= max(hw, snapshotAt) && rapid.IntRange(0, 3).Draw(t, "more") > 0 {
					m.log = m.log[:len(m.log)-1]
				}
				n := New(0)
				if err := n.Restore(snapshot); err != nil {
					t.Fatal(err)
				}
				s = m.replay(t, n, snapshotAt)
				s.SetHighWatermark(hw)
			},
			"": func(t *rapid.T) { invariants(t, s, m, hw) },
		})
	})
}

func invariants(t *rapid.T, s *State, m *model, hw record.Offset) {
	if got, want := s.LastStable(hw), m.lastStable(hw); got != want {
		t.Fatalf("last stable offset %d, want %d", got, want)
	}
	if s.End() != m.end() {
		t.Fatalf("state describes up to %d, the log ends at %d", s.End(), m.end())
	}
	fresh := m.replay(t, New(0), 0)
	fresh.SetHighWatermark(hw)
	if diff := cmp.Diff(fresh.Producers(), s.Producers()); diff != "" {
		t.Fatalf("state is not the replay of the log:\n%s", diff)
	}
	if string(fresh.Snapshot()) != string(s.Snapshot()) {
		t.Fatal("snapshot differs from that of a replay")
	}
	_, aborted := m.walk()
	for _, a := range aborted {
		if got := s.Aborted(a.Last, a.Last+1); len(got) == 0 || got[len(got)-1].Last < a.First {
			t.Fatalf("aborted %+v is not listed", a)
		}
	}
	if got := s.Aborted(0, m.end()); len(got) != len(aborted) {
		t.Fatalf("%d aborted, want %d", len(got), len(aborted))
	}
	seen := map[[3]int64]record.Offset{}
	for _, l := range m.log { // within an epoch that was never left
		if l.id < 0 || l.marker {
			continue
		}
		k := [3]int64{int64(l.id), int64(l.epoch), int64(l.seq)}
		if at, dup := seen[k]; dup {
			t.Fatalf("sequence %v at %d and %d", k, at, l.base)
		}
		seen[k] = l.base
	}
}
