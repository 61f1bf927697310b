package controller

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/cluster/quota"
	"github.com/everlog/everlog/tier/object"
)

func part(kind string, names ...string) []quota.Part {
	if len(names) == 0 {
		return []quota.Part{{Type: kind}}
	}
	return []quota.Part{{Type: kind, Name: &names[0]}}
}

func TestAlterQuotas(t *testing.T) {
	n := start(t, object.NewMemory(), 0, nil)
	defer n.stop()
	n.register(t, 0)
	rate := func(v float64) []quota.Op { return []quota.Op{{Key: quota.ProducerByteRate, Value: v}} }
	change := []QuotaChange{{part(quota.User, "u"), rate(1000)}, {part("x", "u"), rate(1)}, {part(quota.User, "v"), rate(0)}, {part(quota.ClientID), rate(2000)}, {part(quota.User, "w"), rate(1)}, {part(quota.User, "w"), rate(2)}}
	kinds := []error{nil, quota.ErrInvalid, quota.ErrInvalid, nil, ErrInvalidRequest, ErrInvalidRequest}
	before := n.log.Image().Version
	for _, dry := range []bool{true, false} {
		errs := n.AlterQuotas(t.Context(), change, dry)
		for i, kind := range kinds {
			if !errors.Is(errs[i], kind) || kind == nil && errs[i] != nil {
				t.Errorf("change %d, dry %v: %v, want %v", i, dry, errs[i], kind)
			}
		}
		if dry && n.log.Image().Version != before {
			t.Error("validateOnly made a commit")
		}
	}
	want := map[string]string{`{"user":"u"}`: `{"producer_byte_rate":1000}`, `{"client-id":null}`: `{"producer_byte_rate":2000}`}
	if diff := cmp.Diff(want, n.log.Image().Values(quota.Kind)); diff != "" {
		t.Error(diff)
	}
	before = n.log.Image().Version
	if err := n.AlterQuotas(t.Context(), []QuotaChange{{part(quota.User, "u"), rate(1000)}}, false)[0]; err != nil || n.log.Image().Version != before {
		t.Errorf("a change that changes nothing made a commit: %v", err)
	}
	remove := []quota.Op{{Key: quota.ProducerByteRate, Remove: true}}
	for _, err := range n.AlterQuotas(t.Context(), []QuotaChange{{part(quota.User, "u"), remove}, {part(quota.ClientID), remove}}, false) {
		if err != nil {
			t.Error(err)
		}
	}
	if left := n.log.Image().Values(quota.Kind); len(left) != 0 {
		t.Errorf("after removing all: %v", left)
	}
}

func TestAlterGroups(t *testing.T) {
	n := start(t, object.NewMemory(), 0, nil)
	defer n.stop()
	n.register(t, 0)
	set := func(name, v string) []config.Change { return []config.Change{{Name: name, Op: config.Set, Value: &v}} }
	errs := n.AlterConfigs(t.Context(), []ConfigChange{
		{GroupResource, "g", set("consumer.session.timeout.ms", "50000")}, {GroupResource, "", set("consumer.session.timeout.ms", "50000")},
		{GroupResource, "h", set("consumer.session.timeout.ms", "1")}, {GroupResource, "i", set("nope", "1")}}, false)
	for i, kind := range []error{nil, ErrInvalidRequest, ErrInvalidConfig, ErrInvalidConfig} {
		if !errors.Is(errs[i], kind) || kind == nil && errs[i] != nil {
			t.Errorf("%d: %v, want %v", i, errs[i], kind)
		}
	}
	img := n.log.Image()
	if diff := cmp.Diff([]string{"g"}, ConfiguredGroups(img)); diff != "" {
		t.Error(diff)
	}
	if g := config.Group(GroupConfigs(img, "g"), nil); g.SessionTimeout != 50*time.Second {
		t.Errorf("session timeout of g: %v", g.SessionTimeout)
	}
	if g := config.Group(GroupConfigs(img, "other"), nil); g.SessionTimeout != 45*time.Second {
		t.Errorf("session timeout of a group without settings: %v", g.SessionTimeout)
	}
	if err := n.LegacyAlterConfigs(t.Context(), []ConfigChange{{GroupResource, "g", nil}}, false)[0]; err != nil || len(ConfiguredGroups(n.log.Image())) != 0 {
		t.Errorf("replaced by nothing: %v, %v", err, ConfiguredGroups(n.log.Image()))
	}
}

func TestElectLeaders(t *testing.T) {
	n := start(t, object.NewMemory(), 0, nil)
	defer n.stop()
	n.register(t, 0, 1)
	create(t, n, "a", map[int32][]int32{0: {1, 0}, 1: {0, 1}})
	other := registration(1)
	other.DiskID = "disk-new" // broker 1 loses what it led: 0 leads a-0 now, and 1 is in no ISR
	n.mu.Lock()
	n.heard[1] = time.Time{} // long ago
	n.mu.Unlock()
	if _, err := n.RegisterBroker(t.Context(), other); err != nil {
		t.Fatal(err)
	}
	at := func(i int32) PartitionRef { return PartitionRef{"a", i} }
	all := []PartitionRef{at(0), at(1), at(2), {"b", 0}}
	for _, c := range []struct {
		kind Election
		want []error
	}{
		{Preferred, []error{ErrPreferredNotAvailable, ErrElectionNotNeeded, ErrUnknownTopic, ErrUnknownTopic}},
		{Unclean, []error{ErrElectionNotNeeded, ErrElectionNotNeeded, ErrUnknownTopic, ErrUnknownTopic}},
	} {
		for i, err := range n.ElectLeaders(t.Context(), c.kind, all) {
			if !errors.Is(err, c.want[i]) {
				t.Errorf("election %d of %v: %v, want %v", c.kind, all[i], err, c.want[i])
			}
		}
	}
	// It is in sync again, and takes over once.
	p := n.log.Image().Topic("a").Partitions[0]
	p.ISR, p.PartitionEpoch = []int32{0, 1}, p.PartitionEpoch+1
	if _, err := n.log.Commit(t.Context(), n.log.Image(), metadata.PartitionChanged{ID: n.log.Image().Topic("a").ID, Partition: p}); err != nil {
		t.Fatal(err)
	}
	errs := n.ElectLeaders(t.Context(), Preferred, []PartitionRef{at(0), at(0)})
	if errs[0] != nil || !errors.Is(errs[1], ErrElectionNotNeeded) {
		t.Errorf("the preferred leader is in sync: %v", errs)
	}
	if now := n.log.Image().Topic("a").Partitions[0]; now.Leader != 1 || now.LeaderEpoch != p.LeaderEpoch+1 || now.PartitionEpoch != p.PartitionEpoch+1 {
		t.Errorf("after the election: %+v", now)
	}
}

func TestReassign(t *testing.T) {
	n := start(t, object.NewMemory(), 0, nil)
	defer n.stop()
	n.register(t, 0, 1, 2)
	create(t, n, "a", map[int32][]int32{0: {0, 1}})
	before := n.log.Image().Version
	for _, c := range []struct {
		topic    string
		index    int32
		replicas []int32
		fixed    bool
		kind     error
		says     string
	}{
		{"a", 0, []int32{0, 1}, false, nil, ""},
		{"a", 0, nil, false, ErrNoReassignment, "No partition reassignment is in progress."},
		{"a", 0, []int32{}, false, ErrInvalidAssignment, "an empty replica list"},
		{"a", 0, []int32{0, 9}, false, ErrInvalidAssignment, "includes broker 9, but no such broker is registered"},
		{"a", 0, []int32{0, 0}, false, ErrInvalidAssignment, "the broker 0 more than once"},
		{"a", 0, []int32{0, 2}, false, ErrInvalidAssignment, "not supported"},
		{"a", 0, []int32{0}, false, ErrInvalidAssignment, "not supported"},
		{"a", 0, []int32{0}, true, ErrInvalidReplicationFactor, "from 2 to 1"},
		{"a", 1, []int32{0}, false, ErrUnknownTopic, "a-1"},
		{"b", 0, nil, false, ErrUnknownTopic, "b"},
	} {
		err := n.Reassign(t.Context(), []Reassignment{{PartitionRef{c.topic, c.index}, c.replicas}}, c.fixed)[0]
		if !errors.Is(err, c.kind) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s-%d to %v: %v, want %v: %s", c.topic, c.index, c.replicas, err, c.kind, c.says)
		}
	}
	if n.log.Image().Version != before {
		t.Error("refusals, and what changes nothing, made a commit")
	}
	if err := n.Reassign(t.Context(), []Reassignment{{PartitionRef{"a", 0}, []int32{1, 0}}}, true)[0]; err != nil {
		t.Fatal(err)
	}
	want := metadata.Partition{Leader: 0, PartitionEpoch: 1, Replicas: []int32{1, 0}, ISR: []int32{0, 1}}
	if diff := cmp.Diff(want, n.log.Image().Topic("a").Partitions[0]); diff != "" {
		t.Error(diff)
	}
}
