package bucket

import (
	"context"

	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
	"github.com/everlog/everlog/tier/fetch"
)

// planPart is what reading one partition takes. Bytes and records of segments that are read in part are in proportion to
// their offsets.
type planPart struct {
	Partition int32 `json:"partition"`
	From      int64 `json:"from_offset"`
	To        int64 `json:"to_offset"`
	Objects   int64 `json:"objects"`
	Requests  int64 `json:"requests"`
	Bytes     int64 `json:"bytes"`
	RawBytes  int64 `json:"raw_bytes"`
	Records   int64 `json:"records"`
}

type planDoc struct {
	V          int        `json:"v"`
	Topic      string     `json:"topic"`
	Objects    int64      `json:"objects"`
	Requests   int64      `json:"requests"`
	Bytes      int64      `json:"bytes"`
	RawBytes   int64      `json:"raw_bytes"`
	Records    int64      `json:"records"`
	Partitions []planPart `json:"partitions"`
}

// plan adds up the segments of a part from the manifest, without reading any.
func (c *cluster) plan(ctx context.Context, w *part) error {
	w.plan = planPart{Partition: w.number, From: int64(w.from), To: int64(w.to)}
	for at := w.from; at < w.to; {
		s, ok, err := w.manifest.Find(ctx, c.store, at)
		if err != nil || !ok || s.Base >= w.to {
			return err
		}
		share := float64(min(s.End, w.to)-max(s.Base, w.from)) / float64(s.End-s.Base)
		stored := int64(float64(s.Size-int64(s.FooterSize)) * share)
		w.plan.Objects++
		w.plan.Requests += 1 + (stored+fetch.ScanGet-1)/fetch.ScanGet
		w.plan.Bytes += stored
		w.plan.RawBytes += int64(float64(s.DataSize) * share)
		w.plan.Records += int64(float64(s.Records)*share + 0.5)
		at = s.End
	}
	return nil
}

func (c *cluster) printPlan(t Topic, parts []*part) error {
	doc := &planDoc{V: 1, Topic: t.Name, Partitions: []planPart{}}
	for _, w := range parts {
		p := w.plan
		doc.Objects, doc.Requests, doc.Bytes = doc.Objects+p.Objects, doc.Requests+p.Requests, doc.Bytes+p.Bytes
		doc.RawBytes, doc.Records = doc.RawBytes+p.RawBytes, doc.Records+p.Records
		doc.Partitions = append(doc.Partitions, p)
	}
	return c.shell.Printer().Print(doc, func(t *report.Table) {
		t.Row("PARTITION", "FROM", "TO", "OBJECTS", "REQUESTS", "STORED", "RAW", "RECORDS")
		for _, p := range doc.Partitions {
			t.Row(p.Partition, p.From, p.To, p.Objects, p.Requests, grammar.FormatSize(p.Bytes), grammar.FormatSize(p.RawBytes), p.Records)
		}
		t.Row("total", "", "", doc.Objects, doc.Requests, grammar.FormatSize(doc.Bytes), grammar.FormatSize(doc.RawBytes), doc.Records)
	})
}

// summaryDoc is what a replay read.
type summaryDoc struct {
	V          int           `json:"v"`
	Topic      string        `json:"topic"`
	Records    int64         `json:"records"`
	Bytes      int64         `json:"bytes"`
	Requests   int64         `json:"store_requests"`
	Read       int64         `json:"store_bytes"`
	Partitions []summaryPart `json:"partitions"`
}

type summaryPart struct {
	Partition int32  `json:"partition"`
	From      int64  `json:"from_offset"`
	To        int64  `json:"to_offset"`
	Records   int64  `json:"records"`
	Bytes     int64  `json:"bytes"`
	First     string `json:"first_timestamp"`
	Last      string `json:"last_timestamp"`
}

// summary tells what was read: on standard output if that was asked for, else in a line on standard error.
func (c *cluster) summary(t Topic, parts []*part, r replayFlags) error {
	doc := &summaryDoc{V: 1, Topic: t.Name, Requests: c.usage.requests.Load(), Read: c.usage.bytes.Load(), Partitions: []summaryPart{}}
	for _, w := range parts {
		doc.Records += w.tally.Records
		doc.Bytes += w.tally.Bytes
		doc.Partitions = append(doc.Partitions, summaryPart{w.number, int64(w.from), int64(w.to), w.tally.Records, w.tally.Bytes, grammar.FormatTime(w.tally.First), grammar.FormatTime(w.tally.Last)})
	}
	if c.shell.Output != "summary" && (r.target == "" || !c.shell.Printer().Structured()) {
		c.shell.Notef("%s (%s) of %s read with %s to the store", report.Count(doc.Records, "record"), grammar.FormatSize(doc.Bytes), t.Name, report.Count(doc.Requests, "request"))
		return nil
	}
	return c.shell.Printer().Print(doc, func(t *report.Table) {
		t.Row("PARTITION", "FROM", "TO", "RECORDS", "SIZE", "OLDEST", "NEWEST")
		for _, p := range doc.Partitions {
			t.Row(p.Partition, p.From, p.To, p.Records, grammar.FormatSize(p.Bytes), p.First, p.Last)
		}
		t.Row("total", "", "", doc.Records, grammar.FormatSize(doc.Bytes), "", "")
	})
}
