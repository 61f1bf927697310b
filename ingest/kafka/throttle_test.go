package kafka

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/cluster/quota"
)

// withQuotas are throttles over an image that has quotas by entity, and a function that replaces them.
func withQuotas(t *testing.T, quotas map[string]string) (*throttles, func(map[string]string)) {
	t.Helper()
	static, err := config.ParseBroker(nil)
	if err != nil {
		t.Fatal(err)
	}
	var image *metadata.Image
	set := func(quotas map[string]string) {
		var records []metadata.Record
		for entity, limits := range quotas {
			records = append(records, metadata.ValueSet{Kind: quota.Kind, Key: entity, Value: limits})
		}
		var err error
		if image, err = (&metadata.Image{}).With(records...); err != nil {
			t.Fatal(err)
		}
	}
	set(quotas)
	return newThrottles(func() *metadata.Image { return image }, func() *config.Broker { return static }), set
}

func by(clientID string) *call { return &call{clientID: clientID} }

var noon = time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)

// The wait is Kafka's: what was sent beyond ten full windows, at the rate of the quota.
func TestProducerWaitsForItsExcess(t *testing.T) {
	q, _ := withQuotas(t, map[string]string{`{"client-id":"c"}`: `{"producer_byte_rate":1000}`})
	if got := q.of(quota.ProducerByteRate, by("other")).charge(1e9, noon); got != 0 {
		t.Errorf("a client without a quota waits %v", got)
	}
	for _, step := range []struct {
		after time.Duration // noon
		bytes float64
		want  time.Duration
	}{
		{0, 10_000, 0},              // all it may use up at once
		{0, 5_000, 5 * time.Second}, // in debt
		{5 * time.Second, 0, 0},     // paid
		{5 * time.Second, 2_000, 2 * time.Second},
		{time.Hour, 10_000, 0}, // full again, and not fuller
		{time.Hour, 1_000, time.Second},
		{time.Hour, 1e9, maxThrottle}, // asked for in parts
		{2 * time.Hour, 0, maxThrottle},
		{time.Hour, 0, maxThrottle}, // a clock that goes back gives nothing
	} {
		if got := q.of(quota.ProducerByteRate, by("c")).charge(step.bytes, noon.Add(step.after)); got != step.want {
			t.Errorf("%v after noon, %v bytes: wait %v, want %v", step.after, step.bytes, got, step.want)
		}
	}
}

func TestConsumerIsGivenWhatThereIs(t *testing.T) {
	q, _ := withQuotas(t, map[string]string{`{"client-id":null}`: `{"consumer_byte_rate":1000}`})
	a := q.of(quota.ConsumerByteRate, by("c"))
	if a.room(noon) != 10_000 || a.wait(noon) != 0 {
		t.Errorf("at first: room %d, wait %v", a.room(noon), a.wait(noon))
	}
	a.charge(9_500, noon)
	if a.room(noon) != 500 {
		t.Errorf("room %d, want 500", a.room(noon))
	}
	a.charge(3_500, noon) // one batch that was larger
	if a.room(noon) != 1 || a.wait(noon) != 3*time.Second {
		t.Errorf("in debt: room %d, wait %v, want 1 and 3s", a.room(noon), a.wait(noon))
	}
	if unlimited := q.of(quota.ProducerByteRate, by("c")); unlimited.room(noon) != math.MaxInt || unlimited.wait(noon) != 0 {
		t.Error("a limit that was not set holds")
	}
}

func TestClientsShareWhatTheirQuotaSays(t *testing.T) {
	wait := func(q *throttles, client string) time.Duration {
		return q.of(quota.ProducerByteRate, by(client)).wait(noon)
	}
	for entity, shared := range map[string]bool{`{"client-id":null}`: false, `{"user":"ANONYMOUS"}`: true, `{"user":null}`: true, `{"client-id":null,"user":null}`: false} {
		q, _ := withQuotas(t, map[string]string{entity: `{"producer_byte_rate":1000}`})
		q.of(quota.ProducerByteRate, by("a")).charge(20_000, noon)
		if wait(q, "a") != 10*time.Second || (wait(q, "b") > 0) != shared {
			t.Errorf("%s: a waits %v, b %v; shared %v", entity, wait(q, "a"), wait(q, "b"), shared)
		}
	}
}

func TestQuotasChange(t *testing.T) {
	q, set := withQuotas(t, map[string]string{`{"client-id":"c"}`: `{"producer_byte_rate":1000}`})
	q.of(quota.ProducerByteRate, by("c")).charge(20_000, noon)
	set(map[string]string{`{"client-id":"c"}`: `{"producer_byte_rate":5000}`})
	if got := q.of(quota.ProducerByteRate, by("c")).wait(noon); got != 2*time.Second {
		t.Errorf("the debt of 10,000 bytes at 5000 a second: %v", got)
	}
	set(nil)
	if got := q.of(quota.ProducerByteRate, by("c")).charge(1e9, noon); got != 0 {
		t.Errorf("without a quota: %v", got)
	}
}

func TestConnectionsOfAnAddress(t *testing.T) {
	q, _ := withQuotas(t, map[string]string{`{"ip":"10.0.0.1"}`: `{"connection_creation_rate":2}`})
	a := q.ofAddress(netip.MustParseAddr("10.0.0.1"))
	opened := 0
	for a.wait(noon) == 0 {
		a.charge(1, noon)
		opened++
	}
	if opened != 21 || a.wait(noon) != time.Second/2 { // ten windows of two, and one on credit
		t.Errorf("%d connections at once, then %v", opened, a.wait(noon))
	}
	if q.ofAddress(netip.MustParseAddr("10.0.0.2")).limited() {
		t.Error("another address is limited")
	}
}

func TestBucketsAreBounded(t *testing.T) {
	q, _ := withQuotas(t, map[string]string{`{"client-id":null}`: `{"producer_byte_rate":1000}`})
	for i := range maxBuckets + 10 {
		q.of(quota.ProducerByteRate, by(fmt.Sprint(i))).charge(1, noon)
	}
	if len(q.buckets) > maxBuckets {
		t.Errorf("%d buckets, want %d at most", len(q.buckets), maxBuckets)
	}
}

// muted is a connection that is muted for 90 s, and its other end.
func muted() (*conn, net.Conn) {
	near, far := net.Pipe()
	s := &Server{opts: Options{}.withDefaults(), memory: semaphore.NewWeighted(1 << 20), small: semaphore.NewWeighted(1 << 20)}
	c := newConn(s, near)
	c.mute(90 * time.Second)
	c.mute(time.Second) // the longer holds
	return c, far
}

func TestMutedConnectionIsNotRead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, far := muted()
		go far.Write([]byte{0, 0, 0, 10, 0, 3, 0, 0, 0, 0, 0, 7, 255, 255}) // Metadata
		before := time.Now()
		queue := make(chan *call, 1)
		go func() {
			req, err := c.readFrame(t.Context(), bufio.NewReaderSize(c.net, readBufferSize))
			if err != nil {
				t.Error(err)
			}
			queue <- req
		}()
		req := <-queue
		if took := time.Since(before); took != 90*time.Second {
			t.Errorf("read after %v, want 90s", took)
		}
		if !req.started.Equal(time.Now()) {
			t.Error("the wait counts as part of the request")
		}
	})
}

func TestMutedClientThatLeavesIsNoticed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, far := muted()
		before := time.Now()
		far.Close()
		if _, err := c.readFrame(t.Context(), bufio.NewReaderSize(c.net, readBufferSize)); !errors.Is(err, io.EOF) || time.Since(before) != 0 {
			t.Errorf("%v after %v, want the end at once", err, time.Since(before))
		}
	})
}
