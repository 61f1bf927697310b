package manifest

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/everlog/everlog/tier/object"
	"github.com/everlog/everlog/tier/objecttest"
	"github.com/everlog/everlog/tier/record"
	"github.com/everlog/everlog/tier/segment"
)

var testID = segment.Identity{
	Cluster:   [16]byte{0xc1, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
	Topic:     record.TopicID{0x70, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1},
	Partition: 3,
}

var bg = context.Background()

// quick waits next to nothing between attempts, and makes small roots and pages.
var quick = Options{RootSegments: 4, PageSegments: 3, RetryDelay: time.Nanosecond}

// seg makes an entry; the number makes its object's name unique.
func seg(base, end record.Offset, first, last, writer record.LeaderEpoch, number int) Segment {
	s := Segment{
		Base: base, End: end, Epoch: writer, FirstEpoch: first, LastEpoch: last,
		Object: segment.ObjectName(testID, base, end, writer, fmt.Sprintf("%032x", number)),
		Size:   int64(1000 + number), FooterSize: 200, CRC: uint32(number) * 2654435761, DataSize: int64(3000 + number), Records: int64(end - base),
		MinTimestamp: int64(base) * 10, MaxTimestamp: int64(end)*10 - 1, MaxTimestampOffset: end - 1, Aborted: int32(number % 3),
	}
	if first != last {
		s.Epochs = []record.EpochStart{{Epoch: first, Start: base}, {Epoch: last, Start: base + 1}}
	}
	return s
}

// stored is the entry as a manifest gives it back.
func stored(s Segment) Segment {
	s.Epochs = nil
	return s
}

func open(t testing.TB, store object.Store, o Options) *Log {
	t.Helper()
	l, err := Open(bg, store, testID, o)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// claimed opens a log and claims epoch.
func claimed(t testing.TB, store object.Store, epoch record.LeaderEpoch, o Options) *Log {
	t.Helper()
	l := open(t, store, o)
	if err := l.Claim(bg, epoch); err != nil {
		t.Fatal(err)
	}
	return l
}

func all(t testing.TB, m *Manifest, store object.Store) []Segment {
	t.Helper()
	var out []Segment
	for s, err := range m.All(bg, store) {
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, s)
	}
	return out
}

func equal(a, b []Segment) bool {
	return slices.EqualFunc(a, b, func(a, b Segment) bool { return reflect.DeepEqual(a, b) })
}

// count makes a store whose operations are counted.
func count(inner object.Store) (*objecttest.Faulty, map[string]int) {
	calls := map[string]int{}
	return objecttest.NewFaulty(inner, func(c objecttest.Call) objecttest.Fault {
		calls[c.Op]++
		return objecttest.Fault{}
	}), calls
}

// segBase spaces segments evenly.
func segBase(i int) record.Offset { return record.Offset(i) * 10 }
