package controller

import (
	"context"
	"maps"

	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/cluster/quota"
)

// QuotaChange alters the limits of one entity.
type QuotaChange struct {
	Entity []quota.Part
	Ops    []quota.Op
}

// AlterQuotas changes client quotas, each entity for itself, and returns one error or nil per change; validateOnly does
// everything but change. quota.ErrInvalid; see CreateTopics. An entity named twice is refused twice: Kafka applies the first.
func (c *Controller) AlterQuotas(ctx context.Context, changes []QuotaChange, validateOnly bool) []error {
	entities, faults, named := make([]quota.Entity, len(changes)), make([]error, len(changes)), map[quota.Entity]int{}
	for i, ch := range changes {
		if entities[i], faults[i] = quota.NewEntity(ch.Entity); faults[i] == nil {
			named[entities[i]]++
		}
	}
	return c.eachChange(ctx, len(changes), validateOnly, func(img *metadata.Image, i int) (metadata.Record, error) {
		e := entities[i]
		switch {
		case faults[i] != nil:
			return nil, faults[i]
		case named[e] > 1:
			return nil, refuse(ErrInvalidRequest, "Ignoring duplicate entity %s", e)
		}
		current, err := quota.Decode(img.Values(quota.Kind)[e.String()])
		if err != nil {
			current = nil // a later version's; what is set now replaces it
		}
		after, err := quota.Alter(e, current, changes[i].Ops)
		if err != nil || maps.Equal(after, current) {
			return nil, err
		}
		return metadata.ValueSet{Kind: quota.Kind, Key: e.String(), Value: quota.Encode(after)}, nil
	})
}
