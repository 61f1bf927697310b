package quota

import (
	"errors"
	"net/netip"
	"slices"
)

// Table is every quota of one metadata image, ready to be asked. Immutable and safe for concurrent use.
type Table struct {
	entries []Entry // sorted
	limits  map[Entity]map[string]float64
	byIP    map[netip.Addr]float64
}

// Parse reads the values of Kind of an image. The table is never nil: what cannot be read (a later version wrote it, say)
// is left out and reported in the error.
func Parse(values map[string]string) (*Table, error) {
	t := &Table{limits: map[Entity]map[string]float64{}, byIP: map[netip.Addr]float64{}}
	var faults []error
	for key, value := range values {
		e, err := parseEntity(key)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		limits, err := Decode(value)
		if err != nil {
			faults = append(faults, err)
			continue
		}
		t.limits[e] = limits
		t.entries = append(t.entries, Entry{e, limits})
		if rate, ok := limits[ConnectionRate]; ok && !e.ip.all {
			addr, _ := netip.ParseAddr(e.ip.text)
			t.byIP[addr.Unmap()] = rate
		}
	}
	slices.SortFunc(t.entries, compare)
	return t, errors.Join(faults...)
}

// Len is the number of entities with limits.
func (t *Table) Len() int { return len(t.entries) }

// Client names who is held to a limit together: all connections of a user and a client id, of a user ("" client id), or
// of a client id ("" user).
type Client struct{ User, ID string }

// Limit returns the limit that holds for a client, and with whom it shares it. The most specific entity wins, in Kafka's
// order: user and client id, user and any client id, user, any user and client id, any user and any client id, any user,
// client id, any client id; an entity that does not have this limit is passed over. A client without a client id is not
// any client id.
func (t *Table) Limit(key, user, clientID string) (rate float64, held Client, ok bool) {
	u, c := name{given: true, text: user}, name{given: true, text: clientID}
	all := name{given: true, all: true}
	both, alone, id := Client{user, clientID}, Client{User: user}, Client{ID: clientID}
	for _, level := range [...]struct {
		e        Entity
		held     Client
		clientID bool // needs one
	}{
		{Entity{user: u, client: c}, both, true}, {Entity{user: u, client: all}, both, true}, {Entity{user: u}, alone, false},
		{Entity{user: all, client: c}, both, true}, {Entity{user: all, client: all}, both, true}, {Entity{user: all}, alone, false},
		{Entity{client: c}, id, true}, {Entity{client: all}, id, true},
	} {
		if level.clientID && clientID == "" {
			continue
		}
		if rate, ok := t.limits[level.e][key]; ok {
			return rate, level.held, true
		}
	}
	return 0, Client{}, false
}

// ConnectionLimit returns how many connections a second an address may open.
func (t *Table) ConnectionLimit(addr netip.Addr) (rate float64, ok bool) {
	if rate, ok = t.byIP[addr.Unmap()]; ok {
		return rate, true
	}
	rate, ok = t.limits[Entity{ip: name{given: true, all: true}}][ConnectionRate]
	return rate, ok
}

// How a component of a filter matches the names of its type, numbered as in DescribeClientQuotas.
const (
	MatchExact   int8 = 0 // this name
	MatchDefault int8 = 1 // the default
	MatchAny     int8 = 2 // any name, and the default
)

// Component is one condition of a filter.
type Component struct {
	Type  string
	Match int8
	Name  *string // with MatchExact only
}

// Select returns the entries whose entities meet every component, in order; with strict those that have no other parts.
// ErrInvalid, ErrUnknownType.
func (t *Table) Select(filter []Component, strict bool) ([]Entry, error) {
	if err := checkFilter(filter); err != nil {
		return nil, err
	}
	var found []Entry
	for _, entry := range t.entries {
		e := entry.Entity
		meets := !strict || len(e.Parts()) == len(filter)
		for _, c := range filter {
			n := *e.part(c.Type)
			meets = meets && n.given && (c.Match == MatchAny || c.Match == MatchDefault && n.all || c.Match == MatchExact && !n.all && n.text == *c.Name)
		}
		if meets {
			found = append(found, entry)
		}
	}
	return found, nil
}

func checkFilter(filter []Component) error {
	seen := map[string]bool{}
	for _, c := range filter {
		switch {
		case c.Type == "":
			return refuse("Invalid empty entity type.")
		case seen[c.Type]:
			return refuse("Entity type %s cannot appear more than once in the filter.", c.Type)
		case c.Type != User && c.Type != ClientID && c.Type != IP:
			return &refusal{ErrUnknownType, "Unsupported entity type " + c.Type}
		case c.Match == MatchExact && c.Name == nil:
			return refuse("Request specified MATCH_TYPE_EXACT, but set match string to null.")
		case c.Match == MatchDefault && c.Name != nil:
			return refuse("Request specified MATCH_TYPE_DEFAULT, but also specified a match string.")
		case c.Match == MatchAny && c.Name != nil:
			return refuse("Request specified MATCH_TYPE_SPECIFIED, but also specified a match string.")
		case c.Match < MatchExact || c.Match > MatchAny:
			return refuse("Unknown match type %d", c.Match)
		}
		seen[c.Type] = true
	}
	if seen[IP] && len(seen) > 1 {
		return refuse("Invalid entity filter component combination. IP filter component should not be used with user or clientId filter component.")
	}
	return nil
}
