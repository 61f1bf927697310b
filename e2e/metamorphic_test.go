package e2e

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/everlog/everlog/e2e/clients"
	"github.com/everlog/everlog/e2e/corpus"
	"github.com/everlog/everlog/e2e/harness"
)

// A variant is one way to run the same script. What clients see must not depend on it.
type variant struct {
	name   string
	broker map[string]string
	topic  map[string]string
}

var (
	tinySegments = map[string]string{"segment.bytes": "1048576"}
	hugeSegments = map[string]string{"segment.bytes": "1073741824"}
	nothingLocal = map[string]string{"local.retention.ms": "0"}
	allLocal     = map[string]string{"local.retention.ms": "-2"}
	noCache      = map[string]string{"cache.memory.bytes": "0"}
	smallCache   = map[string]string{"cache.memory.bytes": "1048576", "cache.disk.bytes": "16777216"}
)

// variants begin with the one the others are compared to.
var variants = []variant{
	{"huge segments, all local", nil, with(hugeSegments, allLocal)},
	{"tiny segments, all local", nil, with(tinySegments, allLocal)},
	{"tiny segments, nothing local", nil, with(tinySegments, nothingLocal)},
	{"tiny segments, nothing local, no cache", noCache, with(tinySegments, nothingLocal)},
	{"tiny segments, nothing local, small caches", smallCache, with(tinySegments, nothingLocal)},
	{"huge segments, nothing local, no cache", noCache, with(hugeSegments, nothingLocal)},
	{"tiny segments, all local, flush by the system", map[string]string{"flush": "os"}, with(tinySegments, allLocal)},
}

const metamorphicPartitions = 2

// TestMetamorphic runs one script under tiny and huge segments, with and without cache, with local copies and without any: the
// same records, the same answers of ListOffsets.
func TestMetamorphic(t *testing.T) {
	var reference []string
	for _, v := range variants {
		t.Run(v.name, func(t *testing.T) {
			got := runScript(t, v)
			if reference == nil {
				reference = got
				return
			}
			for i := range max(len(got), len(reference)) {
				if i >= len(got) || i >= len(reference) || got[i] != reference[i] {
					t.Fatalf("step %d differs from %q:\ngot  %v\nwant %v", i, variants[0].name, got[i:min(i+1, len(got))], reference[i:min(i+1, len(reference))])
				}
			}
		})
	}
}

// runScript produces, waits until the variant is what it says, reads in several ways, and returns what it saw, a line each.
func runScript(t *testing.T, v variant) []string {
	broker := harness.StartBroker(t, harness.Options{Set: v.broker})
	admin := newAdmin(t, broker.Addr())
	if err := admin.CreateTopic(t.Context(), "script", metamorphicPartitions, with(map[string]string{"retention.ms": "-1"}, v.topic)); err != nil {
		t.Fatal(err)
	}
	var all []*stored
	var records [][]corpus.Record
	for number := range metamorphicPartitions {
		part := corpus.Part{Style: corpus.Rich, Size: corpus.Slice, Index: number, Parts: 4}
		input := part.Take(1 << 30)
		to := clients.Destination{Addr: broker.Addr(), Topic: "script", Partition: int32(number), Codec: clients.Codecs[1+number]}
		if err := clients.WriteFranz(t.Context(), to, slices.Values(input)); err != nil {
			t.Fatal(err)
		}
		records = append(records, input)
		all = append(all, &stored{topic: "script", partition: int32(number), want: corpus.SumOf(slices.Values(input)), timed: true})
	}
	settle(t, admin, broker, v, all)

	var seen []string
	say := func(format string, args ...any) { seen = append(seen, fmt.Sprintf(format, args...)) }
	for range 2 { // the second time from a warm cache, if there is one
		for _, s := range all {
			if err := s.compare(t.Context(), broker.Addr(), clients.Franz); err != nil {
				t.Fatal(err)
			}
		}
	}
	for number, input := range records {
		answers(t, admin, int32(number), input, 0, say)
		pieces(t, broker, int32(number), input)
		// History gets a new beginning in the middle of a segment.
		begin := int64(len(input) / 3)
		if err := admin.DeleteRecords(t.Context(), "script", int32(number), begin); err != nil {
			t.Fatal(err)
		}
		answers(t, admin, int32(number), input, begin, say)
		sum, err := clients.Franz.Sum(t.Context(), clients.Range{Addr: broker.Addr(), Topic: "script", Partition: int32(number), From: begin, To: int64(len(input))})
		if err != nil {
			t.Fatal(err)
		}
		say("partition %d from %d on: %v", number, begin, sum)
	}
	return seen
}

// settle waits until nothing is on the local disk, if the variant says so.
func settle(t *testing.T, admin *clients.Admin, broker *harness.Broker, v variant, all []*stored) {
	t.Helper()
	if v.topic["local.retention.ms"] != "0" {
		return
	}
	shipAll(t, broker, all)
	for _, s := range all {
		harness.Until(t, shipLimit, "nothing is local", func() error {
			local, err := admin.Offset(t.Context(), s.topic, s.partition, clients.EarliestLocal)
			if err == nil && local.Offset < s.want.Records {
				err = fmt.Errorf("records from %d of %d on are", local.Offset, s.want.Records)
			}
			return err
		})
	}
}

// answers asks for every kind of offset that does not speak of tiers, and for many times, of a log that begins at an offset.
func answers(t *testing.T, admin *clients.Admin, partition int32, input []corpus.Record, begin int64, say func(string, ...any)) {
	t.Helper()
	ask := map[string]int64{"latest": clients.Latest, "earliest": clients.Earliest, "max timestamp": clients.MaxTimestamp, "time 0": 0, "beyond": corpus.FirstTimestamp * 2}
	rng := rand.New(rand.NewPCG(1, uint64(partition)))
	for i := range 40 {
		ask[fmt.Sprintf("time %d", i)] = input[rng.IntN(len(input))].Timestamp + rng.Int64N(3) - 1
	}
	for _, name := range slices.Sorted(maps.Keys(ask)) {
		answer, err := admin.Offset(t.Context(), "script", partition, ask[name])
		if err != nil {
			t.Fatal(err)
		}
		if want := oracle(input, begin, ask[name]); answer != want {
			t.Errorf("partition %d from %d on, %s (%d): %+v, want %+v", partition, begin, name, ask[name], answer, want)
		}
		say("partition %d from %d on, %s (%d): %+v", partition, begin, name, ask[name], answer)
	}
}

// oracle is the right answer, found by looking at every record.
func oracle(input []corpus.Record, begin, ask int64) clients.Answer {
	switch ask {
	case clients.Latest:
		return clients.Answer{Offset: int64(len(input)), Timestamp: -1}
	case clients.Earliest:
		return clients.Answer{Offset: begin, Timestamp: -1}
	}
	best := clients.Answer{Offset: -1, Timestamp: -1}
	for _, r := range input[begin:] {
		switch {
		case ask == clients.MaxTimestamp && r.Timestamp > best.Timestamp:
			best = clients.Answer{Offset: r.Offset, Timestamp: r.Timestamp}
		case ask >= 0 && r.Timestamp >= ask:
			return clients.Answer{Offset: r.Offset, Timestamp: r.Timestamp}
		}
	}
	return best
}

// pieces reads from offsets all over the partition and compares with the input.
func pieces(t *testing.T, broker *harness.Broker, partition int32, input []corpus.Record) {
	t.Helper()
	rng := rand.New(rand.NewPCG(2, uint64(partition)))
	var wrong error
	for range 20 {
		from := rng.IntN(len(input))
		to := min(from+1+rng.IntN(300), len(input))
		want := corpus.SumOf(slices.Values(input[from:to]))
		got, err := clients.Franz.Sum(t.Context(), clients.Range{Addr: broker.Addr(), Topic: "script", Partition: partition, From: int64(from), To: int64(to)})
		if err == nil && got != want {
			err = fmt.Errorf("[%d, %d) is %v, want %v", from, to, got, want)
		}
		wrong = errors.Join(wrong, err)
	}
	if wrong != nil {
		t.Error(wrong)
	}
}
