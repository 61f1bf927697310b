package kafka

import (
	"context"
	"regexp"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// ApiVersions (key 18, v0-4; KIP-35, KIP-511, KIP-584).

var softwareName = regexp.MustCompile(`^[a-zA-Z0-9](?:[a-zA-Z0-9\-.]*[a-zA-Z0-9])?$`)

// feature is a finalised feature of the cluster, by which clients and consoles choose what they use.
type feature struct {
	name  string
	level int16
}

// metadataVersion is 4.3-IV0: consoles derive the Kafka version from it, and so which functions they offer.
var features = []feature{{"metadata.version", 30}}

// featuresEpoch numbers the list of finalised features; a running Java producer notices a change only if it grows.
const featuresEpoch = 1

func (s *Server) apiVersions(_ context.Context, c *call, req *kmsg.ApiVersionsRequest) (kmsg.Response, error) {
	resp := req.ResponseKind().(*kmsg.ApiVersionsResponse)
	if req.Version >= 3 {
		if !softwareName.MatchString(req.ClientSoftwareName) || !softwareName.MatchString(req.ClientSoftwareVersion) {
			resp.ErrorCode = kerr.InvalidRequest.Code
			return resp, nil
		}
		c.conn.clientSoftware = req.ClientSoftwareName + "/" + req.ClientSoftwareVersion
	}
	for key, a := range apis {
		k := kmsg.NewApiVersionsResponseApiKey()
		k.ApiKey, k.MinVersion, k.MaxVersion = key, a.advertisedMin, a.max
		resp.ApiKeys = append(resp.ApiKeys, k)
	}
	slices.SortFunc(resp.ApiKeys, func(a, b kmsg.ApiVersionsResponseApiKey) int { return int(a.ApiKey) - int(b.ApiKey) })
	for _, f := range features {
		// Below v4 a supported feature whose minimum is 0 must not be sent (KAFKA-17011); metadata.version starts at 7.
		sf := kmsg.NewApiVersionsResponseSupportedFeature()
		sf.Name, sf.MinVersion, sf.MaxVersion = f.name, 7, f.level
		resp.SupportedFeatures = append(resp.SupportedFeatures, sf)
		ff := kmsg.NewApiVersionsResponseFinalizedFeature()
		ff.Name, ff.MinVersionLevel, ff.MaxVersionLevel = f.name, f.level, f.level
		resp.FinalizedFeatures = append(resp.FinalizedFeatures, ff)
	}
	resp.FinalizedFeaturesEpoch = featuresEpoch
	return resp, nil
}

// unsupportedApiVersions answers a version that is not served: in v0 encoding, with error 35 and only the range of
// ApiVersions itself, so that the client can ask again (KIP-511).
func unsupportedApiVersions() kmsg.Response {
	resp := kmsg.NewPtrApiVersionsResponse()
	resp.Version = 0
	resp.ErrorCode = kerr.UnsupportedVersion.Code
	k := kmsg.NewApiVersionsResponseApiKey()
	k.ApiKey, k.MinVersion, k.MaxVersion = keyApiVersions, apis[keyApiVersions].min, apis[keyApiVersions].max
	resp.ApiKeys = []kmsg.ApiVersionsResponseApiKey{k}
	return resp
}
