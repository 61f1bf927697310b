package consumer

import (
	"testing"
)

func TestCommitAndFetch(t *testing.T) {
	const unknown, stale, unsupported, illegal = 25, 113, 35, 22
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 4))
	if code := w.g.CheckCommit("", nil, -1, 9, false); code != 0 {
		t.Errorf("without members anybody may commit, got %d", code)
	}
	w.want(join("m1", "a"), "epoch 2 has 1:[0 1 2 3]")
	w.want(join("m2", "a"), "epoch 3 has")
	w.want(beat("m1", 2), "epoch 2 has 1:[0 1]")
	w.want(holding(beat("m1", 2), map[int][]int32{1: {0, 1}}), "epoch 3")
	w.want(beat("m2", 3), "epoch 3 has 1:[2 3]")
	w.want(join("m3", "a"), "epoch 4 has")
	w.want(beat("m1", 3), "epoch 4") // m1 has 0 and 1 since epoch 2, and is in epoch 4.
	w.want(beat("m2", 3), "epoch 3 has 1:[2]")
	w.joinClassic("c1", "a")

	ids := map[string]string{"none": "", "m1": "m1", "m2": "m2", "c1": "c1", "x": "x"}
	classic := w.g.members["c1"].epoch
	for _, c := range []struct {
		why, id   string
		epoch     int32
		version   int16
		txn       bool
		partition int32
		want      int16
	}{
		{"its epoch", "m1", 4, 9, false, 0, 0},
		{"its epoch, a partition of another", "m1", 4, 9, false, 3, 0},
		{"the epoch before, of what it has had since", "m1", 3, 9, false, 1, 0},
		{"its first epoch, of what it has had since", "m1", 2, 9, false, 1, 0},
		{"an older epoch, of what it gave up", "m1", 3, 9, false, 2, stale},
		{"an epoch from before it had the partition", "m2", 2, 9, false, 2, stale},
		{"what it is to give up", "m2", 3, 9, false, 3, 0},
		{"an epoch to come", "m1", 5, 9, false, 0, stale},
		{"no epoch", "m1", -1, 9, false, 0, stale},
		{"an old version", "m1", 4, 8, false, 0, unsupported},
		{"an old version in a transaction", "m1", 4, 2, true, 0, 0},
		{"somebody else", "x", 4, 9, false, 0, unknown},
		{"a tool", "none", -1, 9, false, 0, unknown},
		{"a producer that does not say", "none", -1, 2, true, 0, 0},
		{"a classic member", "c1", classic, 8, false, 0, 0},
		{"a classic member to come", "c1", classic + 1, 8, false, 0, illegal},
		{"a classic member of before", "c1", classic - 1, 8, false, 0, illegal},
	} {
		code := w.g.CheckCommit(ids[c.id], nil, c.epoch, c.version, c.txn)
		if code == 0 {
			code = w.g.CheckCommitPartition(ids[c.id], nil, c.epoch, c.txn, topicID(1), c.partition)
		}
		if code != c.want {
			t.Errorf("%s: %d, want %d", c.why, code, c.want)
		}
	}
	for _, c := range []struct {
		why   string
		id    *string
		epoch int32
		want  int16
	}{
		{"a tool", nil, -1, 0},
		{"a member", ptr("m1"), 4, 0},
		{"a member of before", ptr("m1"), 3, stale},
		{"a member that does not say", ptr("m1"), -1, stale},
		{"somebody else", ptr("x"), 4, unknown},
		{"nobody with an epoch", nil, 4, unknown},
		{"a classic member of before", ptr("c1"), classic - 1, illegal},
	} {
		if code := w.g.CheckFetch(c.id, c.epoch); code != c.want {
			t.Errorf("fetch by %s: %d, want %d", c.why, code, c.want)
		}
	}
}

// A static member that has left for a while commits nothing any more.
func TestNoCommitsAfterLeaving(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 1))
	w.want(with(join("s1", "a"), instance("i1")), "epoch 2 has 1:[0]")
	w.want(with(beat("s1", -2), instance("i1")), "epoch -2")
	if code := w.g.CheckCommit("s1", ptr("i1"), 2, 9, false); code != 113 {
		t.Errorf("got %d", code)
	}
	if a := w.g.members["s1"].assigned; !a.equal(owned{topicID(1): {0: 0}}) {
		t.Errorf("its partition is of an epoch still: %v", a)
	}
}
