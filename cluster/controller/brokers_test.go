package controller

import (
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
)

func create(t *testing.T, n *node, name string, assignment map[int32][]int32) {
	t.Helper()
	if r := n.CreateTopics(t.Context(), []NewTopic{{Name: name, Partitions: -1, ReplicationFactor: -1, Assignments: assignment}}, false); r[0].Err != nil {
		t.Fatal(r[0].Err)
	}
}

func TestRegistrationBumpsEpochs(t *testing.T) {
	n := start(t, object.NewMemory(), 0, nil)
	defer n.stop()
	n.register(t, 0, 1)
	create(t, n, "one", map[int32][]int32{0: {0}, 1: {1}})
	create(t, n, "two", map[int32][]int32{0: {0, 1}, 1: {1, 0}})
	partitions := func(img *metadata.Image) []metadata.Partition {
		return slices.Concat(img.Topic("one").Partitions, img.Topic("two").Partitions)
	}
	img, err := n.RegisterBroker(t.Context(), registration(0))
	if err != nil {
		t.Fatal(err)
	}
	if b := img.Broker(0); b.Epoch != int64(img.Version) {
		t.Errorf("broker epoch %d in version %d", b.Epoch, img.Version)
	}
	want := []metadata.Partition{
		{Leader: 0, LeaderEpoch: 1, PartitionEpoch: 1, Replicas: []int32{0}, ISR: []int32{0}},
		{Leader: 1, Replicas: []int32{1}, ISR: []int32{1}},
		{Leader: 0, LeaderEpoch: 1, PartitionEpoch: 1, Replicas: []int32{0, 1}, ISR: []int32{0, 1}},
		{Leader: 1, Replicas: []int32{1, 0}, ISR: []int32{1, 0}}}
	if d := cmp.Diff(want, partitions(img)); d != "" {
		t.Error(d)
	}

	// Another disk under the same id: out of every ISR, but where there is nobody else.
	other := registration(0)
	other.DiskID = "disk-new"
	if img, err = n.RegisterBroker(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	want[0].LeaderEpoch, want[0].PartitionEpoch = 2, 2
	want[2] = metadata.Partition{Leader: 1, LeaderEpoch: 2, PartitionEpoch: 2, Replicas: []int32{0, 1}, ISR: []int32{1}}
	want[3].ISR, want[3].PartitionEpoch = []int32{1}, 1
	if d := cmp.Diff(want, partitions(img)); d != "" {
		t.Error(d)
	}

	// A broker of another process on another disk, while the first is alive.
	rival := registration(1)
	rival.DiskID = "disk-rival"
	if _, err := n.RegisterBroker(t.Context(), rival); !errors.Is(err, ErrDuplicateBroker) {
		t.Errorf("rival: %v", err)
	}
	if err := n.Heartbeat(1, img.Broker(1).Epoch); err != nil {
		t.Error(err)
	}
	if err := n.Heartbeat(0, 1); !errors.Is(err, ErrStaleBroker) {
		t.Errorf("heartbeat of an earlier process: %v", err)
	}
}

func TestLastCopyLost(t *testing.T) {
	id := record.NewTopicID()
	img, err := (&metadata.Image{}).With(
		metadata.BrokerRegistered{Broker: metadata.Broker{ID: 1, DiskID: "d1", Host: "h"}},
		metadata.BrokerRegistered{Broker: metadata.Broker{ID: 2, DiskID: "d2", Host: "h"}},
		metadata.TopicCreated{ID: id, Name: "a", Partitions: []metadata.Partition{{Leader: 1, LeaderEpoch: 4, Replicas: []int32{1, 2}, ISR: []int32{1}}}})
	if err != nil {
		t.Fatal(err)
	}
	got := takeOver(img, Registration{ID: 1, DiskID: "other", Host: "h"})
	want := []metadata.Record{metadata.PartitionChanged{ID: id, Partition: metadata.Partition{Leader: metadata.NoLeader, LeaderEpoch: 5, PartitionEpoch: 1, Replicas: []int32{1, 2}, ISR: []int32{}}}}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestLocalLeadership(t *testing.T) {
	n := start(t, object.NewMemory(), 0, nil)
	defer n.stop()
	n.register(t, 0, 1)
	create(t, n, "a", map[int32][]int32{0: {0}, 1: {1}})
	create(t, n, "b", map[int32][]int32{0: {0, 1}, 1: {1, 0}})
	img := n.log.Image()
	a := img.Topic("a").ID
	none := func(Partition) record.LeaderEpoch { return record.NoEpoch }
	if got := LocalLeaderships(img, 0, "disk-0", none); !cmp.Equal(got, map[Partition]record.LeaderEpoch{{a, 0}: 1}) {
		t.Errorf("%v", got)
	}
	if got := LocalLeaderships(img, 0, "another disk", none); len(got) != 0 {
		t.Errorf("on an unregistered disk: %v", got)
	}
	if got := LocalLeaderships(img, 5, "disk-5", none); len(got) != 0 {
		t.Errorf("of an unregistered broker: %v", got)
	}
	// The disk knows epoch 6, of a commit whose image did not reach the cache.
	local := LocalLeaderships(img, 0, "disk-0", func(Partition) record.LeaderEpoch { return 6 })
	r := registration(0)
	r.LocalEpochs = local
	img, err := n.RegisterBroker(t.Context(), r)
	if err != nil || img.Topic("a").Partitions[0].LeaderEpoch != 7 {
		t.Fatalf("%v, %+v", err, img.Topic("a").Partitions[0])
	}
	if e := img.Topic("b").Partitions[0].LeaderEpoch; e != 1 {
		t.Errorf("a partition that was not led locally: epoch %d", e)
	}
	r.DiskID = "replaced"
	if _, err := n.RegisterBroker(t.Context(), r); !errors.Is(err, ErrWrongDisk) {
		t.Errorf("local leadership on a disk that is not the registered one: %v", err)
	}
}

func TestPlacement(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var brokers []*metadata.Broker
		n := rapid.IntRange(1, 9).Draw(t, "brokers")
		racks := rapid.IntRange(1, 4).Draw(t, "racks")
		rackOf := map[int32]string{}
		for i := range n {
			b := &metadata.Broker{ID: int32(i), Rack: string('a' + rune(rapid.IntRange(0, racks-1).Draw(t, "rack")))}
			brokers, rackOf[b.ID] = append(brokers, b), b.Rack
		}
		distinct := map[string]bool{}
		for _, r := range rackOf {
			distinct[r] = true
		}
		factor := rapid.IntRange(1, n).Draw(t, "factor")
		count := rapid.IntRange(1, 60).Draw(t, "count")
		leads := make([]int, n)
		for _, replicas := range place(brokers, rapid.IntRange(0, 100).Draw(t, "first"), count, factor) {
			leads[replicas[0]]++
			used := map[string]bool{}
			for i, b := range replicas {
				if slices.Contains(replicas[:i], b) {
					t.Fatalf("replicas %v", replicas)
				}
				used[rackOf[b]] = true
			}
			if len(replicas) != factor || len(used) != min(factor, len(distinct)) {
				t.Fatalf("%d replicas in %d of %d racks, want %d", len(replicas), len(used), len(distinct), factor)
			}
		}
		if slices.Max(leads)-slices.Min(leads) > 1 {
			t.Fatalf("leaders per broker %v", leads)
		}
	})
}
