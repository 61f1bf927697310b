package client

import (
	"bytes"
	"errors"
	"testing"

	"github.com/everlog/everlog/cmd/everlog/internal/report"
)

func n64(n int64) *int64    { return &n }
func text(s string) *string { return &s }

// TestPrintTopic holds what topic describe prints.
func TestPrintTopic(t *testing.T) {
	d := topicDoc{Name: "orders", ID: "AgAAAAAAAAAAAAAAAAAAAA", Partitions: 2, Replicas: 3,
		Configs: []configDoc{{"retention.bytes", text("536870912000"), "dynamic_topic_config"}, {"retention.ms", text("-1"), "dynamic_topic_config"}, {"segment.ms", text("2592000000"), "dynamic_topic_config"}, {"x.password", nil, "static_broker_config"}},
		Detail: []partitionDoc{
			{Partition: 0, Leader: 1, LeaderEpoch: 4, Replicas: []int32{1, 2, 3}, ISR: []int32{1, 3}, Start: 0, End: 900, LocalStart: n64(700), Remote: n64(799), LocalBytes: n64(3 << 20)},
			{Partition: 1, Leader: -1, LeaderEpoch: 2, Replicas: []int32{2, 3, 1}, ISR: []int32{2}, Start: -1, End: -1},
		}}
	want := `topic orders  id AgAAAAAAAAAAAAAAAAAAAA  2 partitions  3 replicas each
PARTITION  LEADER  EPOCH  REPLICAS  ISR  START  END  LOCAL-START  REMOTE-END  LOCAL-SIZE
0          1       4      1,2,3     1,3  0      900  700          800         3.0 MiB
1          -1      2      2,3,1     2    -1     -1   -            -           -

SETTING          VALUE                   SOURCE
retention.bytes  536870912000 (500 GiB)  dynamic_topic_config
retention.ms     -1 (forever)            dynamic_topic_config
segment.ms       2592000000 (30d)        dynamic_topic_config
x.password       (hidden)                static_broker_config
`
	var b bytes.Buffer
	if err := (report.Printer{Out: &b}).Print(&d, func(t *report.Table) { printTopic(t, d, true) }); err != nil || b.String() != want {
		t.Errorf("%v\n%s\nwant\n%s", err, b.String(), want)
	}
}

// TestOutcomes: the exit code tells one failure from some and from all.
func TestOutcomes(t *testing.T) {
	missing := &report.Error{Code: report.NotFound, What: `topic "b" does not exist`, Kafka: "UNKNOWN_TOPIC_OR_PARTITION"}
	tests := []struct {
		name string
		errs []error
		want report.Code
		out  string
	}{
		{"done", []error{nil, nil}, report.Done, "TOPIC  STATUS\na      deleted\nb      deleted\n"},
		{"one of two", []error{nil, missing}, report.Partial, "TOPIC  STATUS\na      deleted\nb      failed: topic \"b\" does not exist [UNKNOWN_TOPIC_OR_PARTITION]\n"},
		{"all", []error{missing, missing}, report.NotFound, ""},
		{"the only one", []error{missing}, report.NotFound, ""},
		{"odd", []error{errors.New("odd")}, report.Failed, ""},
	}
	for _, test := range tests {
		var b bytes.Buffer
		var o outcomes
		for i, err := range test.errs {
			o.add(string(rune('a'+i)), "deleted", err)
		}
		err := o.print(&report.Shell{Out: &b})
		if report.CodeOf(err) != test.want || test.out != "" && b.String() != test.out {
			t.Errorf("%s: exit code %d (%v)\n%s", test.name, report.CodeOf(err), err, b.String())
		}
	}
}

func TestSettings(t *testing.T) {
	s := settings{retention: "30d", local: "auto", configs: []string{"a=b=c", "segment.bytes-"}}
	got, err := s.values(true)
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"retention.ms": "2592000000", "retention.bytes": "-1", "local.retention.ms": "-2", "local.retention.bytes": "-2", "a": "b=c"} {
		if got[name] == nil || *got[name] != want {
			t.Errorf("%s: %v, want %s", name, got[name], want)
		}
	}
	if v, ok := got["segment.bytes"]; !ok || v != nil {
		t.Errorf("segment.bytes is not taken away: %v", v)
	}
	if _, err := s.values(false); report.CodeOf(err) != report.Usage {
		t.Errorf("create takes %q: %v", s.configs[1], err)
	}
}
