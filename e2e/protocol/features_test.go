package protocol

import (
	"testing"

	"github.com/twmb/franz-go/pkg/kmsg"
)

// level is a feature as it is advertised.
type level struct{ min, max, finalized int16 }

func featuresOf(c *Conn, version int16) (map[string]level, *kmsg.ApiVersionsResponse) {
	c.t.Helper()
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName, req.ClientSoftwareVersion = "suite", "1"
	resp := Ask[*kmsg.ApiVersionsResponse](c, version, req)
	all := map[string]level{}
	for _, f := range resp.SupportedFeatures {
		all[f.Name] = level{min: f.MinVersion, max: f.MaxVersion}
	}
	for _, f := range resp.FinalizedFeatures {
		l := all[f.Name]
		l.finalized = f.MaxVersionLevel
		all[f.Name] = l
	}
	return all, resp
}

var featureRules = []rule{
	{"§2.3", "feature names and 4.3 production levels: metadata.version 7..30, transaction.version 0..2, group.version 0..1, kraft.version", func(t *testing.T, b *broker) {
		got, resp := featuresOf(b.dial(t), 4)
		served := map[int16]bool{}
		for _, k := range resp.ApiKeys {
			served[k.ApiKey] = true
		}
		want(t, "metadata.version", got["metadata.version"], level{7, 30, 30})
		want(t, "kraft.version", got["kraft.version"], level{0, 1, 0})
		for name, f := range map[string]struct {
			key int16
			level
		}{"group.version": {68, level{0, 1, 1}}, "transaction.version": {24, level{0, 2, 2}}} {
			if served[f.key] {
				want(t, name, got[name], f.level)
			} else {
				want(t, name+", whose API is not served", got[name], level{})
			}
		}
		for _, name := range []string{"share.version", "streams.version", "eligible.leader.replicas.version"} {
			want(t, name, got[name], differs(b, level{0, 1, 1}, level{}, "everlog serves neither share nor streams groups, and has no eligible leader replicas"))
		}
	}},
	{"§2.3", "FinalizedFeatures carry MinVersionLevel = MaxVersionLevel = level; level 0 is omitted; version 3 has the same", func(t *testing.T, b *broker) {
		c := b.dial(t)
		four, _ := featuresOf(c, 4)
		_, three := featuresOf(c, 3)
		finalized := 0
		for _, f := range four {
			if f.finalized > 0 {
				finalized++
			}
		}
		want(t, "finalized in version 3", len(three.FinalizedFeatures), finalized)
		for _, f := range three.FinalizedFeatures {
			want(t, f.Name, f.MinVersionLevel, f.MaxVersionLevel)
			want(t, f.Name+" in version 4", four[f.Name].finalized, f.MaxVersionLevel)
		}
	}},
	{"§2.3", "FinalizedFeaturesEpoch ≥ 0, and it never goes back", func(t *testing.T, b *broker) {
		c := b.dial(t)
		_, before := featuresOf(c, 4)
		b.topic(t, 1)
		_, after := featuresOf(c, 4)
		if before.FinalizedFeaturesEpoch < 0 || after.FinalizedFeaturesEpoch < before.FinalizedFeaturesEpoch {
			t.Errorf("epoch %d, then %d", before.FinalizedFeaturesEpoch, after.FinalizedFeaturesEpoch)
		}
	}},
}
