package quota

import (
	"errors"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
	"testing"
)

func p(kind string, names ...string) Part {
	if len(names) == 0 {
		return Part{Type: kind}
	}
	return Part{kind, &names[0]}
}

func entity(t testing.TB, parts ...Part) Entity {
	t.Helper()
	e, err := NewEntity(parts)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestEntities(t *testing.T) {
	for _, c := range []struct {
		parts []Part
		want  string // the key in the metadata log, or a part of the refusal
	}{
		{[]Part{p(User, "u")}, `{"user":"u"}`},
		{[]Part{p(User)}, `{"user":null}`},
		{[]Part{p(User, "u"), p(ClientID)}, `{"client-id":null,"user":"u"}`},
		{[]Part{p(ClientID), p(User, "u")}, `{"client-id":null,"user":"u"}`},
		{[]Part{p(ClientID, `a/b "c"<é>`)}, `{"client-id":"a/b \"c\"\u003cé\u003e"}`},
		{[]Part{p(IP, "127.0.0.1")}, `{"ip":"127.0.0.1"}`},
		{[]Part{p(IP)}, `{"ip":null}`},
		{nil, "Invalid empty client quota entity"},
		{[]Part{p("x", "u")}, "Unhandled client quota entity type: x"},
		{[]Part{p(User, "")}, "Empty user not supported"},
		{[]Part{p(User, "a"), p(User, "b")}, "duplicate entity entry user"},
		{[]Part{p(IP, "127.0.0.1"), p(User, "u")}, "Invalid quota entity combination"},
		{[]Part{p(IP, "no such host")}, "no such host is not a valid IP"},
	} {
		e, err := NewEntity(c.parts)
		if err != nil {
			if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v: %v, want %s", c.parts, err, c.want)
			}
			continue
		}
		if e.String() != c.want {
			t.Errorf("%v: key %s, want %s", c.parts, e, c.want)
		}
		if again, err := parseEntity(e.String()); err != nil || again != e {
			t.Errorf("%s reads back as %v, %v", e, again, err)
		}
		if again := entity(t, e.Parts()...); again != e {
			t.Errorf("the parts of %s make %s", e, again)
		}
	}
}

func TestLimitsAreChecked(t *testing.T) {
	user, address := entity(t, p(User, "u")), entity(t, p(IP, "::1"))
	for _, c := range []struct {
		e    Entity
		op   Op
		want string // "" is accepted
	}{
		{user, Op{Key: ProducerByteRate, Value: 1000}, ""},
		{user, Op{Key: ProducerByteRate, Value: 1000.0000001}, ""},
		{user, Op{Key: RequestPercentage, Value: 12.5}, ""},
		{user, Op{Key: MutationRate, Value: 0.5}, ""},
		{address, Op{Key: ConnectionRate, Value: 10}, ""},
		{user, Op{Key: "nope", Remove: true}, ""},
		{user, Op{Key: ConsumerByteRate, Value: 1000.5}, "consumer_byte_rate cannot be a fractional value."},
		{user, Op{Key: ProducerByteRate}, "Quota producer_byte_rate must be greater than 0"},
		{user, Op{Key: ProducerByteRate, Value: -1}, "must be greater than 0"},
		{user, Op{Key: ProducerByteRate, Value: math.NaN()}, "must be greater than 0"},
		{user, Op{Key: ProducerByteRate, Value: 1e19}, "Proposed value for producer_byte_rate is too large for a LONG."},
		{user, Op{Key: RequestPercentage, Value: math.Inf(1)}, "is too large for a DOUBLE."},
		{user, Op{Key: "nope", Value: 1}, "Invalid configuration key nope"},
		{user, Op{Key: ConnectionRate, Value: 10}, "Invalid configuration key connection_creation_rate"},
		{address, Op{Key: ProducerByteRate, Value: 10}, "Invalid configuration key producer_byte_rate"},
		{address, Op{Key: ConnectionRate, Value: 1e10}, "is too large for a INT."},
	} {
		_, err := Alter(c.e, nil, []Op{c.op})
		if (err == nil) != (c.want == "") || err != nil && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s %+v: %v, want %q", c.e, c.op, err, c.want)
		}
	}
	if _, err := Alter(user, nil, []Op{{Key: MutationRate, Value: 1}, {Key: MutationRate, Remove: true}}); err == nil || !strings.Contains(err.Error(), "Duplicate quota key") {
		t.Errorf("a limit named twice: %v", err)
	}
}

func TestAlterLeavesTheRest(t *testing.T) {
	current := map[string]float64{ProducerByteRate: 1, ConsumerByteRate: 2}
	after, err := Alter(entity(t, p(User)), current, []Op{{Key: ProducerByteRate, Remove: true}, {Key: MutationRate, Value: 3}})
	if err != nil || !maps.Equal(after, map[string]float64{ConsumerByteRate: 2, MutationRate: 3}) {
		t.Errorf("after: %v, %v", after, err)
	}
	if len(current) != 2 || current[ProducerByteRate] != 1 {
		t.Errorf("the limits before were changed: %v", current)
	}
	again, err := Decode(Encode(after))
	if err != nil || !maps.Equal(again, after) {
		t.Errorf("%v reads back as %v, %v", after, again, err)
	}
	if Encode(nil) != "" {
		t.Error("no limits at all must remove the value")
	}
}

// levels are all that can hold for user u with client id c, the strongest first, with whom the limit is shared.
var levels = []struct {
	parts []Part
	held  Client
}{
	{[]Part{p(User, "u"), p(ClientID, "c")}, Client{"u", "c"}},
	{[]Part{p(User, "u"), p(ClientID)}, Client{"u", "c"}},
	{[]Part{p(User, "u")}, Client{User: "u"}},
	{[]Part{p(User), p(ClientID, "c")}, Client{"u", "c"}},
	{[]Part{p(User), p(ClientID)}, Client{"u", "c"}},
	{[]Part{p(User)}, Client{User: "u"}},
	{[]Part{p(ClientID, "c")}, Client{ID: "c"}},
	{[]Part{p(ClientID)}, Client{ID: "c"}},
}

func table(t testing.TB, values map[string]string) *Table {
	t.Helper()
	tab, err := Parse(values)
	if err != nil {
		t.Fatal(err)
	}
	return tab
}

// Every subset of the levels: the strongest that is there and has the limit holds.
func TestPrecedence(t *testing.T) {
	for subset := range 1 << len(levels) {
		values, want, held := map[string]string{}, 0.0, Client{}
		for i := len(levels) - 1; i >= 0; i-- {
			limits := map[string]float64{MutationRate: 1000} // another limit at every level: it must not hide those below
			if subset&(1<<i) != 0 {
				limits[ProducerByteRate] = float64(i + 1)
				want, held = float64(i+1), levels[i].held
			}
			values[entity(t, levels[i].parts...).String()] = Encode(limits)
		}
		rate, who, ok := table(t, values).Limit(ProducerByteRate, "u", "c")
		if rate != want || who != held || ok != (subset != 0) {
			t.Fatalf("levels %08b: %v shared by %+v (%v), want %v by %+v", subset, rate, who, ok, want, held)
		}
	}
}

func TestLimitsOfOthers(t *testing.T) {
	values := map[string]string{}
	for i, l := range levels {
		values[entity(t, l.parts...).String()] = Encode(map[string]float64{ProducerByteRate: float64(i + 1)})
	}
	tab := table(t, values)
	for _, c := range []struct {
		user, client string
		rate         float64
		held         Client
	}{
		{"u", "x", 2, Client{"u", "x"}},
		{"u", "", 3, Client{User: "u"}},
		{"x", "c", 4, Client{"x", "c"}},
		{"x", "x", 5, Client{"x", "x"}},
		{"x", "", 6, Client{User: "x"}},
	} {
		if rate, held, ok := tab.Limit(ProducerByteRate, c.user, c.client); !ok || rate != c.rate || held != c.held {
			t.Errorf("%s/%s: %v shared by %+v, want %v by %+v", c.user, c.client, rate, held, c.rate, c.held)
		}
	}
	if _, _, ok := tab.Limit(ConsumerByteRate, "u", "c"); ok {
		t.Error("a limit that nobody set holds")
	}
}

func TestConnectionLimits(t *testing.T) {
	tab := table(t, map[string]string{`{"ip":"10.0.0.1"}`: `{"connection_creation_rate":3}`, `{"ip":null}`: `{"connection_creation_rate":5}`})
	for addr, want := range map[string]float64{"10.0.0.1": 3, "::ffff:10.0.0.1": 3, "10.0.0.2": 5} {
		if rate, ok := tab.ConnectionLimit(netip.MustParseAddr(addr)); !ok || rate != want {
			t.Errorf("%s: %v, want %v", addr, rate, want)
		}
	}
	if _, ok := table(t, nil).ConnectionLimit(netip.MustParseAddr("::1")); ok {
		t.Error("a limit without quotas")
	}
}

func TestWhatCannotBeReadIsLeftOut(t *testing.T) {
	tab, err := Parse(map[string]string{`{"user":"u"}`: `{"producer_byte_rate":3}`, `{"tenant":"u"}`: `{}`, `{"user":"v"}`: `[]`, `x`: `{}`})
	if err == nil || tab.Len() != 1 {
		t.Errorf("%d entries, error %v; want one, and three faults", tab.Len(), err)
	}
}

func TestSelect(t *testing.T) {
	tab := table(t, map[string]string{`{"user":"u"}`: `{"producer_byte_rate":1}`, `{"user":null}`: `{"producer_byte_rate":2}`,
		`{"client-id":"c","user":"u"}`: `{"producer_byte_rate":3}`, `{"client-id":"c"}`: `{"producer_byte_rate":4}`, `{"ip":null}`: `{"connection_creation_rate":5}`})
	name := func(s string) *string { return &s }
	for _, c := range []struct {
		filter []Component
		strict bool
		want   string // keys, or a part of the refusal
	}{
		{nil, false, `{"client-id":"c","user":"u"} {"client-id":"c"} {"ip":null} {"user":"u"} {"user":null}`},
		{nil, true, ``},
		{[]Component{{User, MatchExact, name("u")}}, false, `{"client-id":"c","user":"u"} {"user":"u"}`},
		{[]Component{{User, MatchExact, name("u")}}, true, `{"user":"u"}`},
		{[]Component{{User, MatchDefault, nil}}, false, `{"user":null}`},
		{[]Component{{User, MatchAny, nil}}, true, `{"user":"u"} {"user":null}`},
		{[]Component{{User, MatchAny, nil}, {ClientID, MatchExact, name("c")}}, false, `{"client-id":"c","user":"u"}`},
		{[]Component{{ClientID, MatchExact, name("nobody")}}, false, ``},
		{[]Component{{User, MatchExact, nil}}, false, "Request specified MATCH_TYPE_EXACT"},
		{[]Component{{User, MatchDefault, name("u")}}, false, "Request specified MATCH_TYPE_DEFAULT"},
		{[]Component{{User, MatchAny, name("u")}}, false, "Request specified MATCH_TYPE_SPECIFIED"},
		{[]Component{{User, 9, nil}}, false, "Unknown match type 9"},
		{[]Component{{"tenant", MatchAny, nil}}, false, "Unsupported entity type tenant"},
		{[]Component{{"", MatchAny, nil}}, false, "Invalid empty entity type"},
		{[]Component{{User, MatchAny, nil}, {User, MatchAny, nil}}, false, "more than once"},
		{[]Component{{User, MatchAny, nil}, {IP, MatchAny, nil}}, false, "Invalid entity filter component combination"},
	} {
		found, err := tab.Select(c.filter, c.strict)
		if err != nil {
			if !strings.Contains(err.Error(), c.want) || c.want == "" {
				t.Errorf("%+v: %v, want %q", c.filter, err, c.want)
			}
			continue
		}
		var keys []string
		for _, e := range found {
			keys = append(keys, e.Entity.String())
		}
		if strings.Join(keys, " ") != c.want {
			t.Errorf("%+v strict %v: %s, want %s", c.filter, c.strict, keys, c.want)
		}
	}
	if _, err := tab.Select([]Component{{"tenant", MatchAny, nil}}, false); !errors.Is(err, ErrUnknownType) {
		t.Errorf("an unknown type: %v", err)
	}
	all, _ := tab.Select(nil, false)
	if !slices.IsSortedFunc(all, compare) {
		t.Error("the answer is not in order")
	}
}
