package consumer

import (
	"fmt"
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// bigGroup has 1,000 members that subscribe to all topics, with 2,000 partitions, at rest.
func bigGroup(b *testing.B, count int) (*Group, catalog, []string) {
	c := topics()
	var names []string
	for i := range count {
		names = append(names, fmt.Sprintf("t%04d", i))
		c.add(names[i], topicID(i), int32(2000/count))
	}
	g := New("g", Options{})
	for i := range 1000 {
		g.Heartbeat(join(fmt.Sprintf("m%04d", i), names...), Client{}, c, start)
	}
	g.Configure(Options{AssignmentInterval: -1})
	settleAll(b, g, c)
	return g, c, names
}

// settleAll lets members revoke and be assigned until the group is stable.
func settleAll(b *testing.B, g *Group, c catalog) (beats int) {
	for rounds := 0; g.State() != "Stable"; rounds++ {
		if rounds > 20 {
			b.Fatal("the group does not come to rest")
		}
		for id, m := range g.members {
			r := beat(id, m.epoch)
			r.Topics = []kmsg.ConsumerGroupHeartbeatRequestTopic{}
			for t := range m.assigned {
				r.Topics = append(r.Topics, kmsg.ConsumerGroupHeartbeatRequestTopic{TopicID: t, Partitions: m.assigned.partitions(t)})
			}
			if resp, _ := g.Heartbeat(r, Client{}, c, start); resp.ErrorCode != 0 {
				b.Fatal(*resp.ErrorMessage)
			}
			beats++
		}
	}
	return beats
}

func BenchmarkGroupOf1000(b *testing.B) {
	for _, count := range []int{1, 20, 1000} {
		g, c, names := bigGroup(b, count)
		b.Run(fmt.Sprintf("topics=%d/heartbeat", count), func(b *testing.B) {
			r := beat("m0500", g.members["m0500"].epoch)
			b.ReportAllocs()
			for b.Loop() {
				if resp, _ := g.Heartbeat(r, Client{}, c, start); resp.ErrorCode != 0 {
					b.Fatal(*resp.ErrorMessage)
				}
			}
		})
		b.Run(fmt.Sprintf("topics=%d/join", count), func(b *testing.B) {
			for b.Loop() {
				g.Heartbeat(join("new", names...), Client{}, c, start)
				g.Heartbeat(beat("new", -1), Client{}, c, start)
			}
		})
		b.Run(fmt.Sprintf("topics=%d/rebalance", count), func(b *testing.B) {
			beats := 0
			for b.Loop() {
				g.Heartbeat(join("new", names...), Client{}, c, start)
				beats += settleAll(b, g, c)
				g.Heartbeat(beat("new", -1), Client{}, c, start)
				beats += settleAll(b, g, c)
			}
			b.ReportMetric(float64(beats)/float64(b.N), "heartbeats")
		})
	}
}
