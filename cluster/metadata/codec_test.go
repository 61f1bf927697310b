package metadata

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/record"
)

var update = flag.Bool("update", false, "write the golden files of this version anew")

// sample is one object of each kind, with every type of record. Its bytes are kept for ever: see testdata/v1.
func sample() map[string][]byte {
	id := record.TopicID{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}
	at := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	origin := seal(cluster{Kind: "cluster", Format: 1, ID: (&Image{ClusterID: [16]byte{0xAB}}).ClusterIDString(), Created: at})
	img := &Image{ClusterID: [16]byte{0xAB}, last: sum(origin)}
	p := Partition{Leader: 1, LeaderEpoch: 2, PartitionEpoch: 3, Replicas: []int32{1, 2}, ISR: []int32{1}}
	changed := p
	changed.PartitionEpoch, changed.LeaderEpoch, changed.Leader, changed.ISR = 4, 3, NoLeader, nil
	records := []Record{
		ControllerElected{Epoch: 7, Writer: "w"},
		BrokerRegistered{Broker{ID: 1, DiskID: "disk", Host: "h", Port: 9092, Rack: "r", Listeners: []Listener{{"L", "PLAINTEXT", "h", 9093}}}},
		TopicCreated{ID: id, Name: "a", Configs: map[string]string{"retention.ms": "-1", "cleanup.policy": "compact"}, Partitions: []Partition{p}},
		PartitionsAdded{ID: id, First: 1, Partitions: []Partition{p}},
		PartitionChanged{ID: id, Index: 0, Partition: changed},
		TopicConfigured{ID: id, Configs: map[string]string{"retention.ms": "5"}},
		BrokerConfigured{Broker: "", Configs: map[string]string{"tier.seal.ms": "60000"}},
		ProducerIDsAllocated{First: 0, Count: 1000},
		ValueSet{Kind: "acl", Key: "k", Value: `{"json":"<&>"}`},
		TopicCreated{ID: record.TopicID{9}, Name: "b", Partitions: []Partition{p}},
		TopicDeleted{ID: record.TopicID{9}},
	}
	log := encode(header{Kind: kindLog, Cluster: img.ClusterIDString(), Version: 1, Epoch: 7, Writer: "w", Commit: "commit", Previous: img.last.String(), Time: at}, records)
	d := newDraft(img)
	if err := d.applyObject(log); err != nil {
		panic(err)
	}
	snap := d.img.encodeSnapshot("nonce", at)
	return map[string][]byte{
		"cluster.json": origin, "log": log, "snapshot": snap,
		"root": seal(root{Kind: "metadata-root", Format: 1, Cluster: img.ClusterIDString(), Generation: 2, FirstRetained: 1,
			Snapshot: snapshotRef{1, snapshotName(1, "nonce"), sum(snap).String()}, Marks: []mark{{1, at}}, Nonce: "nonce"}),
	}
}

// What version 1 wrote must stay readable, and what is written now must be version 1 to the byte.
func TestGolden(t *testing.T) {
	dir := filepath.Join("testdata", "v1")
	now := sample()
	for name, want := range now {
		path := filepath.Join(dir, name)
		if *update {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, want, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s: written now\n%s\nin the file\n%s", name, want, got)
		}
		now[name] = got
	}
	id, err := decodeCluster(now["cluster.json"])
	if err != nil {
		t.Fatal(err)
	}
	d := newDraft(&Image{ClusterID: id, last: sum(now["cluster.json"])})
	if err := d.applyObject(now["log"]); err != nil {
		t.Fatal(err)
	}
	img, err := decodeSnapshot(now["snapshot"])
	if err != nil || dump(img) != dump(d.img) {
		t.Errorf("snapshot and replay differ: %v\n%s\n%s", err, dump(img), dump(d.img))
	}
	r, err := decodeRoot(now["root"], img.ClusterIDString())
	if err != nil || r.Snapshot.SHA256 != sum(now["snapshot"]).String() {
		t.Errorf("root: %+v, %v", r, err)
	}
}

// Any flipped bit and any cut must be noticed.
func TestDamageIsNoticed(t *testing.T) {
	for name, p := range sample() {
		read := func(p []byte) error {
			var err error
			switch name {
			case "cluster.json":
				_, err = decodeCluster(p)
			case "root":
				_, err = decodeRoot(p, (&Image{ClusterID: [16]byte{0xAB}}).ClusterIDString())
			case "log":
				_, _, err = decode(p, kindLog)
			case "snapshot":
				_, err = decodeSnapshot(p)
			}
			return err
		}
		if err := read(p); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for i := range p {
			for bit := range 8 {
				damaged := bytes.Clone(p)
				damaged[i] ^= 1 << bit
				if err := read(damaged); !errors.Is(err, ErrCorrupt) {
					t.Fatalf("%s: bit %d of byte %d (%q): %v", name, bit, i, p[max(0, i-10):min(len(p), i+10)], err)
				}
			}
			if err := read(p[:i]); !errors.Is(err, ErrCorrupt) {
				t.Fatalf("%s cut to %d bytes: %v", name, i, err)
			}
		}
	}
}

// reseal gives an edited log object a right checksum.
func reseal(p []byte, old, new string) []byte {
	end := bytes.LastIndexByte(p[:len(p)-1], '\n') + 1
	edited := []byte(strings.Replace(string(p[:end]), old, new, 1))
	return appendCRC(edited, edited)
}

func TestLaterVersions(t *testing.T) {
	log := sample()["log"]
	for _, c := range []struct {
		old, new string
		want     error
	}{
		{`"format":1`, `"format":2`, ErrVersion},
		{`"type":"value-set","v":1`, `"type":"value-set","v":2`, ErrVersion},
		{`"type":"value-set"`, `"type":"wish"`, ErrVersion},
		{`"v":1`, `"v":0`, ErrCorrupt},
		{`"records":11`, `"records":12`, ErrCorrupt},
		{`"everlog":"metadata-log"`, `"everlog":"metadata-snapshot"`, ErrCorrupt},
		{`"format":1,`, `"format":1,"later":true,`, nil},
	} {
		p := reseal(log, c.old, c.new)
		if bytes.Equal(p, log) {
			t.Fatalf("%s is not in the sample", c.old)
		}
		if _, _, err := decode(p, kindLog); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.new, err, c.want)
		}
	}
}

func TestChain(t *testing.T) {
	s := sample()
	origin := &Image{ClusterID: [16]byte{0xAB}, last: sum(s["cluster.json"])}
	for _, c := range []struct {
		old, new string
		want     error
	}{
		{`"cluster":"q`, `"cluster":"r`, ErrWrongCluster},
		{`"version":1`, `"version":2`, ErrCorrupt},
		{`"previous":"`, `"previous":"00`, ErrRestored},
		{`"partition":0`, `"partition":9`, ErrCorrupt},
	} {
		d := newDraft(origin)
		if err := d.applyObject(reseal(s["log"], c.old, c.new)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.new, err, c.want)
		}
	}
}

// A deposed controller's object keeps its place in the chain and changes nothing.
func TestVoidObject(t *testing.T) {
	img := &Image{ClusterID: [16]byte{1}, Version: 4, Controller: Controller{Epoch: 5, Writer: "new"}}
	object := func(h header, records ...Record) []byte {
		h.Kind, h.Cluster, h.Version, h.Commit, h.Previous = kindLog, img.ClusterIDString(), 5, "c", img.last.String()
		return encode(h, records)
	}
	set := ValueSet{"k", "a", "b"}
	for about, c := range map[string]struct {
		p    []byte
		void bool
	}{
		"the controller":                    {object(header{Epoch: 5, Writer: "new"}, set), false},
		"a lower epoch":                     {object(header{Epoch: 4, Writer: "old"}, set), true},
		"the same epoch, another process":   {object(header{Epoch: 5, Writer: "old"}, set), true},
		"a higher epoch without its record": {object(header{Epoch: 6, Writer: "next"}, set), true},
		"another's record":                  {object(header{Epoch: 6, Writer: "next"}, ControllerElected{6, "other"}, set), true},
		"the next":                          {object(header{Epoch: 6, Writer: "next"}, ControllerElected{6, "next"}, set), false},
		"a record that goes back":           {object(header{Epoch: 4, Writer: "old"}, ControllerElected{4, "old"}, set), true},
	} {
		d := newDraft(img)
		if err := d.applyObject(c.p); err != nil {
			t.Errorf("%s: %v", about, err)
		}
		if void := len(d.img.Values("k")) == 0; void != c.void || d.img.Version != 5 || d.img.last != sum(c.p) {
			t.Errorf("%s: void %v, version %d", about, void, d.img.Version)
		}
	}
}

// Whatever the bytes, decoding answers or refuses; what it accepts, it writes and reads again to the same image.
func FuzzDecode(f *testing.F) {
	for _, p := range sample() {
		f.Add(p)
		if end := bytes.LastIndexByte(p[:len(p)-1], '\n') + 1; end > 0 {
			f.Add(p[:end])
		}
	}
	origin := &Image{ClusterID: [16]byte{0xAB}, last: sum(sample()["cluster.json"])}
	f.Fuzz(func(t *testing.T, p []byte) {
		for _, p := range [][]byte{p, appendCRC(bytes.Clone(p), p)} { // with a right checksum the rest is reached
			if img, err := decodeSnapshot(p); err == nil {
				again, err := decodeSnapshot([]byte(dump(img)))
				if err != nil || dump(again) != dump(img) {
					t.Fatalf("snapshot read, written and read: %v", err)
				}
			}
			d := newDraft(origin)
			if err := d.applyObject(p); err == nil {
				if again, err := decodeSnapshot([]byte(dump(d.img))); err != nil || dump(again) != dump(d.img) {
					t.Fatalf("log object to snapshot and back: %v", err)
				}
			}
			_, _ = decodeCluster(p)
			_, _ = decodeRoot(p, origin.ClusterIDString())
		}
	})
}
