package consumer

import (
	"bufio"
	"encoding/hex"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/cluster/group/assign"
)

// golden reads testdata/kafka-4.3.1.txt.
func golden(t *testing.T) map[string]coordinator.Record {
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
		var r coordinator.Record
		f := strings.Fields(s.Text())
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

func idFrom(first byte) (t TopicID) {
	for i := range t {
		t[i] = first + byte(i)
	}
	return t
}

var (
	t1, t2 = idFrom(0x01), idFrom(0x11)

	goldenMember = &member{
		id: "m1", instance: ptr("i1"), rack: ptr("r1"), client: Client{"c1", "/127.0.0.1"}, topics: []string{"a", "b"}, regex: "x.*",
		rebalanceTimeout: 60000, assignor: ptr("range"),
		epoch: 9, previousEpoch: 8, state: unrevoked, assigned: owned{t1: {0: 4, 2: 9}}, revoking: owned{t2: {5: 3}},
	}
	goldenClassic = &member{
		id: "m3", client: Client{"c3", "/127.0.0.1"}, topics: []string{"a"}, rebalanceTimeout: 300000,
		classic: &classicMetadata{sessionTimeout: 45000, protocols: []classicProtocol{{"range", []byte{1, 2, 3}}}},
	}
	goldenTarget = assign.Partitions{t1: {0, 2}, t2: {5}}
)

func ptr(s string) *string { return &s }

func TestRecordsAreKafkas(t *testing.T) {
	key := func(kind int16, of string) []byte { return recordKey{kind, "grp", of}.encode() }
	have := map[string]coordinator.Record{
		"group":           {Key: key(3, ""), Value: groupValue{7, -2}.encode()},
		"group-empty":     {Key: key(3, ""), Value: groupValue{1, 0}.encode()},
		"group-tombstone": {Key: key(3, "")},
		"member":          {Key: key(5, "m1"), Value: goldenMember.encodeMetadata()},
		"member-classic":  {Key: key(5, "m3"), Value: goldenClassic.encodeMetadata()},
		"target-metadata": {Key: key(6, ""), Value: targetMetadataValue{9, 1700000000000}.encode()},
		"target":          {Key: key(7, "m1"), Value: encodeTarget(goldenTarget)},
		"current":         {Key: key(8, "m1"), Value: goldenMember.encodeAssignment()},
		"regex":           {Key: key(16, "x.*"), Value: regexValue{[]string{"x1", "x2"}, 0, 1700000000000}.encode()},
	}
	want := golden(t)
	for name, r := range have {
		if !reflect.DeepEqual(r, want[name]) {
			t.Errorf("%s is\n%x %x, Kafka writes\n%x %x", name, r.Key, r.Value, want[name].Key, want[name].Value)
		}
	}
}

func TestKafkasRecordsAreRead(t *testing.T) {
	g := New("grp", Options{})
	records := golden(t)
	for _, name := range []string{"group", "partition-metadata", "member", "member-classic", "target-metadata", "target", "current", "regex"} {
		if err := g.Replay(records[name].Key, records[name].Value); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
	}
	if g.epoch != 7 || g.hash != -2 || g.targetEpoch != 9 || g.targetTime != 1700000000000 || !g.hasPartitionMetadata {
		t.Errorf("the group is %+v", g)
	}
	for _, m := range []*member{goldenMember, goldenClassic} {
		if got := g.members[m.id]; !got.sameMetadata(m) || !got.sameAssignment(m) {
			t.Errorf("member %s is %+v, want %+v", m.id, got, m)
		}
	}
	if !g.target["m1"].Equal(goldenTarget) {
		t.Errorf("the target is %v", g.target["m1"])
	}
	if _, ok := g.resolved["x.*"].topics["x2"]; !ok || len(g.resolved["x.*"].topics) != 2 {
		t.Errorf("the regular expression is resolved to %v", g.resolved["x.*"])
	}
	old := records["current-4.2"]
	if err := g.Replay(old.Key, old.Value); err != nil {
		t.Fatal(err)
	}
	if m := g.members["m1"]; m.state != unreleased || !m.assigned.equal(owned{t1: {0: 9, 2: 9}}) {
		t.Errorf("without assignment epochs the member is %+v", m)
	}
	if err := g.Replay(records["group-tombstone"].Key, nil); err != nil || g.State() != "Dead" {
		t.Errorf("after its tombstone the group is %s (%v)", g.State(), err)
	}
}

// Whatever is cut off a record, it is refused, and the group stays as it was.
func TestTruncatedRecordsAreRefused(t *testing.T) {
	for name, r := range golden(t) {
		if name == "partition-metadata" {
			continue // not looked into
		}
		for n := range len(r.Value) {
			g := New("grp", Options{})
			if err := g.Replay(r.Key, r.Value[:n]); err == nil {
				t.Errorf("%s of %d bytes was taken", name, n)
			}
			if len(g.members)+len(g.target)+len(g.resolved)+int(g.epoch)+int(g.targetEpoch) > firstEpoch {
				t.Errorf("%s of %d bytes left a trace", name, n)
			}
		}
		for n := range len(r.Key) {
			if _, err := GroupID(r.Key[:n]); err == nil {
				t.Errorf("a key of %s of %d bytes was taken", name, n)
			}
		}
	}
}

func TestUnknownTagsAreSkipped(t *testing.T) {
	v := groupValue{epoch: 7}.encode()
	v = append(v[:len(v)-1], 2, 1, 2, 0xaa, 0xbb, 9, 1, 0xcc) // tags 1 and 9
	g := New("grp", Options{})
	if err := g.Replay(recordKey{typeGroup, "grp", ""}.encode(), v); err != nil || g.epoch != 7 {
		t.Errorf("epoch %d, %v", g.epoch, err)
	}
}

func FuzzReplay(f *testing.F) {
	for _, kind := range []int16{3, 4, 5, 6, 7, 8, 16} {
		f.Add(kind, []byte{0, 0, 1, 2, 3})
	}
	f.Add(int16(5), goldenClassic.encodeMetadata())
	f.Add(int16(8), goldenMember.encodeAssignment())
	f.Fuzz(func(t *testing.T, kind int16, value []byte) {
		if !IsKey(kind) {
			return
		}
		g := New("g", Options{})
		if err := g.Replay(recordKey{kind, "g", "m"}.encode(), value); err != nil {
			return
		}
		if m := g.members["m"]; m != nil { // What was read is written so that it is read the same.
			again := New("g", Options{})
			for kind, v := range map[int16][]byte{5: m.encodeMetadata(), 8: m.encodeAssignment()} {
				if err := again.Replay(recordKey{kind, "g", "m"}.encode(), v); err != nil {
					t.Fatal(err)
				}
			}
			if n := again.members["m"]; !n.sameMetadata(m) || m.state != unknown && !n.sameAssignment(m) {
				t.Fatalf("%+v became %+v", m, n)
			}
		}
	})
}
