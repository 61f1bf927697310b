package protocol

import (
	"fmt"
	"os"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/e2e/harness"
)

// TestRestart holds the rules that need a broker that was killed: a second leader epoch, and state that must survive.
func TestRestart(t *testing.T) {
	t.Run("everlog", func(t *testing.T) { restart(t, "") })
	if starter := os.Getenv("EVERLOG_PROTOCOL_KAFKA"); starter != "" {
		t.Run("kafka", func(t *testing.T) { restart(t, starter) })
	}
}

// survivor is what is known of the broker before it is killed, and after.
type survivor struct {
	*broker
	c         *Conn
	tp        topic
	trimmed   topic
	producer  int64
	old, now  int32 // leader epochs
	clusterID string
}

func restart(t *testing.T, kafkaStarter string) {
	process, b := start(t, kafkaStarter)
	s := &survivor{broker: b, c: b.dial(t), tp: b.topic(t, 1, "retention.ms=-1"), trimmed: b.topic(t, 1, "retention.bytes=777777")}
	s.producer = producerID(s.c)
	s.old = listOffset(s.c, 7, s.tp, 0, latest).LeaderEpoch
	s.clusterID = *Ask[*kmsg.MetadataResponse](s.c, 9, metadataRequest()).ClusterID
	mustProduce(s.c, s.tp, 0, sequenced(t, s.producer, 0, 0, "0", "1"))
	mustProduce(s.c, s.tp, 0, sequenced(t, s.producer, 0, 2, "2"))
	fill(t, s.c, s.trimmed, 0, "0", "1", "2")
	wantCode(t, "delete records", deleteRecords(s.c, 2, s.trimmed, 0, 2).ErrorCode, nil)

	process.Kill()
	process.Restart()
	b.awaitLeaders(t, s.tp)
	b.awaitLeaders(t, s.trimmed)
	b.awaitProducerIDs(t)
	s.c = b.dial(t)
	s.now = listOffset(s.c, 7, s.tp, 0, latest).LeaderEpoch
	for _, r := range []struct {
		section, text string
		check         func(t *testing.T, s *survivor)
	}{
		{"§3.3", "producer state survives a restart: duplicates have their original offset, the next sequence goes on", producersSurvive},
		{"§3.7", "a restarted leader has a new epoch, and every epoch its end", epochsEnd},
		{"§3.4", "LastFetchedEpoch that ended before the fetch offset: no data, DivergingEpoch with its end", divergence},
		{"§3.4", "current leader epoch lower than ours: FENCED_LEADER_EPOCH", fenced},
		{"§3.6", "the epoch of a record, not the current one, for anything but LATEST", offsetEpochs},
		{"§3.11", "topics, ids, configs and the cluster's id survive; producer ids are not given again", namesSurvive},
		{"§3.11", "the log start of DeleteRecords survives", logStartSurvives},
		{"§3.4", "a session of before: FETCH_SESSION_ID_NOT_FOUND", sessionsEnd},
	} {
		t.Run(r.section+" "+r.text, func(t *testing.T) {
			s.c = b.dial(t)
			r.check(t, s)
		})
	}
}

func producersSurvive(t *testing.T, s *survivor) {
	want(t, "duplicate", mustProduce(s.c, s.tp, 0, sequenced(t, s.producer, 0, 2, "2")), 2)
	older := produce(s.c, s.tp, 0, sequenced(t, s.producer, 0, 0, "0", "1"))
	wantCode(t, "older duplicate", older.ErrorCode, differs(s.broker, kerr.OutOfOrderSequenceNumber, nil, "Kafka remembers only the last batch over a restart, everlog all five"))
	want(t, "older duplicate: base offset", older.BaseOffset, differs(s.broker, -1, int64(0), "as above"))
	wantCode(t, "gap", produce(s.c, s.tp, 0, sequenced(t, s.producer, 0, 4, "x")).ErrorCode, kerr.OutOfOrderSequenceNumber)
	want(t, "next", mustProduce(s.c, s.tp, 0, sequenced(t, s.producer, 0, 3, "3", "4")), 3)
}

// epochsEnd runs after producersSurvive: offsets 0 to 2 are of the old epoch, 3 and 4 of the new one.
func epochsEnd(t *testing.T, s *survivor) {
	if s.now <= s.old {
		t.Fatalf("leader epoch %d after the restart, %d before: it must grow", s.now, s.old)
	}
	for version := int16(2); version <= 4; version++ {
		for epoch := s.old; epoch <= s.now; epoch++ {
			known, end := s.old, int64(3)
			if epoch == s.now {
				known, end = s.now, 5
			}
			got := epochEnd(s.c, version, s.tp, 0, epoch)
			wantCode(t, "epoch", got.ErrorCode, nil)
			if got.LeaderEpoch != known || got.EndOffset != end {
				t.Errorf("v%d: epoch %d of %d and %d ends (%d, %d), want (%d, %d)", version, epoch, s.old, s.now, got.LeaderEpoch, got.EndOffset, known, end)
			}
		}
	}
	batches, _ := decode(t, fetch(s.c, s.tp, 0, 0).RecordBatches)
	for _, b := range batches {
		epoch := s.old
		if b.BaseOffset() >= 3 {
			epoch = s.now
		}
		want(t, fmt.Sprintf("epoch of the batch at %d", b.BaseOffset()), int32(b.LeaderEpoch()), epoch)
	}
}

func divergence(t *testing.T, s *survivor) {
	for version := int16(12); version <= 18; version++ {
		req := fetchRequest(wanted{topic: s.tp, offset: 4, epoch: s.now + 1})
		req.Topics[0].Partitions[0].LastFetchedEpoch = s.old
		req.MaxWaitMillis = 10_000
		got := Ask[*kmsg.FetchResponse](s.c, version, req).Topics[0].Partitions[0]
		wantCode(t, "fetch", got.ErrorCode, nil)
		want(t, "bytes", len(got.RecordBatches), 0)
		if got.DivergingEpoch.Epoch != s.old || got.DivergingEpoch.EndOffset != 3 {
			t.Errorf("v%d: diverging epoch %+v, want %d ending at 3", version, got.DivergingEpoch, s.old)
		}
		req.Topics[0].Partitions[0].FetchOffset = 3 // here the old epoch ended: no divergence
		if got := Ask[*kmsg.FetchResponse](s.c, version, req).Topics[0].Partitions[0]; got.ErrorCode != 0 || got.DivergingEpoch.Epoch != -1 || len(got.RecordBatches) == 0 {
			t.Errorf("v%d: fetch from the end of the old epoch: %+v", version, got)
		}
	}
}

func fenced(t *testing.T, s *survivor) {
	for version := int16(9); version <= 18; version++ {
		got := Ask[*kmsg.FetchResponse](s.c, version, fetchRequest(wanted{topic: s.tp, epoch: s.old + 1})).Topics[0].Partitions[0]
		wantCode(t, fmt.Sprintf("fetch v%d", version), got.ErrorCode, kerr.FencedLeaderEpoch)
	}
	list := listRequest(s.tp, 0, latest)
	list.Topics[0].Partitions[0].CurrentLeaderEpoch = s.old
	wantCode(t, "list offsets", Ask[*kmsg.ListOffsetsResponse](s.c, 7, list).Topics[0].Partitions[0].ErrorCode, kerr.FencedLeaderEpoch)
	end := epochRequest(s.tp, 0, s.old)
	end.Topics[0].Partitions[0].CurrentLeaderEpoch = s.old
	wantCode(t, "offset for leader epoch", Ask[*kmsg.OffsetForLeaderEpochResponse](s.c, 3, end).Topics[0].Partitions[0].ErrorCode, kerr.FencedLeaderEpoch)
}

func offsetEpochs(t *testing.T, s *survivor) {
	want(t, "latest", listOffset(s.c, 7, s.tp, 0, latest).LeaderEpoch, s.now)
	want(t, "earliest", listOffset(s.c, 7, s.tp, 0, earliest).LeaderEpoch, s.old)
	want(t, "at time 0", listOffset(s.c, 7, s.tp, 0, 0).LeaderEpoch, s.old)
	want(t, "largest timestamp", listOffset(s.c, 7, s.tp, 0, maxTimestamp).LeaderEpoch, s.now)
}

func namesSurvive(t *testing.T, s *survivor) {
	meta := Ask[*kmsg.MetadataResponse](s.c, 12, metadataRequest(s.tp.name, s.trimmed.name))
	want(t, "cluster", *meta.ClusterID, s.clusterID)
	want(t, "topic id", meta.Topics[0].TopicID, s.tp.id)
	want(t, "topic id", meta.Topics[1].TopicID, s.trimmed.id)
	want(t, "config", own(s.c, s.trimmed)["retention.bytes"], "777777")
	if id := producerID(s.c); id <= s.producer {
		t.Errorf("producer id %d after the restart, %d before", id, s.producer)
	}
}

func logStartSurvives(t *testing.T, s *survivor) {
	got := listOffset(s.c, 7, s.trimmed, 0, earliest).Offset
	want(t, "log start", got, differs(s.broker, got, 2, "Kafka writes it down once a minute, everlog before it answers"))
	want(t, "log end", listOffset(s.c, 7, s.trimmed, 0, latest).Offset, 3)
}

func sessionsEnd(t *testing.T, s *survivor) {
	got := Ask[*kmsg.FetchResponse](s.c, 12, inSession(fetchRequest(), 42, 7))
	wantCode(t, "session", got.ErrorCode, kerr.FetchSessionIDNotFound)
}

// start starts a broker of the kind that is tested and returns when it gives out producer ids.
func start(t *testing.T, kafkaStarter string) (*harness.Broker, *broker) {
	t.Setenv("EVERLOG_E2E_KAFKA", kafkaStarter)
	process := harness.StartBroker(t, harness.Options{})
	b := &broker{addr: process.Addr(), kafka: kafkaStarter != ""}
	b.awaitProducerIDs(t)
	return process, b
}

// awaitProducerIDs returns when the broker gives them out: Kafka fetches its first block when it is asked for an id.
func (b *broker) awaitProducerIDs(t *testing.T) {
	t.Helper()
	if !b.kafka {
		return
	}
	c := b.dial(t)
	harness.Until(t, answerLimit, "Kafka has producer ids", func() error {
		return kerr.ErrorForCode(Ask[*kmsg.InitProducerIDResponse](c, 4, kmsg.NewPtrInitProducerIDRequest()).ErrorCode)
	})
}
