package bucket

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/tier/fetch"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// damageDoc is one thing that is wrong.
type damageDoc struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Base      int64  `json:"base_offset"`
	End       int64  `json:"end_offset"`
	Object    string `json:"object"`
	Reason    string `json:"reason"`
}

type verifyDoc struct {
	V          int         `json:"v"`
	Deep       bool        `json:"deep"`
	Topics     int         `json:"topics"`
	Partitions int         `json:"partitions"`
	Segments   int64       `json:"segments"`
	Records    int64       `json:"records"`
	Bytes      int64       `json:"bytes"`
	Read       int64       `json:"store_bytes"`
	Requests   int64       `json:"store_requests"`
	Damage     []damageDoc `json:"damage"`
}

// Items are the lines of jsonl.
func (d *verifyDoc) Items() []any {
	items := make([]any, len(d.Damage))
	for i := range d.Damage {
		items[i] = d.Damage[i]
	}
	return items
}

func tierVerify(b bucket) *cobra.Command {
	var deep bool
	var parallel int
	cmd := &cobra.Command{
		Use: "verify BUCKET-URL [TOPIC]", Short: "Check that the bucket holds what the manifests say", Args: report.Args(1, 2, "BUCKET-URL and perhaps TOPIC"),
		Long: "Check that the bucket holds what the manifests say: every manifest and page with its checksums, segments without gap or overlap,\n" +
			"every object there and long enough. --deep reads every segment too and checks the checksum of the object, of every block and of\n" +
			"every batch, and that offsets and leader epochs continue from batch to batch and from segment to segment.\n" +
			"The exit code is 7 if anything is damaged.",
		RunE: func(cmd *cobra.Command, args []string) error {
			if parallel < 1 {
				return report.Usagef("--parallel %d is less than 1", parallel)
			}
			c, err := b.openCluster(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer c.store.Close()
			topics, err := c.topics(args[1:])
			if err != nil {
				return err
			}
			v := &verification{cluster: c, doc: verifyDoc{V: 1, Deep: deep, Topics: len(topics), Damage: []damageDoc{}}, parallel: parallel}
			if err := v.run(cmd.Context(), topics); err != nil {
				return err
			}
			return v.print()
		},
	}
	cmd.Flags().BoolVar(&deep, "deep", false, "read every segment and check every checksum")
	cmd.Flags().IntVar(&parallel, "parallel", 4, "segments checked at the same time")
	return cmd
}

// verification is one tier verify at work.
type verification struct {
	*cluster
	parallel int

	mu  sync.Mutex
	doc verifyDoc
}

func (v *verification) damaged(p *partition, s manifest.Segment, reason string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.doc.Damage = append(v.doc.Damage, damageDoc{p.topic.Name, p.number, int64(s.Base), int64(s.End), s.Object, reason})
}

// run checks partition after partition, the segments of each side by side. An error ends it only if it is no damage: of a store
// that does not answer nothing is learned.
func (v *verification) run(ctx context.Context, topics []Topic) error {
	progress := report.NewProgress(v.shell.Err, v.shell.Progress)
	defer progress.Close()
	for _, t := range topics {
		for n := range t.Partitions {
			p, err := v.load(ctx, t, n)
			if err != nil && report.CodeOf(err) == report.Damaged {
				id := segment.Identity{Cluster: v.catalog.Cluster, Topic: t.ID, Partition: n}
				v.damaged(&partition{topic: t, number: n}, manifest.Segment{Object: manifest.RootName(id)}, err.Error())
				continue
			}
			if err != nil {
				return err
			}
			v.doc.Partitions++
			if p.manifest.Count() == 0 {
				continue
			}
			if err := v.partition(ctx, p, progress.Start(p.String(), p.manifest.Bytes())); err != nil {
				return err
			}
		}
	}
	return nil
}

func (v *verification) partition(ctx context.Context, p *partition, task *report.Task) error {
	defer task.Finish()
	group, limited := errgroup.WithContext(ctx)
	group.SetLimit(v.parallel)
	next, first := record.Offset(0), true
	for s, err := range p.manifest.All(limited, v.store) {
		if err != nil {
			if err = v.judge(p, manifest.Segment{Base: next, Object: "a manifest page"}, err); err != nil {
				return errors.Join(group.Wait(), explain(err, p.String()))
			}
			break
		}
		if !first && s.Base != next {
			v.damaged(p, s, fmt.Sprintf("it begins at %d where %d is next", s.Base, next))
		}
		next, first = s.End, false
		group.Go(func() error {
			err := v.judge(p, s, v.segment(limited, p, s))
			task.Add(s.Size)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return explain(err, p.String())
	}
	return ctx.Err()
}

// judge notes damage and passes on every other error.
func (v *verification) judge(p *partition, s manifest.Segment, err error) error {
	if err == nil {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.doc.Segments++
		v.doc.Records += s.Records
		v.doc.Bytes += s.Size
		return nil
	}
	if isDamage(err) || errors.Is(err, object.ErrNotFound) || errors.Is(err, object.ErrRange) || errors.Is(err, io.ErrUnexpectedEOF) {
		v.damaged(p, s, err.Error())
		return nil
	}
	return err
}

// segment checks one segment: that its object is there and large enough, and, deep, all its bytes.
func (v *verification) segment(ctx context.Context, p *partition, s manifest.Segment) error {
	a, err := v.store.Head(ctx, s.Object)
	if err != nil {
		return err
	}
	if a.Size < s.Position+s.Size {
		return fmt.Errorf("%w: the object has %d bytes, the manifest says %d", segment.ErrCorrupt, a.Size, s.Position+s.Size)
	}
	if !v.doc.Deep {
		return nil
	}
	whole := &checksummed{source: source{ctx, v.store, s}}
	f, err := footer(ctx, v.store, p.id, s)
	if err != nil {
		return err
	}
	if f.Records != s.Records || f.DataSize != s.DataSize || f.MaxTimestamp != s.MaxTimestamp {
		return fmt.Errorf("%w: the footer says %d records and %d bytes, the manifest %d and %d", segment.ErrCorrupt, f.Records, f.DataSize, s.Records, s.DataSize)
	}
	if err := segment.Verify(whole, f); err != nil {
		return err
	}
	return whole.check(s)
}

// checksummed reads a segment from front to end in large GETs, and adds up its checksum on the way. What segment.Verify does
// not read of it (the footer) is read by check.
type checksummed struct {
	source
	window []byte
	start  int64 // position of the window
	sum    uint32
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// ReadAt serves from the window, which only ever moves on.
func (c *checksummed) ReadAt(p []byte, position int64) (int, error) {
	for done := 0; done < len(p); {
		at := position + int64(done) - c.start
		if at < 0 {
			return done, fmt.Errorf("read at %d after the window moved on to %d", position, c.start)
		}
		if at < int64(len(c.window)) {
			done += copy(p[done:], c.window[at:])
			continue
		}
		if err := c.advance(); err != nil {
			return done, err
		}
	}
	return len(p), nil
}

// advance reads the next window.
func (c *checksummed) advance() error {
	c.start += int64(len(c.window))
	left := c.seg.Size - c.start
	if left <= 0 {
		return io.EOF
	}
	if c.window == nil {
		c.window = make([]byte, fetch.ScanGet)
	}
	c.window = c.window[:min(left, int64(cap(c.window)))]
	if _, err := c.source.ReadAt(c.window, c.start); err != nil {
		return err
	}
	c.sum = crc32.Update(c.sum, castagnoli, c.window)
	return nil
}

// check reads what is left and compares the checksum of the whole.
func (c *checksummed) check(s manifest.Segment) error {
	for {
		err := c.advance()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	if c.sum != s.CRC {
		return fmt.Errorf("%w: checksum %08x, the manifest says %08x", segment.ErrCorrupt, c.sum, s.CRC)
	}
	return nil
}

func (v *verification) print() error {
	v.doc.Read, v.doc.Requests = v.usage.bytes.Load(), v.usage.requests.Load()
	d := &v.doc
	err := v.shell.Printer().Print(d, func(t *report.Table) {
		if len(d.Damage) > 0 {
			t.Row("PARTITION", "BASE", "END", "OBJECT", "REASON")
			for _, x := range d.Damage {
				t.Row(fmt.Sprintf("%s/%d", x.Topic, x.Partition), x.Base, x.End, x.Object, x.Reason)
			}
			t.Line("")
		}
		what := "there and of the right size"
		if d.Deep {
			what = "read, every checksum right"
		}
		t.Line("%s of %s, %s: %s, %s, %s", report.Count(d.Segments, "segment"), report.Count(int64(d.Partitions), "partition"), what,
			report.Count(d.Records, "record"), grammar.FormatSize(d.Bytes), report.Count(d.Requests, "request"))
	})
	if err != nil {
		return err
	}
	if len(d.Damage) > 0 {
		return report.Errorf(report.Damaged, "%s of damage found in %s", report.Count(int64(len(d.Damage)), "case"), v.store)
	}
	return nil
}
