package partition

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/compaction"
	"github.com/everlog/everlog/ingest/hotlog"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/vfs"
)

// CompactOptions say what a pass of key compaction may use. All are needed.
type CompactOptions struct {
	Now time.Time
	// KeyMapBytes bounds the memory of the key map.
	KeyMapBytes int64
	// Room is how many bytes may be written to the disk now.
	Room func() (int64, error)
	// Pace waits until n more bytes may be read or written.
	Pace func(ctx context.Context, n int) error
}

// Compacted is what a pass did.
type Compacted struct {
	// BytesBefore and BytesAfter are the sizes of the segments it read, RecordsBefore and RecordsAfter their records; also
	// of a pass that did not end.
	BytesBefore, BytesAfter     int64
	RecordsBefore, RecordsAfter int64
	// Replaced counts the segments that it wrote.
	Replaced int
	// Cleaned is the offset below which no key occurs twice now.
	Cleaned record.Offset
}

// compacted reports whether compaction has been, or may be, at work on the log.
func (p *Partition) compacted() bool {
	return p.Settings().Compact || p.cleaned.Load() > int64(p.log.Start())
}

// Cleaned is the offset below which the log has been compacted.
func (p *Partition) Cleaned() record.Offset { return record.Offset(p.cleaned.Load()) }

// PlanCompaction says what a pass would do now, and whether it is due. Nothing is, unless the topic is compacted.
func (p *Partition) PlanCompaction(now time.Time) compaction.KeyPlan {
	plan, _ := p.planCompaction(now)
	return plan
}

// planCompaction plans a pass over the sealed segments that it returns, beginning at the one where compaction may begin.
func (p *Partition) planCompaction(now time.Time) (compaction.KeyPlan, []*hotlog.Sealed) {
	c := p.Settings()
	start, ok := p.compactStart()
	if !c.Compact || p.saveCleaned == nil || !ok {
		return compaction.KeyPlan{}, nil
	}
	in := compaction.KeyInput{
		KeyRules: compaction.KeyRules{MinDirtyRatio: c.MinDirtyRatio, MinLagMs: c.MinCompactionLag.Milliseconds(), MaxLagMs: c.MaxCompactionLag.Milliseconds()},
		NowMs:    now.UnixMilli(), Limit: p.compactLimit(c), Cleaned: record.Offset(p.cleaned.Load()),
	}
	var segs []*hotlog.Sealed
	for _, s := range p.log.Sealed(start) {
		if s.Base < start {
			continue
		}
		segs = append(segs, s)
		in.Segments = append(in.Segments, compaction.KeySegment{Base: s.Base, End: s.End, Bytes: s.Size, FirstTimestamp: s.FirstTimestamp, MaxTimestamp: s.MaxTimestamp})
	}
	plan := compaction.PlanKeys(in)
	return plan, segs[:plan.Segments]
}

// compactLimit is the end of what may be compacted: what is shippable, and where records are shipped, what is. A record that
// the store has gives way only to one that the store has too: else the loss of this disk would take both.
func (p *Partition) compactLimit(c *config.TopicConfig) record.Offset {
	limit := p.shippable()
	if p.tier != nil && !c.RemoteCopyDisabled {
		limit = min(limit, p.tier.RemoteEnd())
	}
	return limit
}

// compactStart is where a pass begins: the local start, or if history lies below it, the first border of an object from
// there on, so that what the store has below is never another version of what is here. It is false while that is not known.
func (p *Partition) compactStart() (record.Offset, bool) {
	start, logStart := p.log.Start(), p.View().LogStart
	if p.tier == nil || start == 0 {
		return start, true
	}
	m := p.tier.Manifest()
	if m == nil {
		return 0, false
	}
	// The log start may have moved past the local one, into an object that the local log begins within: what earlier passes left
	// out of that object is not compacted.
	inside := func(s manifest.Segment) bool { return s.Base < start && start < s.End && logStart < s.End }
	if start <= logStart && !slices.ContainsFunc(m.Root(), inside) {
		return start, true
	}
	for _, s := range m.Root() {
		if s.Base >= start {
			return s.Base, true
		}
	}
	return max(start, m.End()), true
}

// Compact runs one pass of key compaction if it is due. It stops between two records when ctx ends or the partition closes.
// Each segment is replaced at once or not at all; what a pass that did not end has replaced is right, and the next begins
// anew. Errors: ErrBusy, ErrClosed, ErrNoSpace (not begun, or not ended), ErrStorage, or ctx's.
func (p *Partition) Compact(ctx context.Context, o CompactOptions) (Compacted, error) {
	if !p.compacting.TryLock() {
		return Compacted{}, ErrBusy
	}
	defer p.compacting.Unlock()
	plan, segs := p.planCompaction(o.Now)
	if !plan.Due {
		return Compacted{Cleaned: p.Cleaned()}, nil
	}
	ctx, cancel := p.untilClosed(ctx)
	defer cancel()
	c := &compactor{p: p, o: o, ctx: ctx, plan: plan}
	err := c.run(segs)
	if context.Cause(ctx) == ErrClosed {
		err = ErrClosed
	}
	if p.tier != nil && c.done.Replaced > 0 {
		p.tier.wake()
	}
	c.done.Cleaned = p.Cleaned()
	return c.done, p.compactError(err)
}

// untilClosed is ctx, which ends with ErrClosed when the partition closes.
func (p *Partition) untilClosed(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	go func() {
		select {
		case <-p.stop:
			cancel(ErrClosed)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// compactError turns what went wrong into the package's errors.
func (p *Partition) compactError(err error) error {
	switch {
	case err == nil, errors.Is(err, ErrNoSpace), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, ErrClosed), errors.Is(err, hotlog.ErrClosed):
		return ErrClosed
	case errors.Is(err, hotlog.ErrReplaced): // segments were deleted meanwhile
		return fmt.Errorf("%w: %w", ErrBusy, err)
	case errors.Is(err, vfs.ErrNoSpace):
		return fmt.Errorf("%w: compact %s-%d: %w", ErrNoSpace, p.topic, p.id.Partition, err)
	}
	return fmt.Errorf("%w: compact %s-%d: %w", ErrStorage, p.topic, p.id.Partition, err)
}

// compactor is one pass at work.
type compactor struct {
	p       *Partition
	o       CompactOptions
	ctx     context.Context // of the one call that the pass is
	plan    compaction.KeyPlan
	pass    *compaction.KeyPass
	aborted []record.AbortedTxn
	done    Compacted
}

// errFull ends the reading of keys.
var errFull = errors.New("key map is full")

func (c *compactor) run(segs []*hotlog.Sealed) error {
	p := c.p
	if err := c.room(segs); err != nil {
		return err
	}
	start := segs[0].Base
	p.producerMu.Lock()
	c.aborted = p.producers.Aborted(start, c.plan.Bound)
	last := p.producers.LastBatches()
	p.producerMu.Unlock()
	producers := make(map[record.ProducerID]compaction.KeyProducer, len(last))
	for id, l := range last {
		producers[id] = compaction.KeyProducer(l)
	}
	records := int64(0)
	for _, s := range segs {
		if s.End > c.plan.FirstDirty {
			records += s.Records
		}
	}
	c.pass = compaction.NewKeyPass(compaction.KeyPassOptions{
		Start: start, FirstDirty: c.plan.FirstDirty, Bound: c.plan.Bound, Whole: start <= p.View().LogStart,
		NowMs: c.o.Now.UnixMilli(), TombstoneMs: p.Settings().TombstoneRetention.Milliseconds(), Aborted: c.aborted,
		Producers: producers, Keys: compaction.NewKeyMap(records, c.o.KeyMapBytes),
	})
	byMarker(c.aborted)
	if err := c.index(); err != nil {
		return err
	}
	p.superseded.Store(max(p.superseded.Load(), int64(c.pass.End())))
	if err := c.rewrite(segs); err != nil {
		return err
	}
	if err := p.saveCleaned(c.pass.End()); err != nil {
		return err
	}
	p.cleaned.Store(int64(c.pass.End()))
	c.forget(c.pass.Emptied())
	return nil
}

// room refuses a pass for whose first result the disk has no room.
func (c *compactor) room(segs []*hotlog.Sealed) error {
	var need int64
	for i, s := range segs {
		if i > 0 && need+s.Size > c.p.Settings().SegmentBytes {
			break
		}
		need += s.Size
	}
	room, err := c.o.Room()
	if err != nil {
		return err
	}
	if room < need {
		return fmt.Errorf("%w: compaction needs %d bytes on the disk, %d are free", ErrNoSpace, need, room)
	}
	return nil
}

// pace waits for its share of the disk, and ends the pass if the partition is closed.
func (c *compactor) pace(n int) error {
	select {
	case <-c.p.stop:
		return ErrClosed
	default:
		return c.o.Pace(c.ctx, n)
	}
}

// index fills the key map from the dirty part.
func (c *compactor) index() error {
	err := c.p.log.Scan(c.plan.FirstDirty, c.plan.Bound, func(b record.Batch) error {
		if err := c.pace(len(b)); err != nil {
			return err
		}
		full, err := c.pass.Index(b)
		if err == nil && full {
			err = errFull
		}
		return err
	})
	switch {
	case errors.Is(err, errFull):
		return nil
	case err != nil:
		return err
	}
	c.pass.Indexed(c.plan.Bound)
	return nil
}

// rewrite filters the segments up to the end of what is indexed, and joins neighbours as long as the result is no larger
// than a segment.
func (c *compactor) rewrite(segs []*hotlog.Sealed) error {
	for i := 0; i < len(segs) && segs[i].Base < c.pass.End(); {
		n, err := c.group(segs[i:])
		if err != nil {
			return err
		}
		i += n
	}
	return nil
}

// group makes one segment of the first ones, and returns of how many.
func (c *compactor) group(segs []*hotlog.Sealed) (n int, err error) {
	settings := c.p.Settings()
	if !settings.Compact {
		return 0, fmt.Errorf("%w: the topic is not compacted any more", ErrBusy)
	}
	if err := c.room(segs); err != nil {
		return 0, err
	}
	r := c.p.log.Rewrite()
	defer r.Abort()
	var before, records int64
	for ; n < len(segs) && segs[n].Base < c.pass.End(); n++ {
		s := segs[n]
		if n > 0 && !r.Empty() && r.Size()+s.Size > settings.SegmentBytes {
			break
		}
		if err := r.Take(s, c.filter); err != nil {
			return 0, err
		}
		before, records = before+s.Size, records+s.Records
	}
	return n, c.commit(r, segs[0].Base, segs[n-1].End, before, records)
}

// filter is the pass's, at the pace of the disk.
func (c *compactor) filter(b record.Batch) (record.Batch, error) {
	left, err := c.pass.Filter(b)
	if err != nil {
		return nil, err
	}
	return left, c.pace(len(b) + len(left))
}

// commit puts a result in place. What the store has from there on may be another version then.
func (c *compactor) commit(r *hotlog.Rewrite, base, end record.Offset, before, records int64) error {
	changed, err := r.Commit(overlapping(c.aborted, base, end))
	if err != nil {
		return err
	}
	if c.p.tier != nil && changed {
		c.p.tier.lowerExchanged(base)
	}
	c.done.BytesBefore, c.done.RecordsBefore = c.done.BytesBefore+before, c.done.RecordsBefore+records
	after, left := before, records
	if changed {
		c.done.Replaced++
		after, left = 0, 0 // deleted meanwhile
		if s := c.p.log.Sealed(base); len(s) > 0 && s[0].Base == base {
			after, left = s[0].Size, s[0].Records
		}
	}
	c.done.BytesAfter, c.done.RecordsAfter = c.done.BytesAfter+after, c.done.RecordsAfter+left
	return nil
}

// overlapping are the transactions of a list that overlap [from, to).
func overlapping(list []record.AbortedTxn, from, to record.Offset) []record.AbortedTxn {
	var out []record.AbortedTxn
	for _, a := range list {
		if a.First < to && a.Last >= from {
			out = append(out, a)
		}
	}
	return out
}

// forget drops aborted transactions of which only the marker is left from the producer state, so that the marker may go too,
// when its time has come.
func (c *compactor) forget(gone []record.AbortedTxn) {
	if len(gone) == 0 {
		return
	}
	byMarker := make(map[record.Offset]bool, len(gone))
	for _, a := range gone {
		byMarker[a.Last] = true
	}
	c.p.producerMu.Lock()
	defer c.p.producerMu.Unlock()
	c.p.forgets.Add(1)
	c.p.producers.RemoveAborted(func(a record.AbortedTxn) bool { return byMarker[a.Last] })
}

// forgetCompacted drops the aborted transactions whose marker is not in the log any more: a producer snapshot may be older
// than the passes that removed them. A list that names one would hide from readers what its producer wrote later.
func (p *Partition) forgetCompacted() error {
	p.producers.ForgetAborted(p.log.Start())
	gone := map[record.Offset]bool{}
	if p.cleaned.Load() == 0 && !p.Settings().Compact {
		return nil // never compacted
	}
	for _, a := range p.producers.Aborted(p.log.Start(), p.log.End()) { // a pass may have gone beyond cleaned
		s, err := p.log.Read(a.Last, a.Last+1, 1, true)
		if err != nil {
			return err
		}
		if s.Size == 0 {
			gone[a.Last] = true
		}
		s.Release()
	}
	if len(gone) > 0 {
		p.producers.RemoveAborted(func(a record.AbortedTxn) bool { return gone[a.Last] })
	}
	return nil
}
