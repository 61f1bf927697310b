package producer

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"flag"
	"hash/crc32"
	"os"
	"strings"
	"testing"

	"github.com/everlog/everlog/tier/record"
)

var update = flag.Bool("update", false, "rewrite golden files")

// example has every kind of entry.
func example(t *testing.T) *State {
	s := New(0)
	add(t, s, data{id: 5, seq: 3, count: 2, appendTime: 777}.batch())
	add(t, s, data{id: 1, epoch: 2, count: 3, txn: true}.batch())
	add(t, s, data{id: 2, epoch: 1, count: 4, txn: true}.batch())
	add(t, s, data{id: 3, count: 1, txn: true}.batch())
	add(t, s, Marker(2, 1, false, 9, 0))
	add(t, s, Marker(3, 0, true, 8, 0))
	for i := range int32(6) {
		add(t, s, data{id: 5, seq: 5 + i, count: 1}.batch())
	}
	return s
}

func TestGoldenSnapshot(t *testing.T) {
	const name = "testdata/snapshot-v1.hex"
	got := example(t).Snapshot()
	if *update {
		text := hex.EncodeToString(got)
		var lines strings.Builder
		for len(text) > 0 {
			n := min(96, len(text))
			lines.WriteString(text[:n] + "\n")
			text = text[n:]
		}
		if err := os.WriteFile(name, []byte(lines.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	want, err := hex.DecodeString(strings.ReplaceAll(string(text), "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("snapshot is\n%x\nwant\n%x", got, want)
	}
	s := New(0)
	if err := s.Restore(want); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(s.Snapshot(), want) || s.OpenTxns() != 1 || s.LastStable(100) != 2 || len(s.Aborted(0, 100)) != 1 {
		t.Fatalf("restored: %+v", s.Producers())
	}
	add(t, s, Marker(1, 2, false, 0, 0)) // finds its open transaction
	s.SetHighWatermark(100)
	if s.LastStable(100) != 100 {
		t.Fatalf("last stable %d", s.LastStable(100))
	}
}

func TestRestoreRefusesDamage(t *testing.T) {
	good := example(t).Snapshot()
	s := New(0)
	add(t, s, data{id: 42, count: 1}.batch())
	before := s.Snapshot()
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x40
		if err := s.Restore(bad); !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrVersion) {
			t.Fatalf("byte %d flipped: %v", i, err)
		}
		if i > 0 {
			if err := s.Restore(good[:i]); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("cut at %d: %v", i, err)
			}
		}
	}
	huge := bytes.Clone(good)
	binary.BigEndian.PutUint32(huge[16:], 1<<31)
	if err := s.Restore(sign(huge)); !errors.Is(err, ErrCorrupt) {
		t.Fatalf("2^31 producers: %v", err)
	}
	if !bytes.Equal(s.Snapshot(), before) {
		t.Fatal("a failed Restore changed the state")
	}
	if err := s.Restore(nil); err != nil || s.Len() != 0 {
		t.Fatalf("empty: %v, %d producers", err, s.Len())
	}
}

func sign(p []byte) []byte {
	body := p[:len(p)-crcSize]
	return binary.BigEndian.AppendUint32(bytes.Clone(body), crc32.Checksum(body, castagnoli))
}

// FuzzRestore signs the bytes itself, so that the fuzzer reaches the fields.
func FuzzRestore(f *testing.F) {
	s := New(0)
	b := data{id: 1, count: 3, txn: true}.batch()
	_ = s.Apply(b, 0, 5)
	f.Add(s.Snapshot())
	_ = s.Apply(Marker(1, 0, false, 0, 0), 3, 6)
	f.Add(s.Snapshot())
	f.Fuzz(func(t *testing.T, p []byte) {
		if len(p) < crcSize {
			return
		}
		p = sign(p)
		s := New(0)
		if s.Restore(p) != nil {
			return
		}
		if got := s.Snapshot(); !bytes.Equal(got, p) {
			t.Fatalf("encodes to %x, decoded from %x", got, p)
		}
		for _, e := range s.Producers() { // every open transaction can be closed
			if err := s.Apply(Marker(e.ID, e.Epoch, false, 0, 0), s.End(), 0); err != nil {
				t.Fatal(err)
			}
		}
		if s.OpenTxns() != 0 {
			t.Fatalf("%d open", s.OpenTxns())
		}
	})
}

func FuzzBatch(f *testing.F) {
	f.Add([]byte(data{id: 1, count: 3, txn: true}.batch()))
	f.Add([]byte(Marker(1, 0, false, 0, 0)))
	f.Fuzz(func(t *testing.T, p []byte) {
		s := New(0)
		for range 2 {
			b, _, err := record.Next(p)
			if err != nil || b.LastOffsetDelta() < 0 {
				return
			}
			v, err := s.Check(b, 1)
			if err != nil || v.Duplicate {
				return
			}
			if err := s.Apply(b, s.End(), 1); err != nil {
				t.Fatalf("applied after Check: %v", err)
			}
			if err := New(0).Restore(s.Snapshot()); err != nil {
				t.Fatal(err)
			}
		}
	})
}
