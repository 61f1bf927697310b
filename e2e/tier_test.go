package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/everlog/everlog/e2e/clients"
	"github.com/everlog/everlog/e2e/corpus"
	"github.com/everlog/everlog/e2e/harness"
	"github.com/everlog/everlog/e2e/servers"
)

const (
	bucket    = "everlog-e2e"
	shipLimit = 5 * time.Minute // for everything to be in the store
)

// TestDataSet is the whole path: the data set in by two clients with each codec; out by four from the hot tier; the local disk
// lost, and out by four from MinIO; and out of the bucket by everlog replay with no broker at all. The same bytes each time.
func TestDataSet(t *testing.T) {
	server := servers.MinIO(t)
	broker := harness.StartBroker(t, harness.Options{Store: server.MinIOURL(bucket, "data/set")})
	all := loadDataSet(t, broker.Addr(), corpus.SizeFromEnv(), nil)
	verify(t, broker.Addr(), "hot", all, clients.Readers...)
	shipAll(t, broker, all)
	loseDisk(t, broker)
	verify(t, broker.Addr(), "from MinIO", all, clients.Readers...)
	verifyTimes(t, broker, all)
	broker.Kill()
	verifyReplay(t, broker.Store(), all)
}

// TestVersity takes a part of that path over a second S3 server and the other driver.
func TestVersity(t *testing.T) {
	server := servers.Versity(t)
	server.MakeBucket(bucket)
	for _, pair := range server.Env() {
		setenv(t, pair)
	}
	overStore(t, server.S3URL(bucket, "prefix"))
}

// TestDirectory does so over the default store.
func TestDirectory(t *testing.T) { overStore(t, "") }

func overStore(t *testing.T, url string) {
	t.Helper()
	broker := harness.StartBroker(t, harness.Options{Store: url})
	all := loadDataSet(t, broker.Addr(), corpus.Slice, nil)
	shipAll(t, broker, all)
	loseDisk(t, broker)
	verify(t, broker.Addr(), "from the store", all, clients.Franz)
	broker.Kill()
	verifyReplay(t, broker.Store(), all)
}

// shipAll has every active segment sealed and waits until everything is in the store.
func shipAll(t *testing.T, broker *harness.Broker, all []*stored) {
	t.Helper()
	began := time.Now()
	admin := newAdmin(t, broker.Addr())
	topics := map[string]bool{}
	for _, s := range all {
		if !topics[s.topic] {
			topics[s.topic] = true
			// Sealing goes by the clock; nothing needs to be appended for it.
			if err := admin.SetTopic(t.Context(), s.topic, map[string]string{"segment.ms": "1"}); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, s := range all {
		waitShipped(t, admin, s.topic, s.partition, s.want.Records)
	}
	t.Logf("all in the store after %.1f s", time.Since(began).Seconds())
}

// waitShipped returns when the records [0, end) are in the store.
func waitShipped(t *testing.T, admin *clients.Admin, topic string, partition int32, end int64) {
	t.Helper()
	harness.Until(t, shipLimit, fmt.Sprintf("%s-%d is in the store up to %d", topic, partition, end), func() error {
		answer, err := admin.Offset(t.Context(), topic, partition, clients.LatestTiered)
		if err == nil && answer.Offset < end-1 {
			err = fmt.Errorf("the last record there is %d", answer.Offset)
		}
		return err
	})
}

// loseDisk kills the broker, deletes its disk and starts it on an empty one.
func loseDisk(t *testing.T, broker *harness.Broker) {
	t.Helper()
	broker.Kill()
	broker.Wipe()
	began := time.Now()
	broker.Restart()
	t.Logf("ready on an empty disk after %.2f s", time.Since(began).Seconds())
}

// verifyTimes asks for offsets by time and holds the answers against the records themselves.
func verifyTimes(t *testing.T, broker *harness.Broker, all []*stored) {
	t.Helper()
	admin := newAdmin(t, broker.Addr())
	for _, s := range all {
		var times []int64
		reads := clients.Range{Addr: broker.Addr(), Topic: s.topic, Partition: s.partition, To: s.want.Records}
		if err := clients.Franz.Read(t.Context(), reads, func(r corpus.Record) { times = append(times, r.Timestamp) }); err != nil {
			t.Fatal(err)
		}
		for share := range 8 {
			ask := times[len(times)*share/8] + int64(share%2) // a time that is there, or the one after it
			want := clients.Answer{Offset: -1, Timestamp: -1}
			for offset, at := range times {
				if at >= ask {
					want = clients.Answer{Offset: int64(offset), Timestamp: at}
					break
				}
			}
			got, err := admin.Offset(t.Context(), s.topic, s.partition, ask)
			if err != nil || got != want {
				t.Errorf("%s-%d at time %d: %+v, %v; the first record from then on is %+v", s.topic, s.partition, ask, got, err, want)
			}
		}
	}
}

// verifyReplay reads the topics from the bucket alone.
func verifyReplay(t *testing.T, store string, all []*stored) {
	t.Helper()
	began := time.Now()
	topics := map[string][]*stored{}
	for _, s := range all {
		topics[s.topic] = append(topics[s.topic], s)
	}
	for topic, partitions := range topics {
		got, err := replay(t, store, topic)
		if err != nil {
			t.Fatalf("everlog replay %s: %v", topic, err)
		}
		for _, s := range partitions {
			if got[s.partition] != s.want {
				t.Errorf("everlog replay %s: partition %d is %v, want %v", topic, s.partition, got[s.partition], s.want)
			}
		}
	}
	t.Logf("replay: %d topics equal in %.1f s", len(topics), time.Since(began).Seconds())
}
