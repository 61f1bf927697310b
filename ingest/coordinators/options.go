package coordinators

import (
	"crypto/rand"
	"fmt"
	"strings"
	"time"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/cluster/group"
	"github.com/everlog/everlog/cluster/group/consumer"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/cluster/txn"
	"github.com/everlog/everlog/tier/record"
)

// groupOptions takes a group coordinator's options from the broker's settings.
func groupOptions(c *config.Broker) group.Options {
	return group.Options{
		NewID:                  newID,
		InitialRebalanceDelay:  orNone(c.Millis("group.initial.rebalance.delay.ms")),
		MinSessionTimeout:      c.Millis("group.min.session.timeout.ms"),
		MaxSessionTimeout:      c.Millis("group.max.session.timeout.ms"),
		MaxSize:                int(c.Int("group.max.size")),
		MaxOffsetMetadata:      int(c.Int("offset.metadata.max.bytes")),
		OffsetsRetention:       time.Duration(c.Int("offsets.retention.minutes")) * time.Minute,
		RetentionCheckInterval: c.Millis("offsets.retention.check.interval.ms"),
		Consumer:               consumerOptions(c, nil),
	}
}

// consumerOptions are those of a KIP-848 group with settings of its own.
func consumerOptions(c *config.Broker, own map[string]string) consumer.Options {
	g := config.Group(own, c)
	return consumer.Options{
		SessionTimeout:       g.SessionTimeout,
		HeartbeatInterval:    g.HeartbeatInterval,
		AssignmentInterval:   orNone(g.AssignmentInterval),
		RegexRefreshInterval: c.Millis("group.consumer.regex.refresh.interval.ms"),
		MaxSize:              int(c.Int("group.consumer.max.size")),
		Assignors:            c.List("group.consumer.assignors"),
		Migration:            migrationPolicy(c.Text("group.consumer.migration.policy")),
	}
}

// configured is the event that gives groups the settings that an image has for them.
func configured(img *metadata.Image, c *config.Broker) group.Configured {
	return group.Configured{Of: func(id string) consumer.Options { return consumerOptions(c, controller.GroupConfigs(img, id)) }}
}

// orNone is d with 0 as "none", for which the machines take what is negative: their 0 is the default.
func orNone(d time.Duration) time.Duration {
	if d == 0 {
		return -1
	}
	return d
}

func migrationPolicy(name string) consumer.MigrationPolicy {
	switch strings.ToLower(name) {
	case "upgrade":
		return consumer.UpgradeOnly
	case "downgrade":
		return consumer.DowngradeOnly
	case "disabled":
		return consumer.MigrationDisabled
	}
	return consumer.Bidirectional
}

// newID is a random UUID as Java writes it in member ids.
func newID() string {
	var p [16]byte
	_, _ = rand.Read(p[:]) // it never fails
	p[6], p[8] = p[6]&0x0f|0x40, p[8]&0x3f|0x80
	return fmt.Sprintf("%x-%x-%x-%x-%x", p[:4], p[4:6], p[6:8], p[8:10], p[10:])
}

// txnOptions takes a transaction coordinator's options from the broker's settings.
func txnOptions(c *config.Broker, epoch record.LeaderEpoch) txn.Options {
	return txn.Options{Epoch: epoch, MaxTimeout: c.Millis("transaction.max.timeout.ms"), Expiration: c.Millis("transactional.id.expiration.ms")}
}
