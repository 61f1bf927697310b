package group

import (
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

func TestOffsetCommit(t *testing.T) {
	check(t, []rule{
		{"from no member with generation -1 it makes a simple group", Options{}, func(b *bench) {
			b.code(nil, b.commit(9, "g", "", -1, "a", 5))
			b.hasOffset("g", "a", 5)
			for _, x := range []*bench{b, b.replayed()} {
				x.hasOffset("g", "a", 5)
				if l := x.do(List{}).([]kmsg.ListGroupsResponseGroup); len(l) != 1 || l[0].ProtocolType != "" || l[0].GroupState != "Empty" || l[0].GroupType != "classic" {
					b.t.Fatal(l)
				}
			}
		}},
		{"an empty group id is accepted", Options{}, func(b *bench) {
			b.code(nil, b.commit(9, "", "", -1, "a", 5))
			b.hasOffset("", "a", 5)
		}},
		{"from no member it is UNKNOWN_MEMBER_ID unless the group is Empty", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 1)
			b.code(kerr.UnknownMemberID, b.commit(9, "g", "", -1, "a", 5))
			b.leave("g", kmsg.LeaveGroupRequestMember{MemberID: members[0]})
			b.code(nil, b.commit(9, "g", "", -1, "a", 6))
			b.code(kerr.UnknownMemberID, b.commit(9, "g", members[0], generation, "a", 7))
			b.hasOffset("g", "a", 6)
		}},
		{"with a generation an unknown group is GROUP_ID_NOT_FOUND from v9 on, ILLEGAL_GENERATION below", Options{}, func(b *bench) {
			b.code(kerr.GroupIDNotFound, b.commit(9, "none", "x", 1, "a", 5))
			b.code(kerr.IllegalGeneration, b.commit(8, "none", "x", 1, "a", 5))
		}},
		{"another generation is ILLEGAL_GENERATION, another member UNKNOWN_MEMBER_ID", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 1)
			b.code(kerr.IllegalGeneration, b.commit(9, "g", members[0], generation+1, "a", 5))
			b.code(kerr.UnknownMemberID, b.commit(9, "g", "x", generation, "a", 5))
			b.hasOffset("g", "a", -1)
		}},
		{"in CompletingRebalance it is REBALANCE_IN_PROGRESS", Options{}, func(b *bench) {
			id, call := b.enter("g")
			b.passUntil(call)
			b.code(kerr.RebalanceInProgress, b.commit(9, "g", id, 1, "a", 5))
		}},
		{"in PreparingRebalance it is taken, and keeps the session", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 2)
			b.join(9, "g", withMember(members[0]))
			for range 5 {
				b.pass(9 * time.Second)
				b.code(nil, b.commit(9, "g", members[1], generation, "a", 5))
			}
			b.hasOffset("g", "a", 5)
		}},
		{"in Stable it keeps the session", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 1)
			for range 5 {
				b.pass(9 * time.Second)
				b.code(nil, b.commit(9, "g", members[0], generation, "a", 5))
			}
			b.inState("g", "Stable")
		}},
		{"metadata of more than 4096 characters is OFFSET_METADATA_TOO_LARGE", Options{}, func(b *bench) {
			for _, c := range []struct {
				metadata string
				err      *kerr.Error
			}{
				{strings.Repeat("x", 4096), nil}, {strings.Repeat("x", 4097), kerr.OffsetMetadataTooLarge},
				{strings.Repeat("é", 4096), nil}, {strings.Repeat("é", 4097), kerr.OffsetMetadataTooLarge},
				{strings.Repeat("😀", 2048), nil}, {strings.Repeat("😀", 2049), kerr.OffsetMetadataTooLarge}, // two in UTF-16
			} {
				resp := b.do(b.request(9, &kmsg.OffsetCommitRequest{Group: "g", Generation: -1, Topics: []kmsg.OffsetCommitRequestTopic{
					{Topic: "a", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: 1, Offset: 3}, {Offset: 4, Metadata: &c.metadata}}},
				}})).(*kmsg.OffsetCommitResponse)
				b.code(nil, resp.Topics[0].Partitions[0].ErrorCode)
				b.code(c.err, resp.Topics[0].Partitions[1].ErrorCode)
			}
		}},
		{"v10 names topics by id; an unknown id is UNKNOWN_TOPIC_ID", Options{}, func(b *bench) {
			resp := b.do(b.request(10, &kmsg.OffsetCommitRequest{Group: "g", Generation: -1, Topics: []kmsg.OffsetCommitRequestTopic{
				{TopicID: idA, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 3}}},
				{TopicID: idC, Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Offset: 3}}},
			}})).(*kmsg.OffsetCommitResponse)
			b.code(nil, resp.Topics[0].Partitions[0].ErrorCode)
			b.code(kerr.UnknownTopicID, resp.Topics[1].Partitions[0].ErrorCode)
			if resp.Topics[0].TopicID != idA {
				b.t.Fatal(resp)
			}
			b.hasOffset("g", "a", 3)
		}},
		{"leader epoch and metadata come back", Options{}, func(b *bench) {
			b.do(b.request(9, &kmsg.OffsetCommitRequest{Group: "g", Generation: -1, Topics: []kmsg.OffsetCommitRequestTopic{
				{Topic: "a", Partitions: []kmsg.OffsetCommitRequestTopicPartition{{Partition: 2, Offset: 3, LeaderEpoch: 7, Metadata: ptr("m")}}}}}))
			for _, x := range []*bench{b, b.replayed()} {
				got := x.do(FetchOffsets{Version: 9, Group: kmsg.OffsetFetchRequestGroup{Group: "g", MemberEpoch: -1}}).(kmsg.OffsetFetchResponseGroup)
				if p := got.Topics[0].Partitions[0]; p.Partition != 2 || p.Offset != 3 || p.LeaderEpoch != 7 || *p.Metadata != "m" {
					b.t.Fatal(got)
				}
			}
		}},
		{"a member's commit survives its group's members", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 1)
			b.code(nil, b.commit(9, "g", members[0], generation, "a", 5))
			b.pass(time.Minute)
			b.inState("g", "Empty")
			b.hasOffset("g", "a", 5)
			b.replayed().hasOffset("g", "a", 5)
		}},
	})
}

func TestOffsetFetch(t *testing.T) {
	check(t, []rule{
		{"an unknown group or partition is offset -1 without an error", Options{}, func(b *bench) {
			b.commit(9, "g", "", -1, "a", 5)
			for _, group := range []string{"g", "none"} {
				got := b.do(FetchOffsets{Version: 9, Group: kmsg.OffsetFetchRequestGroup{
					Group: group, MemberEpoch: -1, Topics: []kmsg.OffsetFetchRequestGroupTopic{{Topic: "b", Partitions: []int32{3}}},
				}}).(kmsg.OffsetFetchResponseGroup)
				p := got.Topics[0].Partitions[0]
				if got.ErrorCode != 0 || p.ErrorCode != 0 || p.Offset != -1 || p.LeaderEpoch != -1 || p.Metadata == nil || *p.Metadata != "" || p.Partition != 3 {
					b.t.Fatal(got)
				}
			}
		}},
		{"no topics are all topics, in order, by name and id", Options{}, func(b *bench) {
			b.commit(9, "g", "", -1, "b", 6)
			b.commit(9, "g", "", -1, "a", 5)
			got := b.do(FetchOffsets{Version: 10, Group: kmsg.OffsetFetchRequestGroup{Group: "g", MemberEpoch: -1}}).(kmsg.OffsetFetchResponseGroup)
			if len(got.Topics) != 2 || got.Topics[0].Topic != "a" || got.Topics[0].TopicID != idA || got.Topics[1].Partitions[0].Offset != 6 {
				b.t.Fatal(got)
			}
			none := b.do(FetchOffsets{Version: 10, Group: kmsg.OffsetFetchRequestGroup{Group: "none"}}).(kmsg.OffsetFetchResponseGroup)
			if len(none.Topics) != 0 || none.ErrorCode != 0 {
				b.t.Fatal(none)
			}
		}},
		{"v10 names topics by id", Options{}, func(b *bench) {
			b.commit(9, "g", "", -1, "a", 5)
			got := b.do(FetchOffsets{Version: 10, Group: kmsg.OffsetFetchRequestGroup{Group: "g", MemberEpoch: -1, Topics: []kmsg.OffsetFetchRequestGroupTopic{
				{TopicID: idA, Partitions: []int32{0}}, {TopicID: idC, Partitions: []int32{0}},
			}}}).(kmsg.OffsetFetchResponseGroup)
			if got.Topics[0].TopicID != idA || got.Topics[0].Partitions[0].Offset != 5 {
				b.t.Fatal(got)
			}
			b.code(kerr.UnknownTopicID, got.Topics[1].Partitions[0].ErrorCode)
		}},
		{"an offset of another topic of the same name is none", Options{}, func(b *bench) {
			b.commit(9, "g", "", -1, "a", 5)
			r := b.replayed()
			r.topics = topicMap{"a": {idC, 8}}
			r.m.topics = r.topics // before it is told
			r.hasOffset("g", "a", -1)
			all := r.do(FetchOffsets{Version: 9, Group: kmsg.OffsetFetchRequestGroup{Group: "g", MemberEpoch: -1}}).(kmsg.OffsetFetchResponseGroup)
			if len(all.Topics) != 0 {
				b.t.Fatal(all)
			}
		}},
	})
}

func TestTransactions(t *testing.T) {
	check(t, []rule{
		{"offsets are seen at the commit, not before", Options{}, func(b *bench) {
			b.commit(9, "g", "", -1, "a", 5)
			b.code(nil, b.commitTxn("g", 1, "a", 9))
			b.hasOffset("g", "a", 5)
			b.replayed().hasOffset("g", "a", 5)
			b.endTxn(1, true)
			b.hasOffset("g", "a", 9)
			b.replayed().hasOffset("g", "a", 9)
		}},
		{"and vanish at the abort", Options{}, func(b *bench) {
			b.commit(9, "g", "", -1, "a", 5)
			b.commitTxn("g", 1, "a", 9)
			b.endTxn(1, false)
			b.hasOffset("g", "a", 5)
			b.replayed().hasOffset("g", "a", 5)
			if len(b.m.transactions) != 0 {
				b.t.Fatal(b.m.transactions)
			}
		}},
		{"a stable fetch of them is UNSTABLE_OFFSET_COMMIT until then", Options{}, func(b *bench) {
			b.commit(9, "g", "", -1, "a", 5)
			b.commitTxn("g", 1, "a", 9)
			b.commitTxn("g", 2, "a", 8)
			for _, x := range []*bench{b, b.replayed()} {
				offset, code := x.fetch("g", "a", true)
				if offset != -1 {
					b.t.Fatal(offset)
				}
				b.code(kerr.UnstableOffsetCommit, code)
				_, code = x.fetch("g", "b", true)
				b.code(nil, code)
			}
			b.endTxn(1, true)
			_, code := b.fetch("g", "a", true)
			b.code(kerr.UnstableOffsetCommit, code)
			all := b.do(FetchOffsets{Version: 9, RequireStable: true, Group: kmsg.OffsetFetchRequestGroup{Group: "g", MemberEpoch: -1}}).(kmsg.OffsetFetchResponseGroup)
			b.code(kerr.UnstableOffsetCommit, all.Topics[0].Partitions[0].ErrorCode)
			b.endTxn(2, false)
			offset, code := b.fetch("g", "a", true)
			if b.code(nil, code); offset != 9 {
				b.t.Fatal(offset)
			}
		}},
		{"a commit outside of it that is later in the log holds", Options{}, func(b *bench) {
			b.commitTxn("g", 1, "a", 9)
			b.commit(9, "g", "", -1, "a", 5)
			b.endTxn(1, true)
			b.hasOffset("g", "a", 5)
			b.replayed().hasOffset("g", "a", 5)
		}},
		{"an offset that is deleted takes what is pending with it", Options{}, func(b *bench) {
			b.commitTxn("g", 1, "a", 9)
			b.commitTxn("g", 1, "b", 9)
			b.do(b.request(0, &kmsg.OffsetDeleteRequest{Group: "g", Topics: []kmsg.OffsetDeleteRequestTopic{{Topic: "a", Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{}}}}}))
			b.endTxn(1, true)
			for _, x := range []*bench{b, b.replayed()} {
				x.hasOffset("g", "a", -1)
				x.hasOffset("g", "b", 9)
			}
		}},
		{"a group that is deleted takes what is pending with it", Options{}, func(b *bench) {
			b.commitTxn("g", 1, "a", 9)
			b.code(nil, b.do(Delete{Group: "g"}).(int16))
			b.commit(9, "g", "", -1, "b", 1)
			b.endTxn(1, true)
			for _, x := range []*bench{b, b.replayed()} {
				x.hasOffset("g", "a", -1)
				x.hasOffset("g", "b", 1)
			}
		}},
		{"below v3, or without a member, it is taken whatever the group does", Options{}, func(b *bench) {
			_, generation := b.stableGroup("g", 1)
			b.code(nil, b.commitTxn("g", 1, "a", 9))
			got := b.do(b.request(2, &kmsg.TxnOffsetCommitRequest{Group: "g", ProducerID: 1, Generation: generation + 5, MemberID: "ignored",
				Topics: []kmsg.TxnOffsetCommitRequestTopic{{Topic: "a", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{}}}}})).(*kmsg.TxnOffsetCommitResponse)
			b.code(nil, got.Topics[0].Partitions[0].ErrorCode)
		}},
		{"from v3 on a member and its generation are checked, but not the state", Options{}, func(b *bench) {
			id, call := b.enter("g")
			b.passUntil(call)
			for _, c := range []struct {
				member     string
				generation int32
				err        *kerr.Error
			}{{id, 1, nil}, {id, 2, kerr.IllegalGeneration}, {"x", 1, kerr.UnknownMemberID}, {"x", -1, kerr.UnknownMemberID}} {
				got := b.do(b.request(3, &kmsg.TxnOffsetCommitRequest{Group: "g", ProducerID: 1, Generation: c.generation, MemberID: c.member,
					Topics: []kmsg.TxnOffsetCommitRequestTopic{{Topic: "a", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{}}}}})).(*kmsg.TxnOffsetCommitResponse)
				b.code(c.err, got.Topics[0].Partitions[0].ErrorCode)
			}
		}},
		{"with a generation an unknown group is ILLEGAL_GENERATION", Options{}, func(b *bench) {
			got := b.do(b.request(3, &kmsg.TxnOffsetCommitRequest{Group: "none", ProducerID: 1, Generation: 4, MemberID: "x",
				Topics: []kmsg.TxnOffsetCommitRequestTopic{{Topic: "a", Partitions: []kmsg.TxnOffsetCommitRequestTopicPartition{{}}}}})).(*kmsg.TxnOffsetCommitResponse)
			b.code(kerr.IllegalGeneration, got.Topics[0].Partitions[0].ErrorCode)
			b.code(kerr.InvalidGroupID, b.commitTxn("", 1, "a", 1))
		}},
	})
}

func TestOffsetDelete(t *testing.T) {
	remove := func(b *bench, group string, topics ...string) *kmsg.OffsetDeleteResponse {
		req := &kmsg.OffsetDeleteRequest{Group: group}
		for _, topic := range topics {
			req.Topics = append(req.Topics, kmsg.OffsetDeleteRequestTopic{Topic: topic, Partitions: []kmsg.OffsetDeleteRequestTopicPartition{{Partition: 0}, {Partition: 5}}})
		}
		return b.do(b.request(0, req)).(*kmsg.OffsetDeleteResponse)
	}
	check(t, []rule{
		{"offsets of a topic that members subscribe to are GROUP_SUBSCRIBED_TO_TOPIC", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 1)
			b.commit(9, "g", members[0], generation, "a", 5)
			b.commit(9, "g", members[0], generation, "b", 6)
			for _, x := range []*bench{b.replayed(), b} {
				got := remove(x, "g", "a", "b")
				b.code(nil, got.ErrorCode)
				b.code(kerr.GroupSubscribedToTopic, got.Topics[0].Partitions[1].ErrorCode)
				b.code(nil, got.Topics[1].Partitions[1].ErrorCode)
				x.hasOffset("g", "a", 5)
				x.hasOffset("g", "b", -1)
			}
			b.replayed().hasOffset("g", "b", -1)
		}},
		{"if the subscription cannot be read every topic is", Options{}, func(b *bench) {
			members, generation := b.stableGroup("g", 1, withMetadata([]byte{0, 1, 0, 0, 0, 9}))
			b.commit(9, "g", members[0], generation, "b", 6)
			b.code(kerr.GroupSubscribedToTopic, remove(b, "g", "b").Topics[0].Partitions[0].ErrorCode)
		}},
		{"a group of another type with members is NON_EMPTY_GROUP", Options{}, func(b *bench) {
			b.stableGroup("g", 1, withType("connect"))
			b.code(kerr.NonEmptyGroup, remove(b, "g", "b").ErrorCode)
		}},
		{"an unknown group is GROUP_ID_NOT_FOUND", Options{}, func(b *bench) {
			b.code(kerr.GroupIDNotFound, remove(b, "none", "b").ErrorCode)
			b.code(kerr.InvalidGroupID, remove(b, "", "b").ErrorCode)
		}},
	})
}
