package consumer

import (
	"testing"
	"time"
)

func TestASecondMemberWaitsForTheFirstToRevoke(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 4))
	w.want(join("m1", "a"), "epoch 1 has 1:[0 1 2 3]")
	w.want(beat("m1", 1), "epoch 1")
	w.want(join("m2", "a"), "epoch 2 has")
	w.want(beat("m1", 1), "epoch 1 has 1:[0 1]")
	w.want(beat("m2", 2), "epoch 2")
	w.want(beat("m1", 1), "epoch 1") // It did not say that it has revoked.
	w.want(holding(beat("m1", 1), map[int][]int32{1: {0, 1, 2}}), "epoch 1")
	w.want(beat("m2", 2), "epoch 2")
	w.want(holding(beat("m1", 1), map[int][]int32{1: {0, 1}}), "epoch 2")
	w.want(beat("m2", 2), "epoch 2 has 1:[2 3]")
	if s := w.g.State(); s != "Stable" {
		t.Errorf("the group is %s", s)
	}
	w.want(beat("m1", -1), "epoch -1")
	w.want(beat("m2", 2), "epoch 3 has 1:[0 1 2 3]")
}

func TestSilentMembersAreRemoved(t *testing.T) {
	w := newWorld(t, Options{AssignmentInterval: -1}, topics("a", 2))
	w.want(join("m1", "a"), "epoch 1 has 1:[0 1]")
	w.want(join("m2", "a"), "epoch 2 has")
	w.pass(40 * time.Second)
	w.want(beat("m2", 2), "epoch 2")
	w.pass(6 * time.Second)
	w.want(beat("m1", 1), "error 25")
	w.want(beat("m2", 2), "epoch 3 has 1:[0 1]")
}
