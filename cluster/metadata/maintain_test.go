package metadata

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
)

func names(t *testing.T, store object.Store, prefix string) (list []string) {
	t.Helper()
	all, err := store.List(t.Context(), prefix, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		list = append(list, strings.TrimPrefix(a.Name, prefix))
	}
	return list
}

// aged is a cluster whose first numbers were dropped.
func aged(t *testing.T, store object.Store) *Log {
	t.Helper()
	l := open(t, store, Options{Writer: "a", SnapshotEvery: 10, Retain: 24 * time.Hour})
	elect(t, l)
	for range 4 {
		fill(t, l, 10)
		if err := l.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(13 * time.Hour)
	}
	return l
}

func TestSnapshotsAndTruncation(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := object.NewMemory()
		l := aged(t, store)
		// Snapshots at 11, 21, 31 and 41; at the last one only the marks of 11 and 21... of which 11 is 39 h and 21 is 26 h old.
		logs, snaps := names(t, store, logPrefix), names(t, store, snapshotPrefix)
		if len(logs) != 41-21 || logs[0] != "00000000000000000022" || len(snaps) != 2 {
			t.Errorf("%d numbers from %s on, snapshots %v", len(logs), logs[0], snaps)
		}
		if err := l.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if again := names(t, store, snapshotPrefix); len(again) != 2 || again[1] != snaps[1] {
			t.Errorf("a snapshot that was not due: %v", again)
		}
		fill(t, l, 3)
		fresh := open(t, store, Options{})
		if dump(fresh.Image()) != dump(l.Image()) {
			t.Errorf("snapshot and rest is not the log:\n%s\n%s", dump(fresh.Image()), dump(l.Image()))
		}
		if _, err := fresh.Sync(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A follower that slept through a truncation goes on from the snapshot; leftovers below the boundary, which a delayed
// request created, are not believed and are swept away.
func TestFollowerBehindTheBoundary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := object.NewMemory()
		sleeper := open(t, store, Options{Writer: "s"})
		ahead := open(t, store, Options{Writer: "s2"})
		cache := &slotCache{p: sleeper.Image().encodeSnapshot("x", time.Time{})}
		l := aged(t, store)

		// A number as it would be had the sleeper committed in time: a valid chain, but below the boundary.
		img := sleeper.Image()
		leftover := encode(header{Kind: kindLog, Cluster: img.ClusterIDString(), Version: 1, Epoch: 1, Writer: "s", Commit: "late", Previous: img.last.String()},
			[]Record{ControllerElected{1, "s"}, set("false", "history")})
		if _, err := store.Put(t.Context(), logName(1), object.Bytes(leftover), object.PutOptions{Condition: object.IfAbsent()}); err != nil {
			t.Fatal(err)
		}
		for about, behind := range map[string]*Log{"awake again": sleeper, "with two leftovers": ahead, "started from an old cache": open(t, store, Options{Cache: cache})} {
			got, err := behind.Sync(t.Context())
			if err != nil || dump(got) != dump(l.Image()) {
				t.Errorf("%s: %v, version %d, %v", about, err, got.Version, got.Values("k")["false"])
			}
		}
		fill(t, l, 10)
		if err := l.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if logs := names(t, store, logPrefix); logs[0] == "00000000000000000001" {
			t.Error("the leftover was not swept")
		}
	})
}

// A leftover that does not even fit the chain is no sign of a restored bucket.
func TestForeignLeftoverBelowTheBoundary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := object.NewMemory()
		sleeper := open(t, store, Options{Writer: "s"})
		l := aged(t, store)
		leftover := encode(header{Kind: kindLog, Cluster: l.Image().ClusterIDString(), Version: 1, Epoch: 1, Writer: "s", Commit: "late", Previous: digest{1}.String()}, nil)
		if _, err := store.Put(t.Context(), logName(1), object.Bytes(leftover), object.PutOptions{}); err != nil {
			t.Fatal(err)
		}
		if img, err := sleeper.Sync(t.Context()); err != nil || dump(img) != dump(l.Image()) {
			t.Errorf("%v, version %d", err, img.Version)
		}
	})
}

// The log is truncated while a new process reads it, and a leftover takes the place of what it was about to read.
func TestTruncatedUnderAReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := object.NewMemory()
		origin := open(t, memory, Options{}).Image()
		var l *Log
		store := objecttest.NewFaulty(memory, func(c objecttest.Call) objecttest.Fault {
			if c.Op == "list" && c.Name == logPrefix && l == nil { // after the first look at the root
				l = aged(t, memory)
				leftover := encode(header{Kind: kindLog, Cluster: origin.ClusterIDString(), Version: 1, Epoch: 1, Writer: "s", Commit: "late", Previous: origin.last.String()},
					[]Record{ControllerElected{1, "s"}, set("false", "history")})
				if _, err := memory.Put(t.Context(), logName(1), object.Bytes(leftover), object.PutOptions{}); err != nil {
					t.Error(err)
				}
				if err := memory.Delete(t.Context(), covered(t, memory)...); err != nil { // all but the leftover: no hole to stumble over
					t.Error(err)
				}
			}
			return objecttest.Fault{}
		})
		reader := open(t, store, Options{Timeout: 1000 * time.Hour})
		if reader.Image().Values("k")["false"] != "" || reader.Image().Version < 41 {
			t.Errorf("version %d, %v", reader.Image().Version, reader.Image().Values("k")["false"])
		}
	})
}

// covered returns the numbers of the log that the snapshot covers, but for the first.
func covered(t *testing.T, store object.Store) (list []string) {
	for _, n := range names(t, store, logPrefix) {
		if v, _ := versionOf(n); v > 1 && v <= 41 {
			list = append(list, logPrefix+n)
		}
	}
	return list
}

// Rule 1: a create that succeeds in a number that was dropped is no success.
func TestPausedCommitterBelowTheBoundary(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := object.NewMemory()
		paused := make(chan struct{})
		release := make(chan struct{})
		frozen := false
		slow := objecttest.NewFaulty(memory, nil)
		store := &beforePut{Store: slow, hook: func(name string) {
			if name == logName(2) && !frozen {
				frozen = true
				close(paused)
				<-release
			}
		}}
		sleeper := open(t, store, Options{Writer: "s", Timeout: 1000 * time.Hour})
		elect(t, sleeper)
		base := sleeper.Image()
		result := make(chan error, 1)
		var img *Image
		go func() {
			var err error
			img, err = sleeper.Commit(t.Context(), base, set("false", "success"))
			result <- err
		}()
		<-paused
		l := aged(t, memory)
		close(release)
		if err := <-result; !errors.Is(err, ErrUnavailable) {
			t.Fatalf("a commit in a dropped number: %v", err)
		}
		if dump(img) != dump(l.Image()) || img.Values("k")["false"] != "" {
			t.Error("the image after it is not the cluster's")
		}
	})
}

// beforePut runs a hook before each Put, which can hold it up.
type beforePut struct {
	object.Store
	hook func(name string)
}

func (b *beforePut) Put(ctx context.Context, name string, body object.Body, o object.PutOptions) (object.Version, error) {
	b.hook(name)
	return b.Store.Put(ctx, name, body, o)
}

func TestMaintainUnderFaults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		memory := object.NewMemory()
		for kind := objecttest.Before; kind <= objecttest.SelfPrecondition; kind++ {
			faulty := objecttest.NewFaulty(memory, func(c objecttest.Call) objecttest.Fault {
				if c.Op == "put" && c.Name == rootName {
					return objecttest.Fault{Kind: kind}
				}
				return objecttest.Fault{}
			})
			l := open(t, faulty, Options{SnapshotEvery: 10, Retain: time.Hour})
			elect(t, l)
			fill(t, l, 12)
			err := l.Maintain(t.Context())
			applied := kind == objecttest.After || kind == objecttest.SelfPrecondition
			if (err == nil) != applied || l.Err() != nil {
				t.Errorf("fault %d: %v, %v", kind, err, l.Err())
			}
			for faulty.Late() > 0 {
				_ = faulty.ApplyLate(t.Context(), 0)
			}
			if fresh := open(t, memory, Options{}); dump(fresh.Image()) != dump(l.Image()) {
				t.Errorf("fault %d: a fresh start reads another image", kind)
			}
			time.Sleep(2 * time.Hour)
		}
	})
}

// Two that maintain at once: the boundary only moves forward, and nothing is lost.
func TestTwoMaintainers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store := object.NewMemory()
		a := aged(t, store)
		b := open(t, store, Options{Writer: "b", SnapshotEvery: 10})
		fill(t, a, 12)
		if _, err := b.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		before, _, err := b.readRoot(t.Context(), b.Image().ClusterIDString())
		if err != nil {
			t.Fatal(err)
		}
		stale, version, err := b.readRoot(t.Context(), b.Image().ClusterIDString())
		if err != nil {
			t.Fatal(err)
		}
		next, err := b.writeSnapshot(t.Context(), b.Image(), stale)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Maintain(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := b.swapRoot(t.Context(), next, version); err == nil {
			t.Error("an outdated swap succeeded")
		}
		after, _, err := b.readRoot(t.Context(), b.Image().ClusterIDString())
		if err != nil || after.Generation != before.Generation+1 || after.FirstRetained < before.FirstRetained {
			t.Errorf("%+v, %v", after, err)
		}
		if fresh := open(t, store, Options{}); dump(fresh.Image()) != dump(a.Image()) {
			t.Error("a fresh start reads another image")
		}
	})
}
