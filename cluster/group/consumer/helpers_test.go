package consumer

import (
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// catalog is a cluster's topics.
type catalog struct {
	byName map[string]topicInfo
	byID   map[TopicID]string
}

type topicInfo struct {
	id         TopicID
	partitions int32
}

// topicID is the id of the n-th topic.
func topicID(n int) TopicID { return TopicID{0: 0xee, 14: byte(n >> 8), 15: byte(n)} }

// topics of a catalog: "a", 3, "b", 2 are two topics of three and two partitions with ids 1 and 2.
func topics(namesAndPartitions ...any) catalog {
	c := catalog{map[string]topicInfo{}, map[TopicID]string{}}
	for i := 0; i < len(namesAndPartitions); i += 2 {
		c.add(namesAndPartitions[i].(string), topicID(i/2+1), int32(namesAndPartitions[i+1].(int)))
	}
	return c
}

func (c catalog) add(name string, id TopicID, partitions int32) {
	c.byName[name], c.byID[id] = topicInfo{id, partitions}, name
}

func (c catalog) clone() catalog { return catalog{maps.Clone(c.byName), maps.Clone(c.byID)} }

func (c catalog) remove(name string) {
	delete(c.byID, c.byName[name].id)
	delete(c.byName, name)
}

func (c catalog) ByName(name string) ([16]byte, int32, bool) {
	t, ok := c.byName[name]
	return t.id, t.partitions, ok
}

func (c catalog) ByID(id [16]byte) (string, int32, bool) {
	name, ok := c.byID[id]
	return name, c.byName[name].partitions, ok
}

func (c catalog) Names(yield func(string) bool) {
	for n := range c.byName {
		if !yield(n) {
			return
		}
	}
}

var start = time.UnixMilli(1_000_000_000_000)

// world is a group with its log and a clock.
type world struct {
	t      *testing.T
	g      *Group
	o      Options
	topics catalog
	now    time.Time
	log    []coordinator.Record
	lastID int
}

func newWorld(t *testing.T, o Options, c catalog) *world {
	w := &world{t: t, topics: c, now: start}
	o.NewID = func() string { w.lastID++; return fmt.Sprintf("made-%d", w.lastID) }
	w.o, w.g = o, New("g", o)
	return w
}

func (w *world) keep(records []coordinator.Record) { w.log = append(w.log, records...) }

// reload makes the group anew from the log.
func (w *world) reload() {
	w.t.Helper()
	w.g = replayed(w.t, w.o, w.log)
	w.keep(w.g.Loaded(w.topics, w.now))
}

func replayed(t *testing.T, o Options, log []coordinator.Record) *Group {
	t.Helper()
	g := New("g", o)
	for _, r := range log {
		if err := g.Replay(r.Key, r.Value); err != nil {
			t.Fatal(err)
		}
	}
	return g
}

// pass lets time go by, doing what is due when it is.
func (w *world) pass(d time.Duration) {
	end := w.now.Add(d)
	for {
		due := w.g.Deadline()
		if due.IsZero() || due.After(end) {
			break
		}
		if due.After(w.now) {
			w.now = due
		}
		w.keep(w.g.Tick(w.topics, w.now))
	}
	w.now = end
}

func (w *world) change(c catalog) {
	w.topics = c
	w.keep(w.g.TopicsChanged(c, w.now))
}

func (w *world) send(req *kmsg.ConsumerGroupHeartbeatRequest) *kmsg.ConsumerGroupHeartbeatResponse {
	resp, records := w.g.Heartbeat(req, Client{"client", "/127.0.0.1"}, w.topics, w.now)
	if resp.ErrorCode != 0 && len(records) > 0 {
		w.t.Fatalf("a refused request left %d records", len(records))
	}
	w.keep(records)
	return resp
}

// join is the first heartbeat of a member that subscribes to the topics.
func join(id string, names ...string) *kmsg.ConsumerGroupHeartbeatRequest {
	r := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	r.Version, r.Group, r.MemberID, r.RebalanceTimeoutMillis = 1, "g", id, 60_000
	r.SubscribedTopicNames = append([]string{}, names...)
	r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	return r
}

// beat is a heartbeat without news.
func beat(id string, epoch int32) *kmsg.ConsumerGroupHeartbeatRequest {
	r := kmsg.NewPtrConsumerGroupHeartbeatRequest()
	r.Version, r.Group, r.MemberID, r.MemberEpoch = 1, "g", id, epoch
	return r
}

// holding adds the partitions that the member has: topic numbers and partitions.
func holding(r *kmsg.ConsumerGroupHeartbeatRequest, byTopic map[int][]int32) *kmsg.ConsumerGroupHeartbeatRequest {
	r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
	for _, n := range slices.Sorted(maps.Keys(byTopic)) {
		r.Topics = append(r.Topics, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: topicID(n), Partitions: byTopic[n]})
	}
	return r
}

// text of an answer: epoch and partitions, or the error.
func text(r *kmsg.ConsumerGroupHeartbeatResponse) string {
	if r.ErrorCode != 0 {
		return fmt.Sprintf("error %d", r.ErrorCode)
	}
	s := fmt.Sprintf("epoch %d", r.MemberEpoch)
	if r.Assignment == nil {
		return s
	}
	s += " has"
	for _, t := range r.Assignment.Topics {
		s += fmt.Sprintf(" %d:%v", int(t.TopicID[14])<<8|int(t.TopicID[15]), t.Partitions)
	}
	return s
}

func (w *world) want(req *kmsg.ConsumerGroupHeartbeatRequest, want string) {
	w.t.Helper()
	if got := text(w.send(req)); got != want {
		w.t.Errorf("got %q, want %q", got, want)
	}
}
