package bucket

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

// history is a cluster's bucket in memory with one topic, "orders", of two partitions. Partition 0 holds perSegment records in
// each of its segments, one a second from began; partition 1 is empty.
type history struct {
	store *object.Memory
	id    segment.Identity
	log   *manifest.Log
	total int64
}

const perSegment = 500

var began = time.Date(2026, 1, 2, 0, 0, 0, 0, time.UTC).UnixMilli()

func newHistory(t *testing.T, segments int) *history {
	t.Helper()
	h := &history{store: object.NewMemory(), id: segment.Identity{Cluster: [16]byte{1}, Topic: record.TopicID{2}, Partition: 0}}
	var err error
	if h.log, err = manifest.Open(t.Context(), h.store, h.id, manifest.Options{RootSegments: 2, PageSegments: 2}); err != nil {
		t.Fatal(err)
	}
	if err := h.log.Claim(t.Context(), 3); err != nil {
		t.Fatal(err)
	}
	for range segments {
		h.grow(t)
	}
	return h
}

// grow ships one more segment: ten batches of fifty records. Every tenth batch is an aborted transaction's.
func (h *history) grow(t *testing.T) {
	t.Helper()
	base := h.total
	local := &bytes.Buffer{}
	builder := segment.NewBuilder(h.id, record.Offset(base), 3)
	local.Write(builder.Header())
	var dropped []record.AbortedTxn
	for n := range 10 {
		attrs := record.Attrs{Codec: record.Snappy, ProducerID: record.NoProducer}
		first := record.Offset(h.total)
		if n == 9 {
			attrs.Transactional, attrs.Idempotent, attrs.ProducerID = true, true, 77
			dropped = append(dropped, record.AbortedTxn{ProducerID: 77, First: first, Last: first + perSegment/10, LastStable: first})
		}
		b := record.NewBuilder(attrs)
		for range perSegment / 10 {
			b.Append(began+h.total*1000, fmt.Appendf(nil, "key-%d", h.total%7), fmt.Appendf(nil, "value-%d %s", h.total, strings.Repeat("x", 200)), record.Header{Key: "n", Value: []byte("1")})
			h.total++
		}
		batch, err := b.Build()
		if err != nil {
			t.Fatal(err)
		}
		batch.Stamp(first, 3)
		if err := builder.Add(batch); err != nil {
			t.Fatal(err)
		}
		local.Write(batch)
	}
	trailer, f := builder.Finish(dropped, nil)
	local.Write(trailer)
	shipped := &bytes.Buffer{}
	f, size, crc, err := segment.Recode(shipped, bytes.NewReader(local.Bytes()), f, segment.RecodeOptions{})
	if err != nil {
		t.Fatal(err)
	}
	name := segment.ObjectName(h.id, f.Base, f.End, 3, segment.NewUUID())
	if _, err := h.store.Put(t.Context(), name, object.Bytes(shipped.Bytes()), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := h.log.Append(t.Context(), manifest.FromFooter(f, name, size, crc, 3)); err != nil {
		t.Fatal(err)
	}
}

// first is the entry of the oldest segment.
func (h *history) first(t *testing.T) manifest.Segment {
	t.Helper()
	s, ok, err := h.log.Manifest().Find(t.Context(), h.store, 0)
	if err != nil || !ok {
		t.Fatal("no segment", err)
	}
	return s
}

// put replaces an object.
func (h *history) put(t *testing.T, name string, body []byte) {
	t.Helper()
	if _, err := h.store.Put(t.Context(), name, object.Bytes(body), object.PutOptions{}); err != nil {
		t.Fatal(err)
	}
}

// command runs one command line of this package on the history.
func (h *history) command(t *testing.T, line string) (out, errs string, err error) {
	t.Helper()
	var o, e bytes.Buffer
	shell := &report.Shell{In: strings.NewReader(""), Out: &o, Err: &e, Now: time.Now, Getenv: func(string) string { return "" }, Progress: "off"}
	open := func(context.Context, string) (object.Store, error) { return h.store, nil }
	read := func(context.Context, object.Store) (*Catalog, error) {
		return &Catalog{Cluster: h.id.Cluster, Topics: []Topic{{"orders", h.id.Topic, 2}}}, nil
	}
	root := &cobra.Command{Use: "everlog", SilenceErrors: true, SilenceUsage: true}
	root.PersistentFlags().StringVar(&shell.Output, "output", "", "")
	root.PersistentFlags().BoolVar(&shell.JSON, "json", false, "")
	root.PersistentFlags().BoolVar(&shell.Yes, "yes", false, "")
	root.AddCommand(Commands(shell, open, read)...)
	root.SetArgs(strings.Fields(line))
	err = root.ExecuteContext(t.Context())
	return o.String(), e.String(), err
}

// TestCatalog: the metadata of a cluster is read; a prefix without one stays as empty as it was.
func TestCatalog(t *testing.T) {
	store := object.NewMemory()
	if _, err := FromMetadata(t.Context(), store); report.CodeOf(err) != report.NotFound {
		t.Errorf("an empty bucket: %v", err)
	}
	if list, err := store.List(t.Context(), "", "", 0); err != nil || len(list) > 0 {
		t.Errorf("reading left %v, %v", list, err)
	}
	log, err := metadata.Open(t.Context(), store, metadata.Options{})
	if err != nil {
		t.Fatal(err)
	}
	got, err := FromMetadata(t.Context(), store)
	if err != nil || got.Cluster != log.Image().ClusterID || len(got.Topics) != 0 {
		t.Errorf("a new cluster: %+v %v", got, err)
	}
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in\n%s", err, text)
	}
	return v
}

// TestReplay reads ranges and compares the offsets that come with those that should: aborted ones (the last fifty of each five
// hundred) are left out.
func TestReplay(t *testing.T) {
	h := newHistory(t, 7)
	at := func(second int64) string { return time.UnixMilli(began + second*1000).UTC().Format(time.RFC3339) }
	tests := []struct {
		flags    string
		from, to int64
		aborted  bool
	}{
		{"", 0, 3500, false},
		{"--with-aborted", 0, 3500, true},
		{"--from 1234 --to 1301", 1234, 1301, false},
		{"--from -10 --with-aborted", 3490, 3500, true},
		{"--from " + at(700) + " --to " + at(900), 700, 900, false},
		{"--from " + at(5000), 3500, 3500, false},
		{"--partition 0 --position 0=3333", 3333, 3500, false},
		{"--partition 1", 0, 0, false},
		{"--parallel 1 --from 499 --to 501 --with-aborted", 499, 501, true},
	}
	for _, test := range tests {
		t.Run(test.flags, func(t *testing.T) {
			out, errs, err := h.command(t, "replay mem:// orders -f %o:%k:%h\\n "+test.flags)
			if err != nil {
				t.Fatal(err, errs)
			}
			var want strings.Builder
			for o := test.from; o < test.to; o++ {
				if test.aborted || o%perSegment < 450 {
					fmt.Fprintf(&want, "%d:key-%d:n=1\n", o, o%7)
				}
			}
			if out != want.String() {
				t.Errorf("got %d lines, want %d; the first is %.40q, want %.40q", strings.Count(out, "\n"), strings.Count(want.String(), "\n"), out, want.String())
			}
		})
	}
}

func TestReplayOutputs(t *testing.T) {
	h := newHistory(t, 1)
	out, _, err := h.command(t, "replay mem:// orders --from 3 --to 4")
	if err != nil {
		t.Fatal(err)
	}
	line := decode[map[string]any](t, out)
	if line["v"] != 1.0 || line["offset"] != 3.0 || line["partition"] != 0.0 || line["key"] != "key-3" || line["timestamp"] != "2026-01-02T00:00:03.000Z" {
		t.Errorf("jsonl: %v", line)
	}
	if out, _, err = h.command(t, "replay mem:// orders --from 3 --to 5 --output raw"); err != nil || strings.Count(out, "value-") != 2 || strings.Contains(out, "\n") {
		t.Errorf("raw: %v %q", err, out)
	}
	if out, _, err = h.command(t, "replay mem:// orders --output summary"); err != nil || !strings.Contains(out, "0          0     500  450") {
		t.Errorf("summary: %v\n%s", err, out)
	}
	if _, _, err = h.command(t, "replay mem:// orderz"); report.CodeOf(err) != report.NotFound || !strings.Contains(err.(*report.Error).Hint, "orders") {
		t.Errorf("unknown topic: %v", err)
	}
}

// TestReplayPlan: the dry run promises what the replay then does.
func TestReplayPlan(t *testing.T) {
	h := newHistory(t, 5)
	out, _, err := h.command(t, "replay mem:// orders --from 500 --to 1500 --dry-run --json")
	if err != nil {
		t.Fatal(err)
	}
	plan := decode[planDoc](t, out)
	if plan.Objects != 2 || plan.Records != 1000 || plan.Requests != 4 || plan.Bytes <= 0 || plan.RawBytes <= plan.Bytes/2 {
		t.Errorf("plan: %+v", plan)
	}
	if plan.Partitions[0].From != 500 || plan.Partitions[0].To != 1500 {
		t.Errorf("plan of partition 0: %+v", plan.Partitions[0])
	}
}

// TestReplayStopsAtDamage: a changed byte ends the replay with the exit code for damage and a way to go on.
func TestReplayStopsAtDamage(t *testing.T) {
	h := newHistory(t, 2)
	s := h.first(t)
	body, _, err := h.store.Get(t.Context(), s.Object)
	if err != nil {
		t.Fatal(err)
	}
	body[len(body)/3] ^= 1
	h.put(t, s.Object, body)
	out, errs, err := h.command(t, "replay mem:// orders -f %o\\n")
	if report.CodeOf(err) != report.Damaged {
		t.Errorf("exit code %d: %v", report.CodeOf(err), err)
	}
	if !strings.Contains(errs, "go on with: everlog replay mem:// orders --partition 0 --position 0=0 -f '%o\\n'") || out != "" {
		t.Errorf("says %q, wrote %q", errs, out)
	}
}

func TestTierList(t *testing.T) {
	h := newHistory(t, 3)
	doc := func(line string) tierDoc {
		out, _, err := h.command(t, line)
		if err != nil {
			t.Fatal(err)
		}
		return decode[tierDoc](t, out)
	}
	topics := doc("tier ls mem:// --json").Topics
	if len(topics) != 1 || topics[0].Segments != 3 || topics[0].Records != 1500 || topics[0].Partitions != 2 || topics[0].Stored <= 0 {
		t.Errorf("topics: %+v", topics)
	}
	parts := doc("tier ls mem:// orders --json").Parts
	if len(parts) != 2 || *parts[0].End != 1500 || parts[0].Segments != 3 || *parts[1].End != 0 {
		t.Errorf("partitions: %+v", parts)
	}
	segments := doc("tier ls mem:// orders --segments --json").Segments
	if len(segments) != 3 || segments[1].Base != 500 || segments[1].End != 1000 || segments[2].Last != "2026-01-02T00:24:59.000Z" {
		t.Errorf("segments: %+v", segments)
	}
	out, _, err := h.command(t, "tier du mem:// --json")
	if err != nil {
		t.Fatal(err)
	}
	used := decode[usageDoc](t, out)
	if len(used.Kinds) != 2 || used.Kinds[1].Name != "segments" || used.Kinds[1].Objects != 3 || used.Topics[0].Name != "orders" {
		t.Errorf("usage: %+v", used)
	}
}

// TestVerify damages one thing at a time; what a shallow look cannot see, the deep one must.
func TestVerify(t *testing.T) {
	tests := []struct {
		name          string
		damage        func(t *testing.T, h *history)
		shallow, deep bool // found
	}{
		{"nothing", func(*testing.T, *history) {}, false, false},
		{"a byte of a block", func(t *testing.T, h *history) { h.flip(t, func(size int) int { return size / 2 }) }, false, true},
		{"a byte of the header", func(t *testing.T, h *history) { h.flip(t, func(int) int { return 20 }) }, false, true},
		{"a byte of the footer", func(t *testing.T, h *history) { h.flip(t, func(size int) int { return size - 60 }) }, false, true},
		{"cut", func(t *testing.T, h *history) {
			body, _, _ := h.store.Get(t.Context(), h.first(t).Object)
			h.put(t, h.first(t).Object, body[:len(body)-1])
		}, true, true},
		{"gone", func(t *testing.T, h *history) {
			if err := h.store.Delete(t.Context(), h.first(t).Object); err != nil {
				t.Fatal(err)
			}
		}, true, true},
		{"another segment's bytes", func(t *testing.T, h *history) {
			other, _, err := h.log.Manifest().Find(t.Context(), h.store, 700)
			if err != nil {
				t.Fatal(err)
			}
			body, _, _ := h.store.Get(t.Context(), other.Object)
			h.put(t, h.first(t).Object, append(body, make([]byte, 1<<10)...))
		}, false, true},
		{"the manifest", func(t *testing.T, h *history) {
			body, _, _ := h.store.Get(t.Context(), manifest.RootName(h.id))
			body[len(body)/2] ^= 1
			h.put(t, manifest.RootName(h.id), body)
		}, true, true},
	}
	for _, test := range tests {
		for _, deep := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, deep %t", test.name, deep), func(t *testing.T) {
				h := newHistory(t, 5)
				test.damage(t, h)
				line, want := "tier verify mem:// --json", test.shallow
				if deep {
					line, want = line+" --deep", test.deep
				}
				out, _, err := h.command(t, line)
				if found := report.CodeOf(err) == report.Damaged; found != want || !found && err != nil {
					t.Fatalf("damage found: %t, want %t (%v)", found, want, err)
				}
				doc := decode[verifyDoc](t, out)
				if want != (len(doc.Damage) > 0) {
					t.Errorf("damage: %+v", doc.Damage)
				}
				if !want && doc.Segments != 5 {
					t.Errorf("%d segments were checked, want 5", doc.Segments)
				}
			})
		}
	}
}

// flip changes one byte of the first segment's object.
func (h *history) flip(t *testing.T, at func(size int) int) {
	t.Helper()
	name := h.first(t).Object
	body, _, err := h.store.Get(t.Context(), name)
	if err != nil {
		t.Fatal(err)
	}
	body[at(len(body))] ^= 0x40
	h.put(t, name, body)
}

// TestCollect: of the objects that no manifest refers to, only those of a fenced leader go, and only with --execute.
func TestCollect(t *testing.T) {
	h := newHistory(t, 2)
	fenced := segment.ObjectName(h.id, 0, 10, 2, segment.NewUUID())
	flying := segment.ObjectName(h.id, 1000, 1010, 3, segment.NewUUID())
	foreign := segment.Prefix(h.id) + "notes.txt"
	for _, name := range []string{fenced, flying, foreign} {
		h.put(t, name, []byte("x"))
	}
	before := h.names(t)
	for _, step := range []struct {
		flags   string
		orphans int64
		gone    []string
	}{
		{"", 0, nil}, // too young
		{"--execute --yes", 0, nil},
		{"--older-than 0s", 1, nil},
		{"--older-than 0s --execute --yes", 1, []string{fenced}},
		{"--older-than 0s --execute --yes", 0, []string{fenced}},
	} {
		out, _, err := h.command(t, "tier gc mem:// orders --json "+step.flags)
		if err != nil {
			t.Fatal(err)
		}
		doc := decode[collectDoc](t, out)
		if doc.Objects != step.orphans {
			t.Errorf("%q: %d orphans, want %d: %+v", step.flags, doc.Objects, step.orphans, doc.Orphans)
		}
		now := h.names(t)
		for name := range before {
			if gone := len(step.gone) > 0 && name == step.gone[0]; now[name] == gone {
				t.Errorf("%q: %s there: %t", step.flags, name, now[name])
			}
		}
	}
	if _, _, err := h.command(t, "tier verify mem:// --deep"); err != nil {
		t.Error("after the collection:", err)
	}
	if _, _, err := h.command(t, "tier gc mem:// orders --older-than 0s --execute"); err != nil {
		t.Error("nothing to delete needs no question:", err)
	}
}

func (h *history) names(t *testing.T) map[string]bool {
	t.Helper()
	list, err := h.store.List(t.Context(), "", "", 0)
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]bool{}
	for _, a := range list {
		names[a.Name] = true
	}
	return names
}

func TestDebug(t *testing.T) {
	h := newHistory(t, 1)
	out, _, err := h.command(t, "debug dump-manifest mem:// orders 0")
	if err != nil || !strings.Contains(out, "segments [0, 500)") {
		t.Errorf("manifest: %v\n%s", err, out)
	}
	out, _, err = h.command(t, "debug dump-segment mem:///"+h.first(t).Object+" --batches")
	if err != nil || strings.Count(out, "batch       [") != 10 || !strings.Contains(out, "segment     [0, 500)") {
		t.Errorf("segment: %v\n%s", err, out)
	}
	if _, _, err = h.command(t, "debug dump-segment s3://bucket/else"); report.CodeOf(err) != report.Usage {
		t.Errorf("no object: %v", err)
	}
}

func TestSplitObject(t *testing.T) {
	for in, want := range map[string][2]string{
		"s3://b/p/data/0a/x/1/seg/y":            {"s3://b/p", "data/0a/x/1/seg/y"},
		"s3://b/p/data/0a/x/1/seg/y?region=eu":  {"s3://b/p?region=eu", "data/0a/x/1/seg/y"},
		"file:///data/store/data/0a/x/1/seg/yy": {"file:///data/store", "data/0a/x/1/seg/yy"},
	} {
		if url, name, ok := splitObject(in); !ok || url != want[0] || name != want[1] {
			t.Errorf("%q: %q and %q, want %q", in, url, name, want)
		}
	}
	if _, _, ok := splitObject("s3://b/p"); ok {
		t.Error("a bucket was taken for an object")
	}
}
