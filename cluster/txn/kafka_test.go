package txn

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/coordinator"
	"github.com/everlog/everlog/tier/record"
)

// TestKafka plays to a machine what was asked of Apache Kafka 4.3.1, and holds it against what that answered. A line of
// testdata/kafka-*.txt is one of
//
//	REQUEST => ANSWER | STATE     a request, and what DescribeTransactions said when its markers were written
//	wait                          for transactions of 1,500 ms to time out
//	describe ID | STATE
//	exhaust ID PRODUCER/EPOCH     an id whose epochs were used up to here
//	record ID: CONTENT            the records of __transaction_state, in order for each id
//	bytes KEY VALUE               some of them, in hexadecimal
//
// Producer ids count from 1, in the order they were allocated; 99 is nobody's.
func TestKafka(t *testing.T) {
	files, err := filepath.Glob("testdata/kafka-*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			p := &play{harness: newHarness(t, Options{}), records: map[string][]string{}}
			p.fresh = 1
			for i, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
				kafka, mark, differs := strings.Cut(line, differ)
				got := p.line(kafka)
				if !differs && got != kafka || differs && got == kafka {
					t.Fatalf("line %d:\nKafka:   %s\nmachine: %s%s", i+1, line, got, mark)
				}
				if differs && !strings.Contains(got, fenced) {
					t.Fatalf("line %d: %s", i+1, got)
				}
			}
			for id, left := range p.records {
				if len(left) != 0 {
					t.Errorf("%d records more of %s: %s", len(left), id, left[0])
				}
			}
		})
	}
}

// differ ends a line in which Kafka gives a fenced producer of version 2 the identity of the one of version 1 that fenced it,
// or what became of that one's transaction as its own.
const (
	differ = "  # everlog fences"
	fenced = "=> PRODUCER_FENCED -1/-1 |"
)

type play struct {
	*harness
	skip    int                 // records that are not in the file
	began   bool                // the records of the log are in records
	records map[string][]string // of each transactional id, those not compared yet
}

// line carries out one line and returns it as the machine would have it.
func (p *play) line(line string) string {
	word := strings.Fields(line)
	switch word[0] {
	case "#":
		return line
	case "exhaust":
		p.exhaust(word[1], at(p.t, word[2]))
		return line
	case "wait":
		p.tick(5 * time.Second)
		p.written()
		return line
	case "describe":
		return "describe " + word[1] + " | " + p.state(word[1])
	case "record":
		return p.record(word[1][:1])
	case "bytes":
		return p.bytes(word[1], word[2])
	}
	ask, _, _ := strings.Cut(line, " => ")
	p.now = p.now.Add(time.Millisecond)
	answer := p.request(strings.Fields(ask))
	p.written()
	id := word[1]
	if strings.HasPrefix(id, "v") {
		id = word[2]
	}
	return ask + " => " + answer + " | " + p.state(id)
}

// request carries out, for example, "commit v5 a as 1/0".
func (p *play) request(word []string) string {
	kind, version, word := word[0], int16(-1), word[1:]
	if word[0][0] == 'v' {
		version, word = int16(word[0][1]-'0'), word[1:]
	}
	id, is := word[0], at(p.t, word[2])
	data := func() int32 { return int32(word[3][len("data-")] - '0') }
	switch kind {
	case "init":
		req := kmsg.NewInitProducerIDRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = version, &id, int64(is.id), int16(is.epoch)
		if _, err := fmt.Sscan(word[4], &req.TransactionTimeoutMillis); err != nil {
			p.t.Fatal(err)
		}
		resp := p.id(func(fresh record.ProducerID) any { return InitProducerID{&req, fresh} }).(*kmsg.InitProducerIDResponse)
		return fmt.Sprintf("%s %d/%d", name(resp.ErrorCode), resp.ProducerID, resp.ProducerEpoch)
	case "commit", "abort":
		req := kmsg.NewEndTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = version, id, int64(is.id), int16(is.epoch)
		req.Commit = kind == "commit"
		resp := p.id(func(fresh record.ProducerID) any { return EndTxn{&req, fresh} }).(*kmsg.EndTxnResponse)
		return fmt.Sprintf("%s %d/%d", name(resp.ErrorCode), resp.ProducerID, resp.ProducerEpoch)
	case "add":
		req := kmsg.NewAddPartitionsToTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch = version, id, int64(is.id), int16(is.epoch)
		req.Topics = []kmsg.AddPartitionsToTxnRequestTopic{{Topic: "data", Partitions: []int32{data()}}}
		return name(p.do(Request{&req}).(*kmsg.AddPartitionsToTxnResponse).Topics[0].Partitions[0].ErrorCode)
	case "offsets":
		req := kmsg.NewAddOffsetsToTxnRequest()
		req.Version, req.TransactionalID, req.ProducerID, req.ProducerEpoch, req.Group = version, id, int64(is.id), int16(is.epoch), "g"
		return name(p.do(AddOffsets{&req, 3}).(*kmsg.AddOffsetsToTxnResponse).ErrorCode)
	case "produce", "verify":
		return name(p.do(Verify{id, is.id, is.epoch, []TopicPartition{{"data", data()}}, kind == "produce"}).([]int16)[0])
	}
	p.t.Fatalf("request %q", kind)
	return ""
}

func (p *play) state(id string) string {
	s := p.do(Describe{id}).(kmsg.DescribeTransactionsResponseTransactionState)
	if s.ErrorCode != ok {
		return name(s.ErrorCode)
	}
	parts := []string{}
	for _, t := range s.Topics {
		for _, n := range t.Partitions {
			parts = append(parts, fmt.Sprintf("%s-%d", t.Topic, n))
		}
	}
	return fmt.Sprintf("%d/%d %s %d %v", s.ProducerID, s.ProducerEpoch, s.State, s.TimeoutMillis, parts)
}

func (p *play) exhaust(id string, is identity) {
	v := kmsg.NewTxnMetadataValue()
	v.Version, v.ProducerID, v.PreviousProducerID, v.ProducerEpoch = 1, int64(is.id), int64(is.id), int16(is.epoch)
	v.TimeoutMillis, v.StartTimestamp, v.LastUpdateTimestamp = 60_000, -1, p.now.UnixMilli()
	p.log = append(p.log, coordinator.Record{Key: encodeKey(id), Value: v.AppendTo(nil)})
	p.fresh = is.id + 1
	p.reload()
	p.skip = len(p.log)
}

// record returns the machine's next record of id.
func (p *play) record(id string) string {
	if !p.began {
		p.began = true
		for _, r := range p.log[p.skip:] {
			var key kmsg.TxnMetadataKey
			var v kmsg.TxnMetadataValue
			if err := cmp.Or(key.ReadFrom(r.Key), v.ReadFrom(r.Value)); err != nil {
				p.t.Fatal(err)
			}
			parts := "null"
			if v.Topics != nil {
				all := []string{}
				for _, t := range v.Topics {
					for _, n := range t.Partitions {
						all = append(all, fmt.Sprintf("%s-%d", t.Topic, n))
					}
				}
				parts = fmt.Sprint(all)
			}
			p.records[key.TransactionalID] = append(p.records[key.TransactionalID], fmt.Sprintf(
				"record %s: %d prev %d next %d epoch %d timeout %d %s %s version %d", key.TransactionalID, v.ProducerID, v.PreviousProducerID,
				v.NextProducerID, v.ProducerEpoch, v.TimeoutMillis, v.State, parts, v.ClientTransactionVersion))
		}
	}
	if len(p.records[id]) == 0 {
		return "no record"
	}
	r := p.records[id][0]
	p.records[id] = p.records[id][1:]
	return r
}

// bytes returns a record of Kafka's as a machine writes it that has read it. The partitions are put in order first.
func (p *play) bytes(key, value string) string {
	k, err1 := hex.DecodeString(key)
	v, err2 := hex.DecodeString(value)
	if err := cmp.Or(err1, err2); err != nil {
		p.t.Fatal(err)
	}
	m := New(Options{})
	if err := m.Replay(0, coordinator.Entry{Key: k, Value: v}); err != nil {
		p.t.Fatal(err)
	}
	for id, t := range m.txns {
		var in kmsg.TxnMetadataValue
		if err := in.ReadFrom(v); err != nil {
			p.t.Fatal(err)
		}
		slices.SortFunc(in.Topics, func(a, b kmsg.TxnMetadataValueTopic) int { return cmp.Compare(a.Topic, b.Topic) })
		for _, topic := range in.Topics {
			slices.Sort(topic.Partitions)
		}
		if t.state == empty {
			in.Topics = nil
		}
		if bytes.Equal(encodeKey(id), k) && bytes.Equal(t.encode(), in.AppendTo(nil)) && len(t.encode()) == len(v) {
			return "bytes " + key + " " + value
		}
		return fmt.Sprintf("bytes %x %x", encodeKey(id), t.encode())
	}
	return "nothing replayed"
}
