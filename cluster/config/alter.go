package config

import (
	"fmt"
	"slices"
	"strings"
)

// Op is what IncrementalAlterConfigs does to one setting, numbered as on the wire.
type Op int8

// The operations. Append and Subtract work on lists only.
const (
	Set      Op = 0
	Delete   Op = 1
	Append   Op = 2
	Subtract Op = 3
)

// String returns Kafka's word for the operation.
func (o Op) String() string {
	switch o {
	case Set:
		return "SET"
	case Delete:
		return "DELETE"
	case Append:
		return "APPEND"
	case Subtract:
		return "SUBTRACT"
	}
	return fmt.Sprintf("operation %d", int8(o))
}

// Change is one alteration. Value is ignored for Delete and must not be null otherwise.
type Change struct {
	Name  string
	Op    Op
	Value *string
}

// Replacing turns the entries of a legacy AlterConfigs request, which replaces the whole set, into changes of current.
func Replacing(current map[string]string, entries []Change) []Change {
	changes := slices.Clone(entries)
	for _, name := range sortedNames(current) {
		if !slices.ContainsFunc(entries, func(c Change) bool { return c.Name == name }) {
			changes = append(changes, Change{Name: name, Op: Delete})
		}
	}
	return changes
}

// AlterTopic returns a topic's settings after the changes, validated as a whole; current is not modified.
func AlterTopic(current map[string]string, changes []Change, b *Broker) (map[string]string, error) {
	if b == nil {
		b = defaults
	}
	if err := wellFormed(changes); err != nil {
		return nil, err
	}
	after := clone(current)
	for _, c := range changes {
		k, ok := topicKeys[c.Name]
		if !ok {
			if c.Op == Delete { // lets an operator remove what another version left behind
				delete(after, c.Name)
				continue
			}
			return nil, ValidateTopicNames(map[string]string{c.Name: ""})
		}
		if err := apply(after, k, c, topicView{after, b}.text(c.Name)); err != nil {
			return nil, err
		}
	}
	if _, err := Topic(after, b); err != nil {
		return nil, err
	}
	return after, ValidateTopicChange(current, after, b)
}

// AlterBroker returns the dynamic settings of one broker (named) or of all brokers (not named) after the changes.
// Settings that cannot change at run time, or not for all brokers at once, are refused with ErrReadOnly.
func AlterBroker(current map[string]string, changes []Change, named bool) (map[string]string, error) {
	if err := wellFormed(changes); err != nil {
		return nil, err
	}
	after := clone(current)
	for _, c := range changes {
		k, ok := BrokerKey(c.Name)
		switch {
		case !ok && c.Op == Delete:
			delete(after, c.Name)
			continue
		case !ok:
			return nil, unknownBroker(c.Name)
		case k.Scope == ReadOnly && c.Op != Delete:
			return nil, &fault{ErrReadOnly, "Cannot update these configs dynamically: [" + c.Name + "]"}
		case k.Scope == PerBroker && !named && c.Op != Delete:
			return nil, &fault{ErrReadOnly, "Cannot update these configs at default cluster level, broker id must be specified: [" + c.Name + "]"}
		}
		old, ok := after[c.Name]
		if !ok && k.HasDefault {
			old = k.Default
		}
		if err := apply(after, k, c, old); err != nil {
			return nil, &fault{ErrRequest, err.Error()} // where Kafka says INVALID_CONFIG of topics
		}
	}
	return after, nil
}

// wellFormed checks what makes a request as a whole invalid.
func wellFormed(changes []Change) error {
	seen := make(map[string]bool, len(changes))
	for _, c := range changes {
		switch {
		case c.Name == "":
			return &fault{ErrRequest, "Config name must not be empty"}
		case seen[c.Name]:
			return &fault{ErrRequest, "Error due to duplicate config keys"}
		case c.Op < Set || c.Op > Subtract:
			return &fault{ErrRequest, "Unknown " + c.Op.String() + " for config " + c.Name}
		case c.Op != Delete && c.Value == nil:
			return &fault{ErrRequest, "Null value not supported for : " + c.Name}
		}
		seen[c.Name] = true
	}
	return nil
}

func apply(values map[string]string, k *Key, c Change, old string) error {
	if c.Op == Delete {
		delete(values, c.Name)
		return nil
	}
	text := *c.Value
	if c.Op == Append || c.Op == Subtract {
		if k.Type != List {
			return invalid("Can't " + c.Op.String() + " to key " + c.Name + " because its type is not LIST.")
		}
		items := splitList(old)
		for _, item := range splitList(text) {
			i := slices.Index(items, item)
			switch {
			case c.Op == Append && i < 0:
				items = append(items, item)
			case c.Op == Subtract && i >= 0:
				items = slices.Delete(items, i, i+1)
			}
		}
		text = strings.Join(items, ",")
	}
	value, err := k.parse(text)
	if err != nil {
		return err
	}
	values[c.Name] = value
	return nil
}

func clone(m map[string]string) map[string]string {
	c := make(map[string]string, len(m)+1)
	for k, v := range m {
		c[k] = v
	}
	return c
}
