package kafka

import (
	"context"
	"fmt"
	"strconv"

	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/controller"
)

// DescribeConfigs (key 32, v1-4; KIP-133, KIP-226, KIP-569).

func (s *Server) describeConfigs(_ context.Context, _ *call, req *kmsg.DescribeConfigsRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.DescribeConfigsResponse)
	for _, r := range req.Resources {
		out := kmsg.NewDescribeConfigsResponseResource()
		out.ResourceType, out.ResourceName, out.Configs = r.ResourceType, r.ResourceName, []kmsg.DescribeConfigsResponseResourceConfig{}
		entries, err := s.configEntries(r)
		out.ErrorCode, out.ErrorMessage = codeOf(err), messageOf(err)
		for i := range entries {
			out.Configs = append(out.Configs, configEntry(&entries[i], req))
		}
		resp.Resources = append(resp.Resources, out)
	}
	return resp, nil
}

func (s *Server) configEntries(r kmsg.DescribeConfigsRequestResource) ([]config.Entry, error) {
	image := s.broker.Image()
	if len(r.ConfigNames) == 0 {
		r.ConfigNames = nil // an empty list asks for all, as null does
	}
	switch r.ResourceType {
	case kmsg.ConfigResourceTypeTopic:
		if err := controller.ValidateTopicName(r.ResourceName); err != nil {
			return nil, err
		}
		t := image.Topic(r.ResourceName)
		if t == nil {
			return nil, errUnknownTopic
		}
		return config.DescribeTopic(t.Configs, s.broker.Config(), r.ConfigNames), nil
	case kmsg.ConfigResourceTypeBroker:
		if r.ResourceName == "" {
			return config.DescribeClusterDefaults(image.ClusterConfigs(), r.ConfigNames), nil
		}
		if err := s.ownBroker(r.ResourceName); err != nil {
			return nil, err
		}
		return s.broker.Config().Describe(r.ConfigNames), nil
	case kmsg.ConfigResourceTypeBrokerLogger:
		return nil, s.ownBroker(r.ResourceName) // one logger, whose level is a flag: nothing to list
	}
	return nil, fmt.Errorf("%w: resource type %d has no settings here", errInvalidRequest, r.ResourceType)
}

// ownBroker refuses a broker resource that is not this broker: clients ask each broker for its own.
func (s *Server) ownBroker(name string) error {
	id, err := strconv.ParseInt(name, 10, 32)
	if err != nil {
		return fmt.Errorf("%w: broker id %q is not a number", errInvalidRequest, name)
	}
	if int32(id) != s.broker.ID() {
		return fmt.Errorf("%w: unexpected broker id, expected %d or empty string, but received %d", errInvalidRequest, s.broker.ID(), id)
	}
	return nil
}

func configEntry(e *config.Entry, req *kmsg.DescribeConfigsRequest) kmsg.DescribeConfigsResponseResourceConfig {
	c := kmsg.NewDescribeConfigsResponseResourceConfig()
	c.Name, c.Value, c.ReadOnly, c.IsSensitive = e.Name, e.Value, e.ReadOnly, e.Sensitive
	c.Source, c.ConfigType = kmsg.ConfigSource(e.Source), kmsg.ConfigType(e.Type)
	c.IsDefault = e.Source == config.FromDefault
	c.ConfigSynonyms = []kmsg.DescribeConfigsResponseResourceConfigConfigSynonym{}
	if req.IncludeDocumentation {
		doc := e.Doc
		c.Documentation = &doc
	}
	if req.IncludeSynonyms {
		for _, syn := range e.Synonyms {
			cs := kmsg.NewDescribeConfigsResponseResourceConfigConfigSynonym()
			cs.Name, cs.Value, cs.Source = syn.Name, syn.Value, kmsg.ConfigSource(syn.Source)
			c.ConfigSynonyms = append(c.ConfigSynonyms, cs)
		}
	}
	return c
}
