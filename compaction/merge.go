package compaction

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"path"
	"slices"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// MergeOptions say which objects are small. The zero value is valid. Sizes are stored bytes.
type MergeOptions struct {
	// Small is the size below which an object is worth merging. Default 16 MiB.
	Small int64
	// Target is the size that a merged object does not exceed. Default 128 MiB.
	Target int64
	// MinCount is how many small objects in a row make a merge worth its requests, unless they fill half of Target.
	// Default 8: each record is then rewritten about log8(segments) times at most.
	MinCount int
}

func (o MergeOptions) withDefaults() MergeOptions {
	if o.Small <= 0 {
		o.Small = 16 << 20
	}
	if o.Target <= 0 {
		o.Target = 128 << 20
	}
	if o.MinCount <= 1 {
		o.MinCount = 8
	}
	return o
}

// PlanMerge returns the first run of adjacent small segments worth merging, as indices [from, to) of segments; false if
// there is none. Entries in pages are not considered: they were left as they are when they were newest.
func PlanMerge(segments []manifest.Segment, o MergeOptions) (from, to int, ok bool) {
	o = o.withDefaults()
	for from < len(segments) {
		var size int64
		to = from
		for to < len(segments) && segments[to].Size < o.Small && size+segments[to].Size <= o.Target {
			size += segments[to].Size
			to++
		}
		if n := to - from; n >= o.MinCount || n > 1 && size >= o.Target/2 {
			return from, to, true
		}
		from = max(to, from+1)
	}
	return 0, 0, false
}

// Merger replaces runs of segments by one object that holds the same blocks. Not safe for concurrent use.
type Merger struct {
	Store object.Store
	// FS and Scratch are where the new object is put together: an existing directory for temporary files.
	FS      vfs.FS
	Scratch string
	Deleter *Deleter
}

// copyChunk is how much is read from the store at a time; a block larger than that is read whole.
const copyChunk = 8 << 20

// Merge writes one object that covers exactly what old covers, replaces old by it in the manifest, and hands the old objects
// to the deleter. Stored blocks are copied as they are, so records, their compression and their checksums stay byte for
// byte; the leader epochs are joined, the producer snapshot is that of the last segment. The result is verified, batch for
// batch, before it is uploaded. After an error nothing has changed, or Log.Pending says that it may have.
func (g *Merger) Merge(ctx context.Context, log *manifest.Log, epoch record.LeaderEpoch, old []manifest.Segment) (err error) {
	m, err := claimed(log, epoch)
	if err != nil {
		return err
	}
	name := path.Join(g.Scratch, segment.NewUUID())
	file, err := g.FS.Create(name)
	if err != nil {
		return fmt.Errorf("merge segments: %w", err)
	}
	defer func() { err = errors.Join(err, file.Close(), g.FS.Remove(name)) }()

	out, err := g.assemble(ctx, m.Identity(), old, file)
	if err != nil {
		return fmt.Errorf("merge segments [%d, %d): %w", old[0].Base, old[len(old)-1].End, err)
	}
	return substitute(ctx, g.Store, g.Deleter, log, epoch, old, out)
}

// substitute uploads a segment under a new name, replaces old by it in the manifest, and hands the old objects to the deleter.
func substitute(ctx context.Context, store object.Store, d *Deleter, log *manifest.Log, epoch record.LeaderEpoch, old []manifest.Segment, by *assembled) error {
	name := segment.ObjectName(by.footer.Identity, by.footer.Base, by.footer.End, epoch, segment.NewUUID())
	if _, err := store.Put(ctx, name, fileBody{by.file, by.size}, object.PutOptions{CRC32C: &by.crc}); err != nil {
		return fmt.Errorf("upload segment [%d, %d) anew: %w", by.footer.Base, by.footer.End, err)
	}
	if a, err := store.Head(ctx, name); err != nil || a.Size != by.size {
		return fmt.Errorf("check segment [%d, %d): %d bytes sent, %d stored: %w", by.footer.Base, by.footer.End, by.size, a.Size, cmp.Or(err, object.ErrCorrupt))
	}
	entry := manifest.FromFooter(by.footer, name, by.size, by.crc, epoch)
	if err := log.Replace(ctx, old, []manifest.Segment{entry}); err != nil {
		return fmt.Errorf("replace segments [%d, %d): %w", by.footer.Base, by.footer.End, err)
	}
	d.Schedule(log.Unreferenced()...)
	d.Schedule(replaced(log.Manifest(), old)...)
	return nil
}

// replaced returns the objects of old but those that another entry of the root still names.
func replaced(m *manifest.Manifest, old []manifest.Segment) []string {
	return slices.DeleteFunc(objects(old, "", nil), func(name string) bool {
		return slices.ContainsFunc(m.Root(), func(s manifest.Segment) bool { return s.Object == name })
	})
}

// assembled is a merged segment in the temporary file.
type assembled struct {
	file   vfs.File
	size   int64
	crc    uint32
	footer *segment.Footer
}

func (a *assembled) write(p []byte) error {
	if _, err := a.file.WriteAt(p, a.size); err != nil {
		return err
	}
	a.crc = crc32.Update(a.crc, castagnoli, p)
	a.size += int64(len(p))
	return nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (g *Merger) assemble(ctx context.Context, id segment.Identity, old []manifest.Segment, file vfs.File) (*assembled, error) {
	footers, err := readFooters(ctx, g.Store, id, old)
	if err != nil {
		return nil, err
	}
	a := &assembled{file: file, footer: joinFooters(footers)}
	if err := a.write(segment.NewBuilder(id, a.footer.Base, a.footer.CreatedEpoch).Header()); err != nil {
		return nil, err
	}
	for i, s := range old {
		if err := g.copyBlocks(ctx, a, s, footers[i].Blocks); err != nil {
			return nil, err
		}
	}
	if err := a.write(a.footer.Encode()); err != nil {
		return nil, err
	}
	f, err := segment.ReadFooter(file, a.size)
	if err != nil {
		return nil, fmt.Errorf("read back: %w", err)
	}
	a.footer = f
	return a, segment.Verify(file, f)
}

// readFooters reads the footers of segments, one request each, and checks that they are theirs.
func readFooters(ctx context.Context, store object.Store, id segment.Identity, segs []manifest.Segment) ([]*segment.Footer, error) {
	footers := make([]*segment.Footer, len(segs))
	for i, s := range segs {
		p := make([]byte, s.FooterSize)
		if _, err := store.ReadAt(ctx, s.Object, p, s.Position+s.Size-int64(s.FooterSize)); err != nil {
			return nil, fmt.Errorf("read footer of %s: %w", s.Object, err)
		}
		f, err := segment.ParseFooter(p)
		if err != nil {
			return nil, fmt.Errorf("footer of %s: %w", s.Object, err)
		}
		if f.Identity != id || f.Base != s.Base || f.End != s.End || f.DataEnd() != s.Size-int64(s.FooterSize) {
			return nil, fmt.Errorf("%w: %s holds [%d, %d) of partition %d of %s", segment.ErrCorrupt, s.Object, f.Base, f.End, f.Identity.Partition, f.Identity.Topic)
		}
		footers[i] = f
	}
	return footers, nil
}

// copyBlocks appends the stored blocks of one segment, in requests of several blocks.
func (g *Merger) copyBlocks(ctx context.Context, a *assembled, s manifest.Segment, blocks []segment.Block) error {
	var p []byte
	for len(blocks) > 0 {
		n, size := 0, 0
		for n < len(blocks) && (n == 0 || size+int(blocks[n].Stored) <= copyChunk) {
			size += int(blocks[n].Stored)
			n++
		}
		p = slices.Grow(p[:0], size)[:size]
		if _, err := g.Store.ReadAt(ctx, s.Object, p, s.Position+blocks[0].Position); err != nil {
			return fmt.Errorf("read blocks of %s: %w", s.Object, err)
		}
		if err := a.write(p); err != nil {
			return err
		}
		blocks = blocks[n:]
	}
	return nil
}

// joinFooters describes a segment that holds the blocks of adjacent segments one after another.
func joinFooters(footers []*segment.Footer) *segment.Footer {
	first, last := footers[0], footers[len(footers)-1]
	j := &segment.Footer{
		Identity: first.Identity, Base: first.Base, End: last.End, CreatedEpoch: first.CreatedEpoch,
		MinTimestamp: -1, MaxTimestamp: -1, MaxTimestampOffset: -1, Producers: last.Producers,
	}
	position := int64(segment.HeaderSize)
	for _, f := range footers {
		j.Sparse = j.Sparse || f.Sparse
		for _, b := range f.Blocks {
			b.Position = position
			position += int64(b.Stored)
			j.Blocks = append(j.Blocks, b)
		}
		for _, e := range f.Epochs {
			if n := len(j.Epochs); n == 0 || e.Epoch > j.Epochs[n-1].Epoch {
				if n > 0 {
					e.Start = max(e.Start, f.Base)
				}
				j.Epochs = append(j.Epochs, e)
			}
		}
		if f.MinTimestamp >= 0 && (j.MinTimestamp < 0 || f.MinTimestamp < j.MinTimestamp) {
			j.MinTimestamp = f.MinTimestamp
		}
		if f.MaxTimestamp > j.MaxTimestamp {
			j.MaxTimestamp, j.MaxTimestampOffset = f.MaxTimestamp, f.MaxTimestampOffset
		}
		j.Records += f.Records
		j.DataSize += f.DataSize
		j.Aborted = append(j.Aborted, f.Aborted...)
	}
	// A transaction that spans segments is listed in each of them.
	slices.SortFunc(j.Aborted, func(a, b record.AbortedTxn) int {
		return cmp.Or(cmp.Compare(a.Last, b.Last), cmp.Compare(a.First, b.First))
	})
	j.Aborted = slices.Compact(j.Aborted)
	return j
}

// fileBody is a file as an upload.
type fileBody struct {
	vfs.File
	size int64
}

// Size implements object.Body.
func (b fileBody) Size() int64 { return b.size }
