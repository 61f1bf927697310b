package kafka

import (
	"github.com/twmb/franz-go/pkg/kmsg"

	"github.com/everlog/everlog/cluster/metadata"
)

// feature is a feature of the protocol, by which clients and consoles choose what they use (KIP-584).
type feature struct {
	name string
	// min to max are supported, level is finalised; 0 is off, and then it is not named among the finalised.
	min, max, level int16
	// needs is the API key without which there is no such feature, 0 for none. So a build that serves no groups of the
	// consumer protocol, or no transactions, does not claim them.
	needs int16
}

// features are those of a Kafka 4.3 cluster that everlog has too. Kafka's share.version, streams.version and
// eligible.leader.replicas.version are missing because their level is 0 here: none of the three is served.
var features = []feature{
	{name: "group.version", max: 1, level: 1, needs: 68},       // KIP-848
	{name: "kraft.version", max: 1},                            // of the controllers' quorum, which everlog has not: level 0, as a new 4.3 cluster shows it
	{name: "metadata.version", min: 7, max: 30, level: 30},     // 4.3-IV0: consoles derive the version of Kafka from it
	{name: "transaction.version", max: 2, level: 2, needs: 24}, // KIP-890: clients that see it add partitions implicitly
}

// addFeatures puts the features into an answer of ApiVersions.
func addFeatures(resp *kmsg.ApiVersionsResponse, image *metadata.Image) {
	for _, f := range features {
		if _, served := apis[f.needs]; f.needs != 0 && !served {
			continue
		}
		// Before v4 clients take a supported feature whose minimum is 0 for malformed (KAFKA-17011).
		if f.min > 0 || resp.Version >= 4 {
			sf := kmsg.NewApiVersionsResponseSupportedFeature()
			sf.Name, sf.MinVersion, sf.MaxVersion = f.name, f.min, f.max
			resp.SupportedFeatures = append(resp.SupportedFeatures, sf)
		}
		if f.level > 0 {
			ff := kmsg.NewApiVersionsResponseFinalizedFeature()
			ff.Name, ff.MinVersionLevel, ff.MaxVersionLevel = f.name, f.level, f.level
			resp.FinalizedFeatures = append(resp.FinalizedFeatures, ff)
		}
	}
	// A running Java producer takes over another list only with a greater epoch. A broker of another version registers
	// anew before it answers, and each registration makes a new version of the image.
	resp.FinalizedFeaturesEpoch = int64(image.Version)
}
