package history

import (
	"reflect"
	"slices"
	"testing"
)

// TestCheck holds the checker to hand-made histories: each bad one must be named for what it is, and for nothing else.
func TestCheck(t *testing.T) {
	sound := Partition{Topic: "t", Acked: []int64{0, 1, NoOffset, NoOffset, 3}, Polled: []int64{0, 1}}
	for _, c := range []struct {
		name string
		log  []int64
		edit func(p *Partition)
		want string // the one kind of anomaly, "" for none
	}{
		{name: "sound, one unacknowledged record in the log and one not", log: []int64{0, 1, 3, 4}},
		{name: "empty", log: nil, edit: func(p *Partition) { *p = Partition{} }},
		{name: "the end is gone", log: []int64{0, 1, 2}, want: "lost"},
		{name: "the middle is gone", log: []int64{0, 3, 2, 4}, edit: func(p *Partition) { p.Polled, p.Acked[1] = nil, NoOffset }, want: "out of order"},
		{name: "shifted by a record that came twice", log: []int64{0, 1, 2, 2, 4}, edit: func(p *Partition) { p.Acked[4] = 4 }, want: "doubled"},
		{name: "retried record at a later offset", log: []int64{0, 1, 2, 3, 4}, want: "moved"},
		{name: "somebody else's record", log: []int64{0, 1, 99, 4}, want: "never sent"},
		{name: "more than is known, while the producer goes on", log: []int64{0, 1, 2, 4, 6, 9}, edit: func(p *Partition) { p.Open = true }},
		{name: "twice, beyond what is known", log: []int64{0, 1, 2, 4, 6, 6}, edit: func(p *Partition) { p.Open = true }, want: "doubled"},
		{name: "looked at from the middle on", log: []int64{2, 4}, edit: func(p *Partition) { p.From, p.Polled = 2, []int64{0, 1, 2} }},
		{name: "lost, looked at from the middle on", log: []int64{2}, edit: func(p *Partition) { p.From = 2 }, want: "lost"},
		{name: "changed, looked at from the middle on", log: []int64{2, 4}, edit: func(p *Partition) { p.From, p.Polled = 2, []int64{0, 1, 3} }, want: "read and changed"},
		{name: "read, then replaced", log: []int64{0, 1, 2, 4}, edit: func(p *Partition) { p.Polled = []int64{0, 1, 3} }, want: "read and changed"},
		{name: "read, then truncated", log: []int64{0, 1}, edit: func(p *Partition) { p.Acked[4], p.Polled = NoOffset, []int64{0, 1, 2} }, want: "read and changed"},
		{name: "the producer was refused", log: []int64{0, 1, 2, 4}, edit: func(p *Partition) { p.Failed = []string{"OUT_OF_ORDER_SEQUENCE_NUMBER"} }, want: "refused"},
	} {
		p := sound
		p.Acked, p.Polled = slices.Clone(sound.Acked), slices.Clone(sound.Polled)
		if c.edit != nil {
			c.edit(&p)
		}
		a := Check(p, c.log)
		var got []string
		for _, k := range a.kinds() {
			if len(*k.found) > 0 {
				got = append(got, k.name)
			}
		}
		var want []string
		if c.want != "" {
			want = []string{c.want}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: %v, want %v: %v", c.name, got, want, a.Err())
		}
		if (a.Err() == nil) != (c.want == "") {
			t.Errorf("%s: Err is %v", c.name, a.Err())
		}
	}
}
