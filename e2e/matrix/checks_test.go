package matrix

import (
	"strings"
	"testing"
	"time"

	"github.com/everlog/everlog/e2e/drivers"
)

// The ledger must see what it is for.

// script makes the events of a member, one a line, a millisecond each from its number on.
func script(lines string) []drivers.Event {
	var events []drivers.Event
	for i, line := range strings.Split(strings.TrimSpace(lines), "\n") {
		words := strings.Fields(line)
		ms := time.UnixMilli(int64(i))
		if words[0][0] >= '0' && words[0][0] <= '9' {
			d, err := time.ParseDuration(words[0])
			if err != nil {
				panic(err)
			}
			ms, words = time.UnixMilli(d.Milliseconds()), words[1:]
		}
		events = append(events, drivers.Event{At: ms, Kind: words[0], Args: words[1:]})
	}
	return events
}

func TestLedger(t *testing.T) {
	log := map[int32]*partitionLog{0: {end: 3, values: map[int64]string{0: "a", 1: "b", 2: "c"}}}
	commits := &commitLog{seen: map[int32][]commitSeen{0: {{time.UnixMilli(25), 2}}}}
	for _, c := range []struct {
		name, one, two string
		wrong          string // in the error; "" for a sound ledger
	}{
		{"handed over", "10ms assigned 0\n11ms record 0 0 a\n12ms record 0 1 b\n20ms revoked 0", "30ms assigned 0\n31ms record 0 2 c", ""},
		{"to nobody", "10ms assigned 0\n11ms record 0 0 a\n12ms record 0 1 b", "", "delivered to nobody"},
		{"another value", "10ms assigned 0\n11ms record 0 0 a\n12ms record 0 1 x\n13ms record 0 2 c", "", "the log has"},
		{"twice in a stint", "10ms assigned 0\n11ms record 0 0 a\n12ms record 0 0 a\n13ms record 0 1 b\n14ms record 0 2 c", "", "1 was due"},
		{"two owners", "10ms assigned 0\n11ms record 0 0 a\n12ms record 0 1 b\n40ms revoked 0", "30ms assigned 0\n31ms record 0 2 c", "two owners"},
		{"never given up", "10ms assigned 0\n11ms record 0 0 a\n12ms record 0 1 b", "30ms assigned 0\n31ms record 0 2 c", "two owners"},
		{"not its own", "10ms record 0 0 a\n11ms assigned 0\n12ms record 0 1 b\n13ms record 0 2 c", "", "does not have"},
		{"before the commit", "10ms assigned 0\n11ms record 0 0 a\n12ms record 0 1 b\n20ms lost 0", "30ms assigned 0\n31ms record 0 1 b\n32ms record 0 2 c", "was committed before"},
		{"again after a revocation", "10ms assigned 0\n11ms record 0 0 a\n12ms record 0 1 b\n20ms revoked 0", "22ms assigned 0\n31ms record 0 1 b\n32ms record 0 2 c", "all before 2 was committed"},
		{"again after a loss", "10ms assigned 0\n11ms record 0 0 a\n12ms record 0 1 b\n20ms lost 0", "22ms assigned 0\n31ms record 0 1 b\n32ms record 0 2 c", ""},
		{"left out", "10ms assigned 0\n11ms record 0 0 a\n20ms lost 0", "22ms assigned 0\n31ms record 0 2 c", "left out"},
	} {
		l := &ledger{}
		errs := []error{l.read(member{name: "one", events: script(c.one)}, true)}
		if c.two != "" {
			errs = append(errs, l.read(member{name: "two", events: script(c.two)}, true))
		}
		err := first(append(errs, l.checkDelivered(log), l.checkStints(ownership{exact: true, clean: true}, commits)))
		if c.wrong == "" && err != nil || c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)) {
			t.Errorf("%s: %v, want %q", c.name, err, c.wrong)
		}
	}
}

func TestCommitsThatGoBack(t *testing.T) {
	c := &commitLog{seen: map[int32][]commitSeen{}}
	c.add(0, 5, nil)
	c.add(0, 7, nil)
	if err := c.err(); err != nil {
		t.Error(err)
	}
	c.add(0, 6, nil)
	if c.err() == nil {
		t.Error("a committed offset that goes back is not seen")
	}
	c = &commitLog{seen: map[int32][]commitSeen{}}
	c.add(0, 5, nil)
	c.add(0, -1, nil)
	if c.err() == nil {
		t.Error("a committed offset that is gone is not seen")
	}
}
