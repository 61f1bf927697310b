package lease

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/object"
)

// step is one line of a scenario: at a time, an event, and the action it must lead to.
type step struct {
	at    time.Duration
	event Event
	want  string
	held  bool
}

func show(a Action) string {
	switch a := a.(type) {
	case nil:
		return "-"
	case Read:
		return "read"
	case Write:
		c := "if absent"
		if v, ok := a.Condition.Match(); ok {
			c = "if " + string(v)
		}
		s := fmt.Sprintf("write e%d %s", a.Record.Epoch, c)
		if a.Record.Released {
			s += " released"
		}
		return s + " " + a.Record.Nonce
	}
	return "?"
}

func TestSteps(t *testing.T) {
	const sec = time.Second
	other := func(epoch int64, released bool) Record {
		return Record{Format: 1, Name: "controller", Holder: "b", Epoch: epoch, Released: released, Nonce: "b" + strconv.FormatInt(epoch, 10)}
	}
	mine := func(epoch int64, nonce string) Record {
		return Record{Format: 1, Name: "controller", Holder: "a", Epoch: epoch, Nonce: nonce}
	}
	for about, steps := range map[string][]step{
		"nobody holds it": {
			{0, Tick{}, "read", false},
			{0, Absent{}, "write e1 if absent n1", false},
			{1 * sec, Written{"v1"}, "-", true},
			{2 * sec, Tick{}, "-", true},
			{3 * sec, Tick{}, "write e1 if v1 n2", true},
			{4 * sec, Written{"v2"}, "-", true},
			{6 * sec, Resign{}, "write e1 if v2 released n3", false},
			{6 * sec, Written{"v3"}, "-", false}},
		"a released lease is taken at once": {
			{0, Tick{}, "read", false},
			{0, Found{other(4, true), "v1"}, "write e5 if v1 n1", false},
			{0, Written{"v2"}, "-", true}},
		"an earlier incarnation of this holder is dead": {
			{0, Tick{}, "read", false},
			{0, Found{mine(4, "x"), "v1"}, "write e5 if v1 n1", false}},
		"another's lease is watched for its whole duration": {
			{0, Tick{}, "read", false},
			{1 * sec, Found{other(4, false), "v1"}, "-", false},
			{4 * sec, Tick{}, "read", false},
			{5 * sec, Found{other(4, false), "v2"}, "-", false}, // renewed
			{8 * sec, Tick{}, "read", false},
			{8 * sec, Found{other(4, false), "v2"}, "-", false},
			{11 * sec, Tick{}, "read", false},
			{14900 * time.Millisecond, Found{other(4, false), "v2"}, "-", false},
			{15 * sec, Tick{}, "write e5 if v2 n1", false}},
		"a suspect loses it after a missed renewal": {
			{0, Tick{}, "read", false},
			{0, Found{other(4, false), "v1"}, "-", false},
			{1 * sec, Suspect{"b"}, "read", false},
			{1 * sec, Found{other(4, false), "v1"}, "-", false},
			{4 * sec, Tick{}, "read", false},
			{4500 * time.Millisecond, Found{other(4, false), "v1"}, "write e5 if v1 n1", false}},
		"412, but it was me": {
			{0, Tick{}, "read", false},
			{0, Absent{}, "write e1 if absent n1", false},
			{1 * sec, NotWritten{}, "read", false},
			{1 * sec, Found{mine(1, "n1"), "v1"}, "-", true}},
		"an unknown write that is not there yet is sent again": {
			{0, Tick{}, "read", false},
			{0, Found{other(2, true), "v0"}, "write e3 if v0 n1", false},
			{2 * sec, NotWritten{}, "read", false},
			{2 * sec, Found{other(2, true), "v0"}, "-", false},
			{3 * sec, Tick{}, "write e3 if v0 n1", false},
			{3 * sec, NotWritten{}, "read", false},
			{3 * sec, Found{mine(3, "n1"), "v1"}, "write e3 if v1 n2", true}}, // counted from 0: renewal is due
		"the race was lost": {
			{0, Tick{}, "read", false},
			{0, Absent{}, "write e1 if absent n1", false},
			{0, NotWritten{}, "read", false},
			{0, Found{other(1, false), "v1"}, "-", false}},
		"no answer to renewals: stop at two thirds, start anew above": {
			{0, Tick{}, "read", false},
			{0, Absent{}, "write e1 if absent n1", false},
			{0, Written{"v1"}, "-", true},
			{3 * sec, Tick{}, "write e1 if v1 n2", true},
			{5 * sec, NotWritten{}, "read", true},
			{6667 * time.Millisecond, Tick{}, "-", false},
			{7 * sec, ReadFailed{}, "-", false},
			{8 * sec, Tick{}, "read", false},
			{20 * sec, Found{mine(1, "n2"), "v2"}, "write e2 if v2 n3", false},
			{20 * sec, Written{"v3"}, "-", true}},
		"a higher epoch in use ends a lower one": {
			{0, Tick{}, "read", false},
			{0, Absent{}, "write e1 if absent n1", false},
			{0, Written{"v1"}, "-", true},
			{1 * sec, Fence{1}, "-", true},
			{2 * sec, Fence{7}, "read", false},
			{2 * sec, Found{mine(1, "n1"), "v1"}, "write e8 if v1 n2", false}},
		"a later version's lease is not taken early": {
			{0, Tick{}, "read", false},
			{0, Found{Record{Format: 2, Name: "controller", Holder: "a", Epoch: 3, Nonce: "z"}, "v1"}, "-", false}},
	} {
		n := 0
		m := NewMachine(Options{Name: "controller", Holder: "a"}, func() string { n++; return "n" + strconv.Itoa(n) })
		for i, s := range steps {
			got := show(m.Step(s.at, s.event))
			if _, held := m.Holding(s.at); got != s.want || held != s.held {
				t.Errorf("%s, step %d, %T at %v: %s, held %v; want %s, held %v", about, i, s.event, s.at, got, held, s.want, s.held)
				break
			}
		}
	}
}

// world runs several machines against one register whose answers get lost, whose writes land late, and whose clients are
// paused. Time is simulated; each contender's clock has its own zero.
type world struct {
	rng     *rand.Rand
	now     time.Duration
	rec     Record
	version int
	epochs  []int64 // of every state the register had
	queue   []*call
}

type call struct {
	who      int
	action   Action
	lands    time.Duration // when the register sees it
	answers  time.Duration // when the client gets an answer, if it was not answered already
	landed   bool
	answered bool
	lost     bool // the answer, if it comes after landing, is NotWritten all the same
	result   Event
}

func (w *world) apply(c *call) {
	c.landed = true
	switch a := c.action.(type) {
	case Read:
		c.result = Absent{}
		if w.version > 0 {
			c.result = Found{w.rec, object.Version(strconv.Itoa(w.version))}
		}
	case Write:
		want, match := a.Condition.Match()
		ok := match && w.version > 0 && string(want) == strconv.Itoa(w.version) || a.Condition.Absent() && w.version == 0
		c.result = NotWritten{}
		if ok {
			w.version++
			w.rec = a.Record
			w.epochs = append(w.epochs, a.Record.Epoch)
			c.result = Written{object.Version(strconv.Itoa(w.version))}
		}
		if c.lost {
			c.result = NotWritten{}
		}
	}
}

func (w *world) send(who int, a Action) {
	r := func(max time.Duration) time.Duration { return time.Duration(w.rng.Int64N(int64(max))) }
	c := &call{who: who, action: a, lands: w.now + r(40*time.Millisecond)}
	c.answers = c.lands + r(20*time.Millisecond)
	switch w.rng.IntN(12) {
	case 0: // late: the client gives up long before
		c.lands = w.now + r(15*time.Second)
		c.answers = w.now + 2*time.Second
	case 1:
		c.lost = true
	case 2:
		c.answers = c.lands + r(4*time.Second)
	}
	w.queue = append(w.queue, c)
}

func TestOneHolderAtATime(t *testing.T) {
	acquired := 0
	for seed := range uint64(150) {
		w := &world{rng: rand.New(rand.NewPCG(seed, 7))}
		const n = 3
		var machines [n]*Machine
		var zero, pausedUntil [n]time.Duration
		owner := map[int64]int{}
		nonces := 0
		for i := range machines {
			machines[i] = NewMachine(Options{Name: "x", Holder: strconv.Itoa(i)}, func() string { nonces++; return strconv.Itoa(nonces) })
			zero[i] = time.Duration(w.rng.Int64N(int64(time.Hour)))
		}
		for ; w.now < 3*time.Minute; w.now += 10 * time.Millisecond {
			rest := w.queue[:0:0]
			for _, c := range w.queue {
				if !c.landed && w.now >= c.lands {
					w.apply(c)
				}
				if !c.answered && w.now >= c.answers && w.now >= pausedUntil[c.who] {
					c.answered = true
					e := c.result
					if !c.landed {
						e = NotWritten{}
						if _, ok := c.action.(Read); ok {
							e = ReadFailed{}
						}
					}
					if a := machines[c.who].Step(w.now+zero[c.who], e); a != nil {
						w.sendLater(&rest, c.who, a)
					}
				}
				if !c.landed || !c.answered {
					rest = append(rest, c)
				}
			}
			w.queue = rest
			holders := 0
			for i, m := range machines {
				if w.rng.IntN(1500) == 0 {
					pausedUntil[i] = w.now + time.Duration(w.rng.Int64N(int64(20*time.Second)))
				}
				if at, timed := m.Wake(); w.now >= pausedUntil[i] && timed && w.now+zero[i] >= at {
					if a := m.Step(w.now+zero[i], Tick{}); a != nil {
						w.send(i, a)
					}
				}
				epoch, held := m.Holding(w.now + zero[i])
				if !held {
					continue
				}
				holders++
				if by, taken := owner[epoch]; taken && by != i {
					t.Fatalf("seed %d: epoch %d held by %d and by %d", seed, epoch, by, i)
				} else if !taken {
					acquired++
				}
				owner[epoch] = i
			}
			if holders > 1 {
				t.Fatalf("seed %d: %d holders at %v", seed, holders, w.now)
			}
		}
		for i := 1; i < len(w.epochs); i++ {
			if w.epochs[i] < w.epochs[i-1] {
				t.Fatalf("seed %d: epoch went from %d to %d", seed, w.epochs[i-1], w.epochs[i])
			}
		}
	}
	if acquired < 150*5 {
		t.Errorf("only %d acquisitions: the test exercises nothing", acquired)
	}
}

// sendLater queues a call while the queue is being walked.
func (w *world) sendLater(rest *[]*call, who int, a Action) {
	keep := w.queue
	w.queue = nil
	w.send(who, a)
	*rest = append(*rest, w.queue...)
	w.queue = keep
}
