package controller

import (
	"context"
	"maps"
	"strconv"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/metadata"
)

// ResourceType is what a setting belongs to, numbered as in AlterConfigs requests.
type ResourceType int8

// The resources that have settings in the metadata log.
const (
	TopicResource  ResourceType = 2
	BrokerResource ResourceType = 4
	GroupResource  ResourceType = 32
)

// ConfigChange alters the settings of one resource: a topic by name, a broker by decimal id, all brokers by "", or a
// group by its id.
type ConfigChange struct {
	Type    ResourceType
	Name    string
	Changes []config.Change
}

// AlterConfigs applies incremental changes, each resource for itself, and returns one error or nil per resource.
// ErrInvalidConfig, config.ErrReadOnly, ErrInvalidRequest, ErrUnknownTopic, ErrInvalidTopicName; see CreateTopics.
func (c *Controller) AlterConfigs(ctx context.Context, changes []ConfigChange, validateOnly bool) []error {
	return c.alter(ctx, changes, false, validateOnly)
}

// LegacyAlterConfigs replaces the whole set of settings of each resource by what Changes set.
func (c *Controller) LegacyAlterConfigs(ctx context.Context, changes []ConfigChange, validateOnly bool) []error {
	return c.alter(ctx, changes, true, validateOnly)
}

func (c *Controller) alter(ctx context.Context, changes []ConfigChange, replace, validateOnly bool) []error {
	type resource struct {
		t    ResourceType
		name string
	}
	seen := map[resource]int{}
	for _, ch := range changes {
		seen[resource{ch.Type, ch.Name}]++
	}
	return c.eachChange(ctx, len(changes), validateOnly, func(img *metadata.Image, i int) (metadata.Record, error) {
		if seen[resource{changes[i].Type, changes[i].Name}] > 1 {
			return nil, refuse(ErrInvalidRequest, "Each resource must appear at most once.")
		}
		return c.alteration(img, changes[i], replace)
	})
}

// alteration checks one resource's changes and returns the record, or nil if they change nothing.
func (c *Controller) alteration(img *metadata.Image, ch ConfigChange, replace bool) (metadata.Record, error) {
	switch ch.Type {
	case TopicResource:
		if err := ValidateTopicName(ch.Name); err != nil {
			return nil, err
		}
		t := img.Topic(ch.Name)
		if t == nil {
			return nil, refuse(ErrUnknownTopic, "The topic '%s' does not exist.", ch.Name)
		}
		after, err := config.AlterTopic(t.Configs, with(t.Configs, ch.Changes, replace), c.settings(img))
		if err != nil || maps.Equal(after, t.Configs) {
			return nil, err
		}
		return metadata.TopicConfigured{ID: t.ID, Configs: after}, nil
	case BrokerResource:
		current := img.ClusterConfigs()
		if ch.Name != "" {
			id, err := strconv.ParseInt(ch.Name, 10, 32)
			if err != nil || id < 0 || strconv.FormatInt(id, 10) != ch.Name {
				return nil, refuse(ErrInvalidRequest, "Unable to parse broker name as base 10 number.")
			}
			_, current = img.BrokerConfigs(int32(id))
		}
		after, err := config.AlterBroker(current, with(current, ch.Changes, replace), ch.Name != "")
		if err != nil || maps.Equal(after, current) {
			return nil, err
		}
		return metadata.BrokerConfigured{Broker: ch.Name, Configs: after}, nil
	case GroupResource:
		return alterGroup(img, ch, replace, c.settings(img))
	}
	return nil, refuse(ErrInvalidRequest, "Unexpected resource type %d.", ch.Type)
}

func with(current map[string]string, changes []config.Change, replace bool) []config.Change {
	if replace {
		return config.Replacing(current, changes)
	}
	return changes
}
