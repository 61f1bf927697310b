package txn

import (
	"fmt"
	"strings"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/tier/record"
)

// The tables start from producer 7 in epoch 5, in each state. "→ x" is what follows at once, before markers are written.

var states = map[string]kmsg.TransactionState{
	"Empty": empty, "Ongoing": ongoing, "PrepareCommit": prepareCommit, "PrepareAbort": prepareAbort,
	"CompleteCommit": completeCommit, "CompleteAbort": completeAbort,
}

// rows calls fn for each line of a table: cells are separated by two blanks or more.
func rows(t *testing.T, table string, fn func(t *testing.T, cell []string)) {
	for line := range strings.Lines(table) {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == '#' {
			continue
		}
		var cells []string
		for part := range strings.SplitSeq(line, "  ") {
			if part = strings.TrimSpace(part); part != "" {
				cells = append(cells, part)
			}
		}
		t.Run(strings.Join(strings.Fields(line), " "), func(t *testing.T) { fn(t, cells) })
	}
}

func at(t *testing.T, s string) identity {
	t.Helper()
	if s == "-" {
		return nobody
	}
	var is identity
	if _, err := fmt.Sscanf(s, "%d/%d", &is.id, &is.epoch); err != nil {
		t.Fatal(err)
	}
	return is
}

// expect compares an outcome "answer → state" with a cell; without an arrow nothing may have happened.
func expect(t *testing.T, h *harness, answer, want string) {
	t.Helper()
	before := len(h.log)
	got := answer + " → " + h.is()
	if !strings.Contains(want, "→") {
		got = answer
		if before != 1 {
			t.Errorf("%d records written", before-1)
		}
	}
	if got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestEndTxnV1(t *testing.T) {
	rows(t, `
# state           who   end     outcome
Empty             7/5   commit  INVALID_TXN_STATE
Empty             7/5   abort   INVALID_TXN_STATE
Ongoing           7/5   commit  ok → 7/5 PrepareCommit
Ongoing           7/5   abort   ok → 7/5 PrepareAbort
PrepareCommit     7/5   commit  CONCURRENT_TRANSACTIONS
PrepareCommit     7/5   abort   CONCURRENT_TRANSACTIONS
PrepareAbort      7/5   commit  CONCURRENT_TRANSACTIONS
PrepareAbort      7/5   abort   CONCURRENT_TRANSACTIONS
CompleteCommit    7/5   commit  ok
CompleteCommit    7/5   abort   INVALID_TXN_STATE
CompleteAbort     7/5   commit  INVALID_TXN_STATE
CompleteAbort     7/5   abort   ok
# a wrong epoch, below or above, comes before the state; a wrong id before both
Ongoing           7/4   commit  PRODUCER_FENCED
Ongoing           7/6   commit  PRODUCER_FENCED
PrepareCommit     7/4   commit  PRODUCER_FENCED
CompleteCommit    7/4   commit  PRODUCER_FENCED
CompleteAbort     7/6   abort   PRODUCER_FENCED
Empty             7/4   abort   PRODUCER_FENCED
Ongoing           8/5   commit  INVALID_PRODUCER_ID_MAPPING
PrepareAbort      8/4   abort   INVALID_PRODUCER_ID_MAPPING
`, func(t *testing.T, cell []string) {
		for version := range int16(5) {
			h := started(t, states[cell[0]], version1, 5)
			resp := h.end(version, at(t, cell[1]), cell[2] == "commit")
			want := cell[3]
			if version < 2 {
				want = strings.Replace(want, "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH", 1)
			}
			expect(t, h, name(resp.ErrorCode), want)
			if resp.ProducerID != -1 || resp.ProducerEpoch != -1 || resp.Version != version {
				t.Errorf("v%d: answered %+v", version, resp)
			}
		}
	})
}

func TestEndTxnV2(t *testing.T) {
	rows(t, `
# state           who   end     outcome
Empty             7/5   abort   7/6 → 7/6 CompleteAbort
Empty             7/5   commit  INVALID_TXN_STATE
Empty             7/4   abort   PRODUCER_FENCED
Empty             7/4   commit  PRODUCER_FENCED
Ongoing           7/5   abort   7/6 → 7/6 PrepareAbort
Ongoing           7/5   commit  7/6 → 7/6 PrepareCommit
Ongoing           7/4   abort   PRODUCER_FENCED
Ongoing           7/4   commit  PRODUCER_FENCED
Ongoing           7/6   commit  PRODUCER_FENCED
CompleteAbort     7/4   abort   7/5
CompleteAbort     7/5   abort   7/6 → 7/6 CompleteAbort
CompleteAbort     7/4   commit  INVALID_TXN_STATE
CompleteAbort     7/5   commit  INVALID_TXN_STATE
CompleteAbort     7/3   abort   PRODUCER_FENCED
CompleteAbort     7/6   abort   PRODUCER_FENCED
CompleteCommit    7/4   commit  7/5
CompleteCommit    7/5   commit  INVALID_TXN_STATE
CompleteCommit    7/5   abort   7/6 → 7/6 CompleteAbort
CompleteCommit    7/4   abort   INVALID_TXN_STATE
CompleteCommit    7/3   commit  PRODUCER_FENCED
PrepareCommit     7/4   commit  CONCURRENT_TRANSACTIONS
PrepareCommit     7/4   abort   CONCURRENT_TRANSACTIONS
PrepareCommit     7/5   commit  CONCURRENT_TRANSACTIONS
PrepareAbort      7/4   abort   CONCURRENT_TRANSACTIONS
PrepareAbort      7/4   commit  CONCURRENT_TRANSACTIONS
PrepareAbort      8/0   commit  CONCURRENT_TRANSACTIONS
Ongoing           8/5   commit  INVALID_PRODUCER_ID_MAPPING
Empty             8/5   abort   INVALID_PRODUCER_ID_MAPPING
CompleteCommit    8/4   commit  INVALID_PRODUCER_ID_MAPPING
`, func(t *testing.T, cell []string) {
		h := started(t, states[cell[0]], version2, 5)
		resp := h.end(5, at(t, cell[1]), cell[2] == "commit")
		expect(t, h, who(resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch), cell[3])
	})
}

// who is the answer of a request that tells the producer who it is, or its error.
func who(code int16, id int64, epoch int16) string {
	if code == ok {
		return fmt.Sprintf("%d/%d", id, epoch)
	}
	if id != -1 || epoch != -1 {
		return fmt.Sprintf("%s with %d/%d", name(code), id, epoch)
	}
	return name(code)
}

func TestInitProducerID(t *testing.T) {
	rows(t, `
# state           epoch  asks      outcome
Empty             5      -         7/6 → 7/6 Empty
CompleteCommit    5      -         7/6 → 7/6 Empty
CompleteAbort     5      -         7/6 → 7/6 Empty
Empty             32765  -         7/32766 → 7/32766 Empty
Empty             32766  -         1000/0 → 1000/0 Empty
CompleteAbort     32766  -         1000/0 → 1000/0 Empty
CompleteAbort     32767  -         1000/0 → 1000/0 Empty
Ongoing           5      -         CONCURRENT_TRANSACTIONS → 7/6 PrepareAbort
Ongoing           32766  -         CONCURRENT_TRANSACTIONS → 7/32767 PrepareAbort
PrepareCommit     5      -         CONCURRENT_TRANSACTIONS
PrepareAbort      5      -         CONCURRENT_TRANSACTIONS
# a producer that says who it is (KIP-360)
Empty             5      7/5       7/6 → 7/6 Empty
CompleteCommit    5      7/5       7/6 → 7/6 Empty
CompleteAbort     32766  7/32766   1000/0 → 1000/0 Empty
Empty             5      7/4       PRODUCER_FENCED
Empty             5      7/6       PRODUCER_FENCED
Empty             32766  7/32765   PRODUCER_FENCED
CompleteAbort     5      8/5       PRODUCER_FENCED
Ongoing           5      7/5       CONCURRENT_TRANSACTIONS → 7/6 PrepareAbort
Ongoing           5      7/4       CONCURRENT_TRANSACTIONS → 7/6 PrepareAbort
Ongoing           5      8/5       PRODUCER_FENCED
PrepareAbort      5      7/5       CONCURRENT_TRANSACTIONS
PrepareAbort      5      8/5       CONCURRENT_TRANSACTIONS
# only one of id and epoch
Empty             5      7/-1      INVALID_REQUEST
Empty             5      -1/5      INVALID_REQUEST
`, func(t *testing.T, cell []string) {
		var epoch int16
		if _, err := fmt.Sscan(cell[1], &epoch); err != nil {
			t.Fatal(err)
		}
		is, from := at(t, cell[2]), int16(0)
		if is != nobody {
			from = 3
		}
		for version := from; version <= 5; version++ {
			h := started(t, states[cell[0]], version2, epoch)
			resp := h.init(version, is)
			want := cell[3]
			if version < 4 {
				want = strings.Replace(want, "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH", 1)
			}
			expect(t, h, who(resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch), want)
		}
	})
}

func TestInitProducerIDIgnoresIdentityBeforeV3(t *testing.T) {
	h := started(t, empty, version1, 5)
	if resp := h.init(2, identity{99, 3}); resp.ErrorCode != ok || resp.ProducerEpoch != 6 {
		t.Errorf("answered %+v", resp)
	}
}

func TestInitProducerIDFirst(t *testing.T) {
	for _, is := range []identity{nobody, {77, 3}} { // the second: its id expired
		h := newHarness(t, Options{})
		if resp := h.init(5, is); resp.ErrorCode != ok || resp.ProducerID != 1000 || resp.ProducerEpoch != 0 {
			t.Errorf("%v: answered %+v", is, resp)
		}
		if got := h.is(); got != "1000/0 Empty" || len(h.log) != 1 {
			t.Errorf("%v: %s, %d records", is, got, len(h.log))
		}
	}
}

func TestInitProducerIDRequest(t *testing.T) {
	for _, c := range []struct {
		name    string
		id      *string
		timeout int32
		want    string
	}{
		{"no id", nil, 1, "INVALID_REQUEST"},
		{"empty id", kmsg.StringPtr(""), 1, "INVALID_REQUEST"},
		{"no timeout", kmsg.StringPtr("a"), 0, "INVALID_TRANSACTION_TIMEOUT"},
		{"negative timeout", kmsg.StringPtr("a"), -1, "INVALID_TRANSACTION_TIMEOUT"},
		{"longest timeout", kmsg.StringPtr("a"), 900_000, "1/0"},
		{"too long", kmsg.StringPtr("a"), 900_001, "INVALID_TRANSACTION_TIMEOUT"},
	} {
		req := kmsg.NewInitProducerIDRequest()
		req.Version, req.TransactionalID, req.TransactionTimeoutMillis = 4, c.id, c.timeout
		h := newHarness(t, Options{})
		resp := h.do(InitProducerID{&req, 1}).(*kmsg.InitProducerIDResponse)
		if got := who(resp.ErrorCode, resp.ProducerID, resp.ProducerEpoch); got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
	}
}

func TestAdd(t *testing.T) {
	rows(t, `
# state           who   data  outcome
Empty             7/5   1     ok → 7/5 Ongoing
CompleteCommit    7/5   1     ok → 7/5 Ongoing
CompleteAbort     7/5   1     ok → 7/5 Ongoing
Ongoing           7/5   1     ok → 7/5 Ongoing
Ongoing           7/5   0     ok
PrepareCommit     7/5   0     CONCURRENT_TRANSACTIONS
PrepareAbort      7/5   0     CONCURRENT_TRANSACTIONS
PrepareAbort      8/0   0     CONCURRENT_TRANSACTIONS
Ongoing           7/4   0     PRODUCER_FENCED
Ongoing           7/6   1     PRODUCER_FENCED
Empty             7/4   1     PRODUCER_FENCED
Ongoing           8/5   0     INVALID_PRODUCER_ID_MAPPING
`, func(t *testing.T, cell []string) {
		is, p := at(t, cell[1]), int32(cell[2][0]-'0')
		old := strings.Replace(cell[3], "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH", 1)
		for version := range int16(4) {
			want := cell[3]
			if version < 2 {
				want = old
			}
			h := started(t, states[cell[0]], version1, 5)
			expect(t, h, name(h.add(version, is, p)), want)
		}
		h := started(t, states[cell[0]], version1, 5)
		expect(t, h, name(h.verify(is, p, true)), old)
	})
}

func TestAddOffsets(t *testing.T) {
	for version := range int16(5) {
		h := started(t, empty, version1, 5)
		want := "PRODUCER_FENCED"
		if version < 2 {
			want = "INVALID_PRODUCER_EPOCH"
		}
		if got := name(h.addOffsets(version, identity{7, 4}, 3)); got != want {
			t.Errorf("v%d: %s", version, got)
		}
		if got := name(h.addOffsets(version, identity{7, 5}, 3)); got != "ok" {
			t.Errorf("v%d: %s", version, got)
		}
		topics := h.describe().Topics
		if len(topics) != 1 || topics[0].Topic != "__consumer_offsets" || len(topics[0].Partitions) != 1 || topics[0].Partitions[0] != 3 {
			t.Errorf("v%d: partitions %+v", version, topics)
		}
	}
}

func TestVerify(t *testing.T) {
	rows(t, `
# state           who   data  outcome
Ongoing           7/5   0     ok
Ongoing           7/5   1     TRANSACTION_ABORTABLE
Empty             7/5   0     TRANSACTION_ABORTABLE
CompleteCommit    7/5   0     TRANSACTION_ABORTABLE
CompleteAbort     7/5   0     TRANSACTION_ABORTABLE
PrepareCommit     7/5   0     CONCURRENT_TRANSACTIONS
PrepareAbort      7/5   0     CONCURRENT_TRANSACTIONS
PrepareAbort      7/4   0     INVALID_PRODUCER_EPOCH
Ongoing           7/4   0     INVALID_PRODUCER_EPOCH
Ongoing           7/6   0     INVALID_PRODUCER_EPOCH
Ongoing           8/5   0     INVALID_PRODUCER_ID_MAPPING
PrepareAbort      8/5   0     INVALID_PRODUCER_ID_MAPPING
`, func(t *testing.T, cell []string) {
		h := started(t, states[cell[0]], version1, 5)
		expect(t, h, name(h.verify(at(t, cell[1]), int32(cell[2][0]-'0'), false)), cell[3])
	})
}

func TestVerifySomeOfMany(t *testing.T) {
	h := started(t, ongoing, version1, 5)
	ask := []TopicPartition{{"data", 1}, {"data", 0}, {"other", 0}}
	got := h.do(Verify{id, 7, 5, ask, false}).([]int16)
	if want := "[TRANSACTION_ABORTABLE ok TRANSACTION_ABORTABLE]"; fmt.Sprint([]string{name(got[0]), name(got[1]), name(got[2])}) != want {
		t.Errorf("got %v, want %s", got, want)
	}
}

// TestUnknown asks for transactional ids that are not there, and for none.
func TestUnknown(t *testing.T) {
	h := newHarness(t, Options{})
	is := identity{7, 5}
	for request, code := range map[string]int16{
		"end v4": h.end(4, is, true).ErrorCode, "end v5": h.end(5, is, true).ErrorCode, "add": h.add(3, is, 0),
		"offsets": h.addOffsets(3, is, 0), "verify": h.verify(is, 0, false), "produce": h.verify(is, 0, true),
	} {
		if name(code) != "INVALID_PRODUCER_ID_MAPPING" {
			t.Errorf("%s: %s", request, name(code))
		}
	}
	if got := h.is(); got != "TRANSACTIONAL_ID_NOT_FOUND" {
		t.Errorf("describe: %s", got)
	}
	none := []any{
		EndTxn{Req: &kmsg.EndTxnRequest{Version: 4}, Fresh: record.NoProducer}, EndTxn{Req: &kmsg.EndTxnRequest{Version: 5}, Fresh: 1},
		AddOffsets{Req: &kmsg.AddOffsetsToTxnRequest{Version: 3}}, Verify{Partitions: make([]TopicPartition, 1)},
		Verify{Partitions: make([]TopicPartition, 1), Add: true}, Describe{},
	}
	for _, event := range none {
		var code int16
		switch v := h.do(event).(type) {
		case *kmsg.EndTxnResponse:
			code = v.ErrorCode
		case *kmsg.AddOffsetsToTxnResponse:
			code = v.ErrorCode
		case []int16:
			code = v[0]
		case kmsg.DescribeTransactionsResponseTransactionState:
			code = v.ErrorCode
		}
		if name(code) != "INVALID_REQUEST" {
			t.Errorf("%T without id: %s", event, name(code))
		}
	}
	if len(h.log) != 0 {
		t.Errorf("%d records", len(h.log))
	}
}
