// Package lease owns one thing: at most one process believes, at any moment, that it holds a name, as far as clocks can
// promise that. A lease is one small object, <name> below lease/, swapped by compare-and-swap; its epoch grows by at least
// one with every acquisition and is the fencing token that makes the promise hold where clocks cannot.
//
// It does not protect anything by itself: a holder may be paused between its check and its write (a scheduler, SIGSTOP, a
// frozen machine), so whatever the holder does must carry the epoch and be refused by its receiver when a higher one was
// seen. In everlog that is the metadata log. The lease decides who should try; the log decides who did.
//
// Rules (as in the leader election of Kubernetes' client-go; reference: Gray and Cheriton, "Leases", SOSP 1989):
//   - Nobody compares wall clocks. The holder's deadline counts on its monotonic clock from before the request was sent; a
//     candidate counts a full lease from when it first saw the present version.
//   - The holder stops at two thirds of the lease, so that clocks may run a third apart in rate.
//   - A write without a clear answer is resolved by reading back and looking for its nonce; until then the same record is
//     sent again. A nonce in every body keeps equal ETags from meaning equal versions (ABA).
//   - The object is never deleted: a release writes released=true, so that epochs never start again.
//
// cluster/controller is the caller, through cmd/node, which runs it.
package lease

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Record is the object's body: one line of JSON of at most MaxBytes.
type Record struct {
	// Format is 1. A higher one means a later version of everlog holds the lease: it is respected, never taken over early.
	Format int    `json:"format"`
	Name   string `json:"name"`
	// Holder is what Options.Holder was; Address is for people and for whoever looks for the holder.
	Holder  string `json:"holder"`
	Address string `json:"address,omitempty"`
	// Epoch is greater than in any earlier acquisition of this name.
	Epoch    int64 `json:"epoch"`
	Released bool  `json:"released"`
	// Nonce is different in every body ever written.
	Nonce string `json:"nonce"`
	// Written is the writer's wall clock, for people only.
	Written time.Time `json:"written"`
}

// MaxBytes bounds a lease object, so that a request's head and body leave in one write: a store may hold the object's lock
// while it waits for a body.
const MaxBytes = 2048

const format = 1

// ErrCorrupt means that the lease object holds something that is no lease of this name.
var ErrCorrupt = errors.New("corrupt lease object")

// ObjectName returns the name of a lease's object.
func ObjectName(name string) string { return "lease/" + name }

func (r Record) encode() []byte {
	p, err := json.Marshal(r)
	if err != nil || len(p) > MaxBytes {
		panic(fmt.Sprintf("lease record of %d bytes: %v", len(p), err)) // Options.check keeps the fields short
	}
	return append(p, '\n')
}

func decode(p []byte, name string) (Record, error) {
	var r Record
	if err := json.Unmarshal(p, &r); err != nil {
		return r, fmt.Errorf("lease %s: %w: %w", name, ErrCorrupt, err)
	}
	if r.Format < 1 || r.Name != name || r.Epoch < 1 || r.Nonce == "" {
		return r, fmt.Errorf("lease %s: %w: format %d, name %q, epoch %d", name, ErrCorrupt, r.Format, r.Name, r.Epoch)
	}
	return r, nil
}
