package hotlog

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/vfs"
)

var update = flag.Bool("update", false, "write the golden files anew")

// tracedState writes its calls into the trace.
type tracedState struct {
	State
	trace *strings.Builder
}

func (s *tracedState) Save(u localstate.Update) error {
	fmt.Fprint(s.trace, "  state: save")
	if u.Start != nil {
		fmt.Fprintf(s.trace, " start=%d", *u.Start)
	}
	if u.Cut != nil {
		fmt.Fprintf(s.trace, " cut=%d", *u.Cut)
	}
	if u.Epochs != nil {
		fmt.Fprintf(s.trace, " epochs=%v", u.Epochs)
	}
	if c := u.Checkpoint; c != nil {
		fmt.Fprintf(s.trace, " base=%d durable=%d table=%v", c.Base, c.Durable, len(c.Table) > 0)
	}
	fmt.Fprintln(s.trace)
	return s.State.Save(u)
}

func (s *tracedState) Checkpoint(c localstate.Checkpoint) {
	fmt.Fprintf(s.trace, "  state: checkpoint base=%d durable=%d table=%v\n", c.Base, c.Durable, len(c.Table) > 0)
	s.State.Checkpoint(c)
}

// TestTrace compares every operation on the disk with testdata/trace.txt, so that an fsync or a read that comes or goes
// is seen in review.
func TestTrace(t *testing.T) {
	var trace strings.Builder
	m := newMachine(t, Options{})
	m.fs = vfs.Fault(m.mem, func(op vfs.Op) error {
		fmt.Fprintf(&trace, "  %s %s", op.Kind, strings.TrimPrefix(op.Name, "/data"))
		switch op.Kind {
		case vfs.OpRead, vfs.OpWrite, vfs.OpPreallocate:
			fmt.Fprintf(&trace, " [%d, %d)", op.Position, op.Position+int64(op.Size))
		case vfs.OpTruncate:
			fmt.Fprintf(&trace, " to %d", op.Position)
		}
		fmt.Fprintln(&trace)
		return nil
	})
	m.hook = func(st State) State { return &tracedState{st, &trace} }
	tell := func(l *Log) {
		l.Notify(func(d record.Offset) { fmt.Fprintf(&trace, "  acknowledged up to %d\n", d) })
	}
	for _, step := range []struct {
		name string
		run  func() error
	}{
		{"open an empty log", func() error { err := m.start(); tell(m.log); return err }},
		{"first append", func() error { return m.append(2, 1000, 1) }},
		{"its group", func() error { m.log.flush(); return nil }},
		{"two appends", func() error { m.mustAppend(1, 70000, 1); return m.append(2, 1000, 1) }},
		{"their group", func() error { m.log.flush(); return nil }},
		{"a group with nothing to do", func() error { m.log.flush(); return nil }},
		{"leadership", func() error { return m.log.SetEpoch(2) }},
		{"append, roll, append", func() error {
			m.mustAppend(1, 1000, 2)
			if err := m.log.Roll([]byte("snapshot")); err != nil {
				return err
			}
			return m.append(1, 1000, 2)
		}},
		{"their group", func() error { m.log.flush(); return nil }},
		{"trim", func() error { _, err := m.log.Trim(6); return err }},
		{"truncate", func() error { m.mustAppend(1, 10, 2); return m.log.Truncate(7) }},
		{"close", func() error { err := m.log.Close(); m.log = nil; m.stop(); return err }},
		{"open after a clean end", func() error { err := m.start(); tell(m.log); return err }},
		{"reset", func() error { return m.log.Reset(100) }},
		{"delete", func() error { err := m.log.Delete(); m.log = nil; m.stop(); return err }},
	} {
		fmt.Fprintf(&trace, "%s\n", step.name)
		if err := step.run(); err != nil {
			t.Fatalf("%s: %v", step.name, err)
		}
	}
	const golden = "testdata/trace.txt"
	if *update {
		if err := os.WriteFile(golden, []byte(trace.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if trace.String() != string(want) {
		t.Errorf("the trace differs from %s (go test -update writes it):\n%s", golden, trace.String())
	}
}
