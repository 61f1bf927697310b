package broker

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"path"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/ingest/hotlog"
	"github.com/everlog/everlog/ingest/localstate"
	"github.com/everlog/everlog/ingest/partition"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// openParallel is how many logs are recovered at once: recovery waits for the disk more than for a processor.
const openParallel = 16

// apply makes the replicas here those of img: it opens new ones, moves epochs and settings on, closes and removes those
// of deleted topics, and then shows img to requests. At start, replicas that need the object store load in the background.
func (b *Broker) apply(ctx context.Context, img *metadata.Image) error {
	if err := b.replaced(img); err != nil {
		return err
	}
	if b.started == unknownStart && img.Version != b.Image().Version {
		b.started = img.Version
	}
	conf, err := b.Parts.Config.WithDynamic(img.BrokerConfigs(b.opts.ID))
	if err != nil {
		b.log.Error("some changed broker settings are not understood and left out", "err", err)
	}
	b.conf.Store(conf)
	img = b.overlay(img)
	gone := b.missing(img)
	var g errgroup.Group
	g.SetLimit(openParallel)
	for t := range img.Topics() {
		settings, err := config.Topic(t.Configs, b.Config())
		if err != nil {
			b.log.Warn("topic has settings that are not understood; they are left out", "topic", t.Name, "err", err)
		}
		for i := range t.Partitions {
			if st := &t.Partitions[i]; slices.Contains(st.Replicas, b.opts.ID) {
				g.Go(func() error { return b.applyPartition(ctx, img, t, int32(i), st, settings) })
			}
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	b.show(img)
	for _, r := range gone {
		b.remove(r, img.TopicByID(r.key.topic) == nil)
	}
	return nil
}

// unknownStart: the broker began with an image from the cache, so that what it does not know may be old.
const unknownStart = math.MaxUint64

// replaced refuses an image in which this broker is another process: its epochs are that one's.
func (b *Broker) replaced(img *metadata.Image) error {
	me := img.Broker(b.opts.ID)
	if me == nil || b.opts.Registered == nil {
		return nil
	}
	if own := b.opts.Registered(); me.DiskID != b.opts.Self.DiskID || own > 0 && me.Epoch > own {
		return fmt.Errorf("%w: broker %d at %s:%d on disk %s", ErrReplaced, me.ID, me.Host, me.Port, me.DiskID)
	}
	return nil
}

// undecided reports whether a partition is led in an epoch that is not in the log yet. The remote log is not touched
// before: the log may give the same epoch to another disk.
func (b *Broker) undecided(p *partition.Partition) bool {
	id := p.Identity()
	epoch, ok := b.opts.LocalEpochs[controller.Partition{Topic: id.Topic, Index: id.Partition}]
	st := partitionState(b.Metadata.Image(), replicaKey{id.Topic, id.Partition})
	return ok && (st == nil || st.LeaderEpoch < epoch)
}

// overlay lays over an image what this broker does without the store's consent, until that is registered: clients must
// see the address it has now and the epochs it leads in, or they would be fenced by them.
func (b *Broker) overlay(img *metadata.Image) *metadata.Image {
	var records []metadata.Record
	for at, epoch := range b.opts.LocalEpochs {
		st := partitionState(img, replicaKey{at.Topic, at.Index})
		if st == nil || st.LeaderEpoch >= epoch {
			continue
		}
		p := *st
		p.Leader, p.LeaderEpoch, p.PartitionEpoch = b.opts.ID, epoch, st.PartitionEpoch+1
		records = append(records, metadata.PartitionChanged{ID: at.Topic, Index: at.Index, Partition: p})
	}
	if len(records) == 0 {
		return img
	}
	shown, err := img.With(append(records, metadata.BrokerRegistered{Broker: b.opts.Self})...)
	if err != nil {
		b.log.Error("local leaderships do not fit the metadata", "err", err)
		return img
	}
	return shown
}

// missing takes out of the table the replicas that img does not place here any more.
func (b *Broker) missing(img *metadata.Image) []*replica {
	b.mu.Lock()
	defer b.mu.Unlock()
	var gone []*replica
	for k, r := range b.replicas {
		if st := partitionState(img, k); st == nil || !slices.Contains(st.Replicas, b.opts.ID) {
			gone = append(gone, r)
			delete(b.replicas, k)
		}
	}
	return gone
}

func (b *Broker) show(img *metadata.Image) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.image.Store(img)
	close(b.changed)
	b.changed = make(chan struct{})
}

func (b *Broker) remove(r *replica, deleted bool) {
	r.mu.Lock()
	r.gone = true
	p := r.partition.Load()
	r.mu.Unlock()
	if p == nil {
		if deleted {
			b.removeUnopened(r)
		}
		return
	}
	b.tiers.forget(p, deleted)
	var err error
	if deleted {
		err = p.Delete()
	} else {
		err = p.Close()
	}
	if deleted {
		err = errors.Join(err, b.forgetNumbers(p.Identity()))
	}
	if err != nil {
		b.log.Error("replica could not be removed cleanly", "topic", r.topic, "partition", r.key.partition, "err", err)
	}
}

// applyPartition brings one replica to its state in the image.
func (b *Broker) applyPartition(ctx context.Context, img *metadata.Image, t *metadata.Topic, index int32, st *metadata.Partition, settings *config.TopicConfig) error {
	k := replicaKey{t.ID, index}
	b.mu.Lock()
	r, known := b.replicas[k]
	if known {
		r.mu.Lock()
		r.state, r.settings = st, settings
		r.mu.Unlock()
	}
	if !known {
		r = &replica{key: k, topic: t.Name, state: st, settings: settings}
		b.replicas[k] = r
	}
	b.mu.Unlock()
	if !known {
		return b.load(ctx, r, img, st, settings)
	}
	if p := r.partition.Load(); p != nil {
		if settings.Remote && p.Tier() == nil {
			return b.reopen(ctx, r, p, img, st, settings) // tiering was turned on
		}
		p.SetSettings(settings)
		if err := b.assume(p, st); err != nil {
			r.partition.Store(nil)
			return errors.Join(b.unusable(r, err), p.Close())
		}
		b.tiers.lead(p)
		return nil
	}
	return nil // still loading: load reads the newest state when it is done
}

// reopen closes a replica and opens it again with other settings. Its clients retry meanwhile.
func (b *Broker) reopen(ctx context.Context, r *replica, p *partition.Partition, img *metadata.Image, st *metadata.Partition, settings *config.TopicConfig) error {
	b.tiers.forget(p, false)
	r.partition.Store(nil)
	if err := p.Close(); err != nil {
		return b.unusable(r, err)
	}
	return b.load(ctx, r, img, st, settings)
}

// load opens a replica. What has no local state and may have a past is restored from the object store first, in the
// background; everything else is open when load returns.
func (b *Broker) load(ctx context.Context, r *replica, img *metadata.Image, st *metadata.Partition, settings *config.TopicConfig) error {
	id := segment.Identity{Cluster: img.ClusterID, Topic: r.key.topic, Partition: r.key.partition}
	saved, err := b.State.Log(id.Topic, id.Partition).Load()
	if err != nil {
		return fmt.Errorf("local state of %s-%d: %w", r.topic, id.Partition, err)
	}
	if !settings.Remote || b.isNew(img, id) || !mayHavePast(saved) {
		return b.open(r, id, st, settings, nil)
	}
	b.tiers.restore(r, func(ctx context.Context) error {
		old, err := b.loadPast(ctx, id)
		if err != nil {
			return err
		}
		return b.open(r, id, st, settings, old)
	})
	return nil
}

// isNew reports whether a partition came to be while this broker ran: it has no past anywhere.
func (b *Broker) isNew(img *metadata.Image, id segment.Identity) bool {
	if b.started == unknownStart {
		return false
	}
	before := b.Image().TopicByID(id.Topic)
	return img.TopicByID(id.Topic).Created > b.started || b.started < img.Version && before != nil && int(id.Partition) >= len(before.Partitions)
}

// mayHavePast reports whether a replica's local state is that of a disk that has never had it, or of a restore that was
// not finished: an empty log whose producer state is not known.
func mayHavePast(s localstate.Saved) bool {
	return s.Checkpoint.Durable <= s.Start && (s.Start == 0 && len(s.Epochs) == 0 || s.Start > 0 && (s.Producers == nil || s.ProducersAt != s.Start))
}

// open recovers the local log, or starts it where the past ends, and takes up the replica's role.
func (b *Broker) open(r *replica, id segment.Identity, st *metadata.Partition, settings *config.TopicConfig, old *past) error {
	log, rec, err := b.openLog(r, id, settings)
	if log == nil {
		return err
	}
	logStart, err := b.logStart(id)
	cleaned, cerr := b.cleaned(id)
	if err = errors.Join(err, cerr); err != nil {
		_ = log.Close()
		return err
	}
	known := record.Offset(-1)
	var remote *manifest.Log
	if old != nil {
		remote = old.log
		if old.end > log.End() || old.end == log.End() && log.Start() == log.End() && old.end > 0 { // also a restore that was cut short
			if logStart = max(logStart, old.logStart); logStart > 0 {
				err = b.saveLogStart(id, logStart)
			}
			if err == nil {
				err = b.startAfter(log, rec, id, old)
			}
			if err != nil {
				_ = log.Close()
				return b.unusable(r, err)
			}
		}
	}
	p, err := partition.Open(id, log, rec, partition.Options{Topic: r.topic, Settings: settings, Log: b.logOptions(), LogStart: logStart,
		ProducerExpiration: b.Config().ProducerIDExpiry, Logger: b.log, SaveLogStart: func(o record.Offset) error { return b.saveLogStart(id, o) },
		Cleaned: cleaned, SaveCleaned: func(o record.Offset) error { return b.saveCleaned(id, o) }})
	if err != nil {
		_ = log.Close()
		return b.unusable(r, err)
	}
	if settings.Remote {
		p.NewTier(b.Tier, partition.TierSchedule{Retention: b.Config().RetentionCheck, Retry: retryAtMost}, known, remote)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone { // meanwhile its topic was deleted
		return errors.Join(p.Delete(), b.forgetNumbers(id))
	}
	p.SetSettings(r.settings)
	if err := b.assume(p, r.state); err != nil {
		_ = p.Close()
		return b.unusable(r, err)
	}
	r.partition.Store(p)
	b.tiers.lead(p)
	return nil
}

// openLog recovers a replica's local log; nil and no error if it cannot be used, which is logged.
func (b *Broker) openLog(r *replica, id segment.Identity, settings *config.TopicConfig) (*hotlog.Log, *hotlog.Recovery, error) {
	o := b.logOptions()
	o.SegmentBytes = settings.SegmentBytes
	log, rec, err := hotlog.Open(b.FS, b.logDir(id), id, b.State.Log(id.Topic, id.Partition), b.flusher, o)
	if err != nil {
		return nil, nil, b.unusable(r, err)
	}
	if rec.Damaged != nil {
		b.log.Error("local log is damaged below what was acknowledged; it is kept as it is and the partition stays offline",
			"topic", r.topic, "partition", id.Partition, "damage", rec.Damaged)
		_ = log.Close()
		return nil, nil, b.unusable(r, rec.Damaged)
	}
	if rec.CutBytes > 0 {
		b.log.Info("incomplete writes at the end of the log were cut", "topic", r.topic, "partition", id.Partition, "bytes", rec.CutBytes, "offset", log.End())
	}
	return log, rec, nil
}

// startAfter makes an empty local log begin where the remote one ends. The producer snapshot comes last: until it is there
// the restore counts as not finished.
func (b *Broker) startAfter(log *hotlog.Log, rec *hotlog.Recovery, id segment.Identity, old *past) error {
	if err := log.Reset(old.end); err != nil {
		return err
	}
	if err := log.ReplaceEpochs(old.epochs); err != nil {
		return err
	}
	rec.Producers, rec.FirstReplay = old.producers, old.end
	snapshot := append([]byte{}, old.producers...) // not nil: that would be "unknown"
	return b.State.Log(id.Topic, id.Partition).Save(localstate.Update{Producers: &localstate.Producers{At: old.end, Snapshot: snapshot}})
}

// logOptions are those of every log; a topic's settings add to them.
func (b *Broker) logOptions() hotlog.Options {
	return hotlog.Options{FlushOS: b.Config().FlushOS, Files: b.files}
}

// unusable takes one replica out of service without taking the broker down.
func (b *Broker) unusable(r *replica, err error) error {
	err = fmt.Errorf("%w: %s-%d: %w", partition.ErrStorage, r.topic, r.key.partition, err)
	b.log.Error("replica cannot be opened", "topic", r.topic, "partition", r.key.partition, "err", err)
	r.failed.Store(&err)
	return nil
}

// assume takes up the role that the image gives the replica.
func (b *Broker) assume(p *partition.Partition, st *metadata.Partition) error {
	if st.Leader == b.opts.ID {
		id := p.Identity()
		return p.Lead(b.opts.ID, max(st.LeaderEpoch, b.opts.LocalEpochs[controller.Partition{Topic: id.Topic, Index: id.Partition}]))
	}
	p.Resign(st.Leader)
	return nil
}

func (b *Broker) logDir(id segment.Identity) string {
	return path.Join(b.Dir, "log", logName(id))
}

// logName names a partition's log on this disk and what is remembered of it.
func logName(id segment.Identity) string { return fmt.Sprintf("%s-%d", id.Topic.Hex(), id.Partition) }

func logStartName(id segment.Identity) string { return "log-start/" + logName(id) }

// logStart is the log start as remembered on this disk, or 0.
func (b *Broker) logStart(id segment.Identity) (record.Offset, error) {
	v, err := b.State.Get(logStartName(id))
	if err != nil || len(v) != 8 {
		return 0, err
	}
	return record.Offset(binary.BigEndian.Uint64(v)), nil
}

func (b *Broker) saveLogStart(id segment.Identity, o record.Offset) error {
	return b.State.Set(logStartName(id), binary.BigEndian.AppendUint64(nil, uint64(o)))
}

// removeUnopened removes what is known of a replica that is being loaded or could not be opened.
func (b *Broker) removeUnopened(r *replica) {
	id := segment.Identity{Cluster: b.Image().ClusterID, Topic: r.key.topic, Partition: r.key.partition}
	b.deleteRemote(id, record.NoEpoch)
	if r.failed.Load() == nil {
		return // open will see that it is gone
	}
	if err := b.removeLocal(id); err != nil {
		b.log.Error("replica could not be removed cleanly", "topic", r.topic, "partition", r.key.partition, "err", err)
	}
}
