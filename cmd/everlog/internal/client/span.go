package client

import (
	"context"
	"slices"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/everlog/everlog/cmd/everlog/internal/connect"
	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// span is the part of one partition a command reads: [from, to), read up to next.
type span struct {
	from, to, next int64
	end            int64 // log end (or last stable) offset when the command began
	leader         int32
	topicID        kadm.TopicID
}

func (s *span) done() bool { return s.next >= s.to }

// spans are the parts of one topic, by partition.
type spans map[int32]*span

// open counts the partitions that have something left.
func (s spans) open() int {
	n := 0
	for _, p := range s {
		if !p.done() {
			n++
		}
	}
	return n
}

// sorted are the partition numbers in order.
func (s spans) sorted() []int32 {
	var numbers []int32
	for n := range s {
		numbers = append(numbers, n)
	}
	slices.Sort(numbers)
	return numbers
}

// question is what resolve asks about a topic.
type question struct {
	topic      string
	partitions []int32 // none: all
	offsets    grammar.Range
	committed  bool // the end is the last stable offset, for those who read committed records only
}

// resolve turns the offsets a person wrote into a span for each partition.
func resolve(ctx context.Context, flags *connect.Flags, admin *kadm.Client, q question) (spans, error) {
	limited, cancel := context.WithTimeout(ctx, flags.Timeout)
	defer cancel()
	s := &session{kafka: kafka{nil, flags}, admin: admin, ctx: limited}
	topics, err := s.topics(q.topic)
	if err != nil {
		return nil, err
	}
	details := topics[q.topic].Partitions
	if len(q.partitions) == 0 {
		q.partitions = details.Numbers()
	}
	for _, p := range q.partitions {
		if _, ok := details[p]; !ok {
			return nil, report.Errorf(report.NotFound, "%s has no partition %d", topicNamed(q.topic), p).WithHint("it has %s, from 0", report.Count(int64(len(details)), "partition"))
		}
	}
	lists, err := s.lists(q)
	if err != nil {
		return nil, err
	}
	result := spans{}
	for _, p := range q.partitions {
		one, err := lists.span(q, p)
		if err != nil {
			return nil, s.flags.Explain(err, "offsets of "+topicNamed(q.topic), "")
		}
		one.leader, one.topicID = details[p].Leader, topics[q.topic].ID
		result[p] = one
	}
	return result, nil
}

// offsetLists are the answers of ListOffsets that resolving needs.
type offsetLists struct {
	start, end kadm.ListedOffsets
	times      map[int64]kadm.ListedOffsets
}

func (s *session) lists(q question) (*offsetLists, error) {
	fail := func(err error) (*offsetLists, error) {
		return nil, s.flags.Explain(err, "offsets of "+topicNamed(q.topic), "")
	}
	l := &offsetLists{times: map[int64]kadm.ListedOffsets{}}
	var err error
	if l.start, err = s.admin.ListStartOffsets(s.ctx, q.topic); err != nil {
		return fail(err)
	}
	list := s.admin.ListEndOffsets
	if q.committed {
		list = s.admin.ListCommittedOffsets
	}
	if l.end, err = list(s.ctx, q.topic); err != nil {
		return fail(err)
	}
	for _, b := range []grammar.Bound{q.offsets.From, q.offsets.To} {
		if b.Kind != grammar.AtTime || l.times[b.Value] != nil {
			continue
		}
		if l.times[b.Value], err = s.admin.ListOffsetsAfterMilli(s.ctx, b.Value, q.topic); err != nil {
			return fail(err)
		}
	}
	return l, nil
}

func (l *offsetLists) span(q question, partition int32) (*span, error) {
	at := func(list kadm.ListedOffsets) (int64, error) {
		o, ok := list.Lookup(q.topic, partition)
		if !ok {
			return 0, report.Errorf(report.Failed, "partition %d: the broker told no offset", partition)
		}
		return o.Offset, o.Err
	}
	start, err := at(l.start)
	if err != nil {
		return nil, err
	}
	end, err := at(l.end)
	if err != nil {
		return nil, err
	}
	from, to, err := q.offsets.Resolve(grammar.Log{Start: start, End: end, AtTime: func(ms int64) (int64, error) {
		o, err := at(l.times[ms])
		if o < 0 {
			o = end
		}
		return o, err
	}})
	return &span{from: from, to: to, next: from, end: end}, err
}
