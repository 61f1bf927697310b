package txn

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

func value(fn func(*kmsg.TxnMetadataValue)) []byte {
	v := kmsg.NewTxnMetadataValue()
	v.Version, v.ProducerID, v.TimeoutMillis, v.State = 1, 7, 60_000, ongoing
	v.Topics = []kmsg.TxnMetadataValueTopic{{Topic: "data", Partitions: []int32{1, 0, 1}}}
	fn(&v)
	return v.AppendTo(nil)
}

func TestReplay(t *testing.T) {
	good := value(func(*kmsg.TxnMetadataValue) {})
	for _, c := range []struct {
		name  string
		entry coordinator.Entry
		want  string // of the id afterwards; "corrupt" if the record is refused
	}{
		{"version 1", coordinator.Entry{Key: encodeKey(id), Value: good}, "7/0 Ongoing"},
		{"version 0", coordinator.Entry{Key: encodeKey(id), Value: value(func(v *kmsg.TxnMetadataValue) { v.Version = 0 })}, "7/0 Ongoing"},
		{"tombstone", coordinator.Entry{Key: encodeKey(id)}, "TRANSACTIONAL_ID_NOT_FOUND"},
		{"newer key", coordinator.Entry{Key: append([]byte{0, 1}, encodeKey(id)[2:]...), Value: good}, "1/3 Empty"},
		{"newer value", coordinator.Entry{Key: encodeKey(id), Value: []byte{0, 2, 9, 9}}, "1/3 Empty"},
		{"marker", coordinator.Entry{Marker: true}, "1/3 Empty"},
		{"no key", coordinator.Entry{Value: good}, "corrupt"},
		{"short key", coordinator.Entry{Key: encodeKey(id)[:5], Value: good}, "corrupt"},
		{"short value", coordinator.Entry{Key: encodeKey(id), Value: good[:len(good)/2]}, "corrupt"},
		{"empty value", coordinator.Entry{Key: encodeKey(id), Value: []byte{}}, "corrupt"},
		{"no such state", coordinator.Entry{Key: encodeKey(id), Value: value(func(v *kmsg.TxnMetadataValue) { v.State = 9 })}, "corrupt"},
		{"dead", coordinator.Entry{Key: encodeKey(id), Value: value(func(v *kmsg.TxnMetadataValue) { v.State = 6 })}, "corrupt"},
		{"no producer", coordinator.Entry{Key: encodeKey(id), Value: value(func(v *kmsg.TxnMetadataValue) { v.ProducerID = -1 })}, "corrupt"},
		{"no epoch", coordinator.Entry{Key: encodeKey(id), Value: value(func(v *kmsg.TxnMetadataValue) { v.ProducerEpoch = -1 })}, "corrupt"},
	} {
		h := newHarness(t, Options{})
		before := value(func(v *kmsg.TxnMetadataValue) { v.ProducerID, v.ProducerEpoch, v.State, v.Topics = 1, 3, empty, nil })
		if err := h.m.Replay(0, coordinator.Entry{Key: encodeKey(id), Value: before}); err != nil {
			t.Fatal(err)
		}
		err := h.m.Replay(1, c.entry)
		got := h.is()
		if errors.Is(err, record.ErrCorrupt) {
			got = "corrupt"
		} else if err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s (%v)", c.name, got, c.want, err)
		}
	}
}

// FuzzReplay: whatever is in the log, a machine that takes it writes it so that it is read the same, and goes on.
func FuzzReplay(f *testing.F) {
	f.Add(encodeKey(id), value(func(*kmsg.TxnMetadataValue) {}))
	f.Add(encodeKey(id), value(func(v *kmsg.TxnMetadataValue) {
		v.State, v.ProducerEpoch, v.NextProducerID, v.ClientTransactionVersion = prepareCommit, 32767, 8, 2
	}))
	f.Add(encodeKey(""), value(func(v *kmsg.TxnMetadataValue) { v.Version, v.State, v.Topics = 0, empty, nil }))
	f.Add(encodeKey("00000000"), []byte("\x00\x01000000000000000\x02\x050000\x04000000000000\xff\xa5\xd1uy")) // four thousand million tags
	f.Add([]byte{0, 1}, []byte(nil))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		m := New(Options{})
		err := m.Replay(5, coordinator.Entry{Key: key, Value: value})
		if err != nil && !errors.Is(err, record.ErrCorrupt) {
			t.Fatal(err)
		}
		if err != nil && len(m.txns) > 0 {
			t.Fatal("refused, and kept")
		}
		again := New(Options{})
		for _, s := range m.txns {
			if err := again.Replay(0, coordinator.Entry{Key: encodeKey(s.id), Value: s.encode()}); err != nil {
				t.Fatal(err)
			}
		}
		if d := cmp.Diff(snapshot(m), snapshot(again), cmp.AllowUnexported(transaction{})); d != "" {
			t.Fatal(d)
		}
		now := time.UnixMilli(1 << 41)
		e := m.Loaded(now)
		e.Add(m.Tick(now))
		for _, r := range e.Requests {
			e.Add(m.Step(0, MarkersWritten{r.(WriteMarkers)}, now))
		}
		for _, s := range m.txns {
			if s.preparing() || s.epoch < 0 || s.producerID < 0 {
				t.Fatalf("%+v", *s)
			}
		}
		for _, b := range e.Append {
			for _, r := range b.Records {
				if err := again.Replay(1, coordinator.Entry{Key: r.Key, Value: r.Value}); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}
