package matrix

import (
	"fmt"
	"slices"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/e2e/drivers"
	"github.com/everlog/everlog/e2e/harness"
)

// A writer is a transactional producer of one topic, and what it has committed.
type writer struct {
	*drivers.Driver
	t         *testing.T
	w         *world
	topic     string
	committed []string
	written   int64 // records and markers are at least that many
}

func (x *writer) start(c drivers.Client, options ...string) {
	x.t.Helper()
	x.Driver = c.Start(x.t, "transactor", append([]string{"broker=" + x.w.Addr(), "topic=" + x.topic, "id=" + x.topic}, options...)...)
	if err := x.Answer(limit, "InitProducerId", 0); err != nil {
		x.t.Fatal(err)
	}
}

// must gives commands that must be carried out.
func (x *writer) must(commands ...string) {
	x.t.Helper()
	for _, command := range commands {
		if err := x.Tell(limit, command); err != nil {
			x.t.Fatal(err)
		}
	}
}

// open begins a transaction and writes into it. It returns when the records are in the log.
func (x *writer) open(name string) []string {
	x.t.Helper()
	const records = 4
	x.must("begin")
	var values []string
	for i := range records {
		values = append(values, fmt.Sprintf("%s-%d", name, i))
		x.must(fmt.Sprintf("send %d %s", i%2, values[i]))
	}
	x.written += records
	x.w.awaitEnd(x.t, x.topic, x.written)
	return values
}

func (x *writer) commit(values []string) {
	x.t.Helper()
	x.must("commit")
	x.committed = append(x.committed, values...)
	x.awaitEnded()
	x.check()
}

// awaitEnded returns when no transaction is open: markers are written after the producer has its answer.
func (x *writer) awaitEnded() {
	x.t.Helper()
	harness.Until(x.t, limit, "the transaction has ended", func() error {
		all, err := x.w.admin.ListEndOffsets(x.t.Context(), x.topic)
		if err != nil {
			return err
		}
		stable, err := x.w.admin.ListCommittedOffsets(x.t.Context(), x.topic)
		if err != nil {
			return err
		}
		x.written = 0
		for p, end := range all[x.topic] {
			if at := stable[x.topic][p].Offset; at != end.Offset {
				return fmt.Errorf("the last stable offset of partition %d is %d, its end %d", p, at, end.Offset)
			}
			x.written += end.Offset
		}
		return nil
	})
}

// check holds what can be read as committed against what was committed.
func (x *writer) check() {
	x.t.Helper()
	var got []string
	for _, log := range x.w.read(x.t, x.topic, kgo.ReadCommitted()) {
		got = append(got, log.order...)
	}
	want := slices.Sorted(slices.Values(x.committed))
	if slices.Sort(got); !slices.Equal(got, want) {
		x.t.Errorf("committed records are %v, want %v", got, want)
	}
}

// transactions commits and aborts, with offsets, over a kill of the producer, with a second producer of the same id, and past the timeout.
func transactions(t *testing.T, w *world, c drivers.Client) {
	x := &writer{t: t, w: w, topic: "txn-" + c.Name}
	w.createTopic(t, x.topic, 2)
	x.start(c)
	values := x.open("first")
	x.check() // nothing yet
	x.commit(values)
	x.open("aborted")
	x.must("abort")
	x.awaitEnded()
	x.check()
	if c.TxnOffsets {
		x.withOffsets()
	}

	x.open("killed")
	x.Kill()
	x.start(c)
	values = x.open("after") // for kcat, the producer id is asked for here
	x.commit(values)

	x.open("fenced")
	old := x.Driver
	x.start(c)
	values = x.open("second")
	x.commit(values)
	if err := old.Tell(limit, "commit"); err == nil {
		t.Error("a producer commits though another one of the same transactional id has begun")
	}
	old.Kill()
	x.Leave()

	x.start(c, "timeout=3000")
	x.open("late")
	x.awaitEnded()
	if err := x.Tell(limit, "commit"); err == nil {
		t.Error("a producer commits though its transaction has timed out")
	}
	x.Kill()
	x.check()
	x.start(c)
	values = x.open("last")
	x.commit(values)
	x.Leave()
	w.consumesCommitted(t, c, x.topic, x.committed)
}

// withOffsets commits offsets of a group in transactions.
func (x *writer) withOffsets() {
	x.t.Helper()
	group := x.topic + "-offsets"
	at := func() int64 {
		x.t.Helper()
		offsets, err := x.w.admin.FetchOffsets(x.t.Context(), group)
		if err != nil {
			x.t.Fatal(err)
		}
		if o, ok := offsets[x.topic][0]; ok && o.Err == nil {
			return o.At
		}
		return -1
	}
	values := x.open("offsets")
	x.must("offsets " + group + " 0 7")
	if got := at(); got != -1 {
		x.t.Errorf("offset %d is there before its transaction ends", got)
	}
	x.commit(values)
	harness.Until(x.t, limit, "the offset is there", func() error {
		if got := at(); got != 7 {
			return fmt.Errorf("it is %d", got)
		}
		return nil
	})
	x.open("no-offsets")
	x.must("offsets "+group+" 0 9", "abort")
	x.awaitEnded()
	if got := at(); got != 7 {
		x.t.Errorf("after a transaction that was aborted the offset is %d, want 7", got)
	}
}

// consumesCommitted has a member of a fresh group read committed records alone: what was committed, each once.
func (w *world) consumesCommitted(t *testing.T, c drivers.Client, topic string, committed []string) {
	t.Helper()
	d := c.Start(t, "member", "broker="+w.Addr(), "topic="+topic, "group="+topic+"-committed-"+c.Name, "isolation=committed")
	d.AwaitCount(limit, "record", len(committed))
	d.Leave()
	var got []string
	for _, e := range d.Events() {
		if e.Kind == "record" {
			got = append(got, e.Args[2])
		}
	}
	want := slices.Sorted(slices.Values(committed))
	if slices.Sort(got); !slices.Equal(got, want) {
		t.Errorf("%s is given %v, want %v", c.Name, got, want)
	}
}

// readCommitted reads what franz-go wrote in transactions of which every other was aborted, and some lie within others.
func readCommitted(t *testing.T, w *world, c drivers.Client) {
	topic := "committed-" + c.Name
	w.createTopic(t, topic, 2)
	long := &writer{t: t, w: w, topic: topic}
	long.Driver = drivers.Franz.Start(t, "transactor", "broker="+w.Addr(), "topic="+topic, "id="+topic+"-long")
	if err := long.Answer(limit, "InitProducerId", 0); err != nil {
		t.Fatal(err)
	}
	x := &writer{t: t, w: w, topic: topic}
	x.start(drivers.Franz)
	var committed []string
	for round := range 6 {
		if round%3 == 0 && c.Committed == drivers.Always { // around the next three
			long.must("begin", fmt.Sprintf("send 0 long-%d", round), fmt.Sprintf("send 1 long-%d'", round))
		}
		values := x.open(fmt.Sprintf("round-%d", round))
		if round%2 == 0 {
			x.must("abort")
		} else {
			x.must("commit")
			committed = append(committed, values...)
		}
		if round == 2 && c.Committed == drivers.Always {
			long.must("abort")
		}
	}
	if c.Committed == drivers.Always {
		long.must("commit")
		committed = append(committed, "long-3", "long-3'")
	}
	x.awaitEnded()
	long.Leave()
	x.committed = committed
	x.check()
	x.commit(x.open("end"))
	x.Leave()
	w.consumesCommitted(t, c, topic, x.committed)
}
