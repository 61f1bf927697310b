package kafka

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
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
	switch int8(r.ResourceType) {
	case topicResource:
		if err := controller.ValidateTopicName(r.ResourceName); err != nil {
			return nil, err
		}
		t := image.Topic(r.ResourceName)
		if t == nil {
			return nil, errUnknownTopic
		}
		return config.DescribeTopic(t.Configs, s.broker.Config(), r.ConfigNames), nil
	case brokerResource:
		if r.ResourceName == "" {
			return config.DescribeClusterDefaults(image.ClusterConfigs(), r.ConfigNames), nil
		}
		if err := s.ownBroker(r.ResourceName); err != nil {
			return nil, err
		}
		return s.broker.Config().Describe(r.ConfigNames), nil
	case brokerLoggerResource:
		if err := s.ownBroker(r.ResourceName); err != nil {
			return nil, err
		}
		return s.loggers(r.ConfigNames), nil
	case clientMetricsResource: // the broker collects none (KIP-714)
		if r.ResourceName == "" {
			return nil, fmt.Errorf("%w: client metrics subscription name must not be empty", errInvalidRequest)
		}
		return nil, nil
	case groupResource:
		if r.ResourceName == "" {
			return nil, fmt.Errorf("%w: group name must not be empty", errInvalidRequest)
		}
		return config.DescribeGroup(controller.GroupConfigs(image, r.ResourceName), s.broker.Config(), r.ConfigNames), nil
	}
	return nil, fmt.Errorf("%w: resource type %d has no settings here", errInvalidRequest, r.ResourceType)
}

// rootLogger is the one logger there is, as Kafka names it. Its level is set when the broker starts.
const rootLogger = "root"

// levels are Kafka's words, the most talkative first.
var levels = []struct {
	level slog.Level
	word  string
}{{slog.LevelDebug, "DEBUG"}, {slog.LevelInfo, "INFO"}, {slog.LevelWarn, "WARN"}, {slog.LevelError, "ERROR"}}

// loggers describes the broker's log.
func (s *Server) loggers(names []string) []config.Entry {
	if names != nil && !slices.Contains(names, rootLogger) {
		return nil
	}
	word := "OFF"
	for _, l := range slices.Backward(levels) {
		if s.log.Enabled(context.Background(), l.level) {
			word = l.word
		}
	}
	return []config.Entry{{Name: rootLogger, Value: &word, Source: config.FromLogger, Doc: "The level of the broker's log."}}
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
