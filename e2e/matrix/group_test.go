package matrix

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"testing"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/everlog/everlog/e2e/drivers"
	"github.com/everlog/everlog/e2e/harness"
)

const partitions = 6

// A group is its members and what watches them.
type group struct {
	t       *testing.T
	w       *world
	client  drivers.Client
	topic   string
	name    string
	options []string
	all     []*drivers.Driver
	commits *commitLog
	clean   bool // members that leave in good order can commit first
}

func (w *world) newGroup(t *testing.T, c drivers.Client, topic string, options ...string) *group {
	g := &group{t: t, w: w, client: c, topic: topic, name: topic + "-group", options: options, clean: c.Clean}
	g.commits = w.watchCommits(t, g.name, topic)
	return g
}

func (g *group) join(options ...string) *drivers.Driver {
	g.t.Helper()
	d := g.client.Start(g.t, "member", slices.Concat([]string{"broker=" + g.w.Addr(), "topic=" + g.topic, "group=" + g.name}, g.options, options)...)
	g.all = append(g.all, d)
	return d
}

// awaitMore returns when a member has been given n records more.
func awaitMore(d *drivers.Driver, n int) { d.AwaitCount(limit, "record", d.Count("record")+n) }

// ledger is what all members have reported so far.
func (g *group) ledger() (*ledger, error) {
	l := &ledger{}
	var errs []error
	for i, d := range g.all {
		errs = append(errs, l.read(member{fmt.Sprintf("member %d", i+1), d.Events(), d.Ended()}, g.client.Assigns))
	}
	return l, first(errs)
}

// check holds what the members were given against the log, after all has been delivered.
func (g *group) check(logs map[int32]*partitionLog) {
	g.t.Helper()
	harness.Until(g.t, limit, "everything is delivered", func() error {
		l, _ := g.ledger()
		return l.checkDelivered(logs)
	})
	l, err := g.ledger()
	o := ownership{exact: g.client.Exact, clean: g.clean}
	if !g.client.GoesBack {
		err = errors.Join(err, g.commits.err())
	}
	if err := errors.Join(err, l.checkStints(o, g.commits)); err != nil {
		g.t.Error(err)
	}
	g.t.Logf("%d records delivered, %d stints", len(l.deliveries), len(l.stints))
}

// awaitState returns when the coordinator says the group is in a state.
func (g *group) awaitState(state string) {
	g.t.Helper()
	harness.Until(g.t, limit, g.name+" is "+state, func() error {
		groups, err := g.w.admin.ListGroups(g.t.Context())
		if err == nil && groups[g.name].State != state {
			err = fmt.Errorf("it is %q", groups[g.name].State)
		}
		return err
	})
}

// rebalanceUnderLoad has members of a group come, go and be killed while a producer runs.
func rebalanceUnderLoad(t *testing.T, w *world, c drivers.Client, protocol string) {
	topic := "group-" + c.Name + "-" + protocol
	w.createTopic(t, topic, partitions)
	load := w.produce(t, c, topic, 300)
	g := w.newGroup(t, c, topic, "protocol="+protocol, "session=6000")

	one := g.join()
	awaitMore(one, 100)
	two := g.join()
	awaitMore(two, 100)
	three := g.join()
	awaitMore(three, 100)
	awaitMore(one, 1)
	if c.DropsLast {
		one.Kill()
	} else {
		one.Leave()
	}
	awaitMore(two, 100)
	awaitMore(three, 100)
	three.Kill() // its session ends after a while
	g.awaitAlone(two)
	four := g.join()
	awaitMore(four, 100)

	logs := load.finish()
	g.check(logs)
	w.awaitCommitted(t, g.name, topic)
	two.Leave()
	four.Leave()
	g.awaitState("Empty")
}

// awaitAlone returns when one member is given records of every partition.
func (g *group) awaitAlone(d *drivers.Driver) {
	from := len(d.Events())
	d.Await(limit, "it alone is given all partitions", func(events []drivers.Event) error {
		given := map[string]bool{}
		for _, e := range events[from:] {
			if e.Kind == "record" {
				given[e.Args[0]] = true
			}
		}
		if len(given) < partitions {
			return fmt.Errorf("it is given %v", given)
		}
		return nil
	})
}

// A load is a producer that runs meanwhile.
type load struct {
	*drivers.Driver
	t      *testing.T
	w      *world
	client drivers.Client
	topic  string
}

const prefix = "r-"

func (w *world) produce(t *testing.T, c drivers.Client, topic string, rate int) *load {
	t.Helper()
	d := c.Start(t, "produce", "broker="+w.Addr(), "topic="+topic, fmt.Sprintf("partitions=%d", partitions), fmt.Sprintf("rate=%d", rate), "prefix="+prefix, "idempotent=true")
	return &load{d, t, w, c, topic}
}

// finish ends the producer and returns the log, which must hold what was sent: once and in order if the client is idempotent.
func (l *load) finish() map[int32]*partitionLog {
	l.t.Helper()
	l.Leave()
	n := l.sent()
	logs := l.w.read(l.t, l.topic, kgo.ReadUncommitted())
	times := make([]int, n)
	var errs []error
	for p, log := range logs {
		last := -1
		for _, value := range log.order {
			i, err := strconv.Atoi(value[len(prefix):])
			if err != nil || i >= n {
				errs = append(errs, fmt.Errorf("partition %d has %q, which was not sent", p, value))
				continue
			}
			times[i]++
			if l.client.Idempotent && i <= last {
				errs = append(errs, fmt.Errorf("partition %d has %d after %d", p, i, last))
			}
			last = i
		}
	}
	for i, got := range times {
		if got == 0 || got > 1 && l.client.Idempotent {
			errs = append(errs, fmt.Errorf("record %d is there %d times", i, got))
		}
	}
	if err := first(errs); err != nil {
		l.t.Errorf("%s, %d records sent: %v", l.topic, n, err)
	}
	return logs
}

// sent is how many records the producer says it has sent.
func (l *load) sent() int {
	l.t.Helper()
	for _, e := range l.Events() {
		if e.Kind == "done" {
			n, err := strconv.Atoi(e.Args[0])
			if err != nil {
				l.t.Fatal(err)
			}
			return n
		}
	}
	l.t.Fatalf("%s did not say how many it sent", l)
	return 0
}
