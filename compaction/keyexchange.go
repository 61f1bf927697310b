package compaction

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
	"github.com/everlog/everlog/tier/vfs"
)

// Exchanger replaces segments of the remote log by what key compaction has left of their records in the local one. Not safe
// for concurrent use.
type Exchanger struct {
	Store object.Store
	// FS and Scratch are where the new object is put together: an existing directory for temporary files.
	FS      vfs.FS
	Scratch string
	Deleter *Deleter
}

// Exchange is one replacement under way. Close it.
type Exchange struct {
	g       *Exchanger
	id      segment.Identity
	old     []manifest.Segment
	footers []*segment.Footer
	out     *assembled
	close   []func() error
}

// Begin reads the footers of old, adjacent entries of the manifest: leader epochs and the producer snapshot at the end are
// carried over from them.
func (g *Exchanger) Begin(ctx context.Context, id segment.Identity, old []manifest.Segment) (*Exchange, error) {
	footers, err := readFooters(ctx, g.Store, id, old)
	if err != nil {
		return nil, fmt.Errorf("exchange segments [%d, %d): %w", old[0].Base, old[len(old)-1].End, err)
	}
	return &Exchange{g: g, id: id, old: old, footers: footers}, nil
}

// Build makes the new object of the batches that the function passes to its argument, in order, each wholly inside what the
// old segments cover. aborted are the aborted transactions that overlap that, in the order of their markers. The result is
// verified, batch for batch.
func (x *Exchange) Build(aborted []record.AbortedTxn, batches func(fn func(record.Batch) error) error) error {
	raw, err := x.scratch()
	if err != nil {
		return err
	}
	f, err := x.write(raw, aborted, batches)
	if err != nil {
		return fmt.Errorf("exchange segments [%d, %d): %w", x.old[0].Base, x.old[len(x.old)-1].End, err)
	}
	file, err := x.scratch()
	if err != nil {
		return err
	}
	out := &assembled{file: file}
	w := bufio.NewWriterSize(appender{file, new(int64)}, copyBuffer)
	if out.footer, out.size, out.crc, err = segment.Recode(w, raw, f, segment.RecodeOptions{}); err == nil {
		err = w.Flush()
	}
	if err == nil {
		if f, err = segment.ReadFooter(file, out.size); err == nil {
			err = segment.Verify(file, f)
		}
	}
	if err != nil {
		return fmt.Errorf("exchange segments [%d, %d): %w", f.Base, f.End, err)
	}
	x.out = out
	return nil
}

// copyBuffer is what is written to a temporary file at a time.
const copyBuffer = 1 << 20

// appender writes to a file from its start on.
type appender struct {
	vfs.File
	at *int64
}

// Write implements io.Writer.
func (a appender) Write(p []byte) (int, error) {
	n, err := a.WriteAt(p, *a.at)
	*a.at += int64(n)
	return n, err
}

// write puts the batches into a local segment.
func (x *Exchange) write(file vfs.File, aborted []record.AbortedTxn, batches func(fn func(record.Batch) error) error) (*segment.Footer, error) {
	joined := joinFooters(x.footers)
	b := segment.NewBuilder(x.id, joined.Base, joined.CreatedEpoch)
	w := bufio.NewWriterSize(appender{file, new(int64)}, copyBuffer)
	if _, err := w.Write(b.Header()); err != nil {
		return nil, err
	}
	err := batches(func(k record.Batch) error {
		b.Skip(k.BaseOffset())
		if err := b.Add(k); err != nil {
			return err
		}
		_, err := w.Write(k)
		return err
	})
	if err != nil {
		return nil, err
	}
	if b.Next() > joined.End {
		return nil, fmt.Errorf("%w: batches end at %d", segment.ErrBorder, b.Next())
	}
	b.Skip(joined.End)
	_, f := b.Finish(aborted, joined.Producers)
	f.Epochs = joined.Epochs
	if _, err := w.Write(f.Encode()); err != nil {
		return nil, err
	}
	return f, w.Flush()
}

// scratch makes a temporary file, which Close removes.
func (x *Exchange) scratch() (vfs.File, error) {
	name := path.Join(x.g.Scratch, segment.NewUUID())
	file, err := x.g.FS.Create(name)
	if err != nil {
		return nil, fmt.Errorf("create temporary file for a compacted segment: %w", err)
	}
	x.close = append(x.close, file.Close, func() error { return x.g.FS.Remove(name) })
	return file, nil
}

// Size is the size of the object that Build made.
func (x *Exchange) Size() int64 { return x.out.size }

// Commit uploads the object, replaces the old segments by it in the manifest, and hands their objects to the deleter. After
// an error nothing has changed, or Log.Pending says that it may have.
func (x *Exchange) Commit(ctx context.Context, log *manifest.Log, epoch record.LeaderEpoch) error {
	if _, err := claimed(log, epoch); err != nil {
		return err
	}
	return substitute(ctx, x.g.Store, x.g.Deleter, log, epoch, x.old, x.out)
}

// Close removes the temporary files.
func (x *Exchange) Close() error {
	var errs []error
	for _, f := range x.close {
		errs = append(errs, f())
	}
	x.close = nil
	return errors.Join(errs...)
}
