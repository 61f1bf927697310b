package kafka

import (
	"net"
	"net/netip"
	"time"

	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/quota"
)

// mutation is one topic that a request creates, deletes or grows.
type mutation struct {
	partitions int // that it creates or removes
	blank      controller.TopicResult
}

// rationed passes the mutations of a request on to act as far as the client's controller_mutation_rate allows (KIP-599),
// and returns a result for each. With strict the others are refused, and the client asks again after the time that the
// answer names; versions older than that refusal wait it out behind an answer that did everything. act gets the indexes of
// those to do; check, if there is one, those that have to wait: what is wrong with them is told at once. What did not come to be
// is not charged.
func (s *Server) rationed(c *call, all []mutation, strict bool, act, check func(some []int) []controller.TopicResult) []controller.TopicResult {
	ration := s.throttle.of(quota.MutationRate, c)
	results, pass := make([]controller.TopicResult, len(all)), make([]int, 0, len(all))
	var late []int
	for i, m := range all {
		if strict && m.partitions > 0 && ration.wait(c.started) > 0 {
			results[i], late = m.blank, append(late, i)
			continue
		}
		ration.charge(float64(m.partitions), c.started)
		pass = append(pass, i)
	}
	for j, r := range act(pass) {
		results[pass[j]] = r
		if r.Err != nil {
			ration.charge(-float64(all[pass[j]].partitions), c.started)
		}
	}
	if refused := wait(results, late, check); refused || !strict { // what was overdrawn by a request that could refuse is for the next one to feel
		c.throttle = ration.wait(time.Now())
	}
	return results
}

// wait gives the results at the indexes what check finds wrong, or else the refusal, and says whether any has that.
func wait(results []controller.TopicResult, late []int, check func([]int) []controller.TopicResult) (refused bool) {
	if len(late) > 0 && check != nil {
		for j, r := range check(late) {
			results[late[j]].Err = r.Err
		}
	}
	for _, i := range late {
		if results[i].Err == nil {
			results[i].Err, refused = errThrottled, true
		}
	}
	return refused
}

// pick are the elements at indexes.
func pick[T any](all []T, indexes []int) []T {
	some := make([]T, len(indexes))
	for i, at := range indexes {
		some[i] = all[at]
	}
	return some
}

// admitConnection reports how long a new connection is to be held, and then closed, because its address opens too many
// (KIP-612): a client that is turned away at once would only come back at once.
func (s *Server) admitConnection(remote net.Addr) (hold time.Duration) {
	tcp, ok := remote.(*net.TCPAddr)
	if !ok {
		return 0
	}
	addr, _ := netip.AddrFromSlice(tcp.IP)
	ration, now := s.throttle.ofAddress(addr), time.Now()
	if hold = ration.wait(now); hold == 0 {
		ration.charge(1, now)
	}
	return hold
}
