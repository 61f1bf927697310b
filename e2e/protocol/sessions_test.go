package protocol

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// inSession puts the request into a session.
func inSession(req *kmsg.FetchRequest, id, epoch int32) *kmsg.FetchRequest {
	req.SessionID, req.SessionEpoch = id, epoch
	return req
}

// openSession starts a session with a full fetch and returns its id.
func openSession(t *testing.T, c *Conn, version int16, parts ...wanted) int32 {
	t.Helper()
	resp := Ask[*kmsg.FetchResponse](c, version, inSession(fetchRequest(parts...), 0, 0))
	wantCode(t, "full fetch", resp.ErrorCode, nil)
	if resp.SessionID == 0 {
		t.Fatal("no session was opened")
	}
	return resp.SessionID
}

// returned are the partitions of an answer of one topic.
func returned(resp *kmsg.FetchResponse) map[int32]kmsg.FetchResponseTopicPartition {
	all := map[int32]kmsg.FetchResponseTopicPartition{}
	for _, one := range resp.Topics {
		for _, p := range one.Partitions {
			all[p.Partition] = p
		}
	}
	return all
}

var sessionRules = []rule{
	{"§3.4", "epoch 0: full fetch, opens a session; an incremental response holds only partitions with news", func(t *testing.T, b *broker) {
		tp := b.topic(t, 3)
		c := b.dial(t)
		for version := int16(7); version <= 18; version++ {
			ends := map[int32]int64{}
			for p := range int32(3) {
				ends[p] = listOffset(c, 7, tp, p, -1).Offset
			}
			parts := []wanted{{topic: tp, offset: ends[0]}, {topic: tp, partition: 1, offset: ends[1]}, {topic: tp, partition: 2, offset: ends[2]}}
			resp := Ask[*kmsg.FetchResponse](c, version, inSession(fetchRequest(parts...), 0, 0))
			want(t, "partitions of a full fetch", len(returned(resp)), 3)
			session := resp.SessionID
			resp = Ask[*kmsg.FetchResponse](c, version, inSession(fetchRequest(), session, 1))
			wantCode(t, "first incremental", resp.ErrorCode, nil)
			want(t, "session", resp.SessionID, session)
			want(t, "partitions without news", len(returned(resp)), 0)
			fill(t, c, tp, 1, "a")
			got := returned(Ask[*kmsg.FetchResponse](c, version, inSession(fetchRequest(), session, 2)))
			if len(got) != 1 || len(got[1].RecordBatches) == 0 {
				t.Errorf("v%d: partitions %v, want the one that was written to", version, got)
			}
			// Its offset moves on by the request that names it.
			got = returned(Ask[*kmsg.FetchResponse](c, version, inSession(fetchRequest(wanted{topic: tp, partition: 1, offset: ends[1] + 1}), session, 3)))
			want(t, fmt.Sprintf("v%d: partitions after its offset moved on", version), len(got), 0)
		}
	}},
	{"§3.4", "an incremental response has a partition whose high watermark or log start changed, without records too", func(t *testing.T, b *broker) {
		tp := b.topic(t, 2)
		c := b.dial(t)
		fill(t, c, tp, 0, "a", "b")
		session := openSession(t, c, 12, wanted{topic: tp, offset: 2}, wanted{topic: tp, partition: 1})
		wantNoErrors(t, "delete records", Ask[*kmsg.DeleteRecordsResponse](c, 2, deleteRecordsRequest(tp, 0, 1)))
		got := returned(Ask[*kmsg.FetchResponse](c, 12, inSession(fetchRequest(), session, 1)))
		if len(got) != 1 || got[0].LogStartOffset != 1 {
			t.Errorf("partitions %+v, want the one whose log start is 1", got)
		}
		want(t, "told once", len(returned(Ask[*kmsg.FetchResponse](c, 12, inSession(fetchRequest(), session, 2)))), 0)
	}},
	{"§3.4", "after an error a partition is sent again, each time", func(t *testing.T, b *broker) {
		tp := b.topic(t, 2)
		c := b.dial(t)
		session := openSession(t, c, 12, wanted{topic: tp, offset: 7}, wanted{topic: tp, partition: 1})
		for epoch := int32(1); epoch <= 3; epoch++ {
			got := returned(Ask[*kmsg.FetchResponse](c, 12, inSession(fetchRequest(), session, epoch)))
			if len(got) != 1 || got[0].ErrorCode != kerr.OffsetOutOfRange.Code {
				t.Errorf("partitions %+v, want the one that is out of range", got)
			}
		}
		got := returned(Ask[*kmsg.FetchResponse](c, 12, inSession(fetchRequest(wanted{topic: tp}), session, 4)))
		if len(got) != 1 || got[0].ErrorCode != 0 || got[0].HighWatermark != 0 {
			t.Errorf("partitions %+v, want the one that is good again, with its high watermark", got)
		}
	}},
	{"§3.4", "ForgottenTopics removes partitions, a request adds them", func(t *testing.T, b *broker) {
		tp := b.topic(t, 3)
		c := b.dial(t)
		for _, version := range []int16{7, 12, 13, 18} {
			for p := range int32(3) {
				fill(t, c, tp, p, "a")
			}
			session := openSession(t, c, version, wanted{topic: tp}, wanted{topic: tp, partition: 1})
			req := inSession(fetchRequest(wanted{topic: tp, partition: 2}), session, 1)
			req.ForgottenTopics = []kmsg.FetchRequestForgottenTopic{{Topic: tp.name, TopicID: tp.id, Partitions: []int32{0}}}
			got := returned(Ask[*kmsg.FetchResponse](c, version, req))
			_, forgotten := got[0]
			if len(got) != 2 || forgotten {
				t.Errorf("v%d: partitions %v, want 1 and 2", version, got)
			}
		}
	}},
	{"§3.4", "a session with no partitions left closes", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		session := openSession(t, c, 12, wanted{topic: tp})
		req := inSession(fetchRequest(), session, 1)
		req.ForgottenTopics = []kmsg.FetchRequestForgottenTopic{{Topic: tp.name, TopicID: tp.id, Partitions: []int32{0}}}
		resp := Ask[*kmsg.FetchResponse](c, 12, req)
		wantCode(t, "the last request of a session", resp.ErrorCode, nil)
		want(t, "session", resp.SessionID, 0)
		wantCode(t, "the next one", Ask[*kmsg.FetchResponse](c, 12, inSession(fetchRequest(), session, 2)).ErrorCode, kerr.FetchSessionIDNotFound)
	}},
	{"§3.4", "unknown id: FETCH_SESSION_ID_NOT_FOUND; wrong epoch: INVALID_FETCH_SESSION_EPOCH, and the session stays", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		for _, version := range []int16{7, 12, 13, 18} {
			resp := Ask[*kmsg.FetchResponse](c, version, inSession(fetchRequest(wanted{topic: tp}), 123456789, 1))
			wantCode(t, "unknown id", resp.ErrorCode, kerr.FetchSessionIDNotFound)
			want(t, "topics with an error", len(resp.Topics), 0)
			wantCode(t, "id 0 with an epoch", Ask[*kmsg.FetchResponse](c, version, inSession(fetchRequest(), 0, 1)).ErrorCode, kerr.FetchSessionIDNotFound)
			session := openSession(t, c, version, wanted{topic: tp})
			for _, epoch := range []int32{2, 5} {
				wantCode(t, "wrong epoch", Ask[*kmsg.FetchResponse](c, version, inSession(fetchRequest(), session, epoch)).ErrorCode, kerr.InvalidFetchSessionEpoch)
			}
			wantCode(t, "right epoch", Ask[*kmsg.FetchResponse](c, version, inSession(fetchRequest(), session, 1)).ErrorCode, nil)
			wantCode(t, "the same again", Ask[*kmsg.FetchResponse](c, version, inSession(fetchRequest(), session, 1)).ErrorCode, kerr.InvalidFetchSessionEpoch)
		}
	}},
	{"§3.4", "epoch -1: sessionless, closes the named session; epoch 0 with an id: closes it and opens another", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		session := openSession(t, c, 12, wanted{topic: tp})
		resp := Ask[*kmsg.FetchResponse](c, 12, inSession(fetchRequest(wanted{topic: tp}), session, -1))
		wantCode(t, "last fetch", resp.ErrorCode, nil)
		want(t, "session", resp.SessionID, 0)
		want(t, "partitions", len(returned(resp)), 1)
		wantCode(t, "closed", Ask[*kmsg.FetchResponse](c, 12, inSession(fetchRequest(), session, 1)).ErrorCode, kerr.FetchSessionIDNotFound)

		session = openSession(t, c, 12, wanted{topic: tp})
		resp = Ask[*kmsg.FetchResponse](c, 12, inSession(fetchRequest(wanted{topic: tp}), session, 0))
		if resp.ErrorCode != 0 || resp.SessionID == 0 || resp.SessionID == session {
			t.Errorf("full fetch in session %d: %s, session %d, want a new one", session, codeName(resp.ErrorCode), resp.SessionID)
		}
		wantCode(t, "closed", Ask[*kmsg.FetchResponse](c, 12, inSession(fetchRequest(), session, 1)).ErrorCode, kerr.FetchSessionIDNotFound)
	}},
	{"§3.4", "session id -1 with epoch -1 is sessionless, as kafka-go sends it", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "a")
		for version := int16(7); version <= 18; version++ {
			resp := Ask[*kmsg.FetchResponse](c, version, inSession(fetchRequest(wanted{topic: tp}), -1, -1))
			wantNoErrors(t, "fetch", resp)
			want(t, "session", resp.SessionID, 0)
			want(t, "partitions", len(returned(resp)), 1)
		}
	}},
	{"§3.4", "a switch between v12 and v13 inside a session: FETCH_SESSION_TOPIC_ID_ERROR", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		for _, versions := range [][2]int16{{12, 13}, {13, 12}} {
			session := openSession(t, c, versions[0], wanted{topic: tp})
			resp := Ask[*kmsg.FetchResponse](c, versions[1], inSession(fetchRequest(wanted{topic: tp}), session, 1))
			wantCode(t, fmt.Sprint(versions), resp.ErrorCode, kerr.FetchSessionTopicIDError)
		}
	}},
	{"§3.4", "partitions that returned data move to the end of the session's order: none starves", func(t *testing.T, b *broker) {
		tp := b.topic(t, 4)
		c := b.dial(t)
		var parts []wanted
		for p := range int32(4) {
			fill(t, c, tp, p, kilobyte("a"))
			parts = append(parts, wanted{topic: tp, partition: p})
		}
		req := inSession(fetchRequest(parts...), 0, 0)
		req.MaxBytes = 1
		resp := Ask[*kmsg.FetchResponse](c, 12, req)
		session, served := resp.SessionID, map[int32]int{}
		for epoch := int32(1); epoch <= 4; epoch++ { // the full fetch does not count: Kafka keeps the order it was asked in
			req := inSession(fetchRequest(), session, epoch)
			req.MaxBytes = 1
			for p, got := range returned(Ask[*kmsg.FetchResponse](c, 12, req)) {
				if len(got.RecordBatches) > 0 {
					served[p]++
				}
			}
		}
		for p := range int32(4) {
			want(t, fmt.Sprintf("times that partition %d was served in 4 fetches of one batch", p), served[p], 1)
		}
	}},
	{"§3.4", "an incremental fetch waits for news, and is woken by them", func(t *testing.T, b *broker) {
		tp := b.topic(t, 2)
		c, writer := b.dial(t), b.dial(t)
		session := openSession(t, c, 13, wanted{topic: tp}, wanted{topic: tp, partition: 1})
		req := inSession(fetchRequest(), session, 1)
		req.MaxWaitMillis = 15_000
		req.SetVersion(13)
		c.Send(req)
		fill(t, writer, tp, 1, "a")
		got := returned(c.Receive(req).(*kmsg.FetchResponse))
		if len(got) != 1 || len(got[1].RecordBatches) == 0 {
			t.Errorf("partitions %v, want the one that was written to", got)
		}
	}},
	{"§3.4", "a topic that is made again under its name is not the one of the session", func(t *testing.T, b *broker) {
		tp := b.topic(t, 1)
		c := b.dial(t)
		fill(t, c, tp, 0, "old")
		session := openSession(t, c, 13, wanted{topic: tp, offset: 1})
		wantNoErrors(t, "delete", Ask[*kmsg.DeleteTopicsResponse](c, 5, deleteRequest(tp.name)))
		b.awaitGone(t, tp.name)
		got := returned(Ask[*kmsg.FetchResponse](c, 13, inSession(fetchRequest(), session, 1)))
		switch code := got[0].ErrorCode; code {
		case kerr.UnknownTopicID.Code, kerr.InconsistentTopicID.Code, kerr.UnknownTopicOrPartition.Code:
		default:
			t.Errorf("partitions %+v, want an error", got)
		}
	}},
}
