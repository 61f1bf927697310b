package kafka

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/cluster/quota"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/record"
)

// Produce (key 0, v3-13; KIP-98, KIP-110, KIP-467, KIP-516, KIP-951). Decoded and encoded by hand: the batches are
// used where they lie in the frame, and no array is allocated before its length is known to be possible.

// produceRequest is one decoded request.
type produceRequest struct {
	txnID      *string
	acks       int16
	topics     []produceTopic
	partitions int
}

type produceTopic struct {
	name       string
	id         record.TopicID
	partitions []producePartition
}

type producePartition struct {
	index   int32
	records []byte
}

func decodeProduce(p []byte, version int16) (*produceRequest, error) {
	flexible := version >= 9
	r := wireReader{p: p}
	txn, null := r.nullableString(flexible)
	req := &produceRequest{acks: r.int16()}
	r.int32() // timeout: see await
	if !null {
		id := string(txn)
		req.txnID = &id
	}
	topics := r.arrayLen(flexible, 3)
	if topics > maxProducePartitions {
		return nil, fmt.Errorf("%w: Produce of %d topics, allowed are %d", errMalformed, topics, maxProducePartitions)
	}
	req.topics = make([]produceTopic, topics)
	for i := range req.topics {
		t := &req.topics[i]
		if version >= 13 {
			copy(t.id[:], r.take(len(t.id)))
		} else {
			name, _ := r.nullableString(flexible)
			t.name = string(name)
		}
		n := r.arrayLen(flexible, 5)
		if req.partitions+n > maxProducePartitions {
			return nil, fmt.Errorf("%w: Produce of more than %d partitions", errMalformed, maxProducePartitions)
		}
		t.partitions = make([]producePartition, n)
		for j := range t.partitions {
			t.partitions[j] = producePartition{index: r.int32(), records: r.nullableBytes(flexible)}
			r.tags(flexible)
		}
		req.partitions += len(t.partitions)
		r.tags(flexible)
	}
	r.tags(flexible)
	if r.err != nil {
		return nil, fmt.Errorf("%w: Produce v%d", r.err, version)
	}
	return req, nil
}

// produceReply collects the outcome of each partition and becomes ready when the last one is known.
type produceReply struct {
	call    *call
	topics  []producedTopic
	results []produced
	pending atomic.Int32
	ready   chan struct{}
	encoded []byte
	nodes   []*metadata.Broker // addresses of the leaders named (KIP-951)

	mu sync.Mutex // guards code, base, appendTime and done of results once appending is over
}

type producedTopic struct {
	name  string
	id    record.TopicID
	first int // index of its first result
	count int
}

type produced struct {
	index      int32
	code       int16
	message    string
	records    []partition.RecordError
	base       record.Offset
	appendTime int64
	logStart   record.Offset
	leader     int32 // KIP-951: set with NOT_LEADER_OR_FOLLOWER
	epoch      record.LeaderEpoch
	done       bool // the outcome is known
}

// produce appends every batch and leaves the waiting to the writer.
func (s *Server) produce(ctx context.Context, c *call, body []byte) error {
	req, err := decodeProduce(body, c.version)
	if err != nil {
		return err
	}
	rep := &produceReply{call: c, topics: make([]producedTopic, 0, len(req.topics)), results: make([]produced, req.partitions), ready: make(chan struct{}, 1)}
	rep.pending.Store(1) // released when all are started
	c.throttle = max(s.appendAll(ctx, c, req, rep), s.throttle.of(quota.ProducerByteRate, c).charge(float64(len(c.frame.p)), c.started))
	if c.version >= 10 {
		rep.nodes = s.leaders(rep)
	}
	rep.release()
	if req.acks == 0 {
		return rep.firstError()
	}
	c.reply = rep
	c.finish, c.prompt = rep.await, func() bool { return len(rep.ready) > 0 }
	c.held = int64(len(rep.results)) * heldPerPartition
	return nil
}

// appendAll appends each partition's batch and returns how long the producer is to be slowed down.
func (s *Server) appendAll(ctx context.Context, c *call, req *produceRequest, rep *produceReply) time.Duration {
	wrongAcks := req.acks < -1 || req.acks > 1
	image, full := s.broker.Image(), s.broker.Admit()
	i, bytes := 0, 0
	for ti := range req.topics {
		t := &req.topics[ti]
		topic := image.TopicByID(t.id)
		if c.version < 13 {
			topic = image.Topic(t.name)
		}
		out := producedTopic{name: t.name, id: t.id, first: i, count: len(t.partitions)}
		rep.topics = append(rep.topics, out)
		for pi := range t.partitions {
			res := &rep.results[i]
			res.index, res.base, res.appendTime, res.logStart, res.leader = t.partitions[pi].index, -1, -1, -1, -1
			switch {
			case wrongAcks:
				res.fail(codeInvalidRequiredAcks, "")
			case full != nil:
				res.failWith(full)
			case topic == nil && c.version >= 13:
				res.fail(codeUnknownTopicID, "")
			case topic == nil:
				res.fail(codeUnknownTopicOrPartition, "")
			case topic.Internal && c.clientID != adminClient:
				res.fail(codeInvalidTopic, "")
			default:
				p, err := s.broker.Partition(topic, res.index)
				if err == nil {
					err = s.appendOne(ctx, c, req, rep, i, p, t.partitions[pi].records)
				}
				if err != nil {
					res.failWith(err)
				}
				bytes += len(t.partitions[pi].records)
			}
			i++
		}
	}
	return s.broker.Throttle(bytes)
}

// leaders are the brokers that lead what this one does not.
func (s *Server) leaders(rep *produceReply) []*metadata.Broker {
	var ids []int32
	for i := range rep.results {
		if l := rep.results[i].leader; l >= 0 {
			ids = appendNew(ids, l)
		}
	}
	return s.endpoints(ids)
}

// adminClient is the client id by which Kafka's own tools may write to internal topics.
const adminClient = "__admin_client"

func (s *Server) appendOne(ctx context.Context, c *call, req *produceRequest, rep *produceReply, i int, p *partition.Partition, records []byte) error {
	batch, err := onlyBatch(records, c.version)
	if err != nil {
		return err
	}
	o := partition.AppendOptions{NowMs: c.started.UnixMilli(), AllReplicas: req.acks == -1}
	var done partition.Appended
	if batch.IsTransactional() {
		done, err = s.appendTransactional(ctx, c, req, p, batch, o)
	} else {
		done, err = p.Append(batch, o)
	}
	if err != nil {
		return err
	}
	res := &rep.results[i]
	res.base, res.appendTime, res.logStart = done.Base, done.AppendTimeMs, done.LogStart
	if req.acks != 0 {
		rep.pending.Add(1)
		p.AwaitCommit(done.Next, done.Epoch, rep, i)
	}
	return nil
}

// onlyBatch returns the one batch that a partition's records must be.
func onlyBatch(records []byte, version int16) (record.Batch, error) {
	batch, rest, err := record.Next(records)
	if err != nil || len(rest) != 0 {
		return nil, fmt.Errorf("%w: Produce requests must have exactly one batch of format v2 for a partition (%d bytes, %d left over)", partition.ErrInvalidRecord, len(records), len(rest))
	}
	if version < 7 && batch.Codec() == record.Zstd {
		return nil, fmt.Errorf("%w: zstd needs Produce v7, this is v%d", partition.ErrUnsupportedCodec, version)
	}
	return batch, nil
}

func (r *produced) fail(code int16, message string) {
	r.code, r.message = code, message
	r.base, r.appendTime = -1, -1
	r.done = true
}

func (r *produced) failWith(err error) {
	var be *partition.BatchError
	if errors.As(err, &be) {
		r.records = be.Records
	}
	var nl *partition.NotLeaderError
	if errors.As(err, &nl) {
		r.leader, r.epoch = nl.Leader, nl.Epoch
	}
	r.fail(codeOf(err), err.Error())
}

// Committed is called once for each partition awaited: err is nil when its records are on enough disks.
func (p *produceReply) Committed(i int, err error) {
	p.mu.Lock()
	p.results[i].settle(err)
	p.mu.Unlock()
	p.release()
}

// settle records the outcome unless one is known already.
func (r *produced) settle(err error) {
	if !r.done && err != nil {
		r.code, r.base, r.appendTime = codeOf(err), -1, -1
	}
	r.done = true
}

func (p *produceReply) release() {
	if p.pending.Add(-1) == 0 {
		p.ready <- struct{}{}
	}
}

func (p *produceReply) firstError() error {
	for i := range p.results {
		if p.results[i].code != 0 {
			return fmt.Errorf("produce with acks=0 failed for partition %d: error code %d %s", p.results[i].index, p.results[i].code, p.results[i].message)
		}
	}
	return nil
}

// await returns when every partition's outcome is known. The request's timeout is for other replicas (KIP-91), of which there are
// none: what this one's disk takes long for is written all the same, and a client told otherwise would write it again.
func (p *produceReply) await(ctx context.Context) error {
	select {
	case <-p.ready:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
