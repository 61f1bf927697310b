package bucket

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// orphanDoc is one object that nothing refers to.
type orphanDoc struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Object    string `json:"object"`
	Bytes     int64  `json:"bytes"`
	Modified  string `json:"modified"`
	Verdict   string `json:"verdict"`
}

// The verdicts on an object that no manifest refers to.
const (
	isOrphan   = "orphan"    // no broker can come to need it
	mayBeAlive = "in flight" // the leader of now may be writing it
	tooYoung   = "too young" // younger than --older-than
	isForeign  = "foreign"   // not a name of everlog's
)

type collectDoc struct {
	V        int         `json:"v"`
	Executed bool        `json:"executed"`
	Objects  int64       `json:"orphans"`
	Bytes    int64       `json:"orphan_bytes"`
	Orphans  []orphanDoc `json:"objects"`
}

// Items are the lines of jsonl.
func (d *collectDoc) Items() []any {
	items := make([]any, len(d.Orphans))
	for i := range d.Orphans {
		items[i] = d.Orphans[i]
	}
	return items
}

func tierCollect(b bucket) *cobra.Command {
	var execute bool
	var olderThan string
	cmd := &cobra.Command{
		Use: "gc BUCKET-URL [TOPIC]", Short: "Find objects that nothing refers to, and delete them with --execute", Args: report.Args(1, 2, "BUCKET-URL and perhaps TOPIC"),
		Long: "Find objects of a topic that no manifest refers to: left of uploads that a crash cut off, or of deletions that one did.\n" +
			"An object is an orphan only if its writer is fenced, that is if a newer leader has claimed the manifest since; what the\n" +
			"leader of now may be writing is never touched. Brokers sweep by themselves; this is for a bucket without any.",
		RunE: func(cmd *cobra.Command, args []string) error {
			age, err := grammar.ParseDuration(olderThan)
			if err != nil {
				return report.Usagef("--older-than: %w", err)
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
			doc := &collectDoc{V: 1, Orphans: []orphanDoc{}}
			for _, t := range topics {
				for n := range t.Partitions {
					if err := c.orphans(cmd.Context(), t, n, b.shell.Now().Add(-age), doc); err != nil {
						return err
					}
				}
			}
			if execute && doc.Objects > 0 {
				question := fmt.Sprintf("delete %s (%s) from %s?", report.Count(doc.Objects, "object"), grammar.FormatSize(doc.Bytes), c.store)
				if err := b.shell.Confirm(question); err != nil {
					return err
				}
				if err := c.remove(cmd.Context(), doc); err != nil {
					return err
				}
			}
			return doc.print(b.shell)
		},
	}
	cmd.Flags().BoolVar(&execute, "execute", false, "delete the orphans; without it they are only shown")
	cmd.Flags().StringVar(&olderThan, "older-than", "24h", "leave younger objects alone")
	return cmd
}

// orphans judges the objects of one partition. The listing comes first and the manifest after it: what the manifest does not
// refer to then, and a fenced writer left, it never will.
func (c *cluster) orphans(ctx context.Context, t Topic, number int32, before time.Time, doc *collectDoc) error {
	id := segment.Identity{Cluster: c.catalog.Cluster, Topic: t.ID, Partition: number}
	var listed []object.Attributes
	if err := c.each(ctx, segment.Prefix(id), func(a object.Attributes) { listed = append(listed, a) }); err != nil {
		return err
	}
	p, err := c.load(ctx, t, number)
	if err != nil {
		return err
	}
	referred, err := c.referred(ctx, p)
	if err != nil {
		return err
	}
	for _, a := range listed {
		if referred[a.Name] {
			continue
		}
		verdict := judge(p, a, before)
		if verdict == isOrphan {
			doc.Objects++
			doc.Bytes += a.Size
		}
		doc.Orphans = append(doc.Orphans, orphanDoc{t.Name, number, a.Name, a.Size, a.Modified.UTC().Format(time.RFC3339), verdict})
	}
	return nil
}

// judge decides about an object that the manifest does not refer to.
func judge(p *partition, a object.Attributes, before time.Time) string {
	epoch, ok := writer(p.id, a.Name)
	switch {
	case !ok:
		return isForeign
	case epoch >= p.manifest.ClaimEpoch() && !p.manifest.Deleted():
		return mayBeAlive
	case !a.Modified.Before(before):
		return tooYoung
	}
	return isOrphan
}

// writer is the leader epoch that wrote a segment or a page, by its name.
func writer(id segment.Identity, name string) (record.LeaderEpoch, bool) {
	if o, err := segment.ParseObjectName(name); err == nil {
		return o.Epoch, o.Topic == id.Topic && o.Partition == id.Partition
	}
	rest, ok := strings.CutPrefix(name, manifest.PagePrefix(id))
	var page manifest.PageRef
	var uuid []byte
	if n, err := fmt.Sscanf(rest, "%d-%d-%d-%x", &page.First, &page.End, &page.Epoch, &uuid); !ok || err != nil || n != 4 || len(uuid) != len(page.UUID) {
		return 0, false
	}
	copy(page.UUID[:], uuid)
	return page.Epoch, manifest.PageName(id, page) == name
}

// remove deletes the orphans.
func (c *cluster) remove(ctx context.Context, doc *collectDoc) error {
	var names []string
	for _, o := range doc.Orphans {
		if o.Verdict == isOrphan {
			names = append(names, o.Object)
		}
	}
	if err := c.store.Delete(ctx, names...); err != nil {
		return explain(err, "delete orphans")
	}
	doc.Executed = true
	return nil
}

func (d *collectDoc) print(shell *report.Shell) error {
	err := shell.Printer().Print(d, func(t *report.Table) {
		t.Row("PARTITION", "VERDICT", "SIZE", "MODIFIED", "OBJECT")
		for _, o := range d.Orphans {
			t.Row(fmt.Sprintf("%s/%d", o.Topic, o.Partition), o.Verdict, grammar.FormatSize(o.Bytes), o.Modified, o.Object)
		}
	})
	if err != nil || shell.Printer().Structured() {
		return err
	}
	switch {
	case d.Executed:
		shell.Notef("%s (%s) deleted", report.Count(d.Objects, "orphan"), grammar.FormatSize(d.Bytes))
	case d.Objects > 0:
		shell.Notef("%s (%s); --execute deletes them", report.Count(d.Objects, "orphan"), grammar.FormatSize(d.Bytes))
	default:
		shell.Notef("no orphans")
	}
	return nil
}
