package group

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

// golden reads testdata/kafka-4.3.1.txt.
func golden(t testing.TB) map[string]coordinator.Record {
	t.Helper()
	f, err := os.Open("testdata/kafka-4.3.1.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := map[string]coordinator.Record{}
	for s := bufio.NewScanner(f); s.Scan(); {
		if strings.HasPrefix(s.Text(), "#") {
			continue
		}
		f := strings.Fields(s.Text())
		var r coordinator.Record
		if r.Key, err = hex.DecodeString(f[1]); err != nil {
			t.Fatal(err)
		}
		if f[2] != "-" {
			if r.Value, err = hex.DecodeString(f[2]); err != nil {
				t.Fatal(err)
			}
		}
		out[f[0]] = r
	}
	return out
}

func TestRecordsAreKafkas(t *testing.T) {
	p := partition{"a", 7}
	full := committed{partition: 7, offset: 42, epoch: 3, metadata: "mé", at: start.UnixMilli(), expires: never}
	for i := range full.topic {
		full.topic[i] = byte(i + 1)
	}
	plain := committed{partition: 7, offset: 42, epoch: -1, at: start.UnixMilli(), expires: never}
	expires := committed{partition: 7, offset: 42, epoch: 3, metadata: "m", at: start.UnixMilli(), expires: start.UnixMilli() + 5000}

	k := &classic{group: &group{id: "grp"}, generation: 5, protocol: "range", since: start.UnixMilli(), state: stable}
	k.add(&member{
		id: "m1", instance: ptr("i1"), client: Client{ID: "c1", Host: "/127.0.0.1"}, rebalance: time.Minute, session: 10 * time.Second,
		protocols: []protocol{{"range", subscription("a")}}, assignment: []byte{1, 2, 3},
	}, "consumer")
	k.add(&member{
		id: "m2", client: Client{ID: "c2", Host: "/127.0.0.1"}, rebalance: 5 * time.Minute, session: 45 * time.Second,
		protocols: []protocol{{"range", make([]byte, 10)}},
	}, "consumer")
	fresh := &classic{group: &group{id: "grp"}, since: start.UnixMilli()}
	left := &classic{group: &group{id: "grp"}, since: start.UnixMilli(), generation: 6, protocolType: "consumer"}

	want := golden(t)
	for name, got := range map[string]coordinator.Record{
		"offset": offsetRecord("grp", p, full), "offset-plain": offsetRecord("grp", p, plain), "offset-expires": offsetRecord("grp", p, expires),
		"offset-tombstone": offsetTombstone("grp", p), "group": groupRecord(k), "group-new": groupRecord(fresh), "group-empty": groupRecord(left),
		"group-tombstone": groupTombstone("grp"),
	} {
		if !bytes.Equal(got.Key, want[name].Key) || !bytes.Equal(got.Value, want[name].Value) || (got.Value == nil) != (want[name].Value == nil) {
			t.Errorf("%s:\n got %x %x\nwant %x %x", name, got.Key, got.Value, want[name].Key, want[name].Value)
		}
	}
}

func TestKafkasRecordsAreRead(t *testing.T) {
	records := golden(t)
	read := func(names ...string) *bench {
		b := newBench(t, Options{})
		for _, name := range names {
			r := records[name]
			b.log = append(b.log, coordinator.Entry{Key: r.Key, Value: r.Value})
		}
		return b.replayed()
	}
	offset := func(name string) committed { return *read(name).m.group("grp").offsets.get(partition{"a", 7}) }
	if c := offset("offset"); c.offset != 42 || c.epoch != 3 || c.metadata != "mé" || c.topic[15] != 16 || c.at != start.UnixMilli() || c.expires != never {
		t.Error(c)
	}
	if c := offset("offset-expires"); c.offset != 42 || c.epoch != -1 || c.expires != start.UnixMilli()+5000 {
		t.Error(c)
	}
	if c := offset("offset-v3"); c.offset != 42 || c.epoch != 3 || c.topic != noTopic || c.metadata != "m" {
		t.Error(c)
	}
	b := read("group", "offset")
	d := b.describe("grp")
	if d.State != "Stable" || len(d.Members) != 2 || *d.Members[0].InstanceID != "i1" || string(d.Members[0].MemberAssignment) != "\x01\x02\x03" {
		t.Error(d)
	}
	b.code(nil, b.heartbeat("grp", "m2", 5))
	for want, names := range map[string][]string{"Dead": {"group", "group-tombstone"}, "Empty": {"group", "group-empty"}} {
		read(names...).inState("grp", want)
	}
	read("group", "offset", "group-tombstone").inState("grp", "Empty") // the offset is a simple group's
	if read("offset", "offset-tombstone").m.group("grp").offsets.get(partition{"a", 7}) != nil {
		t.Error("the offset is there after its tombstone")
	}
}

func TestReplaySkipsWhatIsNewer(t *testing.T) {
	b := newBench(t, Options{})
	offset, group := golden(t)["offset"], golden(t)["group"]
	b.log = []coordinator.Entry{
		{Key: []byte{0, 99, 1, 2}, Value: []byte{1}},
		{Key: offset.Key, Value: append([]byte{0, 5}, offset.Value[2:]...)},
		{Key: group.Key, Value: []byte{0, 4, 1, 2, 3}},
	}
	if r := b.replayed(); len(r.m.groups) != 0 {
		t.Fatal(r.m.groups)
	}
}

func TestReplayOfDamage(t *testing.T) {
	for name, r := range golden(t) {
		for n := range len(r.Value) {
			m := New(Options{NewID: func() string { return "" }}, topicMap{})
			if err := m.Replay(0, coordinator.Entry{Key: r.Key, Value: r.Value[:n]}); !errors.Is(err, record.ErrCorrupt) {
				t.Fatalf("%s cut at %d of %d: %v", name, n, len(r.Value), err)
			}
		}
		for n := range len(r.Key) {
			m := New(Options{NewID: func() string { return "" }}, topicMap{})
			if err := m.Replay(0, coordinator.Entry{Key: r.Key[:n], Value: r.Value}); !errors.Is(err, record.ErrCorrupt) {
				t.Fatalf("%s with key cut at %d of %d: %v", name, n, len(r.Key), err)
			}
		}
	}
}

// FuzzReplay: no record makes the machine panic, and what is taken of it is written and read again as it is.
func FuzzReplay(f *testing.F) {
	for _, r := range golden(f) {
		f.Add(r.Key, r.Value, false)
	}
	for _, r := range goldenConsumer(f) {
		f.Add(r.Key, r.Value, true)
	}
	f.Fuzz(func(t *testing.T, key, value []byte, transactional bool) {
		if len(value) == 0 {
			value = nil
		}
		m := New(Options{NewID: func() string { return "id" }}, topicMap{"a": {idA, 8}})
		if m.Replay(0, coordinator.Entry{Key: key, Value: value, Transactional: transactional, ProducerID: 1}) != nil {
			return
		}
		_ = m.Replay(1, coordinator.Entry{Marker: true, Commit: true, ProducerID: 1})
		m.Loaded(start)
		again := New(m.o, m.topics)
		for id, g := range m.groups {
			for _, p := range g.allPartitions() {
				r := offsetRecord(id, p, *g.offsets.get(p))
				if err := again.Replay(0, coordinator.Entry{Key: r.Key, Value: r.Value}); err != nil {
					t.Fatal(err)
				}
				if got, want := again.group(id).offsets.get(p), g.offsets.get(p); got.offset != want.offset || got.metadata != want.metadata || got.at != want.at {
					t.Fatal(got, want)
				}
			}
			if g.classic != nil && g.classic.state == stable {
				r := groupRecord(g.classic)
				if err := again.Replay(0, coordinator.Entry{Key: r.Key, Value: r.Value}); err != nil {
					t.Fatal(err)
				}
				if got, want := len(again.group(id).classic.members), len(g.classic.members); got != want {
					t.Fatal(got, want)
				}
			}
		}
		m.Tick(start.Add(time.Hour))
	})
}

// goldenConsumer are records of KIP-848 groups.
func goldenConsumer(t testing.TB) []coordinator.Record {
	b := newBench(t, Options{})
	b.do(b.request(1, &kmsg.ConsumerGroupHeartbeatRequest{
		Group: "g", MemberID: "m", RebalanceTimeoutMillis: 1000, SubscribedTopicNames: []string{"a"}, Topics: []kmsg.ConsumerGroupHeartbeatRequestTopic{},
	}))
	var all []coordinator.Record
	for _, e := range b.log {
		all = append(all, coordinator.Record{Key: e.Key, Value: e.Value})
	}
	return all
}
