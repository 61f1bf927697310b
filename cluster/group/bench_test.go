package group

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
)

// many makes groups of members each, all stable, in a machine whose answers are not kept.
func many(b *testing.B, groups, members int) (*Machine, []*kmsg.HeartbeatRequest, time.Time) {
	n, now := 0, start
	m := New(Options{InitialRebalanceDelay: -1, NewID: func() string { n++; return fmt.Sprint("id", n) }}, topicMap{"a": {idA, 8}})
	m.Loaded(now)
	token := coordinator.Token(0)
	var beats []*kmsg.HeartbeatRequest
	step := func(version int16, body kmsg.Request) coordinator.Effects {
		body.SetVersion(version)
		token++
		return m.Step(token, Request{Client: Client{ID: "client", Host: "/127.0.0.1"}, Body: body, Version: version}, now)
	}
	for g := range groups {
		id := fmt.Sprintf("group-%d", g)
		for range members {
			step(3, &kmsg.JoinGroupRequest{
				Group: id, SessionTimeoutMillis: 45_000, RebalanceTimeoutMillis: 300_000, ProtocolType: "consumer",
				Protocols: []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: subscription("a")}, {Name: "cooperative-sticky", Metadata: subscription("a")}},
			})
		}
		for _, r := range m.Tick(now).Replies {
			j := r.Value.(*kmsg.JoinGroupResponse)
			beats = append(beats, &kmsg.HeartbeatRequest{Version: 4, Group: id, MemberID: j.MemberID, Generation: j.Generation})
			sync := &kmsg.SyncGroupRequest{Group: id, MemberID: j.MemberID, Generation: j.Generation}
			for _, o := range j.Members {
				sync.GroupAssignment = append(sync.GroupAssignment, assignTo(o.MemberID, "0123456789abcdef"))
			}
			step(4, sync)
		}
	}
	return m, beats, now
}

// BenchmarkHeartbeat is one heartbeat among 10,000 members, and the time it takes to find the next deadline.
func BenchmarkHeartbeat(b *testing.B) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	m, beats, now := many(b, 1000, 10)
	runtime.GC()
	runtime.ReadMemStats(&after)
	b.ResetTimer()
	for i := range b.N {
		now = now.Add(time.Microsecond)
		m.Step(1, Request{Body: beats[i%len(beats)], Version: 4}, now)
		m.Deadline()
	}
	b.ReportMetric(float64(after.HeapAlloc-before.HeapAlloc)/float64(len(beats)), "B/member")
}

// BenchmarkCommit is a commit of ten partitions.
func BenchmarkCommit(b *testing.B) {
	m, beats, now := many(b, 100, 1)
	req := &kmsg.OffsetCommitRequest{Version: 9, Generation: beats[0].Generation, Topics: []kmsg.OffsetCommitRequestTopic{{Topic: "a"}}}
	for p := range int32(10) {
		req.Topics[0].Partitions = append(req.Topics[0].Partitions, kmsg.OffsetCommitRequestTopicPartition{Partition: p, Offset: 1})
	}
	b.ReportAllocs()
	b.ResetTimer()
	for i := range b.N {
		req.Group, req.MemberID = beats[i%len(beats)].Group, beats[i%len(beats)].MemberID
		m.Step(1, Request{Body: req, Version: 9}, now)
	}
}

// BenchmarkRebalance is a whole rebalance of a group of 1,000 members: all join again, and sync.
func BenchmarkRebalance(b *testing.B) {
	m, beats, now := many(b, 1, 1000)
	b.ResetTimer()
	for range b.N {
		var joined []coordinator.Reply
		for i, beat := range beats { // the leader's is the first, and begins it
			req := &kmsg.JoinGroupRequest{
				Version: 9, Group: beat.Group, MemberID: beat.MemberID, SessionTimeoutMillis: 45_000, RebalanceTimeoutMillis: 300_000, ProtocolType: "consumer",
				Protocols: []kmsg.JoinGroupRequestProtocol{{Name: "range", Metadata: subscription("a")}},
			}
			joined = append(joined, m.Step(coordinator.Token(i+1), Request{Body: req, Version: 9}, now).Replies...)
		}
		if len(joined) != len(beats) {
			b.Fatal(len(joined))
		}
		for _, r := range joined {
			j := r.Value.(*kmsg.JoinGroupResponse)
			sync := &kmsg.SyncGroupRequest{Version: 4, Group: beats[0].Group, MemberID: j.MemberID, Generation: j.Generation}
			for _, o := range j.Members {
				sync.GroupAssignment = append(sync.GroupAssignment, assignTo(o.MemberID, "0123456789abcdef"))
			}
			m.Step(1, Request{Body: sync, Version: 4}, now)
		}
	}
}
