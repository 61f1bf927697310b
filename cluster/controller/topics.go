package controller

import (
	"context"
	"maps"
	"slices"

	"github.com/everlog/everlog/cluster/config"
	"github.com/everlog/everlog/cluster/metadata"
	"github.com/everlog/everlog/tier/record"
)

// maxPartitionsPerRequest is Kafka's limit of partitions in one CreateTopics or CreatePartitions request.
const maxPartitionsPerRequest = 10_000

// NewTopic is a topic to create.
type NewTopic struct {
	Name string
	// Partitions and ReplicationFactor are -1 for the broker's default, and must be -1 with Assignments.
	Partitions        int32
	ReplicationFactor int16
	// Assignments are the replicas by partition, the preferred leader first; nil lets the controller choose.
	Assignments map[int32][]int32
	// Configs are the topic's own settings; a nil value is refused.
	Configs map[string]*string
}

// TopicResult is what became of one topic of a request. With an error only Name and ID are meaningful.
type TopicResult struct {
	Name              string
	ID                record.TopicID
	Partitions        int32
	ReplicationFactor int16
	// Configs are the topic's own settings.
	Configs map[string]string
	Err     error
}

// CreateTopics creates topics, each for itself, and returns one result per topic in the same order; validateOnly does
// everything but create. ErrTopicExists, ErrInvalidTopicName, ErrInvalidPartitions, ErrInvalidReplicationFactor,
// ErrInvalidAssignment, ErrInvalidConfig, ErrInvalidRequest, ErrPolicy; ErrNotController and ErrUnavailable for all.
func (c *Controller) CreateTopics(ctx context.Context, topics []NewTopic, validateOnly bool) []TopicResult {
	return c.topicRequest(ctx, len(topics), func(i int) TopicResult { return TopicResult{Name: topics[i].Name} },
		func(img *metadata.Image) ([]TopicResult, plan) {
			total, seen := 0, map[string]int{}
			for i := range topics {
				seen[topics[i].Name]++
				total += max(int(topics[i].Partitions), len(topics[i].Assignments), 1)
			}
			settings, p := c.settings(img), plan{weight: total}
			results := make([]TopicResult, len(topics))
			for i := range topics {
				t := &topics[i]
				r := metadata.TopicCreated{Name: t.Name}
				var err error
				switch {
				case seen[t.Name] > 1:
					err = refuse(ErrInvalidRequest, "Duplicate topic name.")
				case total > maxPartitionsPerRequest:
					err = refuse(ErrPolicy, "Excessively large number of partitions per request.")
				default:
					r, err = t.plan(img, settings)
				}
				results[i] = TopicResult{Name: t.Name, Err: err}
				if err != nil {
					continue
				}
				results[i] = TopicResult{Name: t.Name, ID: r.ID, Partitions: int32(len(r.Partitions)),
					ReplicationFactor: int16(len(r.Partitions[0].Replicas)), Configs: r.Configs}
				img = p.add(img, r, &results[i].Err)
			}
			return results, p.unless(validateOnly)
		})
}

// add appends a record and returns the image with it, or sets err.
func (p *plan) add(img *metadata.Image, r metadata.Record, err *error) *metadata.Image {
	next, misfit := img.With(r)
	if misfit != nil {
		*err = misfit
		return img
	}
	p.records = append(p.records, r)
	return next
}

func (p plan) unless(validateOnly bool) plan {
	if validateOnly {
		p.records = nil
	}
	return p
}

// topicRequest runs a request over n topics and spreads an error of the whole over all.
func (c *Controller) topicRequest(ctx context.Context, n int, blank func(int) TopicResult, build func(*metadata.Image) ([]TopicResult, plan)) []TopicResult {
	if n == 0 {
		return nil
	}
	results, _, err := submit[[]TopicResult](ctx, c, func(img *metadata.Image) plan {
		results, p := build(img)
		p.answer = results
		return p
	})
	if err == nil {
		return results
	}
	results = make([]TopicResult, n)
	for i := range results {
		results[i] = blank(i)
		results[i].Err = err
	}
	return results
}

// plan checks a topic against an image and returns the record that creates it.
func (t *NewTopic) plan(img *metadata.Image, settings *config.Broker) (metadata.TopicCreated, error) {
	r := metadata.TopicCreated{Name: t.Name}
	if err := ValidateTopicName(t.Name); err != nil {
		return r, err
	}
	if img.Topic(t.Name) != nil {
		return r, refuse(ErrTopicExists, "Topic '%s' already exists.", t.Name)
	}
	if other := collision(img, t.Name); other != nil {
		return r, refuse(ErrInvalidTopicName, "Topic '%s' collides with existing topic: %s", t.Name, other.Name)
	}
	changes := make([]config.Change, 0, len(t.Configs))
	for _, name := range slices.Sorted(maps.Keys(t.Configs)) {
		if t.Configs[name] == nil {
			return r, refuse(ErrInvalidConfig, "Null value not supported for topic configs: %s", name)
		}
		changes = append(changes, config.Change{Name: name, Op: config.Set, Value: t.Configs[name]})
	}
	// A topic that was not there has nothing remote: it may begin without tiering.
	configs, err := config.AlterTopic(map[string]string{"remote.storage.enable": "false"}, withRemote(changes), settings)
	if err != nil {
		return r, err
	}
	assignment, err := t.assignment(img, settings)
	if err != nil {
		return r, err
	}
	r.ID, r.Configs = record.NewTopicID(), configs
	for _, replicas := range assignment {
		r.Partitions = append(r.Partitions, newPartition(img, replicas))
	}
	return r, nil
}

// withRemote makes the default of remote.storage.enable explicit, where a request does not set it, so that the rules that
// hold for tiered topics are checked.
func withRemote(changes []config.Change) []config.Change {
	const name = "remote.storage.enable"
	if slices.ContainsFunc(changes, func(c config.Change) bool { return c.Name == name }) {
		return changes
	}
	return append(changes, config.Change{Name: name, Op: config.Delete})
}

// newPartition is a partition that begins with all its registered replicas in sync.
func newPartition(img *metadata.Image, replicas []int32) metadata.Partition {
	p := metadata.Partition{Leader: metadata.NoLeader, Replicas: replicas}
	for _, b := range replicas {
		if img.Broker(b) != nil {
			p.ISR = append(p.ISR, b)
		}
	}
	if len(p.ISR) > 0 {
		p.Leader = p.ISR[0]
	}
	return p
}

func (t *NewTopic) assignment(img *metadata.Image, settings *config.Broker) ([][]int32, error) {
	if t.Assignments != nil {
		return t.manual(img)
	}
	count, factor := int(t.Partitions), int(t.ReplicationFactor)
	if factor < -1 || factor == 0 {
		return nil, refuse(ErrInvalidReplicationFactor, "Replication factor must be larger than 0, or -1 to use the default value.")
	}
	if count < -1 || count == 0 {
		return nil, refuse(ErrInvalidPartitions, "Number of partitions was set to an invalid non-positive value.")
	}
	if count == -1 {
		count = int(settings.NumPartitions)
	}
	if factor == -1 {
		factor = int(settings.DefaultReplicationFactor)
	}
	return choose(img, count, factor)
}

// choose places count new partitions on the registered brokers.
func choose(img *metadata.Image, count, factor int) ([][]int32, error) {
	ids := img.BrokerIDs()
	if factor > len(ids) {
		return nil, refuse(ErrInvalidReplicationFactor, "Unable to replicate the partition %d time(s): The target replication factor of %d cannot be reached because only %d broker(s) are registered.", factor, factor, len(ids))
	}
	brokers := make([]*metadata.Broker, len(ids))
	for i, id := range ids {
		brokers[i] = img.Broker(id)
	}
	first := 0
	for t := range img.Topics() {
		first += len(t.Partitions)
	}
	return place(brokers, first, count, factor), nil
}

// manual checks a manual assignment.
func (t *NewTopic) manual(img *metadata.Image) ([][]int32, error) {
	if t.ReplicationFactor != -1 {
		return nil, refuse(ErrInvalidRequest, "A manual partition assignment was specified, but replication factor was not set to -1.")
	}
	if t.Partitions != -1 {
		return nil, refuse(ErrInvalidRequest, "A manual partition assignment was specified, but numPartitions was not set to -1.")
	}
	assignment := make([][]int32, len(t.Assignments))
	for i := range assignment {
		replicas, ok := t.Assignments[int32(i)]
		if !ok {
			return nil, refuse(ErrInvalidAssignment, "partitions should be a consecutive 0-based integer sequence")
		}
		assignment[i] = replicas
	}
	if len(assignment) == 0 {
		return nil, refuse(ErrInvalidAssignment, "The manual partition assignment is empty.")
	}
	return assignment, checkAssignment(img, assignment, len(assignment[0]))
}

// checkAssignment applies Kafka's rules for replica lists that people wrote.
func checkAssignment(img *metadata.Image, assignment [][]int32, factor int) error {
	for _, replicas := range assignment {
		if len(replicas) == 0 {
			return refuse(ErrInvalidAssignment, "The manual partition assignment includes an empty replica list.")
		}
		for i, b := range replicas {
			if slices.Contains(replicas[:i], b) {
				return refuse(ErrInvalidAssignment, "The manual partition assignment includes the broker %d more than once.", b)
			}
			if img.Broker(b) == nil {
				return refuse(ErrInvalidAssignment, "The manual partition assignment includes broker %d, but no such broker is registered.", b)
			}
		}
		if len(replicas) != factor {
			return refuse(ErrInvalidAssignment, "The manual partition assignment includes a partition with %d replica(s), but this is not consistent with previous partitions, which have %d replica(s).", len(replicas), factor)
		}
	}
	return nil
}

// TopicRef names a topic by name, or by id if Name is "".
type TopicRef struct {
	Name string
	ID   record.TopicID
}

func (r TopicRef) find(img *metadata.Image) (*metadata.Topic, error) {
	if r.Name != "" {
		if t := img.Topic(r.Name); t != nil {
			return t, nil
		}
		return nil, refuse(ErrUnknownTopic, "This server does not host this topic-partition.")
	}
	if t := img.TopicByID(r.ID); t != nil {
		return t, nil
	}
	return nil, refuse(ErrUnknownTopicID, "This server does not host this topic ID.")
}

// DeleteTopics deletes topics, each for itself. A name is free as soon as this returns; a topic created under it has
// another id. ErrUnknownTopic, ErrUnknownTopicID, ErrDeletionDisabled, ErrInvalidRequest (named twice); see CreateTopics.
func (c *Controller) DeleteTopics(ctx context.Context, topics []TopicRef) []TopicResult {
	return c.topicRequest(ctx, len(topics), func(i int) TopicResult { return TopicResult{Name: topics[i].Name, ID: topics[i].ID} },
		func(img *metadata.Image) ([]TopicResult, plan) {
			allowed, base := c.settings(img).DeleteTopics, img
			named := map[record.TopicID]int{}
			for _, ref := range topics {
				if t, err := ref.find(base); err == nil {
					named[t.ID]++
				}
			}
			var p plan
			results := make([]TopicResult, len(topics))
			for i, ref := range topics {
				results[i] = TopicResult{Name: ref.Name, ID: ref.ID}
				t, err := ref.find(base)
				switch {
				case (ref.Name == "") == ref.ID.IsZero():
					err = refuse(ErrInvalidRequest, "A topic is deleted by its name or by its id, one of the two.")
				case err != nil:
				case !allowed:
					err = refuse(ErrDeletionDisabled, "Topic deletion is disabled.")
				case named[t.ID] > 1:
					err = refuse(ErrInvalidRequest, "Duplicate topic name.")
				default:
					results[i].Name, results[i].ID = t.Name, t.ID
					img = p.add(img, metadata.TopicDeleted{ID: t.ID}, &err)
					p.weight += len(t.Partitions)
				}
				results[i].Err = err
			}
			return results, p
		})
}

// Growth asks for more partitions of a topic.
type Growth struct {
	Name string
	// Count is the total afterwards.
	Count int32
	// Assignments are the replicas of each new partition; nil lets the controller choose.
	Assignments [][]int32
}

// CreatePartitions adds partitions to topics, each for itself. ErrUnknownTopic, ErrInvalidPartitions,
// ErrInvalidAssignment, ErrInvalidReplicationFactor, ErrInvalidRequest, ErrPolicy; see CreateTopics.
func (c *Controller) CreatePartitions(ctx context.Context, topics []Growth, validateOnly bool) []TopicResult {
	return c.topicRequest(ctx, len(topics), func(i int) TopicResult { return TopicResult{Name: topics[i].Name} },
		func(img *metadata.Image) ([]TopicResult, plan) {
			var p plan
			total, seen := 0, map[string]int{}
			for _, g := range topics {
				seen[g.Name]++
				if t := img.Topic(g.Name); t != nil {
					total += max(int(g.Count)-len(t.Partitions), 0)
				}
			}
			p.weight = total
			results := make([]TopicResult, len(topics))
			for i, g := range topics {
				results[i] = TopicResult{Name: g.Name}
				var r metadata.PartitionsAdded
				var err error
				switch {
				case seen[g.Name] > 1:
					err = refuse(ErrInvalidRequest, "Duplicate topic name.")
				case total > maxPartitionsPerRequest:
					err = refuse(ErrPolicy, "Excessively large number of partitions per request.")
				default:
					r, err = g.plan(img)
				}
				if err == nil {
					results[i].ID, results[i].Partitions = r.ID, g.Count
					img = p.add(img, r, &err)
				}
				results[i].Err = err
			}
			return results, p.unless(validateOnly)
		})
}

func (g Growth) plan(img *metadata.Image) (r metadata.PartitionsAdded, err error) {
	t, err := TopicRef{Name: g.Name}.find(img)
	if err != nil {
		return r, err
	}
	have := int32(len(t.Partitions))
	added := int(g.Count - have)
	switch {
	case g.Count == have:
		return r, refuse(ErrInvalidPartitions, "Topic already has %d partition(s).", have)
	case g.Count < have:
		return r, refuse(ErrInvalidPartitions, "The topic %s currently has %d partition(s); %d would not be an increase.", g.Name, have, g.Count)
	case g.Assignments != nil && len(g.Assignments) != added:
		return r, refuse(ErrInvalidAssignment, "Attempted to add %d additional partition(s), but only %d assignment(s) were specified.", added, len(g.Assignments))
	}
	factor, assignment := len(t.Partitions[0].Replicas), g.Assignments
	if assignment == nil {
		assignment, err = choose(img, added, factor)
	} else {
		err = checkAssignment(img, assignment, factor)
	}
	if err != nil {
		return r, err
	}
	r = metadata.PartitionsAdded{ID: t.ID, First: have}
	for _, replicas := range assignment {
		r.Partitions = append(r.Partitions, newPartition(img, replicas))
	}
	return r, nil
}
