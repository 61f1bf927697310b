package hotlog

import (
	"errors"
	"fmt"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/vfs"
)

// TestFaultAtEveryOperation makes one operation of a script fail, each in turn, with an I/O error, a full disk, or a short
// write. Afterwards the log either goes on, and nothing it acknowledged is lost; or it has told its owner to stop, makes no
// promise more, and the disk holds what it had promised before.
func TestFaultAtEveryOperation(t *testing.T) {
	for name, fault := range map[string]error{
		"io error": syscall.EIO, "no space": vfs.ErrNoSpace, "short write": &vfs.Partial{Size: 700, Err: vfs.ErrNoSpace},
	} {
		t.Run(name, func(t *testing.T) {
			for n := 0; ; n++ {
				hit, err := runFault(t, n, fault)
				if err != nil {
					t.Fatalf("operation %d: %v", n, err)
				}
				if hit == "" {
					if n < 40 {
						t.Errorf("only %d operations", n)
					}
					return
				}
			}
		})
	}
}

func runFault(t *testing.T, n int, fault error) (hit string, err error) {
	m := newMachine(t, Options{SegmentBytes: 4 << 10})
	at := -1
	m.fs = vfs.Fault(m.mem, func(op vfs.Op) error {
		switch op.Kind {
		case vfs.OpClose, vfs.OpPreallocate:
			return nil
		case vfs.OpWrite:
		default:
			if part := (*vfs.Partial)(nil); errors.As(fault, &part) {
				return nil
			}
		}
		if at++; at != n {
			return nil
		}
		hit = fmt.Sprint(op.Kind, " ", filepath.Base(op.Name))
		return fault
	})
	if err := m.start(); err != nil {
		m.log = nil
		m.stop()
		return hit, nil // nothing was promised
	}
	promised := faultScript(m)
	if m.log.failed.Load() != nil && len(m.failed) != 1 {
		return hit, fmt.Errorf("%s: the owner was told %d times", hit, len(m.failed))
	}
	if err := m.log.Append(batch(m.log.End(), 9, 1, 1, 1)); m.log.failed.Load() != nil && !errors.Is(err, ErrFenced) {
		return hit, fmt.Errorf("%s: append to a failed log: %v", hit, err)
	}
	c := m.powerCut(int64(n), 0.5)
	m.stop()
	c.mustStart()
	defer func() { c.stop() }()
	if c.found.Damaged != nil {
		return hit, fmt.Errorf("%s: %w", hit, c.found.Damaged)
	}
	if c.log.End() < promised {
		return hit, fmt.Errorf("%s: log ends at %d, %d was acknowledged", hit, c.log.End(), promised)
	}
	return hit, checkLog(c.log, 0)
}

// faultScript appends, rolls, trims, truncates and restarts, going on after errors, and returns what it may rely on.
func faultScript(m *machine) (promised record.Offset) {
	for i := range 30 {
		if m.log.NeedsRoll(800) {
			_ = m.log.Roll(nil)
		}
		end := m.log.End()
		if err := m.append(1, 700, 1); err != nil && m.log.End() != end {
			m.t.Fatalf("a failed append moved the end: %v", err)
		}
		if i%3 == 0 {
			m.log.flush()
			promised = m.log.Durable()
		}
		switch i {
		case 12:
			_, _ = m.log.Trim(promised)
		case 20:
			promised = min(promised, m.log.End()-2)
			if m.log.Truncate(m.log.End()-2) == nil {
				promised = m.log.End()
			}
		}
	}
	return promised
}

// A full disk fences nothing for long: what was written in part is taken back, and the log goes on when there is room.
func TestNoSpace(t *testing.T) {
	m := newMachine(t, Options{})
	var stuck error
	m.fs = vfs.Fault(m.mem, func(op vfs.Op) error {
		if op.Kind == vfs.OpTruncate {
			return stuck
		}
		return nil
	})
	m.mustStart()
	defer m.stop()
	m.mustAppend(1, 1000, 1)
	m.mem.SetCapacity(3000)
	wantErr(t, m.append(1, 5000, 1), ErrNoSpace)
	if info, _ := m.mem.Stat(m.log.name(0)); info.Size != m.log.Size() || m.log.End() != 1 {
		t.Errorf("file of %d bytes, log of %d, end %d", info.Size, m.log.Size(), m.log.End())
	}
	stuck = syscall.EIO
	wantErr(t, m.append(1, 5000, 1), ErrNoSpace)
	wantErr(t, m.append(1, 10, 1), ErrFenced)
	stuck = nil
	m.mustAppend(1, 10, 1)
	m.log.flush()
	m.check(0)
	if len(m.failed) > 0 || m.log.Durable() != 2 {
		t.Errorf("durable %d, failed %v", m.log.Durable(), m.failed)
	}

	// A footer that does not fit waits; nothing after it counts until it is written.
	if err := m.log.Roll(nil); err != nil {
		t.Fatal(err)
	}
	info, err := m.mem.Stat(m.log.name(0))
	if err != nil {
		t.Fatal(err)
	}
	m.mem.SetCapacity(info.Size)
	m.log.flush()
	if len(m.failed) > 0 || len(m.log.Sealed(0)) != 0 {
		t.Fatalf("sealed %d, failed %v", len(m.log.Sealed(0)), m.failed)
	}
	m.mem.SetCapacity(0)
	m.mustAppend(1, 10, 1)
	m.log.flush()
	if len(m.log.Sealed(0)) != 1 || m.log.Durable() != 3 {
		t.Errorf("sealed %d, durable %d", len(m.log.Sealed(0)), m.log.Durable())
	}
}
