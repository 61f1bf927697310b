package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/controller"
)

// AlterConfigs (key 33, v0-2; KIP-133), which replaces a resource's whole set of settings, and IncrementalAlterConfigs
// (key 44, v0-1; KIP-339). Both answer once the change is in effect on this broker.

func (s *Server) alterConfigs(ctx context.Context, _ *call, req *kmsg.AlterConfigsRequest) (kmsg.Response, error) {
	changes := make([]controller.ConfigChange, len(req.Resources))
	for i, r := range req.Resources {
		changes[i] = controller.ConfigChange{Type: controller.ResourceType(r.ResourceType), Name: r.ResourceName}
		for _, c := range r.Configs {
			changes[i].Changes = append(changes[i].Changes, config.Change{Name: c.Name, Op: config.Set, Value: c.Value})
		}
	}
	errs := s.alter(ctx, changes, req.ValidateOnly, s.broker.Controller.LegacyAlterConfigs)
	resp := req.ResponseKind().(*kmsg.AlterConfigsResponse)
	for i, r := range req.Resources {
		rr := kmsg.NewAlterConfigsResponseResource()
		rr.ResourceType, rr.ResourceName, rr.ErrorCode, rr.ErrorMessage = r.ResourceType, r.ResourceName, codeOf(errs[i]), messageOf(errs[i])
		resp.Resources = append(resp.Resources, rr)
	}
	return resp, nil
}

func (s *Server) incrementalAlterConfigs(ctx context.Context, _ *call, req *kmsg.IncrementalAlterConfigsRequest) (kmsg.Response, error) {
	changes := make([]controller.ConfigChange, len(req.Resources))
	for i, r := range req.Resources {
		changes[i] = controller.ConfigChange{Type: controller.ResourceType(r.ResourceType), Name: r.ResourceName}
		for _, c := range r.Configs {
			changes[i].Changes = append(changes[i].Changes, config.Change{Name: c.Name, Op: config.Op(c.Op), Value: c.Value})
		}
	}
	errs := s.alter(ctx, changes, req.ValidateOnly, s.broker.Controller.AlterConfigs)
	resp := req.ResponseKind().(*kmsg.IncrementalAlterConfigsResponse)
	for i, r := range req.Resources {
		rr := kmsg.NewIncrementalAlterConfigsResponseResource()
		rr.ResourceType, rr.ResourceName, rr.ErrorCode, rr.ErrorMessage = r.ResourceType, r.ResourceName, codeOf(errs[i]), messageOf(errs[i])
		resp.Resources = append(resp.Resources, rr)
	}
	return resp, nil
}

// alter passes on to the controller what it decides about, and returns one error or nil for each change.
func (s *Server) alter(ctx context.Context, changes []controller.ConfigChange, validateOnly bool, apply func(context.Context, []controller.ConfigChange, bool) []error) []error {
	ctx, cancel := adminContext(ctx, 0)
	defer cancel()
	errs := make([]error, len(changes))
	var known []controller.ConfigChange
	var at []int
	for i, c := range changes {
		switch c.Type {
		case controller.TopicResource, controller.GroupResource:
		case controller.BrokerResource:
			if c.Name != "" {
				if errs[i] = s.ownBroker(c.Name); errs[i] != nil {
					continue
				}
			}
		case controller.ResourceType(brokerLoggerResource):
			errs[i] = s.alterLoggers(c)
			continue
		default:
			errs[i] = fmt.Errorf("%w: resource type %d has no settings here", errInvalidRequest, c.Type)
			continue
		}
		known, at = append(known, c), append(at, i)
	}
	changed := false
	for i, err := range apply(ctx, known, validateOnly) {
		errs[at[i]] = err
		changed = changed || err == nil
	}
	if !changed || validateOnly {
		return errs
	}
	if err := s.broker.Settled(ctx); err != nil {
		for _, i := range at {
			if errs[i] == nil {
				errs[i] = err
			}
		}
	}
	return errs
}

// alterLoggers refuses: the level of the one logger there is is a setting of the process.
func (s *Server) alterLoggers(c controller.ConfigChange) error {
	if err := s.ownBroker(c.Name); err != nil {
		return err
	}
	for _, change := range c.Changes {
		if change.Name != rootLogger {
			return fmt.Errorf("%w: logger %s does not exist", config.ErrInvalid, change.Name)
		}
	}
	return fmt.Errorf("%w: the level of the log is set by log_level when the broker starts", errInvalidRequest)
}
