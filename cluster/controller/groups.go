package controller

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/metadata"
)

// groupKind is the kind of the settings of groups among the values of the metadata log: by group id, a JSON object of
// settings by name.
const groupKind = "group-config"

// GroupConfigs returns the settings that a group has of its own, nil if it has none. config.Group makes them effective.
func GroupConfigs(img *metadata.Image, group string) map[string]string {
	value, ok := img.Values(groupKind)[group]
	if !ok {
		return nil
	}
	var own map[string]string
	if err := json.Unmarshal([]byte(value), &own); err != nil {
		return nil // a later version's, in a form that this one does not know: the defaults hold
	}
	return own
}

// ConfiguredGroups returns the ids of the groups that have settings of their own, in order. The groups need not exist.
func ConfiguredGroups(img *metadata.Image) []string {
	return slices.Sorted(maps.Keys(img.Values(groupKind)))
}

// alterGroup checks the changes of one group's settings and returns the record, or nil if they change nothing.
func alterGroup(img *metadata.Image, ch ConfigChange, replace bool, settings *config.Broker) (metadata.Record, error) {
	if ch.Name == "" {
		return nil, refuse(ErrInvalidRequest, "Default group resources are not allowed.")
	}
	current := GroupConfigs(img, ch.Name)
	after, err := config.AlterGroup(current, with(current, ch.Changes, replace), settings)
	if err != nil || maps.Equal(after, current) {
		return nil, err
	}
	r := metadata.ValueSet{Kind: groupKind, Key: ch.Name}
	if len(after) > 0 {
		value, err := json.Marshal(after)
		if err != nil {
			return nil, fmt.Errorf("encode settings of group %q: %w", ch.Name, err)
		}
		r.Value = string(value)
	}
	return r, nil
}
