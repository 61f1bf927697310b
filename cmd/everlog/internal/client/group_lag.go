package client

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/cmd/everlog/internal/grammar"
	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// lagDoc is how far behind groups are, one item for each topic of a group.
type lagDoc struct {
	V    int       `json:"v"`
	Time string    `json:"time"`
	Lags []lagItem `json:"lags"`
}

type lagItem struct {
	Group      string  `json:"group"`
	State      string  `json:"state"`
	Topic      string  `json:"topic"`
	Partitions int     `json:"partitions"`
	Lag        int64   `json:"lag"`
	LagSeconds float64 `json:"lag_seconds"`
}

// Items are the lines of jsonl.
func (d *lagDoc) Items() []any {
	items := make([]any, len(d.Lags))
	for i := range d.Lags {
		items[i] = d.Lags[i]
	}
	return items
}

// watchEvery is how often --watch looks again.
const watchEvery = 2 * time.Second

func groupLag(k kafka) *cobra.Command {
	var watch bool
	cmd := &cobra.Command{
		Use: "lag [GROUP...]", Short: "Show how far groups are behind, in records and in time", Args: report.Args(0, -1, "GROUP..."), ValidArgsFunction: k.completeGroups,
		Long: "Show how far groups (all of them, if none is named) are behind in each topic. LAG is in records, of all partitions;\n" +
			"LAG-TIME is how old the record at the group's offset is, of the partition that is furthest behind.",
		RunE: func(cmd *cobra.Command, names []string) error {
			if !watch {
				return k.with(cmd.Context(), func(s *session) error { return s.printLag(names) })
			}
			return k.watchLag(cmd.Context(), names)
		},
	}
	cmd.Flags().BoolVarP(&watch, "watch", "w", false, "show it again every 2 s, until interrupted")
	return cmd
}

// watchLag prints the lag again and again until ctx ends.
func (k kafka) watchLag(ctx context.Context, names []string) error {
	again := time.NewTicker(watchEvery)
	defer again.Stop()
	for {
		if err := k.with(ctx, func(s *session) error { return s.printLag(names) }); err != nil {
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
		if !k.shell.Printer().Structured() {
			if _, err := k.shell.Out.Write([]byte{'\n'}); err != nil {
				return err
			}
		}
	}
}

func (s *session) printLag(names []string) error {
	if len(names) == 0 {
		groups, err := s.groups()
		if err != nil {
			return err
		}
		for _, g := range groups {
			if g.Kind != "share" && g.Kind != "streams" { // they have no offsets of this kind
				names = append(names, g.Group)
			}
		}
	}
	doc := &lagDoc{V: 1, Time: grammar.FormatTime(s.shell.Now().UnixMilli()), Lags: []lagItem{}}
	if len(names) > 0 {
		standings, err := s.standings(names)
		if err != nil {
			return err
		}
		for _, g := range standings {
			doc.Lags = append(doc.Lags, g.byTopic()...)
		}
	}
	return s.shell.Printer().Print(doc, func(t *report.Table) {
		t.Row("GROUP", "STATE", "TOPIC", "PARTITIONS", "LAG", "LAG-TIME")
		for _, l := range doc.Lags {
			t.Row(l.Group, l.State, l.Topic, l.Partitions, l.Lag, ageText(l.LagSeconds))
		}
	})
}

// byTopic adds up the partitions of each topic, which are in order.
func (d groupDoc) byTopic() []lagItem {
	var items []lagItem
	for from := 0; from < len(d.Partitions); {
		to := from
		for to < len(d.Partitions) && d.Partitions[to].Topic == d.Partitions[from].Topic {
			to++
		}
		one := groupDoc{Partitions: d.Partitions[from:to]}
		one.sum()
		items = append(items, lagItem{d.Group, d.State, d.Partitions[from].Topic, to - from, *one.Lag, *one.LagSeconds})
		from = to
	}
	return items
}

// measure fills in where the logs end, and the lags. Partitions of topics that do not exist any more keep theirs unknown.
func (s *session) measure(docs []groupDoc, topics []string) error {
	starts, err := s.admin.ListStartOffsets(s.ctx, topics...)
	if err != nil {
		return s.flags.Explain(err, "offsets of the topics", "")
	}
	ends, err := s.admin.ListEndOffsets(s.ctx, topics...)
	if err != nil {
		return s.flags.Explain(err, "offsets of the topics", "")
	}
	behind := map[at][]int64{}
	for i := range docs {
		for j := range docs[i].Partitions {
			p := &docs[i].Partitions[j]
			p.start, p.End, p.Lag, p.LagSeconds = offsetOf(starts, p.Topic, p.Partition), offsetOf(ends, p.Topic, p.Partition), -1, -1
			if p.End < 0 || p.Current < 0 {
				continue
			}
			if p.Lag = max(p.End-p.Current, 0); p.Lag == 0 {
				p.LagSeconds = 0
				continue
			}
			behind[at{p.Topic, p.Partition}] = append(behind[at{p.Topic, p.Partition}], max(p.Current, p.start))
		}
	}
	stamps, err := s.timestamps(behind)
	if err != nil {
		return err
	}
	now := s.shell.Now()
	for i := range docs {
		for j := range docs[i].Partitions {
			p := &docs[i].Partitions[j]
			if stamp, ok := stamps[at{p.Topic, p.Partition}][max(p.Current, p.start)]; ok && p.Lag > 0 {
				p.LagSeconds = math.Round(max(now.Sub(stamp).Seconds(), 0)*1000) / 1000
			}
		}
	}
	return nil
}

// timestamps are those of the first records at or after offsets. Groups may stand at several offsets of one partition,
// which are read in rounds, one of each partition at a time. What does not come within the time there is, is left out.
func (s *session) timestamps(wanted map[at][]int64) (map[at]map[int64]time.Time, error) {
	found := map[at]map[int64]time.Time{}
	for len(wanted) > 0 {
		round := map[at]int64{}
		for where, offsets := range wanted {
			slices.Sort(offsets)
			offsets = slices.Compact(offsets)
			round[where] = offsets[0]
			if wanted[where] = offsets[1:]; len(offsets) == 1 {
				delete(wanted, where)
			}
		}
		stamps, err := s.stampsAt(round)
		if err != nil {
			return nil, err
		}
		for where, stamp := range stamps {
			if found[where] == nil {
				found[where] = map[int64]time.Time{}
			}
			found[where][round[where]] = stamp
		}
	}
	return found, nil
}

const (
	// stampBytes is what one partition's fetch is to bring: a record is enough.
	stampBytes = 64 << 10
	// stampPatience is how long no record at all may come before the rest is given up: it may lie in the object store.
	stampPatience = 3 * time.Second
)

// stampsAt reads the first record at or after an offset in each partition.
func (s *session) stampsAt(offsets map[at]int64) (map[at]time.Time, error) {
	start := map[string]map[int32]kgo.Offset{}
	for where, offset := range offsets {
		if start[where.topic] == nil {
			start[where.topic] = map[int32]kgo.Offset{}
		}
		start[where.topic][where.partition] = kgo.NewOffset().At(offset)
	}
	client, err := s.flags.Client(s.ctx, kgo.ConsumePartitions(start), kgo.KeepControlRecords(), kgo.FetchMaxPartitionBytes(stampBytes))
	if err != nil {
		return nil, err
	}
	defer client.Close()
	stamps := map[at]time.Time{}
	for len(stamps) < len(offsets) && s.ctx.Err() == nil {
		waiting, cancel := context.WithTimeout(s.ctx, stampPatience)
		fetches := client.PollFetches(waiting)
		cancel()
		before := len(stamps)
		done := map[string][]int32{}
		fetches.EachRecord(func(r *kgo.Record) {
			where := at{r.Topic, r.Partition}
			if _, ok := stamps[where]; !ok {
				stamps[where] = r.Timestamp
				done[r.Topic] = append(done[r.Topic], r.Partition)
			}
		})
		if len(stamps) == before {
			break // nothing more comes: compaction left nothing between there and the end, say
		}
		client.RemoveConsumePartitions(done)
	}
	return stamps, nil
}

// ageText is a lag in time as tables show it; "-" is unknown.
func ageText(seconds float64) string {
	if seconds < 0 {
		return "-"
	}
	d := time.Duration(seconds * float64(time.Second))
	switch {
	case d < time.Second:
		d = d.Round(time.Millisecond)
	case d < time.Hour:
		d = d.Round(time.Second)
	default:
		d = d.Round(time.Minute)
	}
	return grammar.FormatDuration(d)
}
