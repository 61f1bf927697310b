package bucket

import (
	"context"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

func debugCommand(b bucket) *cobra.Command {
	cmd := &cobra.Command{Use: "debug", Short: "Look inside the files and objects of everlog"}
	cmd.AddCommand(dumpSegment(b), dumpManifest(b))
	return cmd
}

func dumpSegment(b bucket) *cobra.Command {
	var batches bool
	cmd := &cobra.Command{
		Use: "dump-segment FILE-OR-URL", Short: "Print what a segment file or object says of itself", Args: report.Args(1, 1, "a FILE or the URL of an object"),
		Long: "Print the footer of a segment file or object: offsets, epochs, blocks. --batches reads the blocks too and prints every batch.\n" +
			"The active segment of a broker has no footer yet: then the batches are what can be printed.",
		Example: "  everlog debug dump-segment everlog-data/log/…/00000000000000000000.seg --batches\n  everlog debug dump-segment s3://logs/prod/data/…/seg/…",
		RunE: func(cmd *cobra.Command, args []string) error {
			src, size, err := b.openSegment(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer src.Close()
			return b.dump(src, size, args[0], batches)
		},
	}
	cmd.Flags().BoolVar(&batches, "batches", false, "every record batch, with its checksum checked")
	return cmd
}

// readerAt is a segment that can be closed.
type readerAt interface {
	io.ReaderAt
	io.Closer
}

// remote is an object as a readerAt; closing it closes the store.
type remote struct {
	source
	store closable
}

func (r remote) Close() error {
	r.store.Close()
	return nil
}

// openSegment opens a local file, or the object that a URL with data/ in its path names.
func (b bucket) openSegment(ctx context.Context, where string) (readerAt, int64, error) {
	if !strings.Contains(where, "://") {
		file, err := os.Open(where)
		if err != nil {
			return nil, 0, report.Errorf(report.NotFound, "%w", err)
		}
		info, err := file.Stat()
		if err != nil {
			return nil, 0, err
		}
		return file, info.Size(), nil
	}
	url, name, ok := splitObject(where)
	if !ok {
		return nil, 0, report.Usagef("%q names no segment object", hideSecrets(where)).WithHint("its path holds /data/…/seg/…, as everlog tier ls --segments prints it, after the bucket's URL")
	}
	store, _, err := b.openStore(ctx, url)
	if err != nil {
		return nil, 0, err
	}
	a, err := store.Head(ctx, name)
	if err != nil {
		store.Close()
		return nil, 0, explain(err, name)
	}
	return remote{source{ctx, store, manifest.Segment{Object: name, Size: a.Size}}, store}, a.Size, nil
}

// splitObject cuts the URL of an object into that of its store and its name. A query belongs to the store.
func splitObject(where string) (url, name string, ok bool) {
	path, query, asked := strings.Cut(where, "?")
	i := strings.LastIndex(path, "/data/")
	if i < 0 {
		return "", "", false
	}
	url, name = path[:i], path[i+1:]
	if asked {
		url += "?" + query
	}
	return url, name, true
}

func (b bucket) dump(src io.ReaderAt, size int64, where string, batches bool) error {
	f, err := segment.ReadFooter(src, size)
	if err == nil {
		f.Dump(b.shell.Out)
		if !batches {
			return nil
		}
		return explain(b.blocks(src, f), where)
	}
	if !batches {
		return explain(err, where)
	}
	id, base, epoch, headerErr := segment.ReadHeader(src)
	if headerErr != nil {
		return explain(headerErr, where)
	}
	fmt.Fprintf(b.shell.Out, "segment     from %d of partition %d of topic %s, created in leader epoch %d, without a footer\n", base, id.Partition, id.Topic, epoch)
	return explain(b.active(io.NewSectionReader(src, segment.HeaderSize, size-segment.HeaderSize)), where)
}

// blocks prints the batches of a sealed segment.
func (b bucket) blocks(src io.ReaderAt, f *segment.Footer) error {
	for i, k := range f.Blocks {
		stored := make([]byte, k.Stored)
		if _, err := src.ReadAt(stored, k.Position); err != nil && err != io.EOF {
			return err
		}
		raw, err := segment.DecodeBlock(nil, stored, k)
		if err != nil {
			return fmt.Errorf("block %d at %d: %w", i, k.Position, err)
		}
		for len(raw) > 0 {
			var batch record.Batch
			if batch, raw, err = record.Next(raw); err != nil {
				return fmt.Errorf("block %d at %d: %w", i, k.Position, err)
			}
			if err := b.batch(batch); err != nil {
				return err
			}
		}
	}
	return nil
}

// active prints the batches of a segment without a footer, up to the first that is not whole: that is where its writer was.
func (b bucket) active(r io.Reader) error {
	head := make([]byte, record.HeaderSize)
	position := int64(segment.HeaderSize)
	for {
		if _, err := io.ReadFull(r, head); err != nil {
			fmt.Fprintf(b.shell.Out, "end         of whole batches at byte %d\n", position)
			return nil
		}
		size := 12 + int64(int32(head[8])<<24|int32(head[9])<<16|int32(head[10])<<8|int32(head[11]))
		if size < record.HeaderSize || size > segment.MaxBlockSize {
			fmt.Fprintf(b.shell.Out, "end         of whole batches at byte %d\n", position)
			return nil
		}
		whole := append(make([]byte, 0, size), head...)
		whole = whole[:size]
		if _, err := io.ReadFull(r, whole[record.HeaderSize:]); err != nil {
			fmt.Fprintf(b.shell.Out, "end         of whole batches at byte %d; one of %d bytes is cut off\n", position, size)
			return nil
		}
		batch, _, err := record.Next(whole)
		if err != nil {
			return err
		}
		if err := b.batch(batch); err != nil {
			return err
		}
		position += size
	}
}

// batch prints one line.
func (b bucket) batch(batch record.Batch) error {
	kind := "data"
	switch {
	case batch.IsControl():
		kind = "control"
	case batch.IsTransactional():
		kind = "transaction"
	}
	fmt.Fprintf(b.shell.Out, "batch       [%d, %d) epoch %d, %d records, %d bytes %s, %s, producer %d/%d from %d, %s to %s, crc %08x\n",
		batch.BaseOffset(), batch.NextOffset(), batch.LeaderEpoch(), batch.Count(), batch.Size(), batch.Codec(), kind,
		batch.ProducerID(), batch.ProducerEpoch(), batch.BaseSequence(), grammar.FormatTime(batch.BaseTimestamp()), grammar.FormatTime(batch.MaxTimestamp()), batch.CRC())
	return batch.Verify()
}

func dumpManifest(b bucket) *cobra.Command {
	return &cobra.Command{
		Use: "dump-manifest BUCKET-URL TOPIC PARTITION", Short: "Print the manifest of a partition", Args: report.Args(3, 3, "BUCKET-URL, TOPIC and PARTITION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			n, err := strconv.ParseInt(args[2], 10, 32)
			if err != nil || n < 0 {
				return report.Usagef("%q is not a partition number", args[2])
			}
			c, err := b.openCluster(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer c.store.Close()
			t, err := c.topic(args[1])
			if err != nil {
				return err
			}
			parts, err := c.partitions(cmd.Context(), t, []int32{int32(n)})
			if err != nil {
				return err
			}
			parts[0].manifest.Dump(b.shell.Out)
			return nil
		},
	}
}
