package consumer

import "github.com/twmb/franz-go/pkg/kerr"

// CheckCommit says whether a member may commit offsets: 0, UNKNOWN_MEMBER_ID, STALE_MEMBER_EPOCH (ILLEGAL_GENERATION to
// a classic member), or UNSUPPORTED_VERSION to a member of the consumer protocol that uses OffsetCommit below version 9.
// txn is a TxnOffsetCommit. With 0, every partition has to pass CheckCommitPartition too.
//
// An epoch below -1 or -1 itself without members is a commit from outside the group, as that of a tool. In a transaction
// an empty member id with epoch -1 is a producer that does not tell its group's state.
func (g *Group) CheckCommit(memberID string, instanceID *string, epoch int32, apiVersion int16, txn bool) int16 {
	if g.foreign(memberID, instanceID, epoch, txn) {
		return 0
	}
	m := g.members[memberID]
	switch {
	case m == nil:
		return kerr.UnknownMemberID.Code
	case !txn && !m.usesClassic() && apiVersion < 9:
		return kerr.UnsupportedVersion.Code
	case epoch > m.epoch:
		return m.stale()
	}
	return 0
}

// CheckCommitPartition says whether a member that passed CheckCommit may commit for a partition: 0, or the code of a stale
// epoch, which is then the answer for all partitions of the request: Kafka commits none of them. With the member's own
// epoch it may for any. With an older one it may for partitions that it has had since that epoch (KIP-1251): a commit that was
// under way while the epoch grew is good, one of an earlier owner is not.
func (g *Group) CheckCommitPartition(memberID string, instanceID *string, epoch int32, txn bool, topic TopicID, partition int32) int16 {
	m := g.members[memberID]
	if m == nil || g.foreign(memberID, instanceID, epoch, txn) || epoch == m.epoch {
		return 0
	}
	since, ok := m.assigned[topic][partition]
	if !ok {
		since, ok = m.revoking[topic][partition]
	}
	if !ok || epoch < since {
		return m.stale()
	}
	return 0
}

func (g *Group) foreign(memberID string, instanceID *string, epoch int32, txn bool) bool {
	return epoch < 0 && len(g.members) == 0 || txn && epoch == -1 && memberID == "" && instanceID == nil
}

func (m *member) stale() int16 {
	if m.usesClassic() {
		return kerr.IllegalGeneration.Code
	}
	return kerr.StaleMemberEpoch.Code
}

// CheckFetch says whether offsets may be fetched: 0, UNKNOWN_MEMBER_ID, STALE_MEMBER_EPOCH (ILLEGAL_GENERATION to a
// classic member). A nil member id with a negative epoch is from outside the group.
func (g *Group) CheckFetch(memberID *string, epoch int32) int16 {
	if memberID == nil && epoch < 0 {
		return 0
	}
	m := g.members[deref(memberID)]
	switch {
	case m == nil:
		return kerr.UnknownMemberID.Code
	case epoch != m.epoch:
		return m.stale()
	}
	return 0
}
