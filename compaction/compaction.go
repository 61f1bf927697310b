// Package compaction owns what is removed from a log and what is rewritten: retention over both tiers, trimming of local
// copies, deletion of topics, the sweep of orphaned objects, the merging of small ones, and key compaction. Planners are pure
// functions of what they are told; executors carry out their plans against a manifest and a store.
//
// It does not decide when to run, who leads, or what the log holds: ingest/partition calls it for what its replica leads,
// from the goroutine that owns the partition's manifest.Log (no two calls on one Log at a time), and ingest/broker calls
// PlanTrim over all replicas.
//
// # What makes deleting safe
//
// Unknown is not zero: nothing here runs for a leader that has not claimed the manifest, because state not loaded yet has
// cost others their data. A boundary moves, durably, before anything below it goes: log start in the manifest first, objects
// after; the local log start first, files after. An object is deleted when no manifest refers to it, none ever can again
// (names are never reused, and writers older than the claim are fenced), and readers that still hold an old manifest had
// time to finish. Whatever a crash leaves undone is an orphan that the next sweep finds.
package compaction

import (
	"errors"
	"fmt"

	"github.com/everlog/everlog/tier/manifest"
	"github.com/everlog/everlog/tier/record"
)

// ErrNotClaimed means that the manifest is not claimed by the epoch that wants to delete: its state may be old.
var ErrNotClaimed = errors.New("the remote log is not claimed for this leader epoch")

// ErrUnfinished means that objects of a deleted partition still wait for their deletion.
var ErrUnfinished = errors.New("not all objects are deleted yet")

// claimed returns the manifest if epoch has claimed it, as far as is known.
func claimed(log *manifest.Log, epoch record.LeaderEpoch) (*manifest.Manifest, error) {
	m := log.Manifest()
	if m.ClaimEpoch() != epoch {
		return nil, fmt.Errorf("%w: %d, it is claimed for %d", ErrNotClaimed, epoch, m.ClaimEpoch())
	}
	return m, nil
}
