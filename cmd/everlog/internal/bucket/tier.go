package bucket

import (
	"context"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/segment"
)

func tierCommand(b bucket) *cobra.Command {
	cmd := &cobra.Command{
		Use: "tier", Short: "Look at what the bucket holds: list, size, verify, clean up",
		Example: "  everlog tier ls s3://logs/prod\n  everlog tier verify s3://logs/prod orders --deep",
	}
	cmd.AddCommand(tierList(b), tierUsage(b), tierVerify(b), tierCollect(b))
	return cmd
}

// remoteDoc is the remote log of a topic, or of one of its partitions.
type remoteDoc struct {
	Topic      string `json:"topic"`
	ID         string `json:"id,omitempty"`
	Partition  *int32 `json:"partition,omitempty"`
	Partitions int32  `json:"partitions,omitempty"`
	LogStart   *int64 `json:"log_start_offset,omitempty"`
	End        *int64 `json:"remote_end_offset,omitempty"`
	Epoch      *int32 `json:"leader_epoch,omitempty"`
	Segments   int    `json:"segments"`
	Records    int64  `json:"offsets"`
	Stored     int64  `json:"stored_bytes"`
	Raw        int64  `json:"raw_bytes"`
}

type segmentDoc struct {
	Topic     string `json:"topic"`
	Partition int32  `json:"partition"`
	Base      int64  `json:"base_offset"`
	End       int64  `json:"end_offset"`
	Epoch     int32  `json:"leader_epoch"`
	Records   int64  `json:"records"`
	Stored    int64  `json:"stored_bytes"`
	Raw       int64  `json:"raw_bytes"`
	First     string `json:"first_timestamp"`
	Last      string `json:"last_timestamp"`
	Object    string `json:"object"`
}

type tierDoc struct {
	V        int          `json:"v"`
	Topics   []remoteDoc  `json:"topics,omitempty"`
	Parts    []remoteDoc  `json:"partitions,omitempty"`
	Segments []segmentDoc `json:"segments,omitempty"`
}

// Items are the lines of jsonl.
func (d *tierDoc) Items() []any {
	var items []any
	for i := range d.Topics {
		items = append(items, d.Topics[i])
	}
	for i := range d.Parts {
		items = append(items, d.Parts[i])
	}
	for i := range d.Segments {
		items = append(items, d.Segments[i])
	}
	return items
}

func tierList(b bucket) *cobra.Command {
	var segments bool
	var partitions []int32
	cmd := &cobra.Command{
		Use: "ls BUCKET-URL [TOPIC]", Short: "List the topics in a bucket, or the partitions or segments of one", Args: report.Args(1, 2, "BUCKET-URL and perhaps TOPIC"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := b.openCluster(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer c.store.Close()
			if len(args) == 1 {
				if segments || len(partitions) > 0 {
					return report.Usagef("--segments and --partition want a topic")
				}
				return c.listTopics(cmd.Context())
			}
			t, err := c.topic(args[1])
			if err != nil {
				return err
			}
			parts, err := c.partitions(cmd.Context(), t, partitions)
			if err != nil {
				return err
			}
			if segments {
				return c.listSegments(cmd.Context(), parts)
			}
			return c.listPartitions(parts)
		},
	}
	cmd.Flags().BoolVar(&segments, "segments", false, "every segment of the topic")
	cmd.Flags().Int32SliceVar(&partitions, "partition", nil, "only these partitions")
	return cmd
}

func (c *cluster) listTopics(ctx context.Context) error {
	doc := &tierDoc{V: 1, Topics: []remoteDoc{}}
	for _, t := range c.catalog.Topics {
		parts, err := c.partitions(ctx, t, nil)
		if err != nil {
			return err
		}
		d := remoteDoc{Topic: t.Name, ID: t.ID.String(), Partitions: t.Partitions}
		for _, p := range parts {
			m := p.manifest
			d.Segments += m.Count()
			d.Records += int64(m.End() - m.LogStart())
			d.Stored += m.Bytes()
			d.Raw += m.DataBytes()
		}
		doc.Topics = append(doc.Topics, d)
	}
	return c.shell.Printer().Print(doc, func(t *report.Table) {
		t.Row("TOPIC", "PARTITIONS", "SEGMENTS", "OFFSETS", "STORED", "RAW", "ID")
		for _, d := range doc.Topics {
			t.Row(d.Topic, d.Partitions, d.Segments, d.Records, grammar.FormatSize(d.Stored), grammar.FormatSize(d.Raw), d.ID)
		}
	})
}

func (c *cluster) listPartitions(parts []*partition) error {
	doc := &tierDoc{V: 1, Parts: []remoteDoc{}}
	for _, p := range parts {
		m := p.manifest
		start, end, epoch := int64(m.LogStart()), int64(m.End()), int32(m.ClaimEpoch())
		doc.Parts = append(doc.Parts, remoteDoc{Topic: p.topic.Name, Partition: &p.number, LogStart: &start, End: &end, Epoch: &epoch,
			Segments: m.Count(), Records: end - start, Stored: m.Bytes(), Raw: m.DataBytes()})
	}
	return c.shell.Printer().Print(doc, func(t *report.Table) {
		t.Row("PARTITION", "START", "END", "EPOCH", "SEGMENTS", "OFFSETS", "STORED", "RAW")
		for _, d := range doc.Parts {
			t.Row(*d.Partition, *d.LogStart, *d.End, *d.Epoch, d.Segments, d.Records, grammar.FormatSize(d.Stored), grammar.FormatSize(d.Raw))
		}
	})
}

func (c *cluster) listSegments(ctx context.Context, parts []*partition) error {
	doc := &tierDoc{V: 1, Segments: []segmentDoc{}}
	for _, p := range parts {
		for s, err := range p.manifest.All(ctx, c.store) {
			if err != nil {
				return explain(err, "manifest of "+p.String())
			}
			doc.Segments = append(doc.Segments, segmentDoc{p.topic.Name, p.number, int64(s.Base), int64(s.End), int32(s.Epoch), s.Records, s.Size, s.DataSize,
				grammar.FormatTime(s.MinTimestamp), grammar.FormatTime(s.MaxTimestamp), s.Object})
		}
	}
	return c.shell.Printer().Print(doc, func(t *report.Table) {
		t.Row("PARTITION", "BASE", "END", "EPOCH", "RECORDS", "STORED", "RAW", "OLDEST", "NEWEST", "OBJECT")
		for _, d := range doc.Segments {
			t.Row(d.Partition, d.Base, d.End, d.Epoch, d.Records, grammar.FormatSize(d.Stored), grammar.FormatSize(d.Raw), d.First, d.Last, d.Object)
		}
	})
}

// usageDoc is what a listing of the bucket adds up to.
type usageDoc struct {
	V       int         `json:"v"`
	Objects int64       `json:"objects"`
	Bytes   int64       `json:"bytes"`
	Kinds   []usageLine `json:"kinds"`
	Topics  []usageLine `json:"topics"`
}

type usageLine struct {
	Name    string `json:"name"`
	Objects int64  `json:"objects"`
	Bytes   int64  `json:"bytes"`
}

func tierUsage(b bucket) *cobra.Command {
	return &cobra.Command{
		Use: "du BUCKET-URL [TOPIC]", Short: "Add up the objects in a bucket by kind and by topic", Args: report.Args(1, 2, "BUCKET-URL and perhaps TOPIC"),
		Long: "Add up the objects in a bucket by kind and by topic. It lists the bucket, so that objects nothing refers to are counted too.",
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := b.openCluster(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer c.store.Close()
			topics, err := c.topics(args[1:])
			if err != nil {
				return err
			}
			doc, err := c.addUp(cmd.Context(), topics, len(args) == 2)
			if err != nil {
				return err
			}
			return b.shell.Printer().Print(doc, func(t *report.Table) {
				t.Row("KIND", "OBJECTS", "SIZE")
				for _, l := range doc.Kinds {
					t.Row(l.Name, l.Objects, grammar.FormatSize(l.Bytes))
				}
				t.Row("total", doc.Objects, grammar.FormatSize(doc.Bytes))
				t.Line("")
				t.Row("TOPIC", "OBJECTS", "SIZE")
				for _, l := range doc.Topics {
					t.Row(l.Name, l.Objects, grammar.FormatSize(l.Bytes))
				}
			})
		},
	}
}

// addUp lists the bucket, or only the prefixes of the topics.
func (c *cluster) addUp(ctx context.Context, topics []Topic, only bool) (*usageDoc, error) {
	names := map[string]string{}
	prefixes := []string{""}
	if only {
		prefixes = nil
	}
	for _, t := range topics {
		names[t.ID.Hex()] = t.Name
		for n := range t.Partitions {
			if only {
				prefixes = append(prefixes, segment.Prefix(segment.Identity{Cluster: c.catalog.Cluster, Topic: t.ID, Partition: n}))
			}
		}
	}
	kinds, byTopic := map[string]*usageLine{}, map[string]*usageLine{}
	doc := &usageDoc{V: 1}
	for _, prefix := range prefixes {
		err := c.each(ctx, prefix, func(a object.Attributes) {
			kind, id := kindOf(a.Name)
			add(kinds, kind, a.Size)
			if id != "" {
				name, ok := names[id]
				if !ok {
					name = "(unknown topic " + id + ")"
				}
				add(byTopic, name, a.Size)
			}
			doc.Objects++
			doc.Bytes += a.Size
		})
		if err != nil {
			return nil, err
		}
	}
	doc.Kinds, doc.Topics = lines(kinds), lines(byTopic)
	return doc, nil
}

func add(lines map[string]*usageLine, name string, size int64) {
	l := lines[name]
	if l == nil {
		l = &usageLine{Name: name}
		lines[name] = l
	}
	l.Objects++
	l.Bytes += size
}

func lines(m map[string]*usageLine) []usageLine {
	list := []usageLine{}
	for _, l := range m {
		list = append(list, *l)
	}
	slices.SortFunc(list, func(a, b usageLine) int { return strings.Compare(a.Name, b.Name) })
	return list
}

// kindOf tells from an object's name what it is, and whose topic's, as 32 hexadecimal digits.
func kindOf(name string) (kind, topic string) {
	parts := strings.Split(name, "/")
	if parts[0] != "data" || len(parts) < 5 {
		switch parts[0] {
		case "meta", "lease", "cluster.json":
			return "metadata", ""
		}
		return "other", ""
	}
	switch {
	case parts[4] == "seg":
		return "segments", parts[2]
	case parts[4] == "page", parts[4] == "manifest":
		return "manifests", parts[2]
	}
	return "other", parts[2]
}

// each lists all objects below a prefix.
func (c *cluster) each(ctx context.Context, prefix string, fn func(object.Attributes)) error {
	after := ""
	for {
		list, err := c.store.List(ctx, prefix, after, object.MaxList)
		if err != nil {
			return explain(err, "list "+c.store.String())
		}
		for _, a := range list {
			after = a.Name
			fn(a)
		}
		if len(list) < object.MaxList {
			return nil
		}
	}
}

// referred are the names of all objects that a manifest needs.
func (c *cluster) referred(ctx context.Context, p *partition) (map[string]bool, error) {
	names := map[string]bool{manifest.RootName(p.id): true}
	for _, page := range p.manifest.Pages() {
		names[manifest.PageName(p.id, page)] = true
	}
	for s, err := range p.manifest.All(ctx, c.store) {
		if err != nil {
			return nil, explain(err, "manifest of "+p.String())
		}
		names[s.Object] = true
	}
	return names, nil
}
