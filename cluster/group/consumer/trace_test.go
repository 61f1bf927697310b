package consumer

import (
	"bufio"
	"encoding/hex"
	"fmt"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// TestAnswersAreKafkas gives the requests of testdata/kafka-4.3.1-groups.txt to groups and compares the answers.
//
// One difference is meant: when a member leaves, Kafka computes the target with the next heartbeat of the consumer protocol,
// and tells classic members nothing before; here they are told to join at once.
func TestAnswersAreKafkas(t *testing.T) {
	f, err := os.Open("testdata/kafka-4.3.1-groups.txt")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	k := &kafkaTrace{t: t, topics: topics()}
	lines := bufio.NewScanner(f)
	for lines.Buffer(nil, 1<<20); lines.Scan(); {
		if k.line++; !strings.HasPrefix(lines.Text(), "#") {
			k.take(strings.Fields(lines.Text()))
		}
	}
	if k.answers < 500 || k.errors < 50 {
		t.Errorf("%d answers, %d of them errors: there are more in the file", k.answers, k.errors)
	}
}

type kafkaTrace struct {
	t       *testing.T
	topics  catalog
	g       *Group
	next    string // the id that Kafka made
	line    int
	answers int
	errors  int
}

func (k *kafkaTrace) take(f []string) {
	switch f[0] {
	case "topic":
		var id TopicID
		var n int32
		copy(id[:], k.bytes(f[2]))
		fmt.Sscan(f[3], &n)
		k.topics.add(f[1], id, n)
		return
	case "group":
		k.g = New(f[1], Options{AssignmentInterval: -1, Assignors: []string{"range"}, Migration: UpgradeOnly, NewID: func() string { return k.next }})
		return
	}
	var key, version int16
	fmt.Sscan(f[0]+" "+f[1], &key, &version)
	req, want := kmsg.RequestForKey(key), kmsg.ResponseForKey(key)
	req.SetVersion(version)
	want.SetVersion(version)
	if err := req.ReadFrom(k.bytes(f[2])); err != nil {
		k.t.Fatalf("line %d: %v", k.line, err)
	}
	if err := want.ReadFrom(k.bytes(f[3])); err != nil {
		k.t.Fatalf("line %d: %v", k.line, err)
	}
	k.compare(req, want)
}

func (k *kafkaTrace) bytes(s string) []byte {
	b, err := hex.DecodeString(s)
	if err != nil {
		k.t.Fatalf("line %d: %v", k.line, err)
	}
	return b
}

func (k *kafkaTrace) compare(req kmsg.Request, want kmsg.Response) {
	switch req := req.(type) {
	case *kmsg.ConsumerGroupHeartbeatRequest:
		want := want.(*kmsg.ConsumerGroupHeartbeatResponse)
		got, _ := k.g.Heartbeat(req, Client{}, k.topics, start)
		k.equal(*req, heartbeatText(want), heartbeatText(got))
		k.equal(*req, deref(want.ErrorMessage), deref(got.ErrorMessage))
		k.count(want.ErrorCode)
	case *kmsg.JoinGroupRequest:
		want := want.(*kmsg.JoinGroupResponse)
		k.next = want.MemberID
		got, _ := k.g.JoinClassic(req, Client{}, k.topics, start)
		k.equal(*req, joinText(want), joinText(got))
		k.count(want.ErrorCode)
	case *kmsg.SyncGroupRequest:
		want := want.(*kmsg.SyncGroupResponse)
		got := k.g.SyncClassic(req, k.topics, start)
		if want.ErrorCode == 0 && got.ErrorCode == kerr.RebalanceInProgress.Code {
			return
		}
		k.equal(*req, k.syncText(want), k.syncText(got))
		k.count(want.ErrorCode)
	case *kmsg.HeartbeatRequest:
		want := want.(*kmsg.HeartbeatResponse)
		if got := k.g.HeartbeatClassic(req, start); !(want.ErrorCode == 0 && got == kerr.RebalanceInProgress.Code) {
			k.equal(*req, want.ErrorCode, got)
		}
		k.count(want.ErrorCode)
	case *kmsg.LeaveGroupRequest:
		want := want.(*kmsg.LeaveGroupResponse)
		got, _ := k.g.LeaveClassic(req.Members, k.topics, start)
		k.equal(*req, want.Members, got)
		k.count(want.ErrorCode)
	case *kmsg.OffsetCommitRequest:
		k.compareCommit(req, want.(*kmsg.OffsetCommitResponse))
	case *kmsg.ConsumerGroupDescribeRequest:
		want, got := want.(*kmsg.ConsumerGroupDescribeResponse).Groups[0], k.g.Describe(k.topics)
		k.equal(*req, describeText(want, want.State != "Assigning"), describeText(got, want.State != "Assigning"))
		k.count(want.ErrorCode)
	default:
		k.t.Fatalf("line %d: request %T", k.line, req)
	}
}

func (k *kafkaTrace) compareCommit(req *kmsg.OffsetCommitRequest, want *kmsg.OffsetCommitResponse) {
	code := k.g.CheckCommit(req.MemberID, req.InstanceID, req.Generation, req.Version, false)
	for _, topic := range req.Topics {
		for _, p := range topic.Partitions {
			if code == 0 {
				code = k.g.CheckCommitPartition(req.MemberID, req.InstanceID, req.Generation, false, topic.TopicID, p.Partition)
			}
		}
	}
	for _, topic := range want.Topics {
		for _, p := range topic.Partitions {
			k.equal(*req, p.ErrorCode, code)
			k.count(p.ErrorCode)
		}
	}
}

func (k *kafkaTrace) equal(req, want, got any) {
	k.t.Helper()
	if !reflect.DeepEqual(want, got) {
		k.t.Errorf("line %d: to %+v Kafka answers\n%v, we\n%v", k.line, req, want, got)
	}
}

func (k *kafkaTrace) count(code int16) {
	if k.answers++; code != 0 {
		k.errors++
	}
}

func heartbeatText(r *kmsg.ConsumerGroupHeartbeatResponse) string {
	if r.ErrorCode != 0 {
		return fmt.Sprint("error ", r.ErrorCode)
	}
	s := fmt.Sprintf("%s in epoch %d", deref(r.MemberID), r.MemberEpoch)
	if r.MemberEpoch >= 0 {
		s += fmt.Sprintf(" every %d ms", r.HeartbeatIntervalMillis)
	}
	if r.Assignment == nil {
		return s
	}
	var lines []string
	for _, t := range r.Assignment.Topics {
		lines = append(lines, fmt.Sprintf("%x %v", t.TopicID, sorted(t.Partitions)))
	}
	return s + " with " + strings.Join(sorted(lines), ", ")
}

func joinText(r *kmsg.JoinGroupResponse) string {
	return fmt.Sprintf("error %d, %q of %q in %d as %q, leader %q of %d", r.ErrorCode, deref(r.Protocol), deref(r.ProtocolType), r.Generation,
		r.MemberID, r.LeaderID, len(r.Members))
}

func (k *kafkaTrace) syncText(r *kmsg.SyncGroupResponse) string {
	s := fmt.Sprintf("error %d, %q of %q", r.ErrorCode, deref(r.Protocol), deref(r.ProtocolType))
	if r.ErrorCode != 0 {
		return fmt.Sprint("error ", r.ErrorCode)
	}
	var a kmsg.ConsumerMemberAssignment
	if err := a.ReadFrom(r.MemberAssignment); err != nil {
		k.t.Fatal(err)
	}
	var lines []string
	for _, t := range a.Topics {
		lines = append(lines, fmt.Sprint(t.Topic, sorted(t.Partitions)))
	}
	return fmt.Sprint(s, a.Version, a.UserData == nil, sorted(lines))
}

func describeText(g kmsg.ConsumerGroupDescribeResponseGroup, target bool) string {
	s := fmt.Sprint(g.ErrorCode, g.Group, g.Epoch, g.AssignorName)
	if target {
		s += fmt.Sprint(g.State, g.AssignmentEpoch)
	}
	slices.SortFunc(g.Members, func(a, b kmsg.ConsumerGroupDescribeResponseGroupMember) int {
		return strings.Compare(a.MemberID, b.MemberID)
	})
	for _, m := range g.Members {
		s += fmt.Sprint("\n", m.MemberID, deref(m.InstanceID), deref(m.RackID), m.MemberEpoch, sorted(m.SubscribedTopics), m.SubscribedTopicRegex == nil,
			deref(m.SubscribedTopicRegex), m.MemberType, assignmentLines(m.Assignment))
		if target {
			s += fmt.Sprint(assignmentLines(m.TargetAssignment))
		}
	}
	return s
}

func assignmentLines(a kmsg.Assignment) []string {
	var lines []string
	for _, t := range a.TopicPartitions {
		lines = append(lines, fmt.Sprint(t.Topic, t.TopicID, sorted(t.Partitions)))
	}
	return sorted(lines)
}

func sorted[T int32 | string](s []T) []T {
	s = slices.Clone(s)
	slices.Sort(s)
	return s
}
