package group

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
)

func TestClassicGroupLives(t *testing.T) {
	b := newBench(t, Options{})
	members, generation := b.stableGroup("g", 2)
	b.code(nil, b.heartbeat("g", members[0], generation))
	b.code(nil, b.commit(9, "g", members[0], generation, "a", 7))
	b.hasOffset("g", "a", 7)

	r := b.replayed()
	r.inState("g", "Stable")
	r.hasOffset("g", "a", 7)
	r.code(nil, r.heartbeat("g", members[1], generation))
	r.pass(10 * second)
	r.inState("g", "Empty")
	r.code(kerr.UnknownMemberID, r.heartbeat("g", members[1], generation))
}
