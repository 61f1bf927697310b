package coordinators

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/everlog/everlog/cluster/group"
	"github.com/everlog/everlog/cluster/txn"
	"github.com/everlog/everlog/ingest/broker"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/ingest/producer"
	"github.com/everlog/everlog/tier/record"
)

// How markers that could not be written are tried again.
const (
	markerRetryFirst = 20 * time.Millisecond
	markerRetryLast  = 2 * time.Second
)

// Marker is the end of a producer's transaction.
type Marker struct {
	ProducerID       record.ProducerID
	ProducerEpoch    record.ProducerEpoch
	Commit           bool
	CoordinatorEpoch int32
	// V2 says that the transaction follows KIP-890 part 2: the marker's epoch is above that of its records.
	V2 bool
}

// WriteMarker appends a marker to a partition led here and returns what waits until it is committed. Errors, of both: those
// of partition.Append, broker.Partition, and the coordinator's for a partition of __consumer_offsets.
func (c *Coordinators) WriteMarker(topic string, index int32, m Marker) (wait func(context.Context) error, err error) {
	now := time.Now().UnixMilli()
	batch := producer.Marker(m.ProducerID, m.ProducerEpoch, m.Commit, m.CoordinatorEpoch, now)
	if topic == OffsetsTopic {
		c.mu.RLock()
		r := c.shards[place{topic, index}]
		c.mu.RUnlock()
		if r == nil {
			_, err := c.partition(topic, index) // it may be gone
			return nil, errors.Join(ErrNotCoordinator, err)
		}
		check := func() error {
			p := r.log.p.Load()
			if p == nil {
				return ErrLoading
			}
			return p.MayEnd(batch, m.V2, now)
		}
		call := r.StartWith(check, batch, group.EndTxn{ProducerID: m.ProducerID, ProducerEpoch: m.ProducerEpoch, Commit: m.Commit})
		return func(ctx context.Context) error { _, err := call.Wait(ctx); return err }, nil
	}
	p, err := c.partition(topic, index)
	if err != nil {
		return nil, err
	}
	done, err := p.Append(batch, partition.AppendOptions{NowMs: now, AllReplicas: true, Origin: partition.FromCoordinator, V2: m.V2})
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return p.Committed(ctx, done.Next, done.Epoch) }, nil
}

// writeMarkers writes the markers of one transaction, each until it is committed, and tells its coordinator. It ends early
// with ctx: whoever leads the coordinator's partition next begins it again.
func (c *Coordinators) writeMarkers(ctx context.Context, r *running, w txn.WriteMarkers) {
	m := Marker{ProducerID: w.ProducerID, ProducerEpoch: w.ProducerEpoch, Commit: w.Commit, CoordinatorEpoch: w.CoordinatorEpoch, V2: w.V2}
	left, pause := w.Partitions, markerRetryFirst
	for len(left) > 0 {
		var err error
		if left, err = c.writeOnce(ctx, left, m); len(left) == 0 {
			break
		}
		if pause == markerRetryLast {
			c.log.Warn("transaction markers cannot be written; trying again", "transactional_id", w.TransactionalID, "partitions", len(left), "err", err)
		}
		if !sleep(ctx, pause) {
			return
		}
		pause = min(2*pause, markerRetryLast)
	}
	r.Start(txn.MarkersWritten{Markers: w})
}

// writeOnce tries each marker once, all of them under way together, and returns those that failed and why.
func (c *Coordinators) writeOnce(ctx context.Context, all []txn.TopicPartition, m Marker) (left []txn.TopicPartition, last error) {
	waits := make([]func(context.Context) error, len(all))
	errs := make([]error, len(all))
	for i, tp := range all {
		waits[i], errs[i] = c.WriteMarker(tp.Topic, tp.Partition, m)
	}
	for i, wait := range waits {
		if errs[i] == nil {
			errs[i] = wait(ctx)
		}
		if err := errs[i]; err != nil && !c.needless(all[i], m, err) {
			left, last = append(left, all[i]), err
		}
	}
	return left, last
}

// needless reports whether an error means that there is nothing to write a marker for: the topic is gone, or the partition
// has heard of a newer epoch of the producer and so of the end of this transaction.
func (c *Coordinators) needless(tp txn.TopicPartition, m Marker, err error) bool {
	if errors.Is(err, broker.ErrUnknownPartition) {
		if c.broker.Metadata.Stale() { // first: the image that ends staleness is there before it ends
			return false
		}
		t := c.broker.Metadata.Image().Topic(tp.Topic)
		return t == nil || int(tp.Partition) >= len(t.Partitions)
	}
	if errors.Is(err, producer.ErrInvalidEpoch) || errors.Is(err, producer.ErrCoordinatorFenced) {
		c.log.Warn("transaction marker is out of date", "topic", tp.Topic, "partition", tp.Partition, "producer_id", m.ProducerID, "err", err)
		return true
	}
	return false
}

// writers are the goroutines that write markers for one shard. Those of one load of its log end before the next load
// begins: a marker that an earlier load asked for could end the producer's next transaction.
type writers struct {
	parent context.Context // of the shard

	mu     sync.Mutex
	ctx    context.Context // of the load
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// renew ends the writers of the load before and lets new ones begin.
func (w *writers) renew() {
	w.end()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ctx, w.cancel = context.WithCancel(w.parent)
}

// run begins one, unless the load has ended.
func (w *writers) run(write func(context.Context)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if ctx := w.ctx; ctx != nil {
		w.wg.Go(func() { write(ctx) })
	}
}

// end ends all writers and waits for them.
func (w *writers) end() {
	w.mu.Lock()
	if w.cancel != nil {
		w.cancel()
	}
	w.ctx = nil
	w.mu.Unlock()
	w.wg.Wait()
}
