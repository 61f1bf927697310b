package controller

import (
	"context"
	"slices"
	"time"

	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/tier/record"
)

// Registration is what a broker says of itself when its process starts.
type Registration struct {
	ID int32
	// DiskID is the identity of its data directory, whose lock it holds.
	DiskID    string
	Host      string
	Port      int32
	Rack      string
	Listeners []metadata.Listener
	// LocalEpochs are the epochs in which it already leads partitions without the store's consent: what LocalLeaderships
	// returned and the broker made durable. Nil otherwise.
	LocalEpochs map[Partition]record.LeaderEpoch
	// Incarnation is new for each process; Past are those that this disk remembers. Both were durable before the call.
	Incarnation string
	Past        []string
}

// Partition names one partition.
type Partition struct {
	Topic record.TopicID
	Index int32
}

// RegisterBroker commits a new process of a broker and returns the image with its registration, whose Broker.Epoch is the
// broker's from now on. In the same commit every partition that the broker led, or can lead because nobody does, gets a
// new leader epoch: a process never resumes an older one's. If the disk is another than before, its replicas are gone:
// they leave the ISR, except where there is no other replica; such a partition starts again from what is remote.
//
// ErrDuplicateBroker, ErrWrongDisk, ErrInvalidRequest, ErrNotController, ErrUnavailable.
func (c *Controller) RegisterBroker(ctx context.Context, r Registration) (*metadata.Image, error) {
	_, img, err := submit[struct{}](ctx, c, func(img *metadata.Image) plan {
		if err := c.admit(img, r); err != nil {
			return plan{err: err}
		}
		records := []metadata.Record{metadata.BrokerRegistered{Broker: metadata.Broker{ID: r.ID, DiskID: r.DiskID, Host: r.Host,
			Port: r.Port, Rack: r.Rack, Incarnation: r.Incarnation, Listeners: r.Listeners}}}
		changed := takeOver(img, r)
		return plan{records: append(records, changed...), weight: len(changed), answer: struct{}{}}
	})
	if err == nil {
		c.mu.Lock()
		c.heard[r.ID] = time.Now()
		c.mu.Unlock()
	}
	return img, err
}

// admit checks a registration against the one before it.
func (c *Controller) admit(img *metadata.Image, r Registration) error {
	if r.ID < 0 || r.DiskID == "" || r.Host == "" || r.Port < 0 {
		return refuse(ErrInvalidRequest, "Broker %d on disk %q at %s:%d cannot be registered: id, disk and address are needed.", r.ID, r.DiskID, r.Host, r.Port)
	}
	old := img.Broker(r.ID)
	if old != nil && old.DiskID == r.DiskID && len(r.LocalEpochs) > 0 && old.Incarnation != "" && old.Incarnation != r.Incarnation && !slices.Contains(r.Past, old.Incarnation) {
		return refuse(ErrWrongDisk, "Broker %d led %d partitions without the store on an older copy of disk %s: its epochs were used before.", r.ID, len(r.LocalEpochs), r.DiskID)
	}
	if old == nil || old.DiskID == r.DiskID {
		return nil // the same disk: its lock proves that the earlier process is gone
	}
	if len(r.LocalEpochs) > 0 {
		return refuse(ErrWrongDisk, "Broker %d led %d partitions without the store on disk %s, but disk %s is registered: what was written meanwhile is on the former alone.", r.ID, len(r.LocalEpochs), r.DiskID, old.DiskID)
	}
	// A broker that registers itself with its own controller holds the lease, which the process before has lost.
	if r.ID != c.o.BrokerID && c.alive(r.ID) {
		return refuse(ErrDuplicateBroker, "Broker %d is alive on disk %s; another with the same id and disk %s was refused.", r.ID, old.DiskID, r.DiskID)
	}
	return nil
}

// alive reports whether a broker was heard of within a session, or may have been by the controller before.
func (c *Controller) alive(id int32) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	last, ok := c.heard[id]
	if !ok {
		last = c.since
	}
	return id == c.o.BrokerID || time.Since(last) < c.o.Session
}

// Heartbeat notes that the broker registered with this epoch is alive. ErrStaleBroker. No I/O.
func (c *Controller) Heartbeat(id int32, epoch int64) error {
	b := c.log.Image().Broker(id)
	if b == nil || b.Epoch != epoch {
		return refuse(ErrStaleBroker, "Broker %d is not registered with epoch %d.", id, epoch)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard[id] = time.Now()
	return nil
}

// takeOver makes the partition changes of a broker's registration. Pure.
func takeOver(img *metadata.Image, r Registration) (records []metadata.Record) {
	old := img.Broker(r.ID)
	replaced := old != nil && old.DiskID != r.DiskID
	for t := range img.Topics() {
		for i := range t.Partitions {
			was := &t.Partitions[i]
			if !slices.Contains(was.Replicas, r.ID) {
				continue
			}
			p := *was
			if replaced && len(p.Replicas) > 1 {
				p.ISR = slices.DeleteFunc(slices.Clone(p.ISR), func(b int32) bool { return b == r.ID })
			}
			if was.Leader == r.ID || was.Leader == metadata.NoLeader && len(p.ISR) > 0 {
				p.Leader = elect(img, p, r.ID)
			}
			if p.Leader == was.Leader && p.Leader != r.ID && len(p.ISR) == len(was.ISR) {
				continue
			}
			if was.Leader == r.ID || p.Leader != was.Leader {
				p.LeaderEpoch = max(was.LeaderEpoch+1, r.LocalEpochs[Partition{t.ID, int32(i)}])
			}
			p.PartitionEpoch++
			records = append(records, metadata.PartitionChanged{ID: t.ID, Index: int32(i), Partition: p})
		}
	}
	return records
}

// elect chooses a leader from the ISR: the broker that just registered, since it is known to be alive, else the first
// replica in order that is registered. NoLeader if there is none.
func elect(img *metadata.Image, p metadata.Partition, alive int32) int32 {
	if slices.Contains(p.ISR, alive) {
		return alive
	}
	for _, b := range p.Replicas {
		if slices.Contains(p.ISR, b) && img.Broker(b) != nil {
			return b
		}
	}
	return metadata.NoLeader
}

// LocalLeaderships returns the partitions that a broker may lead before it is registered, while the store is away, and
// the epoch of each: those of which it is the only replica and the only member of the ISR, on the disk that is
// registered. floor returns the highest epoch that the disk knows of a partition (of its epoch history, of an earlier
// local leadership), or record.NoEpoch. The broker must make the epoch durable before it acts in it, and give it to
// RegisterBroker once the store is back. The safety argument is in DESIGN.md. Pure.
func LocalLeaderships(img *metadata.Image, id int32, disk string, floor func(Partition) record.LeaderEpoch) map[Partition]record.LeaderEpoch {
	b := img.Broker(id)
	if b == nil || b.DiskID != disk {
		return nil
	}
	epochs := map[Partition]record.LeaderEpoch{}
	for t := range img.Topics() {
		for i, p := range t.Partitions {
			if len(p.Replicas) == 1 && p.Replicas[0] == id && len(p.ISR) == 1 {
				at := Partition{t.ID, int32(i)}
				epochs[at] = max(p.LeaderEpoch, floor(at)) + 1
			}
		}
	}
	return epochs
}

// AllocateProducerIDs gives away n producer ids (1000 as a rule) that nobody ever had and nobody else will get, and
// returns the first. After ErrUnavailable the ids may be lost; the next call gets others. ErrInvalidRequest, ErrNotController.
func (c *Controller) AllocateProducerIDs(ctx context.Context, n int64) (record.ProducerID, error) {
	const most = 1_000_000
	if n < 1 || n > most {
		return record.NoProducer, refuse(ErrInvalidRequest, "A block of %d producer ids was asked for; it can be 1 to %d.", n, most)
	}
	first, _, err := submit[record.ProducerID](ctx, c, func(img *metadata.Image) plan {
		return plan{records: []metadata.Record{metadata.ProducerIDsAllocated{First: img.NextProducerID, Count: n}}, weight: 1, answer: img.NextProducerID}
	})
	if err != nil {
		return record.NoProducer, err
	}
	return first, nil
}
