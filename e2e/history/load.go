package history

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
	"golang.org/x/time/rate"

	"github.com/everlog/everlog/e2e/clients"
	"github.com/everlog/everlog/e2e/corpus"
)

// Values are this large, the number in their first 8 bytes: small enough for many in a batch, now and then one as large as a batch.
const (
	smallestValue = 16
	usualValue    = 1200
	largestValue  = 200 << 10
)

// Load is an idempotent producer that writes numbered records to all partitions of a topic, through every restart, until it is stopped.
type Load struct {
	topic  string
	client *kgo.Client
	stop   context.CancelFunc
	done   chan struct{}
	acked  atomic.Int64

	mu      sync.Mutex
	known   []Partition
	stopped bool
}

// Plan says what a Load writes.
type Plan struct {
	Addr       string
	Topic      string
	Partitions int32 // [0, Partitions)
	Codec      string
	PerSecond  int // records: enough to be in the middle of something at any time, few enough to be read again and again
	Seed       uint64
}

// StartLoad starts producing.
func StartLoad(plan Plan) (*Load, error) {
	options, err := clients.FranzOptions(plan.Addr, plan.Codec)
	if err != nil {
		return nil, err
	}
	client, err := kgo.NewClient(options...)
	if err != nil {
		return nil, err
	}
	ctx, stop := context.WithCancel(context.Background())
	l := &Load{topic: plan.Topic, client: client, stop: stop, done: make(chan struct{})}
	for number := range plan.Partitions {
		l.known = append(l.known, Partition{Topic: plan.Topic, Number: number})
	}
	go l.run(ctx, rate.NewLimiter(rate.Limit(plan.PerSecond), plan.PerSecond/10+1), rand.New(rand.NewPCG(plan.Seed, 1)))
	return l, nil
}

func (l *Load) run(ctx context.Context, pace *rate.Limiter, rng *rand.Rand) {
	defer close(l.done)
	filler := make([]byte, largestValue)
	for i := range filler {
		filler[i] = byte('a' + rng.IntN(20)) // half of it is compressible away
	}
	for pace.Wait(ctx) == nil {
		partition := rng.Int32N(int32(len(l.known)))
		size := smallestValue + rng.IntN(usualValue)
		if rng.IntN(5000) == 0 {
			size = rng.IntN(largestValue-smallestValue) + smallestValue
		}
		value := make([]byte, size)
		copy(value[8:], filler[rng.IntN(largestValue-size+1):])

		l.mu.Lock()
		p := &l.known[partition]
		number := int64(len(p.Acked))
		p.Acked = append(p.Acked, NoOffset)
		l.mu.Unlock()
		binary.BigEndian.PutUint64(value, uint64(number))

		// Not ctx: what was handed over stays with the client until it is acknowledged, or refused.
		record := clients.ToFranz(l.topic, partition, corpus.Record{Value: value})
		l.client.Produce(context.Background(), record, func(r *kgo.Record, err error) { l.told(partition, number, r.Offset, err) })
	}
}

func (l *Load) told(partition int32, number, offset int64, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p := &l.known[partition]
	if err != nil {
		p.Failed = append(p.Failed, fmt.Sprintf("record %d: %v", number, err))
		return
	}
	p.Acked[number] = offset
	l.acked.Add(1)
}

// Acked is how many records are acknowledged so far.
func (l *Load) Acked() int64 { return l.acked.Load() }

// Known returns a copy of what the producer knows now. It stays open to more until Stop has returned.
func (l *Load) Known() []Partition {
	l.mu.Lock()
	defer l.mu.Unlock()
	known := slices.Clone(l.known)
	for i := range known {
		known[i].Acked = slices.Clone(known[i].Acked)
		known[i].Failed = slices.Clone(known[i].Failed)
		known[i].Open = !l.stopped
	}
	return known
}

// Stop hands over no more records, waits until all are acknowledged or refused, and closes the producer. A second call does nothing. Not safe for concurrent use.
func (l *Load) Stop(ctx context.Context) error {
	if !l.isOpen() {
		return nil
	}
	l.stop()
	// A refusal from the client's full buffer waits for room, which needs a broker; so does Flush. ctx bounds both.
	var err error
	select {
	case <-l.done:
		err = l.client.Flush(ctx)
	case <-ctx.Done():
		err = ctx.Err()
	}
	l.client.Close()
	<-l.done
	l.mu.Lock()
	l.stopped = true
	l.mu.Unlock()
	if err != nil {
		return fmt.Errorf("%d records acknowledged, then: %w", l.Acked(), err)
	}
	return nil
}

func (l *Load) isOpen() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.stopped
}

// readLimit bounds one reading of all partitions.
const readLimit = 2 * time.Minute

// ReadLog reads partitions from where each is to be looked at to their ends and returns the record number at each offset.
func ReadLog(ctx context.Context, addr string, known []Partition) ([][]int64, error) {
	ctx, cancel := context.WithTimeout(ctx, readLimit)
	defer cancel()
	admin, err := clients.NewAdmin(addr)
	if err != nil {
		return nil, err
	}
	defer admin.Close()
	logs := make([][]int64, len(known))
	for i, p := range known {
		end, err := admin.Offset(ctx, p.Topic, p.Number, clients.Latest)
		if err != nil {
			return nil, err
		}
		var short error
		next := p.From
		logs[i] = make([]int64, 0, max(0, end.Offset-p.From))
		err = clients.Franz.Read(ctx, clients.Range{Addr: addr, Topic: p.Topic, Partition: p.Number, From: p.From, To: end.Offset}, func(r corpus.Record) {
			if len(r.Value) < smallestValue || r.Offset != next {
				short = errors.Join(short, fmt.Errorf("%s-%d: a record of %d bytes at offset %d, where %d was due", p.Topic, p.Number, len(r.Value), r.Offset, next))
				return
			}
			next++
			logs[i] = append(logs[i], int64(binary.BigEndian.Uint64(r.Value)))
		})
		if err = errors.Join(err, short); err != nil {
			return nil, fmt.Errorf("read %s-%d to %d: %w", p.Topic, p.Number, end.Offset, err)
		}
	}
	return logs, nil
}

// CheckLog reads the topic as the broker has it now and holds it against what was known before.
func CheckLog(ctx context.Context, addr string, known []Partition) (Anomalies, error) {
	logs, err := ReadLog(ctx, addr, known)
	if err != nil {
		return Anomalies{}, err
	}
	var all Anomalies
	for i, p := range known {
		all.Add(Check(p, logs[i]))
	}
	return all, nil
}
