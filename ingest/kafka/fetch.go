package kafka

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/cluster/quota"
	"github.com/everlog/everlog/ingest/broker"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/record"
)

// Fetch (key 1, v4-18; KIP-74, KIP-98, KIP-227, KIP-320, KIP-516). Decoded by kmsg, encoded by hand (fetch_encode.go),
// so that record bytes go from the page cache or the block cache to the socket through one buffer.

// remoteWait bounds how long a fetch waits for history from the object store, whatever its own wait is (Kafka's
// remote.fetch.max.wait.ms). The read goes on behind it into the cache, and the consumer's next fetch finds it there.
const remoteWait = 500 * time.Millisecond

// awayRetry is how soon a fetch that still has time asks an object store again that could not be read.
const awayRetry = 250 * time.Millisecond

// fetchRead is one fetch in progress, and then its reply.
type fetchRead struct {
	server  *Server
	req     *kmsg.FetchRequest
	version int16
	image   *metadata.Image

	session    *fetchSession
	sessionID  int32
	code       int16 // of the whole response
	parts      []*fetchPart
	increments bool // only what changed is answered

	quota    allowance     // the client's, of bytes
	throttle time.Duration // how long it has to wait for some; then nothing is read

	away    bool // the object store cannot be read now
	results []fetched
	out     []*fetched         // those in the response
	nodes   []*metadata.Broker // addresses of the leaders it names
	encoded [][]byte           // the bytes before, between and after the records
	total   int
}

// fetched is what one partition answers.
type fetched struct {
	part     *fetchPart
	code     int16
	hw, lso  record.Offset
	logStart record.Offset
	aborted  []record.AbortedTxn
	data     partition.Data // records; empty is none
	diverge  *record.EpochStart
	remote   bool  // history: it counts as served in a session's order even if nothing came
	away     bool  // it is history that cannot be read now
	leader   int32 // KIP-951; -1 is unset
	epoch    record.LeaderEpoch
}

func (s *Server) fetch(_ context.Context, c *call, req *kmsg.FetchRequest) (kmsg.Response, error) {
	f := &fetchRead{server: s, req: req, version: req.Version}
	c.reply = f
	started := c.started
	c.finish = func(ctx context.Context) error {
		if !f.open(started) || f.throttled(c) {
			return nil
		}
		if f.session != nil {
			f.session.mu.Lock()
			defer f.session.mu.Unlock()
			f.advanceSession()
		}
		if err := f.gather(ctx, started.Add(time.Duration(req.MaxWaitMillis)*time.Millisecond)); err != nil {
			return err
		}
		f.choose()
		f.quota.charge(float64(f.size()), time.Now())
		return nil
	}
	return nil, nil
}

// throttled reports whether the client has used up its quota. Then it is answered at once, without records and with the
// time to wait, for which the connection is muted (KIP-219). The session moves on all the same; a new one is not kept.
func (f *fetchRead) throttled(c *call) bool {
	f.quota = f.server.throttle.of(quota.ConsumerByteRate, c)
	if f.throttle = f.quota.wait(time.Now()); f.throttle == 0 {
		return false
	}
	switch {
	case f.session != nil && f.increments:
		f.session.mu.Lock()
		f.advanceSession()
		f.session.mu.Unlock()
	case f.session != nil:
		f.server.sessions.remove(f.sessionID)
		f.session, f.sessionID = nil, 0
	}
	c.conn.mute(f.throttle)
	return true
}

// open resolves the session and the partitions to read. It returns false if the answer is an error of the whole request.
func (f *fetchRead) open(now time.Time) bool {
	req, cache := f.req, f.server.sessions
	usesIDs := f.version >= 13
	switch {
	case f.version < 7 || req.SessionEpoch == epochNone:
		if f.version >= 7 && req.SessionID > 0 {
			cache.remove(req.SessionID)
		}
		f.parts = requestParts(req)
	case req.SessionEpoch == epochNew:
		if req.SessionID > 0 {
			cache.remove(req.SessionID)
		}
		f.parts = requestParts(req)
		if len(f.parts) > 0 {
			f.session = cache.open(f.parts, usesIDs, now)
		}
		if f.session != nil {
			f.sessionID = f.session.id
		}
	default:
		s := cache.get(req.SessionID, now)
		if s == nil {
			f.code = codeFetchSessionIDNotFound
			return false
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.epoch != req.SessionEpoch:
			f.code = codeInvalidFetchSessionEpoch
			return false
		case s.usesIDs != usesIDs:
			f.code = codeFetchSessionTopicID
			return false
		}
		s.update(requestParts(req), forgottenParts(req))
		f.parts, f.increments = s.parts(), true
		if len(f.parts) == 0 {
			cache.remove(s.id)
			return true
		}
		f.session, f.sessionID = s, s.id
	}
	return true
}

// advanceSession moves the session on: the next request must carry the next epoch.
func (f *fetchRead) advanceSession() {
	if f.increments {
		f.session.epoch = nextEpoch(f.session.epoch)
	}
}

// gather reads until there is enough to answer, an error to tell, or no time left.
func (f *fetchRead) gather(ctx context.Context, deadline time.Time) error {
	f.results = make([]fetched, len(f.parts))
	if f.readAll(ctx) || time.Until(deadline) <= 0 || len(f.parts) == 0 {
		return nil
	}
	w := partition.NewWatcher()
	for _, p := range f.partitions() {
		p.Watch(w)
		defer p.Unwatch(w)
	}
	timer := time.NewTimer(time.Until(deadline))
	defer timer.Stop()
	for {
		if f.readAll(ctx) { // also once after watching began: what came in between woke nobody
			return nil
		}
		var again <-chan time.Time
		if f.away {
			again = time.After(awayRetry)
		}
		select {
		case <-w.Wake():
		case <-again:
		case <-timer.C:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// partitions are the local partitions among those fetched.
func (f *fetchRead) partitions() []*partition.Partition {
	var ps []*partition.Partition
	for _, fp := range f.parts {
		if p, err := f.lookup(fp); err == nil {
			ps = append(ps, p)
		}
	}
	return ps
}

func (f *fetchRead) lookup(fp *fetchPart) (*partition.Partition, error) {
	if f.version >= 13 {
		t := f.image.TopicByID(fp.id)
		if t == nil {
			return nil, errUnknownTopicID
		}
		return f.server.broker.Partition(t, fp.partition)
	}
	t := f.image.Topic(fp.topic)
	if t == nil {
		return nil, errUnknownTopic
	}
	return f.server.broker.Partition(t, fp.partition)
}

// readAll reads every partition once and reports whether the response can go out now.
func (f *fetchRead) readAll(ctx context.Context) bool {
	f.releaseData()
	f.image = f.server.broker.Image()
	budget := min(int(f.req.MaxBytes), int(f.server.opts.FetchMaxBytes))
	if f.version < 3 || f.req.MaxBytes <= 0 {
		budget = int(f.server.opts.FetchMaxBytes)
	}
	budget = min(budget, f.quota.room(time.Now()))
	minBytes, got, urgent := min(int(f.req.MinBytes), budget), 0, false
	f.away = false
	var remote []*remoteRead
	for i, fp := range f.parts {
		r := &f.results[i]
		*r = fetched{part: fp, hw: -1, lso: -1, logStart: -1, leader: -1}
		left := max(budget-got, 0)
		need, err := f.readLocal(r, min(fp.maxBytes, left), got == 0)
		switch {
		case err != nil:
			r.fail(err)
			urgent = true
		case need != nil:
			remote = append(remote, need)
			got += need.max
		case r.diverge != nil:
			urgent = true
		}
		got += int(r.data.Size())
	}
	if len(remote) > 0 {
		readRemote(ctx, remote)
		got = 0
		for i := range f.results {
			r := &f.results[i]
			got += int(r.data.Size())
			f.away = f.away || r.away
			urgent = urgent || r.code != 0 && !r.away
		}
		// The store was slow: answer empty, the client asks again. It is away: try for the fetch's own time before saying so.
		urgent = urgent || got == 0 && !f.away
	}
	return urgent || got >= minBytes
}

// remoteRead is a read of history that one partition of the fetch needs.
type remoteRead struct {
	result     *fetched
	partition  *partition.Partition
	request    partition.ReadRequest
	view       partition.View
	max        int
	atLeastOne bool
}

func (f *fetchRead) readLocal(r *fetched, max int, atLeastOne bool) (*remoteRead, error) {
	p, err := f.lookup(r.part)
	if err != nil {
		return nil, err
	}
	if f.replicaID() >= 0 { // no partition has a second replica yet
		return nil, broker.ErrNotReplica
	}
	req := partition.ReadRequest{Offset: r.part.offset, MaxBytes: max, AtLeastOne: atLeastOne, Committed: f.req.IsolationLevel == 1,
		CurrentEpoch: r.part.currentEpoch, LastFetchedEpoch: r.part.lastFetched}
	res, err := p.Read(req)
	if err != nil {
		return nil, err // watermarks stay -1 beside an error
	}
	r.hw, r.lso, r.logStart = res.View.HighWatermark, res.View.LastStable, res.View.LogStart
	r.diverge = res.Diverging
	if res.Remote {
		if max <= 0 && !atLeastOne {
			return nil, nil
		}
		r.remote = true
		return &remoteRead{result: r, partition: p, request: req, view: res.View, max: max, atLeastOne: atLeastOne}, nil
	}
	r.data, r.aborted = res.Data, res.Aborted
	return nil, nil
}

// replicaID is the broker that fetches, or negative for a consumer (v15 moved it to a tagged field: KIP-903).
func (f *fetchRead) replicaID() int32 {
	if f.version >= 15 {
		return f.req.ReplicaState.ID
	}
	return f.req.ReplicaID
}

// readRemote reads all of rs at once and waits at most remoteWait; what has not come by then is answered empty.
func readRemote(ctx context.Context, rs []*remoteRead) {
	ctx, cancel := context.WithTimeout(ctx, remoteWait)
	defer cancel()
	var wg sync.WaitGroup
	for _, r := range rs {
		read := func() {
			res, err := r.partition.ReadRemote(ctx, r.request, r.view)
			switch {
			case err == nil:
				r.result.data, r.result.aborted = res.Data, res.Aborted
			case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
			default:
				r.result.fail(err)
				r.result.away = errors.Is(err, partition.ErrTierUnavailable)
			}
		}
		if len(rs) == 1 {
			read()
			return
		}
		wg.Go(read)
	}
	wg.Wait()
}

func (r *fetched) fail(err error) {
	r.code, r.hw, r.lso, r.logStart = codeOf(err), -1, -1, -1
	var nl *partition.NotLeaderError
	if errors.As(err, &nl) {
		r.leader, r.epoch = nl.Leader, nl.Epoch
	}
}

// choose decides which partitions the response names: in an incremental one only those with something new.
func (f *fetchRead) choose() {
	var leaders []int32
	for i := range f.results {
		r := &f.results[i]
		p := r.part
		if r.part == nil {
			continue
		}
		changed := r.code != 0 || r.data.Size() > 0 || r.diverge != nil || r.hw != p.sentHW || r.logStart != p.sentLogStart
		p.sentHW, p.sentLogStart = r.hw, r.logStart
		if r.code != 0 {
			p.sentHW = -1
		}
		if f.session != nil && (r.data.Size() > 0 || r.remote) {
			f.session.moveBack(p)
		}
		if changed || !f.increments {
			f.out = append(f.out, r)
			if f.version >= 16 && r.leader >= 0 {
				leaders = appendNew(leaders, r.leader)
			}
		}
	}
	f.nodes = f.server.endpoints(leaders)
}

func (f *fetchRead) releaseData() {
	for i := range f.results {
		f.results[i].data.Release()
		f.results[i].data = partition.Data{}
	}
}

// done gives back the files and blocks that the response was sent from.
func (f *fetchRead) done() { f.releaseData() }
