package client

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kadm"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

// described is a group with a member on one of its two partitions, and one that nobody committed.
func described() groupDoc {
	assigned := kadm.TopicsSet{}
	assigned.Add("orders", 0, 2)
	g := groupInfo{name: "billing", state: "Stable", kind: "consumer", protocol: "consumer", coordinator: 1, members: []member{{"m-1", "/10.0.0.7", "app", assigned}}}
	d := g.doc(map[at]int64{{"orders", 0}: 90, {"orders", 1}: 40, {"clicks", 0}: 7})
	for i, p := range d.Partitions {
		d.Partitions[i].End, d.Partitions[i].Lag, d.Partitions[i].LagSeconds = 100, 100-p.Current, 61.5
		if p.Current < 0 {
			d.Partitions[i].Lag, d.Partitions[i].LagSeconds = -1, -1
		}
	}
	d.Partitions[0].Lag, d.Partitions[0].LagSeconds, d.Partitions[0].End = -1, -1, -1 // the topic is gone
	d.sum()
	return d
}

func TestPrintGroup(t *testing.T) {
	want := `group billing  consumer  Stable  1 member  lag 70, 1m2s
TOPIC   PARTITION  CURRENT-OFFSET  LOG-END-OFFSET  LAG  LAG-TIME  CONSUMER-ID  HOST       CLIENT-ID
clicks  0          7               -               -    -         -            -          -
orders  0          90              100             10   1m2s      m-1          /10.0.0.7  app
orders  1          40              100             60   1m2s      -            -          -
orders  2          -               100             -    -         m-1          /10.0.0.7  app
`
	var b bytes.Buffer
	d := described()
	if err := (report.Printer{Out: &b}).Print(&groupsDoc{V: 1, Groups: []groupDoc{d}}, func(t *report.Table) { printGroup(t, d) }); err != nil || b.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, b.String(), want)
	}
}

func TestLagByTopic(t *testing.T) {
	items := described().byTopic()
	want := []lagItem{{"billing", "Stable", "clicks", 1, 0, 0}, {"billing", "Stable", "orders", 3, 70, 61.5}}
	if len(items) != 2 || items[0] != want[0] || items[1] != want[1] {
		t.Errorf("%+v, want %+v", items, want)
	}
}

// The lag of a group is as old as its oldest record; while the age of no partition with a lag is known, it is not known.
func TestLagTimeOfSeveralPartitions(t *testing.T) {
	for _, c := range []struct {
		parts   []groupPartDoc
		lag     int64
		seconds float64
	}{
		{nil, 0, 0},
		{[]groupPartDoc{{Lag: 0, LagSeconds: 0}}, 0, 0},
		{[]groupPartDoc{{Lag: 3, LagSeconds: 5}, {Lag: 1, LagSeconds: 9}, {Lag: -1, LagSeconds: -1}}, 4, 9},
		{[]groupPartDoc{{Lag: 3, LagSeconds: -1}, {Lag: 0, LagSeconds: 0}}, 3, -1},
		{[]groupPartDoc{{Lag: 3, LagSeconds: -1}, {Lag: 2, LagSeconds: 4}}, 5, 4},
	} {
		d := groupDoc{Partitions: c.parts}
		d.sum()
		if *d.Lag != c.lag || *d.LagSeconds != c.seconds {
			t.Errorf("%+v: lag %d, %v s; want %d, %v", c.parts, *d.Lag, *d.LagSeconds, c.lag, c.seconds)
		}
	}
}

func TestAges(t *testing.T) {
	for seconds, want := range map[float64]string{-1: "-", 0: "0s", 0.0124: "12ms", 4.6: "5s", 61.5: "1m2s", 3600*26 + 100: "1d2h2m"} {
		if got := ageText(seconds); got != want {
			t.Errorf("%v s: %s, want %s", seconds, got, want)
		}
	}
	if got := secondsSince(2000, time.UnixMilli(1000)); got != 0 {
		t.Errorf("a record of the future is %v s old", got)
	}
}

func TestReadOffsets(t *testing.T) {
	want := map[at]int64{{"orders", 0}: 5, {"orders", 11}: 7}
	for name, text := range map[string]string{
		"lines": "# saved\norders 0 5\n\n  orders\t11   7\n",
		"json":  `{"v":1,"groups":[{"group":"g","partitions":[{"topic":"orders","partition":0,"current_offset":5},{"topic":"orders","partition":11,"current_offset":7},{"topic":"x","partition":0,"current_offset":-1}]}]}`,
	} {
		got, err := readOffsets(strings.NewReader(text), "-")
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := readOffsets(nil, file); err != nil || !maps.Equal(got, want) {
			t.Errorf("%s from a file: %v, %v", name, got, err)
		}
	}
	for text, want := range map[string]string{
		"orders 0":          "line 1: 2 words",
		"a 0 1\norders x 5": `line 2: "x" is no partition number`,
		"orders 0 -5":       `"-5" is no offset`,
		"{":                 "is not what group describe --json prints",
		`{"groups":[]}`:     "holds 0 groups",
	} {
		if _, err := readOffsets(strings.NewReader(text), "-"); report.CodeOf(err) != report.Usage || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func TestPrintTxn(t *testing.T) {
	now := time.Date(2026, 11, 25, 15, 0, 0, 0, time.UTC)
	topics := kadm.TopicsSet{}
	topics.Add("orders", 1, 0)
	open := describedTxn(kadm.DescribedTransaction{TxnID: "t-1", State: "Ongoing", ProducerID: 7, ProducerEpoch: 3, TimeoutMillis: 60000, StartTimestamp: now.Add(-90 * time.Second).UnixMilli(), Topics: topics}, now)
	idle := describedTxn(kadm.DescribedTransaction{TxnID: "t-2", State: "Empty", ProducerID: 8, TimeoutMillis: 1000, StartTimestamp: -1}, now)
	want := `transactional id "t-1"  Ongoing  producer 7 epoch 3  timeout 1m
open for 1m30s, since 2026-11-25T14:58:30.000Z, with 2 partitions
TOPIC   PARTITION
orders  0
orders  1
transactional id "t-2"  Empty  producer 8 epoch 0  timeout 1s
`
	var b bytes.Buffer
	err := (report.Printer{Out: &b}).Print(&txnsDoc{}, func(t *report.Table) { printTxn(t, open); printTxn(t, idle) })
	if err != nil || b.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, b.String(), want)
	}
}

func TestAbortChoosesTransactions(t *testing.T) {
	txn := openTxn{StartOffset: 12, ProducerID: 7}
	for _, c := range []struct {
		f    abortFlags
		want bool
	}{
		{abortFlags{start: -1, producer: -1}, true}, {abortFlags{start: 12, producer: -1}, true}, {abortFlags{start: -1, producer: 7}, true},
		{abortFlags{start: 12, producer: 7}, true}, {abortFlags{start: 13, producer: 7}, false}, {abortFlags{start: 12, producer: 8}, false}, {abortFlags{start: 0, producer: -1}, false},
	} {
		if got := c.f.chosen(txn); got != c.want {
			t.Errorf("%+v: %v", c.f, got)
		}
	}
}
