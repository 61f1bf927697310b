package txn

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

// episode is how many steps a world lives.
const episode = 2000

// TestRandom runs producers of both versions, several to a transactional id, against a machine whose answers get lost,
// whose log loses its end in crashes, and which hears of written markers late and twice; EVERLOG_TXN_STEPS says how many
// steps in all, EVERLOG_TXN_SEED where to begin.
//
// Held: who was told commit has all its records committed and who was told abort none; a transaction is never half
// committed; no two producers are told to be the same; a transactional id that is said to be complete has its markers;
// nothing stays open; epochs of a producer id never go back, and no id is used twice; a machine that replays the log
// is the machine that wrote it.
func TestRandom(t *testing.T) {
	steps, seed := number(t, "EVERLOG_TXN_STEPS", 400_000), uint64(number(t, "EVERLOG_TXN_SEED", 1))
	total := map[string]int{}
	for done := 0; done < steps; done += episode {
		w, failed := run(seed, nil)
		if failed != "" {
			var lines []string
			run(seed, func(format string, args ...any) { lines = append(lines, fmt.Sprintf(format, args...)) })
			t.Fatalf("EVERLOG_TXN_SEED=%d: %s\n%s", seed, failed, strings.Join(lines[max(0, len(lines)-40):], "\n"))
		}
		for what, n := range w.counts {
			total[what] += n
		}
		seed++
	}
	for _, what := range []string{"answered commit", "answered abort", "fenced", "expired", "rotated", "timed out", "crashes", "replayed",
		"CompleteCommit", "CompleteAbort"} {
		if total[what] < steps/20_000 {
			t.Errorf("%q happened %d times: the test does not reach what it should", what, total[what])
		}
	}
	t.Log(steps, "steps:", total)
}

func number(t *testing.T, env string, otherwise int) int {
	s := os.Getenv(env)
	if s == "" {
		return otherwise
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func run(seed uint64, trace func(string, ...any)) (w *world, failed string) {
	defer func() {
		if f, ok := recover().(failure); ok {
			failed = string(f)
		}
	}()
	if trace == nil {
		trace = func(string, ...any) {}
	}
	w = &world{
		rng: rand.New(rand.NewPCG(seed, 0)), trace: trace, now: begin, fresh: 1000, o: Options{Epoch: 4, Expiration: 3 * time.Minute},
		partitions: map[TopicPartition]*partition{}, holders: map[identity]*actor{},
		seen: map[string]logged{}, owner: map[record.ProducerID]string{}, epochs: map[record.ProducerID]int16{}, began: map[record.ProducerID]int16{}, counts: map[string]int{},
	}
	for i := range 3 {
		name := fmt.Sprintf("id-%d", i)
		if seed%2 == 0 { // near the end of the epochs
			w.exhaust(name, record.ProducerID(100+i))
		}
		for j := range 2 {
			w.actors = append(w.actors, &actor{w: w, id: name, v2: (i+j+int(seed))%3 > 0, is: nobody})
		}
	}
	w.committed = len(w.log)
	w.load()
	for range episode {
		w.step()
	}
	w.settle()
	return w, ""
}

func (w *world) exhaust(id string, pid record.ProducerID) {
	v := kmsg.NewTxnMetadataValue()
	v.Version, v.ProducerID, v.PreviousProducerID, v.ProducerEpoch = 1, int64(pid), int64(pid), int16(lastEpoch-w.rng.IntN(30))
	v.TimeoutMillis, v.StartTimestamp, v.LastUpdateTimestamp = 20_000, -1, w.now.UnixMilli()
	w.log = append(w.log, coordinator.Record{Key: encodeKey(id), Value: v.AppendTo(nil)})
	w.began[pid] = v.ProducerEpoch
	w.examine(w.log[len(w.log)-1], false)
}

// step lets something happen.
func (w *world) step() {
	switch n := w.rng.IntN(100); {
	case n < 50:
		w.actors[w.rng.IntN(len(w.actors))].step()
	case n < 72:
		if len(w.log) > w.committed {
			w.commit(w.committed + 1 + w.rng.IntN(len(w.log)-w.committed))
		} else {
			w.commit(w.committed)
		}
	case n < 84 && len(w.markers) > 0:
		w.marker(w.rng.IntN(len(w.markers)))
	case n < 89 && len(w.written) > 0:
		w.report(w.rng.IntN(len(w.written)))
	case n < 92 && len(w.appends) > 0:
		i := w.rng.IntN(len(w.appends))
		put := w.appends[i]
		w.appends = slices.Delete(w.appends, i, i+1)
		put()
	case n < 94 && len(w.late) > 0:
		i := w.rng.IntN(len(w.late))
		w.start(w.late[i])
		if w.rng.IntN(2) == 0 {
			w.late = slices.Delete(w.late, i, i+1)
		}
	case n < 97:
		w.pass(time.Duration(w.rng.IntN(500)) * time.Millisecond)
	case n < 98 && w.rng.IntN(10) == 0:
		w.pass(time.Duration(w.rng.IntN(200)) * time.Second)
	case n < 99 && w.rng.IntN(5) == 0:
		w.counts["crashes"]++
		w.crash()
	default:
		w.replayed()
	}
}

// pass lets time go by.
func (w *world) pass(d time.Duration) {
	w.now = w.now.Add(d)
	at := w.m.Deadline()
	if at.IsZero() || at.After(w.now) {
		return
	}
	before := w.counts[prepareAbort.String()]
	w.apply(w.m.Tick(w.now))
	w.counts["timed out"] += w.counts[prepareAbort.String()] - before
	if at := w.m.Deadline(); !at.IsZero() && !at.After(w.now) {
		w.failf("deadline %v is left by Tick at %v", at, w.now)
	}
}

// replayed holds the machine against one that replays its log.
func (w *world) replayed() {
	w.counts["replayed"]++
	m := New(w.o)
	for i, r := range w.log {
		if err := m.Replay(record.Offset(i), coordinator.Entry{Key: r.Key, Value: r.Value}); err != nil {
			w.failf("replay: %v", err)
		}
	}
	e := m.Loaded(w.now)
	if len(e.Append) > 0 {
		w.failf("a loaded machine appends %d batches", len(e.Append))
	}
	if a, b := w.m.Deadline(), m.Deadline(); !a.Equal(b) {
		w.failf("deadline %v is %v after replay", a, b)
	}
	if a, b := snapshot(w.m), snapshot(m); !reflect.DeepEqual(a, b) {
		w.failf("replay differs:\n%+v\n%+v", a, b)
	}
	want := 0
	for _, t := range w.m.txns {
		if t.preparing() {
			want++
		}
	}
	if len(e.Requests) != want {
		w.failf("%d transactions are prepared, %d asked for after replay", want, len(e.Requests))
	}
}

// snapshot is a machine's state without what is not in the log.
func snapshot(m *Machine) []transaction {
	var all []transaction
	for _, t := range m.txns {
		s := *t
		s.lastEpoch, s.place = 0, 0
		if len(s.partitions) == 0 {
			s.partitions = nil
		}
		all = append(all, s)
	}
	slices.SortFunc(all, func(a, b transaction) int { return cmp.Compare(a.id, b.id) })
	return all
}

// settle lets everything that is under way end, and looks at what became of all transactions.
func (w *world) settle() {
	for range 3 {
		w.quiet()
		w.pass(time.Minute) // transactions left open time out; ids do not expire
	}
	w.quiet()
	for id, v := range w.seen {
		if v.State == ongoing || v.State == prepareCommit || v.State == prepareAbort {
			w.failf("%s stays %v", id, v.State)
		}
	}
	for p, part := range w.partitions {
		for _, pid := range slices.Sorted(maps.Keys(part.open)) {
			w.failf("%v: %d records of producer %d stay open", p, len(part.open[pid]), pid)
		}
	}
	for _, a := range w.attempts {
		w.judge(a)
	}
}

// judge holds what a producer was told of its transaction against what became of its records.
func (w *world) judge(a *attempt) {
	outcomes := map[string]int{}
	for _, wr := range a.writes {
		if wr.acked {
			outcomes[wr.outcome]++
		}
	}
	if len(outcomes) > 1 || outcomes[""] > 0 {
		w.failf("transaction of %v: records are %v", a.is, outcomes)
	}
	if a.answer == "commit" && outcomes["abort"] > 0 || a.answer == "abort" && outcomes["commit"] > 0 {
		w.failf("transaction of %v: answered %s, records are %v", a.is, a.answer, outcomes)
	}
}

// quiet carries out all that is under way, without losses.
func (w *world) quiet() {
	for {
		w.commit(len(w.log))
		switch {
		case len(w.markers) > 0:
			w.marker(0)
		case len(w.written) > 0:
			m := w.written[0]
			w.written = w.written[1:]
			w.start(MarkersWritten{m})
		case len(w.appends) > 0:
			put := w.appends[0]
			w.appends = w.appends[1:]
			put()
		default:
			return
		}
	}
}
