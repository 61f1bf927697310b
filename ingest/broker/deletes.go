package broker

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// pendingName holds the remote logs whose topic is deleted and whose objects may not all be gone: the work goes on
// after a restart.
const pendingName = "remote-deletes"

// pendingDelete is one of them.
type pendingDelete struct {
	Cluster   string             `json:"cluster"` // 32 hexadecimal digits
	Topic     record.TopicID     `json:"topic"`
	Partition int32              `json:"partition"`
	Epoch     record.LeaderEpoch `json:"epoch"`
}

// deletes guards the list under pendingName.
type deletes struct {
	mu   sync.Mutex
	list []pendingDelete
}

func (b *Broker) saveDeletesLocked() error {
	p, err := json.Marshal(b.deleting.list)
	if err != nil {
		return err
	}
	return b.State.Set(pendingName, p)
}

// deleteRemote begins to delete a remote log in the background; a restart goes on with it.
func (b *Broker) deleteRemote(id segment.Identity, epoch record.LeaderEpoch) {
	d := pendingDelete{Cluster: hex.EncodeToString(id.Cluster[:]), Topic: id.Topic, Partition: id.Partition, Epoch: epoch}
	b.deleting.mu.Lock()
	b.deleting.list = append(b.deleting.list, d)
	if err := b.saveDeletesLocked(); err != nil {
		b.log.Error("a deleted topic's remote log may be left over after a restart", "topic_id", id.Topic, "partition", id.Partition, "err", err)
	}
	b.deleting.mu.Unlock()
	b.tiers.mu.Lock()
	defer b.tiers.mu.Unlock()
	if ctx := b.tiers.ctx; ctx != nil && ctx.Err() == nil {
		b.tiers.wg.Go(func() { b.deleteNow(ctx, d) })
	}
}

// loadDeletes reads the list of an earlier run. It comes before anything can add to it.
func (b *Broker) loadDeletes() error {
	p, err := b.State.Get(pendingName)
	if err == nil && len(p) > 0 {
		err = json.Unmarshal(p, &b.deleting.list)
	}
	if err != nil {
		return fmt.Errorf("list of deleted remote logs: %w", err)
	}
	return nil
}

// finishDeletes goes on with what an earlier run began.
func (b *Broker) finishDeletes(ctx context.Context, wg *sync.WaitGroup) {
	b.deleting.mu.Lock()
	list := slices.Clone(b.deleting.list)
	b.deleting.mu.Unlock()
	for _, d := range list {
		wg.Go(func() { b.deleteNow(ctx, d) })
	}
}

// removeLeftovers removes local logs whose topic is not in the metadata: a crash came between the deletion and its work
// here. A stale image proves nothing, since topics may have been made after it.
func (b *Broker) removeLeftovers(img *metadata.Image) error {
	if b.Metadata.Stale() {
		return nil
	}
	ids, err := b.State.Logs()
	if err != nil {
		return fmt.Errorf("local logs: %w", err)
	}
	for _, at := range ids {
		if img.TopicByID(at.Topic) != nil {
			continue
		}
		id := segment.Identity{Cluster: img.ClusterID, Topic: at.Topic, Partition: at.Partition}
		b.log.Info("the topic of a local log was deleted; removing the rest of it", "topic_id", at.Topic, "partition", at.Partition)
		b.deleteRemote(id, record.NoEpoch)
		if err := b.removeLocal(id); err != nil {
			return err
		}
	}
	return nil
}

// removeLocal removes the files and the state of a replica that is not open.
func (b *Broker) removeLocal(id segment.Identity) error {
	return errors.Join(b.FS.RemoveAll(b.logDir(id)), b.State.Log(id.Topic, id.Partition).Delete(), b.forgetNumbers(id))
}

func (b *Broker) deleteNow(ctx context.Context, d pendingDelete) {
	for wait := restoreRetry; ctx.Err() == nil; wait = min(2*wait, retryAtMost) {
		err := b.deleteOnce(ctx, d)
		if err == nil {
			b.deleted(d)
			return
		}
		b.log.Warn("a deleted topic's remote log is not gone yet", "topic_id", d.Topic, "partition", d.Partition, "err", err)
		sleep(ctx, wait+time.Duration(d.Partition%10)*time.Millisecond)
	}
}

func (b *Broker) deleteOnce(ctx context.Context, d pendingDelete) error {
	id := segment.Identity{Topic: d.Topic, Partition: d.Partition}
	if n, err := hex.Decode(id.Cluster[:], []byte(d.Cluster)); err != nil || n != len(id.Cluster) {
		return fmt.Errorf("cluster id %q of a pending delete", d.Cluster)
	}
	log, err := manifest.Open(ctx, b.Tier.Store, id, manifest.Options{Pages: b.Tier.Pages})
	if err != nil {
		return err
	}
	if log.Manifest().Version() == 0 {
		return nil // nothing was ever shipped
	}
	return partition.DeleteRemote(ctx, log, b.Tier)
}

func (b *Broker) deleted(d pendingDelete) {
	b.deleting.mu.Lock()
	defer b.deleting.mu.Unlock()
	for i, x := range b.deleting.list {
		if x == d {
			b.deleting.list = append(b.deleting.list[:i:i], b.deleting.list[i+1:]...)
			break
		}
	}
	if err := b.saveDeletesLocked(); err != nil {
		b.log.Error("the list of deleted remote logs cannot be kept", "err", err)
	}
}
