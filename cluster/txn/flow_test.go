package txn

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

// TestMarkers: which marker each way to end a transaction writes.
func TestMarkers(t *testing.T) {
	data := []TopicPartition{{"data", 0}}
	for _, c := range []struct {
		name    string
		version int16
		epoch   int16
		end     func(h *harness)
		want    WriteMarkers
	}{
		{"v1 commit", version1, 5, func(h *harness) { h.end(4, identity{7, 5}, true) }, WriteMarkers{ProducerEpoch: 5, Commit: true}},
		{"v1 abort", version1, 5, func(h *harness) { h.end(0, identity{7, 5}, false) }, WriteMarkers{ProducerEpoch: 5}},
		{"v2 commit", version2, 5, func(h *harness) { h.end(5, identity{7, 5}, true) }, WriteMarkers{ProducerEpoch: 6, V2: true, Commit: true}},
		{"v2 abort", version2, 5, func(h *harness) { h.end(5, identity{7, 5}, false) }, WriteMarkers{ProducerEpoch: 6, V2: true}},
		{"begun as v1, ended as v2", version1, 5, func(h *harness) { h.end(5, identity{7, 5}, true) }, WriteMarkers{ProducerEpoch: 6, V2: true, Commit: true}},
		{"begun as v2, ended as v1", version2, 5, func(h *harness) { h.end(4, identity{7, 5}, true) }, WriteMarkers{ProducerEpoch: 5, Commit: true}},
		{"timeout of v1", version1, 5, func(h *harness) { h.tick(time.Minute) }, WriteMarkers{ProducerEpoch: 6, V2: true}},
		{"timeout of v2", version2, 5, func(h *harness) { h.tick(time.Minute) }, WriteMarkers{ProducerEpoch: 6, V2: true}},
		{"fenced", version1, 5, func(h *harness) { h.init(4, nobody) }, WriteMarkers{ProducerEpoch: 6, V2: true}},
		{"last epoch", version2, 32766, func(h *harness) { h.end(5, identity{7, 32766}, true) }, WriteMarkers{ProducerEpoch: 32767, V2: true, Commit: true}},
		{"fenced in the last epoch", version2, 32766, func(h *harness) { h.init(4, nobody) }, WriteMarkers{ProducerEpoch: 32767, V2: true}},
		{"v1 in the last epoch", version1, 32766, func(h *harness) { h.end(3, identity{7, 32766}, true) }, WriteMarkers{ProducerEpoch: 32766, Commit: true}},
	} {
		h := started(t, ongoing, c.version, c.epoch)
		c.end(h)
		c.want.TransactionalID, c.want.ProducerID, c.want.CoordinatorEpoch, c.want.Partitions = id, 7, 3, data
		same := func() {
			t.Helper()
			if d := cmp.Diff([]WriteMarkers{c.want}, h.markers, cmpopts.IgnoreFields(WriteMarkers{}, "PreparedMs", "load")); d != "" {
				t.Errorf("%s: %s", c.name, d)
			}
		}
		same()
		before := len(h.log)
		h.reload() // asks again
		same()
		if len(h.log) != before {
			t.Errorf("%s: the reload wrote records", c.name)
		}
		h.written()
		if got := h.describe().State; got != "CompleteCommit" && c.want.Commit || got != "CompleteAbort" && !c.want.Commit {
			t.Errorf("%s: %s", c.name, got)
		}
	}
}

func TestMarkersOfManyPartitions(t *testing.T) {
	h := newHarness(t, Options{})
	h.init(4, nobody)
	is := identity{1000, 0}
	h.add(3, is, 2)
	h.addOffsets(3, is, 7)
	h.add(3, is, 0)
	h.add(3, is, 2)
	want := []TopicPartition{{"__consumer_offsets", 7}, {"data", 0}, {"data", 2}}
	h.reload() // after which they are the same
	h.end(4, is, true)
	if len(h.markers) != 1 || !slices.Equal(h.markers[0].Partitions, want) {
		t.Errorf("markers %+v", h.markers)
	}
}

// TestMarkersWritten: reports that do not fit complete nothing.
func TestMarkersWritten(t *testing.T) {
	h := started(t, ongoing, version1, 5)
	is := identity{7, 5}
	h.end(4, is, true)
	first := h.markers[0]
	h.written()
	h.do(MarkersWritten{first}) // twice
	if got := h.is(); got != "7/5 CompleteCommit" {
		t.Fatal(got)
	}
	// The next transaction has the same epoch and, by a clock that stands still, the same time.
	h.add(3, is, 0)
	h.end(4, is, false)
	h.do(MarkersWritten{first})
	if got := h.is(); got != "7/5 PrepareAbort" {
		t.Fatalf("%s after a report of the transaction before", got)
	}
	second := h.markers[0]
	h.reload()
	h.do(MarkersWritten{second})
	if got := h.is(); got != "7/5 PrepareAbort" {
		t.Fatalf("%s after a report to the load before", got)
	}
	h.do(MarkersWritten{WriteMarkers{TransactionalID: "unknown"}})
	h.written()
	if got := h.is(); got != "7/5 CompleteAbort" {
		t.Fatal(got)
	}
}

// TestCompleting: what is asked while markers are being written has to be asked again.
func TestCompleting(t *testing.T) {
	h := started(t, ongoing, version2, 5)
	h.end(5, identity{7, 5}, true)
	next := identity{7, 6}
	for request, code := range map[string]int16{
		"init": h.init(5, nobody).ErrorCode, "init as": h.init(5, next).ErrorCode, "add": h.add(3, next, 1), "produce": h.verify(next, 1, true),
		"offsets": h.addOffsets(3, next, 1), "again": h.end(5, identity{7, 5}, true).ErrorCode, "next": h.end(5, next, false).ErrorCode,
		"verify": h.verify(next, 0, false),
	} {
		if name(code) != "CONCURRENT_TRANSACTIONS" {
			t.Errorf("%s: %s", request, name(code))
		}
	}
	h.written()
	if got := name(h.verify(next, 1, true)); got != "ok" {
		t.Errorf("after completion: %s", got)
	}
}

// steps calls a list of "request → outcome", where a request repeats what lost its answer.
func steps(t *testing.T, h *harness, list ...string) {
	t.Helper()
	for i := 0; i < len(list); i += 2 {
		var what, is string
		if n, _ := fmt.Sscan(list[i], &what, &is); n == 1 {
			is = "-"
		}
		var got string
		switch what {
		case "init":
			r := h.init(5, at(t, is))
			got = who(r.ErrorCode, r.ProducerID, r.ProducerEpoch)
		case "commit", "abort":
			r := h.end(5, at(t, is), what == "commit")
			got = who(r.ErrorCode, r.ProducerID, r.ProducerEpoch)
		case "produce":
			got = name(h.verify(at(t, is), 0, true))
		case "commit4", "abort4":
			got = name(h.end(4, at(t, is), what == "commit4").ErrorCode)
		case "written":
			h.written()
			got = h.is()
		case "timeout":
			h.tick(time.Minute)
			got = h.is()
		case "reload":
			h.reload()
			got = h.is()
		}
		if got != list[i+1] {
			t.Fatalf("step %d, %s: %s, want %s", i/2+1, list[i], got, list[i+1])
		}
	}
}

func TestInitAgain(t *testing.T) {
	steps(t, started(t, empty, version2, 5),
		"init 7/5", "7/6",
		"init 7/5", "7/6", // the answer was lost
		"init 7/6", "7/7",
		"init 7/5", "PRODUCER_FENCED",
		"reload", "7/7 Empty",
		"init 7/6", "PRODUCER_FENCED", // the log does not know of lost answers
		"init", "7/8",
		"init 7/7", "PRODUCER_FENCED", // another producer has begun
	)
	steps(t, started(t, empty, version2, 32765),
		"init 7/32765", "7/32766",
		"init 7/32765", "7/32766", // Kafka 4.3.1: UNKNOWN_SERVER_ERROR
		"init 7/32766", "1000/0",
		"init 7/32766", "1000/0",
		"init 7/32765", "PRODUCER_FENCED",
		"init 1000/0", "1000/1",
		"init 7/32766", "PRODUCER_FENCED",
	)
}

func TestEndInTheLastEpoch(t *testing.T) {
	for _, end := range [][3]string{{"commit", "abort", "CompleteCommit"}, {"abort", "commit", "CompleteAbort"}} {
		steps(t, started(t, ongoing, version2, 32766),
			end[0]+" 7/32766", "1000/0",
			end[0]+" 7/32766", "CONCURRENT_TRANSACTIONS",
			"produce 1000/0", "CONCURRENT_TRANSACTIONS",
			"written", "1000/0 "+end[2],
			end[0]+" 7/32766", "1000/0", // the answer was lost
			end[1]+" 7/32766", "INVALID_TXN_STATE",
			"reload", "1000/0 "+end[2],
			end[0]+" 7/32766", "1000/0",
			"produce 1000/0", "ok",
			end[0]+" 7/32766", "INVALID_PRODUCER_ID_MAPPING",
			"commit 1000/0", "1000/1",
			"written", "1000/1 CompleteCommit",
			end[0]+" 7/32766", "INVALID_PRODUCER_ID_MAPPING",
		)
	}
	steps(t, started(t, empty, version2, 32766), "abort 7/32766", "1000/0", "abort 7/32766", "1000/0", "abort 1000/0", "1000/1")
}

func TestTimeout(t *testing.T) {
	steps(t, started(t, ongoing, version2, 5),
		"timeout", "7/6 PrepareAbort",
		"commit 7/5", "CONCURRENT_TRANSACTIONS",
		"produce 7/5", "CONCURRENT_TRANSACTIONS",
		"written", "7/6 CompleteAbort",
		"produce 7/5", "INVALID_PRODUCER_EPOCH",
		"commit 7/5", "INVALID_TXN_STATE",
		"abort 7/5", "7/6", // it was aborted as the producer wanted, and goes on
		"produce 7/6", "ok",
	)
	steps(t, started(t, ongoing, version1, 5),
		"timeout", "7/6 PrepareAbort",
		"commit4 7/5", "PRODUCER_FENCED",
		"written", "7/6 CompleteAbort",
		"commit4 7/5", "PRODUCER_FENCED",
		"abort4 7/5", "PRODUCER_FENCED",
		"init 7/5", "7/6", // KIP-588
	)
	// Nobody is ever told to be in the epoch that fences the last one.
	steps(t, started(t, ongoing, version2, 32766),
		"timeout", "7/32767 PrepareAbort",
		"written", "7/32767 CompleteAbort",
		"commit 7/32766", "INVALID_TXN_STATE",
		"abort 7/32766", "1000/0",
		"abort 7/32766", "1000/0",
		"reload", "1000/0 CompleteAbort",
		"abort 7/32766", "1000/0",
	)
	steps(t, started(t, ongoing, version2, 32766),
		"timeout", "7/32767 PrepareAbort", "written", "7/32767 CompleteAbort", "init 7/32766", "1000/0", "init 7/32766", "1000/0")
	// A log in which a producer has that epoch is not ours; its transaction ends without an overflow.
	steps(t, started(t, ongoing, version2, 32767), "timeout", "7/32767 PrepareAbort", "written", "7/32767 CompleteAbort", "init", "1000/0")
}

func TestFencedByAnother(t *testing.T) {
	steps(t, started(t, ongoing, version2, 5),
		"init", "CONCURRENT_TRANSACTIONS",
		"init", "CONCURRENT_TRANSACTIONS",
		"written", "7/6 CompleteAbort",
		"init", "7/7",
		"abort 7/5", "PRODUCER_FENCED",
		"init 7/5", "PRODUCER_FENCED",
		"produce 7/6", "INVALID_PRODUCER_EPOCH",
		"produce 7/7", "ok",
	)
}

// TestFencedByOlder: a producer of version 2 is fenced by one of version 1, whose transactions do not bump the epoch. What
// the fenced one sends is no repeated request, though its epoch is the one before.
func TestFencedByOlder(t *testing.T) {
	for _, end := range []string{"commit", "abort"} {
		steps(t, started(t, ongoing, version2, 5),
			"init", "CONCURRENT_TRANSACTIONS",
			"written", "7/6 CompleteAbort",
			"init", "7/7",
			"produce 7/7", "ok",
			end+"4 7/7", "ok",
			end+" 7/6", "CONCURRENT_TRANSACTIONS",
			"written", map[string]string{"commit": "7/7 CompleteCommit", "abort": "7/7 CompleteAbort"}[end],
			end+" 7/6", "PRODUCER_FENCED",
		)
	}
}

// TestDeadlines: a transaction times out at its start and its timeout, an idle id expires after the expiration.
func TestDeadlines(t *testing.T) {
	h := newHarness(t, Options{Expiration: time.Hour})
	is := func(want time.Time) {
		t.Helper()
		if got := h.m.Deadline(); !got.Equal(want) {
			t.Fatalf("deadline is %v, want %v", got, want)
		}
	}
	is(time.Time{})
	h.init(5, nobody)
	is(begin.Add(time.Hour))
	h.now = begin.Add(time.Second)
	h.verify(identity{1000, 0}, 0, true)
	h.now = begin.Add(2 * time.Second)
	h.verify(identity{1000, 0}, 1, true) // goes on; the time runs from its start
	is(begin.Add(61 * time.Second))
	h.reload()
	is(begin.Add(61 * time.Second))
	h.tick(59*time.Second - time.Millisecond)
	if got := h.is(); got != "1000/0 Ongoing" {
		t.Fatal(got)
	}
	h.tick(time.Millisecond)
	if got := h.is(); got != "1000/1 PrepareAbort" {
		t.Fatal(got)
	}
	is(time.Time{})
	h.tick(24 * time.Hour) // what waits for markers does not expire
	h.written()
	is(h.now.Add(time.Hour))
	before := len(h.log)
	h.tick(time.Hour)
	if got := h.is(); got != "TRANSACTIONAL_ID_NOT_FOUND" || len(h.log) != before+1 || h.log[before].Value != nil {
		t.Fatalf("%s, %d records", got, len(h.log)-before)
	}
	is(time.Time{})
	h.reload()
	if got := h.is(); got != "TRANSACTIONAL_ID_NOT_FOUND" {
		t.Fatal(got)
	}
	if r := h.init(5, identity{1000, 1}); r.ErrorCode != ok || r.ProducerID != 1001 {
		t.Fatalf("an expired id got %+v", r)
	}
}

// TestManyExpire: a tick writes bounded batches, in the order of deadlines.
func TestManyExpire(t *testing.T) {
	h := newHarness(t, Options{})
	for i := range 2500 {
		req := kmsg.NewInitProducerIDRequest()
		req.Version, req.TransactionalID, req.TransactionTimeoutMillis = 4, kmsg.StringPtr(fmt.Sprint("id-", i*7919%2500)), 1
		h.now = begin.Add(time.Duration(i*6007%2500) * time.Millisecond)
		h.do(InitProducerID{&req, record.ProducerID(i)})
	}
	e := h.m.Tick(begin.Add(2*time.Second - time.Millisecond + DefaultExpiration))
	var sizes []int
	for _, b := range e.Append {
		sizes = append(sizes, len(b.Records))
	}
	if !slices.Equal(sizes, []int{1000, 1000}) {
		t.Errorf("batches of %v", sizes)
	}
	if at := h.m.Deadline(); !at.Equal(begin.Add(2*time.Second + DefaultExpiration)) {
		t.Errorf("next deadline %v", at)
	}
}

func TestList(t *testing.T) {
	h := newHarness(t, Options{})
	for i, name := range []string{"b-2", "a-1", "b-1"} {
		req := kmsg.NewInitProducerIDRequest()
		req.Version, req.TransactionalID, req.TransactionTimeoutMillis = 4, kmsg.StringPtr(name), 60_000
		h.do(InitProducerID{&req, record.ProducerID(i + 1)})
	}
	h.do(Verify{"b-2", 1, 0, []TopicPartition{{"data", 0}}, true})
	h.now = h.now.Add(time.Second)
	h.do(Verify{"b-1", 3, 0, []TopicPartition{{"data", 0}}, true})
	h.now = h.now.Add(time.Second)
	ids := func(l List) string {
		v := h.do(l)
		if code, is := v.(int16); is {
			return name(code)
		}
		got := []string{}
		for _, s := range v.([]kmsg.ListTransactionsResponseTransactionState) {
			got = append(got, fmt.Sprintf("%s %d %s", s.TransactionalID, s.ProducerID, s.TransactionState))
		}
		return fmt.Sprint(got)
	}
	const a, b1, b2 = "a-1 2 Empty", "b-1 3 Ongoing", "b-2 1 Ongoing"
	for _, c := range []struct {
		name string
		ask  List
		want string
	}{
		{"all", List{DurationMs: -1}, "[" + a + " " + b1 + " " + b2 + "]"},
		{"state", List{DurationMs: -1, States: []string{"Empty", "CompleteAbort"}}, "[" + a + "]"},
		{"no such state", List{DurationMs: -1, States: []string{"ongoing"}}, "[]"},
		{"producer", List{DurationMs: -1, ProducerIDs: []int64{3, 4}}, "[" + b1 + "]"},
		{"longer than 1 s", List{DurationMs: 1000, States: []string{"Ongoing"}}, "[" + b2 + "]"},
		{"never begun", List{DurationMs: 1000, States: []string{"Empty"}}, "[" + a + "]"}, // as in Kafka: its start is -1
		{"pattern", List{DurationMs: -1, Pattern: kmsg.StringPtr("b-.")}, "[" + b1 + " " + b2 + "]"},
		{"part of an id", List{DurationMs: -1, Pattern: kmsg.StringPtr("b")}, "[]"},
		{"alternatives", List{DurationMs: -1, Pattern: kmsg.StringPtr("x|a-1")}, "[" + a + "]"},
		{"no pattern", List{DurationMs: -1, Pattern: kmsg.StringPtr("")}, "[" + a + " " + b1 + " " + b2 + "]"},
		{"bad pattern", List{DurationMs: -1, Pattern: kmsg.StringPtr("(")}, "INVALID_REGULAR_EXPRESSION"},
	} {
		if got := ids(c.ask); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestDescribe(t *testing.T) {
	h := started(t, ongoing, version2, 5)
	h.addOffsets(3, identity{7, 5}, 4)
	h.add(3, identity{7, 5}, 9)
	want := kmsg.NewDescribeTransactionsResponseTransactionState()
	want.TransactionalID, want.State, want.TimeoutMillis, want.StartTimestamp = id, "Ongoing", 60_000, begin.UnixMilli()
	want.ProducerID, want.ProducerEpoch = 7, 5
	want.Topics = []kmsg.DescribeTransactionsResponseTransactionStateTopic{
		{Topic: "__consumer_offsets", Partitions: []int32{4}}, {Topic: "data", Partitions: []int32{0, 9}},
	}
	if d := cmp.Diff(want, h.describe(), cmpopts.IgnoreTypes(kmsg.Tags{})); d != "" {
		t.Error(d)
	}
}

// BenchmarkDeadline is a change of one of 100,000 transactional ids and the question after it.
func BenchmarkDeadline(b *testing.B) {
	m := New(Options{})
	name := func(i int) string { return fmt.Sprint("id-", i%100_000) }
	for i := range 100_000 {
		req := kmsg.NewInitProducerIDRequest()
		req.Version, req.TransactionalID, req.TransactionTimeoutMillis = 4, kmsg.StringPtr(name(i)), 60_000
		m.Step(0, InitProducerID{&req, record.ProducerID(i)}, begin.Add(time.Duration(i)))
	}
	var e coordinator.Effects
	for i := 0; b.Loop(); i++ {
		e = m.Step(0, Verify{name(i), record.ProducerID(i % 100_000), 0, []TopicPartition{{"data", int32(i / 100_000)}}, true}, begin.Add(time.Duration(i)))
		if m.Deadline().IsZero() {
			b.Fatal(e)
		}
	}
}
