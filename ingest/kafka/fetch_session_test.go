package kafka

import (
	"testing"
	"time"
)

func part(topic string, n int32) *fetchPart {
	return &fetchPart{topic: topic, partition: n, sentHW: -1, sentLogStart: -1}
}

func TestSessionKeepsOrderAndForgets(t *testing.T) {
	c := newSessionCache(10)
	s := c.open([]*fetchPart{part("a", 0), part("a", 1), part("b", 0)}, false, time.Now())
	s.parts()[0].sentHW = 7
	s.moveBack(s.parts()[0])
	changed := part("a", 0)
	changed.offset = 99
	s.update([]*fetchPart{changed, part("c", 0)}, []partKey{{topic: "a", partition: 1}})
	var got []string
	for _, p := range s.parts() {
		got = append(got, p.topic)
	}
	if len(got) != 3 || got[0] != "b" || got[1] != "a" || got[2] != "c" {
		t.Fatalf("order %v", got)
	}
	if p := s.parts()[1]; p.offset != 99 || p.sentHW != 7 {
		t.Fatalf("changed partition lost what was sent: %+v", p)
	}
}

func TestSessionsAreBounded(t *testing.T) {
	c, now := newSessionCache(2), time.Now()
	first := c.open([]*fetchPart{part("a", 0)}, false, now)
	second := c.open([]*fetchPart{part("a", 0)}, false, now.Add(time.Second))
	if third := c.open([]*fetchPart{part("a", 0)}, false, now.Add(2*time.Second)); third != nil {
		t.Fatal("a third session while none is idle")
	}
	if c.get(first.id, now.Add(sessionIdle+time.Second)) == nil {
		t.Fatal("first session is gone")
	}
	if c.open([]*fetchPart{part("a", 0)}, false, now.Add(sessionIdle+2*time.Second)) == nil || c.get(second.id, now) != nil {
		t.Fatal("the idle session was not the one to go")
	}
}

func TestEpochsWrapToOne(t *testing.T) {
	if nextEpoch(1) != 2 || nextEpoch(1<<31-1) != 1 {
		t.Fatal("next epoch")
	}
}
