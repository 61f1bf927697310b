package kafka

import (
	"context"
	"slices"
	"strconv"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/controller"
)

// Types of resources that kmsg does not name, or that lists name by number.
const (
	topicResource         = int8(kmsg.ConfigResourceTypeTopic)
	brokerResource        = int8(kmsg.ConfigResourceTypeBroker)
	brokerLoggerResource  = int8(kmsg.ConfigResourceTypeBrokerLogger)
	clientMetricsResource = int8(16)
	groupResource         = int8(controller.GroupResource)
)

// ListConfigResources (key 74, v0-1; KIP-714, KIP-1142): what DescribeConfigs can be asked about, by type. Version 0 lists
// subscriptions to client metrics alone, of which there are none.
func (s *Server) listConfigResources(_ context.Context, _ *call, req *kmsg.ListConfigResourcesRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.ListConfigResourcesResponse)
	all := []int8{groupResource, clientMetricsResource, brokerLoggerResource, brokerResource, topicResource}
	types := req.ResourceTypes
	switch {
	case req.Version == 0:
		types = []int8{clientMetricsResource}
	case len(types) == 0:
		types = all
	}
	for _, kind := range types {
		if !slices.Contains(all, kind) {
			resp.ErrorCode, resp.ConfigResources = kerr.UnsupportedVersion.Code, nil
			return resp, nil
		}
	}
	for _, kind := range all {
		if !slices.Contains(types, kind) {
			continue
		}
		for _, name := range s.configResources(kind) {
			r := kmsg.NewListConfigResourcesResponseConfigResource()
			r.Name, r.Type = name, kind
			resp.ConfigResources = append(resp.ConfigResources, r)
		}
	}
	return resp, nil
}

func (s *Server) configResources(kind int8) (names []string) {
	image := s.broker.Image()
	switch kind {
	case groupResource:
		return controller.ConfiguredGroups(image)
	case brokerResource, brokerLoggerResource:
		for _, id := range image.BrokerIDs() {
			names = append(names, strconv.Itoa(int(id)))
		}
	case topicResource:
		for t := range image.Topics() {
			names = append(names, t.Name)
		}
	}
	return names
}
