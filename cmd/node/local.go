package node

import (
	"encoding/json"
	"fmt"

	"github.com/everlog/everlog/cluster/controller"
	"github.com/everlog/everlog/tier/record"
)

// localEpochsName holds the epochs in which this broker leads without the store's consent: durable before it acts in
// them, so that none is ever used twice.
const localEpochsName = "local-epochs"

// localEpoch is one of them as stored.
type localEpoch struct {
	Topic     record.TopicID     `json:"topic"`
	Partition int32              `json:"partition"`
	Epoch     record.LeaderEpoch `json:"epoch"`
}

// leadLocally returns the epochs in which the broker may lead while the store is away, made durable; nil if this disk
// does not know the cluster, or is not the one registered.
func (n *Node) leadLocally(r controller.Registration) (map[controller.Partition]record.LeaderEpoch, error) {
	used, err := n.loadLocalEpochs()
	if err != nil {
		return nil, err
	}
	var failed error
	floor := func(p controller.Partition) record.LeaderEpoch {
		highest := record.NoEpoch
		if e, ok := used[p]; ok {
			highest = e
		}
		saved, err := n.state.Log(p.Topic, p.Index).Load()
		if err != nil {
			failed = err
			return highest
		}
		if len(saved.Epochs) > 0 {
			highest = max(highest, saved.Epochs[len(saved.Epochs)-1].Epoch)
		}
		return highest
	}
	epochs := controller.LocalLeaderships(n.meta.Image(), r.ID, r.DiskID, floor)
	if failed != nil {
		return nil, fmt.Errorf("leader epochs on this disk: %w", failed)
	}
	if epochs == nil {
		return nil, nil
	}
	return epochs, n.saveLocalEpochs(epochs)
}

func (n *Node) loadLocalEpochs() (map[controller.Partition]record.LeaderEpoch, error) {
	p, err := n.state.Get(localEpochsName)
	if err != nil || p == nil {
		return nil, err
	}
	var list []localEpoch
	if err := json.Unmarshal(p, &list); err != nil {
		return nil, fmt.Errorf("local leader epochs: %w", err)
	}
	epochs := map[controller.Partition]record.LeaderEpoch{}
	for _, e := range list {
		epochs[controller.Partition{Topic: e.Topic, Index: e.Partition}] = e.Epoch
	}
	return epochs, nil
}

// saveLocalEpochs replaces the stored epochs; nil removes them.
func (n *Node) saveLocalEpochs(epochs map[controller.Partition]record.LeaderEpoch) error {
	if epochs == nil {
		return n.state.Set(localEpochsName, nil)
	}
	list := []localEpoch{}
	for p, e := range epochs {
		list = append(list, localEpoch{p.Topic, p.Index, e})
	}
	p, err := json.Marshal(list)
	if err != nil {
		return err
	}
	return n.state.Set(localEpochsName, p)
}
