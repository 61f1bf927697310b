// Package quota owns the limits that clients are held to: whom a limit is for, which limits there are and what they may
// be, how a request changes them, their form in the metadata log, and which of them holds for a client (KIP-13, KIP-257,
// KIP-546). Names, rules and sentences are those of Apache Kafka 4.3.1.
//
// It stores nothing: quotas are values in the metadata image. It enforces nothing: that is ingest/kafka, which asks a
// Table for the limit of each client. The controller checks changes with it. All functions are pure.
package quota

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"net/netip"
	"slices"
	"strings"
)

// Kind is the kind of the quotas among the values of the metadata log (metadata.ValueSet). The key of a value is
// Entity.String, the value a JSON object of limits by name.
const Kind = "client-quota"

// The types of the parts of an entity.
const (
	User     = "user"
	ClientID = "client-id"
	IP       = "ip"
)

// The limits. The first four are for users and client ids, the last for addresses.
const (
	ProducerByteRate   = "producer_byte_rate"       // bytes a second
	ConsumerByteRate   = "consumer_byte_rate"       // bytes a second
	RequestPercentage  = "request_percentage"       // percent of a thread's time
	MutationRate       = "controller_mutation_rate" // partitions created or deleted a second
	ConnectionRate     = "connection_creation_rate" // connections a second
	fractionTolerance  = 1e-6                       // of limits that must be whole numbers, as in Kafka
	largestWhole       = math.MaxInt64
	largestConnections = math.MaxInt32
)

// ErrInvalid is wrapped by every refusal of an entity, a limit or a filter: INVALID_REQUEST. The whole text of such an
// error is the sentence for the client, Kafka's where Kafka has one.
var ErrInvalid = errors.New("invalid quota request")

// ErrUnknownType is wrapped when a filter names a type of entity that does not exist: UNSUPPORTED_VERSION.
var ErrUnknownType = errors.New("unknown type of quota entity")

type refusal struct {
	kind     error
	sentence string
}

func (r *refusal) Error() string { return r.sentence }
func (r *refusal) Unwrap() error { return r.kind }

func refuse(format string, args ...any) error {
	return &refusal{ErrInvalid, fmt.Sprintf(format, args...)}
}

// Part is one part of an entity, as requests give it. A nil Name stands for all names without a limit of their own.
type Part struct {
	Type string
	Name *string
}

// name is one part of an entity in a form that can be compared.
type name struct {
	given bool // the entity has a part of this type
	all   bool // the default of the type
	text  string
}

func (n name) pointer() *string {
	if n.all {
		return nil
	}
	return &n.text
}

// Entity is whom limits are for: a user, a client id, both, or an address; each by name or as the default. Comparable. The
// zero value is nobody.
type Entity struct{ user, client, ip name }

// NewEntity makes an entity of its parts. ErrInvalid.
func NewEntity(parts []Part) (Entity, error) {
	var e Entity
	for _, p := range parts {
		to := e.part(p.Type)
		switch {
		case to == nil:
			return Entity{}, refuse("Unhandled client quota entity type: %s", p.Type)
		case to.given:
			return Entity{}, refuse("Invalid client quota entity, duplicate entity entry %s", p.Type)
		case p.Name != nil && *p.Name == "":
			return Entity{}, refuse("Empty %s not supported", p.Type)
		}
		*to = name{given: true, all: p.Name == nil}
		if p.Name != nil {
			to.text = *p.Name
		}
	}
	switch {
	case e == Entity{}:
		return e, refuse("Invalid empty client quota entity")
	case e.ip.given && (e.user.given || e.client.given):
		return e, refuse("Invalid quota entity combination, IP entity should not be combined with User or ClientId")
	case e.ip.given && !e.ip.all:
		if _, err := netip.ParseAddr(e.ip.text); err != nil { // Kafka takes host names too; resolving one is no decision of the log
			return e, refuse("%s is not a valid IP address.", e.ip.text)
		}
	}
	return e, nil
}

func (e *Entity) part(kind string) *name {
	switch kind {
	case User:
		return &e.user
	case ClientID:
		return &e.client
	case IP:
		return &e.ip
	}
	return nil
}

// Parts returns the parts of an entity, in the order user, client-id, ip.
func (e Entity) Parts() []Part {
	var parts []Part
	for _, kind := range []string{User, ClientID, IP} {
		if n := e.part(kind); n.given {
			parts = append(parts, Part{kind, n.pointer()})
		}
	}
	return parts
}

// String is the entity's key in the metadata log: a JSON object of names by type, null for the default.
func (e Entity) String() string {
	named := map[string]*string{}
	for _, p := range e.Parts() {
		named[p.Type] = p.Name
	}
	text, err := json.Marshal(named) // sorted by type
	if err != nil {
		panic(err) // a map of strings
	}
	return string(text)
}

// parseEntity reads what String wrote.
func parseEntity(key string) (Entity, error) {
	var named map[string]*string
	if err := json.Unmarshal([]byte(key), &named); err != nil {
		return Entity{}, refuse("quota entity %q: %s", key, err)
	}
	var parts []Part
	for kind, n := range named {
		parts = append(parts, Part{kind, n})
	}
	return NewEntity(parts)
}

// Op sets one limit, or removes it.
type Op struct {
	Key    string
	Value  float64
	Remove bool
}

// Alter returns the limits of an entity after the changes; current is not modified. ErrInvalid.
func Alter(e Entity, current map[string]float64, ops []Op) (map[string]float64, error) {
	after := maps.Clone(current)
	if after == nil {
		after = map[string]float64{}
	}
	seen := map[string]bool{}
	for _, op := range ops {
		if seen[op.Key] {
			return nil, refuse("Duplicate quota key %s not updating quota for this entity %s", op.Key, e)
		}
		seen[op.Key] = true
		if op.Remove {
			delete(after, op.Key)
			continue
		}
		if err := e.check(op.Key, op.Value); err != nil {
			return nil, err
		}
		after[op.Key] = op.Value
	}
	return after, nil
}

// check applies Kafka's rules for the value of one limit. Values that are no numbers, or infinite, are refused too: Kafka
// takes some of them.
func (e Entity) check(key string, value float64) error {
	forAddress := key == ConnectionRate
	if !slices.Contains([]string{ProducerByteRate, ConsumerByteRate, RequestPercentage, MutationRate, ConnectionRate}, key) || forAddress != e.ip.given {
		return refuse("Invalid configuration key %s", key)
	}
	if !(value > 0) { // also NaN
		return refuse("Quota %s must be greater than 0", key)
	}
	largest, of := math.MaxFloat64, "DOUBLE"
	switch key {
	case ProducerByteRate, ConsumerByteRate:
		largest, of = largestWhole, "LONG"
	case ConnectionRate:
		largest, of = largestConnections, "INT"
	}
	switch {
	case value > largest:
		return refuse("Proposed value for %s is too large for a %s.", key, of)
	case of != "DOUBLE" && math.Mod(value, 1) > fractionTolerance:
		return refuse("%s cannot be a fractional value.", key)
	}
	return nil
}

// Encode is the form of limits in the metadata log; "" for none, which removes the value.
func Encode(limits map[string]float64) string {
	if len(limits) == 0 {
		return ""
	}
	text, err := json.Marshal(limits)
	if err != nil {
		panic(err) // finite numbers, see check
	}
	return string(text)
}

// Decode reads what Encode wrote.
func Decode(value string) (map[string]float64, error) {
	limits := map[string]float64{}
	if value == "" {
		return limits, nil
	}
	if err := json.Unmarshal([]byte(value), &limits); err != nil {
		return nil, refuse("quota limits %q: %s", value, err)
	}
	return limits, nil
}

// Entry is what one entity is limited to.
type Entry struct {
	Entity Entity
	Limits map[string]float64
}

// NamedLimit is one limit with its name.
type NamedLimit struct {
	Key   string
	Value float64
}

// Sorted returns the limits in the order of their names.
func (e Entry) Sorted() []NamedLimit {
	var all []NamedLimit
	for _, key := range slices.Sorted(maps.Keys(e.Limits)) {
		all = append(all, NamedLimit{key, e.Limits[key]})
	}
	return all
}

// compare orders entries by their keys, so that an answer is always the same.
func compare(a, b Entry) int { return strings.Compare(a.Entity.String(), b.Entity.String()) }
