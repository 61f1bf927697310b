package controller

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everlog/everlog/cluster/lease"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
	"github.com/everlog/everlog/tier/record"
)

// faultyStore is a store that fails as the seed says until heal is called.
type faultyStore struct {
	*objecttest.Faulty
	mu    sync.Mutex
	rng   *rand.Rand
	share int // one operation in share fails; 0 = none, -1 = all
}

func newFaulty(inner object.Store, seed, stream uint64) *faultyStore {
	f := &faultyStore{rng: rand.New(rand.NewPCG(seed, stream))}
	f.Faulty = objecttest.NewFaulty(inner, func(objecttest.Call) objecttest.Fault {
		f.mu.Lock()
		defer f.mu.Unlock()
		fault := objecttest.Fault{Delay: time.Duration(1+f.rng.IntN(20)) * time.Millisecond}
		switch {
		case f.share < 0:
			fault.Kind = objecttest.Before
		case f.share > 0 && f.rng.IntN(f.share) == 0:
			fault.Kind = objecttest.Kind(f.rng.IntN(int(objecttest.Cut) + 1))
		}
		if f.share > 0 && f.rng.IntN(400) == 0 {
			fault.Delay = time.Duration(f.rng.IntN(15)) * time.Second // a pause after all checks and before the request
		}
		return fault
	})
	return f
}

func (f *faultyStore) fail(share int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.share = share
}

// liar is a lease that says it is held long after it was lost, as a paused process believes.
type liar struct {
	*lease.Lease
	mu    sync.Mutex
	epoch int64
}

func (l *liar) Holding() (int64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, ok := l.Lease.Holding(); ok {
		l.epoch = e
	}
	return l.epoch, l.epoch > 0
}

// Two controllers race through leases that both believe in, on stores with every fault. Producer ids are unique, topics
// that were told created are there under that id, topics that were told refused are not, and all read the same history.
func TestTwoControllersUnderFaults(t *testing.T) {
	created, unknown, epochs := 0, 0, int64(0)
	for seed := range uint64(12) {
		synctest.Test(t, func(t *testing.T) {
			memory := object.NewMemory()
			var mu sync.Mutex
			ids := map[record.ProducerID]string{}
			topics := map[string]record.TopicID{}
			var clients sync.WaitGroup
			var nodes [2]*node
			var stores [2]*faultyStore
			stopLate := make(chan struct{})
			until := time.Now().Add(3 * time.Minute)
			for i := range nodes {
				stores[i] = newFaulty(memory, seed, uint64(i))
				nodes[i] = startWith(t, stores[i], int32(i), nil, true)
			}
			if _, err := nodes[0].RegisterBroker(t.Context(), registration(0)); err != nil {
				t.Fatal(err)
			}
			for i := range nodes {
				stores[i].fail(6)
				rng := rand.New(rand.NewPCG(seed, 500+uint64(i)))
				clients.Go(func() {
					for {
						select {
						case <-stopLate:
							return
						case <-time.After(time.Duration(rng.IntN(2000)) * time.Millisecond):
						}
						for stores[i].Late() > 0 {
							_ = stores[i].ApplyLate(t.Context(), 0)
						}
						if rng.IntN(12) == 0 { // cut off for longer than a lease lasts
							stores[i].fail(-1)
							time.Sleep(time.Duration(rng.IntN(20)) * time.Second)
							stores[i].fail(6)
						}
					}
				})
			}
			var work sync.WaitGroup
			for i, n := range nodes {
				for client := range 3 {
					rng := rand.New(rand.NewPCG(seed, 1000+uint64(10*i+client)))
					work.Go(func() {
						for k := 0; time.Now().Before(until); k++ {
							time.Sleep(time.Duration(rng.IntN(2000)) * time.Millisecond)
							if rng.IntN(2) == 0 {
								first, err := n.AllocateProducerIDs(t.Context(), 1000)
								if err != nil {
									continue
								}
								mu.Lock()
								if by, ok := ids[first]; ok {
									t.Errorf("seed %d: block %d given to %s and to %d/%d", seed, first, by, i, client)
								}
								ids[first] = fmt.Sprintf("%d/%d", i, client)
								mu.Unlock()
								continue
							}
							name := fmt.Sprintf("t-%d-%d-%d", i, client, k)
							r := n.CreateTopics(t.Context(), []NewTopic{{Name: name, Partitions: 1, ReplicationFactor: 1}}, false)[0]
							mu.Lock()
							switch {
							case r.Err == nil:
								topics[name] = r.ID
								created++
							case errors.Is(r.Err, ErrUnavailable):
								unknown++
							case errors.Is(r.Err, ErrNotController):
								topics[name] = record.TopicID{}
							default:
								t.Errorf("seed %d: %v", seed, r.Err)
							}
							mu.Unlock()
						}
					})
				}
			}
			work.Wait()
			close(stopLate)
			clients.Wait()
			for i, n := range nodes {
				stores[i].fail(0)
				if _, err := n.log.Sync(t.Context()); err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				n.stop()
			}
			fresh, err := metadata.Open(t.Context(), memory, metadata.Options{Join: true})
			if err != nil {
				t.Fatal(err)
			}
			img := fresh.Image()
			epochs += img.Controller.Epoch
			for name, id := range topics {
				switch topic := img.Topic(name); {
				case id.IsZero() && topic != nil:
					t.Errorf("seed %d: %s was refused and exists", seed, name)
				case !id.IsZero() && (topic == nil || topic.ID != id):
					t.Errorf("seed %d: %s was created as %s and is %v", seed, name, id, topic)
				}
			}
			for first := range ids {
				if first+1000 > img.NextProducerID {
					t.Errorf("seed %d: block %d was given, next is %d", seed, first, img.NextProducerID)
				}
			}
		})
		if t.Failed() {
			return
		}
	}
	t.Logf("%d topics created, %d unknown, %d epochs", created, unknown, epochs)
	if created < 300 || unknown < 100 || epochs < 24 {
		t.Error("the test exercises too little")
	}
}

// The store is away for ten minutes: reads go on, changes fail in bounded time and say so, and afterwards everything works
// without a person (invariant 8).
func TestStoreAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := newFaulty(object.NewMemory(), 1, 1)
		n := start(t, store, 0, nil)
		n.register(t, 0)
		n.CreateTopics(t.Context(), []NewTopic{{Name: "a", Partitions: 1, ReplicationFactor: 1}}, false)
		store.fail(-1)
		for range 60 {
			time.Sleep(10 * time.Second)
			began := time.Now()
			r := n.CreateTopics(t.Context(), []NewTopic{{Name: "b", Partitions: 1, ReplicationFactor: 1}}, false)
			if took := time.Since(began); !errors.Is(r[0].Err, ErrUnavailable) || took > 5*time.Second {
				t.Fatalf("%v after %v", r[0].Err, took)
			}
			if n.log.Image().Topic("a") == nil {
				t.Fatal("reads stopped")
			}
		}
		store.fail(0)
		began := time.Now()
		for {
			r := n.CreateTopics(t.Context(), []NewTopic{{Name: "c", Partitions: 1, ReplicationFactor: 1}}, false)
			if r[0].Err == nil {
				break
			}
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("recovered after %v", took)
		}
		n.stop()
	})
}

// A broker starts while the store is away, leads its sole replicas in a local epoch, and keeps it when it registers.
func TestLocalStartThenRegistration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := object.NewMemory()
		n := start(t, memory, 0, nil)
		n.register(t, 0)
		create(t, n, "a", map[int32][]int32{0: {0}})
		n.stop()
		cached := n.log.Image()

		local := LocalLeaderships(cached, 0, "disk-0", func(Partition) record.LeaderEpoch { return record.NoEpoch })
		n = start(t, memory, 0, nil)
		r := registration(0)
		r.LocalEpochs = local
		img, err := n.RegisterBroker(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		at := Partition{cached.Topic("a").ID, 0}
		if got := img.Topic("a").Partitions[0].LeaderEpoch; got != local[at] {
			t.Errorf("led locally in epoch %d, registered in %d: the leadership is interrupted for nothing", local[at], got)
		}
		n.stop()
	})
}

// The handover of the controller: the second takes over with a higher epoch and the first follows.
func TestControllerHandover(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := object.NewMemory()
		a := start(t, memory, 0, nil)
		a.register(t, 0)
		b := start(t, memory, 1, nil)
		synctest.Wait()
		if _, err := b.AllocateProducerIDs(t.Context(), 1000); !errors.Is(err, ErrNotController) {
			t.Errorf("while another is the controller: %v", err)
		}
		a.stop()
		for {
			changed := b.lease.Changed()
			if _, ok := b.lease.Holding(); ok {
				break
			}
			<-changed
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if first, err := b.AllocateProducerIDs(ctx, 1000); err != nil || first != 0 {
			t.Errorf("%d, %v", first, err)
		}
		if c := b.log.Image().Controller; c.Epoch != 2 || c.Writer != b.log.Writer() {
			t.Errorf("%+v", c)
		}
		b.stop()
	})
}

// The lease object was lost: its epochs start again, the log's do not.
func TestLeaseObjectLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := object.NewMemory()
		for i := range 3 {
			n := start(t, memory, 0, nil)
			n.register(t, 0)
			if e := n.log.Image().Controller.Epoch; e < int64(i)+1 {
				t.Errorf("start %d commits in epoch %d", i, e)
			}
			n.stop()
			if err := memory.Delete(t.Context(), lease.ObjectName("controller")); err != nil {
				t.Fatal(err)
			}
		}
	})
}
