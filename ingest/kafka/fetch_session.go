package kafka

import (
	"container/list"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/tier/record"
)

// Incremental fetch sessions (KIP-227). A session remembers the partitions of a consumer, so that its requests and
// responses carry only what changed.

// sessionIdle is how long an unused session is safe from eviction (Kafka's MIN_INCREMENTAL_FETCH_SESSION_EVICTION_MS).
const sessionIdle = 2 * time.Minute

// Session epochs with a meaning of their own.
const (
	epochNone int32 = -1 // no session
	epochNew  int32 = 0  // a full fetch, which opens a session
)

// fetchPart is one partition that a consumer fetches.
type fetchPart struct {
	topic     string
	id        record.TopicID
	partition int32

	offset       record.Offset
	currentEpoch record.LeaderEpoch
	lastFetched  record.LeaderEpoch
	maxBytes     int

	// What the session's last response said of the partition; -1 is nothing yet.
	sentHW, sentLogStart record.Offset
}

type partKey struct {
	topic     string
	id        record.TopicID
	partition int32
}

func (p *fetchPart) key() partKey { return partKey{p.topic, p.id, p.partition} }

// fetchSession is one consumer's session. The connection's writer goroutine uses it; mu guards against a client that
// uses one session on two connections.
type fetchSession struct {
	id      int32
	usesIDs bool

	mu    sync.Mutex
	epoch int32      // of the next request
	order *list.List // of *fetchPart; those that returned data last are at the end
	index map[partKey]*list.Element

	lastUsed time.Time // guarded by the cache's mu
}

// update applies an incremental request.
func (s *fetchSession) update(parts []*fetchPart, forgotten []partKey) {
	for _, p := range parts {
		if e, ok := s.index[p.key()]; ok {
			old := e.Value.(*fetchPart)
			p.sentHW, p.sentLogStart = old.sentHW, old.sentLogStart
			e.Value = p
			continue
		}
		s.index[p.key()] = s.order.PushBack(p)
	}
	for _, k := range forgotten {
		if e, ok := s.index[k]; ok {
			s.order.Remove(e)
			delete(s.index, k)
		}
	}
}

// moveBack puts a partition that returned data behind the others, so that each gets its turn.
func (s *fetchSession) moveBack(p *fetchPart) {
	if e, ok := s.index[p.key()]; ok {
		s.order.MoveToBack(e)
	}
}

func (s *fetchSession) parts() []*fetchPart {
	ps := make([]*fetchPart, 0, s.order.Len())
	for e := s.order.Front(); e != nil; e = e.Next() {
		ps = append(ps, e.Value.(*fetchPart))
	}
	return ps
}

// nextEpoch follows epoch; 1 follows 2^31-1.
func nextEpoch(epoch int32) int32 {
	if epoch == 1<<31-1 {
		return 1
	}
	return epoch + 1
}

// sessionCache holds the sessions of a broker, a bounded number of them.
type sessionCache struct {
	limit int

	mu       sync.Mutex
	sessions map[int32]*fetchSession
}

func newSessionCache(limit int) *sessionCache {
	return &sessionCache{limit: limit, sessions: map[int32]*fetchSession{}}
}

func (c *sessionCache) get(id int32, now time.Time) *fetchSession {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := c.sessions[id]
	if s != nil {
		s.lastUsed = now
	}
	return s
}

func (c *sessionCache) remove(id int32) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.sessions, id)
}

// open makes a session of parts, evicting an idle one if the cache is full; nil if none is idle, which the client
// takes as "no session".
func (c *sessionCache) open(parts []*fetchPart, usesIDs bool, now time.Time) *fetchSession {
	s := &fetchSession{usesIDs: usesIDs, epoch: 1, order: list.New(), index: map[partKey]*list.Element{}, lastUsed: now}
	s.update(parts, nil)
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.sessions) >= c.limit && !c.evictLocked(now) {
		return nil
	}
	for s.id == 0 || c.sessions[s.id] != nil {
		s.id = rand.Int32N(1<<31-1) + 1
	}
	c.sessions[s.id] = s
	return s
}

func (c *sessionCache) evictLocked(now time.Time) bool {
	var oldest *fetchSession
	for _, s := range c.sessions {
		if oldest == nil || s.lastUsed.Before(oldest.lastUsed) {
			oldest = s
		}
	}
	if oldest == nil || now.Sub(oldest.lastUsed) < sessionIdle {
		return false
	}
	delete(c.sessions, oldest.id)
	return true
}

// requestParts flattens the partitions of a request, in its order.
func requestParts(req *kmsg.FetchRequest) []*fetchPart {
	var ps []*fetchPart
	for i := range req.Topics {
		t := &req.Topics[i]
		for j := range t.Partitions {
			p := &t.Partitions[j]
			fp := &fetchPart{topic: t.Topic, id: t.TopicID, partition: p.Partition, offset: record.Offset(p.FetchOffset), maxBytes: int(p.PartitionMaxBytes),
				currentEpoch: record.NoEpoch, lastFetched: record.NoEpoch, sentHW: -1, sentLogStart: -1}
			if req.Version >= 9 {
				fp.currentEpoch = record.LeaderEpoch(p.CurrentLeaderEpoch)
			}
			if req.Version >= 12 {
				fp.lastFetched = record.LeaderEpoch(p.LastFetchedEpoch)
			}
			ps = append(ps, fp)
		}
	}
	return ps
}

func forgottenParts(req *kmsg.FetchRequest) []partKey {
	var ks []partKey
	for _, t := range req.ForgottenTopics {
		for _, p := range t.Partitions {
			ks = append(ks, partKey{t.Topic, t.TopicID, p})
		}
	}
	return ks
}
