package metadata

import (
	"encoding/base64"
	"fmt"
	"maps"
	"slices"
	"time"
)

// brokerState and topicState are whole values, where the records of the log are changes.
type brokerState struct{ Broker }
type topicState struct{ Topic }

func (brokerState) kind() (string, int) { return "broker", 1 }
func (topicState) kind() (string, int)  { return "topic", 1 }

func (r brokerState) apply(d *draft) error {
	if r.ID < 0 || d.img.Broker(r.ID) != nil {
		return misfit(r, "broker %d", r.ID)
	}
	d.setBroker(&r.Broker)
	return nil
}

func (r topicState) apply(d *draft) error {
	if err := (TopicCreated{ID: r.ID, Name: r.Name, Configs: r.Configs, Partitions: r.Partitions}).apply(d); err != nil {
		return err
	}
	d.topic(r.ID).Created = r.Created
	return nil
}

// encodeSnapshot writes the whole image. The same image gives the same bytes but for commit id and time.
func (m *Image) encodeSnapshot(commit string, now time.Time) []byte {
	var records []Record
	for _, id := range m.BrokerIDs() {
		records = append(records, brokerState{*m.brokers[id]})
	}
	for _, broker := range slices.Sorted(maps.Keys(m.configs)) {
		records = append(records, BrokerConfigured{broker, m.configs[broker]})
	}
	for t := range m.Topics() {
		records = append(records, topicState{*t})
	}
	for _, kind := range slices.Sorted(maps.Keys(m.values)) {
		for _, key := range slices.Sorted(maps.Keys(m.values[kind])) {
			records = append(records, ValueSet{kind, key, m.values[kind][key]})
		}
	}
	return encode(header{Kind: kindSnapshot, Cluster: m.ClusterIDString(), Version: m.Version, Epoch: m.Controller.Epoch,
		Writer: m.Controller.Writer, Commit: commit, Previous: m.last.String(), Time: now.UTC().Round(0),
		NextProducerID: m.NextProducerID}, records)
}

// decodeSnapshot reads what encodeSnapshot wrote.
func decodeSnapshot(p []byte) (*Image, error) {
	h, records, err := decode(p, kindSnapshot)
	if err != nil {
		return nil, err
	}
	id, err := parseClusterID(h.Cluster)
	if err != nil {
		return nil, err
	}
	last, err := parseDigest(h.Previous)
	if err != nil {
		return nil, err
	}
	d := newDraft(&Image{Version: h.Version, ClusterID: id, Controller: Controller{h.Epoch, h.Writer}, NextProducerID: h.NextProducerID, last: last})
	if err := d.applyAll(records); err != nil {
		return nil, fmt.Errorf("%w: snapshot of version %d: %w", ErrCorrupt, h.Version, err)
	}
	return d.img, nil
}

func parseClusterID(s string) (id [16]byte, err error) {
	p, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(p) != len(id) {
		return id, corrupt(fmt.Sprintf("cluster id %q", s))
	}
	return [16]byte(p), nil
}
